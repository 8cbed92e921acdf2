package diagnose

import (
	"fmt"

	"github.com/pxectl/pxectl/inventory"
)

// UnacceptedBMC says which BMC was reported and not accepted; "" when there is none.
func UnacceptedBMC(m inventory.Machine) string {
	p := m.BMC.Proposed
	switch {
	case p == nil:
		return ""
	case m.BMC.Address != "":
		return fmt.Sprintf("another BMC than the accepted %s was reported by the agent and not accepted: %s",
			m.BMC.Address, p.Address)
	}
	return fmt.Sprintf("BMC %s was reported by the agent and not accepted", p.Address)
}

// AcceptCommand is the command that accepts the reported BMC of a machine that has one, and no other.
func AcceptCommand(m inventory.Machine) string {
	if m.State == inventory.Discovered {
		return "pxectl machine approve " + m.Name + " --accept-bmc " + m.BMC.Proposed.Address
	}
	return "pxectl machine edit " + m.Name + " --accept-bmc " + m.BMC.Proposed.Address
}

// Credentials is the advice for a BMC that refuses our credentials.
func Credentials(m inventory.Machine) string {
	return "set its right credentials with `pxectl machine edit " + m.Name +
		" --bmc-user USER --bmc-password-file FILE`"
}
