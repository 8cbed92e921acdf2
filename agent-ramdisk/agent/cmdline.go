package agent

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/pxectl/pxectl/inventory"
)

// Params are the values that the boot script puts on the kernel's command line.
type Params struct {
	URL     string   // of the appliance, https, an IP literal
	Pin     [32]byte // SHA-256 of the SubjectPublicKeyInfo of the appliance's certificate
	Nonce   string
	BootMAC inventory.MAC // "" when the boot loader gave none
}

// ParseCommandLine reads /proc/cmdline and reports all mistakes at once. Of a repeated key the last one
// counts, as in the kernel.
func ParseCommandLine(line string) (Params, error) {
	values := map[string]string{}
	for word := range strings.FieldsSeq(line) {
		key, value, _ := strings.Cut(word, "=")
		values[key] = strings.Trim(value, `"`)
	}
	var p Params
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("kernel command line: %s: %s", key, fmt.Sprintf(format, args...)))
	}

	p.URL = strings.TrimRight(values["pxectl.url"], "/")
	if u, err := url.Parse(p.URL); p.URL == "" {
		bad("pxectl.url", "missing")
	} else if err != nil || u.Scheme != "https" || u.Host == "" {
		bad("pxectl.url", "%q is not https://ADDRESS:PORT", p.URL)
	}

	algorithm, digest, _ := strings.Cut(values["pxectl.pin"], ":")
	if sum, err := hex.DecodeString(digest); values["pxectl.pin"] == "" {
		bad("pxectl.pin", "missing")
	} else if algorithm != "sha256" || err != nil || len(sum) != len(p.Pin) {
		bad("pxectl.pin", "%q is not sha256: and 64 hex digits", values["pxectl.pin"])
	} else {
		copy(p.Pin[:], sum)
	}

	if p.Nonce = values["pxectl.nonce"]; p.Nonce == "" {
		bad("pxectl.nonce", "missing")
	}
	if s := values["BOOTIF"]; s != "" {
		mac, err := inventory.ParseMAC(s)
		if err != nil {
			bad("BOOTIF", "%v", err)
		}
		p.BootMAC = mac
	}
	return p, errors.Join(errs...)
}
