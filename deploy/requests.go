package deploy

import (
	"fmt"

	"github.com/pxectl/pxectl/inventory"
)

// NewMachine is an operator's announcement of a machine that has never booted here.
type NewMachine struct {
	Name     string              `json:"name,omitempty"`
	MACs     []inventory.MAC     `json:"macs,omitempty"`
	UUID     string              `json:"uuid,omitempty"`
	Labels   map[string]string   `json:"labels,omitempty"`
	BMC      BMCEdit             `json:"bmc,omitzero"`
	RootDisk *inventory.DiskHint `json:"root_disk,omitempty"`
}

// Edit changes the fields that are set and leaves the others alone.
type Edit struct {
	Name        *string             `json:"name,omitempty"`
	Labels      map[string]*string  `json:"labels,omitempty"` // null removes one
	BMC         BMCEdit             `json:"bmc,omitzero"`
	AcceptBMC   *string             `json:"accept_bmc,omitempty" doc:"the reported address of the BMC that is accepted, as it was shown; another one by now: 409"`
	RootDisk    *inventory.DiskHint `json:"root_disk,omitempty"`   // empty clears it
	Maintenance *string             `json:"maintenance,omitempty"` // the reason; "" ends it
}

// BMCEdit is how a BMC is reached, with the secrets in the clear: they are sealed before it is stored.
type BMCEdit struct {
	Address  *string `json:"address,omitempty"`
	User     *string `json:"user,omitempty"`
	Password *string `json:"password,omitempty"`
	Kg       *string `json:"kg,omitempty" doc:"the BMC's own key (K_g): text of up to 20 bytes, or 0x and up to 40 hexadecimal digits; empty: none"`
}

// Approval lets a machine in.
type Approval struct {
	BMC *string `json:"bmc,omitempty" doc:"the reported address of the BMC that is accepted with the machine, as it was shown; another one by now: 409; empty: none is accepted; without it, 409 when one is reported"`
}

// A DeploymentQuery says which deployments and releases are listed.
type DeploymentQuery struct {
	Machine string                 // a machine's name, id or MAC; "" for those of all
	Running bool                   // only those that have not ended
	Before  inventory.DeploymentID // only those after this one, the last of the page before
	Limit   int                    // from 1 to MaxPage
}

// An ErasureQuery says which records of erased disks are listed.
type ErasureQuery struct {
	// Of is a machine's name, id or MAC, a deleted machine's name or id, or a disk's serial or WWN; "" is for
	// all.
	Of     string
	Before uint64 // only those after this one, the last of the page before
	Limit  int    // from 1 to MaxPage
}

// MaxPage is how many deployments, or records of erased disks, a page of a list has at most.
const MaxPage = 500

// Check refuses a limit out of its range.
func (q DeploymentQuery) Check() error { return checkLimit(q.Limit) }

// Check refuses a limit out of its range.
func (q ErasureQuery) Check() error { return checkLimit(q.Limit) }

func checkLimit(limit int) error {
	if limit < 1 || limit > MaxPage {
		return &inventory.Problem{
			Code: inventory.CodeInvalid, Detail: fmt.Sprintf("limit %d: want 1 to %d", limit, MaxPage),
		}
	}
	return nil
}
