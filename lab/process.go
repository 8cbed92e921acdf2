package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const downGrace = 10 * time.Second

// A process is a process id with its start time, so that it can never mean a later process with the same id.
type process struct {
	PID     int    `json:"pid"`
	Started string `json:"started"`
}

func processOf(pid int) (process, error) {
	st, err := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	return process{PID: pid, Started: st.started}, err
}

func (p process) save(dir string) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "lab.pid"), text, 0o644)
}

func loadProcess(dir string) (p process, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "lab.pid"))
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(text, &p)
}

func (p process) alive() bool {
	st, err := readStat(fmt.Sprintf("/proc/%d/stat", p.PID))
	return err == nil && st.started == p.Started && !st.zombie
}

func (p process) kill() {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if p.alive() { // alive after the descriptor was opened, so the descriptor is this process's
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// awaitEnd waits for the process to end, at most for limit unless that is 0. Process 1 of a namespace ends
// only after all others in it.
func (p process) awaitEnd(ctx context.Context, limit time.Duration) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for p.alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d has not ended: %w", p.PID, ctx.Err())
		case <-poll.C:
		}
	}
	return nil
}
