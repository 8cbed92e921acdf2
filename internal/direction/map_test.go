package direction

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mapEntries are the folders of the tree in docs/architecture.md, with their descriptions.
func mapEntries(text string) map[string]string {
	entry := regexp.MustCompile(`^    ([a-z][a-z0-9/_-]*[a-z0-9/]) +(\S.*)$`)
	entries, last := map[string]string{}, ""
	_, tree, _ := strings.Cut(text, "## The tree is the map")
	tree, _, _ = strings.Cut(tree, "###")
	for line := range strings.Lines(tree) {
		line = strings.TrimRight(line, "\n")
		switch m := entry.FindStringSubmatch(line); {
		case m != nil:
			last = strings.TrimSuffix(m[1], "/")
			entries[last] = m[2]
		case last != "" && strings.HasPrefix(line, "     "):
			entries[last] += " " + strings.TrimSpace(line)
		}
	}
	return entries
}

// The tree in docs/architecture.md names every folder that exists, by itself or in the entry of its parent,
// and no other.
func TestTheMapIsTheTree(t *testing.T) {
	const root = "../.."
	raw, err := os.ReadFile(filepath.Join(root, "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	entries := mapEntries(string(raw))
	if len(entries) < 20 {
		t.Fatalf("%d entries were read of the map: %v", len(entries), entries)
	}
	for name := range entries {
		if st, err := os.Stat(filepath.Join(root, name)); err != nil || !st.IsDir() {
			t.Errorf("the map names %s, which is no folder here", name)
		}
	}
	imports, err := read(root)
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range imports {
		if _, ok := entries[pkg]; ok {
			continue
		}
		folder := path.Dir(pkg)
		for folder != "." && entries[folder] == "" {
			folder = path.Dir(folder)
		}
		rest := strings.TrimPrefix(pkg, folder+"/")
		first, _, _ := strings.Cut(rest, "/")
		if folder == "." ||
			!regexp.MustCompile(`\b`+regexp.QuoteMeta(first)+`\b`).MatchString(entries[folder]) {
			t.Errorf("%s is on no map: name it in docs/architecture.md", pkg)
		}
	}
}

// A file of more than 400 lines hides a second idea.
func TestFilesAreShort(t *testing.T) {
	const most = 400
	err := filepath.WalkDir("../..", func(file string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, ".go") {
			if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
				return filepath.SkipDir
			}
			return err
		}
		raw, err := os.ReadFile(file)
		if n := strings.Count(string(raw), "\n"); n > most {
			t.Errorf("%s has %d lines, want at most %d: what is its second idea?", file, n, most)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

var (
	namedFile = regexp.MustCompile("`([a-z][a-z0-9-]*/[\\w./-]+)`")
	namedTest = regexp.MustCompile("`(?:([a-z0-9]+)\\.)?((?:Test|Fuzz)[A-Z]\\w*)`")
	declared  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
)

// Every file, folder and test that a document names exists.
func TestWhatDocumentsNameExists(t *testing.T) {
	const root = "../.."
	tests := map[string]bool{} // "dhcpd.TestParse" and "TestParse"
	var documents []string
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != "..":
			return filepath.SkipDir
		case strings.HasSuffix(file, ".md") && d.Name() != "CHANGELOG.md":
			documents = append(documents, file)
		case strings.HasSuffix(file, "_test.go"):
			raw, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			name, _, _ := strings.Cut(strings.TrimPrefix(string(raw[strings.Index(string(raw), "package "):]),
				"package "), "\n")
			name = strings.TrimSuffix(strings.TrimSpace(name), "_test")
			for _, m := range declared.FindAllStringSubmatch(string(raw), -1) {
				tests[m[1]], tests[name+"."+m[1]] = true, true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range documents {
		raw, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range namedFile.FindAllStringSubmatch(string(raw), -1) {
			top, _, _ := strings.Cut(m[1], "/")
			if st, err := os.Stat(filepath.Join(root, top)); err != nil || !st.IsDir() ||
				strings.Contains(m[1], "NAME") {
				continue // not a path of this tree, or a pattern
			}
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names %s, which is not there", document, m[1])
			}
		}
		for _, m := range namedTest.FindAllStringSubmatch(string(raw), -1) {
			name := m[2]
			if m[1] != "" {
				name = m[1] + "." + m[2]
			}
			if !tests[name] {
				t.Errorf("%s names the test %s, which is not there", document, name)
			}
		}
	}
}
