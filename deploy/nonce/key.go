package nonce

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"

	"github.com/pxectl/pxectl/inventory"
)

// A Key signs nonces and phone-home tokens. It is made once and kept beside the store.
type Key []byte

// PhoneHomeToken is the secret of a deployment. Only the deployed system gets it, so whoever shows it proves
// that the system runs.
func (k Key) PhoneHomeToken(id inventory.DeploymentID) string {
	return base64.RawURLEncoding.EncodeToString(k.tag("phone-home", []byte(id)))
}

// IsPhoneHome says whether token is that deployment's. It compares in constant time.
func (k Key) IsPhoneHome(id inventory.DeploymentID, token string) bool {
	return hmac.Equal([]byte(token), []byte(k.PhoneHomeToken(id)))
}

func (k Key) tag(use string, body []byte) []byte {
	mac := hmac.New(sha256.New, k)
	mac.Write([]byte(use))
	mac.Write([]byte{0})
	mac.Write(body)
	return mac.Sum(nil)[:tagSize]
}
