package dhcpd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/dhcpd/leases"
)

// A Code says why a packet got no answer or a NAK, or what is special about its answer.
type Code string

// Codes are words for programs: the timeline and diagnose know them.
const (
	// Who asks.
	CodeNotRequest   Code = "not-a-request"   // a server's packet
	CodeClientNever  Code = "not-a-clients"   // a message type that no client sends
	CodeInterface    Code = "interface"       // it came in where we serve nobody
	CodeNoBootClient Code = "no-boot-client"  // an ordinary DHCP client, in proxy mode
	CodeNoArch       Code = "no-architecture" // a PXE client without option 93
	CodeNoProgram    Code = "no-program"      // of an architecture without a boot program
	CodeInfiniBand   Code = "infiniband"      // it tells no Ethernet address
	CodeNoMAC        Code = "no-mac"          // neither chaddr nor option 61 has an Ethernet address
	CodeNoIdentity   Code = "no-identity"     // neither an Ethernet address nor a client identifier
	CodeLongIdentity Code = "long-identity"   // a client identifier of more than 255 bytes
	CodeNoSubnet     Code = "no-subnet"       // no subnet for its relay or interface
	CodeLeftAlone    Code = "left-alone"      // the Decider has nothing for it to boot
	CodeWrongMessage Code = "wrong-message"   // neither a DISCOVER nor a REQUEST, in proxy mode
	CodeHTTPRequest  Code = "http-request"    // HTTP boot takes its URL from the offer
	CodeOtherServer  Code = "other-server"    // it takes another server's offer
	CodeRebooting    Code = "rebooting"       // only its DHCP server can confirm its former address
	CodeAnswerFailed Code = "answer-not-sent" // the answer could not be sent
	CodeBootFile     Code = "boot-file"       // the boot file or URL cannot be told
	CodeTooLong      Code = "answer-too-long" // the answer does not fit what the client takes
	CodeOwnAddress   Code = "own-address"     // our own address is not known
	CodeError        Code = "error"           // any other error: Reason.Err

	// Addresses: why none, or a NAK.
	CodeNoFree       Code = "no-free-address"     // the pool is exhausted
	CodeShare        Code = "share-used-up"       // unknown machines hold their whole share
	CodeTaken        Code = "taken"               // the address is another client's
	CodeElsewhere    Code = "has-another-address" // the client has another address
	CodeProbing      Code = "probing"             // an ARP probe of its address is running
	CodeAllInUse     Code = "all-in-use"          // three addresses in a row are in use
	CodeDiskBusy     Code = "disk-busy"           // the disk does not keep up
	CodeLeaseFile    Code = "lease-file"          // the lease file cannot be written
	CodeNoAddress    Code = "no-address"          // the message names no address
	CodeNotOurs      Code = "not-our-address"     // it renews an address that no subnet has
	CodeWrongSubnet  Code = "wrong-subnet"        // the address is another subnet's
	CodeNoRecord     Code = "no-record"           // it reboots, and has no lease here
	CodeItsAddress   Code = "its-address-is"      // it asks for another address than its own
	CodePerhapsOther Code = "perhaps-another's"   // it rebinds what may be another server's address
	CodeDoubtful     Code = "declined-before"     // its address was declined by another client

	// DECLINE and RELEASE.
	CodeDeclined        Code = "declined"            // the address is out of use
	CodeDeclinedFreed   Code = "declined-freed"      // likewise, and its first declined one is free again
	CodeDeclineSelf     Code = "declined-own"        // the client itself answers ARP for the address
	CodeDeclineUnproved Code = "declined-unproved"   // too many probes are under way to ask for the address
	CodeDeclineUngiven  Code = "declined-not-given"  // it was not given that address a moment ago
	CodeDeclineOther    Code = "declined-to-another" // to another server
	CodeReleased        Code = "released"            // the address is given back
	CodeReleaseOther    Code = "released-to-another" // to another server
	CodeReleaseFrom     Code = "released-from"       // sent from another address
	CodeReleaseWrong    Code = "released-not-its"    // it is not the client's
)

// A Reason is a Code with its details; which fields are set depends on the Code. The zero Reason is none.
type Reason struct {
	Code   Code
	Addr   netip.Addr       // the address in question
	Other  netip.Addr       // another server, the sender, the client's own address, or one that is free again
	MAC    net.HardwareAddr // who uses the address without a lease
	Arch   Arch
	Subnet netip.Prefix
	Type   dhcpv4.MessageType
	Name   string // of an interface, or where an answer was to go
	Err    error
}

// because is the Reason of an error.
func because(err error) Reason {
	r := Reason{Code: CodeError, Err: err}
	var long tooLong
	var boot bootError
	switch {
	case errors.Is(err, leases.ErrExhausted):
		r.Code = CodeNoFree
	case errors.Is(err, leases.ErrShare):
		r.Code = CodeShare
	case errors.Is(err, leases.ErrTaken):
		r.Code = CodeTaken
	case errors.Is(err, leases.ErrElsewhere):
		r.Code = CodeElsewhere
	case errors.Is(err, leases.ErrBusy):
		r.Code = CodeDiskBusy
	case errors.Is(err, leases.ErrClosed), errors.Is(err, leases.ErrWrite):
		r.Code = CodeLeaseFile
	case errors.As(err, &long):
		r.Code = CodeTooLong
	case errors.As(err, &boot):
		r.Code = CodeBootFile
	case errors.Is(err, errOwnAddress):
		r.Code = CodeOwnAddress
	}
	return r
}

// String is the reason in words.
func (r Reason) String() string {
	switch r.Code {
	case "":
		return ""
	case CodeNotRequest:
		return "not a request"
	case CodeClientNever:
		return "a message that no client sends"
	case CodeInterface:
		return "interface " + r.Name + " is not a provisioning interface"
	case CodeNoBootClient:
		return "not a network boot client"
	case CodeNoArch:
		return "a PXE client that does not tell its architecture (option 93)"
	case CodeNoProgram:
		return fmt.Sprintf("no boot program for %v", r.Arch)
	case CodeInfiniBand:
		return "an InfiniBand card, which tells no Ethernet address in option 61"
	case CodeNoMAC:
		return "no Ethernet address in chaddr or option 61"
	case CodeNoIdentity:
		return "neither an Ethernet address nor a client identifier"
	case CodeLongIdentity:
		return "a client identifier of more than 255 bytes"
	case CodeNoSubnet:
		if r.Addr.IsValid() {
			return fmt.Sprintf("no subnet for the relay %v", r.Addr)
		}
		return "no subnet on interface " + r.Name
	case CodeLeftAlone:
		return "left alone"
	case CodeWrongMessage:
		return "neither a DISCOVER nor a REQUEST"
	case CodeHTTPRequest:
		return "HTTP boot takes its URL from the offer"
	case CodeOtherServer:
		return "takes the address offered by " + r.Other.String()
	case CodeRebooting:
		return "asks for the address that it had before"
	case CodeAnswerFailed:
		return fmt.Sprintf("answer could not be sent to %s: %v", r.Name, r.Err)
	}
	return r.aboutAddress()
}

// aboutAddress is String of the codes about addresses.
func (r Reason) aboutAddress() string {
	switch r.Code {
	case CodeProbing:
		return "its address is being probed"
	case CodeAllInUse:
		return "three addresses in a row are in use by others"
	case CodeNoAddress:
		switch r.Type {
		case dhcpv4.MessageTypeDecline:
			return "declines no address"
		case dhcpv4.MessageTypeRelease:
			return "releases no address"
		case dhcpv4.MessageTypeInform:
			return "asks for information and tells no address"
		}
		return fmt.Sprintf("a %v without an address", r.Type)
	case CodeNotOurs:
		return fmt.Sprintf("%v is no address of ours", r.Addr)
	case CodeWrongSubnet:
		return fmt.Sprintf("%v is not an address of %v", r.Addr, r.Subnet)
	case CodeNoRecord:
		return "no record of this client"
	case CodeItsAddress:
		return fmt.Sprintf("its address is %v", r.Other)
	case CodePerhapsOther:
		return "another server's address, perhaps"
	case CodeDoubtful:
		return "a client declined that address, and no other is free"
	case CodeDeclined, CodeDeclinedFreed:
		s := fmt.Sprintf("%v in use by somebody else, says the client", r.Addr)
		switch {
		case r.Err != nil:
			s += ": " + r.Err.Error()
		case r.Code == CodeDeclinedFreed:
			s += fmt.Sprintf("; it declines one after the other, so %v, its first, is free again", r.Other)
		}
		return s
	case CodeDeclineSelf:
		return fmt.Sprintf(
			"%v is in use by the client itself, which declined it, or somebody in its name: nothing is changed",
			r.Addr)
	case CodeDeclineUnproved:
		return fmt.Sprintf("%v is declined while too many addresses are being probed: nothing is changed", r.Addr)
	case CodeDeclineUngiven:
		return fmt.Sprintf("declines %v, which it was not given a moment ago", r.Addr)
	case CodeDeclineOther:
		return "declines to " + r.Other.String()
	case CodeReleased:
		return fmt.Sprintf("%v given back", r.Addr)
	case CodeReleaseOther:
		return "releases to " + r.Other.String()
	case CodeReleaseFrom:
		return fmt.Sprintf("releases %v and sends from %v", r.Addr, r.Other)
	case CodeReleaseWrong:
		return fmt.Sprintf("%v is not its address", r.Addr)
	}
	switch {
	case r.MAC != nil:
		return fmt.Sprintf("%v is in use by %v, who did not get it from us; %v", r.Addr, r.MAC, r.Err)
	case r.Addr.IsValid() && r.Err != nil:
		return fmt.Sprintf("%v: %v", r.Addr, r.Err)
	case r.Err != nil:
		return r.Err.Error()
	}
	return string(r.Code)
}
