package e2e

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
)

// A machine gets a broken ramdisk, so that its kernel panics. The appliance sees that on the serial console,
// over IPMI, and `why` quotes it, even while an operator has the console.
func TestAKernelPanicIsQuoted(t *testing.T) {
	r := newRack(t, "m1:bios")
	initrd := filepath.Join(r.dir, "data", "ramdisk", "amd64", "initrd")
	garbage := make([]byte, 1<<20)
	rand.Read(garbage)
	if err := os.WriteFile(initrd+".new", garbage, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(initrd+".new", initrd); err != nil {
		t.Fatal(err)
	}
	r.pxectl("machine", "add", "m1", "--mac", mac1, "--bmc", "10.77.0.51")

	on := time.Now()
	r.pxectl("power", "on", "m1")
	const sentence = "it has kernel and ramdisk, and its agent never called: the kernel panicked (VFS: Unable to mount root fs on unknown-block(0,0))"
	const quote = `the console says "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"`
	var why string
	r.until(20*time.Second, "why quotes the panic", func() bool {
		why = r.pxectl("why", "m1")
		return strings.Contains(why, sentence) && strings.Contains(why, quote)
	})
	t.Logf("%.1f s after power-on:\n%s", time.Since(on).Seconds(), why)
	if !strings.Contains(why, "pxectl ramdisk build") ||
		!strings.Contains(why, "Initramfs unpacking failed") {
		t.Errorf("the next move, or what was said before the panic, is missing")
	}

	// An operator has the console now, and both the operator and the appliance see the next panic.
	var screen lockedBuffer
	cmd := exec.CommandContext(t.Context(), binary, "console", "m1")
	cmd.Env = append(os.Environ(), "PXECTL_SOCKET="+r.Socket())
	cmd.Stdout, cmd.Stderr = &screen, &screen
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); keys.Close(); _ = cmd.Wait() }()
	r.until(5*time.Second, "the console is open", func() bool { return r.noted("bmc", "console opened") > 0 })
	again := time.Now()
	r.pxectl("power", "cycle", "m1")
	r.until(20*time.Second, "the operator sees the panic", func() bool {
		return strings.Contains(screen.String(), "end Kernel panic")
	})
	r.until(5*time.Second, "the timeline has it, too", func() bool {
		last := time.Time{}
		r.events(func(e inventory.Event) {
			if e.Text == quote {
				last = e.At
			}
		})
		return last.After(again)
	})
	if n := r.noted("console", "no console"); n > 0 {
		t.Errorf("lending the console to the operator is reported as a missing console, %d times", n)
	}
}

func (r *rack) events(f func(inventory.Event)) {
	r.t.Helper()
	if err := r.client.Events(r.t.Context(), api.EventQuery{Machine: mac1},
		func(e inventory.Event) error { f(e); return nil }); err != nil {
		r.t.Fatal(err)
	}
}

// noted counts the events of m1 of a kind whose text has this prefix.
func (r *rack) noted(kind inventory.EventKind, text string) (n int) {
	r.events(func(e inventory.Event) {
		if e.Kind == kind && strings.HasPrefix(e.Text, text) {
			n++
		}
	})
	return n
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
