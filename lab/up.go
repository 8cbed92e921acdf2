package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrDown says that the rack is not up.
var ErrDown = errors.New("no rack is up")

// A Rack is a running rack.
type Rack struct {
	Dir   string
	super process
	// parent is a pipe's end whose closing ends an attached rack. It is a bare descriptor, so that no
	// finalizer closes it while the caller still needs the rack.
	parent int
}

// Up starts a rack and returns when it is ready: machines off, BMCs answering, the site's DHCP server and the
// capture running, the appliance answering on its socket (or, with a configuration that Up did not write,
// started).
func Up(ctx context.Context, c Config) (*Rack, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("lab up: needs root, for namespaces and network interfaces of its own")
	}
	if err := checkInstalled(c); err != nil {
		return nil, fmt.Errorf("lab up: %w", err)
	}
	if c.Binary == "" {
		var err error
		if c.Binary, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	lock, err := prepareDir(&c)
	if err != nil {
		return nil, fmt.Errorf("lab up: %w", err)
	}
	defer lock.Close()
	r, err := startSupervisor(ctx, c, lock)
	if err != nil {
		return nil, fmt.Errorf("lab up: %w", err)
	}
	return r, nil
}

// ownDir creates a directory that nobody else may enter, or checks that an existing one is ours and closed to
// others. Then nobody can put a link in it: the default is below /var/tmp, where everybody may create
// directories.
func ownDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.IsDir() || int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not a directory of ours that only we may write to (%s): remove it, or take another with --dir",
			dir, st.Mode())
	}
	return os.Chmod(dir, 0o700)
}

// prepareDir locks the directory, removes what an earlier rack left there and writes the first files of the
// new one.
func prepareDir(c *Config) (lock *os.File, err error) {
	if err := ownDir(c.Dir); err != nil {
		return nil, err
	}
	lock, err = os.OpenFile(filepath.Join(c.Dir, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("a rack is already up in %s; end it with: pxectl lab down --dir %s", c.Dir,
			c.Dir)
	}
	stale := []string{
		"lab.sock", "pxectl.sock", "lab.pid", "dnsmasq.pid", "dnsmasq.leases", "kea", "dhcp.pcap",
	}
	if c.Fresh {
		stale = append(stale, "machines", "data")
	}
	for _, name := range stale {
		if err := os.RemoveAll(filepath.Join(c.Dir, name)); err != nil {
			return nil, err
		}
	}
	if c.ApplianceConfig == "" && !c.NoAppliance {
		c.ApplianceConfig = ownApplianceConfig(c.Dir)
		if err := os.WriteFile(c.ApplianceConfig, []byte(applianceYAML(*c)), 0o600); err != nil {
			return nil, err
		}
	}
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, err
	}
	return lock, os.WriteFile(filepath.Join(c.Dir, "lab.json"), text, 0o644)
}

// applianceYAML is the appliance's default configuration. On a network without a DHCP server, the appliance
// is the DHCP server.
func applianceYAML(c Config) string {
	dir, dhcp := c.Dir, "mode: proxy"
	if c.DHCP == NoDHCP {
		dhcp = "mode: server\n  server:\n    subnets:\n      - {subnet: 10.77.0.0/24, pools: [10.77.0.100-10.77.0.200]}"
	}
	return fmt.Sprintf(`# Written by pxectl lab up.
data_dir: %[1]q
provisioning:
  interfaces:
    - name: %[2]s
      address: %[3]s
dhcp:
  %[4]s
api:
  socket: %[5]q
discovery:
  policy: approve
bmc:
  user: %[6]s
  password: %[7]s
`, filepath.Join(dir, "data"), bridge, applianceAddress, dhcp, applianceSocket(dir), BMCUser, BMCPassword)
}

func startSupervisor(ctx context.Context, c Config, lock *os.File) (*Rack, error) {
	logPath := filepath.Join(c.Dir, "lab.log")
	logFile, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	report, theirReport, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer report.Close()
	r := &Rack{Dir: c.Dir, parent: -1}
	cmd := exec.Command(c.Binary, "lab", "supervise", c.Dir)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{theirReport, lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Setsid:     true, // the terminal's Ctrl-C must not reach it
	}
	if c.Attached {
		var pipe [2]int
		if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
			return nil, os.NewSyscallError("pipe2", err)
		}
		theirs := os.NewFile(uintptr(pipe[0]), "parent")
		defer theirs.Close()
		r.parent, cmd.ExtraFiles = pipe[1], append(cmd.ExtraFiles, theirs)
	}
	err = cmd.Start()
	theirReport.Close()
	if err != nil {
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}
	if r.super, err = processOf(cmd.Process.Pid); err == nil {
		err = r.super.save(c.Dir)
	}
	go func() { _ = cmd.Wait() }() // reap it, so that a long-lived caller has no zombie
	if err == nil {
		err = awaitReady(ctx, report, logPath)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		r.release()
		return nil, err
	}
	return r, nil
}

func awaitReady(ctx context.Context, report io.ReadCloser, logPath string) error {
	said := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(report)
		said <- string(text)
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case text := <-said:
		switch text {
		case readyReport:
			return nil
		case "":
			return fmt.Errorf("the supervisor ended: %s", tail(logPath))
		default:
			return errors.New(text)
		}
	}
}

// Attach finds the running rack in dir.
func Attach(dir string) (*Rack, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	p, err := loadProcess(dir)
	if err != nil || !p.alive() {
		return nil, fmt.Errorf("%w in %s; start one with: pxectl lab up --dir %s", ErrDown, dir, dir)
	}
	return &Rack{Dir: dir, super: p, parent: -1}, nil
}

// Status lists the machines.
func (r *Rack) Status(ctx context.Context) ([]Status, error) {
	resp, err := ask(ctx, r.Dir, request{Do: "status"})
	return resp.Machines, err
}

// Power does on, off, soft, cycle or reset to a machine, without its BMC, and waits until it is done (soft:
// until the guest got the request).
func (r *Rack) Power(ctx context.Context, machine, action string) error {
	_, err := ask(ctx, r.Dir, request{Do: "power", Machine: machine, Action: action})
	return err
}

// SlowDisk makes a machine's first disk slow to write to, from now on and over power cycles, or with nil fast
// again. So a test can look at a deployment in the middle of its writing.
func (r *Rack) SlowDisk(ctx context.Context, machine string, slow *SlowDisk) error {
	_, err := ask(ctx, r.Dir, request{Do: "slow-disk", Machine: machine, Slow: slow})
	return err
}

// Console is the file with all output of a machine's serial port since Up.
func (r *Rack) Console(machine string) string {
	return filepath.Join(machineDir(r.Dir, machine), "console.log")
}

// Disk is the file of a machine's disk.
func (r *Rack) Disk(machine string, i int) string { return diskPath(r.Dir, machine, i) }

// Frozen is the copy of the first disk as it was before the last boot from it.
func (r *Rack) Frozen(machine string) string {
	return filepath.Join(machineDir(r.Dir, machine), "disk0.written")
}

// Socket is the appliance's Unix socket; it can be dialled from outside the rack.
func (r *Rack) Socket() string { return applianceSocket(r.Dir) }

// Capture is the file of all boot packets so far; see package pcap.
func (r *Rack) Capture() string { return filepath.Join(r.Dir, "dhcp.pcap") }

// Command is a command that will run inside the rack, where the appliance runs.
func (r *Rack) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", fmt.Sprint(r.super.PID), "--net", "--pid", "--mount", "--wdns=" + r.Dir, "--", name,
	}, args...)...)
}

// Exec runs a command inside the rack and returns what it printed.
func (r *Rack) Exec(ctx context.Context, name string, args ...string) (string, error) {
	out, err := r.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err,
			strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// Down ends the rack and waits until nothing of it is left. After a time it uses force.
func (r *Rack) Down(ctx context.Context) error {
	if _, err := ask(ctx, r.Dir, request{Do: "down"}); err == nil && r.super.awaitEnd(ctx, downGrace) == nil {
		r.release()
		return nil
	}
	return r.Kill(ctx)
}

// Kill ends the rack as kill -9 of its supervisor does.
func (r *Rack) Kill(ctx context.Context) error {
	r.super.kill()
	if err := r.super.awaitEnd(ctx, downGrace); err != nil {
		return fmt.Errorf("lab down: %w", err)
	}
	r.release()
	return nil
}

func (r *Rack) release() {
	if r.parent >= 0 {
		syscall.Close(r.parent)
		r.parent = -1
	}
}

// Wait returns when the rack has ended.
func (r *Rack) Wait(ctx context.Context) error { return r.super.awaitEnd(ctx, 0) }
