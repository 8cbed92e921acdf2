// Package boot is what the first process of the ramdisk owes the kernel and the person at
// the console: mounts, a shell on Enter, collecting dead children, and an orderly end.
package boot
