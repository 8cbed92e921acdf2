package disk

import "github.com/pxectl/pxectl/agent-ramdisk/blockdev"

// A Device is a disk to write an image to.
type Device struct{ *blockdev.Device }

// OpenDevice opens a whole disk exclusively: a disk that is mounted or held by another driver is busy.
func OpenDevice(path string) (*Device, error) {
	d, err := blockdev.Open(path)
	if err != nil {
		return nil, err
	}
	return &Device{d}, nil
}
