package osimage

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	sector = 512
	mib    = 1 << 20

	// In sectors. The root partition is the last one, so that growpart can enlarge it; the seed has a place
	// that does not depend on the system's size.
	biosStart = 2048 // 1 MiB, for GRUB's core.img
	espStart  = 4096 // 32 MiB
	seedStart = 69632
	rootStart = 77824 // after 4 MiB of seed
)

// A rootfs is a directory that becomes the root filesystem.
type rootfs struct {
	dir   string
	uuid  string // of the filesystem; the kernel's root= names it
	spare int64  // bytes to leave free
}

// unseeded is the seed of an image before any deployment.
var unseeded = map[string]string{
	"meta-data":   "instance-id: unseeded\nlocal-hostname: unseeded\n",
	"user-data":   "#cloud-config\n{}\n",
	"vendor-data": "#cloud-config\n{}\n",
}

// writeDisk lays out the disk in one file. Every tool writes at an offset of it, so nothing needs mounting,
// and nothing is copied twice.
func writeDisk(ctx context.Context, out, work string, root rootfs, o Options) error {
	size, err := rootSize(root)
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	total := int64(rootStart)*sector + size + mib // the last MiB holds the backup GPT
	if err := f.Truncate(total); err != nil {
		return err
	}
	if _, err := run(ctx, "", "sgdisk",
		fmt.Sprintf("--new=1:%d:%d", biosStart, espStart-1), "--typecode=1:ef02", "--change-name=1:bios",
		fmt.Sprintf("--new=2:%d:%d", espStart, seedStart-1), "--typecode=2:ef00", "--change-name=2:esp",
		fmt.Sprintf("--new=3:%d:%d", seedStart, rootStart-1), "--typecode=3:0700", "--change-name=3:cidata",
		fmt.Sprintf("--new=4:%d:%d", rootStart, rootStart+size/sector-1), "--typecode=4:8300",
		"--change-name=4:root",
		out); err != nil {
		return err
	}
	o.logf("root filesystem: %d MiB", size/mib)
	// metadata_csum_seed and orphan_file are defaults of newer e2fsprogs that GRUB 2.06 cannot read.
	if _, err := run(ctx, "", "mke2fs", "-q", "-F", "-t", "ext4", "-m", "1", "-L", "root", "-U", root.uuid,
		"-O", "^metadata_csum_seed,^orphan_file", "-E",
		fmt.Sprintf("offset=%d,root_owner=0:0,hash_seed=%s", rootStart*sector, root.uuid),
		"-d", root.dir, out, fmt.Sprintf("%dk", size/1024)); err != nil {
		return err
	}
	if err := writeSeed(ctx, out, work); err != nil {
		return err
	}
	if err := installGRUB(ctx, f, out, work); err != nil {
		return err
	}
	o.logf("disk: %d MiB", total/mib)
	return f.Sync()
}

// rootSize is the size of a filesystem for the tree, with root.spare bytes left, in whole MiB.
func rootSize(root rootfs) (int64, error) {
	var used int64
	inodes := int64(0)
	err := filepath.WalkDir(root.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		inodes++
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !info.IsDir() {
			used += (st.Size + 4095) / 4096 * 4096
		} else {
			used += 4096
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", root.dir, err)
	}
	used += inodes * 256
	// A sixteenth for ext4's own tables, 8 MiB for its journal and the least of everything else.
	size := used + used/16 + 8*mib + root.spare
	return (size + mib - 1) / mib * mib, nil
}

func writeSeed(ctx context.Context, out, work string) error {
	// cloud-init finds the partition by this label. The NoCloud documentation has it in lower case; mkfs.vfat
	// only warns about that. Without -F, it would choose the FAT's width by the size of the whole disk.
	if _, err := run(ctx, "", "mkfs.vfat", "-F", "12", "-n", "cidata", fmt.Sprintf("--offset=%d", seedStart),
		out,
		fmt.Sprint((rootStart-seedStart)*sector/1024)); err != nil {
		return err
	}
	args := []string{"-i", fmt.Sprintf("%s@@%d", out, seedStart*sector)}
	for name, text := range unseeded {
		file := filepath.Join(work, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
		args = append(args, file)
	}
	_, err := run(ctx, "", "mcopy", append(args, "::")...)
	return err
}
