// Package parttable reads, checks and writes partition tables: GPT (UEFI specification, chapter 5.3) and MBR.
// The agent uses it to fit a written disk to its size, and the image store to check imports, so that both
// agree.
//
// It reads any input, even hostile: sizes are bounded, and it returns no partition outside of the disk.
package parttable
