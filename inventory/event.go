package inventory

import "time"

// An EventKind says who or what caused an event.
type EventKind string

// Kinds of events.
const (
	KindAgent     EventKind = "agent"     // the agent, or somebody in its place
	KindApprove   EventKind = "approve"   // an operator approved the machine
	KindBMC       EventKind = "bmc"       // a command to a BMC, and its answer
	KindConsole   EventKind = "console"   // what the serial console shows
	KindDeploy    EventKind = "deploy"    // a deployment or release was asked for, or cancelled
	KindDHCP      EventKind = "dhcp"      // a DHCP packet, and its answer
	KindEdit      EventKind = "edit"      // an operator changed the machine
	KindFailure   EventKind = "failure"   // a step failed
	KindHTTP      EventKind = "http"      // a request to the boot plane
	KindInterface EventKind = "interface" // a provisioning interface changed
	KindOS        EventKind = "os"        // the deployed system
	KindPower     EventKind = "power"     // an operator switched the power
	KindState     EventKind = "state"     // the machine's state changed
	KindStep      EventKind = "step"      // a step began or ended
	KindTFTP      EventKind = "tftp"      // a transfer by TFTP
)

// Keys of an event's data. A value is text. A key that is a condition has the value "yes".
const (
	// Of several kinds.
	DataBytes     = "bytes"     // bytes that were sent
	DataClient    = "client"    // the address that a request came from
	DataInterface = "interface" // the interface that a packet came in by
	DataReason    = "reason"    // why a packet got no answer (a code of dhcpd), or a boot script its action
	DataWhy       = "why"       // the same in words
	DataTook      = "took"      // a duration
	DataError     = "error"     // of a call to a BMC

	// Of KindDHCP.
	DataType         = "type"         // the message type: DISCOVER, REQUEST, …
	DataClass        = "class"        // of the client: bios-pxe, uefi-pxe, uefi-http, ipxe, own-ipxe or other
	DataPort         = "port"         // the UDP port that the packet came to
	DataAnswer       = "answer"       // the type of our answer
	DataBoot         = "boot"         // the boot file or URL in an answer
	DataSelected     = "selected"     // the server whose offer the client takes
	DataUnconfigured = "unconfigured" // the interface is not a provisioning interface
	DataUnserved     = "unserved"     // a boot client for which there is no boot program
	DataArch         = "arch"         // the number of the client's architecture: RFC 4578
	DataOdd          = "odd"          // what is malformed in the packet
	DataServer       = "server"       // another server that answered
	DataImpostor     = "impostor"     // its MAC, when its address is one of ours
	DataAddress      = "address"      // the address that it offered
	DataNext         = "next"         // its next-server
	DataInfiniBand   = "infiniband"   // the client has no Ethernet address

	// Of KindTFTP.
	DataFile        = "file"
	DataResult      = "result" // a TFTPResult
	DataRetransmits = "retransmits"
	DataBlockSize   = "blksize"

	// Of KindHTTP.
	DataPath   = "path"
	DataStatus = "status"
	DataAction = "action" // of a boot script: agent, local or wait
	DataNIC    = "nic"    // PCI vendor and device of the card that asks for a script
	DataCut    = "cut"    // the download was cut off
	DataWant   = "want"   // bytes that it should have had

	// Of KindConsole.
	DataConsole   = "console"   // the last lines
	DataComplaint = "complaint" // the subject of a console's complaint
	DataQuote     = "quote"     // the line with the complaint
	DataAbsent    = "none"      // why there is no console

	// Of KindAgent, KindBMC and KindStep.
	DataIntruder = "intruder" // the address of a caller that spoke for a machine without being its agent
	DataUUID     = "uuid"     // the UUID of a machine that was known by that alone, which an intruder says too
	DataRefused  = "refused"  // an agent's call was refused
	DataOrder    = "order"    // the id of an order
	DataLog      = "log"      // of a failed order
	DataStep     = "step"
	DataVerdict  = "verdict"  // the decision about a reported BMC address
	DataReported = "reported" // that address
)

// A TFTPResult is how a transfer ended.
type TFTPResult string

// How a transfer can end.
const (
	TFTPSent      TFTPResult = "sent"      // whole
	TFTPSize      TFTPResult = "size"      // only the size was asked for, as before every UEFI download
	TFTPMissing   TFTPResult = "missing"   // there is no such file
	TFTPStalled   TFTPResult = "stalled"   // the client stopped acknowledging
	TFTPMalformed TFTPResult = "malformed" // not a valid request
	TFTPFailed    TFTPResult = "failed"
)

// An Event is one line of a machine's timeline.
type Event struct {
	Seq     uint64            `json:"seq"` // counts over the whole store
	At      time.Time         `json:"at"`
	Machine MachineID         `json:"machine,omitempty"`
	MAC     MAC               `json:"mac,omitempty"` // of a packet from an unknown machine
	Kind    EventKind         `json:"kind"`
	Text    string            `json:"text"` // one line for people
	Actor   string            `json:"actor,omitempty"`
	Data    map[string]string `json:"data,omitempty"`
	// Repeats of an event, with nothing in between from the machine's worker, are one event: the last, with
	// the number of times and the first time.
	Count int       `json:"count,omitempty"` // 0: once
	Since time.Time `json:"since,omitzero"`
	// Wire says, until the event is stored, that anybody on the provisioning network can cause it. Such
	// events have a quota of their own, so that a flood of them displaces only its own kind.
	Wire bool `json:"-"`
}
