package agent

import (
	"strings"
	"testing"
)

const good = "initrd=initrd console=ttyS0,115200 pxectl.url=https://10.77.0.1:8443/ " +
	"pxectl.pin=sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff " +
	"pxectl.nonce=abc.def BOOTIF=01-52-54-00-77-00-01 quiet\n"

func TestParseCommandLine(t *testing.T) {
	p, err := ParseCommandLine(good)
	if err != nil {
		t.Fatal(err)
	}
	if p.URL != "https://10.77.0.1:8443" || p.Nonce != "abc.def" || p.BootMAC != "52:54:00:77:00:01" ||
		p.Pin[1] != 0x11 {
		t.Errorf("ParseCommandLine = %+v", p)
	}
	for _, tt := range []struct{ name, line, want string }{
		{
			"nothing", "quiet",
			"pxectl.url: missing\nkernel command line: pxectl.pin: missing\n" +
				"kernel command line: pxectl.nonce: missing",
		},
		{"http", strings.Replace(good, "https", "http", 1), "is not https"},
		{"short pin", strings.Replace(good, "eeff ", "ee ", 1), "64 hex digits"},
		{"other hash", strings.Replace(good, "sha256", "md5", 1), "is not sha256"},
		{"bad MAC", strings.Replace(good, "01-52-54", "01-52-zz", 1), "BOOTIF"},
		{"last counts", good + " pxectl.nonce=", "pxectl.nonce: missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseCommandLine(tt.line); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ParseCommandLine = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func FuzzParseCommandLine(f *testing.F) {
	f.Add(good)
	f.Fuzz(func(t *testing.T, line string) {
		p, err := ParseCommandLine(line)
		if err == nil && (p.URL == "" || p.Nonce == "" || !strings.HasPrefix(p.URL, "https://")) {
			t.Errorf("ParseCommandLine(%q) = %+v", line, p)
		}
	})
}
