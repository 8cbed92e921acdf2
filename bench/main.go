package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/pxectl/pxectl/internal/testnet"
)

// benchmarks lists all benchmarks, in the order in which they run.
var benchmarks = slices.Concat(dhcpBenchmarks(), fleetBenchmarks(), httpBenchmarks(), importBenchmarks(),
	stormBenchmarks(), tftpBenchmarks(), writeBenchmarks())

// loads are the programs for the client's namespace: this program, under these names.
var loads = map[string]func() error{fleetCommand: fleetMain, proxyCommand: proxyMain, stormCommand: stormMain}

func main() {
	runJob()
	if len(os.Args) == 2 {
		if load, ok := loads[os.Args[1]]; ok {
			if err := load(); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
				os.Exit(1)
			}
			return
		}
	}
	pairs := flag.Int("pairs", 5, "how often each side is measured")
	asJSON := flag.Bool("json", false, "print results as JSON, one object a line")
	page := flag.String("markdown", "",
		"put the results into this `page`; rows that were not measured stay as they are")
	list := flag.Bool("list", false, "list the benchmarks and their rows")
	pxectl := flag.String("pxectl", "bin/pxectl", "the `program` to measure, from make build")
	flag.Parse()
	if *list {
		for _, b := range benchmarks {
			for _, r := range b.rows {
				fmt.Printf("%s\t%s\t%s\n", b.name, r.name, r.what)
			}
		}
		return
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench: needs root, for network namespaces of its own")
		os.Exit(1)
	}
	if _, err := os.Stat(*pxectl); err != nil {
		fmt.Fprintln(os.Stderr, "bench: run `make build` first:", err)
		os.Exit(1)
	}
	testnet.Isolate()
	if err := runAll(flag.Args(), *pxectl, *pairs, *asJSON, *page); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// runJob runs the job that the environment names, in a child process of this program, and exits.
func runJob() {
	if job := os.Getenv(writeJobEnv); job != "" {
		writeAsAgent(job)
	}
	if job := os.Getenv(importJobEnv); job != "" {
		importAsAppliance(job)
	}
}

func runAll(names []string, pxectl string, pairs int, asJSON bool, page string) error {
	wanted, err := choose(names)
	if err != nil {
		return err
	}
	var all []result
	var short, broken []string
	for _, spec := range wanted {
		if missing := missing(spec.needs); len(missing) > 0 {
			for _, r := range spec.rows {
				fmt.Fprintf(os.Stderr, "SKIPPED %s: needs %s (packaging/deps bench)\n", r.name,
					strings.Join(missing, ", "))
			}
			continue
		}
		results, err := one(spec, pxectl, pairs)
		if err != nil {
			fmt.Fprintln(os.Stderr, "BROKEN", err)
			broken = append(broken, spec.name)
		}
		for _, r := range results {
			if asJSON {
				_ = json.NewEncoder(os.Stdout).Encode(r)
			} else {
				fmt.Println(r)
			}
			if !r.OK {
				short = append(short, r.Name)
			}
		}
		all = append(all, results...)
	}
	if page != "" {
		if err := update(page, all); err != nil {
			return err
		}
	}
	switch {
	case broken != nil:
		return fmt.Errorf("broken: %s", strings.Join(broken, ", "))
	case short != nil:
		return fmt.Errorf("short of their goals: %s", strings.Join(short, ", "))
	}
	return nil
}

func one(spec benchmark, pxectl string, pairs int) ([]result, error) {
	dir, err := os.MkdirTemp("/var/tmp", "pxectl-bench-") // a disk, as data_dir is on one
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	return measure(spec, pxectl, dir, pairs)
}

// choose finds benchmarks by their names or by those of their rows. Without a name it takes all.
func choose(names []string) ([]benchmark, error) {
	if len(names) == 0 {
		return benchmarks, nil
	}
	var out []benchmark
	for _, b := range benchmarks {
		if slices.ContainsFunc(names, b.answers) {
			out = append(out, b)
		}
	}
	for _, n := range names {
		if !slices.ContainsFunc(benchmarks, func(b benchmark) bool { return b.answers(n) }) {
			return nil, fmt.Errorf("no row %q; -list shows them", n)
		}
	}
	return out, nil
}

func (spec benchmark) answers(name string) bool {
	return spec.name == name || slices.ContainsFunc(spec.rows, func(r row) bool { return r.name == name })
}

func missing(programs []string) (out []string) {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			out = append(out, p)
		}
	}
	return out
}
