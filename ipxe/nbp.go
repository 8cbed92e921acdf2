package ipxe

import (
	"crypto/sha256"
	_ "embed"
	"fmt"
	"maps"
	"slices"
)

// The names are those of the Debian package. DHCP and TFTP use the same.
const (
	BIOS = "undionly.kpxe" // keeps the PXE stack of the ROM that loaded it, so it drives every NIC that can PXE
	// Native is for a BIOS whose ROM is already an iPXE. undionly.kpxe would drive the card through that
	// ROM's own UNDI, which works with QEMU's and is known to fail with others (danderson/pixiecore#63); this
	// one has its own drivers.
	Native = "ipxe.pxe"
	X64    = "snponly.efi" // only for the NIC that it was loaded from, by the firmware's driver
	// NativeX64 has its own drivers for all NICs. Only a rule selects it.
	NativeX64 = "ipxe-amd64.efi"
	ARM64     = "ipxe-arm64.efi" // the package has no snponly for arm64
)

var (
	//go:embed nbp/undionly.kpxe
	undionly []byte
	//go:embed nbp/ipxe.pxe
	ipxePXE []byte
	//go:embed nbp/snponly.efi
	snponlyX64 []byte
	//go:embed nbp/ipxe-amd64.efi
	ipxeX64 []byte
	//go:embed nbp/ipxe-arm64.efi
	ipxeARM64 []byte
)

type program struct {
	bytes []byte
	etag  string
	kind  string // programs of one kind run on the same machines
}

var programs = map[string]program{
	BIOS:      newProgram("bios", undionly),
	Native:    newProgram("bios", ipxePXE),
	X64:       newProgram("x64", snponlyX64),
	NativeX64: newProgram("x64", ipxeX64),
	ARM64:     newProgram("arm64", ipxeARM64),
}

func newProgram(kind string, b []byte) program {
	sum := sha256.Sum256(b)
	return program{bytes: b, etag: fmt.Sprintf(`"%x"`, sum[:16]), kind: kind}
}

// NBP is the network boot program of that name. The caller must not change the bytes.
func NBP(name string) ([]byte, bool) {
	p, ok := programs[name]
	return p.bytes, ok
}

// NBPs lists the names of all network boot programs.
func NBPs() []string { return slices.Sorted(maps.Keys(programs)) }

// byArch maps DHCP option 93 (client system architecture, RFC 4578 section 2.1 with erratum 4624, continued
// by the IANA registry) to a program. Other codes get nothing.
var byArch = map[uint16]string{
	0:  BIOS,  // x86 BIOS
	7:  X64,   // x64 UEFI
	9:  X64,   // EBC in the registry; in the field an x86-64 firmware (old OVMF, Apple, VMware)
	11: ARM64, // ARM 64-bit UEFI
	16: X64,   // x64 UEFI over HTTP
	17: X64,   // EBC over HTTP, as 9
	19: ARM64, // ARM 64-bit UEFI over HTTP
	20: BIOS,  // x86 BIOS over HTTP
	22: ARM64, // U-Boot on 64-bit ARM, which starts EFI programs
}

// NBPFor is the program for a client architecture code of DHCP option 93. ok is false for architectures
// without a program here: IA32 UEFI (6 and 15), 32-bit ARM (10 and 18), RISC-V, LoongArch and the historic
// ones. overIPXE says that the client is an iPXE itself.
func NBPFor(arch uint16, overIPXE bool) (name string, ok bool) {
	name, ok = byArch[arch]
	if name == BIOS && overIPXE {
		name = Native
	}
	return name, ok
}
