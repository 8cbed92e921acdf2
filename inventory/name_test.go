package inventory

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for name, says := range map[string]string{
		"web1": "", "m1": "", "m770001": "", "m525400770001": "", "cafe": "", "m-1": "", "m-00c0ffee0": "",
		"x-00c0ffee": "", "d-00c0ffeg": "",
		"": "a computer cannot be called that", "Web1": "a computer cannot be called that",
		"a.b": "a computer cannot be called that", "a-": "a computer cannot be called that",
		"a\n":                   "a computer cannot be called that",
		strings.Repeat("x", 64): "a computer cannot be called that",
		"m-00c0ffee":            "looks like an id", "d-00c0ffee": "looks like an id",
		"e-00c0ffee":   "looks like an id",
		"525400123456": "looks like a MAC address", "52-54-00-12-34-56": "looks like a MAC address",
		"4c4c4544-0058-4b10-8032-b7c04f513034": "looks like a UUID",
		"01-52-54-00-12-34-56":                 "looks like a MAC address",
	} {
		err := CheckName(name)
		p, _ := errors.AsType[*Problem](err)
		if (err == nil) != (says == "") ||
			err != nil && (p == nil || p.Code != CodeInvalid || !strings.Contains(p.Detail, says) ||
				p.Hint == "") {
			t.Errorf("CheckName(%q) = %v, want %q", name, err, says)
		}
	}
	if err := CheckHostname("525400123456"); err != nil {
		t.Errorf("a hostname that reads as a MAC address: %v, want no error", err)
	}
}

func TestParseUUID(t *testing.T) {
	const dell = "4c4c4544-0058-4b10-8032-b7c04f513034"
	for s, says := range map[string]string{
		dell:                  "",
		strings.ToUpper(dell): "", "1234": "want 32 hexadecimal digits",
		dell + "0": "want 32 hexadecimal digits", "": "want 32 hexadecimal digits",
		"00000000-0000-0000-0000-000000000000": "boards that have none",
		"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF": "boards that have none",
	} {
		got, err := ParseUUID(s)
		p, _ := errors.AsType[*Problem](err)
		if says == "" && (got != dell || err != nil) ||
			says != "" && (p == nil || p.Code != CodeInvalid || !strings.Contains(p.Detail, says) ||
				p.Hint == "") {
			t.Errorf("ParseUUID(%q) = %q, %v, want %q", s, got, err, says)
		}
	}
}

// Older releases allowed names that read as an id or a MAC of another machine.
func TestFindHasOneOrder(t *testing.T) {
	all := []Machine{
		{ID: "m-00000001", Name: "m-00000002", MACs: []MAC{"52:54:00:00:00:01"}},
		{ID: "m-00000002", Name: "525400000001", MACs: []MAC{"52:54:00:00:00:02"}},
		{ID: "m-00000003", Name: "web1"},
	}
	for ref, want := range map[string]MachineID{
		"m-00000001": "m-00000001", "m-00000002": "m-00000002", "525400000001": "m-00000001",
		"52-54-00-00-00-02": "m-00000002", "web1": "m-00000003",
		"web2": "", "": "", "52:54:00:00:00:03": "",
	} {
		var got MachineID
		if i, ok := Find(all, ref); ok {
			got = all[i].ID
		}
		if got != want {
			t.Errorf("Find(%q) = %q, want %q", ref, got, want)
		}
	}
}

// A good name finds its machine, whatever the names of the others are.
func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"web1", "m-00c0ffee", "525400123456", "52-54-00-12-34-56"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName(name) != nil {
			return
		}
		all := []Machine{
			{ID: "m-00c0ffee", Name: "other", MACs: []MAC{"52:54:00:12:34:56"}},
			{ID: "m-0badcafe", Name: name},
		}
		if name == "other" {
			return
		}
		if i, ok := Find(all, name); !ok || i != 1 {
			t.Errorf("%q passes as a name and means machine %d", name, i)
		}
	})
}
