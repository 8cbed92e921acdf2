// Package appliance reads appliance.yaml, builds every part of pxectl and runs them together. It is the only
// package that knows all of them: leaves ask for what they need as functions, and here those functions are
// made.
package appliance
