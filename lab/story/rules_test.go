package story

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// A deployed UEFI machine whose firmware has the network first comes to its own disk, by the way and with the script that a rule
// gives its vendor. docs/firmware.md has the seconds.
func TestRulesAboutTheWayToTheDisk(t *testing.T) {
	if os.Getenv(allFirmwares) != "all" {
		t.Skipf("SKIPPED %s: %s=all is not set; run it with `make test-firmware`", t.Name(), allFirmwares)
	}
	r := newRack(t, "m1:uefi", mini)
	r.pxectl("image", "import", mini, "--name", "mini")
	r.powerOn("m1")
	r.until(60*time.Second, "m1 has reported", func() bool { return r.machine(mac1).Report != nil })
	r.enroll("m1", mac1)
	r.pxectl("deploy", "m1", "--image", "mini", "--wait", "--timeout", "8m")
	if m := r.machine("m1"); m.State != inventory.Deployed {
		t.Fatalf("m1 is %s", m.State)
	}
	for _, how := range []string{"sanboot", "exit"} {
		r.rule("boot:\n  - vendor: PXECTL\n    local: "+how+"\n    script: said.ipxe\n", "#!ipxe\necho a rule says "+how+" to {{.Product}}\n{{.Script}}")
		prompts := func() int { return strings.Count(r.console("m1"), "m1 login:") }
		before := prompts()
		r.pxectl("bootdev", "pxe", "m1")
		on := time.Now()
		if err := r.Power(t.Context(), "m1", "cycle"); err != nil {
			t.Fatal(err)
		}
		r.until(120*time.Second, "m1 has booted its own system by "+how, func() bool { return prompts() > before })
		t.Logf("%s: from the power cycle, network first, to the prompt of its own system in %.1f s", how, time.Since(on).Seconds())
		if want := "a rule says " + how + " to Virtual Rack Machine"; !strings.Contains(r.console("m1"), want) {
			t.Errorf("the console does not say %q", want)
		}
	}
}

// rule gives the appliance rules and the script that they name, and starts it again.
func (r *rack) rule(boot, script string) {
	r.t.Helper()
	dir := filepath.Join(r.dir, "data", "scripts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	write(r.t, filepath.Join(dir, "said.ipxe"), script)
	config := filepath.Join(r.dir, "appliance.yaml")
	raw, err := os.ReadFile(config)
	if err != nil {
		r.t.Fatal(err)
	}
	plain, _, _ := strings.Cut(string(raw), "boot:\n")
	write(r.t, config, plain+boot)
	if _, err := r.Exec(r.t.Context(), "kill", "-9", r.appliance()); err != nil {
		r.t.Fatal(err)
	}
	r.until(15*time.Second, "another appliance answers", func() bool { return r.machine("m1").Name == "m1" })
}
