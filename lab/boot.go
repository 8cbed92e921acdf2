package lab

import "github.com/bougou/go-ipmi/pkg/types"

// A bootDevice is the first device in a boot order.
type bootDevice string

const (
	bootPXE  bootDevice = "pxe"
	bootDisk bootDevice = "disk"

	// factoryBoot is the boot order of a new machine: network, then disk.
	factoryBoot = bootPXE
)

// bootState is a machine's own boot order and the BMC's override for the next boot.
type bootState struct {
	Own   bootDevice                      // the firmware's setting
	Flags types.BootOptionParam_BootFlags // IPMI 2.0 table 28-14, parameter 5
}

// next is the first device of the next boot.
func (s bootState) next() bootDevice {
	if !s.Flags.BootFlagsValid {
		return s.Own
	}
	switch s.Flags.BootDeviceSelector {
	case types.BootDeviceSelectorForcePXE:
		return bootPXE
	case types.BootDeviceSelectorForceHardDrive, types.BootDeviceSelectorForceHardDriveSafe:
		return bootDisk
	case types.BootDeviceSelectorNoOverride:
		if s.Flags.Persist {
			return factoryBoot
		}
	}
	return s.Own // CD-ROM, floppy, set-up: this machine has none
}

// booted is the state after the firmware has started a boot. A one-time override is used up and its flags are
// cleared. A persistent one becomes the firmware's setting and can still be read back.
func (s bootState) booted() bootState {
	switch {
	case !s.Flags.BootFlagsValid:
	case s.Flags.Persist:
		s.Own = s.next()
	default:
		s.Flags = types.BootOptionParam_BootFlags{}
	}
	return s
}
