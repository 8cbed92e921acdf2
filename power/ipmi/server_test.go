package ipmi

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/clock"
	"github.com/bougou/go-ipmi/pkg/hal"
	"github.com/bougou/go-ipmi/pkg/hal/mock"
	"github.com/bougou/go-ipmi/pkg/handlers"
	"github.com/bougou/go-ipmi/pkg/server"
	"github.com/bougou/go-ipmi/pkg/transport/udp"
	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

const (
	user   = "operator-1"
	admin  = "admin-1"
	viewer = "viewer-1"
)

// rack is go-ipmi's own BMC server, in this process, on a port of the loopback.
type rack struct {
	*mock.HAL
	chassis *machine
	console *mock.FakeConsoleConn
	port    net.PacketConn
	bmc     *bmc.BMC
	addr    string
}

func (r *rack) Chassis() hal.ChassisHAL { return r.chassis }

// machine is the machine behind the BMC: its power, its restarts, and the boot flags as they came.
type machine struct {
	mock.Chassis
	mu       sync.Mutex
	on       bool
	restarts int
	flags    [5]byte
	strict   bool // off when off is an error
}

func (m *machine) set(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on = on
}

func (m *machine) beStrict(strict bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.strict = strict
}

func (m *machine) isOn() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on
}

func (m *machine) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.restarts
}

func (m *machine) override() power.Boot {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, _ := parseBootOptions(append([]byte{1, 5}, m.flags[:]...))
	return b
}

func (m *machine) PowerState(context.Context) (bool, error) { return m.isOn(), nil }

func (m *machine) SetPower(_ context.Context, on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.strict && on == m.on {
		return hal.ErrNotSupported
	}
	m.on = on
	return nil
}

func (m *machine) PowerCycle(context.Context) error { return m.ColdReset(context.Background()) }

func (m *machine) ColdReset(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.on {
		m.restarts++
	}
	return nil
}

// WarmReset is what the server calls for a soft power-off.
func (m *machine) WarmReset(context.Context) error { m.set(false); return nil }

func (m *machine) SetBootFlags(_ context.Context, f *types.BootOptionParam_BootFlags) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.flags[:], f.Pack())
	return nil
}

func (m *machine) GetBootFlags(context.Context) (*types.BootOptionParam_BootFlags, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := &types.BootOptionParam_BootFlags{}
	return f, f.Unpack(m.flags[:])
}

func newRack(t testing.TB, listen string, suites ...types.CipherSuiteID) *rack {
	t.Helper()
	return newRackWith(t, listen, func(*handlers.Registry) {}, suites...)
}

// newRackWith lets the test change what the BMC does with a command.
func newRackWith(
	t testing.TB, listen string, change func(*handlers.Registry), suites ...types.CipherSuiteID,
) *rack {
	t.Helper()
	commands := handlers.NewRegistry()
	handlers.RegisterAllHandlers(commands)
	change(commands)
	if len(suites) == 0 {
		suites = []types.CipherSuiteID{types.CipherSuiteID17, types.CipherSuiteID3}
	}
	r := &rack{HAL: mock.New(), chassis: &machine{}, console: &mock.FakeConsoleConn{}}
	r.SetConsole(&mock.Console{Conn: r.console})
	r.bmc = bmc.New(bmc.DeviceInfo{IPMIVersion: 0x20}, [16]byte{1}, r, bmc.WithClock(clock.Real),
		bmc.WithCipherSuites(suites))
	r.adduser(t, 2, user, bmc.PrivilegeLevelOperator)
	r.adduser(t, 3, admin, bmc.PrivilegeLevelAdministrator)
	r.adduser(t, 4, viewer, bmc.PrivilegeLevelUser)
	var err error
	if r.port, err = net.ListenPacket("udp", listen); err != nil {
		t.Fatal(err)
	}
	r.addr = r.port.LocalAddr().String()
	srv := server.NewServer(r.bmc, udp.Wrap(r.port.(*net.UDPConn)), server.WithHandlerRegistry(commands))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		_ = srv.Close()
		_ = r.port.Close()
		<-done
	})
	return r
}

func (r *rack) adduser(t testing.TB, id uint8, name string, level bmc.PrivilegeLevel) {
	t.Helper()
	u, err := r.bmc.Users.Add(id, name)
	if err != nil {
		t.Fatal(err)
	}
	u.SetPassword([]byte(powertest.Password))
	u.Enabled = true
	u.ChannelAccess[1] = bmc.UserChannelAccess{MaxPrivilege: level, Enabled: true}
}

func (r *rack) open(t testing.TB, d *Driver, password string) power.BMC {
	return open(t, d, power.Target{Address: r.addr, User: user, Password: password})
}

func (r *rack) openConsole(t testing.TB, name string) power.Console {
	return open(t, quick(),
		power.Target{Address: r.addr, User: name, Password: powertest.Password}).(power.Console)
}

func open(t testing.TB, d *Driver, target power.Target) power.BMC {
	t.Helper()
	b, err := d.Open(target)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// quick is a driver for BMCs on the loopback.
func quick() *Driver { return &Driver{Timeout: 300 * time.Millisecond, Backoff: 5 * time.Millisecond} }

// nobody returns the address of a port that is open and never answers.
func nobody(t testing.TB) string {
	t.Helper()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.LocalAddr().String()
}

func (r *rack) rig(t testing.TB) powertest.Rig {
	return powertest.Rig{
		On: r.chassis.isOn, Set: r.chassis.set, Restarts: r.chassis.count, Override: r.chassis.override,
		WrongPassword: func() power.BMC { return r.open(t, quick(), powertest.WrongPassword) },
		Silent: func() power.BMC {
			return open(t, quick(), power.Target{
				Address: nobody(t), User: user, Password: powertest.Password,
			})
		},
	}
}

func TestSuiteAgainstGoIPMIServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, listen string
		suites       []types.CipherSuiteID
		strict       bool
	}{
		{"both suites", "127.0.0.1:0", nil, false},
		{"only suite 3", "127.0.0.1:0", []types.CipherSuiteID{types.CipherSuiteID3}, false},
		{"IPv6", "[::1]:0", nil, false},
		{"refuses off when off", "127.0.0.1:0", nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			powertest.Run(t, func(t testing.TB) (power.BMC, powertest.Rig) {
				r := newRack(t, c.listen, c.suites...)
				r.chassis.beStrict(c.strict)
				return r.open(t, quick(), powertest.Password), r.rig(t)
			})
		})
	}
}
