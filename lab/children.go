package lab

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// children starts processes. As process 1 it also reaps those that nobody waits for: grandchildren whose
// parents have died. It never reaps a process that it started, since the caller waits for that one.
type children struct {
	mu    sync.Mutex // held while starting, so that reap never sees an unknown child
	known map[int]bool
}

func newChildren() *children { return &children{known: map[int]bool{}} }

func (c *children) start(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	c.known[cmd.Process.Pid] = true
	return nil
}

func (c *children) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, cmd.Process.Pid)
	return err
}

// output runs cmd to its end and returns its output, errors included.
func (c *children) output(cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := c.start(cmd); err != nil {
		return "", err
	}
	err := c.wait(cmd)
	return strings.TrimSpace(out.String()), err
}

// run reaps until ctx ends.
func (c *children) run(ctx context.Context) {
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	defer signal.Stop(died)
	for {
		select {
		case <-ctx.Done():
			return
		case <-died:
			c.reap()
		}
	}
}

func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || c.known[pid] {
			continue
		}
		if st, err := readStat(path); err == nil && st.zombie && st.parent == os.Getpid() {
			var status syscall.WaitStatus
			_, _ = syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		}
	}
}

type procStat struct {
	zombie  bool
	parent  int
	started string // in clock ticks after boot; with the pid, it identifies a process for ever
}

// readStat reads /proc/PID/stat: proc_pid_stat(5).
func readStat(path string) (procStat, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return procStat{}, err
	}
	// The command name is in parentheses and may hold spaces and parentheses, too.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return procStat{}, os.ErrInvalid
	}
	parent, err := strconv.Atoi(fields[1])
	return procStat{zombie: fields[0] == "Z", parent: parent, started: fields[19]}, err
}
