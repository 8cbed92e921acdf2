package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Descriptors that Up passes to the supervisor.
const (
	fdReport = 3 + iota // for "ready" or the error
	fdLock              // the open, locked DIR/lock
	fdParent            // closes when Up's process ends; passed only when attached
)

const readyReport = "ready"

// A supervisor is process 1 of a running rack.
type supervisor struct {
	Config
	log      *slog.Logger
	children *children
	machines []*machine
	accel    func() string
	down     context.CancelFunc // ends the rack
}

// Supervise is the body of `pxectl lab supervise`, which only Up runs. It builds the rack that dir/lab.json
// describes and runs it until it receives the order to end.
func Supervise(ctx context.Context, dir string, logTo io.Writer) error {
	if os.Getpid() != 1 {
		return errors.New("lab supervise: is started by `pxectl lab up`, in namespaces of its own")
	}
	syscall.CloseOnExec(fdLock) // otherwise a child that outlives us keeps the rack locked
	syscall.CloseOnExec(fdReport)
	report := os.NewFile(fdReport, "report")
	s := &supervisor{log: slog.New(slog.NewTextHandler(logTo, nil)), children: newChildren()}
	ctx, s.down = signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer s.down()

	wait, err := s.bringUp(ctx, dir)
	if err != nil {
		s.log.Error("the rack does not come up", "err", err)
		fmt.Fprint(report, strings.TrimSpace(err.Error()))
		return err
	}
	fmt.Fprint(report, readyReport)
	report.Close()
	s.log.Info("the rack is up")
	<-ctx.Done()
	s.log.Info("the rack ends")
	wait()
	return nil
}

// bringUp starts the rack and returns a function that waits for its end.
func (s *supervisor) bringUp(ctx context.Context, dir string) (wait func(), err error) {
	text, err := os.ReadFile(filepath.Join(dir, "lab.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &s.Config); err != nil {
		return nil, fmt.Errorf("lab.json: %w", err)
	}
	if s.Attached {
		syscall.CloseOnExec(fdParent)
		go func() {
			_, _ = os.NewFile(fdParent, "parent").Read(make([]byte, 1))
			s.down()
		}()
	}
	if err := mountPrivate(); err != nil {
		return nil, err
	}
	go s.children.run(ctx)
	s.accel = s.findAccel(ctx)
	if err := makeNetwork(s.children, len(s.Machines)); err != nil {
		return nil, err
	}
	control, err := net.Listen("unix", controlSocket(s.Dir))
	if err != nil {
		return nil, err
	}
	var running sync.WaitGroup
	services, err := site(s.Config)
	if err != nil {
		return nil, err
	}
	services = append(services, capture(s.Dir))
	if !s.NoAppliance {
		services = append(services, appliance(s.Config))
	}
	for _, svc := range services {
		stopped, err := s.runService(ctx, svc)
		if err != nil {
			return nil, err
		}
		running.Go(func() { <-stopped })
	}
	for i, spec := range s.Machines {
		m, err := newMachine(spec, i+1, s)
		if err != nil {
			return nil, err
		}
		serve, err := serveBMC(m)
		if err != nil {
			return nil, err
		}
		s.machines = append(s.machines, m)
		running.Go(func() { m.run(ctx) })
		running.Go(func() {
			if err := serve(ctx); err != nil && ctx.Err() == nil {
				m.log.Error("BMC", "err", err)
			}
		})
	}
	go s.serveControl(control)
	return func() { running.Wait(); control.Close() }, nil
}

// findAccel starts the search at once; only the first power-on needs the answer.
func (s *supervisor) findAccel(ctx context.Context) func() string {
	if s.Accel != "auto" {
		return func() string { return s.Accel }
	}
	var accel string
	done := make(chan struct{})
	go func() {
		defer close(done)
		accel = chooseAccel(ctx, s.children, s.Dir)
		s.log.Info("accelerator", "chosen", accel)
	}()
	return func() string { <-done; return accel }
}
