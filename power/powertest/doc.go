// Package powertest is for tests of power. Run is the suite that every driver passes against a BMC that it
// can really talk to. BMC is a management controller with its machine, in memory, that misbehaves as named
// real ones do; packages that use power test with it.
package powertest
