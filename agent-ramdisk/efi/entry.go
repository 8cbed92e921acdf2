package efi

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/internal/printable"
)

// prefix begins the labels of our entries.
const prefix = "pxectl:"

// Forget removes the entries, whoever made them, for partitions that were on a disk before it was erased or
// overwritten (gone) and are on no disk now (alive): some firmware waits half a minute for each. It returns
// their names in the firmware's menu.
func (v Vars) Forget(gone [][16]byte, alive func(signature [16]byte) bool) (removed []string, err error) {
	all, err := v.options()
	if err != nil {
		return nil, fmt.Errorf("EFI boot entries: %w", err)
	}
	numbers := stale(all, gone, alive)
	if len(numbers) == 0 {
		return nil, nil
	}
	order, err := v.order()
	if err != nil {
		return nil, err
	}
	for _, n := range numbers {
		if err := v.remove(optionName(n)); err != nil {
			return removed, err
		}
		removed = append(removed, menuName(n, all[n]))
	}
	return removed, v.setOrder(slices.DeleteFunc(order, func(n uint16) bool {
		return slices.Contains(numbers, n)
	}))
}

// stale decides which entries to remove. An entry without a partition stays: a network card, a part of the
// firmware, a whole disk. So does one with a partition that was never seen: its disk may be missing for a
// day.
func stale(all map[uint16]Option, gone [][16]byte, alive func([16]byte) bool) (numbers []uint16) {
	for n, o := range all {
		p := o.partition
		if p == nil || p.Signature == [16]byte{} || alive(p.Signature) ||
			!slices.Contains(gone, p.Signature) {
			continue
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers
}

// menuName is an entry's name for people. Other programs' labels may hold any text.
func menuName(n uint16, o Option) string {
	const most = 64
	label := []rune(printable.Only(o.Label))
	return optionName(n) + " " + string(label[:min(len(label), most)])
}

// SetBoot makes an entry "pxectl:NAME" that starts a file of a partition. It returns its name in the
// firmware's menu, and the names of entries that it removed: those of ours for this partition, or for one
// that is on no disk of the machine (alive says so). Doing it again changes nothing.
//
// The entry stands behind the network entries at the head of BootOrder, and before every system on a disk and
// the firmware's shell: a machine that asks the network first goes on doing so.
func (v Vars) SetBoot(
	name string, p Partition, file string, alive func(signature [16]byte) bool,
) (entry string, removed []string, err error) {
	all, err := v.options()
	if err != nil {
		return "", nil, fmt.Errorf("EFI boot entries: %w", err)
	}
	order, err := v.order()
	if err != nil {
		return "", removed, err
	}
	ours := newOption(prefix+name, p, file)
	number, found := uint16(0), false
	for _, n := range slices.Sorted(maps.Keys(all)) {
		o := all[n]
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
			return "", removed, err
		}
		removed = append(removed, menuName(n, o))
		delete(all, n)
		order = slices.DeleteFunc(order, func(in uint16) bool { return in == n })
	}
	if !found {
		for number = 0; ; number++ {
			if _, taken := all[number]; !taken && !slices.Contains(order, number) {
				break
			}
			if number == 0xffff {
				return "", removed, errors.New("EFI boot entries: all numbers are used")
			}
		}
		if err := v.write(optionName(number), ours.raw); err != nil {
			if errors.Is(err, unix.ENOSPC) {
				err = fmt.Errorf("%w: the firmware's memory is full; remove old boot entries in its setup",
					err)
			}
			return "", removed, err
		}
	}
	if err := v.setOrder(place(order, all, number)); err != nil {
		return "", removed, err
	}
	return menuName(number, ours), removed, nil
}

// place puts an entry into the order.
func place(order []uint16, all map[uint16]Option, number uint16) []uint16 {
	order = slices.DeleteFunc(slices.Clone(order), func(n uint16) bool { return n == number })
	// Stop at the first system on a disk, or at the shell.
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
