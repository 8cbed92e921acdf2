package deploy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/console"
)

// What consoles said, as it was recorded, and what is heard of it.
const (
	panicked = "http://10.77.0.1:8080/ramdisk/amd64/vmlinuz... ok\r\nhttp://10.77.0.1:8080/ramdisk/amd64/initrd... ok\r\n" +
		"[    1.862623] Initramfs unpacking failed: invalid magic at start of compressed archive\r\n" +
		"[    3.219775] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n" +
		"[    3.220345] CPU: 0 PID: 1 Comm: swapper/0 Not tainted 6.1.0-56-amd64 #1  Debian 6.1.192-2\r\n" +
		"[    3.220557] Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16.2-debian-1.16.2-1 04/01/2014\r\n" +
		"[    3.220855] Call Trace:\r\n[    3.221520]  <TASK>\r\n[    3.221866]  dump_stack_lvl+0x44/0x5c\r\n[    3.222193]  panic+0x118/0x2f4\r\n" +
		"[    3.222257]  mount_block_root+0x1d3/0x1e6\r\n[    3.222359]  prepare_namespace+0x136/0x165\r\n[    3.222621]  </TASK>\r\n" +
		"[    3.223259] Kernel Offset: 0x35400000 from 0xffffffff81000000 (relocation range: 0xffffffff80000000-0xffffffffbfffffff)\r\n" +
		"[    3.223660] ---[ end Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0) ]---\r\n"

	booted = "\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2-debian-1.16.2-1)\r\nMachine UUID 7078656c-0077-4000-8000-525400770001\r\n\r\n\r\n" +
		"iPXE (http://ipxe.org) 00:02.0 C000 PCI2.10 PnP PMM+1EFCF0A0+1EF0F0A0 C000\r\n" +
		"Press Ctrl-B to configure iPXE (PCI 00:02.0)...\r                                                                               \r\n\r\n\r\n" +
		"Booting from ROM...\r\niPXE (PCI 00:02.0) starting execution...ok\r\niPXE initialising devices...ok\r\n\n\n\n" +
		"\x1b[0;1miPXE 1.0.0+git-20190125.36a4c85-5.1\x1b[0m -- Open Source Network Boot Firmware -- \x1b[0;36mhttp\r\n://ipxe.org\r\n" +
		"\x1b[0mFeatures: DNS HTTP iSCSI NFS TFTP AoE ELF MBOOT PXE bzImage Menu PXEXT\r\n\nPress Ctrl-B for the iPXE command line...\b \b\b \b" +
		"net0: 52:54:00:77:00:01 using virtio-net on 0000:00:02.0 (open)\r\n  [Link:up, TX:0 TXE:0 RX:0 RXE:0]\r\nConfiguring (net0 52:54:00:77:00:01)... ok\r\n" +
		"Filename: http://10.77.0.1:8080/boot.ipxe?mac=52-54-00-77-00-01&uuid=7078656c-00\r\n77-4000-8000-525400770001&serial=LAB01&asset=m1&manufacturer=pxectl&product=Virt\r\n" +
		"ual%20Rack%20Machine&arch=i386&platform=pcbios&busid=01:1a:f4:10:00\r\nboot.ipxe : 768 bytes [script]\r\n" +
		"\x1bc\x1b[?7l\x1b[2Jpxagent: pxectl agent version=05a09ef uptime=6.49s\r\npxagent: phase network (1/8): started\r\n" +
		"[    9.702289] ipmi_si IPI0001:00: Cannot check clearing the rcv irq: -22\r\n[   20.311482] reboot: Power down\r\n"
)

func TestWhatAConsoleSays(t *testing.T) {
	for name, c := range map[string]struct {
		said string
		want []complaint
	}{
		"a boot that goes well": {booted, nil},
		"a panic with its trace": {panicked, []complaint{
			{aboutRamdisk, "Initramfs unpacking failed: invalid magic at start of compressed archive"},
			{aboutPanic, "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"},
		}},
		"a ramdisk that was cut": {"[    3.586220] Initramfs unpacking failed: ZSTD-compressed data is truncated\r\n", []complaint{
			{aboutRamdisk, "Initramfs unpacking failed: ZSTD-compressed data is truncated"},
		}},
		"a root that cannot be mounted": {"[    1.9] x\r\n[    1.901530] VFS: Cannot open root device \"sda1\" or unknown-block(0,0): error -6\r\n", []complaint{
			{aboutRamdisk, `VFS: Cannot open root device "sda1" or unknown-block(0,0): error -6`},
		}},
		"an init for another machine": {"[    2.100000][    T1] Failed to execute /init (error -8)\r\n", []complaint{
			{aboutRamdisk, "Failed to execute /init (error -8)"},
		}},
		"an init that ends": {"<0>[    4.000001] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n", []complaint{
			{aboutPanic, "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"},
		}},
		"a ramdisk that does not fit": {"[    2.5] x\n[    2.512345] Initramfs unpacking failed: write error\n", []complaint{
			{aboutMemory, "Initramfs unpacking failed: write error"},
		}},
		"out of memory": {
			"[   12.345678] pxagent invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO), order=0, oom_score_adj=0\r\n" +
				"[   12.345700] Mem-Info:\r\n[   12.346000] Out of memory: Killed process 131 (pxagent) total-vm:1242084kB, anon-rss:38000kB\r\n" +
				"[   12.400000] Kernel panic - not syncing: System is deadlocked on memory\r\n",
			[]complaint{
				{aboutMemory, "pxagent invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO), order=0, oom_score_adj=0"},
				{aboutMemory, "Out of memory: Killed process 131 (pxagent) total-vm:1242084kB, anon-rss:38000kB"},
				{aboutPanic, "Kernel panic - not syncing: System is deadlocked on memory"},
			},
		},
		"a fault in the kernel": {
			"[    5.000001] BUG: kernel NULL pointer dereference, address: 0000000000000010\r\n[    5.000002] #PF: supervisor read access in kernel mode\r\n" +
				"[    5.000003] Oops: 0000 [#1] PREEMPT SMP PTI\r\n[    5.100000] Kernel panic - not syncing: Fatal exception\r\n",
			[]complaint{
				{aboutKernel, "BUG: kernel NULL pointer dereference, address: 0000000000000010"},
				{aboutKernel, "Oops: 0000 [#1] PREEMPT SMP PTI"},
				{aboutPanic, "Kernel panic - not syncing: Fatal exception"},
			},
		},
		"debugging": {"[    5.000001] usb: DEBUG: BUG-like words, initialized, not found\r\n", nil},
		"a processor that is stuck": {"[   48.000001] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:1:41]\r\n", []complaint{
			{aboutKernel, "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:1:41]"},
		}},
		"an error of the hardware": {"[    0.500001] mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 5: be00000000800400\r\n", []complaint{
			{aboutHardware, "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 5: be00000000800400"},
		}},
		"iPXE, an old one": {"tftp://10.0.2.2/nothing... No such file or directory (http://ipxe.org/2d12603b)\r\nNo more network devices\r\n", []complaint{
			{aboutIPXE, "tftp://10.0.2.2/nothing... No such file or directory (http://ipxe.org/2d12603b)"},
		}},
		"iPXE at the edge of its screen": {
			"http://10.77.0.1:8080/ramdisk/amd64/vmlinuz... Connection timed out (https://ipx\r\ne.org/4c0a6092)\r\n",
			[]complaint{{aboutIPXE, "http://10.77.0.1:8080/ramdisk/amd64/vmlinuz... Connection timed out (https://ipxe.org/4c0a6092)"}},
		},
		"iPXE and a kernel that it cannot start": {"Could not boot: Exec format error (https://ipxe.org/2e008081)\r\n", []complaint{
			{aboutIPXE, "Could not boot: Exec format error (https://ipxe.org/2e008081)"},
		}},
		"OVMF with an empty disk": {
			"\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2J\x1b[01;01HBdsDxe: failed to load Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x1,0x0): Not Found\r\n" +
				"BdsDxe: loading Boot0002 \"EFI Internal Shell\" from Fv(7CB8BDC9-F8EB-4F34-AAEA-3EE4AF6516A1)/FvFile(7C04A583)\r\n" +
				"\x1b[2J\x1b[01;01H\x1b[01;01HUEFI Interactive Shell v2.2\r\nEDK II\r\n",
			[]complaint{
				{aboutFirmware, `BdsDxe: failed to load Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x1,0x0): Not Found`},
				{aboutFirmware, "UEFI Interactive Shell v2.2"},
			},
		},
		"OVMF with Secure Boot": {"BdsDxe: failed to load Boot0003 \"UEFI PXEv4 (MAC:525400770001)\" from PciRoot(0x0)/Pci(0x2,0x0)/MAC(525400770001,0x1)/IPv4(0.0.0.0): Access Denied\r\n", []complaint{
			{aboutSecure, `BdsDxe: failed to load Boot0003 "UEFI PXEv4 (MAC:525400770001)" from PciRoot(0x0)/Pci(0x2,0x0)/MAC(525400770001,0x1)/IPv4(0.0.0.0): Access Denied`},
		}},
		"SeaBIOS with an empty disk": {"Booting from Hard Disk...\r\nBoot failed: could not read the boot disk\r\n\r\nNo bootable device.\r\n", []complaint{
			{aboutFirmware, "Boot failed: could not read the boot disk"}, {aboutFirmware, "No bootable device."},
		}},
		"a PXE ROM": {"PXE-E53: No boot filename received\r\nPXE-M0F: Exiting Intel Boot Agent.\r\n", []complaint{
			{aboutFirmware, "PXE-E53: No boot filename received"}, {aboutFirmware, "PXE-M0F: Exiting Intel Boot Agent."},
		}},
		"GRUB without its files": {"GRUB loading...\r\nWelcome to GRUB!\r\n\r\nerror: no such partition.\r\nEntering rescue mode...\r\ngrub rescue> ", []complaint{
			{aboutGRUB, "error: no such partition."}, {aboutGRUB, "Entering rescue mode..."},
		}},
		"the agent": {"pxagent: error: no network card has a driver; build the ramdisk with the modules of this machine's card mac=52:54:00:77:00:01\r\n", []complaint{
			{aboutAgent, "pxagent: error: no network card has a driver; build the ramdisk with the modules of this machine's card mac=52:54:00:77:00:01"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var tr console.Transcript
			var got []complaint
			tr.Add([]byte(c.said), func(line string) {
				if c, ok := complaintIn(line); ok {
					got = append(got, c)
				}
			})
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(complaint{})); diff != "" {
				t.Errorf("complaints (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever a line says, what is quoted of it is a part of it, and there is no panic over the next move.
func FuzzComplaint(f *testing.F) {
	for line := range strings.Lines(panicked + booted) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, ok := complaintIn(line)
		if ok && (c.quote == "" || len(c.quote) > len(line)) {
			t.Errorf("complaintIn(%q) quotes %q", line, c.quote)
		}
		c.next()
	})
}
