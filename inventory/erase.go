package inventory

import "time"

// An EraseRequest is what the operator asked of a release.
type EraseRequest struct {
	// Quick clears labels and partition tables only; the data stays where it is.
	Quick bool `json:"quick,omitempty"`
}

// Erased is the proof of an erase order.
type Erased struct {
	Method  string   `json:"method"`           // that did it, or MethodMetadata
	Passed  []string `json:"passed,omitempty"` // the methods that were passed over, and why
	Proof   string   `json:"proof"`            // what was read back, in words
	Checked int      `json:"checked"`          // places that were read back
	Bytes   uint64   `json:"bytes"`
	TookMS  int64    `json:"took_ms"`
	// Removed are the entries of the firmware's boot menu that were removed, since their partitions were on
	// the disk.
	Removed []string `json:"removed_entries,omitempty"`
}

// MethodMetadata is the method of a quick release: no erase.
const MethodMetadata = "metadata only"

// An Erasure is the record of one disk that was erased. It stays when the machine is forgotten.
type Erasure struct {
	At          time.Time    `json:"at"`
	Machine     MachineID    `json:"machine"`
	MachineName string       `json:"machine_name"`
	Run         DeploymentID `json:"run"`
	Actor       string       `json:"actor"`
	Disk        DiskIdentity `json:"disk"`
	Model       string       `json:"model,omitempty"`
	Erased
}
