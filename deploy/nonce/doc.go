// Package nonce issues the secret of one network boot of one machine, and verifies it.
//
// A nonce is signed and not stored. So the handler of boot scripts issues one without touching the store, and
// one that was issued just before a crash still counts after it.
//
// Nonces are ordered by number and aged by how long the appliance has run. The time of day decides nothing: a
// clock that was ahead and is corrected would let nonces outlive a power-off, or refuse fresh ones.
package nonce
