package deploy

import (
	"fmt"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// begin opens a step's record. Its deadline counts from now, whatever happens to the appliance in between.
func (w *worker) begin(step inventory.Step) error {
	w.stopWork() // a proof can come before our own part has seen its last reading
	w.progress.Store(nil)
	w.moved.start(w.e.cfg.Elapsed())
	if step != inventory.VerifyOS {
		w.began.start(w.e.cfg.Elapsed())
	}
	return w.save(func(_ *inventory.Machine, d *inventory.Deployment) []inventory.Event {
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
		return nil
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
func (w *worker) endStep(proof string, cause error, update ...func(*inventory.Machine, *inventory.Deployment)) error {
	return w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
		for _, u := range update {
			u(m, d)
		}
		r := &d.History[len(d.History)-1] // save cloned it
		r.EndedAt = w.now()
		if cause != nil {
			r.Error = cause.Error()
			m.Failure = &inventory.Failure{Step: string(r.Step), Reason: cause.Error(), Hint: hintOf(cause), At: w.now()}
			return nil
		}
		r.Proof = proof
		m.LastProof = string(r.Step) + ": " + proof
		return []inventory.Event{{
			Kind: "step", Text: fmt.Sprintf("%s: %s", r.Step, proof),
			Data: map[string]string{"step": string(r.Step), "took": r.EndedAt.Sub(r.BeganAt).Round(time.Millisecond).String()},
		}}
	})
}

// fail ends the deployment, or the inspection, as failed. The reason is the step's error when it has one.
func (w *worker) fail(step inventory.Step, why string) error {
	w.stopWork()
	running := w.snap.Load().running()
	return w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
		if !running {
			m.State = inventory.Failed
			m.Failure = &inventory.Failure{Step: inspecting, Reason: why, Hint: "look at the console; `pxectl why " + m.Name + "` shows how far it came", At: w.now()}
			return []inventory.Event{{Kind: "failure", Text: "inspect: " + why}}
		}
		f := &inventory.Failure{Step: string(step), Reason: why, At: w.now()}
		if m.Failure != nil && m.Failure.Step == string(step) && why == "" {
			f = m.Failure
		}
		if f.Hint == "" {
			f.Hint = "`pxectl why " + m.Name + "` shows how far it came; `pxectl deployment retry " + m.Name + "` tries again"
		}
		if n := len(d.History); n > 0 && d.History[n-1].EndedAt.IsZero() {
			d.History[n-1].EndedAt, d.History[n-1].Error = w.now(), f.Reason
		}
		m.State, m.Failure = inventory.Failed, f
		d.Outcome, d.Failure, d.EndedAt = inventory.FailedOut, f, w.now() // its secret is kept for a retry
		return []inventory.Event{{Kind: "failure", Text: fmt.Sprintf("%s: %s", step, f.Reason)}}
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
				// It was faster than the BMC's readings.
				d.History = append(d.History, inventory.StepRecord{Step: inventory.VerifyOS, Attempt: 1, BeganAt: r.EndedAt, EndedAt: r.EndedAt, Deadline: r.Deadline, Proof: r.Proof})
			}
			m.LastProof = string(inventory.VerifyOS) + ": " + r.Proof
			events = append(events, inventory.Event{Kind: "step", Text: m.LastProof})
		}
		m.State, m.Failure, m.Unverified = inventory.Deployed, nil, d.PhonedHomeAt.IsZero()
		d.Step, d.Outcome, d.EndedAt, d.Secret = inventory.VerifyOS, inventory.Succeeded, w.now(), nil
		return events
	})
}

// stopWork ends our own part of the step, if it is in flight.
func (w *worker) stopWork() {
	if w.working != nil {
		w.working()
		w.working = nil
	}
}
