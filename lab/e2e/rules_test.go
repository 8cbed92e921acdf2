package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/internal/pcap"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/ipxe"
)

// Two deployed machines whose firmware has the network first in its order come to their own disks, by the
// script of a rule for their vendor. docs/firmware.md has the seconds.
func TestRulesAboutTheWayToTheDisk(t *testing.T) {
	onlyWithAllFirmwares(t)
	macs := map[string]string{"m1": mac1, "m2": mac2}
	r := newRack(t, "m1:uefi,m2:bios", mini)
	r.pxectl("image", "import", mini, "--name", "mini")
	for name := range macs {
		r.powerOn(name)
	}
	for name, mac := range macs {
		r.until(60*time.Second, name+" has reported", func() bool { return r.machine(mac).Report != nil })
		r.enroll(name, mac)
		r.pxectl("deploy", name, "--image", "mini")
	}
	for name := range macs {
		r.until(120*time.Second, name+" is deployed", func() bool {
			return r.machine(name).State == inventory.Deployed
		})
	}
	prompts := func(name string) int { return strings.Count(r.console(name), name+" login:") }
	for _, way := range []struct {
		how      string
		machines []string
	}{
		{ipxe.SANBoot, []string{"m1", "m2"}},
		{ipxe.Exit, []string{"m1", "m2"}},
		{ipxe.Silence, []string{"m2"}}, // OVMF waits minutes for each network entry; docs/firmware.md
	} {
		how := way.how
		r.rules("boot:\n  - vendor: PXECTL\n    local: "+how+"\n    script: said.ipxe\n", "said.ipxe",
			"#!ipxe\necho a rule says "+how+" to {{.Product}}\n{{.Script}}")
		before := map[string]int{}
		on := time.Now()
		for _, name := range way.machines {
			before[name] = prompts(name)
			r.pxectl("bootdev", "pxe", name)
			if err := r.Power(t.Context(), name, "cycle"); err != nil {
				t.Fatal(err)
			}
		}
		there := map[string]float64{}
		what := strings.Join(way.machines, " and ") + " have booted their own systems by " + how
		r.until(120*time.Second, what, func() bool {
			for _, name := range way.machines {
				if there[name] == 0 && prompts(name) > before[name] {
					there[name] = time.Since(on).Seconds()
				}
			}
			return len(there) == len(way.machines)
		})
		for _, name := range way.machines {
			asked, answered := r.bootAnswers(macs[name], on)
			t.Logf("%s: %s came from the power cycle, network first, to the prompt of its own system in %.1f s; it asked %d times what to boot and had %d answers",
				how, name, there[name], asked, answered)
			said := strings.Contains(r.console(name), "a rule says "+how+" to Virtual Rack Machine")
			if want := how != ipxe.Silence; said != want || (answered > 0) != want {
				t.Errorf("%s: %s had %d answers, and its script on the console: %v; want them: %v", how, name,
					answered, said, want)
			}
			if asked == 0 {
				t.Errorf("%s: %s did not ask the network what to boot", how, name)
			}
		}
	}
}

// bootAnswers counts on the wire how often a machine's firmware asked for a boot file, and how often the
// appliance answered.
func (r *rack) bootAnswers(mac string, since time.Time) (asked, answered int) {
	r.t.Helper()
	packets, err := pcap.DHCP(r.Capture())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range packets {
		switch d := p.DHCP; {
		case p.At.Before(since) || d.ClientHWAddr.String() != mac:
		case d.OpCode == dhcpv4.OpcodeBootRequest && d.MessageType() == dhcpv4.MessageTypeDiscover &&
			strings.HasPrefix(d.ClassIdentifier(), "PXEClient"):
			asked++
		case d.OpCode == dhcpv4.OpcodeBootReply && p.Src.Addr().String() == "10.77.0.1":
			answered++
		}
	}
	return asked, answered
}

// A machine loads a rule's boot program, and its kernel gets the rule's arguments. Another rule's script
// makes iPXE ROMs load ipxe.pxe, as a ROM does that cannot load a kernel itself, and undionly.kpxe: each
// drives the card on top of that ROM and gets to the script.
func TestRulesAboutWhatIsLoaded(t *testing.T) {
	onlyWithAllFirmwares(t)
	const mac3 = "52:54:00:77:00:03"
	r := newRack(t, "m1:uefi,m2:bios::e1000,m3:bios")
	// QEMU's ROMs are of another version than our programs.
	r.rules(`boot:
  - machine: "`+mac1+`"
    nbp: ipxe-amd64.efi
  - machine: "52:54:00:77:00:0[23]"
    script: native.ipxe
  - args: ["console=ttyS0,115200n8", "rack.rule=told"]
`, "native.ipxe", `#!ipxe
iseq ${version} 1.21.1+git20250501.dad20602+dfsg-1 || chain --autofree tftp://10.77.0.1/{{if eq .MAC "`+mac3+
		`"}}undionly.kpxe{{else}}ipxe.pxe{{end}}
echo ${version} on ${netX/chip} goes on
{{.Script}}`)
	for _, m := range []struct{ name, mac, program string }{
		{"m1", mac1, ipxe.NativeX64},
		{"m2", mac2, ipxe.Native},
		{"m3", mac3, ipxe.BIOS},
	} {
		on := time.Now()
		r.powerOn(m.name)
		r.until(60*time.Second, m.name+" has reported", func() bool { return r.machine(m.mac).Report != nil })
		t.Logf("%s has registered %.1f s after power-on", m.name,
			r.machine(m.mac).Boot.RegisteredAt.Sub(on).Seconds())
		if loaded := r.loaded(m.mac); len(loaded) == 0 || loaded[0] != m.program {
			t.Errorf("%s loaded %q, want %s first", m.name, loaded, m.program)
		}
		_, line, _ := strings.Cut(r.console(m.name), "Kernel command line: ")
		if line, _, _ = strings.Cut(line, "\n"); !strings.Contains(line, " rack.rule=told") {
			t.Errorf("the kernel of %s was told %q, want rack.rule=told", m.name, line)
		}
		if want := "1.21.1+git20250501.dad20602+dfsg-1 on "; m.program != ipxe.NativeX64 &&
			!strings.Contains(r.console(m.name), want) {
			t.Errorf("the console of %s does not say %q", m.name, want)
		}
	}
}

// loaded lists the files that a machine has loaded by TFTP.
func (r *rack) loaded(mac string) (files []string) {
	r.t.Helper()
	err := r.client.Events(r.t.Context(), api.EventQuery{Machine: mac}, func(e inventory.Event) error {
		if e.Kind == inventory.KindTFTP && e.Data["result"] == "sent" {
			files = append(files, e.Data["file"])
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

// rules gives the appliance rules and the script that they name, and restarts it.
func (r *rack) rules(boot, name, script string) {
	r.t.Helper()
	dir := filepath.Join(r.dir, "data", "scripts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	write(r.t, filepath.Join(dir, name), script)
	config := filepath.Join(r.dir, "appliance.yaml")
	raw, err := os.ReadFile(config)
	if err != nil {
		r.t.Fatal(err)
	}
	plain, _, _ := strings.Cut(string(raw), "boot:\n")
	write(r.t, config, plain+boot)
	before := r.appliance()
	if _, err := r.Exec(r.t.Context(), "kill", "-9", before); err != nil {
		r.t.Fatal(err)
	}
	r.until(15*time.Second, "another appliance answers", func() bool {
		out, err := r.Exec(r.t.Context(), "pgrep", "-x", "-f", binary+" serve .*")
		if err != nil || strings.TrimSpace(out) == before {
			return false
		}
		_, err = r.try("machine", "list")
		return err == nil
	})
}
