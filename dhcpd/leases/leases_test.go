package leases

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
		Path:         path,
		Subnets:      []Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Pools: pool("10.0.0.10", "10.0.0.19"), Except: []netip.Addr{ip("10.0.0.15")}}},
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

func TestOffer(t *testing.T) {
	hour := start.Add(time.Hour)
	reserved := claim("r")
	reserved.Reserved, reserved.Reservation = ip("10.0.0.15"), "mac r"
	other := reserved
	other.Client = "s" // the same machine under another name
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
			bind(t, x, claim("a"), "10.0.0.17", hour)
		}, wish, "10.0.0.10"},
		{"its own", func(t *testing.T, x *Table, _ *time.Time) {
			bind(t, x, claim("a"), "10.0.0.18", hour)
		}, claim("a"), "10.0.0.18"},
		{"its own after it expired", func(t *testing.T, x *Table, now *time.Time) {
			bind(t, x, claim("a"), "10.0.0.18", hour)
			*now = hour.Add(time.Minute)
		}, claim("a"), "10.0.0.18"},
		{"what is reserved for it", nil, reserved, "10.0.0.15"},
		{"what is reserved for it, though it holds another", func(t *testing.T, x *Table, _ *time.Time) {
			bind(t, x, claim("r"), "10.0.0.12", hour)
		}, reserved, "10.0.0.15"},
		{"what is reserved for it, though it had it by another name", func(t *testing.T, x *Table, _ *time.Time) {
			bind(t, x, other, "10.0.0.15", hour)
		}, reserved, "10.0.0.15"},
		{"another when the reserved one is in use by somebody", func(t *testing.T, x *Table, _ *time.Time) {
			bind(t, x, reserved, "10.0.0.15", hour)
			x.Decline("r", ip("10.0.0.15"), func(error) {})
		}, reserved, "10.0.0.10"},
		{"the one that is free for the longest when none is unused", func(t *testing.T, x *Table, now *time.Time) {
			for i := range 9 {
				if l, err := x.Offer(claim(fmt.Sprint(i))); err != nil || bind(t, x, claim(fmt.Sprint(i)), l.Addr.String(), hour) != nil {
					t.Fatal(l, err)
				}
			}
			x.Release("4", ip("10.0.0.14"), func(error) {})
			x.Release("2", ip("10.0.0.12"), func(error) {})
		}, claim("n"), "10.0.0.14"},
		{"nothing when all are held", func(t *testing.T, x *Table, _ *time.Time) {
			for i := range 9 {
				x.Offer(claim(fmt.Sprint(i)))
			}
		}, claim("n"), ErrExhausted.Error()},
		{"nothing for the unknown when they hold their share", func(t *testing.T, x *Table, _ *time.Time) {
			for i := range 9 {
				c := claim(fmt.Sprint(i))
				c.Known = false
				x.Offer(c)
			}
		}, stranger, ErrShare.Error()},
		{"one for the known when the unknown hold their share", func(t *testing.T, x *Table, _ *time.Time) {
			for i := range 9 {
				c := claim(fmt.Sprint(i))
				c.Known = false
				x.Offer(c)
			}
		}, claim("n"), "10.0.0.16"},
		{"one for the unknown when offers that nobody took have ended", func(t *testing.T, x *Table, now *time.Time) {
			for i := range 9 {
				c := claim(fmt.Sprint(i))
				c.Known = false
				x.Offer(c)
			}
			*now = now.Add(2 * time.Minute)
		}, stranger, "10.0.0.16"},
		{"not what it declined", func(t *testing.T, x *Table, _ *time.Time) {
			bind(t, x, claim("a"), "10.0.0.10", hour)
			x.Decline("a", ip("10.0.0.10"), func(error) {})
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
		{"again", func(t *testing.T, x *Table) { bind(t, x, claim("a"), "10.0.0.11", hour) }, claim("a"), "10.0.0.11", nil},
		{"another's", func(t *testing.T, x *Table) { bind(t, x, claim("b"), "10.0.0.11", hour) }, claim("a"), "10.0.0.11", ErrTaken},
		{"offered to another", func(_ *testing.T, x *Table) { x.Offer(claim("b")) }, claim("a"), "10.0.0.10", ErrTaken},
		{"not the one that it has", func(t *testing.T, x *Table) { bind(t, x, claim("a"), "10.0.0.11", hour) }, claim("a"), "10.0.0.12", ErrElsewhere},
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

// Whatever happens in whatever order: no address has two live leases, no client two of
// one subnet that it does not know of, the counts are right, and the disk says the same.
func TestNoAddressIsGivenTwice(t *testing.T) {
	for seed := range uint64(6) {
		now := start
		path := filepath.Join(t.TempDir(), "leases")
		x := testTable(t, path, &now)
		r := rand.New(rand.NewPCG(seed, 1))
		told := map[netip.Addr]Lease{} // what clients believe: address → until when, and whose
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
						x.Release(c.Client, a, func(error) {})
						delete(told, a)
						break
					}
				}
			case 2:
				for a, l := range told {
					if l.Client == c.Client && r.IntN(4) == 0 {
						x.Decline(c.Client, a, func(error) {})
						delete(told, a)
						break
					}
				}
			case 3:
				if _, err := x.Offer(c); err != nil && !errors.Is(err, ErrExhausted) && !errors.Is(err, ErrShare) {
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
				if old, ok := told[l.Addr]; ok && old.Client != c.Client && old.Expires.After(now) && l.Addr != c.Reserved {
					t.Fatalf("seed %d, step %d: %v went to %s while %s has it until %v (now %v)", seed, step, l.Addr, c.Client, old.Client, old.Expires, now)
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
		if diff := cmp.Diff(seconds(before), seconds(again.List()), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Fatalf("seed %d: after a restart (-before +after):\n%s", seed, diff)
		}
		again.Close()
	}
}

// checkCounts counts anew what the table keeps count of.
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
			t.Fatalf("counted %d declined; the table lists %d, and %d by their clients", declined, s.declined.Len(), listed)
		}
		if unknown != s.unknown || free != s.free.Len() || due != len(x.expiry) {
			t.Fatalf("counted %d unknown, %d free, %d due; the table says %d, %d, %d", unknown, free, due, s.unknown, s.free.Len(), len(x.expiry))
		}
	}
	for h, e := range x.of {
		if e.Client != h.client || x.at[number(e.Addr)] != e {
			t.Fatalf("the entry of %q is that of %q at %v", h.client, e.Client, e.Addr)
		}
	}
}

// seconds drops what the disk does not keep.
func seconds(all []Lease) []Lease {
	for i := range all {
		all[i].Expires = time.Unix(all[i].Expires.Unix(), 0)
	}
	return all
}

// A power cut: the file ends anywhere within its last record, or within its last batch.
func TestTornTail(t *testing.T) {
	now := start
	path := filepath.Join(t.TempDir(), "leases")
	x := testTable(t, path, &now)
	var sizes []int
	for _, c := range []string{"a", "b", "c"} {
		l, err := x.Offer(claim(c))
		if err != nil {
			t.Fatal(err)
		}
		cl := claim(c)
		cl.Host = "host-" + c
		if err := bind(t, x, cl, l.Addr.String(), start.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(raw))
	}
	x.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := len(magic); cut <= len(whole); cut++ {
		var want int
		for _, s := range sizes {
			if cut >= s {
				want++
			}
		}
		torn := filepath.Join(t.TempDir(), "torn")
		if err := os.WriteFile(torn, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		y := testTable(t, torn, &now)
		if got := len(y.List()); got != want {
			t.Fatalf("cut after %d of %d bytes: %d leases, want %d", cut, len(whole), got, want)
		}
		// The file goes on from there.
		if err := bind(t, y, claim("z"), "10.0.0.19", start.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		y.Close()
		y = testTable(t, torn, &now)
		if got := len(y.List()); got != want+1 {
			t.Fatalf("cut after %d bytes, one more lease: %d leases, want %d", cut, got, want+1)
		}
		y.Close()
	}
}

// Damage in the middle costs what is damaged and no more.
func TestDamage(t *testing.T) {
	var whole []byte
	whole = append(whole, magic...)
	for i := range 5 {
		whole = appendRecord(whole, Lease{Addr: address(number(ip("10.0.0.10")) + uint32(i)), Client: fmt.Sprint(i), State: Bound, Known: true, Expires: start.Add(time.Hour)})
	}
	now := start
	for at := len(magic); at < len(whole); at++ {
		raw := bytes.Clone(whole)
		raw[at] ^= 0x55
		path := filepath.Join(t.TempDir(), "leases")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		x := testTable(t, path, &now)
		if got := len(x.List()); got != 4 {
			t.Fatalf("byte %d is wrong: %d leases, want 4", at, got)
		}
		x.Close()
	}
}

func TestForeignFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases")
	if err := os.WriteFile(path, []byte("lease 10.0.0.1 {\n  starts 4 2026/11/19;\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	x, err := Open(Config{Path: path, Log: discard, Now: time.Now})
	if err == nil {
		x.Close()
	}
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("Open() = %v, want an error that names the file and the next move", err)
	}
}

// The file stays small however often leases are renewed, and loses none over it.
func TestCompaction(t *testing.T) {
	now := start
	path := filepath.Join(t.TempDir(), "leases")
	x := testTable(t, path, &now)
	const renewals = 60000 // of about 50 bytes: 3 MB
	var last error
	for i := range renewals {
		c := claim(string(rune('a' + i%5)))
		l, err := x.Offer(c)
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
		for {
			err = x.Bind(c, l.Addr, now.Add(time.Hour), func(err error) {
				if err != nil {
					last = err
				}
			})
			if !errors.Is(err, ErrBusy) {
				break
			}
			time.Sleep(time.Millisecond) // as clients do
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := bind(t, x, claim("a"), "10.0.0.10", now.Add(2*time.Hour)); err != nil || last != nil {
		t.Fatal(err, last)
	}
	before := x.List()
	x.Close()
	st, err := os.Stat(path)
	if err != nil || st.Size() > 3*compactAt/2 {
		t.Errorf("the file has %d bytes, %v, want not much more than %d", st.Size(), err, compactAt)
	}
	y := testTable(t, path, &now)
	defer y.Close()
	if diff := cmp.Diff(seconds(before), seconds(y.List()), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || len(before) != 5 {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
}

// A disk that fails costs no answer that is not true, and heals.
func TestDiskFailure(t *testing.T) {
	now := start
	path := filepath.Join(t.TempDir(), "leases")
	x := testTable(t, path, &now)
	if err := bind(t, x, claim("a"), "10.0.0.10", start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	x.journal.file.Close() // the next write fails
	if err := bind(t, x, claim("b"), "10.0.0.11", start.Add(time.Hour)); err == nil {
		t.Fatal("a lease that could not be written was told as done")
	}
	deadline := time.Now().Add(time.Minute)
	for bind(t, x, claim("b"), "10.0.0.11", start.Add(time.Hour)) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the lease file did not heal")
		}
		time.Sleep(50 * time.Millisecond)
	}
	x.Close()
	y := testTable(t, path, &now)
	defer y.Close()
	if got := len(y.List()); got != 2 {
		t.Errorf("%d leases after a restart, want 2", got)
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

func TestRange(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1-10.0.0.9": "10.0.0.1-10.0.0.9", "10.0.0.1 - 10.0.0.9": "10.0.0.1-10.0.0.9", "10.0.0.1": "10.0.0.1-10.0.0.1",
		"10.0.0.9-10.0.0.1": "", "fd00::1-fd00::9": "", "10.0.0.1-": "", "": "",
	} {
		var r Range
		err := r.UnmarshalText([]byte(text))
		if (err == nil) != (want != "") || err == nil && r.String() != want {
			t.Errorf("UnmarshalText(%q) = %v, %v, want %q", text, r, err, want)
		}
	}
}

func FuzzRecords(f *testing.F) {
	l := Lease{Addr: ip("10.0.0.9"), Client: "\x01\x02", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Host: "h", Reservation: "mac", State: Bound, Known: true, Expires: start}
	f.Add(appendRecord(appendRecord(nil, l), Lease{Addr: ip("10.0.0.8"), State: Declined, Expires: start}))
	f.Add([]byte{mark, 0, 20, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		all, damaged, _ := parseRecords(b)
		var again []byte
		for _, l := range all {
			again = appendRecord(again, l)
		}
		if len(again)+damaged != len(b) && damaged == 0 {
			t.Errorf("%d records of %d bytes make %d bytes", len(all), len(b), len(again))
		}
		twice, damaged, last := parseRecords(again)
		if diff := cmp.Diff(all, twice, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || damaged != 0 || !last {
			t.Errorf("parse, build, parse: %d damaged:\n%s", damaged, diff)
		}
	})
}

func TestFullPoolIsQuick(t *testing.T) {
	now := start
	x, err := Open(Config{
		Path:         filepath.Join(t.TempDir(), "leases"),
		Subnets:      []Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/12"), Pools: pool("10.0.0.1", "10.3.255.254")}},
		UnknownShare: 25, Log: discard, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	// A million made-up clients: they get a quarter of the pool, and nobody else suffers.
	refused := map[error]int{}
	for i := range 1_000_000 {
		if _, err := x.Offer(Claim{Client: fmt.Sprintf("\x01%06d", i)}); err != nil {
			refused[err]++
		}
	}
	if diff := cmp.Diff(map[error]int{ErrShare: 1_000_000 - (1<<18-2+3)/4}, maps.Clone(refused), cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) })); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	if l, err := x.Offer(claim("known")); err != nil {
		t.Errorf("a known machine beside the flood: %v, %v", l, err)
	}
}

// When done is called, the record is in the file.
func TestDoneMeansWritten(t *testing.T) {
	now := start
	path := filepath.Join(t.TempDir(), "leases")
	x := testTable(t, path, &now)
	defer x.Close()
	missing := make(chan string, 9)
	for i := range 9 {
		c := claim(fmt.Sprint(i))
		l, err := x.Offer(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Bind(c, l.Addr, start.Add(time.Hour), func(error) {
			raw, _ := os.ReadFile(path)
			all, _, _ := parseRecords(raw[len(magic):])
			for _, there := range all {
				if there.Addr == l.Addr {
					missing <- ""
					return
				}
			}
			missing <- l.Addr.String()
		}); err != nil {
			t.Fatal(err)
		}
	}
	for range 9 {
		if a := <-missing; a != "" {
			t.Errorf("%s was told as done and is not in the file", a)
		}
	}
}

// Our own address became 10.0.0.x while we run.
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
	}{{"10.0.0.10", true}, {"10.0.0.11", false}, {"10.0.0.12", false}, {"10.0.0.12", false}, {"10.0.0.15", false}, {"10.0.0.99", false}, {"192.0.2.1", false}} {
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
