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

func FuzzNormalise(f *testing.F) {
	for _, s := range []string{"snponly.efi", `\\a\..\b`, "/x\xff\x00y", "a/.. /b/..", " / . / ", "..", "\u0085/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
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
