// Package ipmi is the power driver for IPMI 2.0 over LAN (RMCP+, UDP port 623), on bougou/go-ipmi.
//
// Every call is one conversation: session, commands, close. BMCs have a handful of session slots and
// forget idle sessions, so nothing is kept open, and one target has one conversation at a time
// however many goroutines ask. A console has a session of its own, which lasts as long as the console; so has
// a listener, whose console goes to whoever else wants it.
//
// Section numbers are those of the IPMI 2.0 specification, revision 1.1 with errata 7. What is sent:
//
//   - Get Channel Authentication Capabilities (22.13), RMCP+ Open Session and RAKP 1 to 4 (13.17 to 13.24),
//     Set Session Privilege Level (22.18), Close Session (22.19). The level is Operator, which Chassis Control and the
//     boot options want (appendix G). For the console it is the lowest that works of User, Operator and Administrator.
//     Cipher suite 17, then 3, and the one that worked is remembered. Suites are not asked for (22.15):
//     outside a session some BMCs never answer that, and the weak ones are not wanted.
//   - Get Chassis Status (28.2) and Chassis Control (28.3).
//   - Set and Get System Boot Options (28.12, 28.13), as raw bytes, so that what is compared is
//     what the BMC said. To set: parameter 0 (set in progress) when the BMC has it, parameter 3 (do not
//     forget the flags after 60 s) and 4 (boot info acknowledge) if it takes them, then parameter 5, the boot
//     flags; then commit and complete. To clear: parameter 5 with the valid bit off, which is
//     not the same as "no override" with the valid bit on.
//   - Activate and Deactivate Payload (24.1, 24.2) and SOL (chapter 15) for the console.
//
// What BMCs do that the specification does not say, and what happens here:
//
//   - Off to a machine that is off is an error on some: the state is read again, and when it is
//     what was wanted that is success.
//   - "Node busy", "timeout", "out of space" and "initialisation in progress" (0xC0, 0xC3, 0xC4, 0xD2), and
//     "insufficient resources" for a session, mean later: four more tries, waiting twice as long each time.
//   - A wrong password shows as a RAKP 2 code that does not verify (the BMC proves itself first). Some BMCs
//     lock a user after a few of those: after two, the same user and password are not tried again on
//     that target for five minutes.
//   - A legacy boot flag moves some machines into BIOS emulation, so the EFI bit is sent with
//     every device, also for disk and setup.
//   - A boot flag may be dropped, or kept only when persistent: power.AssertBoot reads back, sets it again,
//     and then sets it persistently.
//   - A BMC that shares a NIC with its machine goes silent when power changes: power.Off and power.On
//     sit that out; here it is ErrSilent after about two seconds.
//
// The library gets its connection from package lan, which lets through only what the BMC itself said.
//
// It does not do IPMI 1.5, users, sensors or the event log.
package ipmi
