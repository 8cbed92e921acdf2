package lab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// probeLimit suits TCG, which takes a quarter of a second. KVM gets the time that TCG took.
const probeLimit = 20 * time.Second

// probeSector is a boot sector that counts down from 2^26, writes 10h to port F4h and halts:
//
//	mov ecx,0x4000000; dec ecx; jnz -4; mov dx,0xf4; mov al,0x10; out dx,al; hlt; jmp -3
var probeSector = append(append([]byte{
	0x66, 0xb9, 0, 0, 0, 4, 0x66, 0x49, 0x75, 0xfc,
	0xba, 0xf4, 0x00, 0xb0, 0x10, 0xee, 0xf4, 0xeb, 0xfd,
}, make([]byte, 491)...), 0x55, 0xaa)

// chooseAccel is "kvm" if it boots a guest faster than TCG here. The existence of /dev/kvm proves nothing:
// inside some virtual machines guests hang, or crawl.
func chooseAccel(ctx context.Context, c *children, dir string) string {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return "tcg"
	}
	began := time.Now()
	if boots(ctx, c, dir, "tcg", probeLimit) && boots(ctx, c, dir, "kvm", time.Since(began)) {
		return "kvm"
	}
	return "tcg"
}

// boots says whether QEMU with this accelerator boots the probe through its firmware within the limit.
func boots(ctx context.Context, c *children, dir, accel string, limit time.Duration) bool {
	image := filepath.Join(dir, "probe-"+accel+".img")
	if err := os.WriteFile(image, probeSector, 0o644); err != nil {
		return false
	}
	defer os.Remove(image)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", accel, "-machine", "pc", "-m", "32",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-drive", "format=raw,file="+escape(image),
		"-device", "isa-debug-exit,iobase=0xf4,iosize=0x04")
	_, err := c.output(cmd)
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() == 0x10<<1|1 // isa-debug-exit's exit status
}
