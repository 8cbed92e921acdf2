package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Mount mounts the file systems that everything else needs.
func Mount() error {
	var errs []error
	for _, m := range []struct {
		source, target, kind, data string
		flags                      uintptr
	}{
		{"proc", "/proc", "proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "/sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"devtmpfs", "/dev", "devtmpfs", "mode=755", unix.MS_NOSUID},
		{"devpts", "/dev/pts", "devpts", "", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/run", "tmpfs", "mode=755", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/tmp", "tmpfs", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil &&
			!errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.target, err))
		}
	}
	// Drivers' messages would write over the person's shell; dmesg still has them.
	_ = os.WriteFile("/proc/sys/kernel/printk", []byte("4 4 1 7"), 0)
	return errors.Join(errs...)
}

// MountEFI mounts the firmware's variables, if the machine has them and their driver is loaded.
func MountEFI() {
	const dir = "/sys/firmware/efi/efivars"
	if _, err := os.Stat(dir); err == nil {
		_ = unix.Mount("efivarfs", dir, "efivarfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
}

// MountESP mounts an EFI system partition for writing. It returns the directory and the function that
// unmounts it. The kernel mounts no partition of a disk that is held.
func MountESP(disk string, number int) (dir string, unmount func() error, err error) {
	device, err := partition("/sys/class/block", disk, number)
	if err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp("", "esp-"); err != nil {
		return "", nil, err
	}
	// The names of distributions' loaders are in ASCII. The kernel's own default would need one more module
	// on some kernels.
	const options = "codepage=437,iocharset=ascii"
	if err := unix.Mount(filepath.Join("/dev", device), dir, "vfat",
		unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		_ = os.Remove(dir)
		if errors.Is(err, unix.ENODEV) {
			err = errors.New("the kernel has no vfat, and the ramdisk no module of it")
		}
		return "", nil, fmt.Errorf("mount %s: %w", device, err)
	}
	return dir, func() error {
		err := syncFS(dir) // unmounting reports no failed write
		if e := unix.Unmount(dir, 0); e != nil {
			return fmt.Errorf("unmount %s: %w", device, errors.Join(err, e))
		}
		if err != nil {
			return fmt.Errorf("write to %s: %w", device, err)
		}
		return os.Remove(dir)
	}, nil
}

func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// partition finds the kernel's name of a disk's partition.
func partition(class, disk string, number int) (string, error) {
	files, err := filepath.Glob(filepath.Join(class, disk, "*", "partition"))
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil &&
			strings.TrimSpace(string(data)) == strconv.Itoa(number) {
			return filepath.Base(filepath.Dir(f)), nil
		}
	}
	return "", fmt.Errorf("the kernel sees no partition %d on %s", number, disk)
}

// Terminals lists the devices of the kernel's consoles.
func Terminals() []string {
	data, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		return []string{"/dev/console"}
	}
	var devices []string
	for name := range strings.FieldsSeq(string(data)) {
		devices = append(devices, filepath.Join("/dev", name))
	}
	return devices
}

// ID identifies this boot of the kernel.
func ID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

// Uptime is the time since the kernel started.
func Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// SetClock sets the system's clock.
func SetClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	return unix.Settimeofday(&tv)
}

// Restart ends the kernel: "reboot" or "poweroff". It returns only after a failure.
func Restart(how string) error {
	unix.Sync()
	down()
	cmd := unix.LINUX_REBOOT_CMD_RESTART
	if how == "poweroff" {
		cmd = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	return fmt.Errorf("%s: %w", how, unix.Reboot(cmd))
}

// down takes every interface down first: virtio_net of Linux 6.1.192 locks up in virtnet_poll at a shutdown
// with pending transmit completions (seen in 3 of 56 restarts, in none since).
func down() {
	links, err := netlink.LinkList()
	if err != nil {
		return
	}
	for _, l := range links {
		_ = netlink.LinkSetDown(l)
	}
	time.Sleep(100 * time.Millisecond) // for the completions
}
