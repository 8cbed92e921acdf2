package deploy

import (
	"context"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

func TestChooseDisk(t *testing.T) {
	disk := func(name, serial string, content ...string) inventory.Disk {
		return inventory.Disk{
			Name: name, Serial: serial, Transport: "sata", Bytes: 4 << 30, LogicalSector: 512,
			Content: content,
		}
	}
	a, b := disk("sda", "A"), disk("sdb", "B")
	was := a.Identity()
	twinA, twinB := disk("sdc", "T"), disk("sdd", "T")
	twinA.ByPath, twinB.ByPath = "pci-0000:00:1f.2-ata-3.0", "pci-0000:00:1f.2-ata-4.0"
	twin := twinB.Identity()
	pmem := disk("pmem0", "")
	pmem.Transport = "virtual"
	pmemWas := pmem.Identity()
	img := Image{ID: "img1", Name: "debian-12", RawSize: 1 << 30, SectorSize: 512}
	for _, c := range []struct {
		name  string
		m     inventory.Machine
		disks []inventory.Disk
		hint  *inventory.DiskHint
		want  string // the disk, or a part of the error
		next  string // a part of its hint
	}{
		{name: "the only one", disks: []inventory.Disk{a}, want: "sda"},
		{
			name:  "two, and none is known",
			disks: []inventory.Disk{a, b},
			want:  "2 disks and no hint",
			next:  "--disk",
		},
		{
			name:  "the machine's hint",
			m:     inventory.Machine{RootDisk: &inventory.DiskHint{Serial: "B"}},
			disks: []inventory.Disk{a, b},
			want:  "sdb",
		},
		{
			name:  "what is asked goes before the machine's hint",
			m:     inventory.Machine{RootDisk: &inventory.DiskHint{Serial: "B"}},
			disks: []inventory.Disk{a, b},
			hint:  &inventory.DiskHint{Serial: "A"},
			want:  "sda",
		},
		{
			name:  "two, and one was deployed to before",
			m:     inventory.Machine{Disk: &was},
			disks: []inventory.Disk{b, a},
			want:  "sda",
		},
		{
			name:  "one of two equal disks was deployed to before",
			m:     inventory.Machine{Disk: &twin},
			disks: []inventory.Disk{twinA, twinB},
			want:  "sdd",
		},
		{
			name:  "a named device was deployed to before",
			m:     inventory.Machine{Disk: &pmemWas},
			disks: []inventory.Disk{a, pmem},
			want:  "pmem0",
		},
		{
			name: "the disk was replaced", m: inventory.Machine{Disk: &was}, disks: []inventory.Disk{b},
			want: "disk sdb (serial=B, 4294967296 bytes) " +
				"is not the one that m1 was deployed to before (serial=A",
			next: "--disk serial=B",
		},
		{
			name: "another one by a hint that names none", m: inventory.Machine{Disk: &was},
			disks: []inventory.Disk{a, b},
			hint:  &inventory.DiskHint{Name: "sdb"},
			want:  "is not the one",
			next:  "--disk serial=B",
		},
		{
			name: "another one by its serial", m: inventory.Machine{Disk: &was},
			disks: []inventory.Disk{a, b}, hint: &inventory.DiskHint{Serial: "B"}, want: "sdb",
		},
		{
			name:  "the machine's hint names the new one",
			m:     inventory.Machine{Disk: &was, RootDisk: &inventory.DiskHint{Serial: "B"}},
			disks: []inventory.Disk{b},
			want:  "sdb",
		},
	} {
		c.m.Name, c.m.Report = "m1", &inventory.Report{Disks: c.disks}
		got, err := chooseDisk(c.m, c.hint, img)
		said, hint := got.Name, ""
		if err != nil {
			said, hint = err.Error(), inventory.AsProblem(err).Hint
		}
		if !strings.Contains(said, c.want) || !strings.Contains(hint, c.next) ||
			(c.next == "") != (err == nil) {
			t.Errorf("%s: chooseDisk = %q (hint %q), want %q, %q", c.name, said, hint, c.want, c.next)
		}
	}
}

// refused checks that a deployment does not begin, with that detail and hint.
func (r *rack) refused(req inventory.DeployRequest, detail, hint string) {
	r.t.Helper()
	req.Image = "debian-12"
	before, err := r.now().Machine("m1")
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = r.now().Deploy(r.t.Context(), "test", "m1", req)
	if p := inventory.AsProblem(err); err == nil || !strings.Contains(p.Detail, detail) ||
		!strings.Contains(p.Hint, hint) {
		r.t.Errorf("Deploy(%+v) = %v (hint: %s), want %q, hint %q", req, err, p.Hint, detail, hint)
	}
	if m, err := r.now().Machine("m1"); err != nil || m.State != before.State ||
		m.Deployment != before.Deployment {
		r.t.Errorf("after a deployment that was refused the machine is %s by %q (%v), want %s by %q", m.State,
			m.Deployment, err, before.State, before.Deployment)
	}
}

// A deployment for which no disk is known is refused before it begins, as its plan is.
func TestDeploymentsWithoutADiskDoNotBegin(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		disks        []inventory.Disk
		asked        *inventory.DiskHint
		detail, hint string
	}{
		"two disks and no hint": {
			disks: []inventory.Disk{
				{Name: "vda", Serial: "D1", Transport: "virtio", Bytes: 4 << 30, LogicalSector: 512},
				{Name: "vdb", Serial: "D2", Transport: "virtio", Bytes: 4 << 30, LogicalSector: 512},
			},
			detail: "2 disks and no hint which one: vda virtio 4.3 GB serial=D1; vdb", hint: "--disk",
		},
		"no disk": {detail: "no disk to write to (have: none)", hint: "--disk"},
		"a disk that is not there": {
			disks:  []inventory.Disk{{Name: "vda", Serial: "D1", Bytes: 4 << 30, LogicalSector: 512}},
			asked:  &inventory.DiskHint{Serial: "NOPE"},
			detail: "serial=NOPE", hint: "--disk",
		},
		"a disk smaller than the image": {
			disks:  []inventory.Disk{{Name: "vda", Bytes: 1 << 20, LogicalSector: 512}},
			detail: "disk vda holds 1048576 bytes, the image needs 1073741824", hint: "--disk",
		},
		"a 4Kn disk": {
			disks:  []inventory.Disk{{Name: "vda", Bytes: 4 << 30, LogicalSector: 4096}},
			detail: "disk vda has sectors of 4096 bytes, the partition table of image debian-12 is made for 512",
			hint:   "image made for such disks",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRack(t)
			r.disks = c.disks
			r.available()
			r.refused(inventory.DeployRequest{Disk: c.asked}, c.detail, c.hint)
			p, err := r.now().Plan("m1", inventory.DeployRequest{Image: "debian-12", Disk: c.asked})
			if err != nil || p.Refused == nil || !strings.Contains(p.Refused.Detail, c.detail) ||
				!strings.Contains(p.Refused.Hint, c.hint) {
				t.Errorf("the plan is refused by %+v (%v), want %q", p.Refused, err, c.detail)
			}
		})
	}
}

func TestForeignDataIsNotOverwritten(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.disks = []inventory.Disk{
		{
			Name: "vda", Serial: "D1", Transport: "virtio", Bytes: 4 << 30, LogicalSector: 512,
			Content: []string{"gpt", "vmfs"},
		},
	}
	r.available()
	r.refused(inventory.DeployRequest{}, "disk vda holds data that pxectl did not put there: vmfs",
		"--overwrite")
	r.deploy(inventory.DeployRequest{Overwrite: true})
	m := r.until(inventory.Deployed)
	if m.Disk == nil || m.Disk.Serial != "D1" || m.Holds != m.Deployment {
		t.Errorf("after a deployment the machine's disk is %+v, holding %q, want D1, %q", m.Disk, m.Holds,
			m.Deployment)
	}
	// What is there now is ours: --redeploy is enough.
	r.deploy(inventory.DeployRequest{Redeploy: true})
	r.until(inventory.Deployed)
}

// Somebody installs a system between two looks at the disk.
func TestForeignDataThatCameLater(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	if _, err := r.now().Power(context.Background(), "test", "m1", power.ActOff); err != nil {
		t.Fatal(err)
	}
	r.replaceDisks(inventory.Disk{
		Name: "vda", Serial: "D1", Transport: "virtio", Bytes: 4 << 30, LogicalSector: 512,
		Content: []string{"ext4", "gpt"},
	})
	r.deploy(inventory.DeployRequest{})
	if f := r.until(inventory.Failed).Failure; f.Step != "prepare-disk" ||
		!strings.Contains(f.Reason, "did not put there: ext4") {
		t.Errorf("failure = %+v, want foreign data in prepare-disk", f)
	}
	if m, _ := r.now().Machine("m1"); m.Holds != "" {
		t.Errorf("the disk was claimed by %s, want nobody", m.Holds)
	}
}

func TestAnotherDiskIsNotTakenInSilence(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	r.deploy(inventory.DeployRequest{})
	r.until(inventory.Deployed)
	r.replaceDisks(inventory.Disk{
		Name: "vda", Serial: "D2", Transport: "virtio", Bytes: 4 << 30, LogicalSector: 512,
	})
	r.powerOn(power.Boot{}) // it boots its disk, which is not there
	r.deploy(inventory.DeployRequest{Redeploy: true})
	// The old disk was still known when it was chosen; the agent finds another one.
	m := r.until(inventory.Failed)
	if !strings.Contains(m.Failure.Reason, "is not the one that m1 was deployed to before") {
		t.Errorf("failure = %+v, want that it is another disk", m.Failure)
	}
	r.refused(inventory.DeployRequest{Redeploy: true}, "is not the one that m1 was deployed to before",
		"--disk serial=D2")
	if _, err := r.now().Retry(t.Context(), "test", "m1"); err == nil ||
		!strings.Contains(inventory.AsProblem(err).Hint, "--disk serial=D2") {
		t.Errorf("retry: %v, want the same refusal", err)
	}
	r.deploy(inventory.DeployRequest{Redeploy: true, Disk: &inventory.DiskHint{Serial: "D2"}})
	if m = r.until(inventory.Deployed); m.Disk.Serial != "D2" {
		t.Errorf("the machine's disk is %+v, want D2", m.Disk)
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.disks = []inventory.Disk{
		{
			Name: "vda", Serial: "D1", Transport: "virtio", Bytes: 4 << 30, LogicalSector: 512,
			Content: []string{"gpt", "zfs"},
		},
		{Name: "sdz", Transport: "usb", Bytes: 1 << 30},
	}
	r.available()
	r.soon("the accepted BMC was asked for the machine's power", func() bool {
		m, err := r.now().Machine("m1")
		return err == nil && m.Power.Known
	})
	before, calls := r.until(inventory.Available), len(r.bmc.Calls())
	p, err := r.now().Plan("m1", inventory.DeployRequest{Image: "debian-12"})
	if err != nil {
		t.Fatal(err)
	}
	if p.Disk == nil || p.Disk.Serial != "D1" || p.AtMost != 1<<28 || len(p.Untouched) != 1 ||
		p.Refused == nil || !strings.Contains(p.Refused.Detail, "zfs") {
		t.Errorf("plan = %+v (refused: %v), want disk D1, refused for its zfs", p, p.Refused)
	}
	if p, err = r.now().Plan("m1",
		inventory.DeployRequest{Image: "debian-12", Overwrite: true}); err != nil || p.Refused != nil {
		t.Errorf("plan with overwrite = %+v, %v, want no refusal", p, err)
	}
	after, err := r.now().Machine("m1")
	if err != nil || after.State != before.State || after.Deployment != "" || len(r.bmc.Calls()) != calls {
		t.Errorf("after two plans the machine is %+v (BMC calls %v), want it untouched", after,
			r.bmc.Calls()[calls:])
	}
	r.deploy(inventory.DeployRequest{Overwrite: true})
	r.until(inventory.Deployed)
	p, err = r.now().Plan("m1", inventory.DeployRequest{Image: "debian-12"})
	if err != nil || p.Holds == "" || p.Refused == nil || !strings.Contains(p.Refused.Hint, "--redeploy") {
		t.Errorf("plan for a deployed machine = %+v, %v, want what it holds, and --redeploy", p, err)
	}
	if _, err := r.now().Plan("m1",
		inventory.DeployRequest{Image: "debian-12", Disk: &inventory.DiskHint{Size: "big"}}); err == nil {
		t.Error("a plan with a bad hint: no error")
	}
}

func TestOrdersSayHowToWrite(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	orders := make(chan inventory.Order, 100)
	r.onOrder = func(o inventory.Order) { orders <- o }
	r.available()
	r.deploy(inventory.DeployRequest{Mode: inventory.ModeDelta, Verify: inventory.VerifyHash})
	r.until(inventory.Deployed)
	close(orders)
	seen := map[string]inventory.Order{}
	for o := range orders {
		seen[o.Do] = o
	}
	// prepare-disk keeps the chunks that write-image can use, so it gets the image and the mode, too.
	if o := seen[inventory.DoPrepareDisk]; o.Mode != inventory.ModeDelta || o.Image == nil ||
		o.Image.ID != "img1" {
		t.Errorf("prepare-disk = %+v, want the image and delta", o)
	}
	if o := seen[inventory.DoWriteImage]; o.Mode != inventory.ModeDelta || o.Verify != inventory.VerifyHash ||
		o.Image == nil {
		t.Errorf("write-image = %+v, want delta, hash", o)
	}
}

func TestUserDataIsCheckedFirst(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	for _, c := range []struct {
		name string
		ask  inventory.DeployRequest
		want string
	}{
		{
			"no header",
			inventory.DeployRequest{UserData: []byte("users: []\n")},
			"cloud-init does not know it",
		},
		{
			"garbage for a network",
			inventory.DeployRequest{Network: "lorem ipsum"},
			"network-config is not a list",
		},
		{"no key", inventory.DeployRequest{SSHKeys: []string{"hello"}}, "no public key"},
		{
			"too large, whoever reads it",
			inventory.DeployRequest{UserData: make([]byte, 2<<20), AsIs: true},
			"at most 1048576",
		},
	} {
		c.ask.Image = "debian-12"
		for what, ask := range map[string]func() error{
			"Deploy": func() error { _, err := r.engine.Deploy(t.Context(), "me", "m1", c.ask); return err },
			"Plan":   func() error { _, err := r.engine.Plan("m1", c.ask); return err },
		} {
			p := inventory.AsProblem(ask())
			if p == nil || p.Code != inventory.CodeInvalid || !strings.Contains(p.Detail, c.want) {
				t.Errorf("%s: %s = %v, want %s", c.name, what, p, c.want)
			}
		}
	}
}

func TestImagesThatDoNotFit(t *testing.T) {
	disk := inventory.Disk{Name: "sda", Serial: "A", Transport: "sata", Bytes: 4 << 30}
	m := inventory.Machine{Name: "m1", Report: &inventory.Report{Disks: []inventory.Disk{disk}}}
	for _, c := range []struct {
		name string
		img  Image
		want string
	}{
		{"fits to the byte", Image{RawSize: 1 << 30, Smallest: 4 << 30}, ""},
		{"no room for the seed", Image{RawSize: 1 << 30, Smallest: 4<<30 + 1}, "the image needs 4294967297"},
		{"smallest is not known", Image{RawSize: 4 << 30}, ""},
		{
			"kept by force",
			Image{Name: "junk", RawSize: 1 << 30, Fault: "it has no partition table"},
			"image junk: it has no partition table",
		},
	} {
		got := ""
		if _, err := chooseDisk(m, nil, c.img); err != nil {
			got = err.Error()
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: chooseDisk = %q, want %q", c.name, got, c.want)
		}
	}
}
