package nocloud

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
)

// reader calls cloud-init's own code, which recognizes user-data and reads a seed.
const reader = `
import base64, json, logging, sys
logging.disable(logging.CRITICAL)
from cloudinit import handlers, util
from cloudinit.net import network_state

def ignored(raw):
    raw = util.decomp_gzip(raw, decode=False) if raw[:2] == b"\x1f\x8b" else raw
    kind = handlers.type_from_starts_with(raw, "")
    if raw.lstrip().lower().startswith((b"mime-version:", b"content-type:")):
        kind = "multipart"
    if kind == "text/cloud-config":
        try:
            return util.load_yaml(raw, default=None if raw.split(b"\n", 1)[-1].strip() else {}) is None
        except RecursionError:
            return True
    return kind == ""

def network(text):
    try:
        state = network_state.parse_net_config_data(util.load_yaml(text, default={}))
        return [i.get("mac_address") for i in state.iter_interfaces()]
    except Exception:
        return None

out = []
for case in json.load(sys.stdin):
    out.append({
        "meta": util.load_yaml(case["meta_data"]),
        "vendor": util.load_yaml(case["vendor_data"]),
        "network": util.load_yaml(case["network_config"]),
        "macs": network(case["network_config"]),
        "ignored": ignored(base64.b64decode(case["user_data"])),
    })
json.dump(out, sys.stdout)
`

type reading struct {
	Meta    map[string]any `json:"meta"`
	Vendor  map[string]any `json:"vendor"`
	Network map[string]any `json:"network"`
	MACs    []string       `json:"macs"`
	Ignored bool           `json:"ignored"`
}

// read lets cloud-init read seeds.
func read(t *testing.T, seeds []inventory.Seed) []reading {
	t.Helper()
	library, err := filepath.Abs("../../.cache/cloud-init/usr/lib/python3/dist-packages")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(library); err != nil || os.Getenv(testnet.All) != "all" {
		t.Skipf("SKIPPED %s: needs cloud-init's library, which `make deps` fetches, and PXECTL_TEST=all",
			t.Name())
	}
	in, err := json.Marshal(seeds)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/python3", "-c", reader)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+library)
	cmd.Stdin = bytes.NewReader(in)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var got []reading
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB5vd2bwvMTmB6kHCdWXr4q4VYQCmB2JlWv5ZAFVUj2E"

// TestCloudInitReadsSeed: whatever a MAC, a name or a key looks like, cloud-init reads it as it was given.
func TestCloudInitReadsSeed(t *testing.T) {
	instances := []Instance{}
	// All shapes that YAML 1.1 takes for something else than text: numbers in base 60, 8 and 16, floats,
	// booleans, nulls, dates.
	for _, mac := range []inventory.MAC{
		"52:54:00:12:34:56", "00:00:00:00:00:01", "01:02:03:04:05:06", "10:20:30:40:50:59",
		"52:54:00:ab:cd:ef", "0e:10:00:00:00:12", "ff:ff:ff:ff:ff:fe",
	} {
		instances = append(instances, Instance{ID: "d-00000001", Hostname: "m1", BootMAC: mac})
	}
	for _, name := range []string{
		"no", "yes", "on", "null", "1e3", "0x1f", "017", "12", "1-2", "2001-01-01",
		"true", "off", "0b1", "nan", "inf", "e5",
	} {
		instances = append(instances, Instance{
			ID: "d-00000001", Hostname: name, BootMAC: "52:54:00:00:00:01",
		})
	}
	for _, id := range []string{"1e100000", "0x12345678", "12345678", "d-1e10"} {
		instances = append(instances, Instance{ID: id, Hostname: "m1", BootMAC: "52:54:00:00:00:01"})
	}
	for _, comment := range []string{
		"", " me@host", " a: b", " # not a comment", ` "quoted" \n`, " 'x'",
		" - {[", " ünï 🙂", " @`%&*!|>",
	} {
		instances = append(instances, Instance{
			ID:       "d-00000001",
			Hostname: "m1",
			SSHKeys:  []string{key + comment, `no-pty,command="echo hi" ` + key},
			BootMAC:  "52:54:00:00:00:01",
		})
	}
	seeds := make([]inventory.Seed, len(instances))
	for i := range instances {
		instances[i].PhoneHome = "http://10.77.0.1:8080/phone-home/d-00000001/t0k3n#x"
		var err error
		if seeds[i], err = instances[i].Seed(); err != nil {
			t.Fatal(err)
		}
	}
	for i, got := range read(t, seeds) {
		in := instances[i]
		meta := map[string]any{"instance-id": in.ID, "local-hostname": in.Hostname}
		if len(in.SSHKeys) > 0 {
			meta["public-keys"] = []any{in.SSHKeys[0], in.SSHKeys[1]}
		}
		want := reading{
			Meta: meta,
			Vendor: map[string]any{
				"phone_home": map[string]any{
					"url": in.PhoneHome, "post": []any{"instance_id", "hostname"}, "tries": 20.0,
				},
			},
			Network: map[string]any{"version": 2.0, "ethernets": map[string]any{
				"boot": map[string]any{
					"match": map[string]any{"macaddress": string(in.BootMAC)}, "dhcp4": true,
				},
			}},
			MACs: []string{string(in.BootMAC)},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", in, diff)
		}
	}
}

// TestCloudInitAgrees: cloud-init ignores what the checks refuse, and takes the rest.
func TestCloudInitAgrees(t *testing.T) {
	var seeds []inventory.Seed
	for _, c := range userDatas {
		seeds = append(seeds, inventory.Seed{
			UserData: c.data, MetaData: "{}", VendorData: "{}", NetworkConfig: "version: 2",
		})
	}
	for _, c := range networks {
		seeds = append(seeds, inventory.Seed{
			UserData: []byte("#!/bin/sh\n"), MetaData: "{}", VendorData: "{}", NetworkConfig: c.data,
		})
	}
	for i, got := range read(t, seeds) {
		if i < len(userDatas) {
			c := userDatas[i]
			if refused := c.want != ""; got.Ignored != refused && !c.onlyUs {
				t.Errorf("%s: cloud-init ignores it: %v, CheckUserData refuses it: %v", c.name, got.Ignored,
					refused)
			}
			continue
		}
		c := networks[i-len(userDatas)]
		if refused := c.want != ""; (got.MACs == nil) != refused && !c.onlyUs {
			t.Errorf("%s: cloud-init reads %v, CheckNetwork refuses it: %v", c.name, got.MACs, refused)
		}
	}
}
