package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Output of `go test -json` of Go 1.26, shortened.
const (
	good = `{"Action":"start","Package":"github.com/pxectl/pxectl/dhcpd"}
{"Action":"run","Package":"github.com/pxectl/pxectl/dhcpd","Test":"TestA"}
{"Action":"run","Package":"github.com/pxectl/pxectl/dhcpd","Test":"TestA/one"}
{"Action":"pass","Package":"github.com/pxectl/pxectl/dhcpd","Test":"TestA/one"}
{"Action":"run","Package":"github.com/pxectl/pxectl/dhcpd","Test":"TestA/two"}
{"Action":"output","Package":"github.com/pxectl/pxectl/dhcpd","Test":"TestA/two","Output":"=== RUN   TestA/two\n"}
{"Action":"output","Package":"github.com/pxectl/pxectl/dhcpd","Test":"TestA/two","Output":"    a_test.go:10: SKIPPED TestA/two: needs the program dhcrelay, which is not installed\n"}
{"Action":"output","Package":"github.com/pxectl/pxectl/dhcpd","Test":"TestA/two","Output":"--- SKIP: TestA/two (0.00s)\n"}
{"Action":"skip","Package":"github.com/pxectl/pxectl/dhcpd","Test":"TestA/two"}
{"Action":"pass","Package":"github.com/pxectl/pxectl/dhcpd","Test":"TestA"}
{"Action":"pass","Package":"github.com/pxectl/pxectl/dhcpd"}
{"Action":"start","Package":"github.com/pxectl/pxectl/deploy/empty"}
{"Action":"skip","Package":"github.com/pxectl/pxectl/deploy/empty"}
`
	bad = `{"Action":"start","Package":"github.com/pxectl/pxectl/lab"}
{"Action":"run","Package":"github.com/pxectl/pxectl/lab","Test":"TestB"}
{"Action":"run","Package":"github.com/pxectl/pxectl/lab","Test":"TestB/sub"}
{"Action":"output","Package":"github.com/pxectl/pxectl/lab","Test":"TestB/sub","Output":"    b_test.go:7: left behind\n"}
{"Action":"fail","Package":"github.com/pxectl/pxectl/lab","Test":"TestB/sub"}
{"Action":"fail","Package":"github.com/pxectl/pxectl/lab","Test":"TestB"}
{"Action":"run","Package":"github.com/pxectl/pxectl/lab","Test":"TestC"}
{"Action":"pass","Package":"github.com/pxectl/pxectl/lab","Test":"TestC"}
{"Action":"fail","Package":"github.com/pxectl/pxectl/lab"}
`
	hung = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestD"}
{"Action":"output","Package":"p","Test":"TestD","Output":"panic: test timed out after 10m0s\n"}
{"Action":"fail","Package":"p"}
`
	unbuilt = `{"ImportPath":"q [q.test]","Action":"build-output","Output":"q/q_test.go:3:5: undefined: x\n"}
{"ImportPath":"q [q.test]","Action":"build-fail"}
{"Action":"start","Package":"q"}
{"Action":"output","Package":"q","Output":"FAIL\tq [build failed]\n"}
{"Action":"fail","Package":"q","FailedBuild":"q [q.test]"}
`
	crashed = `{"Action":"start","Package":"r"}
{"Action":"output","Package":"r","Output":"TestMain: no namespace\n"}
{"Action":"fail","Package":"r"}
`
)

func TestSummary(t *testing.T) {
	for name, c := range map[string]struct {
		runs []string
		want string
		ok   bool
	}{
		"passed and skipped": {[]string{good}, `
Skipped:
  needs the program dhcrelay, which is not installed
      dhcpd TestA/two

1 passed, 0 failed, 1 skipped
`, true},
		"two runs": {[]string{good, bad}, `
Skipped:
  needs the program dhcrelay, which is not installed
      dhcpd TestA/two

Failed:
  lab TestB/sub
          b_test.go:7: left behind

2 passed, 1 failed, 1 skipped
`, false},
		"the same package twice": {[]string{bad, bad}, `
Failed:
  lab TestB/sub
          b_test.go:7: left behind
  lab TestB/sub
          b_test.go:7: left behind

2 passed, 2 failed, 0 skipped
`, false},
		"a test that hangs": {[]string{hung}, `
Failed:
  p TestD
      panic: test timed out after 10m0s
      it never ended

0 passed, 1 failed, 0 skipped
`, false},
		"a package that does not build": {[]string{unbuilt}, `
Failed:
  q, the package as a whole
      q/q_test.go:3:5: undefined: x

0 passed, 1 failed, 0 skipped
`, false},
		"a package that fails without a test": {[]string{crashed}, `
Failed:
  r, the package as a whole
      TestMain: no namespace

0 passed, 1 failed, 0 skipped
`, false},
	} {
		t.Run(name, func(t *testing.T) {
			var files []string
			for i, text := range c.runs {
				file := filepath.Join(t.TempDir(), string(rune('a'+i))+".json")
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				files = append(files, file)
			}
			var out bytes.Buffer
			if ok := run(files, &out); ok != c.ok {
				t.Errorf("run() = %v, want %v", ok, c.ok)
			}
			if diff := cmp.Diff(c.want, out.String()); diff != "" {
				t.Errorf("summary (-want +got):\n%s", diff)
			}
		})
	}
}

// A run that left no results, or half a line, counts as failed, and the others are still reported.
func TestARunWithoutResultsHasFailed(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"good": good, "empty": "", "cut": good + `{"Action":"st`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"empty": "the tests did not begin", "cut": "line 14",
		"missing": "no such file",
	} {
		var out strings.Builder
		ok := run([]string{filepath.Join(dir, name), filepath.Join(dir, "good")}, &out)
		if ok || !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "TestA/two") ||
			!strings.Contains(out.String(), ", 1 failed, ") {
			t.Errorf("%s: run() = %v and\n%s\nwant it failed, with %q and what else there is", name, ok,
				out.String(), want)
		}
	}
}
