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

// mapEntries are the folders of the tree in docs/architecture.md, with what is said of each.
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

// The map in docs/architecture.md is the tree: what it names is there, and what is there is named, by itself
// or in the entry of the folder that it lies in.
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
		if folder == "." || !regexp.MustCompile(`\b`+regexp.QuoteMeta(first)+`\b`).MatchString(entries[folder]) {
			t.Errorf("%s is on no map: name it in docs/architecture.md", pkg)
		}
	}
}

// A file past 400 lines hides a second idea.
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
