package contents

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"strings"

	"github.com/pxectl/pxectl/internal/efiloader"
	"github.com/pxectl/pxectl/internal/fat"
	"github.com/pxectl/pxectl/internal/printable"
)

// Software is what could be read of an image. Everything in it comes from the image and may lie.
type Software struct {
	Architecture string   `json:"architecture,omitempty"` // "amd64", "arm64", …: of its programs, or else of its boot loader
	OS           string   `json:"os,omitempty"`           // ID of os-release(5): "debian"
	Version      string   `json:"version,omitempty"`      // VERSION_ID
	Name         string   `json:"name,omitempty"`         // PRETTY_NAME
	CloudInit    *bool    `json:"cloud_init,omitempty"`   // nil: the root file system was not read
	Filesystems  []string `json:"filesystems,omitempty"`  // kinds that were recognised, in the order of the partitions
	// Loaders are those in EFI/BOOT of the EFI system partition, which firmware finds without a boot
	// entry: "BOOTX64.EFI". nil: no such partition was read; empty: there are none.
	Loaders []string `json:"loaders,omitzero"`
	// Vendor is, where there is none for a machine, the one of a distribution in a directory of its own:
	// "EFI/debian/shimx64.efi". A deployment copies it to EFI/BOOT.
	Vendor string `json:"vendor_loader,omitempty"`

	// Smallest is how many bytes a disk has at least that the image is deployed to, with the seed; 0 when it
	// is not known.
	Smallest int64 `json:"smallest_disk,omitempty"`
	// Fault says why nothing can be deployed from the image. One that has a fault was imported all the same.
	Fault string `json:"fault,omitempty"`
}

// maxPartitions is how many partitions are looked into.
const maxPartitions = 16

// Read looks into the partitions of a disk of size bytes, or into the disk itself when it has no table.
func Read(disk io.ReaderAt, size int64, t Table) (s Software) {
	partitions := t.Partitions
	if t.Kind == "" {
		partitions = []Partition{{0, size, false}}
	}
	loaderArch := ""
	for i, p := range partitions {
		if p.Length <= 0 || p.Offset < 0 || p.Offset > size-p.Length || i >= maxPartitions {
			continue
		}
		part := io.NewSectionReader(disk, p.Offset, p.Length)
		kind := filesystem(part)
		if kind != "" {
			s.Filesystems = append(s.Filesystems, kind)
		}
		switch {
		case kind == "vfat" && p.ESP && len(s.Loaders) == 0 && s.Vendor == "": // the first that has one, as the agent takes it
			s.Loaders, s.Vendor, loaderArch = readLoaders(part)
		case kind == "ext4" && s.CloudInit == nil:
			s.readRoot(part)
		}
	}
	if s.Architecture == "" {
		s.Architecture = loaderArch
	}
	s.Smallest, s.Fault = t.Smallest, Judge(disk, t, s)
	return s
}

// filesystem tells a file system, or what stands in its place, by its magic.
func filesystem(r io.ReaderAt) string {
	at := func(off int64, magic string) bool {
		b := make([]byte, len(magic))
		_, err := r.ReadAt(b, off)
		return err == nil && string(b) == magic
	}
	switch {
	case at(1024+56, "\x53\xef"):
		return "ext4" // or 2, or 3: one reader for all
	case at(0, "XFSB"):
		return "xfs"
	case at(64<<10+64, "_BHRfS_M"):
		return "btrfs"
	case at(512, "LABELONE"):
		return "lvm"
	case at(0, "LUKS\xba\xbe"):
		return "luks"
	case at(0, "hsqs"):
		return "squashfs"
	case at(3, "NTFS    "):
		return "ntfs"
	case at(510, "\x55\xaa") && (at(54, "FAT") || at(82, "FAT32")):
		return "vfat"
	}
	return ""
}

// loaders are the removable paths (UEFI specification section 3.5.1.1, table 3-2) and what they are for.
var loaders = []struct{ name, arch string }{
	{"BOOTX64.EFI", "amd64"}, {"BOOTAA64.EFI", "arm64"}, {"BOOTIA32.EFI", "386"}, {"BOOTARM.EFI", "arm"},
}

func readLoaders(part io.ReaderAt) (found []string, vendor, arch string) {
	v, err := fat.Open(part)
	if err != nil {
		return nil, "", ""
	}
	if _, err := v.List("EFI"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", ""
	}
	found = []string{}
	for _, l := range loaders {
		if v.Has(`\EFI\BOOT\` + l.name) {
			found, arch = append(found, l.name), cmp.Or(arch, l.arch)
		}
	}
	for _, l := range loaders[:2] { // those that a ramdisk is made for
		if fallback, path := efiloader.Find(v, l.arch); !fallback && path != "" && vendor == "" {
			vendor, arch = word(strings.ReplaceAll(path[1:], `\`, "/")), cmp.Or(arch, l.arch)
		}
	}
	return found, vendor, arch
}

// readRoot looks at a file system that may be the root.
func (s *Software) readRoot(part io.ReaderAt) {
	fs, err := openExt4(part)
	if err != nil {
		return
	}
	// os-release(5): the one below /etc goes first.
	var release []byte
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if release, err = fs.read(path, 64<<10); err == nil {
			break
		}
	}
	if err != nil {
		return // some other file system, such as /boot
	}
	s.OS, s.Version, s.Name = osRelease(release)
	has := false
	for _, path := range []string{"/usr/bin/cloud-init", "/etc/cloud/cloud.cfg"} {
		if _, err := fs.find(path); err == nil {
			has = true
		} else if !errors.Is(err, errNotThere) {
			return // unreadable is not absent
		}
	}
	s.CloudInit = &has
	if head, err := fs.read("/bin/sh", 64); err == nil {
		s.Architecture = elfArch(head)
	}
}

// osRelease reads ID, VERSION_ID and PRETTY_NAME of os-release(5), which is a list of assignments of the
// shell.
func osRelease(b []byte) (id, version, name string) {
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		key, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		value = word(value)
		switch key {
		case "ID":
			id = value
		case "VERSION_ID":
			version = value
		case "PRETTY_NAME":
			name = value
		}
	}
	return id, version, name
}

// maxWord bounds what is taken over from the image.
const maxWord = 80

func word(s string) string { return printable.Only(s[:min(len(s), maxWord)]) }

// elfArch reads e_machine (System V ABI, chapter 4).
func elfArch(head []byte) string {
	if len(head) < 20 || string(head[:4]) != "\x7fELF" {
		return ""
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if head[5] == 2 {
		order = binary.BigEndian
	}
	switch order.Uint16(head[18:]) {
	case 3:
		return "386"
	case 21:
		return "ppc64" + map[byte]string{1: "le"}[head[5]]
	case 22:
		return "s390x"
	case 40:
		return "arm"
	case 62:
		return "amd64"
	case 183:
		return "arm64"
	case 243:
		return "riscv64"
	}
	return ""
}
