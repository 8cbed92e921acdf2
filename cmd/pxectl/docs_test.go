package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/appliance/config"
)

var (
	// spanned matches a command in backquotes: in a hint of the code, or in a document.
	spanned = regexp.MustCompile("`pxectl ([^`\n]*)`")
	// shown matches a command on a line of its own: in a document's block, or in an example of a help text.
	shown = regexp.MustCompile(`^ +(?:# )?(?:\$ )?(?:sudo )?pxectl ([a-z].*)$`)
	flag  = regexp.MustCompile(`(?:^|[\s(\[|])(--[a-z][a-z-]*|-[a-zA-Z])\b`)
	word  = regexp.MustCompile(`^[a-z][a-z-]*$`)
)

// eachLine calls f with each line of the code, the documents and the YAML files, with its path and number. It
// leaves out tests, and the changelog, which speaks of older releases.
func eachLine(t *testing.T, f func(path string, n int, line string)) {
	t.Helper()
	top := filepath.Join("..", "..")
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		name := filepath.Base(path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != top &&
			(strings.HasPrefix(name, ".") || name == "testdata" || name == "bin"):
			return filepath.SkipDir
		case d.IsDir() || name == "CHANGELOG.md" || strings.HasSuffix(name, "_test.go") ||
			!slices.Contains([]string{".go", ".md", ".yaml"}, filepath.Ext(name)):
			return nil
		}
		b, err := os.ReadFile(path)
		n := 0
		for line := range strings.Lines(string(b)) {
			n++
			f(path, n, line)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every command that a hint, a help text or a document names exists, and so do its flags.
func TestCommandsThatAreNamedExist(t *testing.T) {
	root := (&cli{}).rootCommand()
	root.InitDefaultHelpFlag()
	checked := 0
	eachLine(t, func(path string, n int, line string) {
		named := spanned.FindAllStringSubmatch(line, -1)
		if m := shown.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil &&
			!strings.HasPrefix(strings.TrimSpace(line), "//") {
			named = append(named, m)
		}
		for _, m := range named {
			checked++
			if wrong := unknown(root, m[1]); wrong != "" {
				t.Errorf("%s:%d: pxectl %s: %s", path, n, m[1], wrong)
			}
		}
	})
	if checked < 150 {
		t.Errorf("%d commands were found, want those of the code and of the documents", checked)
	}
}

// unknown says which part of a command line does not exist.
func unknown(root *cobra.Command, line string) string {
	line, _, _ = strings.Cut(line, " #")
	for _, end := range []string{"; ", " | ", " && ", " > "} {
		line, _, _ = strings.Cut(line, end)
	}
	cmd := root
	for _, w := range strings.Fields(line) {
		w = strings.Trim(w, `",`)
		if !word.MatchString(w) || !cmd.HasSubCommands() {
			break
		}
		at := slices.IndexFunc(cmd.Commands(), func(c *cobra.Command) bool {
			return c.Name() == w || c.HasAlias(w)
		})
		switch {
		case at < 0 && (w == "help" || w == "completion"):
			return ""
		case at < 0:
			return "there is no command " + w
		}
		cmd = cmd.Commands()[at]
	}
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	for _, m := range flag.FindAllStringSubmatch(line, -1) {
		name := strings.TrimLeft(m[1], "-")
		if len(name) == 1 {
			if cmd.Flags().ShorthandLookup(name) == nil && cmd.InheritedFlags().ShorthandLookup(name) == nil {
				return "it has no flag " + m[1]
			}
			continue
		}
		if cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil {
			return "it has no flag " + m[1]
		}
	}
	return ""
}

func TestUnknown(t *testing.T) {
	root := (&cli{}).rootCommand()
	for line, want := range map[string]string{
		"machine approve m1 --no-bmc":                        "",
		"machine approve \"+m.Name+\" --wait":                "",
		"machine restore":                                    "there is no command restore",
		"backup":                                             "there is no command backup",
		"deploy m1 --image mini --fast":                      "it has no flag --fast",
		"events -m m1 -z":                                    "it has no flag -z",
		"events -m m1; pxectl machine list":                  "",
		"machine list -o json | jq":                          "",
		"deploy --all --image mini --wait # all of the rack": "",
	} {
		if got := unknown(root, line); got != want {
			t.Errorf("unknown(%q) = %q, want %q", line, got, want)
		}
	}
}

// link matches a document's link to a file beside it.
var link = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)\s]*)?\)`)

// Every file that a document links to is there, and README leads to every document.
func TestDocumentsAreFound(t *testing.T) {
	top := filepath.Join("..", "..")
	linked := map[string]bool{}
	var all []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != top && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasPrefix(path, filepath.Join(top, "docs")) {
			all = append(all, path)
		}
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			to := filepath.Join(filepath.Dir(path), m[1])
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s, which is not there", path, m[1])
			}
			if path == filepath.Join(top, "README.md") {
				linked[to] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if !linked[path] {
			t.Errorf("README.md does not lead to %s", path)
		}
	}
	if len(all) < 10 {
		t.Errorf("%d documents were found, want those in docs", len(all))
	}
}

// configKeys adds the keys of a type to keys, each with those above it: "dhcp.server.subnets.pools".
func configKeys(keys map[string]bool, t reflect.Type, above string) {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return
	}
	for i := range t.NumField() {
		tag, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if tag == "" || tag == "-" {
			continue
		}
		keys[above+tag] = true
		configKeys(keys, t.Field(i).Type, above+tag+".")
	}
}

var (
	// quoted matches what a document or a hint has in backquotes, or the code in a string.
	quoted = regexp.MustCompile("`[^`\n]*`|\"[^\"\n]*\"")
	// dotted matches a key of the configuration, or a file.
	dotted = regexp.MustCompile(`(?:^|[^\w./-])([a-z]\w*(?:\[\w*\])?(?:\.[a-z]\w*(?:\[\w*\])?)+)`)
	// index matches the index of a list.
	index = regexp.MustCompile(`\[\w*\]`)
)

// unknownKeys lists the names in a line that begin like a key of the configuration, and are neither a key nor
// a file or a host.
func unknownKeys(keys map[string]bool, line string) (unknown []string) {
	for _, text := range quoted.FindAllString(line, -1) {
		for _, m := range dotted.FindAllStringSubmatch(text, -1) {
			key := index.ReplaceAllString(m[1], "")
			top, _, _ := strings.Cut(key, ".")
			if keys[top] && !keys[key] &&
				!slices.Contains([]string{".example", ".go", ".img", ".ipxe", ".pcap", ".yaml"},
					filepath.Ext(key)) {
				unknown = append(unknown, m[1])
			}
		}
	}
	return unknown
}

// Every key of the configuration that a document, a hint or a help text names exists.
func TestConfigurationKeysThatAreNamedExist(t *testing.T) {
	keys := map[string]bool{}
	configKeys(keys, reflect.TypeFor[config.Config](), "")
	for _, key := range []string{
		"data_dir", "discovery.policy", "bmc.trust_reported",
		"dhcp.server.subnets.pools", "boot.nbp",
	} {
		if !keys[key] {
			t.Fatalf("configKeys lacks %s: %v", key, keys)
		}
	}
	for line, want := range map[string]int{
		"with `bmc.trust_reported: true`":        0,
		"with `bmc.trust_agents`":                1,
		`"widen dhcp.server.subnets[].pools"`:    0,
		`"widen dhcp.server.subnets[0].ranges"`:  1,
		"`boot.ipxe` is a file":                  0,
		"deploy.machine is code":                 0,
		"`appliance.yaml: dhcp.mode: \"sever\"`": 0,
	} {
		if got := unknownKeys(keys, line); len(got) != want {
			t.Errorf("unknownKeys(%q) = %q, want %d", line, got, want)
		}
	}
	eachLine(t, func(path string, n int, line string) {
		for _, key := range unknownKeys(keys, line) {
			t.Errorf("%s:%d: there is no key %s in the configuration", path, n, key)
		}
	})
}
