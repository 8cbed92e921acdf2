// Package lan is the UDP connection to a BMC that the IPMI driver gives to go-ipmi. It reads every datagram
// before the library does, and lets through only what the BMC itself said, of a length that the library can
// read.
//
// The library believes what it gets: it takes the algorithms that a BMC answers with, does not look at
// AuthCodes and sequence numbers of what it receives, and slices before it has looked at lengths, in
// goroutines of its own where a panic ends the program. So here, by sections of the IPMI 2.0 specification,
// revision 1.1:
//
//   - Outside a session only the answer to the message that was sent last is let through (13.17 to 13.23): its payload
//     type, its message tag and the console's session id, both chosen at random. RAKP 2 must prove that the BMC knows the
//     password, and RAKP 4 that it has the session's key.
//   - The algorithms of the Open Session Response are those that were asked for (13.18), and only those of cipher suites 17
//     and 3 are asked for (22.15.2): both have integrity and encryption.
//   - In the session a packet is authenticated and encrypted (13.6), its AuthCode fits (13.28.4), its sequence number
//     was not there before (6.12.13), and what is decrypted, which is nothing before, is padded well (13.29).
//   - All else is dropped, as if it had not come. An answer that would end the login may be anybody's: it counts only
//     when no better one follows within a moment.
package lan
