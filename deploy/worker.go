package deploy

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pxectl/pxectl/console"
	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/inventory"
)

// inspecting is the step of failures that happen outside a deployment.
const inspecting = "inspect"

const (
	// An agent calls at least every 20 s (the long poll) and every second or two while it works.
	agentHere = 60 * time.Second
	agentLost = 90 * time.Second

	inspectBudget = 10 * time.Minute
	stallBudget   = 10 * time.Minute // of an order whose progress does not move
	powerSync     = 2 * time.Minute  // between two looks at the power of a machine that is left alone
	storeRetry    = 5 * time.Second
)

// A worker is the only writer of one machine's state. Others post to it and read its last snapshot, so that
// nobody waits for a worker that waits for a BMC or a disk.
type worker struct {
	e    *Engine
	id   inventory.MachineID
	mail chan func()
	gone chan struct{} // closed when run has returned
	stop context.CancelFunc
	snap atomic.Pointer[snapshot]

	seen      stopwatch // since the agent's last call
	cut       stopwatch // since its BMC was last told to end what runs on it
	poweredOn stopwatch // since its BMC was last told to switch it on
	asked     stopwatch // since the last network boot
	system    stopwatch // since the last DHCP packet of an operating system
	switched  stopwatch // since an operator last switched it on
	moved     stopwatch // since progress last moved
	// began is since the current step began, or since boot-os began in verify-os. It is not started when that
	// was before the appliance's start.
	began    stopwatch
	progress atomic.Pointer[inventory.Progress]
	orders   orderBox
	opened   openedBMC
	readings readings // of the BMC

	reportSize atomic.Int64 // bytes of the report, by Report.Weight
	from       string       // address that its agent registered from when the worker was made
	console    *console.Watcher

	// Only the loop uses these.
	ctx          context.Context
	working      *part   // our own part of the step, while it is in flight; nil when not
	stopping     []*part // those that were stopped, and may still use the BMC
	deleted      bool
	watching     string // the boot whose console is watched
	watchedAsk   int64  // what asked was when it was looked at last
	stopWatching context.CancelFunc
	due          due           // of what is waited for
	synced       string        // address and credentials with which the power was read last
	syncAt       time.Duration // when to read it again, by Elapsed
}

func newWorker(e *Engine, m inventory.Machine, d *inventory.Deployment) *worker {
	w := &worker{
		e: e, id: m.ID, mail: make(chan func()), gone: make(chan struct{}),
		console: console.NewWatcher(consoleComplaint),
	}
	if m.Boot != nil {
		w.from = m.Boot.IP
	}
	w.snap.Store(&snapshot{m: m, d: d})
	w.reportSize.Store(int64(m.Report.Weight()))
	w.orders.changed = make(chan struct{})
	// After a restart an agent that was here gets its full time to call again.
	w.touch()
	return w
}

func (w *worker) now() time.Time { return w.e.cfg.Now().UTC() }
func (w *worker) touch()         { w.seen.start(w.e.cfg.Elapsed()) }

func (w *worker) silence() time.Duration { return w.seen.reads(w.e.cfg.Elapsed()) }

// agentSilence is silence, or MaxInt64 when the BMC was told to end what runs on the machine since the
// agent's last call. Then only another call shows that the agent is still there.
func (w *worker) agentSilence() time.Duration {
	if w.cut.since(&w.seen) {
		return math.MaxInt64
	}
	return w.silence()
}

func (w *worker) log() *slog.Logger {
	s := w.snap.Load()
	return w.e.cfg.Log.With("machine", s.m.Name, "id", w.id)
}

// wireLog is log for lines that anybody on the provisioning network can cause, as often as they like. Each
// line names its source, so that the log can thin out a flood.
func (w *worker) wireLog() *slog.Logger {
	m := w.snap.Load().m
	switch {
	case m.Boot != nil:
		return w.log().With("from", m.Boot.IP)
	case len(m.MACs) > 0:
		return w.log().With("mac", m.MACs[0])
	}
	return w.log().With("from", w.id)
}

// run is the loop. A panic in it is a bug of ours and takes down this machine's worker for a while, not the
// appliance.
func (w *worker) run(ctx context.Context) {
	defer close(w.gone)
	defer w.opened.forget()
	defer w.stop() // what was begun for the machine ends with it, its console first
	for ctx.Err() == nil && !w.deleted {
		if w.loop(ctx) != nil {
			_ = sleep.For(ctx, storeRetry)
		}
	}
}

// loop returns an error only after a panic.
func (w *worker) loop(ctx context.Context) (err error) {
	defer bug.Return(w.log(), "worker", &err)
	w.ctx = ctx
	for {
		timer := time.NewTimer(w.advance())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case f := <-w.mail:
			timer.Stop()
			f()
			if w.deleted {
				return nil
			}
		case <-timer.C:
		}
	}
}

// call runs f in the worker's loop and returns what it returned.
func call[T any](ctx context.Context, w *worker, f func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	var none T
	done := make(chan answer, 1)
	select {
	case w.mail <- func() {
		var a answer
		defer func() { done <- a }()
		defer bug.Return(w.log(), "do what was asked", &a.err)
		a.v, a.err = f()
	}:
	case <-ctx.Done():
		return none, ctx.Err()
	case <-w.gone:
		return none, errGone(w)
	}
	select {
	case a := <-done:
		return a.v, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-w.gone:
		select {
		case a := <-done: // it was the last thing that the loop did
			return a.v, a.err
		default:
			return none, errGone(w)
		}
	}
}

// whenIdle is call for what must not begin while a part of a step that was stopped still uses the BMC. It
// waits until that part has ended, which is soon.
func whenIdle[T any](ctx context.Context, w *worker, f func() (T, error)) (T, error) {
	type answer struct {
		v    T
		busy *part
	}
	for {
		a, err := call(ctx, w, func() (a answer, err error) {
			w.stopping = slices.DeleteFunc(w.stopping, (*part).over)
			if len(w.stopping) > 0 {
				a.busy = w.stopping[0]
				return a, nil
			}
			a.v, err = f()
			return a, err
		})
		if a.busy == nil {
			return a.v, err
		}
		select {
		case <-a.busy.ended:
		case <-ctx.Done():
			return a.v, ctx.Err()
		}
	}
}

func errGone(w *worker) error {
	return &inventory.Problem{
		Code:   inventory.CodeNotFound,
		Detail: fmt.Sprintf("machine %s is gone, or the appliance is stopping", w.snap.Load().m.Name),
	}
}

// facts gathers the facts for Next.
func (w *worker) facts() Facts {
	s := w.snap.Load()
	f := Facts{
		State:       s.m.State,
		Maintenance: s.m.Maintenance != nil,
		AutoApprove: w.e.cfg.Policy == PolicyAuto,
		AgentHere:   s.m.Boot != nil && w.agentSilence() < agentHere,
		AgentLost:   s.m.Boot == nil || w.agentSilence() > agentLost,
		Inspected:   s.m.Boot != nil && s.m.Boot.Reported,
	}
	f.Uninspected = s.m.State == inventory.Failed && s.m.Failure != nil && s.m.Failure.Step == inspecting
	if s.m.State == inventory.Inspecting {
		f.Overdue = w.left(inspecting, s.m.ChangedAt, s.m.ChangedAt.Add(inspectBudget)) <= 0
	}
	if !s.running() {
		return f
	}
	f.Deploying, f.Erasing, f.Step, f.Working = true, s.d.Erase != nil, s.d.Step, w.working != nil
	f.OSProved = !s.d.PhonedHomeAt.IsZero()
	for _, r := range s.d.History {
		if r.Step == inventory.BootAgent {
			f.Boots++
		}
	}
	if r := s.record(); r != nil {
		f.Began, f.Acted, f.Proved, f.Erred = true, !r.ActedAt.IsZero(), r.Proof != "", r.Error != ""
		f.Overdue = w.left(orderID(s.d, r), r.BeganAt, r.Deadline) <= 0 || (w.orders.busy() && w.stalled())
	}
	return f
}

// stalled says whether an order's progress has not moved for too long, although the agent calls.
func (w *worker) stalled() bool {
	return w.moved.ran() && w.moved.reads(w.e.cfg.Elapsed()) > stallBudget
}

// advance does moves until there is nothing to do, and returns when to look again.
func (w *worker) advance() time.Duration {
	for {
		f := w.facts()
		w.watchConsole(f)
		move := Next(f)
		if move.Verb != Order && move.Verb != Inspect && move.Verb != Wait {
			w.orders.set(nil)
		}
		if move.Verb == Wait && !w.snap.Load().running() {
			w.orders.set(nil)
		}
		again, err := w.do(move)
		if err != nil {
			w.log().Error("do the next move", "move", move.Verb, "step", move.Step, "err", err)
			return storeRetry
		}
		if !again {
			break
		}
	}
	if s := w.snap.Load(); s.running() || s.m.State == inventory.Inspecting {
		return time.Second
	}
	if err := w.forgetSecret(); err != nil {
		w.log().Error("drop the secret of a failed deployment", "err", err)
		return storeRetry
	}
	w.syncPower()
	return 30 * time.Second
}

// do does one move; again is false when it now waits.
func (w *worker) do(move Move) (again bool, err error) {
	switch move.Verb {
	case Enter:
		return true, w.save(func(m *inventory.Machine, _ *inventory.Deployment) []inventory.Event {
			m.State = move.State
			return nil
		})
	case Inspect:
		m := w.snap.Load().m
		w.orders.set(&inventory.Order{
			ID: "inspect-" + bootNonce(m), Do: inventory.DoInspect, MaxReport: maxReport(m),
		})
		return false, nil
	case Begin:
		return true, w.begin(move.Step, move.Why)
	case Act:
		w.act(move.Step)
		return false, nil
	case Order:
		return false, w.order(move.Step)
	case Prove:
		return true, w.endStep(move.Why, nil)
	case Fail:
		return true, w.fail(move.Step, move.Why)
	case Finish:
		return true, w.finish()
	}
	return false, nil
}
