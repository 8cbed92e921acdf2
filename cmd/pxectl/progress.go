package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// A moment is how far one task is.
type moment struct {
	at          time.Duration // since it began
	step        string
	done, total uint64 // bytes; total 0: nothing is counted
	end, failed bool
}

// A progress shows how far several tasks are: as bars on a terminal, as lines elsewhere.
type progress interface {
	show(i int, m moment)
	note(text string) // about all tasks
	close()           // leaves the last state on the screen
}

// newProgress shows progress on standard error, so that standard output has only the result.
func (c *cli) newProgress(ctx context.Context, names []string, widestStep int) progress {
	wide := 0
	for i, n := range names {
		names[i] = clean(n)
		wide = max(wide, len(names[i]))
	}
	if _, ok := terminal(c.err); ok {
		return newBars(ctx, c.err, names, wide, widestStep)
	}
	return &lines{w: c.err, names: names, wide: wide, last: make([]moment, len(names))}
}

// reportEvery is the time between two lines about one step.
const reportEvery = 10 * time.Second

// lines prints one line per step, and more at intervals while bytes move.
type lines struct {
	w     io.Writer
	names []string
	wide  int
	last  []moment // printed
}

func (l *lines) show(i int, m moment) {
	last := l.last[i]
	same := m.step == last.step && !m.end
	if same && (m.total == 0 || last.total != 0 && m.at-last.at < reportEvery) {
		return
	}
	text := clean(m.step)
	if m.total > 0 {
		text += "  " + figures(m)
		if same && last.total != 0 && m.done > last.done && m.at > last.at {
			text += "  " + speed(m.done-last.done, m.at-last.at)
		}
	}
	fmt.Fprintf(l.w, "%7s  %-*s  %s\n", clock(m.at), l.wide, l.names[i], text)
	l.last[i] = m
}

func (l *lines) note(text string) { fmt.Fprintf(l.w, "%7s  %s\n", "", text) }

func (l *lines) close() {}

func figures(m moment) string {
	return fmt.Sprintf("%s of %s  %s", binary(m.done), binary(m.total), percent(m.done, m.total))
}

func speed(bytes uint64, in time.Duration) string {
	return binary(uint64(float64(bytes)/in.Seconds())) + "/s"
}

// bars draws one bar per task.
type bars struct {
	all  *mpb.Progress
	rows []*barRow
}

type barRow struct {
	bar *mpb.Bar

	mu   sync.Mutex
	m    moment
	past []moment // of this step, for the rate
}

// rateOver is the time over which a rate is taken.
const rateOver = 8 * time.Second

func newBars(ctx context.Context, w io.Writer, names []string, wide, widestStep int) *bars {
	b := &bars{
		all: mpb.NewWithContext(ctx, mpb.WithOutput(w), mpb.WithAutoRefresh(), mpb.WithWidth(28),
			mpb.WithRefreshRate(200*time.Millisecond)),
	}
	style := mpb.BarStyle().Lbound("").Filler("━").Tip("━").Padding("─").Rbound("")
	for _, name := range names {
		r := &barRow{}
		r.bar = b.all.New(
			0, style, // 0: the bar ends when we say so, not when it is full, as each step fills it again
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string {
				return r.before(name, wide, widestStep)
			})),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return r.after() })),
		)
		b.rows = append(b.rows, r)
	}
	return b
}

func (r *barRow) before(name string, wide, widestStep int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	step := clean(r.m.step)
	if r.m.end && r.m.failed {
		step = "failed" // the reason is printed below the bars
	}
	return fmt.Sprintf("%-*s  %-*s  ", wide, name, widestStep, step)
}

func (r *barRow) after() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := fmt.Sprintf("  %6s", clock(r.m.at))
	if r.m.total == 0 || r.m.end {
		return text
	}
	text += "  " + figures(r.m)
	if first := r.past[0]; r.m.done > first.done && r.m.at > first.at {
		text += "  " + speed(r.m.done-first.done, r.m.at-first.at)
	}
	return text
}

func (b *bars) show(i int, m moment) {
	r := b.rows[i]
	r.mu.Lock()
	if m.step != r.m.step {
		r.past = nil
	}
	r.past = append(r.past, m)
	for len(r.past) > 2 && m.at-r.past[0].at > rateOver {
		r.past = r.past[1:]
	}
	r.m = m
	r.mu.Unlock()
	switch {
	case m.end && m.failed:
		r.bar.Abort(false)
	case m.end:
		r.bar.SetTotal(1, true)
	case m.total > 0:
		r.bar.SetTotal(int64(m.total), false)
		r.bar.SetCurrent(int64(m.done))
	default:
		r.bar.SetTotal(1, false)
		r.bar.SetCurrent(0)
	}
}

func (b *bars) note(text string) { fmt.Fprintln(b.all, clean(text)) }

func (b *bars) close() {
	for _, r := range b.rows {
		r.bar.Abort(false) // bars that have not ended stay as they are; the others ignore it
	}
	b.all.Wait()
}
