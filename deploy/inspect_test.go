package deploy

import (
	"strings"
	"testing"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/timeline"
)

// A stranger's report with 300,000 problems is one short transaction, and what is kept says how many there
// were.
func TestAReportWithoutEnd(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	huge := inventory.Report{
		Problems: make([]string, 300_000), System: inventory.System{Serial: strings.Repeat("s", 1<<20)},
	}
	for i := range huge.Problems {
		huge.Problems[i] = "problem 0"
	}
	r.setAnswer(func(inventory.Order) inventory.Result { return inventory.Result{Report: &huge} })
	r.start()
	r.powerOn(power.Boot{Device: power.DevicePXE})
	r.until(inventory.Discovered)
	r.reported()
	m := r.machine()
	if got := m.Report.Size(); got > inventory.StrangerReport ||
		len(m.Report.System.Serial) > inventory.MaxWord {
		t.Errorf("a stranger's report takes %d bytes, its serial number %d", got, len(m.Report.System.Serial))
	}
	if said := strings.Join(m.Report.Problems, "\n"); !strings.Contains(said,
		"300000 problems are reported") || !strings.Contains(said, "problem 0") {
		t.Errorf("problems %q, want that there were more", said)
	}
	events, err := r.now().Events(0, m.ID, 1000)
	if err != nil || len(events) > 2*timeline.PerTransaction {
		t.Errorf("%d events, %v, want at most %d of one transaction", len(events), err,
			timeline.PerTransaction)
	}
}

// The reports of all strangers have a bound together. Those of approved machines do not count.
func TestReportsOfAllStrangers(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	e := r.start()
	r.powerOn(power.Boot{Device: power.DevicePXE})
	r.until(inventory.Discovered)
	r.reported()
	e.mu.Lock()
	w := e.byMAC[testMAC]
	other := newWorker(e, inventory.Machine{ID: "m-other", Name: "other", State: inventory.Discovered}, nil)
	e.workers[other.id] = other
	e.mu.Unlock()
	full := inventory.Report{Disks: r.has(), System: inventory.System{Serial: "S1"}}
	other.reportSize.Store(strangersReports - int64(full.Weight()))
	if got := w.kept(full); len(got.Disks) == 0 {
		t.Errorf("a report that fits is kept as %+v", got)
	}
	other.reportSize.Add(1)
	if got := w.kept(full); len(got.Disks) != 0 || got.System.Serial != "S1" ||
		!strings.Contains(got.Problems[0], "32 MiB together") {
		t.Errorf("a report too much is kept as %+v, want who it is and why no more", got)
	}
	other.snap.Store(&snapshot{m: inventory.Machine{ID: "m-other", State: inventory.Available}})
	if got := w.kept(full); len(got.Disks) == 0 {
		t.Errorf("beside an approved machine it is kept as %+v", got)
	}
	limit, _, err := e.ResultTurn(t.Context(), agentAt("no nonce", "192.0.2.9"))
	if err == nil {
		t.Errorf("ResultTurn of nobody = %d, want an error", limit)
	}
	nonce := e.nonces.Issue(testMAC)
	if _, _, err := e.ResultTurn(t.Context(), agentAt(nonce, "192.0.2.9")); err == nil {
		t.Error("ResultTurn of a boot that never registered: want an error")
	}
	e.mu.Lock()
	delete(e.workers, other.id)
	e.mu.Unlock()
}
