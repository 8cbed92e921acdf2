package dhcpd

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/internal/observe"
	"github.com/pxectl/pxectl/internal/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }

// quiet returns a server without sockets, which is enough for what happens before anything is sent. The
// function ends its reports and returns them all.
func quiet(decide Decider) (*Server, func() []Seen) {
	var all []Seen
	seen := observe.New(discard, "packets", func(s Seen) { all = append(all, s) })
	s := &Server{seen: seen, cfg: Config{
		Program: programs,
		Decide:  decide,
		Log:     discard,
		Now:     func() time.Time { return time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC) },
	}}
	return s, func() []Seen {
		seen.Close()
		return all
	}
}

func TestRequestWithoutArchitectureIsRemembered(t *testing.T) {
	s, _ := quiet(nil)
	request, _, port := golden(t, "uefi-request-4011-arch-0")
	if c := s.recall(request, classify(request, port, programs)); c.Class != ClassBIOS {
		t.Errorf("before any DISCOVER it is %s, want what it says: %s", c.Class, ClassBIOS)
	}
	discover, _, _ := golden(t, "edk2-x64-discover") // the same MAC
	s.recall(discover, classify(discover, dhcpPort, programs))
	if c := s.recall(request, classify(request, port, programs)); c.Class != ClassUEFI ||
		c.Arch != ArchUEFI64 {
		t.Errorf("after the DISCOVER it is %s, %v, want %s, %v", c.Class, c.Arch, ClassUEFI, ArchUEFI64)
	}
	request.Options.Del(optArch)
	if c := s.recall(request, classify(request, port, programs)); c.Class != ClassUEFI || !c.HasArch {
		t.Errorf("without option 93 it is %s, want %s", c.Class, ClassUEFI)
	}
}

func TestDecide(t *testing.T) {
	p, _, port := golden(t, "edk2-x64-discover")
	c := clientOf(p, port)
	for _, tc := range []struct {
		name   string
		decide Decider
		why    string
	}{
		{"boot", func(context.Context, Client) (Boot, bool) { return testBoot, true }, ""},
		{"left alone", func(context.Context, Client) (Boot, bool) { return testBoot, false }, "left alone"},
		{
			"nothing to boot", func(context.Context, Client) (Boot, bool) { return Boot{}, true },
			"needs the name of a boot file",
		},
		{"a decider that waits is told to hurry", func(ctx context.Context, _ Client) (Boot, bool) {
			_, ok := ctx.Deadline()
			return testBoot, ok
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := quiet(tc.decide)
			r, why := s.decide(context.Background(), p, c)
			if !strings.Contains(why.String(), tc.why) || (r == nil) != (tc.why != "") {
				t.Errorf("decide() = %v, %q, want the reason %q", r, why, tc.why)
			}
		})
	}
}

func TestPanicDoesNotEndTheServer(t *testing.T) {
	s, seen := quiet(func(context.Context, Client) (Boot, bool) { panic("a bug in the decider") })
	s.links = &links{
		configured: map[string]netip.Addr{"prov": ourAddr}, names: map[int]string{7: "prov"}, now: s.cfg.Now,
	}
	_, raw, _ := golden(t, "edk2-x64-discover")
	s.packet(context.Background(), socket{port: dhcpPort}, raw, origin{
		from: netip.MustParseAddrPort("0.0.0.0:68"), ifindex: 7,
	})
	if got := seen(); len(got) != 0 {
		t.Errorf("seen: %+v, want nothing after a panic", got)
	}
}

func TestPacketsThatAreOnlySeen(t *testing.T) {
	for _, tc := range []struct {
		packet  string
		ifindex int
		want    string
	}{
		{"os-dhclient-discover", 7, "DISCOVER from other on port 67: no answer: not a network boot client"},
		{
			"os-windows-request", 7,
			`REQUEST from other "MSFT 5.0" on port 67: no answer: not a network boot client`,
		},
		{
			"edk2-x64-request-67", 7,
			"REQUEST from uefi-pxe (x86-64 UEFI) on port 67: no answer: takes the address offered by 10.77.0.2",
		},
		{
			"edk2-x64-discover", 8,
			"DISCOVER from uefi-pxe (x86-64 UEFI) on port 67: no answer: " +
				"interface office is not a provisioning interface",
		},
	} {
		t.Run(tc.packet, func(t *testing.T) {
			s, seen := quiet(func(context.Context, Client) (Boot, bool) {
				t.Error("the decider was asked")
				return Boot{}, false
			})
			s.links = &links{
				configured: map[string]netip.Addr{"prov": ourAddr},
				names:      map[int]string{7: "prov", 8: "office"},
				now:        s.cfg.Now,
			}
			_, raw, port := golden(t, tc.packet)
			s.packet(context.Background(), socket{port: port}, raw, origin{
				from: netip.MustParseAddrPort("0.0.0.0:68"), ifindex: tc.ifindex,
			})
			if got := seen(); len(got) != 1 || got[0].String() != tc.want ||
				got[0].Answer != dhcpv4.MessageTypeNone {
				t.Errorf("seen %+v, want one packet with the text %q", got, tc.want)
			}
		})
	}
}

func TestListenNamesWhatIsWrong(t *testing.T) {
	lo := netip.MustParseAddr("127.0.0.1")
	for _, tc := range []struct {
		name string
		ifs  []Interface
		want []string
	}{
		{"none", nil, []string{"no interface given"}},
		{"no such interface", []Interface{{"eno9", lo}}, []string{`no such interface "eno9" (have: `}},
		{
			"not its address",
			[]Interface{{"lo", netip.MustParseAddr("192.0.2.1")}},
			[]string{`interface "lo" does not have the IPv4 address 192.0.2.1 (has: 127.0.0.1`},
		},
		{"all mistakes at once", []Interface{{"eno8", lo}, {"eno9", lo}}, []string{"eno8", "eno9"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := Listen(Config{Interfaces: tc.ifs})
			if err == nil {
				s.Close()
				t.Fatal("Listen() succeeded, want an error")
			}
			if missing := slices.DeleteFunc(slices.Clone(tc.want),
				func(w string) bool { return strings.Contains(err.Error(), w) }); len(missing) > 0 {
				t.Errorf("Listen() = %q, want %q in it", err, missing)
			}
		})
	}
}
