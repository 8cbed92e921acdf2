package leases

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// alias is a client with the MAC of a known machine and another identity.
func alias(id string) Claim {
	c := claim("k")
	c.Client, c.Alias = id, true
	return c
}

// Made-up packets with a known machine's MAC get three of the known machines' addresses at most. More of them
// count against the share of unknown machines.
func TestAKnownMACIsKnownThreeTimes(t *testing.T) {
	now := start
	path := filepath.Join(t.TempDir(), "leases")
	x := testTable(t, path, &now)
	hour := start.Add(time.Hour)
	var refused int
	for i := range 100 {
		c := alias(fmt.Sprint("made up ", i))
		l, err := x.Offer(c)
		if err == nil {
			err = bind(t, x, c, l.Addr.String(), hour)
		}
		if errors.Is(err, ErrShare) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	// Of nine addresses two count as a known machine's, and five are the share of unknown machines.
	if want := 100 - 2 - 5; refused != want {
		t.Errorf("%d were refused, want %d", refused, want)
	}
	checkCounts(t, x)
	// The machine itself is still known, and so is another one.
	for _, c := range []Claim{claim("k"), claim("o")} {
		l, err := x.Offer(c)
		if err != nil || bind(t, x, c, l.Addr.String(), hour) != nil {
			t.Errorf("%s is offered %v, %v, want an address that it gets", c.Client, l.Addr, err)
		}
	}
	if _, err := x.Offer(claim("third")); !errors.Is(err, ErrExhausted) {
		t.Errorf("a third known machine: %v, want %v: the pool has nine", err, ErrExhausted)
	}
	x.Close()
	y := testTable(t, path, &now)
	defer y.Close()
	checkCounts(t, y)
	if got, want := y.subnets[0].known[claim("k").KnownBy], (tally{3, 2}); got != want {
		t.Errorf("after a restart %+v are counted for the MAC, want %+v", got, want)
	}
	// A renewal of a lease that counted as known still does.
	if err := bind(t, y, alias("made up 0"), "10.0.0.10", hour); err != nil {
		t.Error(err)
	}
	checkCounts(t, y)
}

// decline offers an address to a client, which declines it.
func decline(t *testing.T, x *Table, c Claim) (l Lease, back string) {
	t.Helper()
	l, err := x.Offer(c)
	if err != nil {
		t.Fatalf("%s is offered nothing: %v", c.Client, err)
	}
	if err := bind(t, x, c, l.Addr.String(), l.Expires.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	freed, written := make(chan netip.Addr, 1), make(chan error, 1)
	if err := x.Decline(c.Client, l.Addr,
		func(a netip.Addr, err error) { freed <- a; written <- err }); err != nil {
		t.Fatal(err)
	}
	a := <-freed
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if a.IsValid() {
		back = a.String()
	}
	return l, back
}

// A DECLINE that also frees another address is one change in the journal. As two changes, the second could be
// refused when the first is queued already, and done would be called twice or never.
func TestDeclineIsOneChange(t *testing.T) {
	now := start
	x := testTable(t, filepath.Join(t.TempDir(), "leases"), &now)
	x.Close() // nobody takes from the queue
	x.journal.closed = false
	for range maxDeclines + 1 {
		l, err := x.Offer(claim("a"))
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Decline("a", l.Addr, func(netip.Addr, error) {}); err != nil {
			t.Fatal(err)
		}
	}
	if all, damaged, _ := parseRecords(x.journal.bytes); len(all) != maxDeclines+2 || damaged != 0 ||
		len(x.journal.waiting) != maxDeclines+1 {
		t.Errorf("%d records of %d changes, want %d of %d", len(all), len(x.journal.waiting), maxDeclines+2,
			maxDeclines+1)
	}
}

// One client that declines every address, under any number of names, keeps three addresses out of use.
func TestOneClientDeclinesInALoop(t *testing.T) {
	now := start
	x := testTable(t, filepath.Join(t.TempDir(), "leases"), &now)
	defer x.Close()
	for i := range 50 {
		now = now.Add(time.Second)
		c := claim("d")
		c.Client, c.Known = fmt.Sprint("name ", i), false
		if _, back := decline(t, x, c); (back != "") != (i >= maxDeclines) {
			t.Errorf("decline %d gives %q back, want the first again from the fourth on", i, back)
		}
		checkCounts(t, x)
	}
	for i := range 6 {
		l, err := x.Offer(claim(string(rune('A' + i))))
		if err != nil || l.Doubtful {
			t.Errorf("client %d is offered %+v, %v, want an address that nobody declined", i, l, err)
		}
	}
}

// When many clients have declined the whole pool, others are still offered an address: the one that was
// declined first.
func TestWhatWasDeclinedIsBetterThanNothing(t *testing.T) {
	now := start
	path := filepath.Join(t.TempDir(), "leases")
	x := testTable(t, path, &now)
	for i := range 9 {
		now = now.Add(time.Second)
		c := claim(string(rune('a' + i)))
		c.Known = false // an unknown machine's declined address does not count against the share
		decline(t, x, c)
	}
	if n := len(x.List()); n != 9 {
		t.Fatalf("%d addresses are declined, want all 9", n)
	}
	x.Close()
	x = testTable(t, path, &now)
	defer x.Close()
	for i, want := range []string{"10.0.0.10", "10.0.0.11"} {
		c := claim(string(rune('A' + i)))
		l, err := x.Offer(c)
		if err != nil || l.Addr.String() != want || !l.Doubtful {
			t.Errorf("offered %+v, %v, want %s, and that it is in doubt", l, err, want)
		}
		if err := bind(t, x, c, want, now.Add(time.Hour)); err != nil {
			t.Error(err)
		}
		checkCounts(t, x)
	}
}

// A reserved address comes back after ten minutes, others after an hour.
func TestDeclinedReservation(t *testing.T) {
	now := start
	x := testTable(t, filepath.Join(t.TempDir(), "leases"), &now)
	defer x.Close()
	c := claim("r")
	c.Reserved, c.Reservation = ip("10.0.0.15"), "mac r"
	decline(t, x, c)
	decline(t, x, claim("o"))
	for _, at := range []struct {
		after         time.Duration
		mine, another string
	}{
		{9 * time.Minute, "10.0.0.11", "10.0.0.12"},
		{11 * time.Minute, "10.0.0.15", "10.0.0.12"},
		{61 * time.Minute, "10.0.0.15", "10.0.0.12"},
	} {
		now = start.Add(at.after)
		if l, err := x.Offer(c); err != nil || l.Addr.String() != at.mine {
			t.Errorf("after %v its machine is offered %v, %v, want %s", at.after, l.Addr, err, at.mine)
		}
		if l, err := x.Offer(claim("n")); err != nil || l.Addr.String() != at.another {
			t.Errorf("after %v another is offered %v, %v, want %s", at.after, l.Addr, err, at.another)
		}
	}
	if all := x.List(); len(all) != 0 {
		t.Errorf("after an hour there are %+v, want no address out of use", all)
	}
}

// A DECLINE in another's name ends no lease that has run for a while.
func TestLateDecline(t *testing.T) {
	now := start
	x := testTable(t, filepath.Join(t.TempDir(), "leases"), &now)
	defer x.Close()
	c := claim("a")
	if err := bind(t, x, c, "10.0.0.10", start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(declineWithin + time.Second)
	c.Renews = true
	// A renewal does not count as giving the address.
	if err := bind(t, x, c, "10.0.0.10", now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := x.Decline("a", ip("10.0.0.10"), func(netip.Addr, error) {}); !errors.Is(err, ErrNotGiven) {
		t.Errorf("Decline() = %v, want %v", err, ErrNotGiven)
	}
	// A client that really finds another host at its address asks for it again, and may decline then.
	c.Renews = false
	if err := bind(t, x, c, "10.0.0.10", now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := x.Decline("a", ip("10.0.0.10"), func(netip.Addr, error) {}); err != nil {
		t.Error(err)
	}
}

// Nobody gets an address by releasing it in another client's name and asking for it.
func TestReleasedAddressIsNotAnothers(t *testing.T) {
	now := start
	x := testTable(t, filepath.Join(t.TempDir(), "leases"), &now)
	defer x.Close()
	if err := bind(t, x, claim("a"), "10.0.0.10", start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if ok, err := x.Release("a", ip("10.0.0.10"), func(error) {}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	thief := claim("t")
	thief.Want = ip("10.0.0.10")
	if l, err := x.Offer(thief); err != nil || l.Addr == thief.Want {
		t.Errorf("offered %v, %v, want another address", l.Addr, err)
	}
	if err := bind(t, x, thief, "10.0.0.10", start.Add(time.Hour)); !errors.Is(err, ErrTaken) {
		t.Errorf("Bind() = %v, want %v", err, ErrTaken)
	}
	if err := bind(t, x, claim("a"), "10.0.0.10", start.Add(time.Hour)); err != nil {
		t.Errorf("the client that had it: %v", err)
	}
	if ok, _ := x.Release("a", ip("10.0.0.10"), func(error) {}); !ok {
		t.Fatal("not released")
	}
	now = now.Add(releasedFor + time.Second)
	x.Refuse(0, "t")
	if l, err := x.Offer(Claim{
		Client: "u", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 'u'},
		Want: thief.Want,
	}); err != nil || l.Addr != thief.Want {
		t.Errorf("later another is offered %v, %v, want what it asks for", l.Addr, err)
	}
}

// A callback that hangs or panics delays no other client's lease.
func TestSlowAndPanickingDone(t *testing.T) {
	now := start
	var log bytes.Buffer
	path := filepath.Join(t.TempDir(), "leases")
	x, err := Open(Config{
		Path: path,
		Subnets: []Subnet{
			{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Pools: pool("10.0.0.10", "10.0.0.19")},
		},
		Log: slog.New(slog.NewTextHandler(&log, nil)),
		Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	release, hangs := make(chan struct{}), make(chan struct{})
	if err := x.Bind(claim("a"), ip("10.0.0.10"), start.Add(time.Hour),
		func(error) { close(hangs); <-release }); err != nil {
		t.Fatal(err)
	}
	<-hangs
	if err := x.Bind(claim("b"), ip("10.0.0.11"), start.Add(time.Hour),
		func(error) { panic("an observer's bug") }); err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	if err := x.Bind(claim("c"), ip("10.0.0.12"), start.Add(time.Hour),
		func(err error) { told <- err }); err != nil {
		t.Fatal(err)
	}
	// Leases after the one whose callback hangs are written to the disk.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if all, _, _ := parseRecords(raw[len(magic):]); len(all) == 3 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("leases wait for one that is told and hangs")
		}
	}
	close(release)
	if err := <-told; err != nil {
		t.Error(err)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "an observer's bug") {
		t.Errorf("log = %s, want the panic in it", log.String())
	}
}

// A panic while writing costs only that batch, and the file is written anew.
func TestPanicWhileWriting(t *testing.T) {
	t.Parallel()
	now := start
	path := filepath.Join(t.TempDir(), "leases")
	x := testTable(t, path, &now)
	if err := bind(t, x, claim("a"), "10.0.0.10", start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	// bind has waited for the goroutine that writes, so this is no data race.
	x.journal.snapshot = func() ([]byte, int) { panic("a bug in the table") }
	x.journal.broken = time.Now().Add(-time.Hour)
	if err := bind(t, x, claim("b"), "10.0.0.11", start.Add(time.Hour)); err == nil ||
		!strings.Contains(err.Error(), "a bug in the table") {
		t.Fatalf("a lease whose writing panicked was told as %v", err)
	}
	x.journal.snapshot = x.encode
	for end := time.Now().Add(5 * retryAfter); ; time.Sleep(50 * time.Millisecond) {
		err := bind(t, x, claim("b"), "10.0.0.11", start.Add(time.Hour))
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	x.Close()
	y := testTable(t, path, &now)
	defer y.Close()
	if got := len(y.List()); got != 2 {
		t.Errorf("%d leases after a restart, want 2", got)
	}
}
