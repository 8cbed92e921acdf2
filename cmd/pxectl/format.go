package main

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

// age is how long ago t was, as one number: "12s", "3m", "5h", "12d".
func (c *cli) age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	switch d := max(c.now().Sub(t), 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

func (c *cli) ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return c.age(t) + " ago"
}

// took is a duration in detail: "0.4s", "41s", "1m40s", "1h02m".
func took(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute-500*time.Millisecond:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour-500*time.Millisecond:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	default:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
}

// clock is the time since a beginning: "0:07", "12:40", "1:02:03".
func clock(d time.Duration) string {
	s := int(max(d, 0).Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// binary is a size in units of 1024: "512 MiB", "1.2 GiB".
func binary[T int64 | uint64](n T) string { return humanize.IBytes(uint64(n)) }

func percent(done, total uint64) string {
	if total == 0 {
		return ""
	}
	return fmt.Sprintf("%d%%", min(100, uint64(float64(done)/float64(total)*100)))
}

// count is "1 disk", "2 disks".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
