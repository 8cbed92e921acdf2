// Package deploy is the life of machines: the pure function from recorded facts to the
// next step, the worker that does the steps of one machine, deployments, and the side of the
// appliance that agents talk to.
//
// One worker per machine is the only writer of that machine's state; the API, agents, DHCP and BMCs
// only post to it. A change and its event are one transaction of the store, every waiting step
// has a deadline counted from its creation, and every step may be done twice, so the workers of a
// restarted appliance go on where the killed one stopped.
//
// It knows no sockets and no wire formats: api serves it, appliance wires it to the boot plane.
package deploy
