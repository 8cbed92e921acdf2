// Package efiloader finds the boot loader of an image on its EFI system partition. The appliance uses it to
// say what a deployment will do, and the agent to do it. The name that firmware starts without a boot entry
// is that of section 3.5.1.1 of the UEFI specification; the other names are those that distributions install.
package efiloader

import (
	"strings"

	"github.com/pxectl/pxectl/internal/fat"
)

// maxVendors bounds the number of directories to look into; a partition with two systems has four.
const maxVendors = 32

// programs are the loaders that distributions install. The first one wins: shim starts GRUB, and Secure Boot
// trusts shim.
var programs = []string{"shim", "grub", "systemd-boot"}

// Fallback is the path of the loader that firmware starts without a boot entry, on a machine of this
// architecture ("amd64", "arm64").
func Fallback(arch string) string { return `\EFI\BOOT\BOOT` + suffix(arch) + `.EFI` }

func suffix(arch string) string {
	if arch == "arm64" {
		return "AA64"
	}
	return "X64"
}

// Find looks for the fallback loader, and else for a distribution's, which a deployment copies to the
// fallback's path. path is "" when there is neither.
func Find(v *fat.Volume, arch string) (fallback bool, path string) {
	if path := Fallback(arch); v.Has(path) {
		return true, path
	}
	entries, err := v.List("EFI")
	if err != nil {
		return false, ""
	}
	var vendors []string
	for _, e := range entries {
		if e.Dir && !strings.HasPrefix(e.Name, ".") && len(vendors) < maxVendors {
			vendors = append(vendors, e.Name)
		}
	}
	for _, program := range programs {
		for _, vendor := range vendors {
			if path := `\EFI\` + vendor + `\` + program + strings.ToLower(suffix(arch)) +
				".efi"; v.Has(path) {
				return false, path
			}
		}
	}
	return false, ""
}
