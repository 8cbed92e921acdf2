package initramfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
)

// kernelVersion reads the release from a kernel: "6.1.0-56-amd64". It returns "" for a kernel that does not
// contain it, such as a compressed arm64 one.
func kernelVersion(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("kernel: %w", err)
	}
	return parseKernel(data)
}

func parseKernel(data []byte) (string, error) {
	switch {
	case len(data) > 0x210 && string(data[0x202:0x206]) == "HdrS":
		// Documentation/arch/x86/boot.rst: kernel_version at 20Eh, less 200h.
		at := int(binary.LittleEndian.Uint16(data[0x20e:])) + 0x200
		if at == 0x200 || at >= len(data) {
			return "", nil
		}
		text := string(data[at:min(at+256, len(data))])
		text, _, _ = strings.Cut(text, "\x00")
		release, _, _ := strings.Cut(text, " ")
		return release, nil
	case len(data) > 0x40 && string(data[0x38:0x3c]) == "ARM\x64":
		// Documentation/arch/arm64/booting.rst has no version; the banner is in the clear.
		_, rest, ok := bytes.Cut(data, []byte("Linux version "))
		for ok && (len(rest) == 0 || rest[0] < '0' || rest[0] > '9') {
			_, rest, ok = bytes.Cut(rest, []byte("Linux version "))
		}
		if !ok {
			return "", nil
		}
		release, _, _ := bytes.Cut(rest[:min(len(rest), 128)], []byte(" "))
		return string(release), nil
	case len(data) > 2 && (data[0] == 0x1f && data[1] == 0x8b || string(data[:2]) == "MZ"):
		return "", nil // gzip or an EFI stub around a compressed kernel
	}
	return "", fmt.Errorf("not a Linux kernel (want a vmlinuz for x86 or an Image for arm64)")
}
