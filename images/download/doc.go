// Package download reads one file over http or https as a stream that survives cut, stalled and trickling
// connections. It asks for the rest with Range (RFC 9110 section 14) and compares every answer with the first
// one, so that it never joins bytes of two versions of a file.
//
// It is for a file from somebody else's server, read once from beginning to end. Package images fetches
// chunks from the appliance, whose hashes it knows.
package download
