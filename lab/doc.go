// Package lab is a virtual rack: QEMU machines with real firmware, a simulated BMC for each of
// them, the site's own DHCP server, and the appliance beside it, on a private network.
//
// [Up] starts one supervisor process in fresh network, process and mount namespaces. It is process 1 in
// there, so that the kernel ends everything of the rack with it, however it ends. It never touches the host's
// network. From inside, the rack has these addresses:
//
//	10.77.0.1        br0: the appliance
//	10.77.0.2        the site's DHCP server (dnsmasq or Kea, no boot options), in a namespace of its own
//	10.77.0.51 …     the machines' BMCs: IPMI 2.0 on UDP 623, also in-band as /dev/ipmi0
//	10.77.0.100-200  what the site's DHCP server hands out
//
// All files are below one directory: the machines' disks, consoles and firmware variables
// in machines/NAME, dhcp.pcap with every boot packet, and a log of each program.
//
// The BMC is the server side of go-ipmi. The appliance's IPMI driver uses the same library, so the BMC cannot
// check its wire format; ipmitool talks to it too.
package lab
