package disk

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pxectl/pxectl/agent-ramdisk/fat"
	"github.com/pxectl/pxectl/inventory"
)

const (
	seedLabelName = "cidata"
	seedSize      = 4 << 20  // of a seed partition that we add
	maxSeed       = 64 << 20 // of one that we fill: a larger one gets a filesystem of this size
)

// linuxData is the type of the seed partition that we add; systemd and udev leave it alone.
var linuxData = guid("0FC63DAF-8483-4772-8E79-3D69D8477DE4")

// Finish fits a written image to the disk: the backup GPT moves to the end, the seed goes where
// cloud-init looks for it, and the kernel must see the partitions that the table has.
// Doing it again gives the same.
func (d *Device) Finish(seed inventory.Seed) (*inventory.Finished, error) {
	done := new(inventory.Finished)
	g, err := readGPT(d, d.Sector, 1)
	var place *extent
	switch {
	case errors.Is(err, errNoGPT):
		if place, err = d.findSeed(); err == nil && place == nil {
			place, err = d.addSeedMBR()
			done.Ranges = append(done.Ranges, inventory.Range{Name: "MBR", Offset: 0, Length: 512})
		}
	case err == nil:
		place, err = d.growGPT(g, done)
	}
	if err != nil {
		return nil, fmt.Errorf("finish %s: %w", d.Name, err)
	}
	if err := d.writeSeed(*place, seed); err != nil {
		return nil, fmt.Errorf("finish %s: %w", d.Name, err)
	}
	done.Ranges = append(done.Ranges, inventory.Range{Name: "seed", Offset: uint64(place.offset), Length: uint64(min(place.length, maxSeed))})
	if err := d.Flush(); err != nil {
		return nil, err
	}
	done.Partitions, err = d.countPartitions()
	return done, err
}

// findSeed finds the partition that is labelled cidata, by its name in the GPT or by its filesystem.
func (d *Device) findSeed() (*extent, error) {
	table, parts := partitions(d, d.Size, d.Sector)
	if table == "" {
		return nil, errors.New("no partition table on the disk; is this a disk image?")
	}
	for _, p := range parts {
		if strings.EqualFold(p.name, seedLabelName) {
			return &p, nil
		}
		for _, name := range probe(d, p.offset, p.length) {
			if name == seedLabelName {
				return &p, nil
			}
		}
	}
	return nil, nil
}

// growGPT makes the table span the disk and adds a seed partition if there is none. It returns where the
// seed goes.
func (d *Device) growGPT(g *gpt, done *inventory.Finished) (*extent, error) {
	sectors := uint64(d.Size / int64(d.Sector))
	if _, err := g.partitions(sectors); err != nil {
		return nil, err
	}
	h := &g.header
	h.AlternateLBA = sectors - 1
	backupTable := h.AlternateLBA - g.tableSectors()
	h.LastUsable = backupTable - 1
	if _, err := g.partitions(h.LastUsable + 1); err != nil {
		return nil, fmt.Errorf("no room for the backup GPT: %w", err)
	}

	place, err := d.findSeed()
	if err != nil {
		return nil, err
	}
	if place == nil {
		if place, err = d.addSeed(g); err != nil {
			return nil, err
		}
	}
	if err := d.writeGPT(g, backupTable, done); err != nil {
		return nil, err
	}
	return place, nil
}

// addSeed puts a seed partition at the end of the disk: partitions keep their numbers, and the last one of
// the image can still grow up to it.
func (d *Device) addSeed(g *gpt) (*extent, error) {
	parts, err := g.partitions(g.header.LastUsable + 1)
	if err != nil {
		return nil, err
	}
	perMiB := uint64(1<<20) / uint64(d.Sector)
	length := uint64(seedSize / d.Sector)
	first := (g.header.LastUsable + 1 - length) / perMiB * perMiB
	for _, p := range parts {
		if p.Last >= first {
			return nil, fmt.Errorf("no room for the seed: partition %d ends at LBA %d, the seed of %d bytes would start at %d; use a larger disk, or an image with a partition labelled cidata",
				p.Number, p.Last, seedSize, first)
		}
	}
	var unique [16]byte
	_, _ = rand.Read(unique[:])
	unique[7] = unique[7]&0x0f | 0x40 // version 4, RFC 9562 section 5.4
	unique[8] = unique[8]&0x3f | 0x80
	if _, err := g.add(linuxData, unique, first, first+length-1, seedLabelName); err != nil {
		return nil, err
	}
	return &extent{offset: int64(first) * g.sector, length: int64(length) * g.sector, name: seedLabelName}, nil
}

// writeGPT writes the backup first: until the primary is written, the disk is as the image left it.
func (d *Device) writeGPT(g *gpt, backupTable uint64, done *inventory.Finished) error {
	primaryTable := g.header.EntriesLBA
	backup := *g
	backup.header.MyLBA, backup.header.AlternateLBA = g.header.AlternateLBA, 1
	backup.header.EntriesLBA = backupTable

	mbr := make([]byte, 512)
	if _, err := d.ReadAt(mbr, 0); err != nil {
		return fmt.Errorf("protective MBR: %w", err)
	}
	growMBR(mbr, uint64(d.Size/int64(d.Sector)))

	for _, w := range []struct {
		what string
		data []byte
		lba  uint64
	}{
		{"backup GPT's entries", g.table, backupTable},
		{"backup GPT", backup.encode(), backup.header.MyLBA},
		{"GPT's entries", g.table, primaryTable},
		{"GPT", g.encode(), 1},
		{"protective MBR", mbr, 0},
	} {
		if _, err := d.WriteAt(w.data, int64(w.lba)*g.sector); err != nil {
			return fmt.Errorf("write the %s at LBA %d: %w", w.what, w.lba, err)
		}
	}
	if err := d.Flush(); err != nil {
		return err
	}
	for _, lba := range []uint64{1, g.header.AlternateLBA} {
		if _, err := readGPT(d, d.Sector, lba); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
	}
	done.Ranges = append(
		done.Ranges,
		inventory.Range{Name: "primary GPT", Offset: 0, Length: (primaryTable + g.tableSectors()) * uint64(g.sector)},
		inventory.Range{Name: "backup GPT", Offset: backupTable * uint64(g.sector), Length: (g.tableSectors() + 1) * uint64(g.sector)},
	)
	return nil
}

// growMBR makes the protective entry (section 5.2.3) span the disk.
func growMBR(mbr []byte, sectors uint64) {
	for i := range 4 {
		if e := mbr[446+16*i:]; e[4] == 0xee {
			binary.LittleEndian.PutUint32(e[12:], uint32(min(sectors-1, 1<<32-1)))
		}
	}
}

// writeSeed overwrites the seed partition with a fresh filesystem.
func (d *Device) writeSeed(place extent, seed inventory.Seed) error {
	files := []fat.File{
		{Name: "meta-data", Data: []byte(seed.MetaData)},
		{Name: "user-data", Data: seed.UserData},
		{Name: "vendor-data", Data: []byte(seed.VendorData)},
	}
	if seed.NetworkConfig != "" {
		files = append(files, fat.File{Name: "network-config", Data: []byte(seed.NetworkConfig)})
	}
	img, err := fat.Build(int(min(place.length, maxSeed)), d.Sector, seedLabelName, files)
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	if _, err := d.WriteAt(img, place.offset); err != nil {
		return fmt.Errorf("write the seed at %d: %w", place.offset, err)
	}
	return nil
}

// countPartitions says how many partitions the table has, and that the kernel sees as many.
func (d *Device) countPartitions() (int, error) {
	_, parts := partitions(d, d.Size, d.Sector)
	if len(parts) == 0 {
		return 0, fmt.Errorf("%s has no partitions after the image was written", d.Name)
	}
	if err := d.reread(); err != nil {
		return 0, err
	}
	if !d.scannable() {
		return len(parts), nil
	}
	var seen int
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if seen = d.kernelPartitions(); seen == len(parts) {
			return seen, nil
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("%s: the kernel sees %d partitions, the table has %d", d.Name, seen, len(parts))
		}
	}
}

// kernelPartitions counts the partitions that the kernel sees.
func (d *Device) kernelPartitions() int {
	found := 0
	entries, _ := os.ReadDir(d.sys)
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(d.sys, e.Name(), "partition")); err == nil {
			found++
		}
	}
	return found
}
