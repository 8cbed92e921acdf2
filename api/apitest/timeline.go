package apitest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/inventory"
)

// Happen appends an event and returns its seq.
func (f *Fleet) Happen(e inventory.Event) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.Seq = uint64(len(f.events)) + 1
	if e.At.IsZero() {
		e.At = Epoch.Add(time.Duration(e.Seq) * time.Second)
	}
	f.events = append(f.events, e)
	close(f.grown)
	f.grown = make(chan struct{})
	return e.Seq
}

func (f *Fleet) Events(after uint64, machine inventory.MachineID, limit int) ([]inventory.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.errs["Events"]; err != nil {
		return nil, err
	}
	if machine != "" &&
		!slices.ContainsFunc(f.machines, func(m inventory.Machine) bool { return m.ID == machine }) {
		return nil, &inventory.Problem{
			Code:   inventory.CodeNotFound,
			Detail: fmt.Sprintf("no machine %q", machine),
		}
	}
	var out []inventory.Event
	for _, e := range f.events {
		if e.Seq > after && (machine == "" || e.Machine == machine) && len(out) < limit {
			out = append(out, e)
		}
	}
	return out, nil
}

func (f *Fleet) Wait(ctx context.Context, after uint64) error {
	for {
		f.mu.Lock()
		last, grown := uint64(len(f.events)), f.grown
		f.mu.Unlock()
		if last > after {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *Fleet) Why(ref string) (diagnose.Diagnosis, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.findLocked("Why", ref)
	if err != nil {
		return diagnose.Diagnosis{}, err
	}
	var evidence []inventory.Event
	for _, e := range f.events {
		if e.Machine == m.ID {
			evidence = append(evidence, e)
		}
	}
	return diagnose.Diagnosis{
		Machine: m.ID, Sentence: m.Name + " asked for its boot program and never fetched it.",
		Next: "check that UDP port 69 of the appliance is open", Evidence: evidence,
	}, nil
}
