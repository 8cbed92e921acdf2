// Package interfaces watches the provisioning interfaces. They go down and come back, are made anew under the
// same name, and get other addresses, all while the appliance runs.
//
// DHCP must receive broadcasts, so it listens on every address and learns each packet's interface. TFTP, HTTP
// and the agents' port listen on our address alone: other networks of this host cannot reach them, and their
// programs keep those ports. Such a socket outlives its interface, since it is bound to the address. It is
// opened anew only when the address changes.
package interfaces
