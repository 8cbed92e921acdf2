package modules

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const virtioNet = "license=GPL\x00description=Virtio network driver\x00alias=virtio:d00000001v*\x00" +
	"depends=virtio,virtio_ring,net-failover\x00softdep=pre: crypto-crc32c mdio post: late\x00" +
	"name=virtio_net\x00" +
	"vermagic=6.1.0-56-amd64 SMP preempt mod_unload modversions \x00parm=csum:bool\x00\x00noequals\x00"

func TestParseInfo(t *testing.T) {
	got := ParseInfo([]byte(virtioNet))
	want := Info{
		Name: "virtio_net", VerMagic: "6.1.0-56-amd64 SMP preempt mod_unload modversions ",
		Aliases: []string{"virtio:d00000001v*"},
		Depends: []string{"virtio", "virtio_ring", "net_failover"},
		Soft:    []string{"crypto-crc32c", "mdio"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseInfo (-want +got):\n%s", diff)
	}
	if got.Kernel() != "6.1.0-56-amd64" {
		t.Errorf("Kernel() = %q, want 6.1.0-56-amd64", got.Kernel())
	}
}

func TestReadInfoRefusesOther(t *testing.T) {
	if _, err := ReadInfo(strings.NewReader("not an ELF file")); err == nil {
		t.Error("ReadInfo of a text file succeeded")
	}
}

func index(t *testing.T) *Index {
	t.Helper()
	x, err := ParseIndex([]byte(`{"kernel":"6.1","modules":[
		{"name":"virtio_net","file":"a.ko","aliases":["virtio:d00000001v*"],"depends":["net_failover","virtio"],"early":true},
		{"name":"net_failover","file":"b.ko","depends":["failover"]},
		{"name":"failover","file":"c.ko"},
		{"name":"virtio","file":"d.ko"},
		{"name":"crc32c","file":"e.ko","aliases":["crypto-crc32c"],"depends":["virtio"]},
		{"name":"xfs","file":"f.ko","soft":["crypto-crc32c","absent"]},
		{"name":"loop_a","file":"g.ko","depends":["loop_b"]},
		{"name":"loop_b","file":"h.ko","depends":["loop_a"]},
		{"name":"e1000e","file":"i.ko","aliases":["pci:v00008086d000010D3sv*sd*bc*sc*i*","pci:v00008086d0000[bad"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestMatchAndOrder(t *testing.T) {
	x := index(t)
	for alias, want := range map[string]string{
		"virtio:d00000001v00001AF4":                             "virtio_net",
		"virtio:d00000002v00001AF4":                             "",
		"pci:v00008086d000010D3sv00001AF4sd00001100bc02sc00i00": "e1000e",
		"": "",
	} {
		var names []string
		for _, m := range x.Match(alias) {
			names = append(names, m.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("Match(%q) = %q, want %q", alias, got, want)
		}
	}
	for name, want := range map[string]string{
		"virtio-net": "failover net_failover virtio virtio_net",
		"xfs":        "virtio crc32c xfs",
		"loop_a":     "loop_b loop_a",
	} {
		m, ok := x.Named(name)
		if !ok {
			t.Fatalf("Named(%q) found nothing", name)
		}
		var names []string
		for _, m := range x.Order(m) {
			names = append(names, m.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("Order(%s) = %q, want %q", name, got, want)
		}
	}
}

func TestModaliases(t *testing.T) {
	root := t.TempDir()
	for path, content := range map[string]string{
		"sys/devices/pci0000:00/0000:00:03.0/modalias":         "pci:v1\n",
		"sys/devices/pci0000:00/0000:00:03.0/virtio0/modalias": "virtio:d1\n",
		"sys/devices/pci0000:00/0000:00:04.0/modalias":         "pci:v1\n",
		"sys/devices/platform/x/modalias":                      "\n",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"pci:v1", "virtio:d1"}, l.modaliases()); diff != "" {
		t.Errorf("modaliases (-want +got):\n%s", diff)
	}
	if n, err := l.Coldplug(false); n != 0 || err != nil {
		t.Errorf("Coldplug without an index = %d, %v, want 0, nil", n, err)
	}
}

func FuzzParseInfo(f *testing.F) {
	f.Add([]byte(virtioNet))
	f.Fuzz(func(t *testing.T, data []byte) {
		info := ParseInfo(data)
		if strings.Contains(info.Name, "-") {
			t.Errorf("name %q has a hyphen", info.Name)
		}
		if n := len(info.Aliases) + len(info.Depends) + len(info.Firmware); n > len(data) {
			t.Errorf("%d values out of %d bytes", n, len(data))
		}
	})
}

func FuzzReadInfo(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, data []byte) { _, _ = ReadInfo(strings.NewReader(string(data))) })
}

func FuzzMatch(f *testing.F) {
	f.Add("virtio:d00000001v*", "virtio:d00000001v00001AF4")
	f.Fuzz(func(t *testing.T, pattern, alias string) {
		x := &Index{Modules: []Module{{Name: "m", Aliases: []string{pattern}}}}
		x.prepare()
		x.Match(alias)
	})
}
