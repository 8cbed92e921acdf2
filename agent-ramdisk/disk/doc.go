// Package disk does to a machine's disk what a deployment asks for: find the chosen one, clear old
// signatures, write an image chunk by chunk and prove it by reading it back from the medium,
// move the backup GPT to the disk's end, and put the NoCloud seed in place.
//
// It works on block devices and, for tests, on plain files. It knows nothing of orders
// and of the network: chunks come from a function.
//
// GPT is that of the UEFI specification 2.10, section 5.3.
package disk
