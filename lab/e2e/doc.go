// Package e2e holds the end-to-end tests: pxectl as it is built, real firmware in QEMU, a real DHCP server
// beside it, IPMI to simulated BMCs, and images that boot. Each test reads as a story of the rack. They need
// root, QEMU and minutes; `make test` builds what they need and runs them.
package e2e
