package osimage

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
)

const (
	grubBIOS = "/usr/lib/grub/i386-pc"
	grubEFI  = "/usr/lib/grub/x86_64-efi"

	// A comma without a disk: GRUB takes the disk that it was started from, so a second disk with a copy of
	// the same image does not confuse it.
	grubPrefix = "(,gpt4)/boot/grub"
)

// grubConfig is /boot/grub/grub.cfg. Debian's kernel packages keep links to the kernel and the initrd in the
// root directory. On a busy host an emulated timer interrupt can come too late for the kernel's test of it,
// which ends in a panic; no_timer_check switches that test off.
func grubConfig(uuid string) string {
	return `set timeout=0
menuentry "Linux" {
	linux /vmlinuz root=UUID=` + uuid + ` ro console=tty0 console=ttyS0,115200n8 no_timer_check quiet
	initrd /initrd.img
}
`
}

// installGRUB does the work of grub-install without a mounted disk: the boot sector and core.img for BIOS,
// EFI/BOOT/BOOTX64.EFI for UEFI.
func installGRUB(ctx context.Context, disk *os.File, out, work string) error {
	core, err := mkimage(ctx, work, "i386-pc", "biosdisk", "part_gpt", "ext2", "normal", "linux")
	if err != nil {
		return err
	}
	boot, err := os.ReadFile(filepath.Join(grubBIOS, "boot.img"))
	if err != nil {
		return err
	}
	if err := embed(disk, boot, core); err != nil {
		return err
	}
	if _, err := mkimage(ctx, work, "x86_64-efi", "part_gpt", "ext2", "normal", "linux"); err != nil {
		return err
	}
	if _, err := run(ctx, "", "mkfs.vfat", "-F", "16", "-n", "ESP", fmt.Sprintf("--offset=%d", espStart), out,
		fmt.Sprint((seedStart-espStart)*sector/1024)); err != nil {
		return err
	}
	esp := fmt.Sprintf("%s@@%d", out, espStart*sector)
	if _, err := run(ctx, "", "mmd", "-i", esp, "::/EFI", "::/EFI/BOOT"); err != nil {
		return err
	}
	_, err = run(ctx, "", "mcopy", "-i", esp, filepath.Join(work, "x86_64-efi"), "::/EFI/BOOT/BOOTX64.EFI")
	return err
}

func mkimage(ctx context.Context, work, format string, modules ...string) ([]byte, error) {
	file := filepath.Join(work, format)
	if _, err := run(ctx, "", "grub-mkimage",
		append([]string{"-O", format, "-p", grubPrefix, "-o", file}, modules...)...); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

// embed writes boot.img into the MBR and core.img into the BIOS boot partition, and writes into each the
// place of the next part. The offsets are GRUB's (include/grub/i386/pc/boot.h):
//
//	boot.img 0x5c: the sector of core.img (GRUB_BOOT_MACHINE_KERNEL_SECTOR)
//	core.img 0x1f4: in its first sector, where the rest starts (the first block list entry)
func embed(disk *os.File, boot, core []byte) error {
	const bootCode = 440 // the partition table and the disk's signature follow
	if len(boot) != sector || len(core) < 2*sector || len(core) > (espStart-biosStart)*sector {
		return fmt.Errorf("GRUB: boot.img of %d bytes, core.img of %d do not fit", len(boot), len(core))
	}
	binary.LittleEndian.PutUint64(boot[0x5c:], biosStart)
	binary.LittleEndian.PutUint64(core[0x1f4:], biosStart+1)
	if _, err := disk.WriteAt(boot[:bootCode], 0); err != nil {
		return err
	}
	_, err := disk.WriteAt(core, biosStart*sector)
	return err
}
