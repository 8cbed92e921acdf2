// Package deploy is the life of machines: the pure function from recorded facts to the
// next step, the worker that does the steps of one machine, deployments, and the side of the
// appliance that agents talk to.
//
// One worker per machine is the only writer of that machine's state; the API, agents, DHCP and BMCs
// only post to it. A change and its event are one transaction of the store, every waiting step
// has a deadline counted from its creation, and every step may be done twice, so the workers of a
// restarted appliance go on where the killed one stopped.
//
// It knows no sockets and no wire formats: api serves it, appliance wires it to the boot plane. Where to
// look:
//
//	next.go                                     what happens next, from facts
//	worker.go, save.go                          one machine: the loop, what is written
//	steps.go, orders.go                         how a step begins, is done by us or by the agent, and ends
//	validate.go, bootagent.go, bootos.go, …     the steps
//	agents.go, inspect.go, phonehome.go         what agents and deployed systems call
//	operators.go, edits.go, retry.go            what operators ask for
//	bmcs.go, command.go                         what BMCs tell, and are told
//	snapshot.go, rules.go                       what others read of it, what may be asked of it, and why not
//	claim.go                                    what is not believed
//	strangers.go, admit.go, intake.go           who has to wait, or to make room
package deploy
