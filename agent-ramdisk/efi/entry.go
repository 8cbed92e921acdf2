package efi

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// prefix is what labels of our entries begin with.
const prefix = "pxectl:"

// SetBoot makes an entry "pxectl:NAME" that starts a file of a partition, and returns how the firmware's menu calls it. Entries of
// ours go whose partition is this one, or on none of the machine's disks any more (alive says so): some firmware waits half a minute for
// each. Doing it again changes nothing.
//
// The entry stands behind the network entries at the head of BootOrder, and before every system on a disk and
// the firmware's shell: a machine that asks the network first goes on doing so.
func (v Vars) SetBoot(name string, p Partition, file string, alive func(signature [16]byte) bool) (string, error) {
	all, err := v.options()
	if err != nil {
		return "", fmt.Errorf("EFI boot entries: %w", err)
	}
	order, err := v.order()
	if err != nil {
		return "", err
	}
	ours := newOption(prefix+name, p, file)
	number, found := uint16(0), false
	for n, o := range all {
		switch {
		case !strings.HasPrefix(o.Label, prefix):
			continue
		case o.equal(ours) && !found:
			number, found = n, true
			continue
		case o.partition != nil && o.partition.Signature != p.Signature && alive(o.partition.Signature):
			continue // the system on another disk
		}
		if err := v.remove(optionName(n)); err != nil {
			return "", err
		}
		delete(all, n)
		order = slices.DeleteFunc(order, func(in uint16) bool { return in == n })
	}
	if !found {
		for number = 0; ; number++ {
			if _, taken := all[number]; !taken && !slices.Contains(order, number) {
				break
			}
			if number == 0xffff {
				return "", errors.New("EFI boot entries: all numbers are used")
			}
		}
		if err := v.write(optionName(number), ours.raw); err != nil {
			if errors.Is(err, unix.ENOSPC) {
				err = fmt.Errorf("%w: the firmware's memory is full; remove old boot entries in its setup", err)
			}
			return "", err
		}
	}
	if err := v.setOrder(place(order, all, number)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %s", optionName(number), ours.Label), nil
}

// place puts an entry into the order.
func place(order []uint16, all map[uint16]Option, number uint16) []uint16 {
	order = slices.DeleteFunc(slices.Clone(order), func(n uint16) bool { return n == number })
	// Up to the first system on a disk, or the shell.
	end := slices.IndexFunc(order, func(n uint16) bool { return all[n].partition != nil || all[n].shell() })
	if end < 0 {
		end = len(order)
	}
	at := 0
	for i, n := range order[:end] {
		if all[n].network {
			at = i + 1
		}
	}
	return slices.Insert(order, at, number)
}
