package api_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

func TestMachineRoundTrip(t *testing.T) {
	fleet := apitest.New()
	c, _ := serve(t, fleet)
	ctx := t.Context()
	address, password := "192.0.2.7:6230", "hunter2"
	m, err := c.AddMachine(ctx, deploy.NewMachine{
		Name:   "m1",
		MACs:   []inventory.MAC{"52:54:00:12:34:56"},
		Labels: map[string]string{"rack": "a", "old": "yes"},
		BMC:    deploy.BMCEdit{Address: &address, Password: &password},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"m1", string(m.ID), "52:54:00:12:34:56", "52-54-00-12-34-56"} {
		got, err := c.Machine(ctx, ref)
		if err != nil {
			t.Fatalf("Machine(%q): %v", ref, err)
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("Machine(%q) (-added +got):\n%s", ref, diff)
		}
	}
	rack := "b"
	m, err = c.EditMachine(ctx, "m1", deploy.Edit{Labels: map[string]*string{"rack": &rack, "old": nil}})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"rack": "b"}; !cmp.Equal(m.Labels, want) {
		t.Errorf("labels after an edit = %v, want %v", m.Labels, want)
	}
	if p, err := c.Power(ctx, "m1", power.ActOn); err != nil || !p.On {
		t.Errorf("Power(on) = %+v, %v, want on", p, err)
	}
	if p, err := c.PowerStatus(ctx, "m1"); err != nil || !p.On {
		t.Errorf("PowerStatus = %+v, %v, want on", p, err)
	}
	b, err := c.SetBootDevice(ctx, "m1", api.BootDevice{Device: power.DevicePXE})
	if err != nil || b.Device != power.DevicePXE || b.EFI == nil || !*b.EFI {
		t.Errorf("SetBootDevice(pxe) = %+v, %v, want pxe with EFI, as the firmware is unknown", b, err)
	}
	if b, err := c.BootDevice(ctx, "m1"); err != nil || b.Device != power.DevicePXE {
		t.Errorf("Boot = %+v, %v, want pxe", b, err)
	}
	fleet.Inspect("m1", inventory.Report{Firmware: "uefi"})
	d, err := c.Deploy(ctx, "m1", inventory.DeployRequest{Image: "debian-12", Hostname: "web1"})
	if err != nil || d.MachineName != "m1" || d.Outcome != inventory.Running {
		t.Fatalf("Deploy = %+v, %v, want a running deployment of m1", d, err)
	}
	var seen []string
	for range 12 {
		d, err = c.Deployment(ctx, "m1")
		if err != nil {
			t.Fatal(err)
		}
		if d.Progress != nil {
			seen = append(seen, fmt.Sprint(d.Step, " ", d.Progress.Done, "/", d.Progress.Total))
		}
	}
	if d.Outcome != inventory.Succeeded || len(seen) == 0 {
		t.Errorf("outcome %s with progress %v, want succeeded and some", d.Outcome, seen)
	}
	if _, err := c.CancelDeployment(ctx, string(d.ID)); problemCode(err) != inventory.CodeConflict {
		t.Errorf("CancelDeployment of a finished one = %v, want a conflict", err)
	}
	if err := c.DeleteMachine(ctx, "m1"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Machine(ctx, "m1"); problemCode(err) != inventory.CodeNotFound {
		t.Errorf("Machine after Delete = %v, want not-found", err)
	}
	me := fmt.Sprintf("unix:uid=%d", os.Getuid())
	if others := slices.DeleteFunc(fleet.Actors(), func(a string) bool { return a == me }); len(others) > 0 {
		t.Errorf("actors other than %s: %q", me, others)
	}
}

func problemCode(err error) inventory.Code {
	if p, ok := errors.AsType[*inventory.Problem](err); ok {
		return p.Code
	}
	return ""
}

func TestBootDeviceFollowsTheFirmware(t *testing.T) {
	yes, no := true, false
	for _, tt := range []struct {
		name, firmware string
		asked          *bool
		want           bool
	}{
		{"uefi", "uefi", nil, true},
		{"bios", "bios", nil, false},
		{"bios, asked otherwise", "bios", &yes, true},
		{"uefi, asked otherwise", "uefi", &no, false},
	} {
		c, _ := serve(t, apitest.New(inventory.Machine{
			Name:   "m1",
			BMC:    inventory.BMC{Address: "192.0.2.7"},
			Report: &inventory.Report{Firmware: tt.firmware},
		}))
		b, err := c.SetBootDevice(t.Context(), "m1", api.BootDevice{Device: power.DeviceDisk, EFI: tt.asked})
		if err != nil || *b.EFI != tt.want {
			t.Errorf("%s: SetBootDevice = %+v, %v, want efi %v", tt.name, b, err, tt.want)
		}
	}
}

func TestImport(t *testing.T) {
	c, _ := serve(t, apitest.New())
	ctx := t.Context()
	raw := make([]byte, 24<<20)
	for i := range raw[:8<<20] {
		raw[i] = byte(rand.Uint32())
	}
	sum := sha256.Sum256(raw)
	var phases []string
	img, err := c.Import(ctx, bytes.NewReader(raw), store.ImportOptions{
		Force: true,
		Name:  "small", SHA256: hex.EncodeToString(sum[:]), Size: int64(len(raw)),
		Progress: func(p store.Progress) { phases = append(phases, p.Phase) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if img.Name != "small" || img.RawSize != int64(len(raw)) || img.RawHash == (images.Hash{}) ||
		len(phases) == 0 {
		t.Errorf("Import = %+v with %d lines of progress, want the image and some", img, len(phases))
	}
	list, err := c.Images(ctx)
	if err != nil || len(list) != 1 || !cmp.Equal(list[0].ID, img.ID) {
		t.Errorf("Images = %+v, %v, want the one", list, err)
	}

	for _, tt := range []struct {
		name string
		src  io.Reader
		opt  store.ImportOptions
		code inventory.Code
		says string
	}{
		{
			"checksum differs, known at the end", bytes.NewReader(raw),
			store.ImportOptions{Force: true, Name: "x", SHA256: strings.Repeat("0", 64)},
			inventory.CodeInvalid, "sha256",
		},
		{
			"refused by the first bytes of many",
			io.MultiReader(strings.NewReader("KDMV"), bytes.NewReader(raw)),
			store.ImportOptions{Force: true, Name: "x"},
			inventory.CodeInvalid, "VMDK",
		},
		{
			"bad name", bytes.NewReader(raw),
			store.ImportOptions{Force: true, Name: "../x"},
			inventory.CodeInvalid, "name",
		},
		{
			"the source breaks", io.MultiReader(bytes.NewReader(raw[:6<<20]), brokenReader{}),
			store.ImportOptions{Force: true, Name: "x"},
			"", "read the image: bad sector",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := c.Import(ctx, tt.src, tt.opt)
			if err == nil || problemCode(err) != tt.code || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Import = %v (code %q), want code %q and %q", err, problemCode(err), tt.code,
					tt.says)
			}
		})
	}
	if list, err := c.Images(ctx); err != nil || len(list) != 1 {
		t.Errorf("Images after failed imports = %d, %v, want 1", len(list), err)
	}
	if err := c.DeleteImage(ctx, "small"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Image(ctx, "small"); problemCode(err) != inventory.CodeNotFound {
		t.Errorf("Image after DeleteImage = %v, want not-found", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("bad sector") }

func TestUnreachable(t *testing.T) {
	dir := shortDir(t)
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, tt := range []struct{ name, target, detail, hint string }{
		{"no socket", filepath.Join(dir, "none"), "no such socket", "is `pxectl serve` running?"},
		{"nobody listens", stale, "nobody is listening", "PXECTL_SOCKET"},
	} {
		c, err := api.NewClient(tt.target)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Machines(t.Context())
		p, ok := errors.AsType[*inventory.Problem](err)
		if !ok || !errors.Is(err, api.ErrUnreachable) || !strings.Contains(p.Detail, tt.detail) ||
			!strings.Contains(p.Hint, tt.hint) {
			t.Errorf("%s: %+v, want %q and the hint %q", tt.name, err, tt.detail, tt.hint)
		}
	}
}
