package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// global is EFI_GLOBAL_VARIABLE, section 3.3.
	global = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	// kept are the attributes of a boot entry: non-volatile, for boot services, at run time (section 8.2.1).
	kept = 0x7

	maxVariable = 64 << 10

	immutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
)

// Vars are the firmware's variables: Linux' efivarfs, or a folder like it.
type Vars struct{ Dir string }

// Present says whether there are variables. There are none when the machine was started by BIOS, or when the
// kernel may not call the firmware.
func (v Vars) Present() bool {
	entries, err := os.ReadDir(v.Dir)
	return err == nil && len(entries) > 0
}

func (v Vars) path(name string) string { return filepath.Join(v.Dir, name+"-"+global) }

// read returns a variable's value without its attributes, which efivarfs puts before it.
func (v Vars) read(name string) ([]byte, error) {
	data, err := os.ReadFile(v.path(name))
	if err != nil {
		return nil, err
	}
	if len(data) < 4 || len(data) > maxVariable {
		return nil, fmt.Errorf("EFI variable %s: %d bytes", name, len(data))
	}
	return data[4:], nil
}

// write sets a variable. efivarfs wants attributes and value in one call.
func (v Vars) write(name string, value []byte) error {
	v.unlock(name)
	f, err := os.OpenFile(v.path(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("EFI variable %s: %w", name, err)
	}
	_, err = f.Write(append(binary.LittleEndian.AppendUint32(nil, kept), value...))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("EFI variable %s: %w", name, err)
	}
	return nil
}

func (v Vars) remove(name string) error {
	v.unlock(name)
	if err := os.Remove(v.path(name)); err != nil {
		return fmt.Errorf("EFI variable %s: %w", name, err)
	}
	return nil
}

// unlock clears the immutable flag, which efivarfs sets on variables that it does not know to be harmless. It
// ignores errors: if the variable does not exist, or the filesystem has no flags, the write says more.
func (v Vars) unlock(name string) {
	f, err := os.Open(v.path(name))
	if err != nil {
		return
	}
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&immutable != 0 {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags&^immutable))
	}
}

var bootVariable = regexp.MustCompile(`^Boot([0-9A-F]{4})-` + global + `$`)

// options are the boot entries by number. It leaves out unreadable ones: they are not ours.
func (v Vars) options() (map[uint16]Option, error) {
	files, err := os.ReadDir(v.Dir)
	if err != nil {
		return nil, err
	}
	all := map[uint16]Option{}
	for _, f := range files {
		m := bootVariable.FindStringSubmatch(f.Name())
		if m == nil {
			continue
		}
		n, _ := strconv.ParseUint(m[1], 16, 16)
		o := Option{}
		if raw, err := v.read(optionName(uint16(n))); err == nil {
			o, _ = parseOption(raw)
		}
		all[uint16(n)] = o
	}
	return all, nil
}

func optionName(n uint16) string { return fmt.Sprintf("Boot%04X", n) }

// order is BootOrder; it is empty on a machine whose firmware lost it.
func (v Vars) order() ([]uint16, error) {
	raw, err := v.read("BootOrder")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var order []uint16
	for ; len(raw) >= 2; raw = raw[2:] {
		order = append(order, binary.LittleEndian.Uint16(raw))
	}
	return order, nil
}

func (v Vars) setOrder(order []uint16) error {
	old, err := v.order()
	if err == nil && slices.Equal(old, order) {
		return nil // every write wears out the firmware's memory
	}
	var raw []byte
	for _, n := range order {
		raw = binary.LittleEndian.AppendUint16(raw, n)
	}
	return v.write("BootOrder", raw)
}
