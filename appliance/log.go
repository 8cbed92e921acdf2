package appliance

import (
	"cmp"
	"context"
	"encoding"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory"
)

// Limits of what a log line holds, in bytes. Values may come from the network: names, paths, vendors.
// Messages and errors are our sentences, which quote such values.
const (
	logValue    = 128
	logSentence = 512
	logStack    = 8 << 10 // of a stack or a packet
)

// Limits of the lines of one kind that others may cause within logWindow. The kind of a line is that of its
// event, or the start of its message up to the first colon. logPerSource is for one address or MAC.
// logPerKind is for all together: a rack of 500 machines that boots at once causes as many. Other lines are
// counted, and the counts are logged once a minute.
const (
	logWindow    = time.Minute
	logPerSource = 30
	logPerKind   = 6000
	logSources   = 8192 // counted by themselves; all others are counted together
	logKinds     = 256  // likewise
)

// NewLog returns a logger that bounds what others can cause it to write.
func NewLog(c config.Log, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	var h slog.Handler = slog.NewTextHandler(w, options)
	if c.Format == "json" {
		h = slog.NewJSONHandler(w, options)
	}
	return slog.New(boundedLog{Handler: h, flood: &logFlood{now: time.Now, out: h}})
}

// A boundedLog shortens what is logged, removes control characters from it, and drops lines when one source,
// or many together, cause too many.
type boundedLog struct {
	slog.Handler
	flood *logFlood
	cause cause // from the attributes that all lines have
}

func (b boundedLog) Handle(ctx context.Context, r slog.Record) error {
	short := slog.NewRecord(r.Time, r.Level, inventory.Text(r.Message, logSentence), r.PC)
	c := b.cause
	r.Attrs(func(a slog.Attr) bool {
		a = shortened(a)
		short.AddAttrs(a)
		c = c.with(a)
		return true
	})
	if c.source != "" && r.Level >= slog.LevelInfo && !b.flood.admits(c.of(short.Message), c.source) {
		return nil
	}
	return b.Handler.Handle(ctx, short)
}

func (b boundedLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	all := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		all[i] = shortened(a)
		b.cause = b.cause.with(all[i])
	}
	b.Handler = b.Handler.WithAttrs(all)
	return b
}

func (b boundedLog) WithGroup(name string) slog.Handler {
	b.Handler = b.Handler.WithGroup(name)
	return b
}

func shortened(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	text, limit := "", logValue
	switch a.Value.Kind() {
	case slog.KindString:
		text = a.Value.String()
	case slog.KindGroup:
		group := a.Value.Group()
		all := make([]slog.Attr, len(group))
		for i, g := range group {
			all[i] = shortened(g)
		}
		a.Value = slog.GroupValue(all...)
		return a
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case error:
			text, limit = v.Error(), logSentence
		case encoding.TextMarshaler: // addresses
			return a
		default:
			if text = fmt.Sprintf("%+v", v); text == inventory.Text(text, logValue) {
				return a // as the handler writes it
			}
		}
	default:
		return a
	}
	if a.Key == "stack" || a.Key == "packet" {
		a.Value = slog.StringValue(text[:min(len(text), logStack)])
		return a
	}
	a.Value = slog.StringValue(inventory.Text(text, limit))
	return a
}

// A cause is what a line's attributes say of its kind, and of who on the network caused it.
type cause struct {
	source string // an address or a MAC; "" when nobody on the wire did
	sure   bool   // source is an address, which is harder to forge than a MAC
	kind   string // of an event
}

// ourBug is the source of a line with a stack when it has no other source: logging the same stack again says
// nothing new.
const ourBug = "a bug"

func (c cause) with(a slog.Attr) cause {
	switch a.Key {
	case "ip", "remote", "client", "from":
		if c.sure {
			break
		}
		c.source, c.sure = a.Value.String(), true
		if at, err := netip.ParseAddrPort(c.source); err == nil {
			c.source = at.Addr().String()
		}
	case "mac", "host", "server":
		if !c.sure {
			c.source = a.Value.String()
		}
	case "stack":
		c.source = cmp.Or(c.source, ourBug)
	case "kind":
		c.kind = a.Value.String()
	}
	return c
}

// of returns the kind of a line. For an event, that is not the start of its message, which contains names and
// numbers.
func (c cause) of(message string) string {
	before, _, _ := strings.Cut(message, ":")
	return cmp.Or(c.kind, before)
}

// logFlood counts the lines of each kind and source within a window.
type logFlood struct {
	now func() time.Time
	out slog.Handler

	mu    sync.Mutex
	until time.Time
	kinds map[string]*logKind
}

type logKind struct {
	lines   int
	sources map[string]int
	hidden  int // lines that were not written
}

func (f *logFlood) admits(kind, source string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.now(); now.After(f.until) {
		f.sayLocked()
		f.kinds, f.until = map[string]*logKind{}, now.Add(logWindow)
	}
	if _, known := f.kinds[kind]; !known && len(f.kinds) >= logKinds {
		kind = "" // all others
	}
	k := f.kinds[kind]
	if k == nil {
		k = &logKind{sources: map[string]int{}}
		f.kinds[kind] = k
	}
	if _, known := k.sources[source]; !known && len(k.sources) >= logSources {
		source = "" // all others
	}
	if k.sources[source]++; k.sources[source] > logPerSource || k.lines >= logPerKind {
		if k.hidden++; k.hidden == 1 {
			// No line may follow the flood, so a timer logs what was hidden.
			time.AfterFunc(logWindow+time.Second,
				bug.Recovering(slog.New(f.out), "log: say what was not written", f.sayWhenOver))
		}
		return false
	}
	k.lines++
	return true
}

// sayWhenOver logs what was not written in a window that is over.
func (f *logFlood) sayWhenOver() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now().After(f.until) {
		f.sayLocked()
	}
}

// sayLocked logs how many lines of each kind were not written.
func (f *logFlood) sayLocked() {
	for kind, k := range f.kinds {
		if k.hidden == 0 {
			continue
		}
		noisy := ""
		for source, n := range k.sources {
			if n > k.sources[noisy] {
				noisy = source
			}
		}
		r := slog.NewRecord(f.now(), slog.LevelWarn,
			"log: too many lines of one kind; the rest was not written", 0)
		r.AddAttrs(slog.String("kind", kind), slog.Int("not_written", k.hidden),
			slog.Int("sources", len(k.sources)), slog.String("most_from", noisy),
			slog.Int("of_it", k.sources[noisy]))
		_ = f.out.Handle(context.Background(), r)
		k.hidden = 0
	}
}
