// Package initramfs makes the ramdisk that machines boot into. It has two halves: a base archive (the agent
// as /init and u-root's commands), built with pxectl and embedded in it, and the kernel's modules, which
// Build adds from a kernel package, without a Go toolchain.
//
// The result is one file of two zstd-compressed cpio archives, as
// Documentation/driver-api/early-userspace/buffer-format.rst of the kernel allows.
package initramfs
