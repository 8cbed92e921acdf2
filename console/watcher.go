package console

import (
	"io"
	"strconv"
	"strings"
	"sync"
)

const (
	maxComplaints = 16 // events of one boot: a kernel can complain for ever
	endLines      = 3  // of the console's end, in the text of an event
)

// A Complaint is a line that says why a boot cannot go on.
type Complaint struct {
	About string // what it is about, in the caller's words
	Quote string // the line, without what differs from boot to boot
	Final bool   // the system has given up; reported even after many others
}

// A Report is what a Watcher tells of a boot: a sentence, and the data of its event.
type Report func(text string, data map[string]string)

// A Watcher watches the console of one machine while it boots, and shares it with operators. Its methods are for any goroutine.
type Watcher struct {
	complaint func(line string) (Complaint, bool)

	mu     sync.Mutex
	report Report // nil while no boot is watched
	text   Transcript
	left   int    // complaints that are still reported
	absent string // why there is no console, as it was reported

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
func (w *Watcher) Begin(report Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report, w.text, w.left, w.absent = report, Transcript{}, maxComplaints, ""
}

// BootsAgain says that the machine has begun to boot anew by itself. Its complaints are reported afresh.
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
		w.report("its console ends with "+Quoted(last), w.dataLocked())
	} else if failed && w.absent == "" {
		w.report("its console said nothing: is the firmware's redirection to the BMC's serial port on?", nil)
	}
	w.report = nil
}

// Shows returns the last lines of the console while a boot is watched.
func (w *Watcher) Shows() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.report == nil {
		return nil
	}
	return w.text.Last(endLines)
}

// Quoted lists lines for a sentence.
func Quoted(lines []string) string {
	var quoted []string
	for _, l := range lines {
		quoted = append(quoted, strconv.Quote(l))
	}
	return strings.Join(quoted, ", ")
}

// dataLocked is the data of every event that quotes the console: its lines so far.
func (w *Watcher) dataLocked() map[string]string {
	return map[string]string{"console": strings.Join(w.text.Last(maxLines), "\n")}
}

// Write takes what the machine says.
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
		data := w.dataLocked()
		data["complaint"], data["quote"] = c.About, c.Quote
		w.report("the console says "+strconv.Quote(c.Quote), data)
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
		w.report("no console: "+why, map[string]string{"none": why})
	}
}
