package ipxe

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestNBPForIsServed(t *testing.T) {
	seen := map[string]bool{NativeX64: true}
	for arch := range uint16(64) {
		for _, overIPXE := range []bool{false, true} {
			name, ok := NBPFor(arch, overIPXE)
			if !ok {
				continue
			}
			seen[name] = true
			if b, ok := NBP(name); !ok || len(b) < 50_000 {
				t.Errorf("NBPFor(%d, %v) = %q, but NBP(%q) has %d bytes, ok %v", arch, overIPXE, name, name,
					len(b), ok)
			}
		}
	}
	for _, name := range NBPs() {
		if !seen[name] {
			t.Errorf("%q is embedded but no architecture gets it", name)
		}
	}
}

func TestNBPForTable(t *testing.T) {
	for _, tt := range []struct {
		name string
		arch uint16
		ipxe bool
		want string
	}{
		{"BIOS", 0, false, BIOS},
		{"BIOS with an iPXE ROM", 0, true, Native},
		{"x64 UEFI with an iPXE ROM", 7, true, X64},
		{"IA32 UEFI has none", 6, false, ""},
		{"x64 UEFI", 7, false, X64},
		{"EBC is x64 in the field", 9, false, X64},
		{"ARM32 UEFI has none", 10, false, ""},
		{"ARM64 UEFI", 11, false, ARM64},
		{"IA32 UEFI HTTP has none", 15, false, ""},
		{"x64 UEFI HTTP", 16, false, X64},
		{"ARM32 UEFI HTTP has none", 18, false, ""},
		{"ARM64 UEFI HTTP", 19, false, ARM64},
		{"BIOS HTTP", 20, false, BIOS},
		{"unknown", 0xffff, false, ""},
	} {
		if got, ok := NBPFor(tt.arch, tt.ipxe); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: NBPFor(%d, %v) = %q, %v, want %q", tt.name, tt.arch, tt.ipxe, got, ok, tt.want)
		}
	}
}

// The machine type of the PE header must be that of the architecture code.
func TestProgramsAreWhatTheySay(t *testing.T) {
	for name, machine := range map[string]uint16{X64: 0x8664, NativeX64: 0x8664, ARM64: 0xaa64} {
		b, _ := NBP(name)
		pe := int(b[0x3c]) | int(b[0x3d])<<8
		if !bytes.HasPrefix(b, []byte("MZ")) || !bytes.HasPrefix(b[pe:], []byte("PE\x00\x00")) {
			t.Errorf("%s is not a PE image", name)
			continue
		}
		if got := uint16(b[pe+4]) | uint16(b[pe+5])<<8; got != machine {
			t.Errorf("%s: PE machine type %#x, want %#x", name, got, machine)
		}
	}
	for _, name := range []string{BIOS, Native} {
		if b, _ := NBP(name); len(b) > 480*1024 {
			t.Errorf("%s: %d bytes do not fit below 640 KiB", name, len(b))
		}
	}
}

// nbp/README.md, SHA256SUMS and NOTICE describe the embedded bytes.
func TestSumsAreTheDocumentedOnes(t *testing.T) {
	for _, file := range []string{"nbp/SHA256SUMS", "nbp/README.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range NBPs() {
			b, _ := NBP(name)
			if sum := fmt.Sprintf("%x", sha256.Sum256(b)); !strings.Contains(string(text), sum) {
				t.Errorf("%s does not name the sha256 of %s, %s", file, name, sum)
			}
		}
	}
}
