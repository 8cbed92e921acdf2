package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMachines(t *testing.T) {
	disk := func(bus, serial string) Disk {
		return Disk{Bus: bus, Size: 4 << 30, Serial: serial, Sector: 512}
	}
	tests := []struct {
		name, in string
		want     []Machine
		err      string // part of the error
	}{
		{name: "firmware only", in: "m1:bios", want: []Machine{
			{
				Name: "m1", Firmware: "bios", NIC: "virtio", Memory: 512, CPUs: 1,
				Disks: []Disk{disk("virtio", "LAB01D0")},
			},
		}},
		{
			name: "two machines, disk, two disks and NIC",
			in:   "m1:uefi:nvme,m2:bios:sata+virtio:e1000",
			want: []Machine{
				{
					Name: "m1", Firmware: "uefi", NIC: "virtio", Memory: 512, CPUs: 1,
					Disks: []Disk{disk("nvme", "LAB01D0")},
				},
				{
					Name: "m2", Firmware: "bios", NIC: "e1000", Memory: 512, CPUs: 1,
					Disks: []Disk{disk("sata", "LAB02D0"), disk("virtio", "LAB02D1")},
				},
			},
		},
		{name: "NIC but no disk", in: "m1:bios::e1000", want: []Machine{
			{
				Name: "m1", Firmware: "bios", NIC: "e1000", Memory: 512, CPUs: 1,
				Disks: []Disk{disk("virtio", "LAB01D0")},
			},
		}},
		{name: "sectors of 4096 bytes", in: "m1:bios:nvme-4k+-4k", want: []Machine{
			{Name: "m1", Firmware: "bios", NIC: "virtio", Memory: 512, CPUs: 1, Disks: []Disk{
				{Bus: "nvme", Size: 4 << 30, Serial: "LAB01D0", Sector: 4096},
				{Bus: "virtio", Size: 4 << 30, Serial: "LAB01D1", Sector: 4096},
			}},
		}},
		{name: "a NIC with a ROM, and arm64", in: "m1:uefi-rom,m2:arm64-http", want: []Machine{
			{
				Name: "m1", Firmware: "uefi-rom", NIC: "e1000", Memory: 512, CPUs: 1,
				Disks: []Disk{disk("virtio", "LAB01D0")},
			},
			{
				Name: "m2", Firmware: "arm64-http", NIC: "virtio", Memory: 512, CPUs: 1,
				Disks: []Disk{disk("virtio", "LAB02D0")},
			},
		}},
		{
			name: "a NIC that EDK2 does not know",
			in:   "m1:uefi-http::e1000",
			err:  "nic e1000: firmware uefi-http has no driver for it; use virtio",
		},
		{name: "no firmware", in: "m1", err: `machine "m1": want NAME:FIRMWARE`},
		{name: "nothing", in: "", err: `machine "": want NAME:FIRMWARE`},
		{name: "too many parts", in: "m1:bios:sata:e1000:x", err: "want NAME:FIRMWARE"},
		{
			name: "unknown firmware",
			in:   "m1:coreboot",
			err:  `firmware "coreboot": have bios, uefi, uefi-rom, uefi-http, arm64, arm64-http`,
		},
		{name: "unknown bus", in: "m1:bios:ide", err: `disk bus "ide": have virtio, sata, nvme`},
		{
			name: "sectors that no disk has",
			in:   "m1:bios:nvme-8k",
			err:  `disk bus "nvme-8k": have virtio, sata, nvme`,
		},
		{name: "4Kn sata", in: "m1:bios:sata-4k", err: "QEMU's sata disks have 512; use nvme or virtio"},
		{name: "unknown NIC", in: "m1:bios:sata:ne2k", err: `nic "ne2k": have virtio, e1000`},
		{name: "three disks", in: "m1:bios:sata+sata+sata", err: "3 disks: want at most 2"},
		{name: "twice", in: "m1:bios,m1:uefi", err: `machine "m1": named twice`},
		{name: "path as name", in: "../m1:bios", err: `machine "../m1": a name is`},
		{
			name: "all mistakes at once",
			in:   "M:bios,m2:x:y",
			err: `firmware "x": have bios, uefi, uefi-rom, uefi-http, arm64, arm64-http` + "\n" +
				`disk bus "y"`,
		},
		{
			name: "too many",
			in:   strings.Repeat("a:bios,", 49) + "b:bios",
			err:  "machines: 50, a rack holds at most 49",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseMachines(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("ParseMachines(%q) error = %v, want one with %q", tt.in, err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("ParseMachines(%q): %v", tt.in, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ParseMachines(%q) (-want +got):\n%s", tt.in, diff)
			}
		})
	}
}

func FuzzParseMachines(f *testing.F) {
	for _, s := range []string{
		"", DefaultMachines, "m1:bios:sata+nvme:e1000", "m1:uefi:virtio+nvme-4k",
		"m:uefi::", "m:uefi:-4k+-4k-4k", ":::,,,",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		machines, err := ParseMachines(s)
		if err != nil {
			return
		}
		for _, m := range machines {
			if m.Name != filepath.Base(m.Name) || len(m.Disks) == 0 || len(m.Disks) > maxDisks {
				t.Errorf("ParseMachines(%q) accepted %+v", s, m)
			}
		}
	})
}

func TestLoadConfig(t *testing.T) {
	tests := []struct {
		name, in string
		want     Machine // the first one
		err      string
	}{
		{
			name: "all keys of a machine",
			in:   "accel: tcg\nfreeze: true\nmachines:\n- {name: a, firmware: uefi, nic: e1000, memory: 1024, cpus: 2, disks: [{bus: nvme, size: 1GiB, serial: S1, sector: 4096}, {size: 1073741824}]}\n",
			want: Machine{Name: "a", Firmware: "uefi", NIC: "e1000", Memory: 1024, CPUs: 2, Disks: []Disk{
				{Bus: "nvme", Size: 1 << 30, Serial: "S1", Sector: 4096},
				{Bus: "virtio", Size: 1 << 30, Serial: "LAB01D1", Sector: 512},
			}},
		},
		{
			name: "no machines: the default rack",
			in:   "accel: kvm\n",
			want: Machine{Name: "m1", Firmware: "bios", NIC: "virtio", Memory: 512, CPUs: 1, Disks: []Disk{
				{Bus: "virtio", Size: 4 << 30, Serial: "LAB01D0", Sector: 512},
			}},
		},
		{name: "unknown key", in: "machines:\n- {name: a, firmware: bios, ram: 5}\n", err: "unknown field"},
		{
			name: "bad size",
			in:   "machines:\n- {name: a, firmware: bios, disks: [{size: 4 gigs}]}\n",
			err:  `size "4 gigs": want`,
		},
		{
			name: "size past any disk",
			in:   "machines:\n- {name: a, firmware: bios, disks: [{size: 99999999999TiB}]}\n",
			err:  "at most 64TiB",
		},
		{
			name: "4Kn sata",
			in:   "machines:\n- {name: a, firmware: bios, disks: [{bus: sata, sector: 4096}]}\n",
			err:  "use nvme or virtio",
		},
		{
			name: "ragged disk",
			in:   "machines:\n- {name: a, firmware: bios, disks: [{size: 1048577}]}\n",
			err:  "whole sectors of 512",
		},
		{
			name: "serial with a comma",
			in:   "machines:\n- {name: a, firmware: bios, disks: [{serial: 'a,readonly=on'}]}\n",
			err:  "without a comma",
		},
		{name: "accel", in: "accel: xen\n", err: `accel "xen": have auto, kvm, tcg`},
		{name: "dhcp", in: "dhcp: isc\n", err: `dhcp "isc": have dnsmasq, kea, none`},
		{
			name: "dir too long",
			in:   "dir: /" + strings.Repeat("x", 120) + "\n",
			err:  "too long for a Unix socket",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "rack.yaml")
			if err := os.WriteFile(path, []byte(tt.in), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := LoadConfig(path)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("LoadConfig(%q) error = %v, want one with %q", tt.in, err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("LoadConfig(%q): %v", tt.in, err)
			}
			if diff := cmp.Diff(tt.want, got.Machines[0]); diff != "" {
				t.Errorf("LoadConfig(%q) (-want +got):\n%s", tt.in, diff)
			}
		})
	}
}
