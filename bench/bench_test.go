package main

import (
	"strings"
	"testing"
)

func TestGoals(t *testing.T) {
	for _, c := range []struct {
		name        string
		goal        goal
		ours, ratio float64
		want        bool
		text        string
	}{
		{"as fast as the peer", atLeastPeer(0.95), 1, 0.95, true, "≥0.95×"},
		{"slower than the peer", atLeastPeer(1), 1000, 0.99, false, "≥1.00×"},
		{"no more than the peer", atMostPeer(1.2), 9, 1.3, false, "≤1.20×"},
		{"alone, enough", atLeast(20000), 20001, 0, true, "≥20000"},
		{"alone, too much", atMost(250), 251, 0, false, "≤250"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.goal.met(c.ours, c.ratio); got != c.want {
				t.Errorf("met(%v, %v) = %v, want %v", c.ours, c.ratio, got, c.want)
			}
			if got := c.goal.String(); got != c.text {
				t.Errorf("String() = %q, want %q", got, c.text)
			}
		})
	}
}

// The highest rate is found to within 3 %, wherever the search begins, and never above the generator's own
// limit.
func TestMostLeases(t *testing.T) {
	for _, c := range []struct{ near, server, generator, low, high float64 }{
		{4000, 10000, 1e6, 9700, 10000},
		{4000, 9537, 1e6, 9250, 9537},
		{4000, 9536, 1e6, 9249, 9536},
		{9900, 10000, 1e6, 9700, 10000},
		{20000, 10000, 1e6, 9700, 10000},
		{200, 305, 1e6, 296, 305},
		{4000, 50000, 12000, 12000, 15000},
	} {
		asks := 0
		got := mostLeases(&bench{}, c.near, func(rate float64) leaseRun {
			asks++
			return leaseRun{asked: rate, ok: rate <= c.server, limited: rate > c.generator}
		})
		if got.asked < c.low || got.asked > c.high || got.limited != (c.generator < c.server) || asks > 15 {
			t.Errorf("from %v, of a server that answers %v and a generator that asks %v: %+v after %d tries, want %v to %v",
				c.near, c.server, c.generator, got, asks, c.low, c.high)
		}
	}
}

func figures(v ...float64) func() []float64 {
	return func() []float64 {
		f := v[0]
		v = v[1:]
		return []float64{f}
	}
}

func TestMeasure(t *testing.T) {
	spec := benchmark{
		name: "x", peer: "other", rows: []row{{name: "x", unit: "MB/s", goal: atLeastPeer(1)}},
		start: func(*bench) (ours, peer func() []float64) { return figures(30, 10, 22), figures(10, 10, 20) },
	}
	got, err := measure(spec, "", t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	// The ratios are 3, 1 and 1.1.
	if want := "x ours=22.0MB/s peer=10.0MB/s ratio=1.10 goal=≥1.00× ok"; got[0].String() != want {
		t.Errorf("measure() = %q, want %q", got[0], want)
	}

	spec.rows = []row{{name: "x", goal: never()}}
	spec.start = func(*bench) (ours, peer func() []float64) { return figures(0, 1, 0), nil }
	if got, _ := measure(spec, "", t.TempDir(), 3); got[0].Ours != 1 || got[0].OK {
		t.Errorf("measure() of what must never happen = %+v, want the worst and short", got[0])
	}

	var order []string
	spec.start = func(b *bench) (ours, peer func() []float64) {
		b.Cleanup(func() { order = append(order, "first") })
		b.Cleanup(func() { order = append(order, "last") })
		return func() []float64 { b.Fatalf("no answer from %s", "it"); return nil }, nil
	}
	if _, err := measure(spec, "", t.TempDir(), 3); err == nil || err.Error() != "x: no answer from it" ||
		strings.Join(order, " ") != "last first" {
		t.Errorf("measure() = %v after cleanups %q, want the failure and cleanups in reverse", err, order)
	}
}

func TestMerge(t *testing.T) {
	defer func(old []benchmark) { benchmarks = old }(benchmarks)
	benchmarks = []benchmark{
		{name: "a", rows: []row{{name: "a1"}, {name: "a2"}}}, {name: "b", rows: []row{{name: "b1"}}},
	}
	page := "# How fast\n" + pageBegin + "\nold\n| `a2` | kept |\n| `b1` | replaced |\n| `gone` | x |\n" +
		pageEnd + "\nend\n"
	got, err := merge(page, []result{{Name: "b1", What: "new", Unit: "ms", Ours: 3, Goal: "≤250", OK: true}},
		"a host")
	if err != nil {
		t.Fatal(err)
	}
	want := "# How fast\n" + pageBegin + "\n" + pageHead +
		"| `a2` | kept |\n| `b1` | new | 3.00 ms | – | – | ≤250 | ok | 0001-01-01, 0 pairs, a host |\n" +
		pageEnd + "\nend\n"
	if got != want {
		t.Errorf("merge() =\n%s\nwant\n%s", got, want)
	}
	if _, err := merge("# a page without a table\n", nil, ""); err == nil {
		t.Error("merge of a page without a place for the table: no error")
	}
}

func TestRowsAreNamedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range benchmarks {
		for _, r := range b.rows {
			if seen[r.name] {
				t.Errorf("two rows are named %q", r.name)
			}
			seen[r.name] = true
		}
	}
}
