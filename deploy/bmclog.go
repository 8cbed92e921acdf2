package deploy

import (
	"context"
	"io"
	"sync"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// recorded puts commands to a machine's BMC, with its answers, on the machine's timeline. A reading goes
// there only when it differs from the one before: the BMC is asked every second while the machine is
// switched.
func (w *worker) recorded(b power.BMC) power.BMC {
	r := recordedBMC{BMC: b, last: &w.readings, note: func(text string, err error) {
		ev := inventory.Event{Machine: w.id, Kind: inventory.KindBMC, Text: text}
		if err != nil {
			ev.Text += ": " + err.Error()
			ev.Data = map[string]string{inventory.DataError: err.Error()}
		}
		w.e.NoteOwn(ev)
	}, tells: func(a power.Action) {
		switch a {
		case power.ActOff, power.ActCycle, power.ActReset:
			w.cut.start(w.e.cfg.Elapsed())
		case power.ActOn:
			w.poweredOn.start(w.e.cfg.Elapsed())
		}
	}}
	if c, ok := b.(power.Console); ok {
		return recordedConsole{r, c}
	}
	return r
}

// readings are the last answers of a BMC.
type readings struct {
	mu   sync.Mutex
	said map[string]string // kind of reading → answer
}

func (r *readings) changed(of, said string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.said[of] == said {
		return false
	}
	if r.said == nil {
		r.said = map[string]string{}
	}
	r.said[of] = said
	return true
}

// told names the power actions in words.
var told = map[power.Action]string{
	power.ActOn: "switch on", power.ActOff: "switch off", power.ActSoft: "shut the system down",
	power.ActCycle: "switch off and on", power.ActReset: "reset the machine",
}

type recordedBMC struct {
	power.BMC
	last  *readings
	note  func(text string, err error)
	tells func(power.Action) // called before and after each action
}

func (r recordedBMC) read(of, said string, err error) {
	if err != nil {
		said = err.Error()
	}
	if !r.last.changed(of, said) {
		return
	}
	if err != nil {
		r.note(of, err)
		return
	}
	r.note(of+": "+said, nil)
}

func (r recordedBMC) Power(ctx context.Context) (bool, error) {
	on, err := r.BMC.Power(ctx)
	r.read("power is read", map[bool]string{true: "on", false: "off"}[on], err)
	return on, err
}

func (r recordedBMC) Do(ctx context.Context, a power.Action) error {
	r.tells(a) // a BMC may do it long before it answers
	err := r.BMC.Do(ctx, a)
	r.note("told to "+told[a], err)
	r.tells(a) // also after an error: the BMC may have done it
	return err
}

func (r recordedBMC) Boot(ctx context.Context) (power.Boot, error) {
	b, err := r.BMC.Boot(ctx)
	r.read("boot device is read", b.String(), err)
	return b, err
}

func (r recordedBMC) SetBoot(ctx context.Context, b power.Boot) error {
	err := r.BMC.SetBoot(ctx, b)
	r.note("told boot device "+b.String(), err)
	return err
}

type recordedConsole struct {
	recordedBMC
	console power.Console
}

var _ power.Console = recordedConsole{}

func (r recordedConsole) Console(ctx context.Context, in io.Reader, out io.Writer) error {
	err := r.console.Console(ctx, in, out)
	if err != nil && ctx.Err() == nil {
		r.note("console", err)
	}
	return err
}

func (r recordedConsole) Listen(ctx context.Context, out io.Writer) error {
	return r.console.Listen(ctx, out)
}
