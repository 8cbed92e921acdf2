// Package diagnose says how far a machine came, why not further, and what to do next.
//
// Its functions are pure: they read a machine, its last deployment and its timeline, and return a sentence,
// the next move and the events that show it. The boot plane and the consoles write those events; the keys of
// their data are in inventory/event.go.
package diagnose
