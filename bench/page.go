package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// The page keeps its prose; the table between these lines is written anew.
const (
	pageBegin = "<!-- bench: begin -->"
	pageEnd   = "<!-- bench: end -->"
	pageHead  = "| row | what | ours | peer | ratio | goal | | measured |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
)

// update writes results into the page.
func update(path string, results []result) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := merge(string(raw), results, host())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// merge replaces the table's lines of the measured rows and adds new ones. It drops rows that no longer
// exist.
func merge(page string, results []result, host string) (string, error) {
	before, rest, ok := strings.Cut(page, pageBegin)
	table, after, ok2 := strings.Cut(rest, pageEnd)
	if !ok || !ok2 {
		return "", fmt.Errorf("no %q and %q in it", pageBegin, pageEnd)
	}
	lines := map[string]string{}
	for line := range strings.Lines(table) {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` |"); ok &&
			strings.HasPrefix(line, "| `") {
			lines[name] = line
		}
	}
	for _, r := range results {
		lines[r.Name] = r.line(host)
	}
	var b strings.Builder
	b.WriteString(before + pageBegin + "\n" + pageHead)
	for _, spec := range benchmarks {
		for _, r := range spec.rows {
			b.WriteString(lines[r.name])
		}
	}
	b.WriteString(pageEnd + after)
	return b.String(), nil
}

func (r result) line(host string) string {
	peer, ratio, verdict := "–", "–", r.verdict()
	if r.Peer != "" {
		peer, ratio = fmt.Sprintf("%s %s (%s)", number(r.Theirs), r.Unit, r.Peer), number(r.Ratio)
	}
	if !r.OK {
		verdict = "**short**"
	}
	return fmt.Sprintf("| `%s` | %s | %s %s | %s | %s | %s | %s | %s, %d pairs, %s |\n",
		r.Name, r.What, number(r.Ours), r.Unit, peer, ratio, r.Goal, verdict, r.At.Format("2006-01-02"),
		r.Pairs, host)
}

// host describes the machine of the figures, without its name.
func host() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	cpu := "unknown CPU"
	for line := range strings.Lines(string(info)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			cpu = strings.TrimSpace(v)
			break
		}
	}
	release, _ := exec.Command("uname", "-r").Output()
	kernel, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-")
	return fmt.Sprintf("%d × %s, Linux %s, %s", runtime.NumCPU(), cpu, kernel, runtime.Version())
}
