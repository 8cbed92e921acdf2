package deploy

import (
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

// cold is a rack whose machine is off, has a console, and whose agent will never call.
func cold(t *testing.T) *rack {
	r := newRack(t)
	r.line = &powertest.Line{}
	return r
}

// listenedTo begins a deployment, and waits until the machine boots for it and its console is watched.
func (r *rack) listenedTo() {
	r.t.Helper()
	r.available()
	r.off()
	r.deploy(inventory.DeployRequest{})
	r.acted(inventory.BootAgent)
	r.soon("the console is listened to", func() bool { return r.line.Holder() == "listener" })
}

// off ends the agent, so that the next deployment has to boot it.
func (r *rack) off() {
	r.t.Helper()
	if _, err := r.now().Power(context.Background(), "test", "m1", power.ActOff); err != nil {
		r.t.Fatal(err)
	}
	r.mute.Store(true)
}

func (r *rack) soon(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			events, _ := r.now().Events(0, "", 1000)
			for _, e := range events {
				r.t.Logf("%s %s", e.Kind, e.Text)
			}
			r.t.Fatalf("not within a minute: %s", what)
		}
	}
}

// heard returns the texts of the events about the machine's console.
func (r *rack) heard() (texts []string) {
	events, err := r.now().Events(0, "", 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range events {
		if e.Kind == inventory.KindConsole {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

func (r *rack) saw(beginning string) bool {
	for _, text := range r.heard() {
		if strings.HasPrefix(text, beginning) {
			return true
		}
	}
	return false
}

// loaded notes what the boot plane sees of a machine up to its ramdisk.
func (r *rack) loaded() {
	note := func(data map[string]string) {
		r.now().Note(inventory.Event{
			MAC: testMAC, Kind: inventory.KindHTTP, Text: "GET " + data["path"], Data: data,
		})
	}
	note(map[string]string{"path": "/boot.ipxe", "status": "200", "action": "agent", "reason": "m1"})
	note(map[string]string{"path": "/ramdisk/amd64/vmlinuz", "status": "200"})
	note(map[string]string{"path": "/ramdisk/amd64/initrd", "status": "200"})
}

// panicked is the recorded console of a kernel that finds no root.
func panicked(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile("../diagnose/testdata/panic.txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

const thePanic = `the console says "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"`

// A machine's kernel panics while it boots for a deployment: `why` quotes the panic, and watching ends with
// the boot.
func TestAPanicIsQuoted(t *testing.T) {
	t.Parallel()
	r := cold(t)
	r.listenedTo()
	r.loaded()
	r.soon("the ramdisk is on the timeline", func() bool {
		events, _ := r.now().Events(0, "", 1000)
		return events[len(events)-1].Data["path"] == "/ramdisk/amd64/initrd"
	})
	r.line.Say(panicked(t))
	var why diagnose.Diagnosis
	r.soon("the panic is quoted", func() bool {
		why, _ = r.now().Why("m1")
		return strings.Contains(why.Sentence,
			"it has kernel and ramdisk, and its agent never called: "+
				"the kernel panicked (VFS: Unable to mount root fs on unknown-block(0,0))")
	})
	if !strings.Contains(why.Next, "pxectl ramdisk build") {
		t.Errorf("next move %q, want to build the ramdisk again", why.Next)
	}
	texts := ""
	for _, e := range why.Evidence {
		texts += e.Text + "\n"
	}
	if !strings.Contains(texts, thePanic) || !strings.Contains(texts, "Initramfs unpacking failed") {
		t.Errorf("evidence:\n%swant the panic and what was before it", texts)
	}

	// The agent calls after all: watching ends, and no last lines are reported.
	nonce := r.now().IssueBoot(testMAC).Nonce
	if _, err := r.now().Register(t.Context(), agentAt(nonce, "192.0.2.100"),
		inventory.Registration{MAC: testMAC, BootID: bootIDOf("late")}); err != nil {
		t.Fatal(err)
	}
	r.soon("the listener has hung up", func() bool { return r.line.Holder() == "" })
	if r.saw("its console ends") {
		t.Errorf("the console of a boot that went well has last words: %q", r.heard())
	}
}

// Each attempt without an agent's call reports the last lines of its console, with the lines before them.
func TestLastWordsOfABootInVain(t *testing.T) {
	t.Parallel()
	r := cold(t)
	r.dead.BootAgent = time.Hour // which the test lets pass
	r.available()
	r.off()
	r.deploy(inventory.DeployRequest{})
	listened := func(attempt int) {
		r.soon("the machine is booted once more", func() bool {
			d, err := r.now().Deployment("m1")
			return err == nil && countSteps(d, inventory.BootAgent) == attempt
		})
		r.acted(inventory.BootAgent)
		r.soon("the console is listened to", func() bool { return r.line.Holder() == "listener" })
	}
	listened(1)
	r.line.Say("Loading drivers\r\nprobing eth0\r\n\x1b[31mstuck\x1b[0m\r\nhere")
	r.soon("why shows the console as it is", func() bool {
		why, _ := r.now().Why("m1")
		n := len(why.Evidence)
		return n > 0 && why.Evidence[n-1].Text == `its console shows "probing eth0", "stuck", "here"`
	})
	for attempt := 2; attempt <= inventory.MaxBoots; attempt++ {
		r.ahead.Add(int64(time.Hour))
		listened(attempt)
	}
	r.ahead.Add(int64(time.Hour))
	r.until(inventory.Failed)
	r.soon("the last words", func() bool {
		return r.saw(`its console ends with "probing eth0", "stuck", "here"`)
	})
	r.soon("a console without words", func() bool { return r.saw("its console said nothing") })
	r.soon("the listener has hung up", func() bool { return r.line.Holder() == "" })
	events, _ := r.now().Events(0, "", 1000)
	for _, e := range events {
		if strings.HasPrefix(e.Text, "its console ends") &&
			e.Data["console"] != "Loading drivers\nprobing eth0\nstuck\nhere" {
			t.Errorf("its lines are %q", e.Data["console"])
		}
	}
}

// A console that cannot be opened is reported once and fails no deployment.
func TestNoConsole(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*rack)
		want    string
	}{
		"switched off": {
			func(r *rack) { r.line.Err = power.ErrUnsupported }, "no console: not supported by this BMC",
		},
		"none": {func(r *rack) { r.line = nil }, "no console: a console is not supported by this BMC"},
		"another's": {
			func(r *rack) {
				go func() { _ = r.line.Console(r.t.Context(), blocks{r.t.Context()}, io.Discard) }()
				r.soon("another session has the console", func() bool { return r.line.Holder() == "console" })
			}, "no console: another session has the serial console",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := cold(t)
			c.prepare(r)
			r.available()
			r.off()
			r.deploy(inventory.DeployRequest{})
			r.soon(c.want, func() bool { return r.saw(c.want) })
			r.acted(inventory.BootAgent)
			r.mute.Store(false)
			r.powerOn(power.Boot{Device: power.DevicePXE})
			r.until(inventory.Deployed)
			if heard := r.heard(); len(heard) != 1 || heard[0] != c.want {
				t.Errorf("events about the console: %q, want %q once", heard, c.want)
			}
			if name == "another's" && r.line.Holder() != "console" {
				t.Errorf("the console is %q's, want that it was left to the other session", r.line.Holder())
			}
		})
	}
}

// blocks is an operator's input that sends nothing until ctx ends.
type blocks struct{ ctx context.Context }

func (b blocks) Read([]byte) (int, error) { <-b.ctx.Done(); return 0, io.EOF }

// An operator gets the console at once, and keeps it for as long as it is open. The watcher reads along
// meanwhile.
func TestAnOperatorsConsoleComesFirst(t *testing.T) {
	t.Parallel()
	r := cold(t)
	r.available()
	r.off()
	r.deploy(inventory.DeployRequest{})
	r.soon("the console is listened to", func() bool { return r.line.Holder() == "listener" })

	in, keys := io.Pipe()
	var out locked
	done := make(chan error, 1)
	go func() { done <- r.now().Console(t.Context(), "test", "m1", in, &out) }()
	r.soon("the operator has the console", func() bool { return r.line.Holder() == "console" })
	if _, err := keys.Write([]byte("reboot\r")); err != nil {
		t.Fatal(err)
	}
	r.line.Say(panicked(t))
	r.soon("the panic is heard", func() bool { return r.saw(thePanic) })
	if out.String() != panicked(t) {
		t.Errorf("the operator saw %q, want what the machine said", out.String())
	}
	keys.Close()
	if err := <-done; err != nil {
		t.Errorf("Console() = %v, want nil", err)
	}
	if r.line.Typed() != "reboot\r" {
		t.Errorf("the machine was told %q, want what the operator typed", r.line.Typed())
	}
	r.soon("the console is listened to again", func() bool { return r.line.Holder() == "listener" })
	for _, text := range r.heard() {
		if strings.HasPrefix(text, "no console") {
			t.Errorf("giving way is told as %q", text)
		}
	}
}

type locked struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// An announced machine is watched when an operator switches it on, before it sends anything.
func TestAnEnrolledMachineIsHeard(t *testing.T) {
	t.Parallel()
	r := cold(t)
	r.mute.Store(true)
	e := r.start()
	address := testBMC
	if _, err := e.AddMachine(t.Context(), "test",
		NewMachine{Name: "m1", MACs: []inventory.MAC{testMAC}, BMC: BMCEdit{Address: &address}}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Power(t.Context(), "test", "m1", power.ActOn); err != nil {
		t.Fatal(err)
	}
	r.soon("the console is listened to", func() bool { return r.line.Holder() == "listener" })
	r.line.Say("\r\nNo bootable device.\r\n")
	r.soon("the complaint", func() bool { return r.saw(`the console says "No bootable device."`) })
}

// When the appliance is killed while a machine boots, the next appliance watches its console.
func TestListeningGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	r := cold(t)
	r.listenedTo()
	r.crash()
	r.soon("the console is listened to again", func() bool { return r.line.Holder() == "listener" })
	r.line.Say(panicked(t))
	r.soon("the panic is heard", func() bool { return r.saw(thePanic) })
}
