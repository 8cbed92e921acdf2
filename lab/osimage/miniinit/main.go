// Miniinit is the whole system of the "mini" image: process 1, from the initrd to the end.
//
// Towards the deployer it does what a Debian with cloud-init does: it reads the NoCloud seed, takes
// its hostname and its network from it, phones home once per instance, shows a
// login prompt on the console, and powers off in order when the power button is pressed. Nobody
// can log in; the prompt understands "poweroff" and "reboot".
//
// The seed is that of cloud-init's NoCloud data source, and phone-home that of its module
// cc_phone_home, both as in version 22.4.2.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/agent-ramdisk/modules"
)

// Where the two filesystems of the disk are mounted.
const (
	rootDir = "/root"
	seedDir = "/seed"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "miniinit: it is an init, and this is not process 1")
		os.Exit(1)
	}
	// Init must never end: the kernel would panic, and push the reason off the screen.
	c := &console{}
	if err := boot(c); err != nil {
		c.logf("error: %v", err)
	}
	c.serve()
}

func boot(c *console) error {
	if err := mounts(); err != nil {
		return err
	}
	drivers, err := modules.Open("/")
	if err != nil {
		return err
	}
	if err := drivers.ByName(); err != nil {
		c.logf("%v", err)
	}
	if _, err := drivers.Coldplug(false); err != nil {
		c.logf("%v", err)
	}
	go watchPowerButton(c)

	root, err := waitForBlock(drivers, "the root filesystem", func(head []byte) bool {
		return ext4UUID(head) == rootUUID()
	})
	if err != nil {
		return err
	}
	if err := mountAt(root, rootDir, "ext4", 0); err != nil {
		return err
	}
	part, err := waitForBlock(drivers, "a partition with the label cidata", func(head []byte) bool {
		return strings.EqualFold(fatLabel(head), "cidata")
	})
	if err != nil {
		return err
	}
	if err := mountAt(part, seedDir, "vfat", unix.MS_RDONLY); err != nil {
		return err
	}
	seed, err := readSeed(os.DirFS(seedDir))
	if err != nil {
		return err // an incomplete seed gives no identity
	}
	for _, w := range seed.Warnings {
		c.logf("seed: %s", w)
	}
	if err := unix.Sethostname([]byte(seed.Hostname)); err != nil {
		return fmt.Errorf("hostname %q: %w", seed.Hostname, err)
	}
	c.prompt(seed.Hostname)
	c.logf("instance %s from %s, root on %s, up %s", seed.InstanceID, part, root, uptime())
	keys, err := hostKeys(rootDir)
	if err != nil {
		c.logf("ssh host key: %v", err)
	}
	if err := network(context.Background(), c, seed.Network); err != nil {
		return err
	}
	go oncePerInstance(c, seed, keys)
	return nil
}

// oncePerInstance phones home, unless this instance already did. cloud-init's frequency of the module is
// "once per instance", so a reboot is silent.
func oncePerInstance(c *console, seed Seed, keys map[string]string) {
	if seed.PhoneHome == nil {
		return
	}
	done := filepath.Join(rootDir, "var/lib/cloud/instance-phoned-home")
	if last, err := os.ReadFile(done); err == nil && string(last) == seed.InstanceID {
		c.logf("phone-home: instance %s already did", seed.InstanceID)
		return
	}
	status, err := phoneHome(context.Background(), seed, keys, time.Sleep)
	if err != nil {
		c.logf("phone-home: %v", err)
		return
	}
	c.logf("phone-home: %s after %s", status, uptime())
	if err := os.WriteFile(done, []byte(seed.InstanceID), 0o644); err != nil {
		c.logf("phone-home: %v", err)
	}
	unix.Sync()
}

func mounts() error {
	for _, m := range []struct{ what, where, kind string }{
		{"proc", "/proc", "proc"},
		{"sysfs", "/sys", "sysfs"},
		{"devtmpfs", "/dev", "devtmpfs"},
		{"tmpfs", "/run", "tmpfs"},
	} {
		if err := mountAt(m.what, m.where, m.kind, 0); err != nil {
			return err
		}
	}
	return nil
}

func mountAt(what, where, kind string, flags uintptr) error {
	if err := os.MkdirAll(where, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(what, where, kind, flags, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount %s at %s: %w", what, where, err)
	}
	return nil
}

// waitForBlock waits for the block device whose first sectors are accepted. Disks appear some time after
// their drivers, and bring more devices to load drivers for.
func waitForBlock(drivers *modules.Loader, what string, accept func(head []byte) bool) (string, error) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		names, _ := fs.Glob(os.DirFS("/sys/class/block"), "*")
		for _, name := range names {
			head := make([]byte, 4096)
			f, err := os.Open("/dev/" + name)
			if err != nil {
				continue
			}
			_, err = f.ReadAt(head, 0)
			f.Close()
			if err == nil && accept(head) {
				return "/dev/" + name, nil
			}
		}
		_, _ = drivers.Coldplug(false) // failures were reported the first time
	}
	return "", fmt.Errorf("no disk has %s after 30 s", what)
}

// ext4UUID is the UUID in the superblock, at 1024 (Documentation/filesystems/ext4/super.rst).
func ext4UUID(head []byte) string {
	sb := head[1024:]
	if sb[0x38] != 0x53 || sb[0x39] != 0xef {
		return ""
	}
	u := sb[0x68:0x78]
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// fatLabel is the volume label in the boot sector of FAT12 and FAT16, at 43 (fatgen103, "Boot Sector").
func fatLabel(head []byte) string {
	if head[510] != 0x55 || head[511] != 0xaa || string(head[54:57]) != "FAT" {
		return ""
	}
	return strings.TrimRight(string(head[43:54]), " \x00")
}

func rootUUID() string {
	line, _ := os.ReadFile("/proc/cmdline")
	for word := range strings.FieldsSeq(string(line)) {
		if uuid, ok := strings.CutPrefix(word, "root=UUID="); ok {
			return uuid
		}
	}
	return "none"
}

func uptime() string {
	text, _ := os.ReadFile("/proc/uptime")
	seconds, _, _ := strings.Cut(string(text), " ")
	return seconds + " s"
}

// A console is the serial console: log lines, and below them the prompt.
type console struct {
	mu       sync.Mutex
	hostname string
}

func (c *console) logf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Printf("\rmini: "+format+"\n", args...)
	c.promptLocked()
}

func (c *console) prompt(hostname string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hostname = hostname
	fmt.Printf("\npxectl mini %s ttyS0\n\n", hostname)
	c.promptLocked()
}

func (c *console) promptLocked() {
	if c.hostname != "" {
		fmt.Printf("%s login: ", c.hostname)
	}
}

// serve reads input, for ever.
func (c *console) serve() {
	for {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			switch strings.TrimSpace(lines.Text()) {
			case "poweroff":
				c.logf("%v", shutdown(c, unix.LINUX_REBOOT_CMD_POWER_OFF))
			case "reboot":
				c.logf("%v", shutdown(c, unix.LINUX_REBOOT_CMD_RESTART))
			case "":
				c.mu.Lock()
				c.promptLocked()
				c.mu.Unlock()
			default:
				c.logf("nobody can log in here; there are \"poweroff\" and \"reboot\"")
			}
		}
		time.Sleep(time.Second) // a console without input must not use a whole processor
	}
}
