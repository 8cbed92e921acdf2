package parttable

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// disk makes a disk of that many sectors of 512 bytes with a GPT of 128 entries. Each partition is its first
// and last LBA.
func disk(sectors uint64, parts ...[2]uint64) []byte {
	g := &GPT{sector: 512, Table: make([]byte, 128*128)}
	g.Header = GPTHeader{
		Signature: [8]byte([]byte(gptSignature)), Revision: 0x10000, HeaderSize: gptHeaderSize, MyLBA: 1,
		AlternateLBA: sectors - 1,
		FirstUsable:  34, LastUsable: sectors - 34, EntriesLBA: 2, Entries: 128, EntrySize: 128,
	}
	for i, p := range parts {
		if _, err := g.Add(efiSystem, [16]byte{byte(i + 1)}, p[0], p[1], "p"); err != nil {
			panic(err)
		}
	}
	raw := make([]byte, sectors*512)
	copy(raw[512:], g.Encode())
	copy(raw[1024:], g.Table)
	backup := *g
	backup.Header.MyLBA, backup.Header.AlternateLBA, backup.Header.EntriesLBA = sectors-1, 1, sectors-33
	copy(raw[(sectors-33)*512:], backup.Table)
	copy(raw[(sectors-1)*512:], backup.Encode())
	var m MBR
	m.Protect(sectors)
	copy(raw, m[:])
	return raw
}

func dos(sectors uint64, parts ...[2]uint32) []byte {
	raw := make([]byte, sectors*512)
	for i, p := range parts {
		e := raw[446+16*i:]
		e[4] = 0x83
		binary.LittleEndian.PutUint32(e[8:], p[0])
		binary.LittleEndian.PutUint32(e[12:], p[1])
	}
	raw[510], raw[511] = 0x55, 0xaa
	return raw
}

func TestRead(t *testing.T) {
	const sectors = 20 << 11 // 20 MiB
	whole := disk(sectors, [2]uint64{2048, 4095}, [2]uint64{4096, 8191})
	change := func(raw []byte, at int, to ...byte) []byte {
		raw = bytes.Clone(raw)
		copy(raw[at:], to)
		return raw
	}
	for _, tt := range []struct {
		name  string
		raw   []byte
		kind  string
		parts int
		bare  bool   // without a protective MBR
		fault string // a part of it
	}{
		{"nothing", make([]byte, sectors*512), "", 0, false, ""},
		{"GPT", whole, "gpt", 2, false, ""},
		{"GPT without a protective MBR", change(whole, 446, make([]byte, 66)...), "gpt", 2, true, ""},
		{
			"MBR over a stale GPT", change(whole, 446, dos(sectors, [2]uint32{2048, 8})[446:512]...), "mbr",
			1, false, "",
		},
		{
			"GPT whose header is damaged", change(whole, 512+56, 0xff), "gpt", 2, false,
			"the header's checksum is wrong",
		},
		{
			"GPT whose entries are damaged", change(whole, 1024+56, 0xff), "gpt", 2, false,
			"the entries' checksum is wrong",
		},
		{
			"GPT that is missing, with a backup", change(whole, 512, make([]byte, 512)...), "gpt", 2, false,
			"the primary table is missing",
		},
		{
			"GPT, cut behind its first partition", whole[:6000*512], "gpt", 0, false,
			"partition 2 from LBA 4096 to 8191 lies outside of the disk's 6000 sectors",
		},
		{"GPT, cut behind its last partition", whole[:8192*512], "gpt", 2, false, ""},
		{"MBR", dos(sectors, [2]uint32{2048, 2048}, [2]uint32{4096, 4096}), "mbr", 2, false, ""},
		{
			"MBR, cut", dos(sectors, [2]uint32{2048, 2048}, [2]uint32{4096, 4096})[:6000*512], "mbr", 1,
			false, "partition 2 from sector 4096 to 8191 lies outside",
		},
	} {
		got := Read(bytes.NewReader(tt.raw), int64(len(tt.raw)), 512)
		fault := ""
		if got.Fault != nil {
			fault = got.Fault.Error()
		}
		if got.Kind != tt.kind || len(got.Partitions) != tt.parts || got.Unprotected != tt.bare ||
			!strings.Contains(fault, tt.fault) || (fault == "") != (tt.fault == "") {
			t.Errorf("%s: Read = %q, %d partitions, unprotected %v, fault %q; want %q, %d, %v, %q",
				tt.name, got.Kind, len(got.Partitions), got.Unprotected, fault, tt.kind, tt.parts, tt.bare,
				tt.fault)
		}
	}
}

// TestSmallest: the smallest disk holds the seed, and one sector less does not.
func TestSmallest(t *testing.T) {
	const sectors = 20 << 11
	full := disk(sectors)
	for i := range 128 {
		copy(full[1024+128*i:], slices.Concat(efiSystem[:], []byte{1}))
	}
	g, _ := ReadGPT(bytes.NewReader(disk(sectors)), 512, 1)
	g.Table = bytes.Clone(full[1024 : 1024+128*128])
	for i := range 128 {
		binary.LittleEndian.PutUint64(g.entry(i)[32:], 2048)
		binary.LittleEndian.PutUint64(g.entry(i)[40:], 2048)
	}
	copy(full[512:], g.Encode())
	copy(full[1024:], g.Table)
	withSeed := disk(sectors, [2]uint64{2048, 4095})
	copy(withSeed[2048*512+82:], "FAT32   ")
	copy(withSeed[2048*512+71:], "CIDATA     ")
	copy(withSeed[2048*512+510:], "\x55\xaa")
	for _, tt := range []struct {
		name string
		raw  []byte
		want uint64 // in sectors
		err  string
	}{
		{"GPT", disk(sectors, [2]uint64{2048, 4096}), 6144 + 8192 + 33, ""},
		{"GPT, with a seed", withSeed, 4096 + 33, ""},
		{"GPT, all entries used", full, 0, "all 128 entries"},
		{"MBR", dos(sectors, [2]uint32{2048, 2049}), 6144 + 8192, ""},
		{
			"MBR, all entries used",
			dos(sectors, [2]uint32{2048, 1}, [2]uint32{2049, 1}, [2]uint32{2050, 1}, [2]uint32{2051, 1}), 0,
			"all four entries",
		},
	} {
		r := bytes.NewReader(tt.raw)
		table := Read(r, int64(len(tt.raw)), 512)
		got, err := table.Smallest(r, 512)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: Smallest = %v, want %q", tt.name, err, tt.err)
			}
			continue
		}
		if err != nil || got != tt.want*512 {
			t.Errorf("%s: Smallest = %d sectors, %v; want %d", tt.name, got/512, err, tt.want)
		}
		if _, ok := table.Seed(r); ok {
			continue
		}
		if _, _, err := table.SeedFirst(got/512-1, 512); err == nil {
			t.Errorf("%s: a disk with one sector less has room, too", tt.name)
		}
	}
}

func FuzzReadGPT(f *testing.F) {
	f.Add(disk(4096, [2]uint64{2048, 2050})[:34*512])
	f.Add([]byte("EFI PART"))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := ReadGPT(bytes.NewReader(data), 512, 1)
		if err != nil {
			return
		}
		if _, err := ReadGPT(bytes.NewReader(slices.Concat(make([]byte, 512), g.Encode(),
			data[min(len(data), 1024):])), 512, 1); err != nil {
			t.Errorf("what Encode wrote does not read: %v", err)
		}
		_, _ = g.Partitions(1 << 30)
	})
}

// FuzzPartitions: reading the table of any disk ends soon, and finds no partition outside of the disk.
func FuzzPartitions(f *testing.F) {
	boot := make([]byte, 64<<10)
	copy(boot[446:],
		"\x80\x00\x00\x00\x83\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x10\x00\x00\x00\x20\x00\x00\x00")
	boot[510], boot[511] = 0x55, 0xaa
	copy(boot[16*512:], boot[:512])
	f.Add(boot)
	f.Fuzz(func(t *testing.T, data []byte) {
		disk := make([]byte, 64<<10)
		copy(disk, data)
		table := Read(bytes.NewReader(disk), int64(len(disk)), 512)
		_, _ = table.Smallest(bytes.NewReader(disk), 512)
		for _, p := range append(table.Partitions, All(bytes.NewReader(disk), int64(len(disk)), 512)...) {
			if p.Offset < 0 || p.Length <= 0 || p.Offset+p.Length > int64(len(disk)) {
				t.Errorf("partition %+v on a disk of %d bytes", p, len(disk))
			}
		}
	})
}
