package interfaces

import (
	"fmt"
	"slices"
	"strings"
)

// Ready returns why machines cannot be served, or nil: no provisioning interface is up and has its address,
// or a service could not be opened at an interface's new address.
func (f *Set) Ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, what := range f.unopened {
		return what
	}
	if slices.ContainsFunc(f.all, func(l *State) bool { return l.at.index != 0 && l.at.has && l.at.up }) {
		return nil
	}
	var names []string
	for _, l := range f.all {
		names = append(names, fmt.Sprintf("%s (%v)", l.Name, l.Address))
	}
	return fmt.Errorf("no provisioning interface is up and has its address: %s", strings.Join(names, ", "))
}

// opened records whether a service could be opened at an interface's address: err, or nil.
func (f *Set) opened(name, what string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.unopened, name+" "+what)
	if err != nil {
		f.unopened[name+" "+what] = fmt.Errorf("%s cannot be served on interface %s: %w", what, name, err)
	}
}
