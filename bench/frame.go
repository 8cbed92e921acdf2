package main

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
)

// A goal is a bound on a row: on the ratio of ours to the peer's, or on ours alone.
type goal struct {
	bound   float64
	atMost  bool // else at least
	ofRatio bool // else of ours
	worst   bool // the worst of all measurements must reach it; else their median
}

func atLeastPeer(ratio float64) goal { return goal{bound: ratio, ofRatio: true} }
func atMostPeer(ratio float64) goal  { return goal{bound: ratio, ofRatio: true, atMost: true} }
func atLeast(ours float64) goal      { return goal{bound: ours} }
func atMost(ours float64) goal       { return goal{bound: ours, atMost: true} }

// never is the goal of an event that must not happen in any of the measurements.
func never() goal { return goal{atMost: true, worst: true} }

func (g goal) String() string {
	sign, unit := "≥", ""
	if g.atMost {
		sign = "≤"
	}
	if g.ofRatio {
		unit = "×"
	}
	return sign + number(g.bound) + unit
}

func (g goal) met(ours, ratio float64) bool {
	got := ours
	if g.ofRatio {
		got = ratio
	}
	if g.atMost {
		return got <= g.bound
	}
	return got >= g.bound
}

// A row is one figure with its goal.
type row struct {
	name string
	unit string // of both sides: "MB/s"
	what string // a line for the page
	goal goal
}

// A benchmark measures its rows together.
type benchmark struct {
	name  string // selects all its rows
	peer  string // the other program; "" when there is only a bound
	needs []string
	rows  []row
	// start prepares both sides. ours and peer each measure once and return one figure for each row; peer is
	// nil when there is none. start ends whatever it starts by b.Cleanup.
	start func(b *bench) (ours, peer func() []float64)
}

// A bench is a running benchmark. It is a testing.TB as far as testnet and the rows need one.
type bench struct {
	testing.TB
	name     string
	pxectl   string // the program to measure
	dir      string
	failure  string
	cleanups []func()
}

func (b *bench) Helper()          {}
func (b *bench) Name() string     { return b.name }
func (b *bench) TempDir() string  { return b.dir }
func (b *bench) Cleanup(f func()) { b.cleanups = append(b.cleanups, f) }
func (b *bench) Fatal(args ...any) {
	b.failure = fmt.Sprint(args...)
	runtime.Goexit()
}
func (b *bench) Fatalf(format string, args ...any) { b.Fatal(fmt.Sprintf(format, args...)) }

// A result is a measured row.
type result struct {
	Name   string    `json:"name"`
	What   string    `json:"what"`
	Unit   string    `json:"unit"`
	Peer   string    `json:"peer,omitempty"` // whose program
	Ours   float64   `json:"ours"`
	Theirs float64   `json:"theirs,omitempty"`
	Ratio  float64   `json:"ratio,omitempty"`
	Goal   string    `json:"goal"`
	OK     bool      `json:"ok"`
	Pairs  int       `json:"pairs"`
	At     time.Time `json:"at"`
}

func (r result) verdict() string {
	if r.OK {
		return "ok"
	}
	return "short"
}

func (r result) String() string {
	peer, ratio := "-", "-"
	if r.Peer != "" {
		peer, ratio = number(r.Theirs)+r.Unit, number(r.Ratio)
	}
	return fmt.Sprintf("%s ours=%s peer=%s ratio=%s goal=%s %s", r.Name, number(r.Ours)+r.Unit, peer, ratio,
		r.Goal, r.verdict())
}

// measure runs a benchmark and returns its failure as an error.
func measure(spec benchmark, pxectl, dir string, pairs int) (results []result, err error) {
	b := &bench{name: spec.name, pxectl: pxectl, dir: dir}
	done := make(chan struct{})
	go func() { // its own goroutine, because Fatal ends it
		defer close(done)
		defer func() {
			for _, f := range slices.Backward(b.cleanups) {
				f()
			}
		}()
		b.failure = "it ended without a figure"
		ours, peer := spec.start(b)
		a, p := run(ours, peer, pairs)
		results = spec.results(a, p)
		b.failure = ""
	}()
	<-done
	if b.failure != "" {
		return nil, fmt.Errorf("%s: %s", spec.name, b.failure)
	}
	return results, nil
}

// run measures both sides in turn.
func run(ours, peer func() []float64, pairs int) (a, p [][]float64) {
	for i := range pairs {
		if peer != nil && i%2 == 1 {
			p = append(p, peer())
			a = append(a, ours())
			continue
		}
		a = append(a, ours())
		if peer != nil {
			p = append(p, peer())
		}
	}
	return a, p
}

// results takes figures by pair and then by row.
func (spec benchmark) results(ours, peer [][]float64) []result {
	var out []result
	for i, r := range spec.rows {
		var a, p, ratios []float64
		for k := range ours {
			a = append(a, ours[k][i])
			if peer != nil {
				p = append(p, peer[k][i])
				ratios = append(ratios, ours[k][i]/peer[k][i])
			}
		}
		res := result{
			Name: r.name, What: r.what, Unit: r.unit, Peer: spec.peer, Ours: median(a), Goal: r.goal.String(),
			Pairs: len(a), At: time.Now().UTC(),
		}
		if peer != nil {
			res.Theirs, res.Ratio = median(p), median(ratios)
		}
		if r.goal.worst {
			res.Ours = slices.Max(a)
		}
		res.OK = r.goal.met(res.Ours, res.Ratio)
		out = append(out, res)
	}
	return out
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	if n == 0 {
		return 0
	}
	return (s[(n-1)/2] + s[n/2]) / 2
}

// number prints three significant digits.
func number(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}
