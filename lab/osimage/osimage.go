package osimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A Kind is a kind of image.
type Kind string

// The kinds of images.
const (
	Debian12 Kind = "debian-12" // virtio and NVMe disks, virtio NICs; Debian's cloud kernel has no AHCI and no e1000
	Mini     Kind = "mini"      // every disk and NIC of the rack
	// MiniVirtio is Mini on the cloud kernel: it boots 3 to 4 s of processor time sooner, because that kernel
	// is LZ4 and not XZ, on virtio and NVMe disks and with virtio NICs. With an e1000 it starts and cannot
	// phone home; its console says why.
	MiniVirtio Kind = "mini-virtio"
)

// Kinds lists them.
var Kinds = []Kind{Debian12, Mini, MiniVirtio}

// Options of a build.
type Options struct {
	Cache string    // directory that keeps downloaded packages; it is made when it is missing
	Log   io.Writer // one line per step; nil for silence
	Arch  string    // of a kernel to fetch, in Debian's words; "" is this machine's
}

func (o Options) logf(format string, args ...any) {
	if o.Log != nil {
		fmt.Fprintf(o.Log, format+"\n", args...)
	}
}

// Build writes the image to out, whole or not at all.
func Build(ctx context.Context, kind Kind, out string, o Options) error {
	if !slices.Contains(Kinds, kind) {
		return fmt.Errorf("OS image %q: no such kind (have: %v)", kind, Kinds)
	}
	if err := needTools(); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "osimage-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	var root rootfs
	switch kind {
	case Debian12:
		root, err = debianTree(ctx, work, o)
	case Mini:
		root, err = miniTree(ctx, "linux-image-amd64", work, o)
	case MiniVirtio:
		root, err = miniTree(ctx, "linux-image-cloud-amd64", work, o)
	}
	if err != nil {
		return fmt.Errorf("OS image %s: %w", kind, err)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	part := out + ".part"
	defer os.Remove(part)
	if err := writeDisk(ctx, part, work, root, o); err != nil {
		return fmt.Errorf("OS image %s: %w", kind, err)
	}
	return os.Rename(part, out)
}

func needTools() error {
	var missing []string
	for program, pkg := range map[string]string{
		"sgdisk": "gdisk", "mke2fs": "e2fsprogs", "mkfs.vfat": "dosfstools", "mcopy": "mtools",
		"grub-mkimage": "grub-common",
		"dpkg-deb":     "dpkg", "apt-get": "apt",
	} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, pkg)
		}
	}
	for _, dir := range []string{grubBIOS, grubEFI} {
		if _, err := os.Stat(dir); err != nil {
			missing = append(missing,
				map[string]string{grubBIOS: "grub-pc-bin", grubEFI: "grub-efi-amd64-bin"}[dir])
		}
	}
	if missing != nil {
		return fmt.Errorf("OS images need Debian packages that are not installed; run: apt-get install --no-install-recommends %s",
			strings.Join(missing, " "))
	}
	return nil
}

// run runs a program and puts the end of its output into its error.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stderr.String())
		if said == "" {
			said = strings.TrimSpace(stdout.String())
		}
		if len(said) > 2000 {
			said = "…" + said[len(said)-2000:]
		}
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(name), errors.Join(ctx.Err(), err), said)
	}
	return stdout.String(), nil
}
