package appliance

import (
	"fmt"

	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/ipxe"
)

// A ruleBook has the operators' rules for machines that boot differently, with the scripts of these rules.
type ruleBook struct {
	rules   ipxe.Rules
	scripts map[string]*ipxe.Template
}

// newRuleBook loads the scripts that the rules name.
func newRuleBook(c config.Config) (ruleBook, error) {
	book := ruleBook{c.Boot, map[string]*ipxe.Template{}}
	for i, r := range c.Boot {
		if r.Script == "" {
			continue
		}
		t, err := ipxe.LoadTemplate(c.ScriptDir(), r.Script)
		if err != nil {
			return ruleBook{}, fmt.Errorf("boot[%d].script: %w", i, err)
		}
		book.scripts[r.Script] = t
	}
	return book, nil
}

// about returns what the rules say of a machine. find looks up its record, which knows more than a DHCP
// packet. params is what its iPXE sent, or zero before iPXE runs.
func (b ruleBook) about(
	mac inventory.MAC, params ipxe.Params, find func(inventory.MAC) (inventory.Machine, bool),
) ipxe.Choice {
	if len(b.rules) == 0 {
		return ipxe.Choice{}
	}
	s := ipxe.Subject{Names: []string{string(mac)}, Vendor: params.Manufacturer, Model: params.Product}
	if m, ok := find(mac); ok {
		s.Names = append(s.Names, m.Name)
		if m.Report != nil {
			s.Vendor, s.Model = m.Report.System.Manufacturer, m.Report.System.Product
		}
	}
	return b.rules.For(s)
}

// apply changes an answer as the rules say.
func (b ruleBook) apply(boot ipxe.Boot, c ipxe.Choice) ipxe.Boot {
	switch boot.Action {
	case ipxe.Local:
		boot.Method = c.Local
	case ipxe.Agent:
		boot.Args = append(boot.Args, c.Args...)
	}
	boot.Template = b.scripts[c.Script]
	return boot
}
