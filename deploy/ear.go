package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

const (
	// A machine that is no deployment's boots into the agent within this time after it was switched on or got its script.
	bootsWithin = 15 * time.Minute
	listenSoon  = 2 * time.Second // after a BMC hung up; whoever freed the console for himself is faster
	listenAgain = 5 * time.Second // while it cannot be had
	maxComplain = 16              // events of one boot: a kernel can complain for ever
	lastWords   = 3               // lines of the console's end, in the text of the event that tells it
)

// An ear listens to a machine's serial console while it boots into the agent, and puts on the timeline what that complains of.
// The console is its own only as long as nobody else wants it: a BMC gives it to one session at a time.
type ear struct {
	mu   sync.Mutex
	note func(text string, data map[string]string) // nil while no boot is listened to
	text transcript
	left int    // complaints that are still noted
	deaf string // why there is no console, as it was noted

	operators int           // with a console of their own; what they are shown is heard, too
	free      chan struct{} // closed when the last of them has gone
	hangUp    context.CancelFunc
	ended     chan struct{} // closed when our own session has ended; nil when there is none
}

// begin starts to hear a boot.
func (e *ear) begin(note func(string, map[string]string)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.note, e.text, e.left, e.deaf = note, transcript{}, maxComplain, ""
}

// again says that the machine begins another boot without our doing.
func (e *ear) again() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.left = maxComplain
}

// end stops hearing. A boot that came to nothing leaves its last words.
func (e *ear) end(inVain bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.note == nil {
		return
	}
	if last := e.text.last(lastWords); inVain && len(last) > 0 {
		e.note("its console ends with "+quoted(last), e.toldLocked(""))
	} else if inVain && e.deaf == "" {
		e.note("its console said nothing: is the firmware's redirection to the BMC's serial port on?", nil)
	}
	e.note = nil
}

// shows is what the console of a boot that is under way ends with now.
func (e *ear) shows() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.note == nil {
		return nil
	}
	return e.text.last(lastWords)
}

func quoted(lines []string) string {
	var q []string
	for _, l := range lines {
		q = append(q, strconv.Quote(l))
	}
	return strings.Join(q, ", ")
}

// toldLocked is the data of an event about the console: what it complains of, and the lines up to there.
func (e *ear) toldLocked(about subject) map[string]string {
	data := map[string]string{"console": strings.Join(e.text.last(transcriptLines), "\n")}
	if about != "" {
		data["complaint"] = string(about)
	}
	return data
}

// Write takes what the machine says.
func (e *ear) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.note == nil {
		return len(p), nil
	}
	e.text.add(p, func(line string) {
		if c, ok := complaintIn(line); ok && (e.left > 0 || c.about == aboutPanic && e.left > -maxComplain) {
			e.left--
			data := e.toldLocked(c.about)
			data["quote"] = c.quote
			e.note("the console says "+strconv.Quote(c.quote), data)
		}
	})
	return len(p), nil
}

// noteDeaf says once for each reason why there is no console.
func (e *ear) noteDeaf(why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.note != nil && e.deaf != why {
		e.deaf = why
		e.note("no console: "+why, map[string]string{"none": why})
	}
}

// listen holds the console until ctx ends, but for the times when an operator has it. It gives up when the BMC will not have it.
func (e *ear) listen(ctx context.Context, open func() (power.BMC, error)) {
	failed := 0 // times in a row
	for {
		mine, leave := e.take(ctx)
		if ctx.Err() != nil {
			leave()
			return
		}
		began := time.Now()
		err := func() error {
			defer leave()
			b, err := open()
			if err != nil {
				return err
			}
			c, ok := b.(power.Console)
			if !ok {
				return fmt.Errorf("a console is %w", power.ErrUnsupported)
			}
			return c.Listen(mine, e)
		}()
		if err == nil || ctx.Err() != nil { // ctx has ended, or an operator wants it
			failed = 0
			continue
		}
		if failed++; time.Since(began) > listenAgain {
			failed = 1 // it worked, and the BMC hung up: some do when power changes
		}
		hopeless := errors.Is(err, power.ErrUnsupported) || errors.Is(err, power.ErrPrivilege) || errors.Is(err, power.ErrRefused)
		if hopeless || failed > 1 || errors.Is(err, power.ErrTaken) {
			e.noteDeaf(reason(err))
		}
		if hopeless {
			return
		}
		if failed == 1 {
			sleep(ctx, listenSoon)
		} else {
			sleep(ctx, listenAgain)
		}
	}
}

// reason is what is wrong with a console, without where.
func reason(err error) string {
	if e, ok := errors.AsType[*power.Error](err); ok {
		err = e.Err
	}
	return err.Error()
}

// take waits until nobody else in this appliance has the console. What it returns ends when an operator wants it.
func (e *ear) take(ctx context.Context) (mine context.Context, leave func()) {
	for {
		e.mu.Lock()
		busy := e.ended
		if e.operators > 0 {
			busy = e.free
		}
		if busy == nil {
			break
		}
		e.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx, func() {}
		}
	}
	defer e.mu.Unlock()
	mine, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	e.hangUp, e.ended = cancel, ended
	return mine, func() {
		cancel()
		e.mu.Lock()
		defer e.mu.Unlock()
		e.hangUp, e.ended = nil, nil
		close(ended)
	}
}

// giveWay ends our own session for an operator's, waits until the BMC has been told, and takes no other before back is called.
func (e *ear) giveWay(ctx context.Context) (back func()) {
	e.mu.Lock()
	if e.operators++; e.operators == 1 {
		e.free = make(chan struct{})
	}
	hangUp, ended := e.hangUp, e.ended
	e.mu.Unlock()
	if hangUp != nil {
		hangUp()
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.operators--; e.operators == 0 {
			close(e.free)
			e.free = nil
		}
	}
}

// overheard lets the ear hear what an operator is shown.
func (e *ear) overheard(out io.Writer) io.Writer { return io.MultiWriter(e, out) }

// hear listens to the machine's console for as long as it boots into the agent. The loop calls it before each move.
func (w *worker) hear(f Facts) {
	boot := w.booting(f)
	asked := w.asked.at.Load()
	if boot == w.hears {
		if boot != "" && asked != w.asks {
			w.ear.again()
			w.asks = asked
		}
		return
	}
	if w.hears != "" {
		w.deafen()
		w.ear.end(!f.AgentHere)
	}
	w.hears, w.asks = boot, asked
	if boot == "" {
		return
	}
	w.ear.begin(func(text string, data map[string]string) {
		w.e.Note(inventory.Event{Machine: w.id, Kind: "console", Text: text, Data: data})
	})
	ctx, cancel := context.WithCancel(w.ctx)
	w.deafen = cancel
	w.e.wg.Go(func() {
		defer bug.Recover(w.log(), "listen to the console")
		defer cancel()
		w.ear.listen(ctx, func() (power.BMC, error) { return w.bmc(w.snap.Load().m) })
	})
}

// booting names the boot that is under way, from the moment when the machine is to be switched on until its agent calls; "" when there is none.
// With another BMC it is another one: nothing more is sent to an address that has been replaced.
func (w *worker) booting(f Facts) string {
	s := w.snap.Load()
	switch {
	case s.m.BMC.Address == "" || f.Maintenance || f.AgentHere:
		return ""
	case f.Deploying && f.Step == inventory.BootAgent && f.Began && !f.Overdue && !f.Proved && !f.Erred:
		return orderID(s.d, s.record()) + " by " + reached(s.m.BMC)
	case f.State == inventory.Enrolled && min(w.asked.reads(w.e.cfg.Elapsed()), w.switched.reads(w.e.cfg.Elapsed())) < bootsWithin:
		return string(inventory.Enrolled) + " by " + reached(s.m.BMC)
	}
	return ""
}

// nudge makes the loop look at the facts, unless it is about to.
func (w *worker) nudge() {
	select {
	case w.mail <- func() {}:
	default:
	}
}
