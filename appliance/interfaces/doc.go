// Package interfaces watches the provisioning interfaces: they go down and come back, are made anew under the
// same name, and get other addresses, all while the appliance runs.
//
// DHCP must hear broadcasts, so it listens on every address and is told of each packet's interface. TFTP,
// HTTP and the agents' port listen on our address alone: other networks of this host cannot reach them, and
// their programs keep those ports. Such a socket outlives its interface, since it is bound to the address. It
// is opened anew only when the address is another.
package interfaces
