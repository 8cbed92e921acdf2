package leases

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFullPoolIsQuick(t *testing.T) {
	now := start
	x, err := Open(Config{
		Path: filepath.Join(t.TempDir(), "leases"),
		Subnets: []Subnet{
			{Prefix: netip.MustParsePrefix("10.0.0.0/12"), Pools: pool("10.0.0.1", "10.3.255.254")},
		},
		UnknownShare: 25, Log: discard, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	// A million made-up clients get a quarter of the pool, and a known machine still gets an address.
	refused := map[error]int{}
	for i := range 1_000_000 {
		if _, err := x.Offer(Claim{Client: fmt.Sprintf("\x01%06d", i)}); err != nil {
			refused[err]++
		}
	}
	if diff := cmp.Diff(map[error]int{ErrShare: 1_000_000 - (1<<18-2+3)/4}, maps.Clone(refused),
		cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) })); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	if l, err := x.Offer(claim("known")); err != nil {
		t.Errorf("a known machine beside the flood: %v, %v", l, err)
	}
}

// The server's own address changes to one of the pool while the server runs.
func TestExcept(t *testing.T) {
	now := start
	table := testTable(t, filepath.Join(t.TempDir(), "leases"), &now)
	defer table.Close()
	stranger := claim("s")
	stranger.Known = false
	if err := bind(t, table, stranger, "10.0.0.10", start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := bind(t, table, claim("f"), "10.0.0.11", start.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	now = start.Add(2 * time.Minute) // .11 is free again
	for _, c := range []struct {
		addr  string
		taken bool
	}{
		{"10.0.0.10", true},
		{"10.0.0.11", false},
		{"10.0.0.12", false},
		{"10.0.0.12", false},
		{"10.0.0.15", false},
		{"10.0.0.99", false},
		{"192.0.2.1", false},
	} {
		if l, taken := table.Except(ip(c.addr)); taken != c.taken || taken && l.Client != "s" {
			t.Errorf("Except(%s) = %+v, %v, want %v", c.addr, l, taken, c.taken)
		}
	}
	got := map[string]bool{}
	for i := range 10 {
		if l, err := table.Offer(claim(string(rune('A' + i)))); err == nil {
			got[l.Addr.String()] = true
		}
	}
	if want := 6; len(got) != want || got["10.0.0.10"] || got["10.0.0.11"] || got["10.0.0.12"] {
		t.Errorf("offered %v, want the %d others", got, want)
	}
	now = start.Add(2 * time.Hour) // the stranger's lease has ended, and its address is not given again
	if s := table.subnets[0]; s.unknown != 0 {
		t.Errorf("%d addresses are counted as strangers', want none", s.unknown)
	}
	if l, err := table.Offer(stranger); err != nil || l.Addr == ip("10.0.0.10") {
		t.Errorf("the one that had it is offered %v, %v, want another address", l.Addr, err)
	}
}

func TestRange(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1-10.0.0.9": "10.0.0.1-10.0.0.9", "10.0.0.1 - 10.0.0.9": "10.0.0.1-10.0.0.9",
		"10.0.0.1":          "10.0.0.1-10.0.0.1",
		"10.0.0.9-10.0.0.1": "", "fd00::1-fd00::9": "", "10.0.0.1-": "", "": "",
	} {
		var r Range
		err := r.UnmarshalText([]byte(text))
		if (err == nil) != (want != "") || err == nil && r.String() != want {
			t.Errorf("UnmarshalText(%q) = %v, %v, want %q", text, r, err, want)
		}
	}
}

func TestDelete(t *testing.T) {
	now := start
	path := filepath.Join(t.TempDir(), "leases")
	x := testTable(t, path, &now)
	if err := bind(t, x, claim("a"), "10.0.0.12", start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if l, ok, err := x.Delete(ip("10.0.0.12")); !ok || err != nil || l.Client != "a" {
		t.Errorf("Delete() = %+v, %v, %v, want the lease of a", l, ok, err)
	}
	if _, ok, err := x.Delete(ip("10.0.0.12")); ok || err != nil {
		t.Errorf("Delete() again = %v, %v, want nothing to delete", ok, err)
	}
	x.Close()
	y := testTable(t, path, &now)
	defer y.Close()
	if all := y.List(); len(all) != 0 {
		t.Errorf("after a restart there is %v", all)
	}
	if _, ok := y.Of(0, "a"); ok {
		t.Error("after a restart the client is remembered")
	}
}
