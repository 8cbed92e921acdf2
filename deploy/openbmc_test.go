package deploy

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

// A BMC gives its console to one session, so the watcher of a deleted machine closes its session.
func TestListenerOfADeletedMachineHangsUp(t *testing.T) {
	t.Parallel()
	r := cold(t)
	r.listenedTo()
	w, err := r.now().find("m1")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.now().DeleteMachine(t.Context(), "test", "m1"); err != nil {
		t.Fatal(err)
	}
	r.soon("the listener has hung up", func() bool { return r.line.Holder() == "" })
	<-w.gone
	if w.opened.bmc != nil {
		t.Error("its BMC, and the password in it, is kept")
	}
}

func TestConsoleOfADeletedMachineEnds(t *testing.T) {
	t.Parallel()
	r := cold(t)
	r.available()
	in, keys := io.Pipe()
	defer keys.Close()
	done := make(chan error, 1)
	go func() { done <- r.now().Console(context.Background(), "test", "m1", in, io.Discard) }()
	r.soon("the console is open", func() bool { return r.line.Holder() == "console" })
	if err := r.now().DeleteMachine(t.Context(), "test", "m1"); err != nil {
		t.Fatal(err)
	}
	if p, ok := errors.AsType[*inventory.Problem](<-done); !ok || p.Code != inventory.CodeNotFound {
		t.Errorf("Console() of a machine that was deleted = %v, want not found", p)
	}
}

// An operator's console ends with an error when the machine's BMC gets another address or other credentials.
// The next one, and the watcher, use the new BMC. Other edits do not end it.
func TestConsoleOfAReplacedBMCEnds(t *testing.T) {
	label, address, user := "x", "192.0.2.99", "operator"
	for name, tt := range map[string]struct {
		edit Edit
		want power.Target
	}{
		"address": {
			Edit{BMC: BMCEdit{Address: &address}},
			power.Target{Address: address, User: "admin", Password: "secret"},
		},
		"credentials": {
			Edit{BMC: BMCEdit{User: &user}}, power.Target{Address: testBMC, User: user, Password: "secret"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := cold(t)
			lines := perTarget{}
			r.open = func(to power.Target) (power.BMC, error) {
				return powertest.WithConsole{BMC: r.bmc, Line: lines.of(to)}, nil
			}
			was, is := lines.of(power.Target{Address: testBMC, User: "admin", Password: "secret"}),
				lines.of(tt.want)
			r.available()
			r.off()
			r.deploy(inventory.DeployRequest{})
			open := func(line *powertest.Line) <-chan error {
				t.Helper()
				in, keys := io.Pipe()
				t.Cleanup(func() { keys.Close() })
				done := make(chan error, 1)
				go func() { done <- r.now().Console(context.Background(), "test", "m1", in, io.Discard) }()
				r.soon("the console is open", func() bool { return line.Holder() == "console" })
				return done
			}
			done := open(was)
			edit := func(e Edit) {
				t.Helper()
				if _, err := r.now().EditMachine(t.Context(), "test", "m1", e); err != nil {
					t.Fatal(err)
				}
			}
			edit(Edit{Labels: map[string]*string{"rack": &label}})
			if was.Holder() != "console" {
				t.Error("an edit of something else ends the console")
			}
			edit(tt.edit)
			var err error
			r.soon("the console has ended", func() bool {
				select {
				case err = <-done:
					return true
				default:
					return false
				}
			})
			p, ok := errors.AsType[*inventory.Problem](err)
			if !ok || p.Code != inventory.CodeConflict || !strings.Contains(p.Detail, "were changed") ||
				!strings.Contains(p.Hint, "pxectl console m1") {
				t.Errorf("Console() of a BMC that was replaced = %v, want that it was changed", err)
			}
			r.soon("the listener has the new BMC", func() bool {
				return was.Holder() == "" && is.Holder() == "listener"
			})
			open(is)
			if was.Holder() != "" {
				t.Error("a console was opened of the old BMC")
			}
		})
	}
}

// perTarget has a serial line for each address and its credentials.
type perTarget struct{ all sync.Map }

func (p *perTarget) of(t power.Target) *powertest.Line {
	line, _ := p.all.LoadOrStore(t, &powertest.Line{})
	return line.(*powertest.Line)
}

// A console goes on when its BMC is changed and changed back at once.
func TestConsoleStaysWithTheSameBMC(t *testing.T) {
	t.Parallel()
	r := cold(t)
	r.available()
	w, err := r.now().find("m1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := w.while(t.Context(), w.snap.Load().m, errors.New("replaced"))
	defer cancel()
	awaited := func() bool {
		w.opened.mu.Lock()
		defer w.opened.mu.Unlock()
		return w.opened.left != nil
	}
	for range 3 {
		r.soon("the end of the BMC is waited for", func() bool { return awaited() || ctx.Err() != nil })
		w.opened.forget()
	}
	r.soon("the end of the BMC is waited for again", func() bool { return awaited() || ctx.Err() != nil })
	if ctx.Err() != nil {
		t.Errorf("ended: %v", context.Cause(ctx))
	}
}

// The error of a BMC that was replaced meanwhile is not recorded on the new one.
func TestAnErrorOfAReplacedBMC(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	other := "192.0.2.99"
	err := r.now().withBMC(t.Context(), "m1", func(*worker, inventory.Machine, power.BMC) error {
		if _, err := r.now().EditMachine(t.Context(), "test", "m1",
			Edit{BMC: BMCEdit{Address: &other}}); err != nil {
			t.Error(err)
		}
		return &power.Error{Doing: "read power", Target: testBMC, Err: power.ErrRefused}
	})
	if m := r.machine(); err == nil || m.BMC.Error != "" || m.BMC.Refused {
		t.Errorf("%v: BMC %+v, want no error at the new one", err, m.BMC)
	}
}

// A BMC is opened once, and again when its machine has another address, user or password. The watcher moves
// to the new one.
func TestBMCIsOpenedOncePerCredentials(t *testing.T) {
	t.Parallel()
	r := cold(t)
	var mu sync.Mutex
	var opened []string
	r.open = func(target power.Target) (power.BMC, error) {
		mu.Lock()
		defer mu.Unlock()
		opened = append(opened, target.User+" "+target.Password)
		return powertest.WithConsole{BMC: r.bmc, Line: r.line}, nil
	}
	r.listenedTo()
	for range 2 {
		if _, err := r.now().PowerStatus(t.Context(), "m1"); err != nil {
			t.Fatal(err)
		}
	}
	another, operator := "another", "operator"
	for _, e := range []BMCEdit{{Password: &another}, {User: &operator}} {
		if _, err := r.now().EditMachine(t.Context(), "test", "m1", Edit{BMC: e}); err != nil {
			t.Fatal(err)
		}
		r.soon("the listener has the new BMC", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(opened) > 1 &&
				opened[len(opened)-1] == map[bool]string{
					true:  "operator another",
					false: "admin another",
				}[e.User != nil] && r.line.Holder() == "listener"
		})
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"admin secret", "admin another", "operator another"}; !slices.Equal(opened, want) {
		t.Errorf("BMCs that were opened = %q, want %q", opened, want)
	}
}

// A strictBMC rejects the password.
type strictBMC struct{ power.BMC }

func (strictBMC) Power(context.Context) (bool, error) {
	return false, &power.Error{Doing: "read power", Target: testBMC, Err: power.ErrRefused}
}

// That a BMC rejects the password is recorded until it answers: `why` tells what to do about it.
func TestABMCThatRejectsThePassword(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	var strict atomic.Bool
	r.open = func(power.Target) (power.BMC, error) { return maybe{r.bmc, strictBMC{r.bmc}, &strict}, nil }
	r.available()
	strict.Store(true)
	if _, err := r.now().PowerStatus(t.Context(), "m1"); !errors.Is(err, power.ErrRefused) {
		t.Fatalf("PowerStatus = %v, want that the password is rejected", err)
	}
	why, err := r.now().Why("m1")
	if err != nil || !r.machine().BMC.Refused || !strings.HasPrefix(why.Next, "set its right credentials") {
		t.Errorf("refused %v, why: next %q, %v, want to set its credentials", r.machine().BMC.Refused,
			why.Next, err)
	}
	strict.Store(false)
	if _, err := r.now().PowerStatus(t.Context(), "m1"); err != nil || r.machine().BMC.Refused ||
		r.machine().BMC.Error != "" {
		t.Errorf("PowerStatus of one that answers again: %v, BMC %+v", err, r.machine().BMC)
	}
}
