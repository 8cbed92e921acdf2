// Package direction holds the import directions of the module: which package may import which.
// They all point downward, so that a part can be read, tested and used without those above it.
// It is a table and a test, and nothing that a program imports.
package direction
