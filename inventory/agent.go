package inventory

import "time"

// The agent's calls. All go over TLS pinned to the appliance's key, with the header "Authorization: Bearer
// NONCE", over connections that show the certificate of a key which the agent made when it started.
// Registration binds the boot to that key, so an overheard nonce is worth nothing from then on.
//
//	POST /agent/v1/register           Registration → Registered
//	POST /agent/v1/next               Ask → Order (held up to 20 s when there is nothing to do)
//	POST /agent/v1/orders/{id}/progress   Progress → 204, or 410 when the order is no longer wanted
//	POST /agent/v1/orders/{id}/result     Result → 204; repeated until acknowledged
//	GET  /agent/v1/images/{id}/manifest   images.Manifest, as stored (its sha256 is the id)
//
// Each call names the boot id that registered: in its body, or, where it has none, in the header
// "Pxectl-Boot-Id: BOOT_ID".
//
// Errors are problem+json with code and detail. 401 means that the nonce is wrong, dead or another boot's, or
// that the key is; the agent can then only reboot.

// BootIDHeader is the header of calls without a body.
const BootIDHeader = "Pxectl-Boot-Id"

// AgentVendor is the vendor class (DHCP option 60) under which an agent asks for its address.
const AgentVendor = "pxectl-agent"

// A Caller identifies the sender of an agent's call: its claims, and the key that its connection proved.
type Caller struct {
	Nonce string
	Key   string // hash of the public key, in hex, that the connection proved to hold; "" without one
	IP    string
}

// Registration is the first call of a boot.
type Registration struct {
	MAC     MAC    `json:"mac"` // of the boot NIC, from BOOTIF
	UUID    string `json:"uuid,omitempty"`
	BootID  string `json:"boot_id"` // /proc/sys/kernel/random/boot_id: identifies this boot of the kernel
	Version string `json:"version"`
	Uptime  int64  `json:"uptime_ms"` // since the kernel started
}

// Registered is the answer. The agent sets its clock to Time.
type Registered struct {
	Machine MachineID `json:"machine"`
	Name    string    `json:"name"`
	Time    time.Time `json:"time"`
}

// Ask asks for the next order.
type Ask struct {
	BootID string `json:"boot_id"`
}

// The values of Order.Do.
const (
	DoWait        = "wait"         // nothing to do: ask again at once
	DoInspect     = "inspect"      // Result.Report
	DoPrepareDisk = "prepare-disk" // clears signatures, discards; needs Target; Image: keeps data for a delta
	DoWriteImage  = "write-image"  // needs Target and Image; Result.Written
	DoFinishDisk  = "finish-disk"  // backup GPT, seed, boot entry (Image.Name); needs Target, Seed; Result.Finished
	DoErase       = "erase"        // needs Target; with Quick only labels and tables; Result.Erased
	DoReboot      = "reboot"
	DoPowerOff    = "poweroff"
)

// The values of Order.Mode, for prepare-disk and write-image.
const (
	ModeAuto  = "auto"  // or "": delta if the disk already holds parts of the image, else full
	ModeFull  = "full"  // discard the disk, write every chunk
	ModeDelta = "delta" // compare each chunk with the disk, write those that differ
)

// The values of Order.Verify for write-image. The agent verifies every chunk as it arrives in any case.
const (
	VerifyReadBack = "readback" // or "": read every chunk back from the medium
	VerifyHash     = "hash"     // do not read back
)

// An Order is one task. The same order may come twice (the appliance was restarted, the answer was lost).
// Doing it again must be safe. Within one boot, the agent repeats a result and not the work.
type Order struct {
	ID     string        `json:"id"` // "" for wait
	Do     string        `json:"do"`
	Target *DiskIdentity `json:"target,omitempty"`
	Image  *OrderImage   `json:"image,omitempty"`
	Mode   string        `json:"mode,omitempty"`
	Verify string        `json:"verify,omitempty"`
	Seed   *Seed         `json:"seed,omitempty"`
	// Targets are the disks of an erase. Each has its own result; a failure comes after all others.
	Targets []DiskIdentity `json:"targets,omitempty"`
	Quick   bool           `json:"quick,omitempty"`
	// MaxReport bounds the JSON of an inspection's report, in bytes; 0: StrangerReport.
	MaxReport int `json:"max_report,omitempty"`
}

// OrderImage names an image and the place of its bytes. The manifest comes over TLS and is checked against
// ID; the bytes come over plain HTTP and are checked against the manifest.
type OrderImage struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"` // in the label of the boot entry that finish-disk makes
	URL  string `json:"url"`            // of disk.zst on the boot plane: http, Range
}

// Seed has the four files of the NoCloud seed (label cidata), verbatim. User-data may be any bytes, even
// gzip.
type Seed struct {
	MetaData      string `json:"meta_data"`
	UserData      []byte `json:"user_data"`
	VendorData    string `json:"vendor_data"`
	NetworkConfig string `json:"network_config,omitempty"`
}

// Progress is sent every second or two during an order.
type Progress struct {
	BootID string `json:"boot_id"`
	Phase  string `json:"phase"` // "write", "read-back", …
	Done   uint64 `json:"done"`  // bytes of Total
	Total  uint64 `json:"total"`
	Sent   uint64 `json:"sent"` // bytes that came over the network so far
}

// Result ends an order, or one disk's part of an erase.
type Result struct {
	BootID   string    `json:"boot_id"`
	Error    string    `json:"error,omitempty"` // "" after success
	Hint     string    `json:"hint,omitempty"`  // the next move, with Error
	Log      string    `json:"log,omitempty"`   // last lines of the agent's log, with Error
	Report   *Report   `json:"report,omitempty"`
	Written  *Written  `json:"written,omitempty"`
	Finished *Finished `json:"finished,omitempty"`
	Erased   *Erased   `json:"erased,omitempty"`
	// Disk is the one of the order's Targets that was erased.
	Disk *DiskIdentity `json:"disk,omitempty"`
}

// Written is the proof of write-image.
type Written struct {
	Bytes      uint64 `json:"bytes"`          // raw size of the image
	Wrote      uint64 `json:"wrote"`          // bytes written to the medium
	Sent       uint64 `json:"sent"`           // compressed bytes fetched
	Mode       string `json:"mode,omitempty"` // ModeFull or ModeDelta: what was done
	Chunks     int    `json:"chunks"`         // of the image; each is one of the next three
	Kept       int    `json:"kept"`           // were on the disk already, by their hash
	Fetched    int    `json:"fetched"`        // came over the network, verified on arrival
	Zeroed     int    `json:"zeroed"`         // hold zeros; the agent made the disk read zeros there
	ReadBack   int    `json:"read_back"`      // verified on the medium, past the page cache
	WriteMS    int64  `json:"write_ms"`       //
	ReadBackMS int64  `json:"readback_ms"`    //
}

// Finished is the proof of finish-disk. Ranges names the parts of the disk that now differ from the image.
type Finished struct {
	Partitions int     `json:"partitions"`
	Ranges     []Range `json:"ranges"`
	BootEntry  string  `json:"boot_entry,omitempty"` // in the firmware's menu: "Boot0003 pxectl:debian-12"
	// Fallback is the boot loader that the agent copied to the place where firmware looks without a boot
	// entry, because the image has none there.
	Fallback string `json:"fallback,omitempty"`
	// Removed are the boot entries that the agent removed, since their partitions were on the disk before.
	Removed []string `json:"removed_entries,omitempty"`
	// Warnings name causes that may keep the new system from starting, or may start another one.
	Warnings []string `json:"warnings,omitempty"`
}

// A Range is a named range of bytes of a disk.
type Range struct {
	Name   string `json:"name"` // "primary GPT", "backup GPT", "seed", "EFI system partition"
	Offset uint64 `json:"offset"`
	Length uint64 `json:"length"`
}
