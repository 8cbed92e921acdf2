// Package direction tests the import directions of the module: which package may import which. Imports point
// downward, so that a package can be read, tested and used without those above it. No program imports this
// package.
package direction
