package deploy

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/pxectl/pxectl/console"
	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// bootsWithin is how long a machine without a deployment is watched as it boots, after it was switched on or
// got its boot script.
const bootsWithin = 15 * time.Minute

// consoleComplaint tells the watcher of a console which lines complain.
func consoleComplaint(line string) (console.Complaint, bool) {
	c, ok := diagnose.ComplaintIn(line)
	return console.Complaint{About: string(c.About), Quote: c.Quote, Final: c.Final()}, ok
}

// consoleEvent returns the event of a watcher's finding.
func consoleEvent(f console.Finding) inventory.Event {
	ev := inventory.Event{Kind: inventory.KindConsole, Data: map[string]string{}}
	if len(f.Lines) > 0 {
		ev.Data[inventory.DataConsole] = strings.Join(f.Lines, "\n")
	}
	switch {
	case f.Complaint.Quote != "":
		ev.Text = "the console says " + strconv.Quote(f.Complaint.Quote)
		ev.Data[inventory.DataComplaint], ev.Data[inventory.DataQuote] = f.Complaint.About, f.Complaint.Quote
	case len(f.Ends) > 0:
		ev.Text = "its console ends with " + quoted(f.Ends)
	case f.Silent:
		ev.Text = "its console said nothing: is the firmware's redirection to the BMC's serial port on?"
	case f.Absent != "":
		ev.Text, ev.Data[inventory.DataAbsent] = "no console: "+f.Absent, f.Absent
	}
	return ev
}

// quoted lists lines for a sentence.
func quoted(lines []string) string {
	var all []string
	for _, l := range lines {
		all = append(all, strconv.Quote(l))
	}
	return strings.Join(all, ", ")
}

// watchConsole watches the machine's console while it boots into the agent. The loop calls it before each
// move.
func (w *worker) watchConsole(f Facts) {
	boot := w.booting(f)
	asked := w.asked.at.Load()
	if boot == w.watching {
		if boot != "" && asked != w.watchedAsk {
			w.console.BootsAgain()
			w.watchedAsk = asked
		}
		return
	}
	if w.watching != "" {
		w.stopWatching()
		w.console.End(w.bootedInVain(f))
	}
	w.watching, w.watchedAsk = boot, asked
	if boot == "" {
		return
	}
	w.console.Begin(func(f console.Finding) {
		ev := consoleEvent(f)
		ev.Machine = w.id
		w.e.Note(ev)
	})
	ctx, cancel := context.WithCancel(w.ctx)
	w.stopWatching = cancel
	w.e.wg.Go(func() {
		defer bug.Recover(w.log(), "watch the console")
		defer cancel()
		w.console.Watch(ctx, func() (power.BMC, error) { return w.bmc(w.snap.Load().m) })
	})
}

// booting names the boot that is under way, from the moment when the machine is to be switched on until its
// agent calls; "" when there is none. The BMC is part of the name, so that nothing more is sent to a BMC that
// was replaced.
func (w *worker) booting(f Facts) string {
	s := w.snap.Load()
	switch {
	case s.m.BMC.Address == "" || f.Maintenance || f.AgentHere:
		return ""
	case f.Deploying && f.Step == inventory.BootAgent && f.Began && !f.Overdue && !f.Proved && !f.Erred:
		return orderID(s.d, s.record()) + " by " + reached(s.m.BMC)
	case f.State == inventory.Enrolled && w.sinceStart() < bootsWithin:
		return string(inventory.Enrolled) + " by " + reached(s.m.BMC)
	}
	return ""
}

// bootedInVain says whether a boot's time is over and its agent did not call. It is false for a boot that was
// cancelled, or that goes on by another BMC: its console may not have had time to show anything.
func (w *worker) bootedInVain(f Facts) bool {
	switch {
	case f.AgentHere || f.Maintenance:
		return false
	case f.Deploying:
		return f.Step == inventory.BootAgent && f.Overdue
	}
	return f.State == inventory.Enrolled && w.sinceStart() >= bootsWithin
}

// sinceStart is how long ago a machine without a deployment was switched on, or got its script.
func (w *worker) sinceStart() time.Duration {
	elapsed := w.e.cfg.Elapsed()
	return min(w.asked.reads(elapsed), w.switched.reads(elapsed))
}

// nudge makes the loop look at the facts, unless it is about to.
func (w *worker) nudge() {
	select {
	case w.mail <- func() {}:
	default:
	}
}
