package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/lab"
)

// targets are the kinds of disks. Where elsewhere is set, that test deploys to one.
var targets = []struct {
	firmware, bus string
	elsewhere     string
}{
	{"bios", "virtio", "TestFromPowerOnToProvedSystems"},
	{"bios", "sata", ""},
	{"bios", "nvme", "TestLifeOfADisk"},
	{"uefi", "virtio", "TestDebianWithCloudInit"},
	{"uefi", "sata", "TestPowerCutWhileChunksAreWritten"},
	{"uefi", "nvme", "TestFromPowerOnToProvedSystems"},
}

// Every kind of disk, with both kinds of firmware, starts the system that was written to it, and holds the
// image. With all of them, each is erased in the end.
func TestTargets(t *testing.T) {
	t.Parallel()
	var machines []string
	for _, tt := range targets {
		if tt.elsewhere == "" || os.Getenv(allFirmwares) == "all" {
			machines = append(machines, tt.firmware+"-"+tt.bus+":"+tt.firmware+":"+tt.bus)
		}
	}
	r := newRack(t, strings.Join(machines, ","), mini)
	r.pxectl("image", "import", mini, "--name", "mini")
	macs := map[string]string{}
	for i, m := range machines {
		name, _, _ := strings.Cut(m, ":")
		macs[name] = fmt.Sprintf("52:54:00:77:00:%02x", i+1)
		r.powerOn(name)
	}
	limit := time.Duration(len(machines)) * 30 * time.Second // they share the processors
	for name, mac := range macs {
		r.until(limit, name+" has reported", func() bool { return r.machine(mac).Report != nil })
		r.enroll(name, mac)
	}
	_, err := r.try("deploy", "--all", "--image", "mini", "--wait", "--timeout", "10m")
	if err != nil {
		t.Error(err) // the table shows which machine failed
	}
	for _, tt := range targets {
		t.Run(tt.firmware+", "+tt.bus, func(t *testing.T) {
			name := tt.firmware + "-" + tt.bus
			if macs[name] == "" {
				t.Skipf("SKIPPED %s: %s deploys to such a disk; for all of them at once run `make test-firmware` (%s=all)",
					t.Name(), tt.elsewhere, allFirmwares)
			}
			r := r.in(t)
			m, d := r.machine(name), r.deployment(name)
			if m.State != inventory.Deployed || m.Unverified {
				t.Fatalf("%s is %s, unverified = %v: %+v", name, m.State, m.Unverified, d.Failure)
			}
			if m.Report.Firmware != tt.firmware || len(m.Report.Disks) != 1 ||
				m.Report.Disks[0].Transport != tt.bus {
				t.Errorf("the agent reports firmware %s and disks %+v, want %s and one of %s",
					m.Report.Firmware, m.Report.Disks, tt.firmware, tt.bus)
			}
			r.until(5*time.Second, "the console shows the login prompt", func() bool {
				return strings.Contains(r.console(name), name+" login:")
			})
			r.proveDisk(name)
			t.Logf("written in %d ms, read back in %d ms, deployed in %.1f s", d.Written.WriteMS,
				d.Written.ReadBackMS, d.EndedAt.Sub(d.CreatedAt).Seconds())
			if os.Getenv(allFirmwares) == "all" {
				r.proveErase(name, tt.bus)
			}
		})
	}
}

// An NVMe disk gets a system, then another image of which one chunk in fifty differs, and is erased in the
// end.
func TestLifeOfADisk(t *testing.T) {
	t.Parallel()
	testnet.Gate(t, "sgdisk")
	r := newRack(t, "m1:bios:nvme", mini)
	first := r.withData("first")
	id := r.imported("first", first)
	r.deployed("m1", mac1, "first")
	r.proveDisk("m1")

	second := r.imported("second", changed(t, first))
	r.pxectl("power", "off", "m1")
	want, own := r.differ("m1", second), r.differ("m1", id)
	if want.Differ*5 > want.Chunks || want.Fetch == 0 {
		t.Fatalf("of the second image's %d chunks, %d differ from the disk before it is written: no case for a delta",
			want.Chunks, want.Differ)
	}
	r.pxectl("deploy", "m1", "--image", "second", "--redeploy", "--mode", "delta", "--wait", "--timeout",
		"6m")
	d := r.deployment("m1")
	r.proveDelta(d, want)
	r.proveDisk("m1")
	t.Logf("of %d chunks %d differ, %d of them by what the first system wrote; %d were fetched, %d bytes came for %d; %d ms to write, %d to read back",
		want.Chunks, want.Differ, own.Differ, d.Written.Fetched, d.Written.Sent, want.Bytes,
		d.Written.WriteMS, d.Written.ReadBackMS)

	r.proveErase("m1", "nvme")
}

// The power fails during the writing of chunks. The disk then boots nothing. When the power is back, only the
// missing chunks are fetched.
func TestPowerCutWhileChunksAreWritten(t *testing.T) {
	t.Parallel()
	testnet.Gate(t, "sgdisk")
	r := newRack(t, "m1:uefi:sata", mini)
	disk := r.Disk("m1", 0)
	id := r.imported("first", r.withData("first"))
	r.powerOn("m1")
	r.until(60*time.Second, "m1 has reported", func() bool { return r.machine(mac1).Report != nil })
	r.enroll("m1", mac1)
	// Six chunks are written at once; the burst has room for these and for far less than the image. A slower
	// disk would make the kernel reset its controller.
	r.slowDisk("m1", &lab.SlowDisk{Burst: 40 << 20, PerSecond: 1 << 20})
	empty := r.differ("m1", id)
	r.pxectl("deploy", "m1", "--image", "first")
	r.writing("m1")
	// The progress counts chunks in work, zeros among them. The next deployment is a delta when some are on
	// the disk.
	r.until(60*time.Second, "eight chunks are on the disk", func() bool {
		return empty.Differ-r.differ("m1", id).Differ >= 8 && slices.Contains(r.scan(disk).Marks, phrase)
	})
	if err := r.Power(t.Context(), "m1", "off"); err != nil {
		t.Fatal(err)
	}
	cut := time.Now()
	want := r.differ("m1", id)
	if d := r.deployment("m1"); d.Step != inventory.WriteImage || want.Differ == 0 ||
		want.Differ == want.Chunks {
		t.Fatalf("the power was cut in %s with %d of %d chunks missing, want it in mid-write", d.Step,
			want.Differ, want.Chunks)
	}
	if scan := r.scan(disk); slices.Contains(scan.Marks, partitionTable) ||
		!slices.Contains(scan.Marks, phrase) {
		t.Errorf("after the power cut the disk shows %v, want %q and no %q", scan.Marks, phrase,
			partitionTable)
	}
	unlabelled(t, disk)

	r.slowDisk("m1", nil)
	r.powerOn("m1")
	r.until(180*time.Second, "m1 is deployed", func() bool {
		return r.machine("m1").State != inventory.Deploying
	})
	d := r.deployment("m1")
	if d.Outcome != inventory.Succeeded {
		t.Fatalf("the deployment ended %s: %+v", d.Outcome, d.Failure)
	}
	r.proveDelta(d, want)
	r.proveDisk("m1")
	t.Logf("%d of %d chunks were missing after the power cut; deployed %.1f s after it", want.Differ,
		want.Chunks, time.Since(cut).Seconds())
}

// A disk with sectors of 4096 bytes cannot take an image whose partition table counts sectors of 512.
func TestImageForOtherSectorsIsRefused(t *testing.T) {
	t.Parallel()
	r := newRack(t, "m1:bios:nvme-4k+virtio-4k", mini)
	r.pxectl("image", "import", mini, "--name", "mini")
	r.powerOn("m1")
	r.until(60*time.Second, "m1 has reported", func() bool { return r.machine(mac1).Report != nil })
	r.enroll("m1", mac1)
	for i, bus := range []string{"nvme", "virtio"} {
		for _, how := range [][]string{{"--plan"}, {"--wait", "--timeout", "60s"}} {
			args := append([]string{"deploy", "m1", "--image", "mini", "--disk", "transport=" + bus}, how...)
			out, err := r.try(args...)
			for _, want := range []string{
				"has sectors of 4096 bytes", "image mini is made for 512", "--disk",
				"an image made for such disks",
			} {
				if err == nil || !strings.Contains(out+err.Error(), want) {
					t.Errorf("pxectl %s: %s %v, want a refusal with %q", strings.Join(args, " "), out, err,
						want)
				}
			}
		}
		if n := allocated(t, r.Disk("m1", i)); n != 0 {
			t.Errorf("%d bytes of the %s disk were written", n, bus)
		}
	}
	if m := r.machine("m1"); m.State != inventory.Available || m.Deployment != "" {
		t.Errorf("m1 is %s by deployment %q, want that none has begun", m.State, m.Deployment)
	}
}

// in is the rack for a subtest.
func (r *rack) in(t *testing.T) *rack {
	c := *r
	c.t = t
	return &c
}

// deployed takes a machine from its power button to a system that has phoned home.
func (r *rack) deployed(name, mac, image string) {
	r.t.Helper()
	r.powerOn(name)
	r.until(60*time.Second, name+" has reported", func() bool { return r.machine(mac).Report != nil })
	r.enroll(name, mac)
	r.pxectl("deploy", name, "--image", image, "--wait", "--timeout", "6m")
	if m := r.machine(name); m.State != inventory.Deployed || m.Unverified {
		r.t.Fatalf("%s is %s, unverified = %v", name, m.State, m.Unverified)
	}
}

// imported imports an image and returns its id.
func (r *rack) imported(name, file string) string {
	r.t.Helper()
	var img struct{ ID string }
	if out := r.pxectl("image", "import", file, "--name", name, "-o", "json"); json.Unmarshal([]byte(out),
		&img) != nil || img.ID == "" {
		r.t.Fatalf("image import %s printed %q", name, out)
	}
	return img.ID
}
