package ipmi

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/ipmi/lan"
	"github.com/pxectl/pxectl/power/powertest"
)

// A BMC with a key of its own, K_g, has a login with two keys (IPMI 2.0 section 13.33). OpenIPMI's ipmi_sim
// is such a BMC, and ipmitool logs in to it with the same key.
func TestBMCKey(t *testing.T) {
	testnet.Need(t, "ipmi_sim")
	const kg = "nineteen_bytes_of_k" // ipmi_sim drops the twentieth byte of a text
	s := newSimWith(t, "127.0.0.1:1", `bmc_key "`+kg+`"`)
	opened := func(password, key string) power.BMC {
		t.Helper()
		return open(t, &Driver{Timeout: 5 * time.Second, Backoff: 5 * time.Millisecond}, power.Target{
			Address: s.addr, User: admin, Password: password, Kg: key,
		})
	}
	b := opened(powertest.Password, kg)
	for _, on := range []bool{true, false} {
		act := map[bool]power.Action{true: power.ActOn, false: power.ActOff}[on]
		if err := b.Do(t.Context(), act); err != nil {
			t.Fatalf("%s: %v", act, err)
		}
		poll(t, "the machine's power follows", func() bool {
			is, err := b.Power(t.Context())
			return err == nil && is == on
		})
	}
	for name, c := range map[string]struct {
		password, kg string
		want         error
		hint         string
	}{
		"no key":         {powertest.Password, "", lan.ErrKey, "the BMC has a key of its own (K_g)"},
		"another key":    {powertest.Password, "another", lan.ErrKey, "the BMC's key (K_g) is another one"},
		"wrong password": {powertest.WrongPassword, kg, power.ErrRefused, "set the user and password"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := opened(c.password, c.kg).Power(t.Context())
			pe, ok := errors.AsType[*power.Error](err)
			if !errors.Is(err, c.want) || !ok || !strings.Contains(pe.Hint, c.hint) {
				t.Errorf("Power() = %v, hint %q; want %v, %q", err, pe.Hint, c.want, c.hint)
			}
			if strings.Contains(err.Error()+pe.Hint, kg) {
				t.Error("the error tells the key")
			}
		})
	}
}

// A BMC with a key of zeros has none: IPMI 2.0 section 13.33.
func TestOneKeyLoginStays(t *testing.T) {
	testnet.Need(t, "ipmi_sim")
	s := newSim(t, "127.0.0.1:1")
	_, err := open(t, &Driver{Timeout: 5 * time.Second},
		power.Target{
			Address: s.addr, User: admin, Password: powertest.Password,
			Kg: "not its key",
		}).Power(t.Context())
	if !errors.Is(err, lan.ErrKey) {
		t.Errorf("a key that the BMC does not have: %v, want %v", err, lan.ErrKey)
	}
}

// A BMC with two addresses answers from the other one.
func TestAnswerFromAnotherAddress(t *testing.T) {
	t.Parallel()
	asked, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	port := asked.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	answers, err := net.ListenUDP("udp4",
		net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port)))
	if err != nil {
		asked.Close()
		t.Skipf("SKIPPED %s: port %d of 127.0.0.2 is taken", t.Name(), port)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, from, err := asked.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if n < 23 || buf[3] != 7 || buf[4] != 0 {
				continue
			}
			// RMCP, no session, and Get Channel Authentication Capabilities' answer with the request's
			// sequence number.
			m := []byte{0x81, 0x1c, 0x63, 0x20, buf[18], 0x38, 0, 1, 0x80, 0x14, 2, 0, 0, 0, 0, 0}
			answer := append([]byte{6, 0, 0xff, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(m))}, m...)
			_, _ = answers.WriteToUDPAddrPort(answer, from)
		}
	}()
	defer func() { asked.Close(); answers.Close(); <-done }()
	b := open(t, quick(), power.Target{
		Address: asked.LocalAddr().String(), User: admin, Password: powertest.Password,
	})
	_, err = b.Power(t.Context())
	pe, ok := errors.AsType[*power.Error](err)
	if !errors.Is(err, power.ErrSilent) || !ok ||
		!strings.Contains(err.Error(), "an answer comes from 127.0.0.2:") ||
		!strings.Contains(pe.Hint, "--bmc 127.0.0.2`") {
		t.Errorf("Power() = %v, hint %q; want silence, and where the answer came from", err, pe.Hint)
	}
}
