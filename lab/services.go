package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pxectl/pxectl/internal/sleep"
)

// A service is a program that runs beside the machines. A second after its end it is started again, as
// systemd would.
type service struct {
	name  string
	argv  []string
	log   string // file for its output
	ready string // file or socket that exists once it serves; "" to wait for nothing
}

const (
	restartPause  = time.Second
	stopGrace     = 3 * time.Second
	readyDeadline = 10 * time.Second
)

// capture writes every boot packet of the rack to dhcp.pcap, each one at once (-U).
func capture(dir string) service {
	pcap := filepath.Join(dir, "dhcp.pcap")
	return service{
		name: "tcpdump", log: filepath.Join(dir, "tcpdump.log"), ready: pcap,
		argv: []string{
			"tcpdump", "-i", bridge, "-n", "-s", "0", "-U", "-Z", "root", "-w", pcap,
			"udp port 67 or udp port 68 or udp port 69 or udp port 4011",
		},
	}
}

// appliance is the appliance itself. The socket of somebody else's configuration is unknown, so nobody waits
// for that one.
func appliance(c Config) service {
	svc := service{
		name: "appliance",
		argv: []string{c.Binary, "serve", "--config", c.ApplianceConfig},
		log:  filepath.Join(c.Dir, "appliance.log"),
	}
	if c.ApplianceConfig == ownApplianceConfig(c.Dir) {
		svc.ready = applianceSocket(c.Dir)
	}
	return svc
}

func ownApplianceConfig(dir string) string { return filepath.Join(dir, "appliance.yaml") }
func applianceSocket(dir string) string    { return filepath.Join(dir, "pxectl.sock") }

// runService runs s until ctx ends. It returns after the first start, or its failure. stopped closes when the
// program has ended for good.
func (s *supervisor) runService(ctx context.Context, svc service) (stopped <-chan struct{}, err error) {
	out, err := os.OpenFile(svc.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	cmd, exited, err := s.spawn(svc, out)
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("start %s: %w", svc.name, err)
	}
	if err := awaitFile(svc, exited); err != nil {
		out.Close()
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer out.Close()
		s.keepRunning(ctx, svc, out, cmd, exited)
	}()
	return done, nil
}

func (s *supervisor) keepRunning(
	ctx context.Context, svc service, out *os.File, cmd *exec.Cmd, exited <-chan struct{},
) {
	for {
		select {
		case <-ctx.Done():
			stop(cmd, exited)
			return
		case <-exited:
			s.log.Warn("ended; starting it again", "service", svc.name, "how", cmd.ProcessState.String())
		}
		for exited = nil; exited == nil; {
			if sleep.For(ctx, restartPause) != nil {
				return
			}
			var err error
			if cmd, exited, err = s.spawn(svc, out); err != nil {
				s.log.Error("start again", "service", svc.name, "err", err)
			}
		}
	}
}

func (s *supervisor) spawn(svc service, out *os.File) (*exec.Cmd, <-chan struct{}, error) {
	cmd := exec.Command(svc.argv[0], svc.argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, s.Dir
	if err := s.children.start(cmd); err != nil {
		return nil, nil, err
	}
	s.log.Info("started", "service", svc.name, "pid", cmd.Process.Pid)
	exited := make(chan struct{})
	go func() {
		_ = s.children.wait(cmd)
		close(exited)
	}()
	return cmd, exited, nil
}

func stop(cmd *exec.Cmd, exited <-chan struct{}) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-exited:
	case <-time.After(stopGrace):
		_ = cmd.Process.Kill()
		<-exited
	}
}

func awaitFile(svc service, exited <-chan struct{}) error {
	if svc.ready == "" {
		return nil
	}
	deadline := time.After(readyDeadline)
	for {
		if st, err := os.Stat(svc.ready); err == nil && (st.Size() > 0 || st.Mode()&os.ModeSocket != 0) {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("%s ended at once: %s", svc.name, tail(svc.log))
		case <-deadline:
			return fmt.Errorf("%s is not ready after %s: %s", svc.name, readyDeadline, tail(svc.log))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// tail is the end of a log, for an error message.
func tail(path string) string {
	const most = 600
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimSpace(text)
	if len(text) > most {
		text = text[len(text)-most:]
	}
	if len(text) == 0 {
		return path + " is empty"
	}
	return string(text)
}
