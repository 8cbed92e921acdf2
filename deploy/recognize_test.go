package deploy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

const (
	announcedUUID = "4c4c4544-0000-1000-8000-000000000001"
	otherMAC      = inventory.MAC("52:54:00:66:66:66")
)

// announced is an engine with machine db1, which is known by its UUID alone.
func (r *rack) announced() *Engine {
	r.t.Helper()
	e := r.start()
	if _, err := e.AddMachine(r.t.Context(), "test", NewMachine{Name: "db1", UUID: announcedUUID}); err != nil {
		r.t.Fatal(err)
	}
	return e
}

// says registers under a MAC with the announced UUID.
func (r *rack) says(mac inventory.MAC, nonce, ip string) (inventory.Registered, error) {
	return r.now().Register(r.t.Context(), inventory.Caller{Nonce: nonce, Key: "key of " + string(mac), IP: ip},
		inventory.Registration{MAC: mac, UUID: announcedUUID, BootID: bootIDOf(string(mac))})
}

func TestARefusedRegistrationIsNotAdopted(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	e := r.announced()
	old := e.IssueBoot(otherMAC).Nonce
	r.ahead.Store(int64(2 * time.Hour))
	if _, err := r.says(otherMAC, old, "192.0.2.66"); err == nil {
		t.Error("a nonce that is two hours old is let in")
	}
	if m, err := e.Machine("db1"); err != nil || len(m.MACs) > 0 || m.Boot != nil {
		t.Errorf("after a registration that was refused db1 has MACs %v, boot %+v, %v; want none", m.MACs, m.Boot, err)
	}
	got, err := r.says(testMAC, e.IssueBoot(testMAC).Nonce, "192.0.2.9")
	if err != nil || got.Name != "db1" {
		t.Fatalf("the machine registers as %+v, %v, want db1", got, err)
	}
	e = r.crash()
	if m, err := e.Machine(string(testMAC)); err != nil || m.Name != "db1" || m.Boot == nil {
		t.Errorf("after a restart %s is %+v, %v, want db1 with its boot", testMAC, m, err)
	}
}

// Who says a UUID first is believed; that another one says it, too, is told.
func TestASecondMACWithTheUUID(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	e := r.announced()
	got, err := r.says(otherMAC, e.IssueBoot(otherMAC).Nonce, "192.0.2.66")
	if err != nil || got.Name != "db1" {
		t.Fatalf("the first registers as %+v, %v, want db1", got, err)
	}
	got, err = r.says(testMAC, e.IssueBoot(testMAC).Nonce, "192.0.2.9")
	if err != nil || got.Name == "db1" {
		t.Fatalf("the second registers as %+v, %v, want a machine of its own", got, err)
	}
	if m, _ := e.Machine("db1"); !slices.Equal(m.MACs, []inventory.MAC{otherMAC}) {
		t.Errorf("db1 has MACs %v, want %s alone", m.MACs, otherMAC)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) { // events are written later
		why, err := e.Why("db1")
		if err != nil {
			t.Fatal(err)
		}
		has := func(s string, all ...string) bool {
			return !slices.ContainsFunc(all, func(part string) bool { return !strings.Contains(s, part) })
		}
		if has(why.Sentence, string(otherMAC)+" (last at 192.0.2.66)", string(testMAC)+" at 192.0.2.9") &&
			!has(why.Sentence, "nonce") && has(why.Next, "`pxectl machine delete db1`") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("why = %q, next %q, want both MACs and addresses", why.Sentence, why.Next)
		}
	}
}
