package deploy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory"
)

// An outcome is the result of our own part of a step. It is applied in the worker's loop.
type outcome struct {
	proof  string // ends the step
	acted  string // our part is done, and this is what was done; the proof is still to come
	err    error
	update func(*inventory.Machine, *inventory.Deployment)
}

// A part is the appliance's own share of a step, done beside the loop.
type part struct {
	stop  context.CancelFunc
	ended chan struct{} // closed when it has ended
}

func (p *part) over() bool { return closed(p.ended) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// act starts our own part of a step beside the loop, so that the loop can take calls of agents and of
// deployed systems meanwhile.
func (w *worker) act(step inventory.Step) {
	s := w.snap.Load()
	r := s.record()
	ctx, cancel := context.WithTimeout(w.ctx, w.left(orderID(s.d, r), r.BeganAt, r.Deadline))
	if step == inventory.VerifyOS {
		ctx, cancel = context.WithTimeout(w.ctx, time.Minute) // its deadline has passed already
	}
	p := &part{cancel, make(chan struct{})}
	w.working = p
	began := r.BeganAt
	w.e.wg.Go(func() {
		defer bug.Recover(w.log(), string(step))
		defer cancel()
		out := w.part(ctx, step, s)
		close(p.ended)
		// The loop may have gone on to another step (a phone-home, a cancel): then the outcome is dropped.
		_, _ = call(w.ctx, w, func() (struct{}, error) {
			now := w.snap.Load()
			if r := now.record(); r == nil || now.d.ID != s.d.ID || r.Step != step ||
				!r.BeganAt.Equal(began) {
				return struct{}{}, nil
			}
			if errors.Is(ctx.Err(), context.Canceled) {
				return struct{}{}, nil // stopped, and done again; a deadline that passes is DeadlineExceeded
			}
			w.working = nil
			w.settle(out)
			return struct{}{}, nil
		})
	})
}

func (w *worker) part(ctx context.Context, step inventory.Step, s *snapshot) (out outcome) {
	defer bug.Return(w.log(), string(step), &out.err)
	switch step {
	case inventory.Validate:
		return w.validate(ctx, s)
	case inventory.BootAgent:
		return w.bootAgent(ctx, s)
	case inventory.BootOS:
		return w.bootOS(ctx, s)
	default:
		return w.verifyOS(ctx, s)
	}
}

// settle stores an outcome.
func (w *worker) settle(out outcome) {
	if out.update == nil {
		out.update = func(*inventory.Machine, *inventory.Deployment) {}
	}
	var err error
	switch {
	case out.err != nil:
		err = w.endStep("", out.err, out.update)
	case out.proof != "":
		err = w.endStep(out.proof, nil, out.update)
	default:
		err = w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
			out.update(m, d)
			r := &d.History[len(d.History)-1]
			r.ActedAt = w.now()
			return []inventory.Event{
				{
					Kind: inventory.KindStep,
					Text: fmt.Sprintf("%s: %s", r.Step, out.acted),
					Data: map[string]string{inventory.DataStep: string(r.Step)},
				},
			}
		})
	}
	if err != nil {
		w.log().Error("record what a step came to", "err", err) // it is done again
	}
}

// server is where the machine reaches the boot plane.
func (w *worker) server() netip.AddrPort {
	var ip netip.Addr
	if b := w.snap.Load().m.Boot; b != nil {
		ip, _ = netip.ParseAddr(b.IP)
	}
	return w.e.cfg.Server(ip)
}

// begin opens a step's record. Its deadline counts from now, and a restart does not move it. A step that is
// left without a proof is given up for the reason why.
func (w *worker) begin(step inventory.Step, why string) error {
	w.stopWork() // a proof can come before our own part has seen its last reading
	w.progress.Store(nil)
	w.moved.start(w.e.cfg.Elapsed())
	if step != inventory.VerifyOS {
		w.began.start(w.e.cfg.Elapsed())
	}
	return w.save(func(_ *inventory.Machine, d *inventory.Deployment) (events []inventory.Event) {
		if left := d.GiveUp(w.now(), why); left != nil {
			events = append(events, inventory.Event{
				Kind: inventory.KindStep,
				Text: fmt.Sprintf("%s given up: %s", left.Step, why),
				Data: map[string]string{inventory.DataStep: string(left.Step)},
			})
		}
		attempt := 1
		for _, r := range d.History {
			if r.Step == step {
				attempt++
			}
		}
		d.Step = step
		d.History = append(d.History, inventory.StepRecord{
			Step: step, Attempt: attempt, BeganAt: w.now(), Deadline: w.now().Add(w.budget(step)),
		})
		return events
	})
}

func (w *worker) budget(step inventory.Step) time.Duration {
	switch step {
	case inventory.BootAgent:
		return w.e.cfg.Deadlines.BootAgent
	case inventory.WriteImage:
		return w.e.cfg.Deadlines.WriteImage
	case inventory.VerifyOS:
		return w.e.cfg.Deadlines.VerifyOS
	case inventory.EraseDisks:
		return eraseBudget
	default:
		return 10 * time.Minute
	}
}

// endStep closes the current step's record with its proof or its error. update may add what was learnt.
func (w *worker) endStep(
	proof string, cause error, update ...func(*inventory.Machine, *inventory.Deployment),
) error {
	return w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
		for _, u := range update {
			u(m, d)
		}
		r := &d.History[len(d.History)-1] // save cloned it
		r.EndedAt = w.now()
		if cause != nil {
			r.Error = strings.TrimPrefix(cause.Error(), m.Name+": ") // it is shown beside the name
			m.Failure = &inventory.Failure{
				Step: string(r.Step), Reason: r.Error, Hint: hintOf(cause), At: w.now(),
			}
			return nil
		}
		r.Proof = proof
		if r.Step == inventory.BootAgent && w.poweredOn.since(&w.began) {
			// The agent called before the BMC's readings had settled.
			m.Power = inventory.Power{On: true, Known: true, ObservedAt: w.now(), Wanted: "on"}
		}
		m.LastProof = string(r.Step) + ": " + proof
		return []inventory.Event{{
			Kind: inventory.KindStep, Text: fmt.Sprintf("%s: %s", r.Step, proof),
			Data: map[string]string{
				inventory.DataStep: string(r.Step),
				inventory.DataTook: r.EndedAt.Sub(r.BeganAt).Round(time.Millisecond).String(),
			},
		}}
	})
}

// fail ends the deployment, or the inspection, as failed. The reason is the step's error when it has one.
func (w *worker) fail(step inventory.Step, why string) error {
	w.stopWork()
	s := w.snap.Load()
	running := s.running()
	var cut *inventory.Interruption
	if running {
		cut = w.interruption(s)
	}
	return w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
		if !running {
			m.State = inventory.Failed
			m.Failure = &inventory.Failure{
				Step:   inspecting,
				Reason: why,
				Hint:   "look at the console; `pxectl why " + m.Name + "` shows how far it came",
				At:     w.now(),
			}
			return []inventory.Event{{Kind: inventory.KindFailure, Text: "inspect: " + why}}
		}
		f := &inventory.Failure{Step: string(step), Reason: why, At: w.now()}
		if m.Failure != nil && m.Failure.Step == string(step) && why == "" {
			f = m.Failure
		}
		if f.Hint == "" {
			f.Hint = "`pxectl why " + m.Name + "` shows how far it came; `pxectl deployment retry " + m.Name +
				"` tries again"
		}
		if n := len(d.History); n > 0 && d.History[n-1].EndedAt.IsZero() {
			d.History[n-1].EndedAt, d.History[n-1].Error = w.now(), f.Reason
		}
		m.State, m.Failure = inventory.Failed, f
		if cut != nil {
			m.Interrupted = cut
		}
		d.Outcome, d.Failure, d.EndedAt = inventory.FailedOut, f, w.now() // its secret is kept for a retry
		return []inventory.Event{{Kind: inventory.KindFailure, Text: fmt.Sprintf("%s: %s", step, f.Reason)}}
	})
}

// finish ends the deployment as succeeded.
func (w *worker) finish() error {
	w.stopWork()
	if w.snap.Load().d.Erase != nil {
		return w.finishErase()
	}
	return w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
		r := &d.History[len(d.History)-1]
		var events []inventory.Event
		if r.Proof == "" {
			r.EndedAt, r.Proof = d.PhonedHomeAt, "the system phoned home as "+d.Hostname
			if r.Step == inventory.BootOS {
				// The system phoned home before the BMC's readings had settled.
				d.History = append(d.History, inventory.StepRecord{
					Step: inventory.VerifyOS, Attempt: 1, BeganAt: r.EndedAt, EndedAt: r.EndedAt,
					Deadline: r.Deadline, Proof: r.Proof,
				})
			}
			m.LastProof = string(inventory.VerifyOS) + ": " + r.Proof
			events = append(events, inventory.Event{Kind: inventory.KindStep, Text: m.LastProof})
		}
		m.State, m.Failure, m.Unverified, m.Interrupted = inventory.Deployed, nil, d.PhonedHomeAt.IsZero(),
			nil
		d.Step, d.Outcome, d.EndedAt, d.Secret = inventory.VerifyOS, inventory.Succeeded, w.now(), nil
		return events
	})
}

// stopWork ends our own part of the step, if it is in flight.
func (w *worker) stopWork() {
	if w.working != nil {
		w.working.stop()
		w.stopping = append(slices.DeleteFunc(w.stopping, (*part).over), w.working)
		w.working = nil
	}
}
