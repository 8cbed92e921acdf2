package ipxe

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// An Action is what a script makes a machine do.
type Action string

// The actions of a script.
const (
	Agent Action = "agent" // run the ramdisk
	Local Action = "local" // go on to the local disk
	Wait  Action = "wait"  // stay in iPXE and ask again
)

// How a Local script leaves iPXE.
const (
	// Exit returns to the firmware, which goes on in its boot order. It is the default, because it follows
	// the order that firmware and system have agreed on. On UEFI, further network entries before the disk
	// cost time: OVMF tries PXE over IPv6 and HTTP boot.
	Exit = "exit"
	// SANBoot boots the first disk directly (on UEFI its EFI/BOOT/BOOTX64.EFI), and falls back to Exit. It is
	// for firmware that stops or waits after a PXE program has returned.
	SANBoot = "sanboot"
)

// A Boot is the answer for one machine.
type Boot struct {
	Action Action
	Reason string // shown on the console: why the machine boots this

	Kernel string   // Agent: URL; when Kernel and Initrd are empty, the handler fills in its own ramdisk
	Initrd string   // Agent: URL
	Args   []string // Agent: kernel arguments after BOOTIF and console

	Method string        // Local: Exit, SANBoot or Silence
	Retry  time.Duration // Wait: until the next question; 0 is 15 s

	Template *Template // an operator's template in place of the built-in text; optional
}

const defaultRetry = 15 * time.Second

// ScriptURL is the boot file for a client that already is iPXE. iPXE expands settings in the boot file name
// that it gets by DHCP (fetch_next_server_and_filename in usr/autoboot.c, since 2011), so the first request
// already identifies the machine. It does not fit BOOTP's file field of 128 bytes: it must go into option 67,
// whose limit of 255 it keeps.
func ScriptURL(server netip.AddrPort) string {
	return "http://" + server.String() + "/boot.ipxe?" + query
}

// Autoexec is the script autoexec.ipxe (also start.ipxe): it brings the network up and goes on to boot.ipxe.
// EFI builds of iPXE look for it beside themselves before they do anything else, so an unmodified iPXE finds
// us without a second round of DHCP.
func Autoexec(server netip.AddrPort) []byte {
	return []byte(strings.ReplaceAll(autoexec, "SCRIPT", ScriptURL(server)))
}

// AutoexecURL is that script's URL: a boot file for an iPXE whose DHCP answer has no room for ScriptURL.
func AutoexecURL(server netip.AddrPort) string { return "http://" + server.String() + "/autoexec.ipxe" }

// In order: the NIC that iPXE has open (its DHCP started us); net0 with the lease of the firmware's PXE
// client (EFI builds take it over); DHCP on each NIC. It is "ifconf -c dhcp" and not "dhcp", since the latter
// also waits 13 s for IPv6 router advertisements. `inc pause ${pause}` doubles the pause: iPXE has no
// other arithmetic.
//
// imgfree: EFI builds keep autoexec.ipxe in memory as an image, and pass images in memory to the kernel in
// front of the initrd.
const autoexec = `#!ipxe
imgfree
set try:int32 0
set pause:int32 1
:again
isset ${netX/ip} && chain --replace --autofree SCRIPT ||
isset ${net0/ip} && ifopen net0 && chain --replace --autofree SCRIPT ||
set i:int32 0
:next
isset ${net${i}/mac} || goto pause
ifconf -c dhcp net${i} && chain --replace --autofree SCRIPT ||
ifclose net${i} ||
inc i
goto next
:pause
inc try
iseq ${try} 8 && goto stop ||
echo pxectl: no answer from the appliance, try ${try}; again in ${pause} s
sleep ${pause}
inc pause ${pause}
goto again
:stop
echo pxectl: giving up, rebooting in 10 s
sleep 10
reboot
`

// magic is the first line by which iPXE recognizes a script.
const magic = "#!ipxe\n"

// Script writes the script for b on the machine p. It refuses text that iPXE would read as script: no field
// of a Boot may end the line or name a setting.
func Script(server netip.AddrPort, p Params, b Boot) ([]byte, error) {
	words := b.Args
	if b.Action == Agent {
		words = append([]string{b.Kernel, b.Initrd}, b.Args...)
	}
	for _, s := range words {
		if !isWord(s) {
			return nil, fmt.Errorf("boot script for %s: %s cannot stand in a script", p.MAC, quoted(s))
		}
	}
	var w strings.Builder
	w.WriteString(magic + "imgfree\n")
	if b.Reason != "" {
		fmt.Fprintf(&w, "echo pxectl: %s\n", consoleText(b.Reason))
	}
	switch b.Action {
	case Agent:
		args := agentArgs(p, b.Args)
		// The initrd has a name because an EFI kernel finds it by that name; a BIOS kernel ignores the
		// argument. When a download fails, the machine asks again: by then the answer may be another one.
		fmt.Fprintf(&w, "kernel %s initrd=rd %s || goto again\n", b.Kernel, strings.Join(args, " "))
		fmt.Fprintf(&w, "initrd --name rd %s || goto again\n", b.Initrd)
		w.WriteString("boot || goto again\n")
		writeAgain(&w, server, 5*time.Second)
	case Local:
		writeLocal(&w, b.Method)
	case Wait:
		retry := b.Retry
		if retry <= 0 {
			retry = defaultRetry
		}
		writeAgain(&w, server, retry)
	default:
		return nil, fmt.Errorf("boot script for %s: unknown action %s", p.MAC, quoted(string(b.Action)))
	}
	if b.Template != nil {
		text, err := b.Template.fill(server, p, b, w.String())
		if err != nil {
			return nil, fmt.Errorf("boot script for %s from %s: %w", p.MAC, b.Template.name, err)
		}
		return text, nil
	}
	return []byte(w.String()), nil
}

// writeAgain asks for the script anew, until there is an answer. It never falls through to the disk: only the
// appliance decides what to boot, even while it restarts.
func writeAgain(w *strings.Builder, server netip.AddrPort, after time.Duration) {
	fmt.Fprintf(w, ":again\nsleep %d\n", max(1, int(after.Seconds())))
	fmt.Fprintf(w, "chain --replace --autofree %s || goto again\n", ScriptURL(server))
}

// writeLocal leaves iPXE. On EFI the exit status is 1: EDK2's BdsDxe goes on to the next boot option only
// after a failure, and shows its menu after a success. On a BIOS the status means nothing: the ROM returns to
// the BIOS, which goes on with its boot order (BIOS Boot Specification: a BEV device that returns has
// failed).
func writeLocal(w *strings.Builder, method string) {
	if method == SANBoot {
		w.WriteString("sanboot --no-describe --drive 0x80 ||\n")
	}
	w.WriteString("exit 1\n")
}

// agentArgs are the kernel arguments for the machine, then the caller's. BOOTIF has PXELINUX's form: ARP
// hardware type, then the address.
func agentArgs(p Params, args []string) []string {
	out := []string{"BOOTIF=01-" + strings.ReplaceAll(p.MAC, ":", "-")}
	for _, a := range args {
		if strings.HasPrefix(a, "console=") {
			return append(out, args...)
		}
	}
	return append(append(out, consoleArgs(p)...), args...)
}

// consoleArgs sends the kernel's messages to the screen and to the serial port that the BMC forwards, which
// is the second port on some boards. quiet leaves errors and panics; the rest would cost seconds on a serial
// line of 115200 baud, and dmesg has it.
func consoleArgs(p Params) []string {
	serial := "ttyS0"
	switch vendor := strings.ToLower(p.Manufacturer); {
	case p.Arch == "arm64":
		serial = "ttyAMA0"
	case strings.HasPrefix(vendor, "supermicro"), strings.HasPrefix(vendor, "lenovo"):
		serial = "ttyS1"
	}
	return []string{"console=tty0", "console=" + serial + ",115200n8", "quiet"}
}

// isWord says whether iPXE reads s as one word, unchanged: iPXE splits at blanks, knows no quotes, expands
// ${...}, joins lines at a final backslash, and treats "||", "&&", ";" and "#..." as its own when they stand
// alone (core/exec.c).
func isWord(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '\\' {
			return false
		}
	}
	return s != "" && s != "||" && s != "&&" && s != ";" && s[0] != '#' && !strings.Contains(s, "${")
}

// consoleText keeps only the characters of s that echo prints unchanged.
func consoleText(s string) string {
	var words []string
	for f := range strings.FieldsSeq(s) {
		f = strings.Map(func(r rune) rune {
			if r <= ' ' || r > '~' || strings.ContainsRune("\\$#&|;", r) {
				return -1
			}
			return r
		}, f)
		if f != "" {
			words = append(words, f)
		}
	}
	s = strings.Join(words, " ")
	if len(s) > 200 {
		s = s[:200]
	}
	return s
}
