// Package e2e has the end-to-end tests: the built pxectl, real firmware in QEMU, a real DHCP server beside
// it, IPMI to simulated BMCs, and images that boot. They need root, QEMU and minutes; `make test` builds what
// they need and runs them.
package e2e
