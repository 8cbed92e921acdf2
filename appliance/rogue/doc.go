// Package rogue remembers the other DHCP servers on the provisioning networks. One that tells machines what
// to boot competes with us, since firmware takes whichever answer it likes. So it is logged and noted at
// once.
package rogue
