// Package power is what a machine's management controller (BMC) can do, in the words of
// the product: read and change the power, read and change the next boot device, attach to
// the serial console. The interfaces are small so that a driver is small; what every
// caller wants on top (believe "off" only when it was said twice, read the boot device back)
// is written once here, in Off, On and AssertBoot, and works with every driver.
//
// It speaks no protocol and keeps no state: power/ipmi is the driver for IPMI 2.0, and
// power/powertest is the suite that every driver passes.
package power
