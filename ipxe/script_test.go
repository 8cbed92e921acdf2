package ipxe

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestScripts(t *testing.T) {
	bios := Params{MAC: "52:54:00:aa:00:01", Manufacturer: "QEMU", Arch: "i386", Platform: "pcbios"}
	efi := Params{MAC: "52:54:00:aa:00:02", Manufacturer: "Supermicro", Arch: "x86_64", Platform: "efi"}
	arm := Params{MAC: "52:54:00:aa:00:03", Arch: "arm64", Platform: "efi"}
	agent := Boot{
		Action: Agent, Reason: "m1 is deploying: boot-agent (attempt 1)",
		Kernel: "http://10.77.0.1:8080/ramdisk/amd64/vmlinuz",
		Initrd: "http://10.77.0.1:8080/ramdisk/amd64/initrd",
		Args: []string{
			"pxectl.url=https://10.77.0.1:8443", "pxectl.nonce=n0nce", "pxectl.pin=sha256:AAAA+/=",
		},
	}
	quiet := agent
	quiet.Args = []string{"console=ttyS0", "quiet"}
	for _, tt := range []struct {
		file   string
		params Params
		boot   Boot
	}{
		{"agent-bios.ipxe", bios, agent},
		{"agent-efi-supermicro.ipxe", efi, agent},
		{"agent-arm64.ipxe", arm, agent},
		{"agent-own-console.ipxe", bios, quiet},
		{"local-bios.ipxe", bios, Boot{Action: Local, Reason: "m1 is deployed"}},
		{"local-sanboot.ipxe", efi, Boot{Action: Local, Method: SANBoot}},
		{"local-efi.ipxe", efi, Boot{Action: Local, Method: Exit}},
		{
			"wait.ipxe", bios,
			Boot{
				Action: Wait,
				Reason: "not approved;\nrun `pxectl machine approve ${x}`",
				Retry:  30 * time.Second,
			},
		},
	} {
		got, err := Script(server, tt.params, tt.boot)
		if err != nil {
			t.Errorf("%s: %v", tt.file, err)
			continue
		}
		golden(t, tt.file, got)
	}
	golden(t, "autoexec.ipxe", Autoexec(server))
}

func TestScriptRefuses(t *testing.T) {
	ok := Boot{Action: Agent, Kernel: "http://h/k", Initrd: "http://h/i"}
	for _, tt := range []struct {
		name string
		edit func(*Boot)
	}{
		{"no action", func(b *Boot) { b.Action = "" }},
		{"unknown action", func(b *Boot) { b.Action = "format" }},
		{"no kernel", func(b *Boot) { b.Kernel = "" }},
		{"newline", func(b *Boot) { b.Args = []string{"a\nreboot"} }},
		{"setting", func(b *Boot) { b.Args = []string{"a=${uuid}"} }},
		{"operator", func(b *Boot) { b.Args = []string{"||"} }},
		{"comment", func(b *Boot) { b.Args = []string{"#a"} }},
		{"blank", func(b *Boot) { b.Initrd = "http://h/a b" }},
		{"joined lines", func(b *Boot) { b.Args = []string{`a\`} }},
	} {
		b := ok
		tt.edit(&b)
		if s, err := Script(server, Params{MAC: "52:54:00:aa:00:01"}, b); err == nil {
			t.Errorf("%s: Script gave no error but\n%s", tt.name, s)
		}
	}
}

// Option 67 holds 255 bytes, and old iPXE copies it into a buffer of 256.
func TestScriptURLFitsOption67(t *testing.T) {
	long := mustAddrPort("255.255.255.255:65535")
	if n := len(ScriptURL(long)); n > 255 {
		t.Errorf("ScriptURL(%v) has %d bytes, want at most 255", long, n)
	}
}

// A goto without its label ends the script, which on a BIOS boots the disk.
func TestEveryGotoHasItsLabel(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.ipxe")
	if len(files) == 0 {
		t.Fatal("no golden scripts")
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		words := strings.Fields(string(b))
		for i, w := range words {
			if w == "goto" && !strings.Contains(string(b), "\n:"+words[i+1]+"\n") {
				t.Errorf("%s: goto %s has no label", file, words[i+1])
			}
		}
	}
}
