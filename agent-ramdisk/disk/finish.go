package disk

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pxectl/pxectl/internal/fat"
	"github.com/pxectl/pxectl/internal/parttable"
	"github.com/pxectl/pxectl/inventory"
)

// maxSeed bounds the seed's file system; a larger partition gets one of this size.
const maxSeed = 64 << 20

// linuxData is the type of the seed partition that we add; systemd and udev ignore it.
var linuxData = parttable.GUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4")

// Finish fits a written image to the disk: it moves the backup GPT to the end, writes the seed where
// cloud-init looks for it, and checks that the kernel sees the partitions of the table. Doing it again gives
// the same result.
func (d *Device) Finish(seed inventory.Seed) (*inventory.Finished, error) {
	done := new(inventory.Finished)
	var place parttable.Extent
	t := parttable.Read(d, d.Size, d.Sector)
	err := t.Fault
	switch {
	case err != nil:
	case t.Kind == "":
		err = errors.New("no partition table on the disk; is this a disk image?")
	case t.Kind == "mbr":
		place, err = d.finishMBR(t, done)
	default:
		place, err = d.growGPT(t, done)
	}
	if err != nil {
		return nil, fmt.Errorf("finish %s: %w", d.Name, err)
	}
	if err := d.writeSeed(place, seed); err != nil {
		return nil, fmt.Errorf("finish %s: %w", d.Name, err)
	}
	done.Ranges = append(done.Ranges, inventory.Range{
		Name: "seed", Offset: uint64(place.Offset), Length: uint64(min(place.Length, maxSeed)),
	})
	if err := d.Flush(); err != nil {
		return nil, err
	}
	done.Partitions, err = d.countPartitions()
	return done, err
}

// finishMBR finds the place of the seed. If the image has none, it makes a partition in a free entry.
func (d *Device) finishMBR(t parttable.Table, done *inventory.Finished) (parttable.Extent, error) {
	done.Ranges = append(done.Ranges, inventory.Range{Name: "MBR", Offset: 0, Length: 512})
	if place, ok := t.Seed(d); ok {
		return place, nil
	}
	first, free, err := t.SeedFirst(uint64(d.Size/int64(d.Sector)), d.Sector)
	if err != nil {
		return parttable.Extent{}, err
	}
	length := uint64(parttable.SeedSize / d.Sector)
	e := t.MBR.Entry(free)
	clear(e)
	e[4] = parttable.FAT32       // the seed's file system is smaller, which is harmless
	copy(e[1:4], "\xfe\xff\xff") // cylinders, heads and sectors: the largest values
	copy(e[5:8], "\xfe\xff\xff")
	binary.LittleEndian.PutUint32(e[8:], uint32(first))
	binary.LittleEndian.PutUint32(e[12:], uint32(length))
	if _, err := d.WriteAt(t.MBR[:], 0); err != nil {
		return parttable.Extent{}, fmt.Errorf("write the MBR: %w", err)
	}
	return parttable.Extent{
		Offset: int64(first) * int64(d.Sector), Length: parttable.SeedSize,
		Number: free + 1, MBR: parttable.FAT32,
	}, nil
}

// growGPT makes the table span the disk and adds a seed partition if there is none. It returns the place of
// the seed.
func (d *Device) growGPT(t parttable.Table, done *inventory.Finished) (place parttable.Extent, err error) {
	g, sectors := t.GPT, uint64(d.Size/int64(d.Sector))
	h := &g.Header
	h.AlternateLBA = sectors - 1
	backupTable := h.AlternateLBA - g.TableSectors()
	h.LastUsable = backupTable - 1
	if _, err := g.Partitions(h.LastUsable + 1); err != nil {
		return place, fmt.Errorf("no room for the backup GPT: %w", err)
	}
	place, ok := t.Seed(d)
	if !ok {
		if place, err = d.addSeed(t, sectors); err != nil {
			return place, err
		}
	}
	return place, d.writeGPT(g, backupTable, done)
}

// addSeed puts a seed partition at the end of the disk.
func (d *Device) addSeed(t parttable.Table, sectors uint64) (parttable.Extent, error) {
	first, _, err := t.SeedFirst(sectors, d.Sector)
	if err != nil {
		return parttable.Extent{}, err
	}
	var unique [16]byte
	_, _ = rand.Read(unique[:])
	unique[7] = unique[7]&0x0f | 0x40 // version 4, RFC 9562 section 5.4
	unique[8] = unique[8]&0x3f | 0x80
	if _, err := t.GPT.Add(linuxData, unique, first, first+uint64(parttable.SeedSize/d.Sector)-1,
		parttable.SeedName); err != nil {
		return parttable.Extent{}, err
	}
	return parttable.Extent{
		Offset: int64(first) * int64(d.Sector), Length: parttable.SeedSize,
		Name: parttable.SeedName,
	}, nil
}

// writeGPT writes the backup first: until the primary is written, the disk is as the image left it.
func (d *Device) writeGPT(g *parttable.GPT, backupTable uint64, done *inventory.Finished) error {
	primaryTable := g.Header.EntriesLBA
	backup := *g
	backup.Header.MyLBA, backup.Header.AlternateLBA = g.Header.AlternateLBA, 1
	backup.Header.EntriesLBA = backupTable

	var mbr parttable.MBR
	if _, err := d.ReadAt(mbr[:], 0); err != nil {
		return fmt.Errorf("protective MBR: %w", err)
	}
	mbr.Protect(uint64(d.Size / int64(d.Sector)))

	for _, w := range []struct {
		what string
		data []byte
		lba  uint64
	}{
		{"backup GPT's entries", g.Table, backupTable},
		{"backup GPT", backup.Encode(), backup.Header.MyLBA},
		{"GPT's entries", g.Table, primaryTable},
		{"GPT", g.Encode(), 1},
		{"protective MBR", mbr[:], 0},
	} {
		if _, err := d.WriteAt(w.data, int64(w.lba)*int64(d.Sector)); err != nil {
			return fmt.Errorf("write the %s at LBA %d: %w", w.what, w.lba, err)
		}
	}
	if err := d.Flush(); err != nil {
		return err
	}
	for _, lba := range []uint64{1, g.Header.AlternateLBA} {
		if _, err := parttable.ReadGPT(d, d.Sector, lba); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
	}
	done.Ranges = append(
		done.Ranges,
		inventory.Range{
			Name:   "primary GPT",
			Offset: 0,
			Length: (primaryTable + g.TableSectors()) * uint64(int64(d.Sector)),
		},
		inventory.Range{
			Name:   "backup GPT",
			Offset: backupTable * uint64(int64(d.Sector)),
			Length: (g.TableSectors() + 1) * uint64(int64(d.Sector)),
		},
	)
	return nil
}

// writeSeed overwrites the seed partition with a new filesystem.
func (d *Device) writeSeed(place parttable.Extent, seed inventory.Seed) error {
	files := []fat.File{
		{Name: "meta-data", Data: []byte(seed.MetaData)},
		{Name: "user-data", Data: seed.UserData},
		{Name: "vendor-data", Data: []byte(seed.VendorData)},
	}
	if seed.NetworkConfig != "" {
		files = append(files, fat.File{Name: "network-config", Data: []byte(seed.NetworkConfig)})
	}
	img, err := fat.Build(int(min(place.Length, maxSeed)), d.Sector, parttable.SeedName, files)
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	if _, err := d.WriteAt(img, place.Offset); err != nil {
		return fmt.Errorf("write the seed at %d: %w", place.Offset, err)
	}
	return nil
}

// countPartitions returns the number of partitions in the table, and checks that the kernel sees as many.
func (d *Device) countPartitions() (int, error) {
	parts := parttable.Read(d, d.Size, d.Sector).Partitions
	if len(parts) == 0 {
		return 0, fmt.Errorf("%s has no partitions after the image was written", d.Name)
	}
	if err := d.Reread(); err != nil {
		return 0, err
	}
	if !d.Scannable() {
		return len(parts), nil
	}
	var seen int
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if seen = d.kernelPartitions(); seen == len(parts) {
			return seen, nil
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("%s: the kernel sees %d partitions, the table has %d", d.Name, seen,
				len(parts))
		}
	}
}

// kernelPartitions counts the partitions that the kernel sees.
func (d *Device) kernelPartitions() int {
	found := 0
	entries, _ := os.ReadDir(d.Sys)
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(d.Sys, e.Name(), "partition")); err == nil {
			found++
		}
	}
	return found
}
