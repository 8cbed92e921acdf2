package lab

import "fmt"

// A SlowDisk takes Burst bytes at full speed, and then PerSecond bytes a second.
type SlowDisk struct {
	Burst     int64 `json:"burst"`
	PerSecond int64 `json:"per_second"`
}

// slowDisk requests the limit; the channel gives the outcome.
func (m *machine) slowDisk(slow *SlowDisk) <-chan error {
	done := make(chan error, 1)
	m.orders <- func() {
		m.slow = slow
		done <- m.limitDisk()
	}
	return done
}

// limitDisk sets the limit in a running QEMU. The burst begins anew.
func (m *machine) limitDisk() error {
	if m.running == nil || m.slow == nil && !m.running.limited {
		return nil
	}
	limit := map[string]any{
		"device": "disk0", "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0,
	}
	if m.slow != nil {
		limit["bps_wr"], limit["bps_wr_max"] = m.slow.PerSecond, max(m.slow.Burst, m.slow.PerSecond)
	}
	if _, err := m.running.qmp.execute("block_set_io_throttle", limit); err != nil {
		return fmt.Errorf("slow disk: %w", err)
	}
	m.running.limited = m.slow != nil
	return nil
}
