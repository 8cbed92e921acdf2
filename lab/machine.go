package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"
)

// A machine is one machine of a running rack. All changes (power, boot device, the guest's own resets and
// power-off) happen one after another on its goroutine, in the order of the requests.
type machine struct {
	Machine
	number  int
	rack    *supervisor
	log     *slog.Logger
	console *console
	orders  chan func()

	mu        sync.Mutex // guards the next fields; only the goroutine writes them, except on
	on        bool       // the BMC's answer: true as soon as power-on was accepted
	pid       int
	boot      bootState
	overrides int // counts the BMC's changes of the boot device

	// Only the goroutine uses these.
	running *qemu            // nil when off
	settled <-chan time.Time // fires when the firmware has read the boot order; nil afterwards
	began   int              // overrides at the beginning of the boot
	slow    *SlowDisk        // nil: full speed
}

// A qemu is one run of QEMU.
type qemu struct {
	cmd     *exec.Cmd
	qmp     *qmp
	index   int           // bootindex of the NIC
	limited bool          // disk0 is slow
	exited  chan struct{} // closed when the process was reaped
}

func newMachine(m Machine, number int, rack *supervisor) (*machine, error) {
	if err := makeHardware(rack.Dir, m); err != nil {
		return nil, err
	}
	con, err := newConsole(filepath.Join(machineDir(rack.Dir, m.Name), "console.log"))
	if err != nil {
		return nil, err
	}
	return &machine{
		Machine: m, number: number, rack: rack, log: rack.log.With("machine", m.Name),
		console: con, orders: make(chan func(), 64),
		boot: bootState{Own: factoryBoot},
	}, nil
}

// run carries out requests until ctx ends, and cuts the power then.
func (m *machine) run(ctx context.Context) {
	for {
		var resets <-chan struct{}
		var exited <-chan struct{}
		if m.running != nil {
			resets, exited = m.running.qmp.resets, m.running.exited
		}
		select {
		case <-ctx.Done():
			m.cutPower()
			return
		case order := <-m.orders:
			order()
		case <-resets:
			m.log.Info("reset by the guest")
			m.wasReset()
		case <-m.settled:
			m.bootBegan()
		case <-exited:
			m.log.Info("powered off by the guest")
			m.stopped()
		}
	}
}

// isOn is the power in the BMC's words.
func (m *machine) isOn() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on
}

func (m *machine) state() (on bool, pid int, boot bootState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on, m.pid, m.boot
}

// errOff refuses an action that needs a running machine: IPMI completion code D5h.
var errOff = fmt.Errorf("the machine is off: %w", types.CodeNotSupported)

// power accepts an action and returns a channel for its outcome. BMCs answer before they act: a client that
// waits too long asks again, and the action would be done twice.
func (m *machine) power(action string) (<-chan error, error) {
	act, err := m.accept(action)
	if err != nil {
		return nil, fmt.Errorf("power %s: %w", action, err)
	}
	done := make(chan error, 1)
	m.orders <- func() {
		err := act()
		if err != nil {
			m.log.Error("power", "action", action, "err", err)
		} else {
			m.log.Info("power", "action", action)
		}
		done <- err
	}
	return done, nil
}

func (m *machine) accept(action string) (func() error, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch action {
	case "on":
		m.on = true
		return m.start, nil
	case "off":
		return func() error { m.cutPower(); return nil }, nil
	case "soft", "cycle", "reset":
		if !m.on {
			return nil, errOff
		}
	}
	switch action {
	case "soft":
		return func() error { return m.tell("system_powerdown") }, nil
	case "cycle":
		return func() error { m.cutPower(); m.setOn(true); return m.start() }, nil
	case "reset":
		return m.reset, nil
	}
	return nil, errors.New("have on, off, soft, cycle, reset")
}

func (m *machine) setOn(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on = on
}

// setBootFlags keeps the flags and applies them to the next boot, whatever causes it.
func (m *machine) setBootFlags(flags types.BootOptionParam_BootFlags) {
	m.mu.Lock()
	m.boot.Flags = flags
	m.overrides++
	next := m.boot.next()
	m.mu.Unlock()
	m.log.Info("boot flags", "bytes", fmt.Sprintf("%x", flags.Pack()), "next", next)
	m.orders <- func() {
		if m.settled != nil {
			return // bootBegan will do it
		}
		if err := m.followBoot(); err != nil {
			m.log.Error("boot order", "err", err)
		}
	}
}

// The methods below run on the machine's goroutine.

func (m *machine) start() error {
	if m.running != nil {
		return nil
	}
	err := m.startQEMU()
	if err != nil {
		m.stopped()
		return fmt.Errorf("power on %s: %w", m.Name, err)
	}
	return nil
}

func (m *machine) startQEMU() error {
	_, _, boot := m.state()
	first := boot.next()
	if first == bootDisk && m.rack.Freeze {
		disk := diskPath(m.rack.Dir, m.Name, 0)
		if err := copySparse(filepath.Join(machineDir(m.rack.Dir, m.Name), "disk0.written"),
			disk); err != nil {
			return fmt.Errorf("keep a copy of %s: %w", disk, err)
		}
	}
	var mine [2]net.Conn // QMP, console
	cmd := exec.Command(qemuProgram(m.Machine),
		qemuArgs(m.Machine, m.number, m.rack.Dir, m.rack.accel(), first)...)
	for i := range mine {
		conn, theirs, err := socketPair()
		if err != nil {
			return err
		}
		defer theirs.Close()
		mine[i], cmd.ExtraFiles = conn, append(cmd.ExtraFiles, theirs)
	}
	logPath := filepath.Join(machineDir(m.rack.Dir, m.Name), "qemu.log")
	out, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := m.rack.children.start(cmd); err != nil {
		return err
	}
	q := &qemu{cmd: cmd, exited: make(chan struct{}), index: nicIndex(first)}
	go func() {
		_ = m.rack.children.wait(cmd)
		close(q.exited)
	}()
	for _, f := range cmd.ExtraFiles {
		f.Close() // so that our end sees QEMU's end close
	}
	go m.console.serve(mine[1])
	if q.qmp, err = newQMP(mine[0]); err != nil {
		mine[0].Close()
		_ = cmd.Process.Kill()
		<-q.exited
		return fmt.Errorf("%w; QEMU: %s: %s", err, cmd.ProcessState, tail(logPath))
	}
	m.running = q
	if err := m.limitDisk(); err != nil {
		m.cutPower()
		return err
	}
	m.mu.Lock()
	m.on, m.pid = true, cmd.Process.Pid
	m.mu.Unlock()
	m.log.Info("powered on", "pid", cmd.Process.Pid, "boot", first)
	m.bootBegins()
	_, err = q.qmp.execute("cont", nil)
	if err != nil {
		m.cutPower()
	}
	return err
}

// settle is how long the boot order must stay after a reset: after every other one, SeaBIOS resets once more,
// 40 ms later on an idle host.
const settle = 1500 * time.Millisecond

// bootBegins is called when a boot begins with the wanted order.
func (m *machine) bootBegins() {
	m.mu.Lock()
	m.began = m.overrides
	m.mu.Unlock()
	m.settled = time.After(settle)
}

// wasReset is called after a reset that no request caused.
func (m *machine) wasReset() {
	if m.settled == nil {
		m.bootBegins()
		return
	}
	m.settled = time.After(settle) // the firmware's own reset: still the same boot
}

// bootBegan is called when the firmware has read the order. A one-time override is then used up, unless it
// came after the beginning of that boot.
func (m *machine) bootBegan() {
	m.settled = nil
	m.mu.Lock()
	if m.began == m.overrides {
		m.boot = m.boot.booted()
	}
	m.mu.Unlock()
	if err := m.followBoot(); err != nil {
		m.log.Error("boot order", "err", err)
	}
}

// followBoot sets the order for the next reset.
func (m *machine) followBoot() error {
	_, _, boot := m.state()
	want := nicIndex(boot.next())
	if m.running == nil || m.running.index == want { // setting the same value again is an error to QEMU
		return nil
	}
	if _, err := m.running.qmp.execute("qom-set",
		map[string]any{"path": nicPath, "property": nicIndexProp, "value": want}); err != nil {
		return err
	}
	m.running.index = want
	return nil
}

func (m *machine) tell(command string) error {
	if m.running == nil {
		return errOff
	}
	_, err := m.running.qmp.execute(command, nil)
	return err
}

func (m *machine) reset() error {
	if err := m.followBoot(); err != nil {
		return err
	}
	if err := m.tell("system_reset"); err != nil {
		return err
	}
	select {
	case <-m.running.qmp.resets:
		m.bootBegins()
		return nil
	case <-m.running.exited:
		m.stopped()
		return errors.New("reset: QEMU ended")
	case <-time.After(qmpTimeout):
		return fmt.Errorf("reset: not done in %s", qmpTimeout)
	}
}

// cutPower kills QEMU, as pulling the plug would.
func (m *machine) cutPower() {
	if m.running != nil {
		_ = m.running.cmd.Process.Kill()
		<-m.running.exited
	}
	m.stopped()
}

func (m *machine) stopped() {
	if m.running != nil {
		m.running.qmp.conn.Close()
		m.running, m.settled = nil, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on, m.pid = false, 0
}

// QEMU writes a serial port byte by byte, and each byte takes as much of the socket's buffer as 768 bytes in
// one piece: by default it is full after 278 bytes. Then the UART is busy, and Linux drops a byte after 10 ms
// (wait_for_xmitr), which a busy host exceeds. childBuffer has room for 40,000, all that a kernel prints at
// its start.
const childBuffer = 16 << 20

// socketPair connects us with a child without a path: there is no stale socket, and no limit on the length of
// the rack's directory.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	_ = syscall.SetsockoptInt(fds[1], syscall.SOL_SOCKET, syscall.SO_SNDBUFFORCE, childBuffer) // a rack runs as root
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}
