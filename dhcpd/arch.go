package dhcpd

import (
	"fmt"
	"slices"
)

// Arch is a client system architecture (option 93), numbered as in the IANA registry: RFC 4578 section 2.1
// with erratum 4624, since the printed RFC has 7 and 9 swapped.
type Arch uint16

// Architectures that the registry names.
const (
	ArchBIOS      Arch = 0
	ArchUEFI32    Arch = 6
	ArchUEFI64    Arch = 7
	ArchUEFIBC    Arch = 9 // EFI byte code in the registry; old OVMF and VMware Fusion send it on x86-64
	ArchARM32     Arch = 10
	ArchARM64     Arch = 11
	ArchHTTP32    Arch = 15
	ArchHTTP64    Arch = 16
	ArchHTTPBC    Arch = 17
	ArchHTTPARM32 Arch = 18
	ArchHTTPARM64 Arch = 19
	ArchHTTPBIOS  Arch = 20
	ArchUBoot32   Arch = 21
	ArchUBoot64   Arch = 22 // U-Boot on arm64, which starts EFI programs
	ArchRISCV32   Arch = 25
	ArchRISCV64   Arch = 27
	ArchRISCV128  Arch = 29
	ArchLoong32   Arch = 37
	ArchLoong64   Arch = 39
)

// archs names the architectures.
var archs = map[Arch]string{
	ArchBIOS:      "x86 BIOS",
	ArchUEFI32:    "x86 UEFI, 32 bit",
	ArchUEFI64:    "x86-64 UEFI",
	ArchUEFIBC:    "x86-64 UEFI",
	ArchARM32:     "ARM UEFI, 32 bit",
	ArchARM64:     "ARM64 UEFI",
	ArchHTTP32:    "x86 UEFI HTTP, 32 bit",
	ArchHTTP64:    "x86-64 UEFI HTTP",
	ArchHTTPBC:    "x86-64 UEFI HTTP",
	ArchHTTPARM32: "ARM UEFI HTTP, 32 bit",
	ArchHTTPARM64: "ARM64 UEFI HTTP",
	ArchHTTPBIOS:  "x86 BIOS HTTP",
	ArchUBoot32:   "ARM U-Boot, 32 bit",
	ArchUBoot64:   "ARM64 U-Boot",
	23:            "ARM U-Boot HTTP, 32 bit",
	24:            "ARM64 U-Boot HTTP",
	ArchRISCV32:   "RISC-V UEFI, 32 bit",
	ArchRISCV64:   "RISC-V UEFI",
	ArchRISCV128:  "RISC-V UEFI, 128 bit",
	26:            "RISC-V UEFI HTTP, 32 bit",
	28:            "RISC-V UEFI HTTP",
	30:            "RISC-V UEFI HTTP, 128 bit",
	ArchLoong32:   "LoongArch UEFI, 32 bit",
	ArchLoong64:   "LoongArch UEFI",
	38:            "LoongArch UEFI HTTP, 32 bit",
	40:            "LoongArch UEFI HTTP",
}

// Foreign says whether pxectl has no boot program for this processor family in any mode: RISC-V, LoongArch
// and 32-bit ARM.
func (a Arch) Foreign() bool {
	switch a {
	case ArchARM32, ArchHTTPARM32, ArchUBoot32, 23, ArchRISCV32, ArchRISCV64, ArchRISCV128, 26, 28, 30,
		ArchLoong32, ArchLoong64, 38, 40:
		return true
	}
	return false
}

func (a Arch) String() string {
	if name, ok := archs[a]; ok {
		return name
	}
	return fmt.Sprintf("architecture %d", uint16(a))
}

// pick chooses the architecture of a client that lists several: the first with a boot program, else the first
// with a name, else the first. ok is false for an empty list.
func pick(list []Arch, program func(Arch) bool) (a Arch, ok bool) {
	if len(list) == 0 {
		return 0, false
	}
	known := func(a Arch) bool { _, ok := archs[a]; return ok }
	at := slices.IndexFunc(list, program)
	if at < 0 {
		at = max(0, slices.IndexFunc(list, known))
	}
	// Firmware sends either of two numbers for x86-64. Both get the same answer.
	switch a = list[at]; a {
	case ArchUEFIBC:
		a = ArchUEFI64
	case ArchHTTPBC:
		a = ArchHTTP64
	}
	return a, true
}
