// Package inventory defines the words of the product: Machine, NIC, Disk, BMC, Deployment, Event, the agent's
// reports and orders, and the rules for these words alone (names, MAC addresses, disk choice).
//
// It does no I/O and keeps nothing: inventory/boltdb does. Its JSON names lie on disk and go over the wire,
// so they change only with a migration.
package inventory
