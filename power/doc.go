// Package power reads and changes a machine's power and its next boot device, and attaches to its serial
// console, through the machine's management controller (BMC). The interfaces are small so that a driver is
// small. What every caller needs on top is written once, for all drivers: Off and On believe the power only
// when two readings in a row agree, and AssertBoot reads the boot device back.
//
// The package speaks no protocol and keeps no state: power/ipmi is the driver for IPMI 2.0, and
// power/powertest is the suite that every driver passes.
package power
