package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// An event is a line of `go test -json`: `go doc test2json`, and BuildEvent of `go help buildjson`.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of a package that does not build
	Test        string
	Output      string
	FailedBuild string
}

// A key names a test of one of the runs, or a package when the test is empty.
type key struct {
	run       int
	pkg, test string
}

// parent is the test that a subtest belongs to.
func (k key) parent() (key, bool) {
	i := strings.LastIndexByte(k.test, '/')
	return key{k.run, k.pkg, k.test[:max(i, 0)]}, i >= 0
}

type summary struct {
	outcome map[key]string // pass, fail, skip; "" while it runs
	said    map[key][]string
	builds  map[string][]string // output of the compiler, by import path
	broken  map[key]string      // packages that do not build, and why
	runs    int
}

func newSummary() *summary {
	return &summary{
		outcome: map[key]string{},
		said:    map[key][]string{},
		builds:  map[string][]string{},
		broken:  map[key]string{},
	}
}

// read adds one run. A test that ran before counts once more.
func (s *summary) read(r io.Reader) error {
	s.runs++
	lines := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := lines.ReadString('\n')
		if strings.TrimSpace(line) != "" {
			var e event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
			s.add(e)
		}
		switch {
		case err == io.EOF && n == 1:
			return fmt.Errorf("empty: the tests did not begin")
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

func (s *summary) add(e event) {
	k := key{s.runs, e.Package, e.Test}
	switch e.Action {
	case "build-output":
		s.builds[e.ImportPath] = append(s.builds[e.ImportPath], e.Output)
	case "run", "start":
		s.outcome[k] = ""
	case "output":
		s.said[k] = append(s.said[k], e.Output)
	case "pass", "fail", "skip":
		s.outcome[k] = e.Action
		if e.FailedBuild != "" {
			s.broken[k] = e.FailedBuild
		}
		if e.Action == "pass" {
			delete(s.said, k)
		}
	}
}

// A finding is a test or a package, and what the summary says about it.
type finding struct {
	key
	why string
}

// count sorts the tests. A test with subtests counts only when it failed and none of them did; a package when
// it failed and none of its tests did.
func (s *summary) count() (passed int, failed, skipped []finding) {
	subtests, failure := map[key]bool{}, map[key]bool{}
	for k, outcome := range s.outcome {
		pkg := key{run: k.run, pkg: k.pkg}
		bad := k.test != "" && outcome != "pass" && outcome != "skip"
		for parent, ok := k.parent(); ok; parent, ok = parent.parent() {
			subtests[parent] = true
			failure[parent] = failure[parent] || bad
		}
		failure[pkg] = failure[pkg] || bad
	}
	for k, outcome := range s.outcome {
		switch {
		case outcome == "pass" && k.test != "" && !subtests[k]:
			passed++
		case outcome == "skip" && k.test != "":
			skipped = append(skipped, finding{k, s.reason(k)})
		case (outcome == "fail" || outcome == "") && !failure[k]:
			failed = append(failed, finding{k, s.how(k, outcome)})
		}
	}
	for _, all := range [][]finding{failed, skipped} {
		slices.SortFunc(all, func(a, b finding) int {
			return cmp.Or(cmp.Compare(a.run, b.run), cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.test, b.test))
		})
	}
	return passed, failed, skipped
}

var (
	place = regexp.MustCompile(`^\s*\S+\.go:\d+: `)
	frame = regexp.MustCompile(`^\s*(=== |--- )`)
)

// reason is why a test was skipped.
func (s *summary) reason(k key) string {
	var text []string
	for _, line := range s.said[k] {
		if !frame.MatchString(line) {
			text = append(text, strings.TrimSpace(place.ReplaceAllString(line, "")))
		}
	}
	why := strings.Join(text, " ")
	why = strings.TrimPrefix(why, "SKIPPED ")
	return strings.TrimPrefix(strings.TrimPrefix(why, k.test), ": ")
}

// how is the output of a failed test or package. Long output loses its middle.
func (s *summary) how(k key, outcome string) string {
	const first, last = 10, 30
	lines := s.said[k]
	if of, ok := s.broken[k]; ok {
		lines = s.builds[of]
	}
	lines = slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return frame.MatchString(line) })
	if cut := len(lines) - first - last; cut > 0 {
		lines = slices.Replace(lines, first, first+cut, fmt.Sprintf("… (%d lines)\n", cut))
	}
	if outcome == "" { // a panic or a timeout ended its package
		lines = append(lines, "it never ended\n")
	}
	return strings.Join(lines, "")
}

func (s *summary) ok() bool {
	_, failed, _ := s.count()
	return len(failed) == 0
}

// print writes the most important part last.
func (s *summary) print(out io.Writer, broken []error) {
	passed, failed, skipped := s.count()
	if len(skipped) > 0 {
		fmt.Fprintf(out, "\nSkipped:\n")
		why := map[string][]string{}
		for _, f := range skipped {
			why[f.why] = append(why[f.why], f.name())
		}
		for _, reason := range slices.Sorted(maps.Keys(why)) {
			fmt.Fprintf(out, "  %s\n", cmp.Or(reason, "no reason was given"))
			for _, name := range why[reason] {
				fmt.Fprintf(out, "      %s\n", name)
			}
		}
	}
	if len(failed) > 0 {
		fmt.Fprintf(out, "\nFailed:\n")
		for _, f := range failed {
			fmt.Fprintf(out, "  %s\n", f.name())
			for line := range strings.Lines(f.why) {
				fmt.Fprintf(out, "      %s\n", strings.TrimRight(line, "\n"))
			}
		}
	}
	for _, err := range broken {
		fmt.Fprintf(out, "\nFailed: %v\n", err)
	}
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", passed, len(failed)+len(broken), len(skipped))
}

const module = "github.com/pxectl/pxectl"

func (f finding) name() string {
	pkg := cmp.Or(strings.TrimPrefix(strings.TrimPrefix(f.pkg, module), "/"), ".")
	if f.test == "" {
		return pkg + ", the package as a whole"
	}
	return pkg + " " + f.test
}
