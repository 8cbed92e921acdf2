// Package deploy runs the lives of machines: a pure function from recorded facts to the next step, a worker
// that does the steps of one machine, deployments, and the side of the appliance that agents talk to.
//
// One worker per machine is the only writer of that machine's state; the API, agents, DHCP and BMCs only post
// to it. A change and its event are one transaction of the store. Every waiting step has a deadline counted
// from its creation, and every step may be done twice. So the workers of a restarted appliance go on where
// the killed one stopped.
//
// The package knows no sockets and no wire formats: api serves it, appliance connects it to the boot plane.
// Where to look:
//
//	next.go                                     what happens next, from facts
//	worker.go, save.go                          one machine: its loop, and what it writes
//	steps.go, orders.go                         how a step begins, who does it, and how it ends
//	validate.go, bootagent.go, bootos.go, …     the steps
//	agents.go, inspect.go, phonehome.go         calls of agents and of deployed systems
//	operators.go, edits.go, retry.go            calls of operators
//	bmcs.go, command.go                         what BMCs report, and commands to them
//	snapshot.go, rules.go                       what others read of a machine, and why a request is refused
//	claim.go                                    which reported BMC addresses are accepted or proposed
//	strangers.go, admit.go, intake.go           bounds of strangers, and of calls at a time
package deploy
