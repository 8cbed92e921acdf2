package diagnose

import (
	"regexp"
	"slices"
	"strings"
)

// A Complaint is a line of a serial console that says why a boot cannot go on.
type Complaint struct {
	About Subject
	Quote string // the line, without the kernel's time stamp, so that the same words are the same complaint
}

// Final says whether the system has given up.
func (c Complaint) Final() bool { return c.About == aboutPanic }

// A Subject is what a complaint is about. It is in the data of events, as "complaint".
type Subject string

const (
	aboutPanic    Subject = "panic"    // the kernel has given up
	aboutMemory   Subject = "memory"   // there is too little of it
	aboutRamdisk  Subject = "ramdisk"  // the kernel does not get at its ramdisk, or at the program in it
	aboutHardware Subject = "hardware" // the hardware reports an error
	aboutKernel   Subject = "kernel"   // a fault in the kernel, which may have gone on
	aboutAgent    Subject = "agent"    // our agent's own
	aboutSecure   Subject = "secure-boot"
	aboutIPXE     Subject = "ipxe"
	aboutGRUB     Subject = "grub"
	aboutFirmware Subject = "firmware"
)

// complaints says how to recognize each: a line contains one of words and, where these are not enough,
// matches an expression. The first that fits counts, so the graver ones come first. Every line of a console
// is compared, so words are compared first: they are cheaper than expressions.
var complaints = []struct {
	about Subject
	words []string
	is    *regexp.Regexp
}{
	// kernel/panic.c, mm/oom_kill.c, init/initramfs.c, init/do_mounts.c, init/main.c
	{about: aboutPanic, words: []string{"Kernel panic - not syncing"}},
	{
		aboutMemory,
		[]string{"Initramfs unpacking failed"},
		regexp.MustCompile(`failed: (write error|.*[Nn]o space|.*[Oo]ut of memory)`),
	},
	{about: aboutMemory, words: []string{"invoked oom-killer", "ut of memory: Kill", "ut of memory: kill"}},
	{
		about: aboutRamdisk,
		words: []string{"Initramfs unpacking failed", "Unable to mount root", "VFS: Cannot open root device"},
	},
	{
		aboutRamdisk,
		[]string{"Failed to execute /", "init"},
		regexp.MustCompile(
			`^(Failed to execute /|Requested init .* failed|check access for rdinit=.* failed)`),
	},
	{about: aboutHardware, words: []string{"[Hardware Error]:", "severity=Uncorrected"}},
	{
		aboutKernel, []string{
			"BUG", "Oops: ", "general protection fault", "nable to handle kernel",
			"Internal error: ", "self-detected stall on CPU",
		}, regexp.MustCompile(
			`^(watchdog: )?BUG: |^kernel BUG at |^Oops: |^general protection fault|` +
				`^Unable to handle kernel|^Internal error: |self-detected stall on CPU`),
	},

	{about: aboutAgent, words: []string{"pxagent: error: ", "pxagent: warn: "}},

	// Firmware, and what it loads. The numbers of iPXE's errors: src/include/errno.h.
	{about: aboutSecure, words: []string{"Security Violation", "Secure Boot Violation", "ad shim signature"}},
	{aboutSecure, []string{"Access Denied"}, regexp.MustCompile(`^BdsDxe: `)},
	{aboutIPXE, []string{"ipxe.org/"}, regexp.MustCompile(`\(https?://ipxe\.org/[0-9a-f]{8}\)`)},
	{about: aboutGRUB, words: []string{"Entering rescue mode", "Minimal BASH-like line editing"}},
	{aboutGRUB, []string{"error: "}, regexp.MustCompile(
		`^error: (no such (device|partition|disk)|unknown filesystem|(file|symbol|disk) .*not found|` +
			`you need to load the kernel first|out of memory|attempt to read or write outside)`)},
	{
		about: aboutFirmware,
		words: []string{
			"BdsDxe: failed to", "BdsDxe: No bootable", "No bootable device", "UEFI Interactive Shell",
			"Missing operating system", "Reboot and Select proper Boot device",
		},
	},
	{
		aboutFirmware,
		[]string{"PXE-", "Boot failed: ", "not found", "oot device"},
		regexp.MustCompile(
			`\bPXE-[EM][0-9A-F]{2}: |^Boot failed: |^[Oo]perating [Ss]ystem not found|^[Nn]o boot device`),
	},
}

// stamped matches the prefix of a kernel's lines: the time since its start, and the task or the processor.
var stamped = regexp.MustCompile(`^(<\d{1,2}>)?\[ *\d+\.\d{6}\](\[ *[TC]\d+\])? ?`)

// ComplaintIn finds the complaint in a line of a console. ok is false when there is none.
func ComplaintIn(line string) (c Complaint, ok bool) {
	if strings.HasPrefix(line, "[") || strings.HasPrefix(line, "<") {
		line = strings.TrimSpace(stamped.ReplaceAllString(line, ""))
	}
	if strings.HasPrefix(line, "---[ ") { // the end of a panic, which repeats its beginning
		return Complaint{}, false
	}
	for _, c := range complaints {
		if containsAny(line, c.words) && (c.is == nil || c.is.MatchString(line)) {
			return Complaint{c.about, line}, true
		}
	}
	return Complaint{}, false
}

func containsAny(line string, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(line, w) })
}

// next is the move that fits a complaint. It is "" when the place where the boot stopped says as much.
func (c Complaint) next() string {
	has := func(words ...string) bool { return containsAny(c.Quote, words) }
	const (
		memory = "give the machine more memory, or leave drivers and firmware out of the ramdisk " +
			"(`pxectl ramdisk build`)"
		rebuild = "the ramdisk is damaged, or not one for this kernel: " +
			"build it again with `pxectl ramdisk build`"
		arch = "the ramdisk is for another architecture than its kernel: " +
			"build it again with `pxectl ramdisk build --arch`"
		hardware = "the hardware reports an error: look into the event log of its BMC, " +
			"update the firmware, test memory and processors"
		fault = "a fault of the kernel or of the hardware: build the ramdisk with another kernel " +
			"(`pxectl ramdisk build --kernel`), update the firmware, test the memory"
	)
	switch c.About {
	case aboutMemory:
		return memory
	case aboutRamdisk, aboutPanic:
		switch {
		case has("deadlocked on memory", "ut of memory"):
			return memory
		case has("error -8"): // ENOEXEC
			return arch
		case has("Attempted to kill init"):
			return "the agent in the ramdisk ended; earlier lines on the console say why: " +
				"build the ramdisk again with `pxectl ramdisk build` of this version"
		case has("achine check", "NMI", "Hardware Error"):
			return hardware
		case c.About == aboutRamdisk,
			has("Unable to mount root", "No working init", "Requested init", "No init found"):
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
			return "is another machine at the appliance's address, " +
				"or keys/tls.key new? A boot brings the new pin"
		}
	case aboutSecure:
		return "switch Secure Boot off in its firmware: the boot programs are not signed"
	case aboutIPXE:
		switch {
		case has("Exec format error"):
			return "the kernel is not one for this machine's architecture or firmware: " +
				"build the ramdisk again with `pxectl ramdisk build --arch`"
		case has("Permission denied"):
			return "switch Secure Boot off in its firmware: the kernel is not signed"
		case has("Not enough memory", "No space", "Out of memory"):
			return memory
		case has("imed out", "refused", "unreachable", "reset"):
			return "let the HTTP port (http.port, TCP 8080 by default) in"
		}
	case aboutGRUB:
		return "it started from a disk: put network boot first in its boot order"
	}
	return ""
}
