package console

import (
	"io"
	"sync"
)

const (
	maxComplaints = 16 // of one boot: a kernel can complain for ever
	endLines      = 3  // of a failed boot, which are reported as its end
)

// A Complaint is a line that says why a boot cannot go on.
type Complaint struct {
	About string // in the caller's words
	Quote string // the line, without what differs from boot to boot
	Final bool   // the system has given up; reported even after many others
}

// A Finding is one thing that a Watcher reports of a boot. Exactly one of the first four fields is set.
type Finding struct {
	Complaint Complaint // a line complains
	Ends      []string  // the last lines of a boot that failed
	Silent    bool      // a boot failed, and its console said nothing
	Absent    string    // why there is no console

	Lines []string // the last lines so far, with Complaint and Ends
}

// A Watcher watches the console of one machine while it boots, and shares it with operators. Its methods are
// for any goroutine.
type Watcher struct {
	complaint func(line string) (Complaint, bool)

	mu     sync.Mutex
	report func(Finding) // nil while no boot is watched
	text   Transcript
	left   int    // complaints that are still reported
	absent string // the last reported reason why there is no console

	operators int           // sessions of operators
	free      chan struct{} // closed when the last of them has ended
	hangUp    func()        // ends our own session
	ended     chan struct{} // closed when our own session has ended; nil when there is none
}

// NewWatcher returns a Watcher that asks complaint about each line.
func NewWatcher(complaint func(line string) (Complaint, bool)) *Watcher {
	return &Watcher{complaint: complaint}
}

// Begin watches another boot and reports it.
func (w *Watcher) Begin(report func(Finding)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report, w.text, w.left, w.absent = report, Transcript{}, maxComplaints, ""
}

// BootsAgain says that the machine boots anew by itself. Its complaints are reported afresh.
func (w *Watcher) BootsAgain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = maxComplaints
}

// End ends watching. It reports the last lines of a boot that failed.
func (w *Watcher) End(failed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.report == nil {
		return
	}
	if last := w.text.Last(endLines); failed && len(last) > 0 {
		w.report(Finding{Ends: last, Lines: w.text.Last(maxLines)})
	} else if failed && w.absent == "" {
		w.report(Finding{Silent: true})
	}
	w.report = nil
}

// Shows returns the last lines of the console, or nil while no boot is watched.
func (w *Watcher) Shows() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.report == nil {
		return nil
	}
	return w.text.Last(endLines)
}

// Write takes the console's output.
func (w *Watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.report == nil {
		return len(p), nil
	}
	w.text.Add(p, func(line string) {
		c, ok := w.complaint(line)
		if !ok || w.left <= 0 && (!c.Final || w.left <= -maxComplaints) {
			return
		}
		w.left--
		w.report(Finding{Complaint: c, Lines: w.text.Last(maxLines)})
	})
	return len(p), nil
}

var _ io.Writer = (*Watcher)(nil)

// reportAbsent reports why there is no console, once for each reason.
func (w *Watcher) reportAbsent(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.report != nil && w.absent != why {
		w.absent = why
		w.report(Finding{Absent: why})
	}
}
