package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// shutdown ends the system in order. It returns only with an error.
func shutdown(c *console, how int) error {
	c.mu.Lock()
	c.hostname = ""
	c.mu.Unlock()
	c.logf("going down")
	// Linux 6.1 locks up for ever in reboot(2) when virtio_net still has packets to send, so the NICs go down
	// first.
	err := interfacesDown()
	unix.Sync()
	for _, dir := range []string{seedDir, rootDir} {
		if e := unix.Unmount(dir, 0); e != nil && !errors.Is(e, unix.EINVAL) && !errors.Is(e, unix.ENOENT) {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", dir, e))
			_ = unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
	}
	if err != nil {
		c.logf("%v", err)
	}
	return fmt.Errorf("reboot: %w", unix.Reboot(how))
}

// Of linux/input-event-codes.h.
const (
	evKey    = 1
	keyPower = 116
)

// watchPowerButton powers off when the ACPI power button is pressed: QEMU's system_powerdown, a BMC's "power
// soft".
func watchPowerButton(c *console) {
	watched := map[string]bool{}
	for ; ; time.Sleep(500 * time.Millisecond) { // input devices appear after their drivers
		files, _ := filepath.Glob("/dev/input/event*")
		for _, file := range files {
			if watched[file] {
				continue
			}
			watched[file] = true
			f, err := os.Open(file)
			if err != nil {
				continue
			}
			go func() {
				defer f.Close()
				// struct input_event on 64 bits: two longs of time, then type, code, value.
				event := make([]byte, 24)
				for {
					if _, err := f.Read(event); err != nil {
						return
					}
					if binary.LittleEndian.Uint16(event[16:]) == evKey &&
						binary.LittleEndian.Uint16(event[18:]) == keyPower &&
						binary.LittleEndian.Uint32(event[20:]) == 1 {
						c.logf("power button")
						c.logf("%v", shutdown(c, unix.LINUX_REBOOT_CMD_POWER_OFF))
					}
				}
			}()
		}
	}
}
