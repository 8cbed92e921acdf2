// Package disk does a deployment's work on a machine's disk: it finds the chosen one, clears old signatures,
// writes an image chunk by chunk and proves it by reading it back from the medium, moves the backup GPT to
// the disk's end, and writes the NoCloud seed.
//
// It works on block devices and, for tests, on plain files. It knows nothing of orders and of the network: a
// function supplies the chunks.
//
// GPT is that of the UEFI specification 2.10, section 5.3.
package disk
