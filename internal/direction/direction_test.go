package direction

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/pxectl/pxectl/"

// allowed lists each package with those that it may import, and it does import them. Anything may import
// internal/*. A name that ends in /... stands for the package and all below it.
var allowed = map[string][]string{
	"internal/...": {},

	"dhcpd":            {"dhcpd/leases"},
	"dhcpd/leases":     {},
	"images":           {},
	"images/contents":  {},
	"images/download":  {},
	"images/store":     {"images", "images/contents"},
	"inventory":        {},
	"inventory/boltdb": {"inventory"},
	"ipxe":             {},
	"power":            {},
	"power/ipmi":       {"power", "power/ipmi/lan"},
	"power/ipmi/lan":   {},
	"power/powertest":  {"power"},
	"tftpd":            {},

	"console":  {"power"},
	"timeline": {"inventory", "inventory/boltdb"},
	"diagnose": {"dhcpd", "inventory", "ipxe"},
	"deploy": {
		"console", "deploy/nocloud", "deploy/nonce", "diagnose", "inventory", "inventory/boltdb", "power",
		"timeline",
	},
	"deploy/nocloud": {"inventory"},
	"deploy/nonce":   {"inventory", "inventory/boltdb"},
	"api":            {"deploy", "diagnose", "images/store", "inventory", "power"},
	"api/apitest":    {"api", "deploy", "diagnose", "inventory", "power"},
	"appliance": {
		"api", "appliance/...", "deploy", "dhcpd", "images/store", "inventory", "inventory/boltdb", "ipxe",
		"power", "power/ipmi", "tftpd",
	},
	"appliance/config": {"deploy", "dhcpd", "inventory", "ipxe", "power"},
	"appliance/doctor": {
		"api", "appliance/config", "appliance/interfaces", "appliance/keys", "appliance/rogue", "deploy", "dhcpd", "diagnose",
		"images/store", "inventory",
	},
	"appliance/interfaces": {"appliance/config", "inventory"},
	"appliance/keys":       {"deploy/nonce", "inventory"},
	"appliance/rogue":      {"dhcpd", "inventory", "ipxe"},
	"cmd/pxectl": {
		"agent-ramdisk/initramfs", "api", "appliance", "appliance/config", "appliance/doctor", "deploy",
		"deploy/nocloud", "dhcpd",
		"diagnose", "images/contents", "images/download", "images/store", "inventory", "lab", "power",
	},
	"packaging/...": {},

	// The lab starts the program as an operator would. Its tools use the API and read images and reports.
	"lab":             {},
	"lab/demo":        {"api", "inventory", "lab", "lab/verify"},
	"lab/e2e":         {},
	"lab/osimage/...": {"agent-ramdisk/modules", "lab/osimage"},
	"lab/verify":      {"images", "inventory"},
	"bench":           {"agent-ramdisk/disk", "images", "images/store", "inventory", "ipxe"},

	// The agent in the ramdisk, and the ramdisk's builder.
	"agent-ramdisk/agent": {
		"agent-ramdisk/blockdev", "agent-ramdisk/disk", "agent-ramdisk/efi", "agent-ramdisk/erase", "images",
		"inventory",
	},
	"agent-ramdisk/blockdev": {},
	"agent-ramdisk/boot":     {},
	"agent-ramdisk/cmd/pxagent": {
		"agent-ramdisk/agent", "agent-ramdisk/blockdev", "agent-ramdisk/boot", "agent-ramdisk/disk",
		"agent-ramdisk/hardware",
		"agent-ramdisk/modules", "agent-ramdisk/netup", "inventory",
	},
	"agent-ramdisk/disk":             {"agent-ramdisk/blockdev", "images", "inventory"},
	"agent-ramdisk/erase":            {"agent-ramdisk/blockdev", "inventory"},
	"agent-ramdisk/efi":              {},
	"agent-ramdisk/hardware":         {"inventory"},
	"agent-ramdisk/initramfs":        {"agent-ramdisk/modules"},
	"agent-ramdisk/initramfs/mkbase": {},
	"agent-ramdisk/modules":          {},
	"agent-ramdisk/netup":            {"inventory"},
}

// violations compares the imports of each package with the table.
func violations(imports map[string][]string) []string {
	var wrong []string
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		may, ok := rule(pkg)
		if !ok {
			wrong = append(wrong,
				fmt.Sprintf("%s: not in the table; say in internal/direction/direction_test.go what it may import",
					pkg))
			continue
		}
		for _, imported := range imports[pkg] {
			if !covers("internal/...", imported) &&
				!slices.ContainsFunc(may, func(name string) bool { return covers(name, imported) }) {
				wrong = append(wrong,
					fmt.Sprintf("%s imports %s; it may import only %q and internal/*", pkg, imported, may))
			}
		}
	}
	return wrong
}

// unused lists what the table allows and no package imports.
func unused(imports map[string][]string) []string {
	var wrong []string
	for _, entry := range slices.Sorted(maps.Keys(allowed)) {
		for _, name := range allowed[entry] {
			imported := false
			for pkg := range imports {
				imported = imported ||
					covers(entry, pkg) &&
						slices.ContainsFunc(imports[pkg], func(i string) bool { return covers(name, i) })
			}
			if !imported {
				wrong = append(wrong,
					fmt.Sprintf("%s may import %s and does not; take it out of the table", entry, name))
			}
		}
	}
	return wrong
}

// rule finds the entry for a package: its own, or the longest one that covers it.
func rule(pkg string) ([]string, bool) {
	if may, ok := allowed[pkg]; ok {
		return may, true
	}
	for dir := pkg; dir != "."; dir = path.Dir(dir) {
		if may, ok := allowed[dir+"/..."]; ok {
			return may, true
		}
	}
	return nil, false
}

func covers(name, pkg string) bool {
	tree, all := strings.CutSuffix(name, "/...")
	return pkg == tree || all && strings.HasPrefix(pkg, tree+"/")
}

// read lists the imports of each package below root, as far as they are of this module. It leaves out tests.
// It reads the files itself, and does not ask `go list`, so that go test knows when its cached answer is
// stale.
func read(root string) (map[string][]string, error) {
	imports := map[string][]string{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if file != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		source, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(dir)
		imports[pkg] = append(imports[pkg], nil...)
		for _, spec := range source.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if name, ours := strings.CutPrefix(name, module); ours && !slices.Contains(imports[pkg], name) {
				imports[pkg] = append(imports[pkg], name)
			}
		}
		return nil
	})
	return imports, err
}

func TestImportsPointDownward(t *testing.T) {
	imports, err := read("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(imports) < 20 {
		t.Fatalf("read found %d packages, want the whole module", len(imports))
	}
	for _, wrong := range append(violations(imports), unused(imports)...) {
		t.Error(wrong)
	}
	for name := range allowed {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(imports)),
			func(pkg string) bool { return covers(name, pkg) }) {
			t.Errorf("%s: in the table, but there is no such package", name)
		}
	}
}

// Every machine loads the ramdisk at every boot, so the agent depends on nothing heavy, however deep.
func TestAgentStaysSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", module+"agent-ramdisk/cmd/pxagent").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, module+"agent-ramdisk/agent") {
		t.Fatalf("go list -deps lacks the agent itself:\n%s", out)
	}
	for _, heavy := range []string{
		"go.etcd.io/bbolt", "github.com/spf13/cobra", module + "deploy",
		module + "api",
	} {
		if slices.Contains(deps, heavy) {
			t.Errorf("pxagent depends on %s", heavy)
		}
	}
}

func TestViolations(t *testing.T) {
	for _, tt := range []struct {
		name    string
		imports map[string][]string
		want    int
	}{
		{
			"downward", map[string][]string{
				"appliance": {"api", "dhcpd", "internal/x"}, "dhcpd": nil,
				"lab/demo": {"lab", "lab/verify", "api"},
			}, 0,
		},
		{"a leaf knows another", map[string][]string{"dhcpd": {"tftpd"}}, 1},
		{"upward", map[string][]string{"deploy": {"api", "dhcpd", "inventory"}}, 2},
		{"the lab knows the command", map[string][]string{"lab/e2e": {"cmd/pxectl"}}, 1},
		{"the lab knows the appliance", map[string][]string{"lab": {"appliance"}}, 1},
		{"the agent knows the database", map[string][]string{"agent-ramdisk/agent": {"inventory/boltdb"}}, 1},
		{"internal stands on nothing", map[string][]string{"internal/x": {"inventory", "internal/y"}}, 1},
		{"a name that begins alike", map[string][]string{"laboratory": nil}, 1},
		{"not in the table", map[string][]string{"web": nil}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := violations(tt.imports); len(got) != tt.want {
				t.Errorf("violations(%v) = %q, want %d", tt.imports, got, tt.want)
			}
		})
	}
}
