// Package inventory holds the words of the product: Machine, NIC, Disk, BMC,
// Deployment, Event, what the agent reports and what it is ordered to do, and the
// rules that belong to those words alone (names, MAC addresses, disk choice).
//
// It does no I/O and keeps nothing: inventory/boltdb does. The JSON names here are
// what lies on disk and goes over the wire, so they change only with a migration.
package inventory
