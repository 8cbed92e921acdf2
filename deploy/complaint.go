package deploy

import (
	"regexp"
	"strings"
)

// A complaint is a line of a serial console that says why a boot cannot go on.
type complaint struct {
	about subject
	quote string // the line, without the kernel's time stamp, so that the same words are the same complaint
}

// A subject is what a complaint is about. It is in the data of events, as "complaint".
type subject string

const (
	aboutPanic    subject = "panic"    // the kernel has given up
	aboutMemory   subject = "memory"   // there is too little of it
	aboutRamdisk  subject = "ramdisk"  // the kernel does not get at its ramdisk, or at the program in it
	aboutHardware subject = "hardware" // the hardware tells of an error
	aboutKernel   subject = "kernel"   // a fault in the kernel, which may have gone on
	aboutAgent    subject = "agent"    // our own
	aboutSecure   subject = "secure-boot"
	aboutIPXE     subject = "ipxe"
	aboutGRUB     subject = "grub"
	aboutFirmware subject = "firmware"
)

// What stands in the lines. The first that fits counts, so the graver ones come first.
var complaints = []struct {
	about subject
	has   string         // anywhere in the line
	is    *regexp.Regexp // where that is not enough
}{
	{about: aboutPanic, has: "Kernel panic - not syncing"}, // kernel/panic.c
	{about: aboutMemory, is: regexp.MustCompile(`^Initramfs unpacking failed: (write error|.*[Nn]o space|.*[Oo]ut of memory)`)},
	{about: aboutMemory, is: regexp.MustCompile(`\b([Oo]ut of memory: [Kk]ill|invoked oom-killer)`)},
	{about: aboutRamdisk, has: "Initramfs unpacking failed"}, // init/initramfs.c
	{about: aboutRamdisk, has: "Unable to mount root"},       // init/do_mounts.c
	{about: aboutRamdisk, has: "VFS: Cannot open root device"},
	{about: aboutRamdisk, is: regexp.MustCompile(`^(Failed to execute /|Requested init .* failed|rdinit=.* failed|check access for rdinit=.* failed)`)}, // init/main.c
	{about: aboutHardware, is: regexp.MustCompile(`\[Hardware Error\]:|^mce: CPU|severity=Uncorrected`)},
	{about: aboutKernel, is: regexp.MustCompile(`^(watchdog: )?BUG: |^kernel BUG at |^Oops: |^general protection fault|^Unable to handle kernel|^Internal error: |self-detected stall on CPU`)},
	{about: aboutAgent, is: regexp.MustCompile(`^pxagent: (error|warn): `)},
	{about: aboutSecure, is: regexp.MustCompile(`Security Violation|Secure Boot Violation|[Bb]ad shim signature|^BdsDxe: .*: Access Denied`)},
	{about: aboutIPXE, is: regexp.MustCompile(`\(https?://ipxe\.org/[0-9a-f]{8}\)`)}, // src/include/errno.h
	{about: aboutGRUB, is: regexp.MustCompile(`^error: (no such (device|partition|disk)|unknown filesystem|(file|symbol|disk) .*not found|you need to load the kernel first|out of memory|attempt to read or write outside)|^Entering rescue mode|Minimal BASH-like line editing`)},
	{about: aboutFirmware, is: regexp.MustCompile(`^BdsDxe: (failed to|No bootable)|^No bootable device|^UEFI Interactive Shell|\bPXE-[EM][0-9A-F]{2}: |^Boot failed: |[Oo]perating [Ss]ystem not found|^Missing operating system|[Nn]o boot device|Reboot and Select proper Boot device`)},
}

// stamped is what a kernel puts before its lines: the time since its start, and the task or the processor.
var stamped = regexp.MustCompile(`^(<\d{1,2}>)?\[ *\d+\.\d{6}\](\[ *[TC]\d+\])? ?`)

// complaintIn says what a line of a console complains of, if it does.
func complaintIn(line string) (complaint, bool) {
	line = strings.TrimSpace(stamped.ReplaceAllString(line, ""))
	if strings.HasPrefix(line, "---[ ") { // the end of a panic, which repeats its beginning
		return complaint{}, false
	}
	for _, c := range complaints {
		if c.has != "" && strings.Contains(line, c.has) || c.is != nil && c.is.MatchString(line) {
			return complaint{c.about, line}, true
		}
	}
	return complaint{}, false
}

// next is the move that fits a complaint; "" when it says nothing that the place where the boot stopped does not say.
func (c complaint) next() string {
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(c.quote, w) {
				return true
			}
		}
		return false
	}
	const (
		memory   = "give the machine more memory, or leave drivers and firmware out of the ramdisk (`pxectl ramdisk build`)"
		rebuild  = "the ramdisk is damaged, or not one for this kernel: build it again with `pxectl ramdisk build`"
		arch     = "the ramdisk is for another architecture than its kernel: build it again with `pxectl ramdisk build --arch`"
		hardware = "the hardware reports an error: look into the event log of its BMC, update the firmware, test memory and processors"
		fault    = "a fault of the kernel or of the hardware: build the ramdisk with another kernel (`pxectl ramdisk build --kernel`), update the firmware, test the memory"
	)
	switch c.about {
	case aboutMemory:
		return memory
	case aboutRamdisk, aboutPanic:
		switch {
		case has("deadlocked on memory", "ut of memory"):
			return memory
		case has("error -8"): // ENOEXEC
			return arch
		case has("Attempted to kill init"):
			return "the agent in the ramdisk ended, and the lines before on the console say why: build the ramdisk again with `pxectl ramdisk build`, of this version"
		case has("achine check", "NMI", "Hardware Error"):
			return hardware
		case c.about == aboutRamdisk, has("Unable to mount root", "No working init", "Requested init", "No init found"):
			return rebuild
		}
		return fault
	case aboutHardware:
		return hardware
	case aboutKernel:
		return fault
	case aboutAgent:
		switch {
		case has("has a driver", "has no driver"):
			return buildWith
		case has("modules are for another kernel"):
			return "build the ramdisk again, from one kernel package"
		case has("not the pinned one"):
			return "is another machine at the appliance's address, or keys/tls.key new? A boot brings the new pin"
		}
	case aboutSecure:
		return "switch Secure Boot off in its firmware: the boot programs are not signed"
	case aboutIPXE:
		switch {
		case has("Exec format error"):
			return "the kernel is not one for this machine's architecture or firmware: build the ramdisk again with `pxectl ramdisk build --arch`"
		case has("Permission denied"):
			return "switch Secure Boot off in its firmware: the kernel is not signed"
		case has("Not enough memory", "No space", "Out of memory"):
			return memory
		case has("imed out", "refused", "unreachable", "reset"):
			return "let the HTTP port (TCP 8080) in"
		}
	case aboutGRUB:
		return "it started from a disk: put network boot first in its boot order"
	}
	return ""
}
