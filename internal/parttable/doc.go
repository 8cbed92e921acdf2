// Package parttable reads, judges and writes partition tables: GPT (UEFI specification, chapter 5.3) and MBR.
// The agent fits a written disk to its size with it, and the image store judges with it what is imported, so
// that both mean the same.
//
// It reads from anything, and what it reads may be made to hurt: sizes are bounded, and no partition lies
// outside of its disk.
package parttable
