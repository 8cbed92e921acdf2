// Package netup brings up the network card that the machine booted from and keeps its DHCP lease (RFC 2131)
// for as long as the agent runs. It needs no name service: the agent knows the appliance by its address.
package netup
