package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/lab"
	"github.com/pxectl/pxectl/lab/verify"
)

// slowdown is how many times slower than an idle machine this one may be.
const slowdown = 10

// The files that `make test` builds before it runs the tests.
var (
	binary  = built("bin/pxectl")
	ramdisk = built(".cache/ramdisk")
	mini    = built(".cache/images/mini.raw")
	debian  = built(".cache/images/debian-12.raw")
)

func built(path string) string {
	abs, err := filepath.Abs(filepath.Join("..", "..", path))
	if err != nil {
		panic(err)
	}
	return abs
}

// A rack is a virtual rack with an appliance and a CLI.
type rack struct {
	t *testing.T
	*lab.Rack
	client *api.Client
	dir    string
}

// newRack starts a rack. It skips the test, by name, when the host lacks something.
func newRack(t *testing.T, machines string, files ...string) *rack {
	t.Helper()
	return newRackBeside(t, lab.Dnsmasq, machines, files...)
}

// newRackBeside is newRack with a choice of the site's DHCP server.
func newRackBeside(t *testing.T, dhcp, machines string, files ...string) *rack {
	t.Helper()
	needs := []string{"qemu-system-x86_64", "dnsmasq", "tcpdump", "ip", "nsenter"}
	if dhcp == lab.Kea {
		needs = append(needs, "kea-dhcp4")
	}
	if strings.Contains(machines, ":arm64") {
		needs = append(needs, "qemu-system-aarch64")
	}
	testnet.Gate(t, needs...)
	for _, f := range append(files, binary, ramdisk) {
		if _, err := os.Stat(f); err != nil {
			t.Skipf("SKIPPED %s: %s is not built; run it with `make test`", t.Name(), f)
		}
	}
	// Not t.TempDir: its path is too long for the rack's sockets.
	dir, err := os.MkdirTemp("/var/tmp", "pxectl-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "data", "ramdisk"), os.DirFS(ramdisk)); err != nil {
		t.Fatal(err)
	}
	config, err := lab.ParseMachines(machines)
	if err != nil {
		t.Fatal(err)
	}
	up, err := lab.Up(t.Context(), lab.Config{
		Dir: dir, Machines: config, DHCP: dhcp, Binary: binary, Freeze: true, Attached: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &rack{t: t, Rack: up, dir: dir}
	t.Cleanup(func() {
		if t.Failed() {
			r.show(config)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := up.Down(ctx); err != nil {
			t.Errorf("take the rack down: %v", err)
		}
		if !t.Failed() {
			os.RemoveAll(dir)
		}
	})
	if r.client, err = api.NewClient(up.Socket()); err != nil {
		t.Fatal(err)
	}
	return r
}

// show prints the rack's state after a failed test.
func (r *rack) show(machines []lab.Machine) {
	r.t.Logf("the rack's files are in %s", r.dir)
	files := []string{filepath.Join(r.dir, "appliance.log")}
	for _, m := range machines {
		files = append(files, r.Console(m.Name))
	}
	for _, f := range files {
		raw, _ := os.ReadFile(f)
		r.t.Logf("end of %s:\n%s", f, raw[max(0, len(raw)-3000):])
	}
}

// pxectl runs the CLI as an operator would and returns its standard output.
func (r *rack) pxectl(args ...string) string {
	r.t.Helper()
	out, err := r.try(args...)
	if err != nil {
		r.t.Fatalf("pxectl %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// try is pxectl for commands that may fail; the error holds standard error.
func (r *rack) try(args ...string) (string, error) {
	cmd := exec.CommandContext(r.t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), "PXECTL_SOCKET="+r.Socket())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), errors.New(strings.TrimSpace(stderr.String()) + " (" + err.Error() + ")")
	}
	return stdout.String(), nil
}

// until polls until something is true; limit is for an idle machine.
func (r *rack) until(limit time.Duration, what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(slowdown * limit); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("waited %s in vain until %s", slowdown*limit, what)
		}
		if r.t.Context().Err() != nil {
			r.t.FailNow()
		}
	}
}

// machine reads a machine. It returns the zero Machine when there is none yet.
func (r *rack) machine(ref string) inventory.Machine {
	m, err := r.client.Machine(r.t.Context(), ref)
	if err != nil {
		return inventory.Machine{}
	}
	return m
}

// powerOn presses a machine's power button.
func (r *rack) powerOn(name string) {
	r.t.Helper()
	if err := r.Power(r.t.Context(), name, "on"); err != nil {
		r.t.Fatal(err)
	}
}

// enroll names and approves a machine that has registered itself, and waits until it is available.
func (r *rack) enroll(name, mac string) {
	r.t.Helper()
	r.pxectl("machine", "edit", mac, "--name", name)
	approve := []string{"machine", "approve", name}
	if p := r.machine(name).BMC.Proposed; p != nil {
		approve = append(approve, "--accept-bmc", p.Address)
	}
	r.pxectl(approve...)
	r.until(30*time.Second, name+" is available", func() bool {
		return r.machine(name).State == inventory.Available
	})
}

// deployment reads the last deployment of a machine.
func (r *rack) deployment(name string) inventory.Deployment {
	r.t.Helper()
	var d inventory.Deployment
	if err := json.Unmarshal([]byte(r.pxectl("deployment", "show", name, "-o", "json")), &d); err != nil {
		r.t.Fatal(err)
	}
	return d
}

// console returns all output of a machine's serial console.
func (r *rack) console(name string) string {
	raw, err := os.ReadFile(r.Console(name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(raw)
}

// proveDisk compares a machine's frozen disk with the image, from outside. Only the ranges that finish-disk
// names may differ.
func (r *rack) proveDisk(name string) {
	r.t.Helper()
	d := r.deployment(name)
	if d.Finished == nil {
		r.t.Fatalf("deployment of %s ended without the proof of finish-disk: %+v", name, d)
	}
	sum, want, err := verify.Disk(r.Frozen(name), filepath.Join(r.dir, "data", "images"), d.ImageID,
		d.Finished.Ranges)
	if err != nil {
		r.t.Fatal(err)
	}
	if sum != want {
		r.t.Errorf("sha256 of %s's disk but for %v = %s, want the image's %s", name,
			verify.Names(d.Finished.Ranges), sum, want)
	}
}

// proveWire checks that the two DHCP servers did not do each other's work.
func (r *rack) proveWire() {
	r.t.Helper()
	w, err := verify.DHCP(r.Capture(), netip.MustParseAddr("10.77.0.1"))
	if err != nil {
		r.t.Error(err)
	}
	r.t.Logf("wire: %+v", w)
}
