package nonce

import (
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

const testMAC = inventory.MAC("52:54:00:00:00:01")

var testKey = Key("0123456789abcdef0123456789abcdef")

// issuer returns the Issuer of the last of some starts.
func issuer(elapsed *time.Duration, starts ...boltdb.Start) *Issuer {
	return NewIssuer(testKey, starts, func() time.Duration { return *elapsed })
}

func start(number uint32, salt string) boltdb.Start {
	return boltdb.Start{Number: number, Salt: []byte(salt)}
}

func TestNonceRoundTrip(t *testing.T) {
	elapsed := 5 * time.Minute
	n := issuer(&elapsed, start(1, "a"), start(2, "b"))
	token := n.Issue(testMAC)
	elapsed += time.Minute
	got, err := n.Verify(token)
	if want := (Nonce{
		Serial: inventory.Serial{Start: 2, Count: 1}, MAC: testMAC,
		Age: time.Minute,
	}); err != nil || got != want {
		t.Fatalf("Verify(Issue()) = %+v, %v, want %+v", got, err, want)
	}
	if again, _ := n.Verify(n.Issue(testMAC)); again.Serial.Compare(got.Serial) <= 0 ||
		again.Serial != n.Issued() {
		t.Errorf("the next nonce is %s, after %s; the last that was issued is %s", again.Serial, got.Serial,
			n.Issued())
	}
	if _, err := NewIssuer(Key("another key"), []boltdb.Start{start(2, "b")},
		n.elapsed).Verify(token); err == nil {
		t.Error("another appliance's nonce is accepted")
	}
}

// TestNoncesAcrossStarts: a nonce that was issued before a crash is valid after it, is older than all that
// are issued then, and has its full time. A nonce of a start that this database does not know (it was
// restored from a copy, or is new) is refused.
func TestNoncesAcrossStarts(t *testing.T) {
	var elapsed time.Duration
	before := issuer(&elapsed, start(6, "f"), start(7, "g"))
	for range 1000 {
		before.Issue(testMAC)
	}
	elapsed = 50 * time.Hour
	token := before.Issue(testMAC)
	var since time.Duration
	after := issuer(&since, start(7, "g"), start(8, "h"))
	since = 10 * time.Minute
	old, err := after.Verify(token)
	if err != nil || old.Age != since {
		t.Fatalf("a nonce from before the crash = %+v, %v, want the age %s", old, err, since)
	}
	if young, err := after.Verify(after.Issue(testMAC)); err != nil ||
		young.Serial.Compare(old.Serial) <= 0 || young.Age != 0 {
		t.Errorf("the first nonce after the crash = %+v, %v, want a younger one than %s", young, err,
			old.Serial)
	}
	for name, other := range map[string]*Issuer{
		"restored from a copy of start 6": issuer(&since, start(6, "f"), start(7, "another g")),
		"new":                             issuer(&since, start(1, "x")),
		"64 starts later":                 issuer(&since, start(8, "h"), start(72, "y")),
	} {
		if got, err := other.Verify(token); err == nil {
			t.Errorf("with a database that is %s, the nonce is accepted as %+v", name, got)
		}
	}
}

func FuzzVerifyNonce(f *testing.F) {
	var elapsed time.Duration
	n := issuer(&elapsed, start(1, "a"))
	good := n.Issue(testMAC)
	f.Add(good)
	f.Add(good[1:])
	f.Add("")
	f.Add(good + "=")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := n.Verify(token); err != nil {
			return
		}
		// Only a signed nonce gets here (the workers of the fuzzer sign seeds of their own). With one octet
		// changed it is refused.
		b := []byte(token)
		b[len(b)/2] ^= 1
		if _, err := n.Verify(string(b)); err == nil {
			t.Errorf("verify accepts %q, and %q with one octet changed", token, b)
		}
	})
}

func TestPhoneHomeToken(t *testing.T) {
	k := Key("k")
	if token := k.PhoneHomeToken("d-1"); !k.IsPhoneHome("d-1", token) || k.IsPhoneHome("d-2", token) ||
		k.IsPhoneHome("d-1", "") {
		t.Error("a phone-home token belongs to more or less than its deployment")
	}
}
