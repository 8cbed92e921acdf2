// Package console watches serial consoles and shares them.
//
// A BMC gives its console to one session at a time. While a machine boots, a Watcher holds that session,
// makes lines of plain text of what the machine says, and reports lines that complain. When an operator wants
// the console, the Watcher ends its session, reads along with the operator's, and takes the console back
// afterwards.
//
// It does not know which lines complain: the caller tells it. Drivers of power open the session itself.
package console
