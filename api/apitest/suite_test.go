package apitest_test

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/deploy/nonce"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

func TestTheFleetOfTests(t *testing.T) {
	apitest.RunFleetSuite(t, func(*testing.T) apitest.Subject {
		f := apitest.New()
		return apitest.Subject{
			Fleet:    f,
			Discover: func(_ *testing.T, mac inventory.MAC, bmc string) { f.Discover(mac, bmc) },
			Hold:     f.Halt,
		}
	})
}

func TestTheEngine(t *testing.T) {
	apitest.RunFleetSuite(t, newEngine)
}

// A heldBMC answers no reading while it is held.
type heldBMC struct {
	power.BMC
	held *atomic.Bool
}

func (b heldBMC) Power(ctx context.Context) (bool, error) {
	if b.held.Load() {
		<-ctx.Done()
		return false, ctx.Err()
	}
	return b.BMC.Power(ctx)
}

func newEngine(t *testing.T) apitest.Subject {
	store, err := boltdb.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	var held atomic.Bool
	bmc := heldBMC{&powertest.BMC{}, &held}
	e, err := deploy.New(deploy.Config{
		Store: store, Key: nonce.Key("0123456789abcdef0123456789abcdef"),
		Seal:    func(b []byte) (inventory.Sealed, error) { return append([]byte("sealed:"), b...), nil },
		Unseal:  func(s inventory.Sealed) ([]byte, error) { return s[len("sealed:"):], nil },
		OpenBMC: func(power.Target) (power.BMC, error) { return bmc, nil }, Pace: powertest.Fast,
		Image: func(ref string) (deploy.Image, error) {
			return deploy.Image{
				ID: "img1", Name: ref, RawSize: 1 << 30, SectorSize: 512,
				Stored: 1 << 28,
			}, nil
		},
		Server: func(netip.Addr) netip.AddrPort { return netip.MustParseAddrPort("192.0.2.1:8080") },
		Policy: deploy.PolicyApprove, Log: slog.New(slog.DiscardHandler),
		Deadlines: deploy.Deadlines{BootAgent: time.Minute, WriteImage: time.Minute, VerifyOS: time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		store.Close()
	})
	return apitest.Subject{
		Fleet:    e,
		Discover: func(t *testing.T, mac inventory.MAC, bmc string) { discover(t, e, mac, bmc) },
		Hold:     func() { held.Store(true) },
	}
}

// discover makes the calls of the agent of a machine that nobody has announced, up to its report.
func discover(t *testing.T, e *deploy.Engine, mac inventory.MAC, bmc string) {
	t.Helper()
	me := inventory.Caller{Nonce: e.IssueBoot(mac).Nonce, Key: "key of the agent", IP: "192.0.2.100"}
	bootID := "00000000-0000-4000-8000-" + strings.ReplaceAll(string(mac), ":", "")
	if _, err := e.Register(t.Context(), me, inventory.Registration{MAC: mac, BootID: bootID}); err != nil {
		t.Fatal(err)
	}
	order, err := e.Next(t.Context(), me, inventory.Ask{BootID: bootID})
	if err != nil || order.Do != inventory.DoInspect {
		t.Fatalf("the agent is told to %q, %v, want to inspect", order.Do, err)
	}
	report := inventory.Report{
		Firmware: "uefi",
		Disks: []inventory.Disk{
			{Name: "vda", Serial: "D1", Transport: "virtio", Bytes: 4 << 30, LogicalSector: 512},
		},
	}
	if bmc != "" {
		report.BMC = &inventory.BMCReport{Address: bmc}
	}
	if err := e.OrderResult(t.Context(), me, order.ID,
		inventory.Result{BootID: bootID, Report: &report}); err != nil {
		t.Fatal(err)
	}
}
