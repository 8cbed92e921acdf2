package efi

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/internal/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }

// The entries of testdata/efivars are OVMF's: a menu, the disk, network cards, the shell.
const (
	menu  = 0x0000
	disk  = 0x0001
	pxe   = 0x0002
	http  = 0x0003
	shell = 0x0004
)

var (
	gone  = Partition{Number: 1, First: 2048, Sectors: 4096, Signature: [16]byte{1}}
	here  = Partition{Number: 15, First: 2048, Sectors: 8192, Signature: [16]byte{2}}
	other = Partition{Number: 2, First: 2048, Sectors: 8192, Signature: [16]byte{3}}
)

func alive(s [16]byte) bool { return s == here.Signature || s == other.Signature }

const loader = `\EFI\BOOT\BOOTX64.EFI`

// firmware copies testdata, and adds entries.
func firmware(t *testing.T, order []uint16, add map[uint16]Option) Vars {
	t.Helper()
	v := Vars{t.TempDir()}
	if err := os.CopyFS(v.Dir, os.DirFS("testdata/efivars")); err != nil {
		t.Fatal(err)
	}
	for n, o := range add {
		if err := v.write(optionName(n), o.raw); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.setOrder(order); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSetBoot(t *testing.T) {
	ours := newOption("pxectl:mini", here, loader)
	stale := newOption("pxectl:older", gone, loader)
	sibling := newOption("pxectl:other", other, loader)
	replaced := newOption("pxectl:debian-11", here, loader)
	debian := newOption("debian", gone, `\EFI\debian\shimx64.efi`)
	for _, tt := range []struct {
		name        string
		order, want []uint16
		add         map[uint16]Option
		left        []string // our labels that remain
		removed     []string
	}{
		{
			name:  "fresh machine",
			order: []uint16{menu, disk, pxe, http, shell},
			want:  []uint16{menu, disk, pxe, http, 5, shell},
			left:  []string{"pxectl:mini"},
		},
		{
			name:  "network first",
			order: []uint16{pxe, disk, shell},
			want:  []uint16{pxe, 5, disk, shell},
			left:  []string{"pxectl:mini"},
		},
		{
			name:  "shell first",
			order: []uint16{shell, pxe},
			want:  []uint16{5, shell, pxe},
			left:  []string{"pxectl:mini"},
		},
		{
			name: "another system first", order: []uint16{6, pxe}, add: map[uint16]Option{6: debian},
			want: []uint16{5, 6, pxe}, left: []string{"pxectl:mini"},
		},
		{name: "no order", want: []uint16{5}, left: []string{"pxectl:mini"}},
		{
			name:  "stale ones go",
			order: []uint16{7, 6, pxe, 8, shell},
			add:   map[uint16]Option{6: stale, 7: replaced, 8: sibling},
			want:  []uint16{pxe, 5, 8, shell}, left: []string{"pxectl:mini", "pxectl:other"},
			removed: []string{"Boot0006 pxectl:older", "Boot0007 pxectl:debian-11"},
		},
		{
			name: "there already, in a bad place", order: []uint16{pxe, shell, 9},
			add: map[uint16]Option{9: ours}, want: []uint16{pxe, 9, shell}, left: []string{"pxectl:mini"},
		},
		{
			name: "there twice", order: []uint16{5, 9}, add: map[uint16]Option{9: ours, 5: ours},
			want: []uint16{5}, left: []string{"pxectl:mini"},
			removed: []string{"Boot0009 pxectl:mini"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := firmware(t, tt.order, tt.add)
			name, removed, err := v.SetBoot("mini", here, loader, alive)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.removed, removed); diff != "" {
				t.Errorf("removed (-want +got):\n%s", diff)
			}
			check := func() {
				t.Helper()
				order, err := v.order()
				if err != nil || !slices.Equal(order, tt.want) {
					t.Errorf("BootOrder = %04X, %v, want %04X", order, err, tt.want)
				}
				all, err := v.options()
				if err != nil {
					t.Fatal(err)
				}
				var labels []string
				for n, o := range all {
					if strings.HasPrefix(o.Label, prefix) {
						labels = append(labels, o.Label)
					}
					if o.Label == "pxectl:mini" &&
						(name != optionName(n)+" pxectl:mini" || !o.equal(ours) ||
							!slices.Contains(order, n)) {
						t.Errorf("SetBoot = %q; %s is %q in order %04X", name, optionName(n), o.raw, order)
					}
				}
				slices.Sort(labels)
				if diff := cmp.Diff(tt.left, labels); diff != "" {
					t.Errorf("our entries (-want +got):\n%s", diff)
				}
			}
			check()
			before := fingerprint(t, v)
			if again, removed, err := v.SetBoot("mini", here, loader, alive); err != nil || again != name ||
				len(removed) > 0 {
				t.Errorf("SetBoot again = %q, removed %q, %v, want %q", again, removed, err, name)
			}
			check()
			if after := fingerprint(t, v); after != before {
				t.Errorf("the second time wrote to the firmware:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// fingerprint changes with every write.
func fingerprint(t *testing.T, v Vars) string {
	t.Helper()
	entries, err := os.ReadDir(v.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(e.Name() + " " + info.ModTime().String() + "\n")
	}
	return b.String()
}

// captured reads a variable's entry as efibootmgr 17 wrote it.
func captured(t *testing.T, file string) Option {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	o, err := parseOption(raw[4:])
	if err != nil || o.partition == nil {
		t.Fatalf("%s: %+v, %v", file, o, err)
	}
	return o
}

// Of all entries of a machine, those for the erased disk's partitions are removed.
func TestStale(t *testing.T) {
	all, err := Vars{"testdata/efivars"}.options()
	if err != nil {
		t.Fatal(err)
	}
	debian, flatcar := captured(t, "efibootmgr-debian"), captured(t, "efibootmgr-mbr")
	onGPT, onMBR := debian.partition.Signature, flatcar.partition.Signature
	// Some vendors put the path from the PCI bus before the partition (section 10.3.2.1).
	pci := node(1, 1, []byte{0, 0x1f})
	long := newOption("Red Hat Enterprise Linux", gone, `\EFI\redhat\shimx64.efi`)
	at := 6 + 2*(len(long.Label)+1)
	raw := slices.Insert(slices.Clone(long.raw), at, pci...)
	binary.LittleEndian.PutUint16(raw[4:], binary.LittleEndian.Uint16(raw[4:])+uint16(len(pci)))
	if long, err = parseOption(raw); err != nil {
		t.Fatal(err)
	}
	const (
		gpt     = 0x10
		mbr     = 0x11
		vendor  = 0x12
		noDisk  = 0x13
		noTable = 0x14
	)
	all[gpt], all[mbr], all[vendor] = debian, flatcar, long
	all[noDisk] = newOption("Windows Boot Manager", Partition{Number: 1, Signature: [16]byte{9}},
		`\EFI\Microsoft\Boot\bootmgfw.efi`)
	all[noTable] = newOption("a stick without a signature", Partition{Number: 1, MBR: true}, loader)
	for _, tt := range []struct {
		name  string
		gone  [][16]byte
		alive [][16]byte
		want  []uint16
	}{
		{name: "nothing erased"},
		{name: "a disk with a GPT", gone: [][16]byte{onGPT, {77}}, want: []uint16{gpt}},
		{name: "a disk with an MBR", gone: [][16]byte{onMBR}, want: []uint16{mbr}},
		{name: "a vendor's long path", gone: [][16]byte{gone.Signature}, want: []uint16{vendor}},
		{
			name: "all of them",
			gone: [][16]byte{gone.Signature, onMBR, onGPT},
			want: []uint16{gpt, mbr, vendor},
		},
		{
			name:  "a copy is on another disk",
			gone:  [][16]byte{onGPT, onMBR},
			alive: [][16]byte{onGPT},
			want:  []uint16{mbr},
		},
		{name: "overwritten with the same image", gone: [][16]byte{onGPT}, alive: [][16]byte{onGPT}},
		{name: "an MBR without a signature", gone: [][16]byte{{}}},
	} {
		got := stale(all, tt.gone, func(s [16]byte) bool { return slices.Contains(tt.alive, s) })
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: stale = %04X, want %04X", tt.name, got, tt.want)
		}
	}
}

func TestForget(t *testing.T) {
	debian := captured(t, "efibootmgr-debian")
	windows := newOption("Windows Boot Manager", Partition{Number: 1, Signature: [16]byte{9}},
		`\EFI\Microsoft\Boot\bootmgfw.efi`)
	v := firmware(t, []uint16{pxe, 6, 7, disk, shell}, map[uint16]Option{6: debian, 7: windows})
	none := func([16]byte) bool { return false }
	removed, err := v.Forget([][16]byte{debian.partition.Signature}, none)
	if diff := cmp.Diff([]string{"Boot0006 debian"}, removed); diff != "" || err != nil {
		t.Errorf("Forget: %v (-want +got):\n%s", err, diff)
	}
	if order, err := v.order(); err != nil || !slices.Equal(order, []uint16{pxe, 7, disk, shell}) {
		t.Errorf("BootOrder = %04X, %v", order, err)
	}
	all, err := v.options()
	if _, there := all[6]; err != nil || there || len(all) != 6 {
		t.Errorf("entries = %+v, %v, want all but Boot0006", all, err)
	}
	before := fingerprint(t, v)
	if removed, err := v.Forget([][16]byte{debian.partition.Signature}, none); err != nil ||
		len(removed) > 0 || fingerprint(t, v) != before {
		t.Errorf("the second time removed %q, %v", removed, err)
	}
}

func TestAbsent(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "/nonexistent"} {
		if (Vars{dir}).Present() {
			t.Errorf("Present() of %s = true", dir)
		}
	}
	if !(Vars{"testdata/efivars"}).Present() {
		t.Error("Present() of testdata = false")
	}
}

// TestImmutable: efivarfs protects variables that it does not know.
func TestImmutable(t *testing.T) {
	testnet.Need(t, "chattr")
	v := firmware(t, []uint16{menu, 6}, map[uint16]Option{6: newOption("pxectl:older", gone, loader)})
	for _, name := range []string{"Boot0006", "BootOrder"} {
		if out, err := exec.Command("chattr", "+i", v.path(name)).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED %s: %s has no immutable flag: %s", t.Name(), v.Dir, out)
		}
		t.Cleanup(func() { _ = exec.Command("chattr", "-i", v.path(name)).Run() })
	}
	if _, _, err := v.SetBoot("mini", here, loader, alive); err != nil {
		t.Error(err)
	}
	if order, err := v.order(); err != nil || !slices.Equal(order, []uint16{5, menu}) {
		t.Errorf("BootOrder = %04X, %v", order, err)
	}
	if _, err := os.Stat(v.path("Boot0006")); err == nil {
		t.Error("the stale entry is there still")
	}
}

func TestParse(t *testing.T) {
	all, err := Vars{"testdata/efivars"}.options()
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[uint16]struct {
		label   string
		network bool
	}{
		menu: {"UiApp", false},
		disk: {"UEFI Misc Device", false},
		pxe:  {"UEFI PXEv4 (MAC:525400770002)", true},
		http: {"UEFI HTTPv4 (MAC:525400770002)", true}, shell: {"EFI Internal Shell", false},
	} {
		if o := all[n]; o.Label != want.label || o.network != want.network || o.partition != nil {
			t.Errorf("%s = %q network %v partition %v, want %+v", optionName(n), o.Label, o.network,
				o.partition, want)
		}
	}
}

// TestEncode compares an entry with the bytes of efibootmgr 17 for the same partition.
func TestEncode(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "efibootmgr-entry"))
	if err != nil {
		t.Fatal(err)
	}
	p := Partition{Number: 15, First: 0x2000, Sectors: 0x3e000}
	copy(p.Signature[:], []byte{
		0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x00,
	})
	got := append(binary.LittleEndian.AppendUint32(nil, kept), newOption("pxectl:mini", p, loader).raw...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
}

// FuzzOption: parsing any variable succeeds or gives an error.
func FuzzOption(f *testing.F) {
	f.Add(newOption("pxectl:mini", here, loader).raw)
	f.Add([]byte{1, 0, 0, 0, 4, 0, 0, 0, 0x7f, 0xff, 4, 0})
	f.Fuzz(func(_ *testing.T, raw []byte) {
		if o, err := parseOption(raw); err == nil {
			o.shell()
		}
	})
}
