// Package download reads one file over http or https as a stream that survives cut, stalled and
// trickling connections: it asks for the rest with Range (RFC 9110 section 14) and holds every
// answer against the first one, so that bytes of two versions of a file are never joined.
//
// It is for a file from somebody else's server, read once from its beginning to its end. Package
// images fetches chunks from the appliance, whose hashes it knows.
package download
