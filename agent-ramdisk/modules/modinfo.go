package modules

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"strings"
)

// Info is a module's information about itself.
type Info struct {
	Name     string
	VerMagic string // "6.1.0-56-amd64 SMP preempt mod_unload modversions "
	Aliases  []string
	Depends  []string
	Soft     []string // softdep "pre:" targets
	Firmware []string
}

// Kernel is the release that the module was built for.
func (i Info) Kernel() string {
	release, _, _ := strings.Cut(i.VerMagic, " ")
	return release
}

// maxModinfo bounds the section; the largest of Debian's kernels is some 40 KiB.
const maxModinfo = 1 << 20

// ReadInfo reads the .modinfo section of an uncompressed module.
func ReadInfo(r io.ReaderAt) (Info, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return Info{}, fmt.Errorf("not a kernel module: %w", err)
	}
	s := f.Section(".modinfo")
	if s == nil {
		return Info{}, fmt.Errorf("not a kernel module: no .modinfo section")
	}
	if s.Size > maxModinfo {
		return Info{}, fmt.Errorf(".modinfo of %d bytes, at most %d", s.Size, maxModinfo)
	}
	data, err := s.Data()
	if err != nil {
		return Info{}, fmt.Errorf(".modinfo: %w", err)
	}
	return ParseInfo(data), nil
}

// ParseInfo reads the section's bytes. It ignores unknown keys.
func ParseInfo(data []byte) Info {
	var info Info
	for _, field := range bytes.Split(data, []byte{0}) {
		key, value, ok := strings.Cut(string(field), "=")
		if !ok {
			continue
		}
		switch key {
		case "name":
			info.Name = underscores(value)
		case "vermagic":
			info.VerMagic = value
		case "alias":
			info.Aliases = append(info.Aliases, value)
		case "firmware":
			info.Firmware = append(info.Firmware, value)
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				if name != "" {
					info.Depends = append(info.Depends, underscores(name))
				}
			}
		case "softdep":
			pre := false
			for word := range strings.FieldsSeq(value) {
				switch {
				case strings.HasSuffix(word, ":"):
					pre = word == "pre:"
				case pre:
					info.Soft = append(info.Soft, word)
				}
			}
		}
	}
	return info
}
