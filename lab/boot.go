package lab

import "github.com/bougou/go-ipmi/pkg/types"

// A bootDevice is what a machine tries first.
type bootDevice string

const (
	bootPXE  bootDevice = "pxe"
	bootDisk bootDevice = "disk"

	// factoryBoot is the order of a machine as delivered: network, then disk.
	factoryBoot = bootPXE
)

// bootState is a machine's own boot order and the BMC's wish for the coming boot.
type bootState struct {
	Own   bootDevice                      // the firmware's setting
	Flags types.BootOptionParam_BootFlags // IPMI 2.0 table 28-14, parameter 5
}

// next is what the coming boot tries first.
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

// booted is the state once the firmware has started a boot: a wish for one boot is used up
// and its flags are cleared, a persistent one has become the firmware's setting and can
// still be read back.
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
