package deploy

import (
	"testing"
	"time"
)

func TestNonceRoundTrip(t *testing.T) {
	k := Key("0123456789abcdef0123456789abcdef")
	now := time.Date(2026, 11, 20, 10, 0, 0, 123e6, time.UTC)
	token := k.IssueNonce("52:54:00:00:00:01", now)
	n, err := k.VerifyNonce(token)
	if err != nil || n.MAC != "52:54:00:00:00:01" || !n.IssuedAt.Equal(now) || n.ID == "" {
		t.Fatalf("VerifyNonce(IssueNonce()) = %+v, %v", n, err)
	}
	if again, _ := k.VerifyNonce(k.IssueNonce("52:54:00:00:00:01", now)); again.ID == n.ID {
		t.Error("two nonces of the same moment have the same id")
	}
	if _, err := Key("another key").VerifyNonce(token); err == nil {
		t.Error("another appliance's nonce is accepted")
	}
}

func FuzzVerifyNonce(f *testing.F) {
	k := Key("0123456789abcdef0123456789abcdef")
	good := k.IssueNonce("52:54:00:00:00:01", time.UnixMilli(1))
	f.Add(good)
	f.Add(good[1:])
	f.Add("")
	f.Add(good + "=")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := k.VerifyNonce(token); err != nil {
			return
		}
		// Only a signed one gets here (the workers sign seeds of their own); one changed octet and it is nothing.
		b := []byte(token)
		b[len(b)/2] ^= 1
		if _, err := k.VerifyNonce(string(b)); err == nil {
			t.Errorf("VerifyNonce accepts %q, and %q with one octet changed", token, b)
		}
	})
}

func TestPhoneHomeToken(t *testing.T) {
	k := Key("k")
	if token := k.PhoneHomeToken("d-1"); !k.IsPhoneHome("d-1", token) || k.IsPhoneHome("d-2", token) || k.IsPhoneHome("d-1", "") {
		t.Error("a phone-home token belongs to more or less than its deployment")
	}
}
