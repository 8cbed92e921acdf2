package diagnose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/console"
)

// recorded reads the output of a console from testdata.
func recorded(t testing.TB, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestWhatAConsoleSays(t *testing.T) {
	for name, c := range map[string]struct {
		said string
		want []Complaint
	}{
		"a boot that goes well": {recorded(t, "boot.txt"), nil},
		"a panic with its trace": {recorded(t, "panic.txt"), []Complaint{
			{aboutRamdisk, "Initramfs unpacking failed: invalid magic at start of compressed archive"},
			{aboutPanic, "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"},
		}},
		"a ramdisk that was cut": {
			"[    3.586220] Initramfs unpacking failed: ZSTD-compressed data is truncated\r\n", []Complaint{
				{aboutRamdisk, "Initramfs unpacking failed: ZSTD-compressed data is truncated"},
			},
		},
		"a root that cannot be mounted": {
			"[    1.9] x\r\n[    1.901530] VFS: Cannot open root device \"sda1\" or unknown-block(0,0): " +
				"error -6\r\n", []Complaint{
				{aboutRamdisk, `VFS: Cannot open root device "sda1" or unknown-block(0,0): error -6`},
			},
		},
		"an init for another machine": {
			"[    2.100000][    T1] Failed to execute /init (error -8)\r\n", []Complaint{
				{aboutRamdisk, "Failed to execute /init (error -8)"},
			},
		},
		"an init that ends": {
			"<0>[    4.000001] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n",
			[]Complaint{
				{aboutPanic, "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"},
			},
		},
		"a ramdisk that does not fit": {
			"[    2.5] x\n[    2.512345] Initramfs unpacking failed: write error\n", []Complaint{
				{aboutMemory, "Initramfs unpacking failed: write error"},
			},
		},
		"out of memory": {
			"[   12.345678] pxagent invoked oom-killer: " +
				"gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO), order=0, " +
				"oom_score_adj=0\r\n" +
				"[   12.345700] Mem-Info:\r\n" +
				"[   12.346000] Out of memory: Killed process 131 (pxagent) total-vm:1242084kB, " +
				"anon-rss:38000kB\r\n" +
				"[   12.400000] Kernel panic - not syncing: System is deadlocked on memory\r\n",
			[]Complaint{
				{
					aboutMemory,
					"pxagent invoked oom-killer: " +
						"gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO), order=0, " +
						"oom_score_adj=0",
				},
				{
					aboutMemory,
					"Out of memory: Killed process 131 (pxagent) total-vm:1242084kB, anon-rss:38000kB",
				},
				{aboutPanic, "Kernel panic - not syncing: System is deadlocked on memory"},
			},
		},
		"a fault in the kernel": {
			"[    5.000001] BUG: kernel NULL pointer dereference, address: 0000000000000010\r\n" +
				"[    5.000002] #PF: supervisor read access in kernel mode\r\n" +
				"[    5.000003] Oops: 0000 [#1] PREEMPT SMP PTI\r\n" +
				"[    5.100000] Kernel panic - not syncing: Fatal exception\r\n",
			[]Complaint{
				{aboutKernel, "BUG: kernel NULL pointer dereference, address: 0000000000000010"},
				{aboutKernel, "Oops: 0000 [#1] PREEMPT SMP PTI"},
				{aboutPanic, "Kernel panic - not syncing: Fatal exception"},
			},
		},
		"debugging": {"[    5.000001] usb: DEBUG: BUG-like words, initialized, not found\r\n", nil},
		"a processor that is stuck": {
			"[   48.000001] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:1:41]\r\n",
			[]Complaint{
				{aboutKernel, "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:1:41]"},
			},
		},
		"an error of the hardware": {
			"[    0.500001] mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 5: be00000000800400\r\n",
			[]Complaint{
				{aboutHardware, "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 5: be00000000800400"},
			},
		},
		"iPXE, an old one": {
			"tftp://10.0.2.2/nothing... No such file or directory (http://ipxe.org/2d12603b)\r\n" +
				"No more network devices\r\n", []Complaint{
				{
					aboutIPXE,
					"tftp://10.0.2.2/nothing... No such file or directory (http://ipxe.org/2d12603b)",
				},
			},
		},
		"iPXE at the edge of its screen": {
			"http://10.77.0.1:8080/ramdisk/amd64/vmlinuz... Connection timed out (https://ipx\r\n" +
				"e.org/4c0a6092)\r\n",
			[]Complaint{
				{
					aboutIPXE,
					"http://10.77.0.1:8080/ramdisk/amd64/vmlinuz... " +
						"Connection timed out (https://ipxe.org/4c0a6092)",
				},
			},
		},
		"iPXE and a kernel that it cannot start": {
			"Could not boot: Exec format error (https://ipxe.org/2e008081)\r\n", []Complaint{
				{aboutIPXE, "Could not boot: Exec format error (https://ipxe.org/2e008081)"},
			},
		},
		"OVMF with an empty disk": {
			"\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2J\x1b[01;01HBdsDxe: " +
				"failed to load Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x1,0x0): Not Found\r\n" +
				"BdsDxe: loading Boot0002 \"EFI Internal Shell\" from " +
				"Fv(7CB8BDC9-F8EB-4F34-AAEA-3EE4AF6516A1)/FvFile(7C04A583)\r\n" +
				"\x1b[2J\x1b[01;01H\x1b[01;01HUEFI Interactive Shell v2.2\r\nEDK II\r\n",
			[]Complaint{
				{
					aboutFirmware,
					`BdsDxe: failed to load Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x1,0x0): ` +
						`Not Found`,
				},
				{aboutFirmware, "UEFI Interactive Shell v2.2"},
			},
		},
		"OVMF with Secure Boot": {
			"BdsDxe: failed to load Boot0003 \"UEFI PXEv4 (MAC:525400770001)\" from " +
				"PciRoot(0x0)/Pci(0x2,0x0)/MAC(525400770001,0x1)/IPv4(0.0.0.0): Access Denied\r\n",
			[]Complaint{
				{
					aboutSecure,
					`BdsDxe: failed to load Boot0003 "UEFI PXEv4 (MAC:525400770001)" from ` +
						`PciRoot(0x0)/Pci(0x2,0x0)/MAC(525400770001,0x1)/IPv4(0.0.0.0): Access Denied`,
				},
			},
		},
		"SeaBIOS with an empty disk": {
			"Booting from Hard Disk...\r\nBoot failed: could not read the boot disk\r\n\r\n" +
				"No bootable device.\r\n", []Complaint{
				{aboutFirmware, "Boot failed: could not read the boot disk"},
				{aboutFirmware, "No bootable device."},
			},
		},
		"a PXE ROM": {
			"PXE-E53: No boot filename received\r\nPXE-M0F: Exiting Intel Boot Agent.\r\n", []Complaint{
				{aboutFirmware, "PXE-E53: No boot filename received"},
				{aboutFirmware, "PXE-M0F: Exiting Intel Boot Agent."},
			},
		},
		"GRUB without its files": {
			"GRUB loading...\r\nWelcome to GRUB!\r\n\r\nerror: no such partition.\r\n" +
				"Entering rescue mode...\r\ngrub rescue> ", []Complaint{
				{aboutGRUB, "error: no such partition."}, {aboutGRUB, "Entering rescue mode..."},
			},
		},
		"the agent": {
			"pxagent: error: no network card has a driver; build the ramdisk with the modules of this " +
				"machine's card mac=52:54:00:77:00:01\r\n", []Complaint{
				{
					aboutAgent,
					"pxagent: error: no network card has a driver; " +
						"build the ramdisk with the modules of this machine's card mac=52:54:00:77:00:01",
				},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var tr console.Transcript
			var got []Complaint
			tr.Add([]byte(c.said), func(line string) {
				if c, ok := ComplaintIn(line); ok {
					got = append(got, c)
				}
			})
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("complaints (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever a line says, its quote is a part of it, and next does not panic.
func FuzzComplaint(f *testing.F) {
	for line := range strings.Lines(recorded(f, "panic.txt") + recorded(f, "boot.txt")) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, ok := ComplaintIn(line)
		if ok && (c.Quote == "" || len(c.Quote) > len(line)) {
			t.Errorf("ComplaintIn(%q) quotes %q", line, c.Quote)
		}
		c.next()
	})
}
