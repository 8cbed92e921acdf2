package ipxe

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Silence sends a machine to its own disk by a third way: nobody answers its DHCP. In a script it means Exit,
// since somebody has asked for the script.
const Silence = "silence"

// A Rule changes the boot of some machines. An empty pattern matches every machine. An empty answer leaves
// the question to the next rule.
type Rule struct {
	Machine string `yaml:"machine"` // pattern for the name or a MAC
	Vendor  string `yaml:"vendor"`  // pattern for the manufacturer in SMBIOS
	Model   string `yaml:"model"`   // pattern for the product in SMBIOS

	NBP    string   `yaml:"nbp"`    // network boot program, for the clients that can run it
	Args   []string `yaml:"args"`   // kernel arguments
	Local  string   `yaml:"local"`  // Exit, SANBoot or Silence
	Script string   `yaml:"script"` // file of the template that makes the script
}

// Rules are read from the top: the first rule that matches a machine and answers a question decides it.
type Rules []Rule

// A Subject is a machine as rules see it. Before its inspection, only its MAC is known.
type Subject struct {
	Names         []string // the machine's name and MACs
	Vendor, Model string
}

// A Choice is the answer of the rules for one machine; an empty field is the default.
type Choice struct {
	NBPs   []string // the first one that runs on the client counts
	Args   []string
	Local  string
	Script string
}

// For collects the answers for a machine.
func (r Rules) For(s Subject) Choice {
	var c Choice
	for _, rule := range r {
		if !rule.matches(s) {
			continue
		}
		if rule.NBP != "" {
			c.NBPs = append(c.NBPs, rule.NBP)
		}
		if c.Args == nil {
			c.Args = rule.Args
		}
		if c.Local == "" {
			c.Local = rule.Local
		}
		if c.Script == "" {
			c.Script = rule.Script
		}
	}
	return c
}

// NBP is the program for a client: that of a rule if it runs there, else that of NBPFor.
func (c Choice) NBP(arch uint16, overIPXE bool) (name string, ok bool) {
	usual, ok := NBPFor(arch, overIPXE)
	for _, name := range c.NBPs {
		if ok && programs[name].kind == programs[usual].kind {
			return name, true
		}
	}
	return usual, ok
}

func (r Rule) matches(s Subject) bool {
	return (r.Machine == "" ||
		slices.ContainsFunc(s.Names, func(n string) bool { return matches(r.Machine, n) })) &&
		(r.Vendor == "" || matches(r.Vendor, s.Vendor)) && (r.Model == "" || matches(r.Model, s.Model))
}

// matches compares without regard to case; * is any text and ? is any character.
func matches(pattern, text string) bool {
	ok, err := path.Match(plain(pattern), plain(text))
	return ok && err == nil
}

// plain replaces slashes, since path.Match treats them specially.
func plain(s string) string { return strings.ReplaceAll(strings.ToLower(s), "/", "\x00") }

// Check reports all mistakes of a rule, except in its script, which LoadTemplate checks.
func (r Rule) Check() error {
	var errs []error
	for key, pattern := range map[string]string{"machine": r.Machine, "vendor": r.Vendor, "model": r.Model} {
		if _, err := path.Match(plain(pattern), ""); err != nil {
			errs = append(errs,
				fmt.Errorf("%s: %q is no pattern: * is any text, ? any character, [ab] one of these", key,
					pattern))
		}
	}
	if r.NBP != "" && programs[r.NBP].bytes == nil {
		errs = append(errs, fmt.Errorf("nbp: %q (have: %s)", r.NBP, strings.Join(NBPs(), ", ")))
	}
	for _, a := range r.Args {
		if !isWord(a) {
			errs = append(errs,
				fmt.Errorf("args: %s is not one word of a kernel command line that can stand in a script",
					quoted(a)))
		}
	}
	if !slices.Contains([]string{"", Exit, SANBoot, Silence}, r.Local) {
		errs = append(errs, fmt.Errorf("local: %q (have: %s, %s, %s)", r.Local, Exit, SANBoot, Silence))
	}
	if r.NBP == "" && r.Args == nil && r.Local == "" && r.Script == "" {
		errs = append(errs, errors.New("sets nothing (have: nbp, args, local, script)"))
	}
	// The map has no order.
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}
