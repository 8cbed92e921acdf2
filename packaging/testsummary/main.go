// Testsummary reads the JSON of test runs (`go test -json`, gotestsum --jsonfile) and prints one summary in
// plain words: which tests were skipped and why, which failed and how, and one line of counts. It fails when
// a test failed.
//
//	testsummary FILE...
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: testsummary FILE...")
		os.Exit(2)
	}
	if !run(os.Args[1:], os.Stdout) {
		os.Exit(1)
	}
}

// run says whether all went well. A run without results counts as failed.
func run(files []string, out io.Writer) (ok bool) {
	s := newSummary()
	var broken []error
	for _, name := range files {
		f, err := os.Open(name)
		if err == nil {
			err = s.read(f)
			f.Close()
		}
		if err != nil {
			broken = append(broken, fmt.Errorf("the results of a run cannot be read: %s: %w", name, err))
		}
	}
	s.print(out, broken)
	return s.ok() && broken == nil
}
