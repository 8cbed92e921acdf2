package inventory

import (
	"strings"
	"testing"
)

func TestChooseDisk(t *testing.T) {
	vda := Disk{Name: "vda", Transport: "virtio", Serial: "A", Bytes: 4e9}
	sda := Disk{Name: "sda", Transport: "sata", Serial: "B", Bytes: 8e9, Model: "QEMU HARDDISK"}
	usb := Disk{Name: "sdb", Transport: "usb", Bytes: 16e9, Removable: true}
	ro := Disk{Name: "sdc", Transport: "sata", Bytes: 16e9, ReadOnly: true}
	idrac := Disk{Name: "sde", Transport: "scsi", Vendor: "iDRAC", Model: "LCDRIVE", Bytes: 1e9}
	ami := Disk{Name: "sdf", Transport: "scsi", Vendor: "AMI", Model: "Virtual HDisk0", Bytes: 1e9}
	ilo := Disk{Name: "sdg", Transport: "scsi", Vendor: "HP iLO", Model: "LUN 00 Media 0", Bytes: 1e9}
	gadget := Disk{Name: "sdh", Transport: "scsi", Vendor: "Linux", Model: "File-Stor Gadget", Bytes: 1e9}
	vmware := Disk{Name: "sdd", Transport: "scsi", Vendor: "VMware", Model: "Virtual disk", Bytes: 8e9}
	hyperv := Disk{Name: "sdd", Transport: "scsi", Vendor: "Msft", Model: "Virtual Disk", Bytes: 8e9}
	perc := Disk{Name: "sdd", Transport: "scsi", Vendor: "Dell", Model: "VIRTUAL DISK", Bytes: 8e9}
	parallels := Disk{Name: "sdd", Transport: "sata", Model: "Virtual HDD [0]", Bytes: 8e9}
	supermicro := Disk{
		Name: "sdk", Transport: "scsi", Vendor: "ATEN", Model: "Virtual CDROM YS0J", Bytes: 1e9,
	}
	hpe := Disk{Name: "sdl", Transport: "scsi", Model: "LUN 01 Media 0", Bytes: 1e9}
	lunA := Disk{
		Name: "sdm", Transport: "sas", Vendor: "DGC", Model: "VRAID", Serial: "N", HCTL: "1:0:0:0",
		Bytes: 8e9,
	}
	lunB, lun2, dualActuator := lunA, lunA, lunA
	lunB.Name, lunB.HCTL = "sdn", "2:0:0:0"
	lun2.Name, lun2.HCTL, lun2.Bytes = "sdo", "1:0:0:1", 4e9
	dualActuator.Name, dualActuator.HCTL = "sdp", "1:0:0:1"
	cheapA := Disk{
		Name: "sdq", Transport: "sata", Model: "SSD", Serial: "AA0001", HCTL: "3:0:0:0", Bytes: 8e9,
	}
	cheapB := cheapA
	cheapB.Name, cheapB.HCTL = "sdr", "4:0:0:0"
	pathA := Disk{Name: "sdi", Transport: "sas", Serial: "M", WWN: "0x5000c5", Bytes: 8e9}
	pathB := Disk{Name: "sdj", Transport: "sas", Serial: "M", WWN: "0x5000c5", Bytes: 8e9}
	twinA := Disk{Name: "sds", Transport: "sata", Serial: "T1", WWN: "0x5000000123456789", Bytes: 8e9}
	twinB := twinA
	twinB.Name, twinB.Serial = "sdt", "T2"
	nvmeA := Disk{
		Name: "nvme0n1", Transport: "nvme", ByPath: "pci-0000:01:00.0-nvme-1", WWN: "eui.1122334455667788",
		Bytes: 8e9,
	}
	nvmeB := nvmeA
	nvmeB.Name, nvmeB.ByPath = "nvme1n1", "pci-0000:02:00.0-nvme-1"
	farA := Disk{Name: "nvme2n1", Transport: "nvme", Serial: "F", WWN: "eui.1122334455667788", Bytes: 8e9}
	farB := farA
	farB.Name = "nvme3n1"
	zeroA := Disk{Name: "sdu", Transport: "sas", WWN: "0x0000000000000000", Bytes: 8e9, Serial: "Z1"}
	zeroB := zeroA
	zeroB.Name, zeroB.Serial = "sdv", "Z2"
	liarA := Disk{Name: "sdw", Transport: "sas", Serial: "L1", WWN: "0x5000c500a1b2c3d4", Bytes: 8e9}
	liarB := liarA
	liarB.Name, liarB.Serial = "sdx", "L2"
	pmem := Disk{Name: "pmem0", Transport: "virtual", Bytes: 8e9}
	mtd := Disk{Name: "mtdblock0", Transport: "virtual", Bytes: 8e9}
	zvol := Disk{Name: "zd16", Transport: "virtual", Bytes: 8e9}
	rbd := Disk{Name: "rbd0", Transport: "virtual", Bytes: 8e9}
	bcache := Disk{Name: "bcache0", Transport: "virtual", Bytes: 8e9}
	drbd := Disk{Name: "drbd1", Transport: "virtual", Bytes: 8e9}
	for _, c := range []struct {
		name  string
		disks []Disk
		hint  *DiskHint
		need  uint64
		want  string // the disk's name, or part of the error
	}{
		{"the only one", []Disk{vda}, nil, 1e9, "vda"},
		{"usb and read-only disks are no candidates", []Disk{usb, vda, ro}, nil, 1e9, "vda"},
		{"none", nil, nil, 1e9, "no disk to write to (have: none)"},
		{"none but usb", []Disk{usb}, nil, 1e9, "no disk to write to (have: sdb"},
		{
			"two without a hint",
			[]Disk{vda, sda},
			nil, 1e9,
			"2 disks and no hint which one: vda virtio 4.0 GB serial=A; sda",
		},
		{"two with a hint", []Disk{vda, sda}, &DiskHint{Serial: "B"}, 1e9, "sda"},
		{"hint by model, other case", []Disk{vda, sda}, &DiskHint{Model: "qemu harddisk"}, 1e9, "sda"},
		{
			"hint that matches nothing",
			[]Disk{vda},
			&DiskHint{Serial: "Z"}, 1e9,
			"no disk matches serial=Z (have: vda",
		},
		{
			"a BMC's virtual media are no candidates",
			[]Disk{idrac, ami, ilo, gadget, supermicro, hpe, vda},
			nil, 1e9, "vda",
		},
		{"VMware's virtual disk is one", []Disk{vmware}, nil, 1e9, "sdd"},
		{"Hyper-V's", []Disk{hyperv}, nil, 1e9, "sdd"},
		{"a RAID controller's", []Disk{perc}, nil, 1e9, "sdd"},
		{"Parallels'", []Disk{parallels}, nil, 1e9, "sdd"},
		{"two paths to one disk", []Disk{pathA, pathB, vda}, nil, 1e9, "vda"},
		{
			"two paths to one disk, and nothing else",
			[]Disk{pathA, pathB},
			nil, 1e9,
			"no disk to write to (have: sdi sas 8.0 GB serial=M (a path of several to one disk); sdj",
		},
		{"two paths to one disk without a WWN", []Disk{lunA, lunB, vda}, nil, 1e9, "vda"},
		{"two LUNs of one array", []Disk{lunA, lun2}, nil, 1e9, "2 disks and no hint"},
		{"two halves of one drive", []Disk{lunA, dualActuator}, nil, 1e9, "2 disks and no hint"},
		{"two cheap disks of one serial", []Disk{cheapA, cheapB}, nil, 1e9, "2 disks and no hint"},
		{"two SATA disks of one WWN, and a hint", []Disk{twinA, twinB}, &DiskHint{Serial: "T2"}, 1e9, "sdt"},
		{"two SATA disks of one WWN", []Disk{twinA, twinB}, nil, 1e9, "2 disks and no hint"},
		{
			"two NVMe disks of one WWN, each in its slot",
			[]Disk{nvmeA, nvmeB},
			&DiskHint{ByPath: "pci-0000:02:00.0-nvme-1"}, 1e9, "nvme1n1",
		},
		{"two paths to one NVMe disk over a network", []Disk{farA, farB}, nil, 1e9, "no disk to write to"},
		{"zeros are no WWN", []Disk{zeroA, zeroB}, &DiskHint{Serial: "Z1"}, 1e9, "sdu"},
		{"one WWN and two serials are two disks", []Disk{liarA, liarB}, &DiskHint{Serial: "L1"}, 1e9, "sdw"},
		{
			"special devices are no candidates",
			[]Disk{pmem, mtd, zvol, rbd, bcache, drbd, vda},
			nil, 1e9,
			"vda",
		},
		{"nor does a hint of a kind make them so", []Disk{pmem, vda}, &DiskHint{Size: ">= 1GB"}, 1e9, "vda"},
		{"special devices can be named", []Disk{pmem, vda}, &DiskHint{Name: "pmem0"}, 1e9, "pmem0"},
		{
			"only special devices",
			[]Disk{zvol},
			nil, 1e9,
			"no disk to write to (have: zd16 virtual 8.0 GB (a ZFS volume: name it to write to it))",
		},
		{
			"a hint does not make a disk fit",
			[]Disk{vda, ro},
			&DiskHint{Name: "sdc"}, 1e9,
			"no disk matches name=sdc (have: vda virtio 4.0 GB serial=A; sdc sata 16.0 GB (read-only))",
		},
		{"too small", []Disk{vda}, nil, 5e9, "disk vda holds 4000000000 bytes, the image needs 5000000000"},
	} {
		got, err := ChooseDisk(c.disks, c.hint, c.need)
		said := got.Name
		if err != nil {
			said = err.Error()
		}
		if !strings.HasPrefix(said, c.want) {
			t.Errorf("%s: ChooseDisk = %q, want %q", c.name, said, c.want)
		}
	}
}

func TestDiskIdentity(t *testing.T) {
	was := Disk{Name: "sda", Serial: "S1", ByPath: "pci-0000:00:05.0", Bytes: 100}
	for name, c := range map[string]struct {
		now  Disk
		want bool
	}{
		"renamed": {
			Disk{Name: "sdb", Serial: "S1", ByPath: "pci-0000:00:06.0", Bytes: 100}, true,
		},
		"another serial": {
			Disk{Name: "sda", Serial: "S2", ByPath: "pci-0000:00:05.0", Bytes: 100}, false,
		},
		"same serial, resized": {Disk{Name: "sda", Serial: "S1", Bytes: 101}, false},
		"serial vanished":      {Disk{Name: "sda", ByPath: "pci-0000:00:05.0", Bytes: 100}, false},
	} {
		if got := was.Identity().Is(c.now); got != c.want {
			t.Errorf("%s: Is = %v, want %v", name, got, c.want)
		}
	}
	plain := Disk{Name: "vda", ByPath: "pci-1", Bytes: 100}
	known := plain
	known.Serial = "S1"
	if plain.Identity().Is(known) || !plain.Identity().MayBe(known) || known.Identity().MayBe(plain) {
		t.Error("a disk with a serial passes for one without, or may not be the one that was known without")
	}
	if plain.Identity().Is(Disk{Name: "vda", ByPath: "pci-2", Bytes: 100}) {
		t.Error("a disk without serial and WWN in another slot passes for the chosen one")
	}
}

func TestParseDiskHint(t *testing.T) {
	for in, want := range map[string]string{
		"/dev/sda":                     "name=sda",
		"serial=S1":                    "serial=S1",
		"model=QEMU, name=vda":         "name=vda,model=QEMU",
		"size>=400GB,rotational=false": "size=>=400GB,rotational=false",
		"size==1TB":                    "size===1TB",
		"size===1TB":                   "size===1TB",
		"size=>= 1TB":                  "size=>= 1TB",
		"model=<in> sam sung":          "model=<in> sam sung",
		"serial!=S1":                   "serial=!=S1",
		"nvme0n1":                      "name=nvme0n1",
		"size=big":                     "error: disk hint: size \"big\": want a number with a unit",
		"size=<in> 4":                  "error: disk hint: size \"<in> 4\": operator <in> is not for sizes",
		"model=>= 4":                   "error: disk hint: model \">= 4\": operator >= is not for text",
		"rotational=maybe":             "error: disk hint: rotational \"maybe\": want true or false",
		"serial=<or>": "error: disk hint: serial \"<or>\": " +
			"there is nothing after the operator",
		"name=a,name=b": "error: disk hint \"name=a,name=b\": name is given twice",
		"name=a,,":      "error: disk hint \"name=a,,\": name has no value",
		"wwn=":          "error: disk hint \"wwn=\": wwn has no value",
		"colour=red":    "error: disk hint \"colour=red\": unknown key \"colour\"",
	} {
		h, err := ParseDiskHint(in)
		got := h.String()
		if err != nil {
			got = "error: " + err.Error()
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("ParseDiskHint(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestDiskHintMatches(t *testing.T) {
	d := Disk{
		Name: "sda", Serial: "S4EVNF0M", WWN: "0x5002538e40a1", ByPath: "pci-0000:00:1f.2-ata-1",
		Vendor: "SAMSUNG", Model: "SSD 860 EVO",
		HCTL: "0:0:0:0", Transport: "sata", Bytes: 480103981056,
	}
	for hint, want := range map[string]bool{
		"name=/dev/sda":                    true,
		"name=<or> /dev/sdb <or> /dev/sda": true,
		"name=<or> sdb <or> sdc":           false,
		"serial=s4evnf0m":                  true,
		"serial=s== S4EVNF0M":              true,
		"serial=s!= S4EVNF0M":              false,
		"serial!=other":                    true,
		"wwn=5002538E40A1":                 true,
		"wwn=0x5002538e40a1":               true,
		"model=<in> 860":                   true,
		"model=<in> 870":                   false,
		"model=<all-in> evo ssd":           true,
		"model=<all-in> evo hdd":           false,
		"vendor=samsung":                   true,
		"hctl=0:0:0:0":                     true,
		"transport=<or> nvme <or> sata":    true,
		"rotational=false":                 true,
		"rotational=True":                  false,
		"size=447":                         true, // GiB, as in Ironic
		"size==480GB":                      true,
		"size==480.1GB":                    true,
		"size==480.2GB":                    false,
		"size!=480GB":                      false,
		"size>=480GB":                      true,
		"size>=0.5TB":                      false,
		"size<0.5TB":                       true,
		"size<=447GiB":                     false,
		"size>447GiB":                      true,
		"size>=400GB,rotational=true":      false,

		"by_path=/dev/disk/by-path/pci-0000:00:1f.2-ata-1": true,
	} {
		h, err := ParseDiskHint(hint)
		if err != nil {
			t.Errorf("ParseDiskHint(%q): %v", hint, err)
			continue
		}
		if got := h.Matches(d); got != want {
			t.Errorf("%q matches = %v, want %v", hint, got, want)
		}
	}
	for hint, want := range map[string]bool{
		"serial=S4EVNF0M": true, "wwn=0x5002538e40a1": true,
		"name=sda": false, "size>=1GB": false, "serial=other": false,
	} {
		h, err := ParseDiskHint(hint)
		if got := h.Names(d); err != nil || got != want {
			t.Errorf("%q names the disk: %v, %v, want %v", hint, got, err, want)
		}
	}
}

// The String of a hint parses to the same hint.
func FuzzParseDiskHint(f *testing.F) {
	for _, s := range []string{
		"sda", "serial=S1", "size>=400GB,rotational=false", "size===1TB",
		"name=<or> a <or> b", "model=<all-in> x y", "wwn=0x5",
	} {
		f.Add(s)
	}
	d := Disk{Name: "sda", Serial: "S1", WWN: "0x5", Bytes: 1e12}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseDiskHint(s)
		if err != nil {
			return
		}
		again, err := ParseDiskHint(h.String())
		if err != nil || again.Matches(d) != h.Matches(d) {
			t.Errorf("ParseDiskHint(%q) = %q, which parses to %q, %v", s, h, again, err)
		}
	})
}

func TestForeign(t *testing.T) {
	for _, c := range []struct {
		content []string
		want    int
	}{
		{nil, 0},
		{[]string{"gpt"}, 0},
		{[]string{"mbr"}, 0},
		{[]string{"gpt", "vmfs"}, 1},
		{[]string{"ext4", "gpt", "vfat"}, 2},
		{[]string{"lvm2"}, 1},
	} {
		if got := (Disk{Content: c.content}).Foreign(); len(got) != c.want {
			t.Errorf("Foreign(%v) = %v, want %d", c.content, got, c.want)
		}
	}
}

func TestDiskIdentityFind(t *testing.T) {
	a := Disk{
		Name: "sda", Serial: "S", WWN: "0x5000c500a1b2c3d4", ByPath: "pci-0000:00:1f.2-ata-1.0", Bytes: 8e9,
	}
	b := a
	b.Name, b.ByPath = "sdb", "pci-0000:00:1f.2-ata-2.0"
	id := b.Identity()
	if found := id.Find([]Disk{a, b}); len(found) != 1 || found[0].Name != "sdb" {
		t.Errorf("Find = %v, want the one of two equal disks that is where the chosen one was", found)
	}
	a.ByPath, b.ByPath = "pci-0000:00:1f.2-ata-3.0", "pci-0000:00:1f.2-ata-4.0"
	if found := id.Find([]Disk{a, b}); len(found) != 2 {
		t.Errorf("Find = %v, want both: neither is where the chosen one was", found)
	}
	zero := Disk{Name: "sda", Serial: "S", WWN: "eui.0000000000000000", Bytes: 8e9}
	if zero.WWN = ""; !(DiskIdentity{Serial: "S", WWN: "eui.0000000000000000", Bytes: 8e9}).Is(zero) {
		t.Error("a disk that no longer reports its WWN of zeros counts as another one")
	}
}

// Hints of Ironic's operators, from udev's properties of such disks.
func TestIronicHints(t *testing.T) {
	lun := Disk{
		Name:      "sda",
		WWN:       "0x600508b400105df70000e00000d80000",
		ByPath:    "pci-0000:03:00.0-scsi-0:2:0:0",
		Transport: "scsi",
	}
	ata := Disk{Name: "sdb", WWN: "0x5001517387d61905", ByPath: "pci-0000:00:1f.2-ata-2.0", Transport: "sata"}
	nvme := Disk{
		Name:      "nvme0n1",
		WWN:       "eui.01000000010000005cd2e4a4b6c85051",
		ByPath:    "pci-0000:01:00.0-nvme-1",
		Transport: "nvme",
	}
	virtio := Disk{Name: "vda", ByPath: "pci-0000:00:05.0", Transport: "virtio"}
	for _, c := range []struct {
		hint DiskHint
		disk Disk
		want bool
	}{
		{DiskHint{WWN: "0x600508b400105df7"}, lun, true},
		{DiskHint{WWN: "0x600508b400105df70000e00000d80000"}, lun, true},
		{DiskHint{WWN: "600508B400105DF7"}, lun, true},
		{DiskHint{WWN: "0x600508b400105df8"}, lun, false},
		{DiskHint{WWN: "s!= 0x600508b400105df7"}, lun, false},
		{DiskHint{WWN: "s!= 0x600508b400105df8"}, lun, true},
		{DiskHint{WWN: "<or> 0x1 <or> 0x600508b400105df7"}, lun, true},
		{DiskHint{WWNWithExtension: "0x600508b400105df70000e00000d80000"}, lun, true},
		{DiskHint{WWNWithExtension: "0x600508b400105df7"}, lun, false},
		{DiskHint{WWNVendorExtension: "0x0000e00000d80000"}, lun, true},
		{DiskHint{WWNVendorExtension: "0x0000e00000db0000"}, lun, false},
		{DiskHint{WWN: "0x5001517387d61905"}, ata, true},
		{DiskHint{WWNWithExtension: "0x5001517387d61905"}, ata, true},
		{DiskHint{WWN: "eui.01000000010000005cd2e4a4b6c85051"}, nvme, true},
		{DiskHint{WWN: "eui.0100000001000000"}, nvme, false},
		{DiskHint{ByPath: "/dev/disk/by-path/pci-0000:00:1f.2-ata-2.0"}, ata, true},
		{DiskHint{ByPath: "/dev/disk/by-path/pci-0000:00:1f.2-ata-2"}, ata, true},
		{DiskHint{ByPath: "pci-0000:00:1f.2-ata-1"}, ata, false},
		{DiskHint{ByPath: "pci-0000:03:00.0-scsi-0:2:0:0"}, lun, true},
		{DiskHint{ByPath: "virtio-pci-0000:00:05.0"}, virtio, true},
		{DiskHint{ByPath: "pci-0000:00:05.0"}, virtio, true},
	} {
		if got := c.hint.Matches(c.disk); got != c.want {
			t.Errorf("hint %s and disk %s: Matches = %v, want %v", c.hint, c.disk.Name, got, c.want)
		}
	}
}
