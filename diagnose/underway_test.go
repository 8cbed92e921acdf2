package diagnose

import (
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// While a boot is under way, the next move is to wait, at each of its events.
func TestABootUnderWayAlarmsNobody(t *testing.T) {
	for n := range len(uefiBoot) {
		events := upTo(n)
		now := noon.Add(time.Minute)
		if n > 0 {
			now = events[n-1].At.Add(5 * time.Second)
		}
		got := boot{m: inventory.Machine{Name: "m1"}, now: now, started: noon}.stopped(events,
			noon.Add(-time.Second))
		if got.next != "wait" {
			t.Errorf("5 s after event %d: %q, next %q, want to be told to wait", n, got.stage, got.next)
		}
	}
}

// Firmware and boot programs complain and go on: the next move is still to wait. A kernel that has panicked
// does not go on.
func TestWhatAConsoleSaysWhileABootIsUnderWay(t *testing.T) {
	grumble := says(9, aboutIPXE, "tftp://10.77.0.1/autoexec.ipxe... Not found (https://ipxe.org/2d126001)")
	again := grumble
	again.Count, again.Since = 7, grumble.At.Add(-time.Minute)
	for name, c := range map[string]struct {
		said inventory.Event
		next string
	}{
		"grumbles":             {grumble, "wait"},
		"the same seven times": {again, "look at its console"},
		"panics": {
			says(12, aboutPanic, "Kernel panic - not syncing: Fatal exception"), "a fault of the kernel",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := boot{
				m: inventory.Machine{Name: "m1"}, now: noon.Add(15 * time.Second),
				started: noon,
			}.stopped(upTo(10, c.said), noon.Add(-time.Second))
			if !strings.HasPrefix(got.next, c.next) {
				t.Errorf("%q, next %q, want %q", got.stage, got.next, c.next)
			}
		})
	}
}
