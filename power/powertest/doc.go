// Package powertest holds what tests of power need: Run, the one suite that every driver
// passes against a BMC it can really talk to, and BMC, a management controller with its machine in
// memory that misbehaves like named real ones, for the tests of those who use package power.
package powertest
