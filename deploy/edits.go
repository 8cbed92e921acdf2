package deploy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// A Sealer encrypts a secret before it is stored.
type Sealer func(plain []byte) (inventory.Sealed, error)

// Machine returns the machine that an operator announces. It is enrolled, since somebody vouches for it. An
// error says which field is wrong; the caller checks whether name, MACs and BMC are free.
func (n NewMachine) Machine(seal Sealer) (inventory.Machine, error) {
	m := inventory.Machine{Name: n.Name, State: inventory.Enrolled, Labels: n.Labels, RootDisk: n.RootDisk}
	if n.Name != "" {
		if err := inventory.CheckName(n.Name); err != nil {
			return m, err
		}
	}
	for _, mac := range n.MACs {
		parsed, err := inventory.ParseMAC(string(mac))
		if err != nil {
			return m, &inventory.Problem{Code: inventory.CodeInvalid, Detail: err.Error()}
		}
		m.MACs = append(m.MACs, parsed)
	}
	if n.UUID != "" {
		uuid, err := inventory.ParseUUID(n.UUID)
		if err != nil {
			return m, err
		}
		m.UUID = uuid
	}
	if len(m.MACs) == 0 && m.UUID == "" {
		return m, &inventory.Problem{
			Code:   inventory.CodeInvalid,
			Detail: "a machine needs a MAC or a UUID to be recognized by",
			Hint:   "give --mac or --uuid",
		}
	}
	if err := checkHint(n.RootDisk); err != nil {
		return m, err
	}
	if n.BMC.Password != nil && *n.BMC.Password == "" {
		return m, &inventory.Problem{
			Code:   inventory.CodeInvalid,
			Detail: "the BMC's password is empty",
			Hint:   "leave it out, and bmc.password_file of appliance.yaml is used",
		}
	}
	return m, n.BMC.apply(&m.BMC, seal)
}

// Apply makes the change. It checks what it can without other machines. The caller checks whether the
// reported BMC is still the one that AcceptBMC names and may be accepted, and whether name and BMC are free.
func (e Edit) Apply(m *inventory.Machine, actor string, at time.Time, seal Sealer) error {
	if e.Name != nil && *e.Name != m.Name {
		if err := inventory.CheckName(*e.Name); err != nil {
			return err
		}
		m.Name = *e.Name
	}
	if err := checkHint(e.RootDisk); err != nil {
		return err
	}
	if e.AcceptBMC != nil && e.BMC.Address != nil {
		return &inventory.Problem{
			Code:   inventory.CodeInvalid,
			Detail: "the BMC's address is both accepted and given",
			Hint:   "give --bmc or --accept-bmc",
		}
	}
	if e.AcceptBMC != nil && m.BMC.Proposed != nil {
		acceptBMC(&m.BMC, *e.AcceptBMC)
	}
	if err := e.BMC.apply(&m.BMC, seal); err != nil {
		return err
	}
	if e.Labels != nil {
		labels := maps.Clone(m.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		for k, v := range e.Labels {
			if v == nil {
				delete(labels, k)
			} else {
				labels[k] = *v
			}
		}
		m.Labels = labels
	}
	if e.RootDisk != nil {
		m.RootDisk = e.RootDisk
		if *e.RootDisk == (inventory.DiskHint{}) {
			m.RootDisk = nil
		}
	}
	if e.Maintenance != nil {
		m.Maintenance = nil
		if *e.Maintenance != "" {
			m.Maintenance = &inventory.Maintenance{Reason: *e.Maintenance, Since: at, Actor: actor}
		}
	}
	return nil
}

func (b BMCEdit) apply(to *inventory.BMC, seal Sealer) error {
	if b.Address != nil {
		if err := setBMC(to, *b.Address); err != nil {
			return err
		}
	}
	if b.User != nil {
		if err := power.CheckUser(*b.User); err != nil {
			return &inventory.Problem{Code: inventory.CodeInvalid, Detail: err.Error(), Err: err}
		}
		to.User = *b.User
	}
	if b.Password != nil {
		if err := power.CheckPassword(*b.Password); err != nil {
			return &inventory.Problem{
				Code:   inventory.CodeInvalid,
				Detail: err.Error(),
				Hint:   "is that the file with the password alone?",
				Err:    err,
			}
		}
		to.Password = nil
		if *b.Password != "" {
			sealed, err := seal([]byte(*b.Password))
			if err != nil {
				return fmt.Errorf("seal the BMC password: %w", err)
			}
			to.Password = sealed
		}
	}
	if b.Kg != nil {
		key, err := power.ParseKg(*b.Kg)
		if err != nil {
			return &inventory.Problem{
				Code:   inventory.CodeInvalid,
				Detail: err.Error(),
				Hint:   "is that the file with the key alone?",
				Err:    err,
			}
		}
		to.Kg = nil
		if key != "" {
			sealed, err := seal([]byte(key))
			if err != nil {
				return fmt.Errorf("seal the BMC's key: %w", err)
			}
			to.Kg = sealed
		}
	}
	return nil
}

// setBMC sets an operator's address. Another address that the agent reported is then declined. An empty s
// removes the address, and declines nothing.
func setBMC(b *inventory.BMC, s string) error {
	if s == "" {
		b.Address, b.Discovered, b.Declined, b.Error, b.Refused = "", false, "", "", false
		return nil
	}
	address, err := power.Canonical(s)
	if err != nil {
		return &inventory.Problem{Code: inventory.CodeInvalid, Detail: err.Error()}
	}
	if err := reachable(address, nil); err != nil {
		return err
	}
	switch {
	case b.Proposed != nil && b.Proposed.Address != address:
		b.Declined = b.Proposed.Address
	case b.Discovered && b.Address != address:
		b.Declined = b.Address
	}
	b.Address, b.Discovered, b.Proposed, b.Error, b.Refused = address, false, nil, "", false
	return nil
}

// touches names the fields that an edit changes. It gives no values, of which some are secrets, except an
// accepted BMC address.
func (e Edit) touches() string {
	var parts []string
	for what, did := range map[string]bool{
		"name": e.Name != nil, "labels": e.Labels != nil, "root disk": e.RootDisk != nil,
		"maintenance": e.Maintenance != nil,
		"BMC address": e.BMC.Address != nil, "BMC user": e.BMC.User != nil,
		"BMC password": e.BMC.Password != nil, "BMC key": e.BMC.Kg != nil,
	} {
		if did {
			parts = append(parts, what)
		}
	}
	if e.AcceptBMC != nil {
		parts = append(parts, "BMC address "+*e.AcceptBMC+" accepted")
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// Accepts returns the reported BMC that an approval of the machine accepts; "" for none. The caller checks
// whether it may be accepted now. An approval that does not say whether to accept a reported BMC is refused,
// since that may be another one than a person saw.
func (a Approval) Accepts(m inventory.Machine) (string, error) {
	no := func(hint, format string, args ...any) (string, error) {
		return "", &inventory.Problem{
			Code: inventory.CodeConflict, Detail: m.Name + ": " + fmt.Sprintf(format, args...), Hint: hint,
		}
	}
	p := m.BMC.Proposed
	switch {
	case m.State != inventory.Discovered && a.BMC != nil && *a.BMC != "" && *a.BMC != m.BMC.Address:
		hint := "run `pxectl machine show " + m.Name + "`"
		if p != nil && p.Address == *a.BMC {
			hint = "`" + diagnose.AcceptCommand(m) + "` accepts it"
		}
		return no(hint, "it is approved already, with its BMC at %s and not at %q",
			cmp.Or(m.BMC.Address, "no address"), *a.BMC)
	case m.State != inventory.Discovered:
		return "", nil
	case a.BMC != nil:
		return *a.BMC, nil
	case p != nil && m.BMC.Address == "": // else an operator has set the address
		return no("`"+diagnose.AcceptCommand(m)+"`, if that is right; --no-bmc lets it in without",
			"the agent reports the BMC at %s, and the approval does not say whether that is accepted",
			p.Address)
	}
	return "", nil
}
