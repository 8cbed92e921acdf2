package deploy

import (
	"fmt"

	"github.com/dustin/go-humanize"

	"github.com/pxectl/pxectl/inventory"
)

// What agents say is bounded before it is kept: a report by inventory.Report.Bounded, the reports of all
// strangers together by strangersReports, and what a transaction puts on the timeline by
// timeline.PerTransaction.
const (
	// envelope is how many bytes a result may have beside its report.
	envelope = 4 << 10
	// strangersReports is how many bytes the reports of all machines that wait for approval may take
	// together. They are kept in memory, too.
	strangersReports = 32 << 20
)

func bootNonce(m inventory.Machine) string {
	if m.Boot == nil {
		return ""
	}
	return m.Boot.Nonce.String()
}

// inspected stores the agent's report, and applies what it says of the BMC.
func (w *worker) inspected(r inventory.Result) error {
	if r.Report == nil {
		// Store a report that says only what went wrong: the same agent would fail again.
		reason := r.Error
		if reason == "" {
			reason = "the agent's result carries no report"
		}
		r.Report = &inventory.Report{Problems: []string{reason}}
	}
	rep := w.kept(*r.Report)
	return w.save(func(m *inventory.Machine, _ *inventory.Deployment) []inventory.Event {
		m.Report, m.ReportedAt = &rep, w.now()
		if m.Boot != nil {
			boot := *m.Boot
			boot.Reported = true
			m.Boot = &boot
		}
		if m.UUID == "" {
			m.UUID = rep.System.UUID
		}
		events := []inventory.Event{{Kind: inventory.KindAgent, Text: "inspected: " + summary(rep)}}
		if rep.BMC != nil {
			bmc := parsedBMC(*rep.BMC)
			events = append(events, w.claimed(m, &bmc)...)
			rep.BMC = &bmc
		}
		for _, p := range rep.Problems {
			events = append(events, inventory.Event{Kind: inventory.KindAgent, Text: "inspect: " + p})
		}
		return events
	})
}

func summary(r inventory.Report) string {
	return fmt.Sprintf("%s %s, %d × %s, %s memory, disks: %s", r.System.Manufacturer, r.System.Product,
		r.CPU.Threads, r.CPU.Model, humanize.IBytes(r.Memory.Bytes), inventory.ListDisks(r.Disks))
}

// maxReport is how many bytes the report of a machine may have. A stranger's is shorter, since anybody can
// pose as many strangers.
func maxReport(m inventory.Machine) int {
	if m.State == inventory.Discovered {
		return inventory.StrangerReport
	}
	return inventory.KnownReport
}

// kept returns the report as it is stored: bounded, with the names of its PCI functions, and brief when the
// reports of strangers take too much.
func (w *worker) kept(r inventory.Report) inventory.Report {
	m := w.snap.Load().m
	limit := maxReport(m)
	r = withNames(r.Bounded(limit), limit)
	if m.State != inventory.Discovered {
		return r
	}
	if others := w.e.strangersHold(w); others+int64(r.Weight()) > strangersReports {
		return r.Brief(fmt.Sprintf("the reports of machines that wait for approval take %d MiB together, "+
			"and this one would be too much: approve the machine and boot it again, "+
			"or delete strangers with `pxectl machine delete --discovered`",
			strangersReports>>20))
	}
	return r
}

// strangersHold is how many bytes the reports of all machines that wait for approval take, except for one of
// them.
func (e *Engine) strangersHold(but *worker) (n int64) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, w := range e.workers {
		if w != but && w.snap.Load().m.State == inventory.Discovered {
			n += w.reportSize.Load()
		}
	}
	return n
}
