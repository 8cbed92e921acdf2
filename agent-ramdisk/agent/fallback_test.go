package agent

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/agent-ramdisk/boot"
	"github.com/pxectl/pxectl/internal/efiloader"
	"github.com/pxectl/pxectl/internal/fat"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
)

func TestMain(m *testing.M) { testnet.Main(m) }

func TestLoaderFiles(t *testing.T) {
	testnet.Long(t)
	for _, p := range []string{"sgdisk", "mkfs.vfat", "mkfs.ext4", "mmd", "mcopy"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED %s: needs the program %s, which is not installed", t.Name(), p)
		}
	}
	for _, tt := range []struct {
		name     string
		have     []string
		loader   string
		fallback string   // "" is that of amd64
		want     []string // to from
	}{
		{
			name: "shim, what it loads, and what it must not", loader: `\EFI\debian\shimx64.efi`,
			have: []string{
				"EFI/debian/shimx64.efi", "EFI/debian/grubx64.efi", "EFI/debian/mmx64.efi",
				"EFI/debian/fbx64.efi", "EFI/debian/grub.cfg",
			},
			want: []string{
				`\EFI\BOOT\grubx64.efi EFI/debian/grubx64.efi`, `\EFI\BOOT\mmx64.efi EFI/debian/mmx64.efi`,
				`\EFI\BOOT\BOOTX64.EFI EFI/debian/shimx64.efi`,
			},
		},
		{
			name: "the image has a part of it", loader: `\EFI\debian\shimx64.efi`,
			have: []string{"EFI/debian/shimx64.efi", "EFI/debian/grubx64.efi", "EFI/BOOT/GRUBX64.EFI"},
			want: []string{`\EFI\BOOT\BOOTX64.EFI EFI/debian/shimx64.efi`},
		},
		{
			name:   "GRUB alone",
			loader: `\EFI\arch\grubx64.efi`,
			have:   []string{"EFI/arch/grubx64.efi", "EFI/arch/mmx64.efi"},
			want:   []string{`\EFI\BOOT\BOOTX64.EFI EFI/arch/grubx64.efi`},
		},
		{
			name:     "arm64",
			loader:   `\EFI\ubuntu\shimaa64.efi`,
			fallback: `\EFI\BOOT\BOOTAA64.EFI`,
			have:     []string{"EFI/ubuntu/shimaa64.efi", "EFI/ubuntu/grubaa64.efi"},
			want: []string{
				`\EFI\BOOT\grubaa64.efi EFI/ubuntu/grubaa64.efi`,
				`\EFI\BOOT\BOOTAA64.EFI EFI/ubuntu/shimaa64.efi`,
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "vda")
			bootableDisk(t, path, tt.have...)
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			v, err := fat.Open(io.NewSectionReader(f, 1<<20, 8<<20))
			if err != nil {
				t.Fatal(err)
			}
			fallback := tt.fallback
			if fallback == "" {
				fallback = `\EFI\BOOT\BOOTX64.EFI`
			}
			files, err := loaderFiles(v, tt.loader, fallback)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, file := range files {
				from := slices.IndexFunc(tt.have, func(h string) bool {
					return bytes.Equal(loaderOf(h), file.data)
				})
				if from < 0 {
					t.Fatalf("%s: %d bytes of no file of the image", file.path, len(file.data))
				}
				got = append(got, file.path+" "+tt.have[from])
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("copied (-want +got):\n%s", diff)
			}
		})
	}
}

// A filesystem without room gets nothing of the loader: half of it would be worse than none.
func TestWriteLoaderWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	// A directory in the place of the last file makes its write fail.
	if err := os.MkdirAll(filepath.Join(dir, "EFI/BOOT/PXECTL.TMP/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := writeLoader(dir, []loaderFile{
		{`\EFI\BOOT\grubx64.efi`, []byte("grub")}, {`\EFI\BOOT\BOOTX64.EFI`, []byte("shim")},
	})
	if err == nil {
		t.Fatal("writeLoader of what cannot be written: no error")
	}
	for _, name := range []string{"grubx64.efi", "BOOTX64.EFI"} {
		if _, err := os.Stat(filepath.Join(dir, "EFI/BOOT", name)); err == nil {
			t.Errorf("%s is there after %v", name, err)
		}
	}
}

// On a disk of the kernel, through the kernel's vfat.
func TestFallbackOnALoopDevice(t *testing.T) {
	testnet.Need(t, "losetup", "sgdisk", "mkfs.vfat", "mkfs.ext4", "mmd", "mcopy", "fsck.vfat")
	if known, err := os.ReadFile("/proc/filesystems"); err != nil ||
		!strings.Contains(string(known), "\tvfat\n") {
		t.Skipf("SKIPPED %s: needs a kernel with vfat; this one has none, "+
			"or has not loaded it (modprobe vfat)", t.Name())
	}
	shim, grub, fallback := "EFI/debian/shim"+suffix()+".efi", "EFI/debian/grub"+suffix()+
		".efi", efiloader.Fallback(runtime.GOARCH)
	file := filepath.Join(t.TempDir(), "disk")
	bootableDisk(t, file, shim, grub)
	out, err := exec.Command("losetup", "--find", "--show", "--partscan", file).Output()
	if err != nil {
		t.Skipf("SKIPPED %s: no loop device: %v", t.Name(), err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { command(t, "losetup", "--detach", device) })

	a := newAppliance(t)
	ag := newAgent(t, a)
	ag.Dev, ag.EFI = filepath.Dir(device), t.TempDir() // without variables, so the loader must do
	ag.MountESP = boot.MountESP
	d := inventory.Disk{Name: filepath.Base(device), Serial: "S1", Bytes: 64 << 20}
	ag.Disks = func() ([]inventory.Disk, error) { return []inventory.Disk{d}, nil }
	id := d.Identity()
	a.orders = []inventory.Order{
		{
			ID: "f", Do: inventory.DoFinishDisk, Target: &id,
			Seed: &inventory.Seed{MetaData: "instance-id: 1\n"},
		}, reboot,
	}
	if err := runAgent(t, ag); err != nil {
		t.Fatal(err)
	}
	if r := a.results[0]; r.Error != "" || !strings.HasPrefix(r.Finished.Fallback, fallback) {
		t.Fatalf("result = %+v", r)
	}
	for path, want := range map[string]string{fallback: shim, `\EFI\BOOT\grub` + suffix() + `.efi`: grub} {
		got, err := exec.Command("mtype", "-i", file+"@@"+strconv.Itoa(1<<20),
			"::"+strings.ReplaceAll(path, `\`, "/")).Output()
		if err != nil || !bytes.Equal(got, loaderOf(want)) {
			t.Errorf("%s holds %d bytes, %v, want those of %s", path, len(got), err, want)
		}
	}
	command(t, "fsck.vfat", "-n", device+"p15")
}

func suffix() string {
	return map[string]string{"amd64": "x64", "arm64": "aa64"}[runtime.GOARCH]
}
