package config

import (
	"net"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
)

// loopback is the one interface that every machine has.
func loopback() ([]net.Interface, error) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, err
	}
	return []net.Interface{*lo}, nil
}

func TestParse(t *testing.T) {
	c, err := Parse("a.yaml",
		[]byte("provisioning:\n  interfaces:\n    - name: lo\ndeploy:\n  verify_os: 90s\n"+
			"log: {level: debug}\n"),
		loopback)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Provisioning.Interfaces[0].Address.String(); got != "127.0.0.1" {
		t.Errorf("address of lo = %s", got)
	}
	if c.Deploy.VerifyOS != 90*time.Second || c.Deploy.BootAgent != 30*time.Minute {
		t.Errorf("deploy = %+v", c.Deploy)
	}
}

func TestMistakesAreToldAllAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		yaml string
		want []string
	}{
		"three of a kind": {
			"provisioning:\n  interfaces:\n    - name: eno9\ndhcp:\n  mode: sever\n  lease: 10m\ndeploy:\n" +
				"  boot_agent: soon\n",
			[]string{
				`4 mistakes`,
				`dhcp: unknown key "lease" (have: mode, server)`,
				`deploy.boot_agent: soon: not a duration like 90s, 15m or 4h`,
				`dhcp.mode: "sever" (have: proxy, server, off)`,
				`provisioning.interfaces[0].name: no such interface "eno9" (have: lo)`,
			},
		},
		"empty": {
			"", []string{"provisioning.interfaces: none; name the interface", "(have: lo)"},
		},
		"an address of a peer": {
			"provisioning: {interfaces: [{name: lo, address: 10.9.9.9}]}",
			[]string{"interfaces[0].address: 10.9.9.9 is not an address of lo (have: 127.0.0.1"},
		},
		"not an address": {
			"provisioning: {interfaces: [{name: lo, address: eth0}]}",
			[]string{"provisioning.interfaces[0].address: eth0: not an IP address"},
		},
		"list for a word": {
			"provisioning: {interfaces: [{name: lo}]}\ndata_dir: [a]\n",
			[]string{"data_dir: [a]: not a text"},
		},
		"word for a list": {
			"provisioning: {interfaces: lo}", []string{"provisioning.interfaces: lo: want a list"},
		},
		"word for keys": {
			"provisioning: lo", []string{"provisioning: lo: want keys below it (interfaces)"},
		},
		"not yaml": {"a: [", []string{"[1:4] sequence end token"}},
		"server without subnets": {
			"provisioning: {interfaces: [{name: lo}]}\ndhcp: {mode: server}",
			[]string{"dhcp.server.subnets: none; with dhcp.mode server, name the networks"},
		},
		"server": {
			"provisioning: {interfaces: [{name: lo}]}\ndhcp:\n  server:\n    lease_time: 1s\n    subnets:\n" +
				"      - subnet: 10.0.0.0/24\n        pools: [10.0.0.10-10.0.1.9, 5]\n" +
				"        options: {router: 10.1.0.1, gateway: 10.0.0.1}\n" +
				"    reservations: [{mac: 52:54:00:00:00:01, address: 10.9.0.1}]\n",
			[]string{
				"dhcp.server.lease_time: 1s: want between a minute and a year",
				"dhcp.server.subnets[0].pools[0]: 10.0.0.10-10.0.1.9 lies outside of 10.0.0.0/24",
				"dhcp.server.subnets[0].pools[1]: 5: not a range like 192.0.2.100-192.0.2.199",
				"dhcp.server.subnets[0].options.router: 10.1.0.1 lies outside of 10.0.0.0/24",
				`dhcp.server.subnets[0].options: unknown key "gateway" (have: lease_time, router, dns,`,
				"dhcp.server.reservations[0].address: 10.9.0.1 lies outside of every subnet",
			},
		},
		"an interface twice": {
			"provisioning: {interfaces: [{name: lo}, {name: lo, address: 127.0.0.1}]}",
			[]string{"provisioning.interfaces[1].name: lo is provisioning.interfaces[0] too"},
		},
		"BMC credentials": {
			"provisioning: {interfaces: [{name: lo}]}\n" +
				"bmc: {user: a-name-of-18-bytes, password: \"123456789012345678901\"}",
			[]string{
				`bmc.user: BMC user "a-name-of-18-bytes": 18 bytes, IPMI takes 16 at most`,
				"bmc.password: BMC password: 21 bytes, IPMI takes 20 at most",
			},
		},
		"levels that there are not": {
			"provisioning: {interfaces: [{name: lo}]}\nlog: {level: loud, format: xml}",
			[]string{
				`log.level: "loud" (have: debug, info, warn, error)`, `log.format: "xml" (have: text, json)`,
			},
		},
		"a level that is a number": {
			"provisioning: {interfaces: [{name: lo}]}\nlog: {level: 5}",
			[]string{`log.level: "5" (have: debug, info, warn, error)`},
		},
		"rules of boot": {
			"provisioning: {interfaces: [{name: lo}]}\nboot: [{machine: a}, {machine: a, local: no}]",
			[]string{"boot[0]: sets nothing (have: nbp, args, local, script)", `boot[1].local: "no" (have: `},
		},
		"same port twice": {
			"provisioning: {interfaces: [{name: lo}]}\nhttp: {port: 8443}",
			[]string{"api.port: 8443 is http.port too"},
		},
	} {
		_, err := Parse("a.yaml", []byte(c.yaml), loopback)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error is\n%v\nwant in it: %s", name, err, want)
			}
		}
	}
}

// Mistakes come in the order of the file, those of the YAML and those of the values.
func TestMistakesAreInTheOrderOfTheFile(t *testing.T) {
	text := "log: {format: xml, loudness: 3, level: loud}\ntftp: {port: 99999}\nspeed: 1\nboot:\n" +
		"  - nbp: x\n  - local: y\n    scripts: z\ndata_dir: here\n" +
		"provisioning: {interfaces: [{name: eno9}]}\ndhcp: {mode: maybe}\n"
	_, err := Parse("a.yaml", []byte(text), loopback)
	want := []string{
		"a.yaml: 11 mistakes:", "log.format: ", `log: unknown key "loudness"`, "log.level: ", "tftp.port: ",
		`unknown key "speed"`, "boot[0].nbp: ", "boot[1].local: ",
		`boot[1]: unknown key "scripts"`, "data_dir: ", "provisioning.interfaces[0].name: ", "dhcp.mode: ",
	}
	got := strings.Split(err.Error(), "\n  ")
	if len(got) != len(want) {
		t.Fatalf("%v, want %d lines", err, len(want))
	}
	for i, line := range got {
		if !strings.HasPrefix(line, want[i]) {
			t.Errorf("line %d is %q, want %q…", i, line, want[i])
		}
	}
}

// A file with more mistakes than anybody makes says how many there are.
func TestManyMistakes(t *testing.T) {
	_, err := Parse("a.yaml",
		[]byte("provisioning: {interfaces: [{name: lo}]}\nboot: ["+
			strings.Repeat("{nbp: x}, ", maxMistakes+6)+"]"), loopback)
	if got := err.Error(); !strings.HasPrefix(got, "a.yaml: 26 mistakes:\n") ||
		!strings.HasSuffix(got, "\n  and 6 more") || strings.Count(got, "\n") != maxMistakes+1 {
		t.Errorf("26 mistakes: %s", got)
	}
}

// The example documents every key, and its values are the defaults.
func TestTheExampleFile(t *testing.T) {
	raw, err := os.ReadFile("../../appliance.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(raw), "name: eno1", "name: lo")
	c, err := Parse("appliance.yaml", []byte(text), loopback)
	if err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.Provisioning, want.BMC = c.Provisioning, c.BMC
	if c.DataDir != want.DataDir || !reflect.DeepEqual(c.DHCP, want.DHCP) || c.TFTP != want.TFTP ||
		c.HTTP != want.HTTP || c.API != want.API ||
		c.Discovery != want.Discovery || c.Deploy != want.Deploy || c.Log != want.Log {
		t.Errorf("the example's values are not the defaults: %+v, want %+v", c, want)
	}
	for _, key := range []string{
		"data_dir", "address", "mode", "lease_time", "unknown_share", "probe",
		"ignore_client_id", "subnets", "reservations", "socket", "policy", "password_file", "trust_reported",
		"boot_agent", "write_image", "verify_os", "level", "format",
	} {
		if !strings.Contains(text, key+":") {
			t.Errorf("the example does not mention %s", key)
		}
	}
}

// The example of dhcp.server in appliance.yaml, without its comment signs, is valid.
func TestTheExampleOfServerMode(t *testing.T) {
	raw, err := os.ReadFile("../../appliance.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(raw), "For example:\n")
	text := "provisioning: {interfaces: [{name: lo}]}\ndhcp:\n  mode: server\n  server:\n"
	for line := range strings.Lines(example) {
		line, ok := strings.CutPrefix(line, "    # ")
		if !ok {
			break
		}
		text += "    " + line
	}
	c, err := Parse("appliance.yaml", []byte(text), loopback)
	if err != nil {
		t.Fatal(err)
	}
	if p := c.DHCP.Server; len(p.Subnets) != 1 || len(p.Subnets[0].Options.Other) != 3 ||
		len(p.Reservations) != 4 || p.LeaseTime != 12*time.Hour {
		t.Errorf("dhcp.server = %+v, want one subnet and four reservations", p)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("provisioning: {interfaces: [{name: lo}]}")
	f.Add("a: &a [*a]")
	f.Add("deploy: {verify_os: 1h}\nlog: {level: 7}")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse("f.yaml", []byte(s), loopback)
		if err == nil && len(c.Provisioning.Interfaces) == 0 {
			t.Errorf("Parse(%q) accepts a configuration without an interface", s)
		}
	})
}

// Machines on a wire get addresses of one subnet. A configuration with two is refused before anything starts.
func TestTwoSubnetsOnOneWire(t *testing.T) {
	testnet.Need(t, "ip")
	testnet.Bridge(t, "10.77.0.1/24")
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	const plan = "dhcp: {mode: server, server: {subnets: [{subnet: 10.77.0.0/24, pools: " +
		"[10.77.0.100-10.77.0.109]}, {subnet: 10.78.0.0/24, pools: [10.78.0.100-10.78.0.109]}]}}\n"
	parse := func(text string) string {
		_, err := Parse("a.yaml", []byte(text), net.Interfaces)
		if err == nil {
			return ""
		}
		return err.Error()
	}
	wire := "provisioning: {interfaces: [{name: br0}]}\n"
	if got := parse(wire + plan); got != "" {
		t.Errorf("the second subnet is behind a relay: %s, want no mistake", got)
	}
	ip("addr", "add", "10.78.0.1/24", "dev", "br0")
	want := "dhcp.server.subnets[1].subnet: 10.78.0.0/24 is a second network on the wire of br0 (10.78.0.1 " +
		"beside 10.77.0.1), where machines get addresses of 10.77.0.0/24 alone: make one subnet of both"
	if got := parse(wire + plan); !strings.Contains(got, want) {
		t.Errorf("two subnets on br0: %q, want %q", got, want)
	}
	if got := parse(wire + strings.Replace(plan, "mode: server", "mode: proxy", 1)); got != "" {
		t.Errorf("in mode proxy: %s, want no mistake", got)
	}
	if got := parse(wire +
		strings.Replace(strings.Replace(plan, "10.77.0.0/24", "10.76.0.0/14", 1),
			", {subnet: 10.78.0.0/24, pools: [10.78.0.100-10.78.0.109]}", "", 1)); got != "" {
		t.Errorf("one wider subnet: %s, want no mistake", got)
	}
	ip("addr", "add", "192.0.2.1/24", "dev", "br0")
	want = "dhcp.server.subnets[0].subnet: 10.77.0.0/24 is the network of 10.77.0.1 on br0, " +
		"which is served at 192.0.2.1: set its provisioning.interfaces[].address to 10.77.0.1"
	if got := parse(strings.Replace(wire, "br0", "br0, address: 192.0.2.1", 1) + plan); !strings.Contains(got,
		want) {
		t.Errorf("served at an address of no subnet: %q, want %q", got, want)
	}
}
