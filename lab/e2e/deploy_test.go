package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/lab"
)

const (
	mac1 = "52:54:00:77:00:01"
	mac2 = "52:54:00:77:00:02"
)

// Two bare machines of different kinds are switched on and end with proved systems.
func TestFromPowerOnToProvedSystems(t *testing.T) {
	r := newRack(t, "m1:bios:virtio+sata:e1000,m2:uefi:nvme", mini)
	r.pxectl("image", "import", mini, "--name", "mini")

	on := time.Now()
	r.powerOn("m1")
	r.powerOn("m2")
	for name, mac := range map[string]string{"m1": mac1, "m2": mac2} {
		r.until(60*time.Second, name+" has registered and reported", func() bool {
			return r.machine(mac).Report != nil
		})
	}
	for name, mac := range map[string]string{"m1": mac1, "m2": mac2} {
		m := r.machine(mac)
		t.Logf("%s: the agent called %.1f s after power-on, and reported after %.1f s", name,
			m.Boot.RegisteredAt.Sub(on).Seconds(), m.ReportedAt.Sub(on).Seconds())
		if m.State != inventory.Discovered {
			t.Errorf("%s is %s before anybody approved it", name, m.State)
		}
		if want := map[string]string{"m1": "10.77.0.51", "m2": "10.77.0.52"}[name]; m.BMC.Proposed == nil ||
			m.BMC.Proposed.Address != want || m.BMC.Address != "" {
			t.Errorf("%s: BMC found in-band = %+v, want %s proposed", name, m.BMC, want)
		}
		if want := map[string]string{"m1": "bios", "m2": "uefi"}[name]; m.Report.Firmware != want {
			t.Errorf("%s reports firmware %q, want %q", name, m.Report.Firmware, want)
		}
		if m.Report.System.UUID == "" || m.Report.CPU.Threads == 0 || m.Report.Memory.Bytes == 0 ||
			len(m.Report.NICs) != 1 {
			t.Errorf("%s: the report is thin: %+v", name, m.Report)
		}
	}

	// Not approved, so not deployed.
	if _, err := r.try("deploy", mac1, "--image", "mini"); err == nil ||
		!strings.Contains(err.Error(), "machine approve") {
		t.Errorf("deploy of a machine that nobody approved: %v, want the next move", err)
	}
	r.enroll("m1", mac1)
	r.enroll("m2", mac2)

	// Two disks and no hint: an error lists them, and nothing changes.
	if _, err := r.try("deploy", "m1", "--image", "mini", "--wait", "--timeout", "60s"); err == nil ||
		!strings.Contains(err.Error(), "2 disks and no hint which one: ") ||
		!strings.Contains(err.Error(), "serial=") || !strings.Contains(err.Error(), "--disk") {
		t.Errorf("deploy of a machine with two disks: %v, want both disks and the way to name one", err)
	}
	// A wrong BMC password: the error names it and says what to do.
	r.pxectl("machine", "edit", "m2", "--bmc-user", "nobody")
	if _, err := r.try("deploy", "m2", "--image", "mini", "--wait", "--timeout", "60s"); err == nil ||
		!strings.Contains(err.Error(), "user or password rejected") ||
		!strings.Contains(err.Error(), "--bmc-password-file") {
		t.Errorf("deploy with wrong BMC credentials: %v, want the reason and the way out", err)
	}
	if m := r.machine("m2"); m.State != inventory.Failed {
		t.Errorf("m2 is %s after a deployment that failed at validate, want failed", m.State)
	}
	r.pxectl("machine", "edit", "m2", "--bmc-user", "")

	// One was refused and one failed before any change, so both can be deployed at once.
	r.pxectl("deploy", "m1", "--image", "mini", "--disk", "serial="+serialOf(t, r, "m1", "virtio"),
		"--hostname", "web-1")
	if _, err := r.try("deploy", "m1", "--image", "mini"); err == nil ||
		!strings.Contains(err.Error(), "is being deployed already") {
		t.Errorf("second deploy of m1: %v, want a refusal that names the first", err)
	}
	r.pxectl("deploy", "m2", "--image", "mini", "--wait", "--timeout", "4m")
	r.until(60*time.Second, "m1 is deployed", func() bool {
		return r.machine("m1").State == inventory.Deployed
	})
	t.Logf("both deployed %.1f s after power-on", time.Since(on).Seconds())
	for name, prompt := range map[string]string{"m1": "web-1 login:", "m2": "m2 login:"} {
		if m := r.machine(name); m.Unverified {
			t.Errorf("%s is unverified", name)
		}
		r.until(5*time.Second, name+" shows "+prompt, func() bool {
			return strings.Contains(r.console(name), prompt)
		})
		r.proveDisk(name)
	}
	r.proveWire()
}

// serialOf finds the serial number of a machine's disk by how it is attached.
func serialOf(t *testing.T, r *rack, machine, transport string) string {
	t.Helper()
	for _, d := range r.machine(machine).Report.Disks {
		if d.Transport == transport {
			return d.Serial
		}
	}
	t.Fatalf("%s reports no %s disk", machine, transport)
	return ""
}

// The appliance is killed while it writes chunks to a machine whose BMC rebooted it out of its own system.
// The deployment goes on.
func TestKillOfTheApplianceWhileChunksAreWritten(t *testing.T) {
	r := newRack(t, "m1:bios", mini)
	r.pxectl("image", "import", mini, "--name", "mini")
	r.powerOn("m1")
	r.until(30*time.Second, "m1 has reported", func() bool { return r.machine(mac1).Report != nil })
	r.enroll("m1", mac1)
	r.pxectl("deploy", "m1", "--image", "mini", "--wait", "--timeout", "4m")

	// Five chunks of 4 MiB differ from the first system's. The disk takes one of them, and the others when
	// the test lets it.
	r.slowDisk("m1", &lab.SlowDisk{Burst: 8 << 20, PerSecond: 64 << 10})
	r.pxectl("deploy", "m1", "--image", "mini", "--redeploy", "--hostname", "again")
	r.writing("m1")
	before := r.appliance()
	if _, err := r.Exec(t.Context(), "kill", "-9", before); err != nil {
		t.Fatal(err)
	}
	t.Logf("killed the appliance (pid %s)", before)
	r.until(10*time.Second, "another appliance answers", func() bool { return r.machine("m1").Name == "m1" })
	if after := r.appliance(); after == before {
		t.Fatalf("the appliance still has pid %s", after)
	}
	if m := r.machine("m1"); m.State != inventory.Deploying {
		t.Errorf("m1 is %s after the kill, want deploying", m.State)
	}
	r.slowDisk("m1", nil)
	r.until(60*time.Second, "m1 is deployed", func() bool {
		return r.machine("m1").State != inventory.Deploying
	})
	d := r.deployment("m1")
	if d.Outcome != inventory.Succeeded || d.Hostname != "again" {
		t.Fatalf("the deployment ended %s: %+v", d.Outcome, d.Failure)
	}
	attempts := 0
	for _, s := range d.History {
		if s.Step == inventory.WriteImage {
			attempts++
		}
		if s.Step == inventory.BootAgent && s.ActedAt.IsZero() {
			t.Errorf("boot-agent of a deployed machine did not use its BMC: %+v", s)
		}
	}
	if attempts != 1 {
		t.Errorf("the image was written in %d attempts, want 1 that outlived the kill", attempts)
	}
	r.until(5*time.Second, "the console shows again login:", func() bool {
		return strings.Contains(r.console("m1"), "again login:")
	})
	r.proveDisk("m1")
}

// slowDisk makes a machine's disk slow, or with nil fast again.
func (r *rack) slowDisk(name string, slow *lab.SlowDisk) {
	r.t.Helper()
	if err := r.SlowDisk(r.t.Context(), name, slow); err != nil {
		r.t.Fatal(err)
	}
}

// writing waits until chunks of a machine's image are being written. A slow disk holds that open.
func (r *rack) writing(name string) {
	r.t.Helper()
	r.until(60*time.Second, "chunks are being written", func() bool {
		d, err := r.client.Deployment(r.t.Context(), name)
		return err == nil && d.Step == inventory.WriteImage && d.Progress != nil &&
			d.Progress.Phase == "write" && d.Progress.Done > 0
	})
}

// appliance is the pid of `pxectl serve`, inside the rack.
func (r *rack) appliance() string {
	r.t.Helper()
	out, err := r.Exec(r.t.Context(), "pgrep", "-x", "-f", binary+" serve .*")
	if err != nil {
		r.t.Fatalf("find the appliance: %v", err)
	}
	return strings.TrimSpace(out)
}

// A real Debian with cloud-init takes its name, its key and its user-data from the seed. Its kernel has no
// AHCI driver, so the disk is virtio.
func TestDebianWithCloudInit(t *testing.T) {
	r := newRack(t, "m1:uefi", debian)
	r.pxectl("image", "import", debian, "--name", "debian-12")
	r.powerOn("m1")
	r.until(60*time.Second, "m1 has reported", func() bool { return r.machine(mac1).Report != nil })
	r.enroll("m1", mac1)
	key := filepath.Join(t.TempDir(), "id.pub")
	write(t, key, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9r4sLQy2C1nE0mXcLh9pQ2Vf0dJ8C0m5vS3kqZ7N1x story\n")
	data := filepath.Join(t.TempDir(), "user-data")
	write(t, data, "#cloud-config\nruncmd:\n  - echo user-data-of-the-test > /dev/ttyS0\n")
	r.pxectl("deploy", "m1", "--image", "debian-12", "--hostname", "db-1", "--ssh-key", key, "--user-data",
		data, "--wait", "--timeout", "12m")
	if m := r.machine("m1"); m.State != inventory.Deployed || m.Unverified {
		t.Fatalf("m1 is %s, unverified = %v", m.State, m.Unverified)
	}
	r.proveDisk("m1")
	for _, want := range []string{"db-1 login:", "user-data-of-the-test"} {
		r.until(30*time.Second, "the console shows "+want, func() bool {
			return strings.Contains(r.console("m1"), want)
		})
	}
	// The power button of the deployed system, through its BMC.
	r.pxectl("power", "soft", "m1")
	r.until(30*time.Second, "m1 is off", func() bool {
		out, err := r.try("power", "status", "m1", "-o", "json")
		return err == nil && strings.Contains(out, `"on": false`)
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
