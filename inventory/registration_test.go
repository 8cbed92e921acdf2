package inventory

import (
	"strings"
	"testing"
)

func TestParsedRegistration(t *testing.T) {
	const id = "11111111-2222-4333-8444-555555555555"
	for _, c := range []struct {
		name string
		in   Registration
		want Registration
		err  string
	}{
		{
			"plain",
			Registration{MAC: "52:54:00:00:00:01", BootID: id, UUID: id, Version: "1", Uptime: 5},
			Registration{MAC: "52:54:00:00:00:01", BootID: id, UUID: id, Version: "1", Uptime: 5},
			"",
		},
		{
			"other spellings",
			Registration{MAC: "52-54-00-AB-CD-EF", BootID: strings.ToUpper(id), Uptime: -1},
			Registration{MAC: "52:54:00:ab:cd:ef", BootID: id},
			"",
		},
		{
			"a UUID that is none",
			Registration{MAC: "52:54:00:00:00:01", BootID: id, UUID: "Not Settable"},
			Registration{MAC: "52:54:00:00:00:01", BootID: id},
			"",
		},
		{"no MAC", Registration{BootID: id}, Registration{}, "MAC"},
		{
			"a long MAC",
			Registration{MAC: MAC(strings.Repeat("a", 60_000)), BootID: id},
			Registration{},
			"MAC",
		},
		{"no boot id", Registration{MAC: "52:54:00:00:00:01"}, Registration{}, "boot_id"},
		{
			"a boot id that no kernel makes",
			Registration{MAC: "52:54:00:00:00:01", BootID: strings.Repeat("x", 60_000)},
			Registration{},
			"boot_id",
		},
	} {
		got, err := c.in.Parsed()
		switch {
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || len(err.Error()) > 200):
			t.Errorf("%s: Parsed = %.300v, want a short error with %q", c.name, err, c.err)
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%s: Parsed = %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
}
