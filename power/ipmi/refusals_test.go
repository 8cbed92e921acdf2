package ipmi

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

// Anybody who reports BMC addresses makes targets. Each is forgotten with its last controller, and the others
// are kept.
func TestTargetsAreForgotten(t *testing.T) {
	d := quick()
	kept := open(t, d, power.Target{Address: "192.0.2.1", User: user}).(*controller)
	for i := range 1000 {
		open(t, d, power.Target{Address: fmt.Sprintf("198.51.%d.%d", i/250, i%250), User: user})
	}
	count := func() int {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.targets)
	}
	for end := time.Now().Add(time.Minute); count() > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d targets are remembered, and one is open", count())
		}
		runtime.GC()
	}
	d.forget(kept.addr) // as the cleanup of an earlier target of this address does
	if again := open(t, d,
		power.Target{Address: "192.0.2.1", User: "another"}).(*controller); again.target != kept.target {
		t.Error("two who have a BMC open do not take turns")
	}
	runtime.KeepAlive(kept)
}

// BMCs lock a user after some refusals. A refused password gets no other try, not even when another password
// was right, or when the address was dropped in between.
func TestARefusalIsRemembered(t *testing.T) {
	r := newRack(t, "127.0.0.1:0")
	wire := newRelay(t, r.addr, nil)
	d := quick()
	passwords := []string{powertest.WrongPassword, "another wrong one", powertest.Password}
	sent := make([][]int64, 3)
	for range 3 {
		for i, password := range passwords {
			before := wire.count.Load()
			_, err := open(t, d,
				power.Target{Address: wire.addr, User: user, Password: password}).Power(t.Context())
			if i < 2 && !errors.Is(err, power.ErrRefused) || i == 2 && err != nil {
				t.Fatalf("Power() with password %d = %v", i, err)
			}
			sent[i] = append(sent[i], wire.count.Load()-before)
			runtime.GC() // the target is forgotten
		}
	}
	for i := range 2 {
		if sent[i][0] == 0 || sent[i][1] != 0 || sent[i][2] != 0 {
			t.Errorf("packets sent with wrong password %d, call by call: %d, want some, 0, 0", i, sent[i])
		}
	}
}

// refusing makes a controller whose credentials were refused that many times.
func refusing(r *refusals, addr, password string, times int) *controller {
	c := &controller{addr: netip.MustParseAddrPort(addr), user: user, password: password}
	for range times {
		r.remember(c)
	}
	return c
}

// A refusal and the hash of its credentials are dropped when their time is over, even when nobody asks.
func TestRefusalsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusals
		kept := func() int {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.all)
		}
		first := refusing(&r, "192.0.2.1:623", "wrong", maxRefused)
		time.Sleep(refusedTime / 2)
		refusing(&r, "192.0.2.2:623", "wrong", maxRefused)
		if kept() != 2 || r.mayTry(first) == nil {
			t.Errorf("%d refusals after half of their time (%v), want 2", kept(), r.mayTry(first))
		}
		time.Sleep(refusedTime / 2)
		synctest.Wait()
		if kept() != 1 || r.mayTry(first) != nil {
			t.Errorf("%d refusals after the first one's time (%v), want 1", kept(), r.mayTry(first))
		}
		time.Sleep(refusedTime / 2)
		synctest.Wait()
		if kept() != 0 || r.ending != nil {
			t.Errorf("%d refusals after their time, want none", kept())
		}
		again := refusing(&r, "192.0.2.1:623", "wrong", maxRefused-1)
		if err := r.mayTry(again); err != nil {
			t.Errorf("refusals before are still counted: %v", err)
		}
	})
}

// A login that succeeds proves that the password is right, so an earlier refusal by a busy BMC no longer
// counts.
func TestRefusalsAreCountedInARow(t *testing.T) {
	var r refusals
	c := refusing(&r, "192.0.2.1:623", "right", maxRefused-1)
	r.accepted(c)
	refusing(&r, "192.0.2.1:623", "right", maxRefused-1)
	if err := r.mayTry(c); err != nil {
		t.Errorf("refused for a refusal before the last login that succeeded: %v", err)
	}
}

// However many BMCs refuse, few refusals are kept, and those are the latest.
func TestRefusalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusals
		first := refusing(&r, "192.0.2.1:623", "wrong", maxRefused)
		var last *controller
		for i := range 2 * maxRefusals {
			time.Sleep(time.Millisecond)
			last = refusing(&r, "192.0.2.2:"+strconv.Itoa(1+i), "wrong", maxRefused)
		}
		if len(r.all) != maxRefusals || r.mayTry(last) == nil || r.mayTry(first) != nil {
			t.Errorf("%d refusals, of the last %v and of the first %v; want %d, and the oldest forgotten",
				len(r.all), r.mayTry(last), r.mayTry(first), maxRefusals)
		}
	})
}

// What is kept of refused credentials cannot be compared with what another process or a list of hashes has.
func TestRefusalsAreKeyed(t *testing.T) {
	var one, other refusals
	c := refusing(&one, "192.0.2.1:623", "wrong", 1)
	refusing(&other, "192.0.2.1:623", "wrong", 1)
	again := one.credentials(c)
	if again == other.credentials(c) {
		t.Error("two processes keep the same hash of the same credentials")
	}
	if _, known := one.all[again]; !known {
		t.Error("a process does not know credentials again")
	}
}
