package tftpd

import (
	"strings"
	"testing"
)

func TestNormalise(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"plain", "snponly.efi", "snponly.efi"},
		{"leading slash", "/snponly.efi", "snponly.efi"},
		{"several slashes", "//amd64///snponly.efi", "amd64/snponly.efi"},
		{"backslashes", `\boot\x64\wdsnbp.com`, "boot/x64/wdsnbp.com"},
		{"END option copied with the name", "snponly.efi\xff", "snponly.efi"},
		{"END option and the padding after it", "snponly.efi\xff\x00\x00\x00junk", "snponly.efi"},
		{"NUL", "undionly.kpxe\x00\x00", "undionly.kpxe"},
		{"spaces", " undionly.kpxe  ", "undionly.kpxe"},
		{"carriage return", "undionly.kpxe\r\n", "undionly.kpxe"},
		{"dot", "./undionly.kpxe", "undionly.kpxe"},
		{"parent inside", "a/../undionly.kpxe", "undionly.kpxe"},
		{"parent outside", "../../etc/passwd", "etc/passwd"},
		{"parent by backslash", `..\..\etc\passwd`, "etc/passwd"},
		{"parent hidden by a space", "a/.. /b/..", ""},
		{"case is kept", "/EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/BOOTX64.EFI"},
		{"only slashes", "///", ""},
		{"nothing", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Normalise(c.raw); got != c.want {
				t.Errorf("Normalise(%q) = %q, want %q", c.raw, got, c.want)
			}
		})
	}
}

func TestMeant(t *testing.T) {
	names := []string{"undionly.kpxe", "snponly.efi", "ipxe", "ipxe.pxe"}
	for _, c := range []struct{ raw, want string }{
		{"undionly.kpxea\x11", "undionly.kpxe"},             // option 97 behind option 67
		{"undionly.kpxeR\x06\x01\x04eth1", "undionly.kpxe"}, // option 82, behind a relay
		{"/undionly.kpxeR\x0a\x01\x08", "undionly.kpxe"},    // one whose length is a line feed
		{"undionly.kpxe\xff", "undionly.kpxe"},              // the end option
		{"ipxe.pxea\x11", "ipxe.pxe"},                       // the longest name counts
		{"undionly.kpxea", ""},                              // another name
		{"undionly.kpxe.old", ""},                           // another name
		{"undionly.kpxe.old\x01", ""},                       // another name
		{"undionly.kpxe-v2\x80", ""},                        // another name
		{"undionly.kpxeR(\x01\x08", "undionly.kpxe"},        // a length that is a character
		{"undionly.kpxe", ""},                               // nothing behind it
		{"../undionly.kpxe\x01", ""},                        // elsewhere
		{"x\x01undionly.kpxe", ""},                          // before it
		{strings.Repeat("a\x01", 500), ""},
		{"", ""},
	} {
		if got, ok := Meant(c.raw, names); got != c.want || ok != (c.want != "") {
			t.Errorf("Meant(%q) = %q, %v, want %q", c.raw, got, ok, c.want)
		}
	}
}

func FuzzNormalise(f *testing.F) {
	for _, s := range []string{
		"snponly.efi", `\\a\..\b`, "/x\xff\x00y", "a/.. /b/..", " / . / ", "..",
		"\u0085/a",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if name, ok := Meant(raw, []string{"undionly.kpxe"}); ok &&
			(name != "undionly.kpxe" || !strings.HasPrefix(strings.TrimLeft(raw, `/\`), name)) {
			t.Errorf("Meant(%q) = %q", raw, name)
		}
		got := Normalise(raw)
		if again := Normalise(got); again != got {
			t.Errorf("Normalise(%q) = %q, and once more = %q", raw, got, again)
		}
		if strings.ContainsAny(got, "\\\x00\r\n") || strings.HasPrefix(got, "/") {
			t.Errorf("Normalise(%q) = %q, want a relative name", raw, got)
		}
		for elem := range strings.SplitSeq(got, "/") {
			if elem == ".." || elem == "." {
				t.Errorf("Normalise(%q) = %q, want no %q element", raw, got, elem)
			}
		}
	})
}
