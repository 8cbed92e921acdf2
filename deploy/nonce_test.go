package deploy

import (
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// testNonces are those of the last of some starts, with salts of the test.
func testNonces(elapsed *time.Duration, starts ...boltdb.Start) *nonces {
	return newNonces(testKey, starts, func() time.Duration { return *elapsed })
}

func start(number uint32, salt string) boltdb.Start {
	return boltdb.Start{Number: number, Salt: []byte(salt)}
}

func TestNonceRoundTrip(t *testing.T) {
	elapsed := 5 * time.Minute
	n := testNonces(&elapsed, start(1, "a"), start(2, "b"))
	token := n.issue(testMAC)
	elapsed += time.Minute
	got, err := n.verify(token)
	if want := (Nonce{Serial: inventory.Serial{Start: 2, Count: 1}, MAC: testMAC, Age: time.Minute}); err != nil || got != want {
		t.Fatalf("verify(issue()) = %+v, %v, want %+v", got, err, want)
	}
	if again, _ := n.verify(n.issue(testMAC)); again.Serial.Compare(got.Serial) <= 0 || again.Serial != n.issued() {
		t.Errorf("the next nonce is %s, after %s; the last that was issued is %s", again.Serial, got.Serial, n.issued())
	}
	if _, err := newNonces(Key("another key"), []boltdb.Start{start(2, "b")}, n.elapsed).verify(token); err == nil {
		t.Error("another appliance's nonce is accepted")
	}
}

// TestNoncesAcrossStarts: one that was issued before a crash counts after it, is older than all that are issued then, and has the
// full time. One of a start that this database knows nothing of (it was restored from a copy, or is new) counts nothing.
func TestNoncesAcrossStarts(t *testing.T) {
	var elapsed time.Duration
	before := testNonces(&elapsed, start(6, "f"), start(7, "g"))
	for range 1000 {
		before.issue(testMAC)
	}
	elapsed = 50 * time.Hour
	token := before.issue(testMAC)
	var since time.Duration
	after := testNonces(&since, start(7, "g"), start(8, "h"))
	since = 10 * time.Minute
	old, err := after.verify(token)
	if err != nil || old.Age != since {
		t.Fatalf("a nonce from before the crash = %+v, %v, want the age %s", old, err, since)
	}
	if young, err := after.verify(after.issue(testMAC)); err != nil || young.Serial.Compare(old.Serial) <= 0 || young.Age != 0 {
		t.Errorf("the first nonce after the crash = %+v, %v, want a younger one than %s", young, err, old.Serial)
	}
	for name, other := range map[string]*nonces{
		"restored from a copy of start 6": testNonces(&since, start(6, "f"), start(7, "another g")),
		"new":                             testNonces(&since, start(1, "x")),
		"64 starts later":                 testNonces(&since, start(8, "h"), start(72, "y")),
	} {
		if got, err := other.verify(token); err == nil {
			t.Errorf("with a database that is %s, the nonce is accepted as %+v", name, got)
		}
	}
}

func FuzzVerifyNonce(f *testing.F) {
	var elapsed time.Duration
	n := testNonces(&elapsed, start(1, "a"))
	good := n.issue(testMAC)
	f.Add(good)
	f.Add(good[1:])
	f.Add("")
	f.Add(good + "=")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := n.verify(token); err != nil {
			return
		}
		// Only a signed one gets here (the workers sign seeds of their own); one changed octet and it is nothing.
		b := []byte(token)
		b[len(b)/2] ^= 1
		if _, err := n.verify(string(b)); err == nil {
			t.Errorf("verify accepts %q, and %q with one octet changed", token, b)
		}
	})
}

func TestPhoneHomeToken(t *testing.T) {
	k := Key("k")
	if token := k.PhoneHomeToken("d-1"); !k.IsPhoneHome("d-1", token) || k.IsPhoneHome("d-2", token) || k.IsPhoneHome("d-1", "") {
		t.Error("a phone-home token belongs to more or less than its deployment")
	}
}
