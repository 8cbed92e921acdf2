// Package timeline writes what happened to machines into the store, within bounds.
//
// Events arrive faster than a disk can write them, and anybody on the provisioning network can cause them. So
// they are queued, written in batches, and bounded in size. Those that repeat each other are one event with a
// count. Strangers have a queue of their own, so that their flood drops no event of a machine. How many
// events the store keeps is up to inventory/boltdb.
package timeline
