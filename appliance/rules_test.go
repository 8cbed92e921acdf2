package appliance

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/ipxe"
)

// The example of boot rules in appliance.yaml, without its comment signs, is valid.
func TestTheExampleOfRules(t *testing.T) {
	raw, err := os.ReadFile("../appliance.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := "provisioning: {interfaces: [{name: lo}]}\ndata_dir: " + dir + "\nboot:\n"
	_, example, _ := strings.Cut(string(raw), "\nboot: []\n")
	for line := range strings.Lines(example) {
		line, ok := strings.CutPrefix(line, "# ")
		if !ok {
			break
		}
		text += line
	}
	_, err = config.Parse("a.yaml", []byte(text), net.Interfaces)
	if err == nil || !strings.Contains(err.Error(), "1 mistake") ||
		!strings.Contains(err.Error(), "].script: ") || !strings.Contains(err.Error(), "no such file") {
		t.Fatalf("before its script is there, the example's error is %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "scripts"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "scripts", "slow-switch.ipxe"),
		[]byte("#!ipxe\nsleep 30\n{{.Script}}"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("a.yaml", []byte(text), net.Interfaces)
	if err != nil || len(c.Boot) < 3 {
		t.Fatalf("%d rules, %v", len(c.Boot), err)
	}
	book, err := newRuleBook(c)
	if err != nil || book.scripts["slow-switch.ipxe"] == nil {
		t.Errorf("ruleBook = %+v, %v", book, err)
	}
}

func TestMistakesInRules(t *testing.T) {
	_, err := config.Parse("a.yaml",
		[]byte("provisioning: {interfaces: [{name: lo}]}\ndata_dir: /nonexistent\n"+
			"boot:\n  - {vendor: HPE, nbp: x, local: y}\n  - {vendr: HPE, script: ../x}\n"), net.Interfaces)
	for _, want := range []string{
		"4 mistakes", `boot[0].local: "y" (have: exit, sanboot, silence)`, `boot[0].nbp: "x" (have: `,
		`boot[1]: unknown key "vendr" (have: machine, vendor, model, nbp, args, local, script)`,
		`boot[1].script: "../x": want the name of a file in /nonexistent/scripts`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is\n%v\nwant in it: %s", err, want)
		}
	}
}

func TestRuleBook(t *testing.T) {
	script := new(ipxe.Template)
	book := ruleBook{
		rules: ipxe.Rules{
			{Model: "R640", Args: []string{"console=ttyS1"}, Local: ipxe.SANBoot},
			{Machine: "web-*", Script: "x.ipxe"},
			{Vendor: "Dell*", NBP: ipxe.NativeX64},
		},
		scripts: map[string]*ipxe.Template{"x.ipxe": script},
	}
	const mac = inventory.MAC("52:54:00:00:00:01")
	unknown := func(inventory.MAC) (inventory.Machine, bool) { return inventory.Machine{}, false }
	known := func(inventory.MAC) (inventory.Machine, bool) {
		return inventory.Machine{
				Name: "web-1",
				Report: &inventory.Report{
					System: inventory.System{Manufacturer: "Dell Inc.", Product: "R640"},
				},
			},
			true
	}
	if diff := cmp.Diff(ipxe.Choice{}, book.about(mac, ipxe.Params{}, unknown)); diff != "" {
		t.Errorf("of a stranger's DHCP packet (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ipxe.Choice{NBPs: []string{ipxe.NativeX64}},
		book.about(mac, ipxe.Params{Manufacturer: "Dell Inc."}, unknown)); diff != "" {
		t.Errorf("of a stranger's iPXE (-want +got):\n%s", diff)
	}
	choice := book.about(mac, ipxe.Params{}, known)
	if diff := cmp.Diff(ipxe.Choice{
		NBPs: []string{ipxe.NativeX64}, Args: []string{"console=ttyS1"},
		Local: ipxe.SANBoot, Script: "x.ipxe",
	}, choice); diff != "" {
		t.Errorf("of a machine that was inspected (-want +got):\n%s", diff)
	}
	agent := book.apply(ipxe.Boot{Action: ipxe.Agent, Args: []string{"a=b"}}, choice)
	if diff := cmp.Diff([]string{"a=b", "console=ttyS1"}, agent.Args); diff != "" || agent.Method != "" ||
		agent.Template != script {
		t.Errorf("apply to agent = %+v; arguments (-want +got):\n%s", agent, diff)
	}
	if local := book.apply(ipxe.Boot{Action: ipxe.Local}, choice); local.Method != ipxe.SANBoot ||
		local.Args != nil {
		t.Errorf("apply to local = %+v", local)
	}
}
