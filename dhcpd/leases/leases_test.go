package leases

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/internal/testnet"
)

var (
	start   = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	discard = slog.New(slog.DiscardHandler)
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func pool(first, last string) []Range { return []Range{{ip(first), ip(last)}} }

// testTable has one subnet with ten addresses, .10 to .19, of which .15 is reserved; half
// of them are for machines that are not known.
func testTable(t testing.TB, path string, now *time.Time) *Table {
	t.Helper()
	table, err := Open(Config{
		Path: path,
		Subnets: []Subnet{
			{
				Prefix: netip.MustParsePrefix("10.0.0.0/24"),
				Pools:  pool("10.0.0.10", "10.0.0.19"),
				Except: []netip.Addr{ip("10.0.0.15")},
			},
		},
		UnknownShare: 50, Log: discard, Now: func() time.Time { return *now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func claim(client string) Claim {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, client[0]}
	return Claim{Client: client, MAC: mac, Known: true, KnownBy: string(mac)}
}

// bind binds and waits for the disk.
func bind(t testing.TB, table *Table, c Claim, addr string, until time.Time) error {
	t.Helper()
	written := make(chan error, 1)
	if err := table.Bind(c, ip(addr), until, func(err error) { written <- err }); err != nil {
		return err
	}
	return <-written
}

func mustBind(t testing.TB, table *Table, c Claim, addr string, until time.Time) {
	t.Helper()
	if err := bind(t, table, c, addr, until); err != nil {
		t.Fatal(err)
	}
}

func TestOffer(t *testing.T) {
	hour := start.Add(time.Hour)
	reserved := claim("r")
	reserved.Reserved, reserved.Reservation = ip("10.0.0.15"), "mac r"
	other := reserved
	other.Client = "s" // the same machine with another client identifier
	wish := claim("w")
	wish.Want = ip("10.0.0.17")
	stranger := claim("u")
	stranger.Known = false
	for _, c := range []struct {
		name   string
		before func(*testing.T, *Table, *time.Time)
		claim  Claim
		want   string // or an error
	}{
		{"a new client gets the first", nil, claim("a"), "10.0.0.10"},
		{"what it wishes, if free", nil, wish, "10.0.0.17"},
		{"not what it wishes, if taken", func(t *testing.T, x *Table, _ *time.Time) {
			mustBind(t, x, claim("a"), "10.0.0.17", hour)
		}, wish, "10.0.0.10"},
		{"its own", func(t *testing.T, x *Table, _ *time.Time) {
			mustBind(t, x, claim("a"), "10.0.0.18", hour)
		}, claim("a"), "10.0.0.18"},
		{"its own after it expired", func(t *testing.T, x *Table, now *time.Time) {
			mustBind(t, x, claim("a"), "10.0.0.18", hour)
			*now = hour.Add(time.Minute)
		}, claim("a"), "10.0.0.18"},
		{"what is reserved for it", nil, reserved, "10.0.0.15"},
		{"what is reserved for it, though it holds another", func(t *testing.T, x *Table, _ *time.Time) {
			mustBind(t, x, claim("r"), "10.0.0.12", hour)
		}, reserved, "10.0.0.15"},
		{
			"what is reserved for it, though it had it by another name",
			func(t *testing.T, x *Table, _ *time.Time) {
				mustBind(t, x, other, "10.0.0.15", hour)
			}, reserved, "10.0.0.15",
		},
		{"another when the reserved one is in use by somebody", func(t *testing.T, x *Table, _ *time.Time) {
			mustBind(t, x, reserved, "10.0.0.15", hour)
			_ = x.Decline("r", ip("10.0.0.15"), func(netip.Addr, error) {})
		}, reserved, "10.0.0.10"},
		{
			"the one that is free for the longest when none is unused",
			func(t *testing.T, x *Table, now *time.Time) {
				for i := range 9 {
					if l, err := x.Offer(claim(fmt.Sprint(i))); err != nil ||
						bind(t, x, claim(fmt.Sprint(i)), l.Addr.String(), hour) != nil {
						t.Fatal(l, err)
					}
				}
				_, _ = x.Release("4", ip("10.0.0.14"), func(error) {})
				_, _ = x.Release("2", ip("10.0.0.12"), func(error) {})
			}, claim("n"), "10.0.0.14",
		},
		{"nothing when all are held", func(t *testing.T, x *Table, _ *time.Time) {
			for i := range 9 {
				_, _ = x.Offer(claim(fmt.Sprint(i)))
			}
		}, claim("n"), ErrExhausted.Error()},
		{"nothing for the unknown when they hold their share", func(t *testing.T, x *Table, _ *time.Time) {
			for i := range 9 {
				c := claim(fmt.Sprint(i))
				c.Known = false
				_, _ = x.Offer(c)
			}
		}, stranger, ErrShare.Error()},
		{"one for the known when the unknown hold their share", func(t *testing.T, x *Table, _ *time.Time) {
			for i := range 9 {
				c := claim(fmt.Sprint(i))
				c.Known = false
				_, _ = x.Offer(c)
			}
		}, claim("n"), "10.0.0.16"},
		{
			"one for the unknown when offers that nobody took have ended",
			func(t *testing.T, x *Table, now *time.Time) {
				for i := range 9 {
					c := claim(fmt.Sprint(i))
					c.Known = false
					_, _ = x.Offer(c)
				}
				*now = now.Add(2 * time.Minute)
			}, stranger, "10.0.0.16",
		},
		{"not what it declined", func(t *testing.T, x *Table, _ *time.Time) {
			mustBind(t, x, claim("a"), "10.0.0.10", hour)
			_ = x.Decline("a", ip("10.0.0.10"), func(netip.Addr, error) {})
		}, claim("a"), "10.0.0.11"},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := start
			x := testTable(t, filepath.Join(t.TempDir(), "leases"), &now)
			defer x.Close()
			if c.before != nil {
				c.before(t, x, &now)
			}
			l, err := x.Offer(c.claim)
			got := l.Addr.String()
			if err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("Offer(%+v) = %s, want %s", c.claim, got, c.want)
			}
		})
	}
}

func TestBind(t *testing.T) {
	hour := start.Add(time.Hour)
	reserved := claim("r")
	reserved.Reserved, reserved.Reservation = ip("10.0.0.15"), "mac r"
	for _, c := range []struct {
		name   string
		before func(*testing.T, *Table)
		claim  Claim
		addr   string
		want   error
	}{
		{"free", nil, claim("a"), "10.0.0.11", nil},
		{
			"again", func(t *testing.T, x *Table) { mustBind(t, x, claim("a"), "10.0.0.11", hour) },
			claim("a"), "10.0.0.11", nil,
		},
		{
			"another's", func(t *testing.T, x *Table) { mustBind(t, x, claim("b"), "10.0.0.11", hour) },
			claim("a"), "10.0.0.11", ErrTaken,
		},
		{
			"offered to another", func(_ *testing.T, x *Table) { _, _ = x.Offer(claim("b")) }, claim("a"),
			"10.0.0.10", ErrTaken,
		},
		{
			"not the one that it has",
			func(t *testing.T, x *Table) { mustBind(t, x, claim("a"), "10.0.0.11", hour) }, claim("a"),
			"10.0.0.12", ErrElsewhere,
		},
		{"not in a pool", nil, claim("a"), "10.0.0.99", ErrElsewhere},
		{"reserved for another", nil, claim("a"), "10.0.0.15", ErrElsewhere},
		{"reserved for it", nil, reserved, "10.0.0.15", nil},
		{"not the one that is reserved for it", nil, reserved, "10.0.0.11", ErrElsewhere},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := start
			x := testTable(t, filepath.Join(t.TempDir(), "leases"), &now)
			defer x.Close()
			if c.before != nil {
				c.before(t, x)
			}
			if err := bind(t, x, c.claim, c.addr, hour); !errors.Is(err, c.want) {
				t.Errorf("Bind(%+v, %s) = %v, want %v", c.claim, c.addr, err, c.want)
			}
		})
	}
}

// After any messages in any order no address has two live leases, no client has two in one subnet that it
// does not know of, the counts are right, and the disk has the same leases.
func TestNoAddressIsGivenTwice(t *testing.T) {
	testnet.Long(t)
	for seed := range uint64(6) {
		now := start
		path := filepath.Join(t.TempDir(), "leases")
		x := testTable(t, path, &now)
		r := rand.New(rand.NewPCG(seed, 1))
		told := map[netip.Addr]Lease{} // what clients believe: address → whose, and until when
		for step := range 2000 {
			c := claim(string(rune('a' + r.IntN(14))))
			c.Known = r.IntN(3) > 0
			if c.Client == "c" || c.Client == "d" {
				c.Reserved, c.Reservation = ip("10.0.0.15"), "port 7"
			}
			switch r.IntN(8) {
			case 0:
				now = now.Add(time.Duration(r.IntN(120)) * time.Second)
			case 1:
				for a, l := range told {
					if l.Client == c.Client && r.IntN(2) == 0 {
						_, _ = x.Release(c.Client, a, func(error) {})
						delete(told, a)
						break
					}
				}
			case 2:
				for a, l := range told {
					if l.Client == c.Client && r.IntN(4) == 0 {
						_ = x.Decline(c.Client, a, func(netip.Addr, error) {})
						delete(told, a)
						break
					}
				}
			case 3:
				if _, err := x.Offer(c); err != nil && !errors.Is(err, ErrExhausted) &&
					!errors.Is(err, ErrShare) {
					t.Fatal(err)
				}
			default:
				l, err := x.Offer(c)
				if err != nil {
					continue
				}
				until := now.Add(time.Duration(60+r.IntN(600)) * time.Second)
				if err := bind(t, x, c, l.Addr.String(), until); err != nil {
					t.Fatalf("seed %d, step %d: Bind of an address just offered: %v", seed, step, err)
				}
				if old, ok := told[l.Addr]; ok && old.Client != c.Client && old.Expires.After(now) &&
					l.Addr != c.Reserved {
					t.Fatalf("seed %d, step %d: %v went to %s while %s has it until %v (now %v)", seed, step,
						l.Addr, c.Client, old.Client, old.Expires, now)
				}
				told[l.Addr] = Lease{Client: c.Client, Expires: until}
			}
			if step%100 == 0 {
				checkCounts(t, x)
			}
		}
		before := x.List()
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		again := testTable(t, path, &now)
		checkCounts(t, again)
		if diff := cmp.Diff(seconds(before), seconds(again.List()),
			cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Fatalf("seed %d: after a restart (-before +after):\n%s", seed, diff)
		}
		again.Close()
	}
}

// checkCounts counts again what the table has counted.
func checkCounts(t testing.TB, x *Table) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, s := range x.subnets {
		var unknown, free, declined, due int
		known := map[string]tally{}
		for n, e := range x.at {
			if e.subnet != i {
				continue
			}
			if e.State != Free {
				due++
				switch {
				case !s.pooled(n):
				case e.State == Declined:
					declined++
				case !e.Known:
					unknown++
				default:
					k := known[e.by]
					if k.all++; e.Alias {
						k.aliases++
					}
					known[e.by] = k
				}
			} else {
				free++
			}
		}
		if diff := cmp.Diff(known, s.known, cmp.AllowUnexported(tally{})); diff != "" {
			t.Fatalf("known (-counted +table):\n%s", diff)
		}
		var listed int
		for _, all := range s.decliners {
			listed += len(all)
		}
		if declined != s.declined.Len() || declined != listed {
			t.Fatalf("counted %d declined; the table lists %d, and %d by their clients", declined,
				s.declined.Len(), listed)
		}
		if unknown != s.unknown || free != s.free.Len() || due != len(x.expiry) {
			t.Fatalf("counted %d unknown, %d free, %d due; the table says %d, %d, %d", unknown, free, due,
				s.unknown, s.free.Len(), len(x.expiry))
		}
	}
	for h, e := range x.of {
		if e.Client != h.client || x.at[number(e.Addr)] != e {
			t.Fatalf("the entry of %q is that of %q at %v", h.client, e.Client, e.Addr)
		}
	}
}

// seconds drops the fractions of a second, which the disk does not keep.
func seconds(all []Lease) []Lease {
	for i := range all {
		all[i].Expires = time.Unix(all[i].Expires.Unix(), 0)
	}
	return all
}

// A lease from before a restart ends at its time, even if the clock is set after the restart.
func TestARestoredLeaseWhileTheClockIsSet(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "leases"), time.Now()
	table := testTable(t, path, &now)
	mustBind(t, table, claim("a"), "10.0.0.10", now.Add(time.Hour))
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	table = testTable(t, path, &now)
	defer table.Close()
	all := table.List()
	if len(all) != 1 || all[0].Expires.Unix() != now.Add(time.Hour).Unix() ||
		!strings.Contains(all[0].Expires.String(), " m=") {
		t.Errorf("after a restart the leases are %v, want one that ends in an hour, "+
			"by a time that a clock that is set does not change", all)
	}
}
