// Package ipmi is the power driver for IPMI 2.0 over LAN (RMCP+, UDP port 623), on bougou/go-ipmi.
//
// Each call is one conversation: open a session, send the commands, close the session. BMCs have a handful of
// session slots and forget idle sessions, so no session is kept open, and one target has one conversation at
// a time however many goroutines ask. A console has a session of its own, which lasts as long as the console.
// So has a listener, which loses the console to any other session that wants it.
//
// Section numbers are those of the IPMI 2.0 specification, revision 1.1 with errata 7. What is sent:
//
//   - Get Channel Authentication Capabilities (22.13), RMCP+ Open Session and RAKP 1 to 4 (13.17 to 13.24),
//     Set Session Privilege Level (22.18), Close Session (22.19). The level is Operator, which Chassis
//     Control and the boot options need (appendix G). For the console it is the lowest that works of User,
//     Operator and Administrator. The driver tries cipher suite 17, then 3, and remembers the one that
//     worked. It does not ask for the BMC's suites (22.15): some BMCs never answer that outside a session,
//     and weak suites are not wanted.
//   - Get Chassis Status (28.2) and Chassis Control (28.3).
//   - Set and Get System Boot Options (28.12, 28.13), as raw bytes, so that what is compared is what the BMC
//     said. To set: parameter 0 (set in progress) when the BMC has it, parameter 3 (do not forget the flags
//     after 60 s) and 4 (boot info acknowledge) if it takes them, then parameter 5, the boot flags; then
//     commit and complete. To clear: parameter 5 with the valid bit off, which is not the same as
//     "no override" with the valid bit on.
//   - Activate and Deactivate Payload (24.1, 24.2) and SOL (chapter 15) for the console.
//
// What BMCs do that the specification does not say, and what happens here:
//
//   - Some refuse "off" when the machine is off: the driver reads the power again, and it is a success when
//     that is what was wanted.
//   - "Node busy", "timeout", "out of space" and "initialisation in progress" (0xC0, 0xC3, 0xC4, 0xD2), and
//     "insufficient resources" for a session, mean later: the driver tries four more times, and waits twice
//     as long each time.
//   - A wrong password shows as a RAKP 2 code that does not verify (the BMC proves itself first). Some BMCs
//     lock a user after a few of those: after two, the driver does not try the same user and password on
//     that target for five minutes.
//   - A legacy boot flag moves some machines into BIOS emulation, so an override for UEFI has the EFI bit
//     with every device, also for disk and setup.
//   - Some drop a boot flag, or keep it only when it is persistent: power.AssertBoot reads it back, sets it
//     again, and then sets it persistently.
//   - A BMC that shares a NIC with its machine goes silent when power changes: power.Off and power.On wait
//     for it; here it is ErrSilent after about two seconds.
//
// The library gets its connection from package lan, which lets through only what the BMC itself sent.
//
// The package does not do IPMI 1.5, users, sensors or the event log.
package ipmi
