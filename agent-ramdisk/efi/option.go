package efi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf16"
)

// An Option is a boot entry, EFI_LOAD_OPTION.
type Option struct {
	Label string

	partition *Partition // of its hard drive node
	network   bool
	raw       []byte
}

// A Partition is the partition in a hard drive node (section 10.3.5.1).
type Partition struct {
	Number         uint32
	First, Sectors uint64
	Signature      [16]byte // the GUID of a GPT's partition, or the four bytes of an MBR's disk
	MBR            bool
}

// Nodes of device paths: type and sub-type.
const (
	typeMessaging = 3
	subMAC        = 11
	subIPv4       = 12
	subIPv6       = 13
	subURI        = 24
	typeMedia     = 4
	subHardDrive  = 1
	subFile       = 4
	typeEnd       = 0x7f

	optionActive = 1
)

var errOption = errors.New("EFI boot entry: cut short")

func parseOption(raw []byte) (Option, error) {
	o := Option{raw: raw}
	if len(raw) < 8 {
		return o, errOption
	}
	length := int(binary.LittleEndian.Uint16(raw[4:]))
	rest := raw[6:]
	var label []uint16
	for {
		if len(rest) < 2 {
			return o, errOption
		}
		c := binary.LittleEndian.Uint16(rest)
		rest = rest[2:]
		if c == 0 {
			break
		}
		label = append(label, c)
	}
	o.Label = string(utf16.Decode(label))
	if length > len(rest) {
		return o, errOption
	}
	for path := rest[:length]; len(path) >= 4; {
		n := int(binary.LittleEndian.Uint16(path[2:]))
		if n < 4 || n > len(path) {
			return o, errOption
		}
		o.node(path[0], path[1], path[4:n])
		if path[0] == typeEnd {
			break
		}
		path = path[n:]
	}
	return o, nil
}

func (o *Option) node(kind, sub byte, data []byte) {
	switch {
	case kind == typeMessaging && (sub == subMAC || sub == subIPv4 || sub == subIPv6 || sub == subURI):
		o.network = true
	case kind == typeMedia && sub == subHardDrive && len(data) >= 38:
		le := binary.LittleEndian
		o.partition = &Partition{
			le.Uint32(data), le.Uint64(data[4:]), le.Uint64(data[12:]), [16]byte(data[20:36]), data[36] == 1,
		}
	}
}

// shell says whether an entry starts the firmware's shell: no later entry ever runs.
func (o Option) shell() bool { return strings.Contains(strings.ToLower(o.Label), "shell") }

// newOption encodes an entry that starts a file of a partition.
func newOption(label string, p Partition, file string) Option {
	le := binary.LittleEndian
	var disk []byte
	disk = le.AppendUint32(disk, p.Number)
	disk = le.AppendUint64(disk, p.First)
	disk = le.AppendUint64(disk, p.Sectors)
	disk = append(disk, p.Signature[:]...)
	if p.MBR {
		disk = append(disk, 1, 1)
	} else {
		disk = append(disk, 2, 2)
	}
	path := append(node(typeMedia, subHardDrive, disk), node(typeMedia, subFile, text(file))...)
	path = append(path, node(typeEnd, 0xff, nil)...)
	raw := le.AppendUint32(nil, optionActive)
	raw = le.AppendUint16(raw, uint16(len(path)))
	raw = append(raw, text(label)...)
	raw = append(raw, path...)
	return Option{Label: label, partition: &p, raw: raw}
}

func node(kind, sub byte, data []byte) []byte {
	return append(binary.LittleEndian.AppendUint16([]byte{kind, sub}, uint16(4+len(data))), data...)
}

// text is UTF-16 that ends with a zero.
func text(s string) []byte {
	var b []byte
	for _, c := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return append(b, 0, 0)
}

func (o Option) equal(other Option) bool { return bytes.Equal(o.raw, other.raw) }
