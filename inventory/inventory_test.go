package inventory

import "testing"

func TestParseMAC(t *testing.T) {
	for in, want := range map[string]MAC{
		"52:54:00:12:34:56":    "52:54:00:12:34:56",
		"52-54-00-AB-cd-56":    "52:54:00:ab:cd:56",
		"525400123456":         "52:54:00:12:34:56",
		"5254.0012.3456":       "52:54:00:12:34:56",
		"01-52-54-00-12-34-56": "52:54:00:12:34:56", // BOOTIF
	} {
		if got, err := ParseMAC(in); err != nil || got != want {
			t.Errorf("ParseMAC(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "52:54:00:12:34", "52:54:00:12:34:5g", "00:00:00:00:00:00",
		"ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "+2:54:00:12:34:56", "02-52-54-00-12-34-56",
	} {
		if got, err := ParseMAC(in); err == nil {
			t.Errorf("ParseMAC(%q) = %q, want an error", in, got)
		}
	}
}

func FuzzParseMAC(f *testing.F) {
	f.Add("52:54:00:12:34:56")
	f.Add("01-52-54-00-12-34-56")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMAC(s)
		if err != nil {
			return
		}
		if again, err := ParseMAC(string(m)); err != nil || again != m {
			t.Errorf("ParseMAC(%q) = %q, which parses to %q, %v", s, m, again, err)
		}
	})
}
