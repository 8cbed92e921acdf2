package ipxe

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	"github.com/pxectl/pxectl/internal/printable"
)

// Params is iPXE's description of its machine. Anybody on the network can send one, so it is a claim and not
// a proof. Only MAC is always set.
type Params struct {
	MAC          string // of the NIC that boots: "52:54:00:12:34:56"
	UUID         string // SMBIOS, as iPXE and product_uuid print it, lower case
	Serial       string
	Asset        string
	Manufacturer string
	Product      string
	Arch         string // iPXE's buildarch: "i386" (also on 64-bit BIOS machines), "x86_64", "arm64"
	Platform     string // "pcbios" or "efi"
	BusID        string // of the NIC: bus type, vendor, device
}

// query is the list of parameters that ParseParams reads, each with its iPXE setting. uristring escapes text
// from SMBIOS; the others need no escaping.
const query = "mac=${netX/mac:hexhyp}&uuid=${uuid}&serial=${serial:uristring}&asset=${asset:uristring}" +
	"&manufacturer=${manufacturer:uristring}&product=${product:uristring}" +
	"&arch=${buildarch}&platform=${platform}&busid=${netX/busid}"

// maxText bounds the free text of SMBIOS: longer than any real serial number or product name.
const maxText = 128

var (
	reMAC   = regexp.MustCompile(`^(?:[0-9a-fA-F]{2}[-:]){5}[0-9a-fA-F]{2}$`)
	reUUID  = regexp.MustCompile(`^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	reToken = regexp.MustCompile(`^[a-z0-9_]{0,16}$`)
	reBusID = regexp.MustCompile(`^[0-9a-fA-F:-]{0,32}$`)
)

// ParseParams reads the query of /boot.ipxe. It checks values of iPXE's own strictly. It cleans values from
// SMBIOS, because machines with rubbish in their serial number must boot too. Of a repeated key the first
// value counts: old iPXE turns an escaped '&' of a product name back into a separator.
func ParseParams(q url.Values) (Params, error) {
	p := Params{
		Serial:       cleanText(q.Get("serial")),
		Asset:        cleanText(q.Get("asset")),
		Manufacturer: cleanText(q.Get("manufacturer")),
		Product:      cleanText(q.Get("product")),
		Arch:         q.Get("arch"),
		Platform:     q.Get("platform"),
		BusID:        q.Get("busid"),
	}
	mac := q.Get("mac")
	if hw, err := net.ParseMAC(mac); err == nil && len(hw) == 20 { // RFC 4391 section 9.1.1
		return Params{}, fmt.Errorf("mac %s: an InfiniBand card's; pxectl knows machines by their Ethernet "+
			"addresses, so boot from an Ethernet card", quoted(mac))
	}
	if !reMAC.MatchString(mac) {
		return Params{}, fmt.Errorf("mac %s: want six octets like 52-54-00-12-34-56", quoted(mac))
	}
	hw, err := net.ParseMAC(strings.ReplaceAll(mac, "-", ":"))
	if err != nil {
		return Params{}, fmt.Errorf("mac %s: %w", quoted(mac), err)
	}
	if hw[0]&1 == 1 || strings.Trim(hw.String(), "0:") == "" {
		return Params{}, fmt.Errorf("mac %s: not the address of a NIC", quoted(mac))
	}
	p.MAC = hw.String()
	if u := q.Get("uuid"); u != "" {
		if !reUUID.MatchString(u) {
			return Params{}, fmt.Errorf("uuid %s: want 8-4-4-4-12 hexadecimal digits", quoted(u))
		}
		p.UUID = strings.ToLower(u)
	}
	switch {
	case !reToken.MatchString(p.Arch):
		return Params{}, fmt.Errorf("arch %s: want a word like x86_64", quoted(p.Arch))
	case !reToken.MatchString(p.Platform):
		return Params{}, fmt.Errorf("platform %s: want a word like efi", quoted(p.Platform))
	case !reBusID.MatchString(p.BusID):
		return Params{}, fmt.Errorf("busid %s: want hexadecimal digits", quoted(p.BusID))
	}
	return p, nil
}

// GoArch is the GOARCH of the kernel that the machine can run. A BIOS build of iPXE is 32-bit code, on a
// machine that today always has 64 bits.
func (p Params) GoArch() string {
	if p.Arch == "arm64" {
		return "arm64"
	}
	return "amd64"
}

func cleanText(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.TrimSpace(printable.Only(s))
}

// quoted makes hostile text fit for an error: escaped, and cut short.
func quoted(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return fmt.Sprintf("%+q", s)
}
