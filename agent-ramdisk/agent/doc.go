// Package agent is the program in the ramdisk: it registers with the appliance over TLS pinned to
// the appliance's key, asks for orders, does them, and repeats results until they are
// acknowledged. The calls are described in package inventory.
//
// Functions stand between it and the machine, so all of it runs in tests. Mounts, drivers and the network are
// the work of packages boot, modules and netup.
package agent
