// Package lan is the UDP connection to a BMC that the IPMI driver gives to go-ipmi. It reads every datagram
// before the library does, and lets through only what the BMC itself sent, of a length that the library can
// read.
//
// The library trusts what it receives. It takes the algorithms that a BMC answers with, checks neither
// AuthCodes nor sequence numbers, and slices before it has checked lengths, in goroutines of its own where a
// panic ends the program. So this package checks, by sections of the IPMI 2.0 specification, revision 1.1:
//
//   - Outside a session only the answer to the message that was sent last is let through (13.17 to 13.23). It
//     must have the right payload type, message tag and session id of the console; the last two are random.
//     RAKP 2 must prove that the BMC knows the password, and RAKP 4 that it has the session's key.
//   - The algorithms of the Open Session Response must be those that were asked for (13.18). Only those of
//     cipher suites 17 and 3 are asked for (22.15.2): both have integrity and encryption.
//   - In the session a packet must be encrypted and authenticated (13.6), with the right AuthCode (13.28.4)
//     and a sequence number that has not come before (6.12.13). Only then is it decrypted, and its padding
//     must be right (13.29).
//   - All else is dropped, as if it had not come. Anybody may have sent an answer that would end the login:
//     it counts only when no better one follows within a moment.
package lan
