package inventory

import "time"

// An EraseRequest has the operator's options of a release.
type EraseRequest struct {
	// Quick clears labels and partition tables only. The data stays.
	Quick bool `json:"quick,omitempty"`
}

// Erased is the proof of an erase order.
type Erased struct {
	Method  string   `json:"method"`           // the successful one, or MethodMetadata
	Passed  []string `json:"passed,omitempty"` // methods that the disk cannot do, and why
	Proof   string   `json:"proof"`            // the result of reading back, in words
	Checked int      `json:"checked"`          // places that were read back
	Bytes   uint64   `json:"bytes"`
	TookMS  int64    `json:"took_ms"`
	// Removed are the entries of the firmware's boot menu that the agent removed, since their partitions were
	// on the disk.
	Removed []string `json:"removed_entries,omitempty"`
}

// MethodMetadata is the method of a quick release, which does not erase.
const MethodMetadata = "metadata only"

// An Erasure is the record of one erased disk. It outlives its machine.
type Erasure struct {
	Seq         uint64       `json:"seq,omitempty" doc:"its place in the list; a later record has a greater one"`
	At          time.Time    `json:"at"`
	Machine     MachineID    `json:"machine"`
	MachineName string       `json:"machine_name"`
	Run         DeploymentID `json:"run"`
	Actor       string       `json:"actor"`
	Disk        DiskIdentity `json:"disk"`
	Model       string       `json:"model,omitempty"`
	Erased
}
