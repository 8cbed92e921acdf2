// Package boot does the duties of the ramdisk's first process: mounts, a shell on Enter, collecting dead
// children, and an orderly end.
package boot
