package dhcpd

import (
	"fmt"
	"testing"
	"time"
)

func TestMemory(t *testing.T) {
	start := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		after time.Duration
		want  bool
	}{
		{"at once", 0, true},
		{"after most of a minute", 59 * time.Second, true},
		{"after a minute", time.Minute, true},
		{"after more than two", 121 * time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m memory
			m.put("mac", ArchUEFI64, start)
			if a, ok := m.get("mac", start.Add(c.after)); ok != c.want || ok && a != ArchUEFI64 {
				t.Errorf("get after %v = %v, %v, want found: %v", c.after, a, ok, c.want)
			}
		})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	now := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	var m memory
	for i := range 10 * memoryMax {
		m.put(fmt.Sprint(i), ArchBIOS, now)
	}
	if n := len(m.young) + len(m.old); n > 2*memoryMax {
		t.Errorf("%d addresses kept after a flood, want at most %d", n, 2*memoryMax)
	}
	if _, ok := m.get(fmt.Sprint(10*memoryMax-1), now); !ok {
		t.Error("the newest address is forgotten")
	}
}
