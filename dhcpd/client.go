package dhcpd

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// UDP ports: RFC 2131 section 4.1 and PXE 2.1 section 2.2.
const (
	dhcpPort   = 67
	clientPort = 68
	pxePort    = 4011
)

// Options that the codec does not name: RFC 4578 (93, 97) and iPXE's own (175).
const (
	optArch = dhcpv4.GenericOptionCode(93)
	optGUID = dhcpv4.GenericOptionCode(97)
	optIPXE = dhcpv4.GenericOptionCode(175)
)

// A Class is a kind of client. It decides the form of the answer.
type Class string

// Kinds of clients.
const (
	ClassBIOS    Class = "bios-pxe"  // a BIOS PXE ROM
	ClassUEFI    Class = "uefi-pxe"  // the firmware's own PXE client, not iPXE
	ClassHTTP    Class = "uefi-http" // the firmware's own HTTP boot client
	ClassIPXE    Class = "ipxe"      // iPXE, in a NIC's ROM or served by us
	ClassOwnIPXE Class = "own-ipxe"  // iPXE that was built with the user class "pxectl"
	ClassOther   Class = "other"     // an ordinary DHCP client, or a boot client that we cannot serve
)

// Features is what an iPXE says it was built with (option 175).
type Features struct {
	HTTP, HTTPS, BzImage, EFI, Menu, VLAN bool
	Version                               string // "1.21.1", "" when not told
}

// A Client is what one packet says about its sender.
type Client struct {
	MAC       net.HardwareAddr
	UUID      string // from option 97, as SMBIOS and iPXE print it; "" when not told
	Arch      Arch   // option 93; see HasArch
	HasArch   bool   // false: the packet does not say, and Arch means nothing
	Class     Class
	Vendor    string // option 60
	UserClass string // option 77
	IPXE      Features
	Hostname  string               // option 12: what an operating system calls itself
	Addr      netip.Addr           // the address it has or asks for
	Selected  netip.Addr           // option 54: the server whose offer it takes
	Relay     netip.Addr           // giaddr: the relay that passed the packet on
	RelayPort bool                 // option 82 says that the relay takes answers at the port it sends from
	Type      dhcpv4.MessageType   // DISCOVER, REQUEST, …
	XID       dhcpv4.TransactionID // ties the packets of one boot attempt together
	Port      int                  // 67 or 4011: where it came in
	Interface string               // where it came in
	Server    netip.Addr           // our address there; the only one to put into answers
	Odd       string               // what is wrong with the packet, which was read all the same
	// InfiniBand: the card sends no Ethernet address (RFC 4390), so its machine cannot be recognised.
	InfiniBand bool
	NoProgram  bool // a boot client of an architecture that there is no program for
}

// WantsURL says which field of Boot a Decider must set for this client: URL when true, File when false. An
// iPXE that cannot load a kernel by HTTP gets a network boot program that can; MAAS has the same rule.
func (c Client) WantsURL() bool {
	switch c.Class {
	case ClassHTTP, ClassOwnIPXE:
		return true
	case ClassIPXE:
		return c.IPXE.HTTP && (c.IPXE.BzImage || c.IPXE.EFI)
	}
	return false
}

// classify reads a packet. It never fails: it leaves out fields that make no sense, and gives ClassOther to a
// client that we cannot boot.
func classify(p *dhcpv4.DHCPv4, port int, program func(Arch) bool) Client {
	c := Client{
		MAC:      macOf(p),
		UUID:     parseUUID(p.GetOneOption(optGUID)),
		Vendor:   p.ClassIdentifier(),
		IPXE:     parseFeatures(p.GetOneOption(optIPXE)),
		Hostname: p.HostName(),
		Addr:     addr(p.ClientIPAddr),
		Selected: addr(p.ServerIdentifier()),
		Relay:    addr(p.GatewayIPAddr),
		Type:     p.MessageType(),
		XID:      p.TransactionID,
		Port:     port,
	}
	_, c.RelayPort = suboptions(p.GetOneOption(dhcpv4.OptionRelayAgentInformation))[relaySourcePort]
	c.InfiniBand = c.MAC == nil && p.HWType == iana.HWTypeInfiniband
	if !c.Addr.IsValid() {
		c.Addr = addr(p.RequestedIPAddress())
	}
	c.Arch, c.HasArch = pick(parseArchs(p.GetOneOption(optArch)), program)
	// iPXE sends the bare text, others RFC 3004's list with lengths; the codec reads both.
	users := p.UserClass()
	c.UserClass = strings.Join(users, ",")
	c.Class = class(c, users, p.Options.Has(optIPXE))
	return c.judged(program)
}

// judged returns the client with NoProgram set. iPXE needs no program: it runs a script on any processor.
func (c Client) judged(program func(Arch) bool) Client {
	c.NoProgram = c.HasArch && !program(c.Arch) &&
		(c.Class == ClassBIOS || c.Class == ClassUEFI || c.Class == ClassHTTP ||
			c.Class == ClassOther && c.BootFirmware())
	return c
}

// BootFirmware says whether the client is firmware that boots over the network, also when we cannot serve it.
func (c Client) BootFirmware() bool { return bootFirmware(c.Vendor) }

// bootFirmware says whether firmware that boots over the network sends this vendor class.
func bootFirmware(vendor string) bool {
	return strings.HasPrefix(vendor, "PXEClient") || strings.HasPrefix(vendor, "HTTPClient")
}

func class(c Client, users []string, option175 bool) Class {
	// Compare by prefix: iPXE 1.21 sends only "PXEClient" where others append ":Arch:00007:UNDI:003000".
	pxe, http := strings.HasPrefix(c.Vendor, "PXEClient"), strings.HasPrefix(c.Vendor, "HTTPClient")
	switch {
	case !pxe && !http:
		return ClassOther
	case slices.Contains(users, "pxectl"):
		return ClassOwnIPXE
	case slices.Contains(users, "iPXE") || option175:
		return ClassIPXE
	case http:
		return ClassHTTP
	case !c.HasArch:
		return ClassOther
	}
	switch c.Arch {
	case ArchBIOS:
		return ClassBIOS
	case ArchUEFI32, ArchUEFI64, ArchARM32, ArchARM64, ArchUBoot32, ArchUBoot64, ArchRISCV32, ArchRISCV64,
		ArchRISCV128, ArchLoong32, ArchLoong64:
		return ClassUEFI
	}
	return ClassOther
}

// remembered returns the client with the architecture of its DISCOVER, since some firmware sends 0 or nothing
// in the REQUEST to port 4011 (danderson/netboot#132).
func remembered(c Client, a Arch, p *dhcpv4.DHCPv4, program func(Arch) bool) Client {
	if c.HasArch && c.Arch != ArchBIOS {
		return c
	}
	c.Arch, c.HasArch = a, true
	c.Class = class(c, p.UserClass(), p.Options.Has(optIPXE))
	return c.judged(program)
}

// unwanted says why a packet gets no answer. The zero Reason means that the Decider is asked.
func unwanted(p *dhcpv4.DHCPv4, c Client) Reason {
	switch {
	case p.OpCode != dhcpv4.OpcodeBootRequest:
		return Reason{Code: CodeNotRequest}
	case c.Class == ClassOther && !c.BootFirmware():
		return Reason{Code: CodeNoBootClient}
	case c.Class == ClassOther && !c.HasArch:
		return Reason{Code: CodeNoArch}
	case c.Class == ClassOther, c.NoProgram:
		return noProgram(c)
	case c.InfiniBand:
		return Reason{Code: CodeInfiniBand}
	case c.MAC == nil:
		return Reason{Code: CodeNoMAC}
	}
	switch {
	case c.Port == dhcpPort && c.Type == dhcpv4.MessageTypeDiscover:
		return Reason{}
	case c.Type != dhcpv4.MessageTypeRequest:
		return Reason{Code: CodeWrongMessage}
	case c.Class == ClassHTTP:
		return Reason{Code: CodeHTTPRequest}
	case c.Port == pxePort:
		return Reason{}
	case c.Selected.IsValid() && c.Selected != c.Server:
		// RFC 2131 section 4.3.2: the client has chosen another server. If we sent an ACK without an address
		// beside that server's ACK, the client could lose its lease.
		return Reason{Code: CodeOtherServer, Other: c.Selected}
	}
	if state, _ := meant(p, false); state == initReboot {
		// RFC 2131 section 4.3.2: the client asks whether its former address is still valid. A server that
		// does not know MUST remain silent.
		return Reason{Code: CodeRebooting}
	}
	// Old Intel ROMs repeat their request on port 67 (danderson/pixiecore#21).
	return Reason{}
}

func noProgram(c Client) Reason { return Reason{Code: CodeNoProgram, Arch: c.Arch} }

// macOf returns the client's Ethernet address: chaddr, or for another kind of link (InfiniBand has hlen 0 or
// 20) a client identifier of type 1. Nil when there is none.
func macOf(p *dhcpv4.DHCPv4) net.HardwareAddr {
	mac := p.ClientHWAddr
	if id := p.GetOneOption(dhcpv4.OptionClientIdentifier); len(mac) != 6 && len(id) == 7 && id[0] == 1 {
		mac = net.HardwareAddr(id[1:])
	}
	// All zero and group addresses belong to no machine.
	if len(mac) != 6 || mac[0]&1 == 1 || [6]byte(mac) == [6]byte{} {
		return nil
	}
	return slices.Clone(mac)
}

// parseUUID reads option 97: type 0 and the SMBIOS UUID, whose first three fields are
// little-endian (RFC 4578 section 2.3, SMBIOS 7.2.1). Anything else is "".
func parseUUID(b []byte) string {
	if len(b) != 17 || b[0] != 0 {
		return ""
	}
	le, rest := binary.LittleEndian, b[9:]
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b[1:]), le.Uint16(b[5:]), le.Uint16(b[7:]), rest[:2],
		rest[2:])
}

func parseArchs(b []byte) []Arch {
	var list []Arch
	for ; len(b) >= 2; b = b[2:] {
		list = append(list, Arch(binary.BigEndian.Uint16(b)))
	}
	return list
}

// parseFeatures reads option 175. Its suboptions are numbered in iPXE's include/ipxe/features.h. The value of
// a feature is one byte, its version; 0 means that the feature is switched off.
func parseFeatures(b []byte) Features {
	var f Features
	for len(b) >= 2 && b[0] != 255 {
		if b[0] == 0 { // padding
			b = b[1:]
			continue
		}
		code, n := b[0], int(b[1])
		if len(b) < 2+n {
			break
		}
		val := b[2 : 2+n]
		b = b[2+n:]
		has := n > 0 && val[0] != 0
		switch code {
		case 19:
			f.HTTP = has
		case 20:
			f.HTTPS = has
		case 24:
			f.BzImage = has
		case 36:
			f.EFI = has
		case 38:
			f.VLAN = has
		case 39:
			f.Menu = has
		case 235:
			if n == 3 {
				f.Version = fmt.Sprintf("%d.%d.%d", val[0], val[1], val[2])
			}
		}
	}
	return f
}

// addr is an IPv4 address of the packet; the zero Addr for 0.0.0.0 and for none.
func addr(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if a = a.Unmap(); !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
