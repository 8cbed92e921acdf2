// Package rogue remembers the other DHCP servers on the provisioning networks. One that tells machines what
// to boot competes with us, and firmware takes whichever answer it likes; so it is named at once.
package rogue
