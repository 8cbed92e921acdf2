package leases

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// After a power cut the file ends anywhere within its last record, or within its last batch.
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
		// The file takes new leases after that.
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

// Damage in the middle of the file costs only the damaged record.
func TestDamage(t *testing.T) {
	var whole []byte
	whole = append(whole, magic...)
	for i := range 5 {
		whole = appendRecord(whole, Lease{
			Addr: address(number(ip("10.0.0.10")) + uint32(i)), Client: fmt.Sprint(i), State: Bound,
			Known: true, Expires: start.Add(time.Hour),
		})
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
	for _, content := range []string{"lease 10.0.0.1 {\n  starts 4 2026/11/19;\n}\n", "mine"} {
		path := filepath.Join(t.TempDir(), "leases")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := Open(Config{Path: path, Log: discard, Now: time.Now})
		if err == nil {
			x.Close()
		}
		if err == nil || !strings.Contains(err.Error(), path) ||
			!strings.Contains(err.Error(), "move it away") {
			t.Errorf("Open() of %q = %v, want an error that names the file and the next move", content, err)
		}
	}
}

// The file stays small however often leases are renewed, and no lease is lost.
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
	if diff := cmp.Diff(seconds(before), seconds(y.List()),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || len(before) != 5 {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
}

// While the disk fails no lease is reported as written; afterwards leases are written again.
func TestDiskFailure(t *testing.T) {
	t.Parallel()
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

func FuzzRecords(f *testing.F) {
	l := Lease{
		Addr: ip("10.0.0.9"), Client: "\x01\x02", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Host: "h",
		Reservation: "mac", State: Bound, Known: true, Expires: start,
	}
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
		if diff := cmp.Diff(all, twice,
			cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || damaged != 0 || !last {
			t.Errorf("parse, build, parse: %d damaged:\n%s", damaged, diff)
		}
	})
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
