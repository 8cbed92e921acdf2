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

// Software is what Read found in an image. All of it comes from the image and may be false.
type Software struct {
	Architecture string   `json:"architecture,omitempty"` // of its programs, else of its boot loader: "amd64", …
	OS           string   `json:"os,omitempty"`           // ID of os-release(5): "debian"
	Version      string   `json:"version,omitempty"`      // VERSION_ID
	Name         string   `json:"name,omitempty"`         // PRETTY_NAME
	CloudInit    *bool    `json:"cloud_init,omitempty"`   // nil: the root file system was not read
	Filesystems  []string `json:"filesystems,omitempty"`  // kinds that Read knows, in order of partitions
	// Loaders are the files in EFI/BOOT of the EFI system partition, which firmware finds without a boot
	// entry: "BOOTX64.EFI". nil: no such partition was read; empty: there are none.
	Loaders []string `json:"loaders,omitzero"`
	// Vendor is a distribution's loader in a directory of its own, if Loaders has none for a machine:
	// "EFI/debian/shimx64.efi". A deployment copies it to EFI/BOOT.
	Vendor string `json:"vendor_loader,omitempty"`

	// Smallest is the size in bytes of the smallest disk for the image and its seed; 0 when unknown.
	Smallest int64 `json:"smallest_disk,omitempty"`
	// Fault says why nothing can be deployed from the image. Such an image is in the store only by force.
	Fault string `json:"fault,omitempty"`
}

// maxPartitions bounds the number of partitions to read.
const maxPartitions = 16

// Read reads the partitions of a disk of size bytes, or the disk itself when it has no table.
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
		// Take the first partition with a loader, as the agent does.
		case kind == "vfat" && p.ESP && len(s.Loaders) == 0 && s.Vendor == "":
			s.Loaders, s.Vendor, loaderArch = readLoaders(part)
		case kind == "ext4" && s.CloudInit == nil:
			s.readRoot(part)
		}
	}
	if s.Architecture == "" {
		s.Architecture = loaderArch
	}
	s.Smallest, s.Fault = t.Smallest, FindFault(disk, t, s)
	return s
}

// filesystem names a file system, or another content of a partition, by its magic.
func filesystem(r io.ReaderAt) string {
	at := func(off int64, magic string) bool {
		b := make([]byte, len(magic))
		_, err := r.ReadAt(b, off)
		return err == nil && string(b) == magic
	}
	switch {
	case at(1024+56, "\x53\xef"):
		return "ext4" // or ext2 or ext3: one reader for all
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

// loaders are the removable paths (UEFI specification section 3.5.1.1, table 3-2) with their architectures.
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
	for _, l := range loaders[:2] { // the architectures that have a ramdisk
		if fallback, path := efiloader.Find(v, l.arch); !fallback && path != "" && vendor == "" {
			vendor, arch = word(strings.ReplaceAll(path[1:], `\`, "/")), cmp.Or(arch, l.arch)
		}
	}
	return found, vendor, arch
}

// readRoot reads a file system that may be the root.
func (s *Software) readRoot(part io.ReaderAt) {
	fs, err := openExt4(part)
	if err != nil {
		return
	}
	// os-release(5): the file in /etc goes before the one in /usr/lib.
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

// osRelease reads ID, VERSION_ID and PRETTY_NAME from os-release(5), a list of shell assignments.
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

// maxWord bounds a word from the image.
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
