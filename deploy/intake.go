package deploy

import (
	"context"
	"time"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/internal/turns"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// Agents may have thousands of calls open. Each that is read, decoded and written costs memory and a
// transaction, so only a few are handled at a time. Addresses take turns, and strangers are apart from known
// machines.
const (
	// A stranger's result may be 64 KiB long, a known machine's 256 KiB. Decoded, it takes three times as
	// much.
	resultsOfStrangers = 64
	resultsOfKnown     = 16
	// A registration waits for the disk. Those of strangers that wait together share a transaction.
	registrations = boltdb.BatchSize
	callsPerIP    = 4
	// turnTime is how long a call waits for its turn. Then it fails, and its agent repeats it.
	turnTime = 25 * time.Second
)

// An intake hands out the turns of one kind of call.
type intake struct{ strangers, known *turns.Turns }

func newIntake(strangers, known int) intake {
	return intake{turns.New(strangers, callsPerIP), turns.New(known, callsPerIP)}
}

// turn waits for a call's turn, which lasts until end is called.
func (e *Engine) turn(
	ctx context.Context, in intake, stranger bool, address string,
) (end func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, turnTime)
	defer cancel()
	if running := e.lifetime(); running != nil {
		defer context.AfterFunc(running, bug.Recovering(e.cfg.Log, "end a call", cancel))()
	}
	of := in.known
	if stranger {
		of = in.strangers
	}
	end, err = of.Take(ctx, address)
	if err != nil {
		return nil, &inventory.Problem{
			Code:   inventory.CodeTimeout,
			Detail: "the appliance is busy with the calls of other agents, or is stopping",
			Hint:   "call again",
			Err:    err,
		}
	}
	return end, nil
}

// lifetime returns the context of Run; nil before Run.
func (e *Engine) lifetime() context.Context {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.ctx
}

// ResultTurn waits until it is the caller's turn to send a result, and is called before one is read. The
// result may have limit bytes. end ends the turn.
func (e *Engine) ResultTurn(ctx context.Context, c inventory.Caller) (limit int64, end func(), err error) {
	w, err := e.agent(c)
	if err != nil {
		return 0, nil, err
	}
	w.touch() // it is here, however long it waits
	defer w.touch()
	m, address := w.snap.Load().m, c.IP
	if m.Boot != nil {
		// A nonce and its key can be used from many addresses, and have the turns of one.
		address = m.Boot.IP
	}
	end, err = e.turn(ctx, e.results, m.State == inventory.Discovered, address)
	return int64(maxReport(m)) + envelope, end, err
}
