// Package boltdb keeps machines, deployments and events in one bbolt file.
//
// Every value is JSON behind a CRC-32C: bbolt has no page checksums, and a flipped bit must be an error and
// not another machine's disk. The whole interface is transactions (Update, View), so that a state and its
// event are written together or not at all.
package boltdb
