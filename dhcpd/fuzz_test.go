package dhcpd

import (
	"strings"
	"testing"
)

func FuzzClassify(f *testing.F) {
	for _, name := range goldenNames(f) {
		_, raw, port := golden(f, name)
		f.Add(raw, port == pxePort)
	}
	f.Fuzz(func(t *testing.T, raw []byte, on4011 bool) {
		p, _, err := parse(raw)
		if err != nil {
			return
		}
		port := dhcpPort
		if on4011 {
			port = pxePort
		}
		c := classify(p, port, programs)
		if c.MAC != nil && len(c.MAC) != 6 {
			t.Errorf("MAC %v, want six octets or none", c.MAC)
		}
		if c.UUID != "" && len(c.UUID) != 36 {
			t.Errorf("UUID %q, want 36 characters or none", c.UUID)
		}
		if !strings.HasPrefix(c.Vendor, "PXEClient") && !strings.HasPrefix(c.Vendor, "HTTPClient") {
			if c.Class != ClassOther || unwanted(p, c).Code == "" {
				t.Errorf("a client of vendor class %q is class %s and gets an answer", c.Vendor, c.Class)
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, name := range goldenNames(f) {
		_, raw, port := golden(f, name)
		f.Add(raw, port == pxePort, testBoot.File, testBoot.URL)
	}
	f.Fuzz(func(t *testing.T, raw []byte, on4011 bool, file, url string) {
		p, _, err := parse(raw)
		if err != nil {
			return
		}
		port := dhcpPort
		if on4011 {
			port = pxePort
		}
		c := clientOf(p, port)
		if unwanted(p, c).Code != "" {
			return
		}
		r, err := answer(p, c, Boot{File: file, URL: url})
		if err != nil {
			return
		}
		checkAnswer(t, p, c, r)
		if got, want := max(size(r), 300), len(r.ToBytes()); got != want { // the codec pads to 300: RFC 951
			t.Errorf("size() = %d, want %d", got, want)
		}
	})
}
