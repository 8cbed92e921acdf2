package interfaces

import (
	"net/netip"
	"testing"
)

func TestTold(t *testing.T) {
	a, b := netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2")
	well := condition{index: 3, up: true, link: true, has: true}
	for _, c := range []struct {
		name        string
		before, now condition
		to          netip.Addr
		want        string
		ok          bool
	}{
		{"nothing", well, well, a, "", true},
		{
			"gone", well,
			condition{},
			a,
			"interface eno1 is gone: no machine on it can boot until it is back", false,
		},
		{"still gone", condition{}, condition{}, a, "", true},
		{
			"down", well,
			condition{3, false, false, true},
			a,
			"interface eno1 is down: no machine on it can boot until it is up", false,
		},
		{"unplugged", well, condition{3, true, false, true}, a, "interface eno1 has no link", false},
		{
			"back",
			condition{},
			condition{4, true, true, true},
			a,
			"interface eno1 is back with the address 10.77.0.1", true,
		},
		{
			"made anew", well,
			condition{4, true, true, true},
			a,
			"interface eno1 is back with the address 10.77.0.1", true,
		},
		{
			"without its address", well,
			condition{3, true, true, false},
			a,
			"interface eno1 no longer has the address 10.77.0.1: no machine on it can boot until it has",
			false,
		},
		{
			"moved", well, well, b,
			"interface eno1 has the address 10.77.0.2 instead of 10.77.0.1; machines boot from there now",
			true,
		},
		{
			"moved, and down", well,
			condition{3, false, false, true},
			b,
			"interface eno1 has the address 10.77.0.2 instead of 10.77.0.1, and is down", false,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, ok := told("eno1", c.before, c.now, a, c.to); got != c.want || got != "" && ok != c.ok {
				t.Errorf("told() = %q, %v, want %q, %v", got, ok, c.want, c.ok)
			}
		})
	}
}
