package modules

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
)

// Dir is where the ramdisk keeps the index and the modules.
const Dir = "lib/modules"

// IndexFile is the index's name in Dir.
const IndexFile = "index.json"

// Compressed is the suffix of a module's file that is one zstd frame.
const Compressed = ".zst"

// A Module is one loadable module of the ramdisk.
type Module struct {
	Name    string   `json:"name"` // with underscores
	File    string   `json:"file"` // below Dir
	Aliases []string `json:"aliases,omitempty"`
	Depends []string `json:"depends,omitempty"`
	Soft    []string `json:"soft,omitempty"` // names or aliases to load before it, if they exist
	// Early modules lead to the boot NIC; they are loaded before the others.
	Early bool `json:"early,omitempty"`
}

// An Index describes the modules of a ramdisk.
type Index struct {
	Kernel  string   `json:"kernel"` // release, as uname -r says it
	Modules []Module `json:"modules"`
	// ByName are modules that no modalias asks for.
	ByName []string `json:"by_name,omitempty"`

	byName   map[string]*Module
	byPrefix map[byte][]aliasOf
}

type aliasOf struct {
	pattern string
	module  *Module
}

// ParseIndex reads an index.
func ParseIndex(data []byte) (*Index, error) {
	x := new(Index)
	if err := json.Unmarshal(data, x); err != nil {
		return nil, fmt.Errorf("module index: %w", err)
	}
	x.prepare()
	return x, nil
}

func (x *Index) prepare() {
	x.byName, x.byPrefix = map[string]*Module{}, map[byte][]aliasOf{}
	for i := range x.Modules {
		m := &x.Modules[i]
		x.byName[m.Name] = m
		for _, a := range m.Aliases {
			if a != "" {
				x.byPrefix[a[0]] = append(x.byPrefix[a[0]], aliasOf{a, m})
			}
		}
	}
}

// Named finds a module by its name, with hyphens or underscores.
func (x *Index) Named(name string) (*Module, bool) {
	m, ok := x.byName[underscores(name)]
	return m, ok
}

// Match lists the modules for a device with this modalias.
func (x *Index) Match(modalias string) []*Module {
	if modalias == "" {
		return nil
	}
	var found []*Module
	for _, a := range x.byPrefix[modalias[0]] {
		// Comparing the literal head of the pattern first is cheap and excludes nearly all.
		head := a.pattern
		if i := strings.IndexAny(head, `*?[\`); i >= 0 {
			head = head[:i]
		}
		if !strings.HasPrefix(modalias, head) {
			continue
		}
		// A modalias has no slash, except some of_ ones, where path.Match is stricter than fnmatch.
		if ok, err := path.Match(a.pattern, modalias); err == nil && ok {
			found = append(found, a.module)
		}
	}
	return found
}

// Order lists a module's dependencies, each after its own, and the module itself last.
func (x *Index) Order(m *Module) []*Module {
	var order []*Module
	seen := map[*Module]bool{}
	var visit func(m *Module)
	visit = func(m *Module) {
		if seen[m] {
			return
		}
		seen[m] = true
		for _, name := range m.Soft {
			if dep, ok := x.Named(name); ok {
				visit(dep)
				continue
			}
			for _, dep := range x.Match(name) {
				visit(dep)
			}
		}
		for _, name := range m.Depends {
			if dep, ok := x.Named(name); ok {
				visit(dep)
			}
		}
		order = append(order, m)
	}
	visit(m)
	return order
}

func underscores(name string) string { return strings.ReplaceAll(name, "-", "_") }
