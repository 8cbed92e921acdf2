package console

import (
	"io"
	"strings"
	"testing"
)

// A machine that complains for ever does not fill its timeline. A panic of its kernel is reported even so.
func TestComplaintsAreBounded(t *testing.T) {
	w := NewWatcher(func(line string) (Complaint, bool) {
		return Complaint{About: "kernel", Quote: line, Final: strings.Contains(line, "panic")}, true
	})
	reports := 0
	w.Begin(func(Finding) { reports++ })
	for range 1000 {
		_, _ = io.WriteString(w, "[    1.000000] BUG: scheduling while atomic\r\n")
	}
	_, _ = io.WriteString(w, "[    2.000000] Kernel panic - not syncing: Fatal exception\r\n")
	if reports != maxComplaints+1 {
		t.Errorf("1000 complaints and a panic are %d reports, want %d and the panic", reports, maxComplaints)
	}
	for range 1000 {
		_, _ = io.WriteString(w, "[    2.000000] Kernel panic - not syncing: Fatal exception\r\n")
	}
	if reports > 2*maxComplaints {
		t.Errorf("1000 panics are %d reports, want at most %d in all", reports, 2*maxComplaints)
	}
}
