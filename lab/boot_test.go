package lab

import (
	"testing"

	"github.com/bougou/go-ipmi/pkg/types"
)

func TestBootOrder(t *testing.T) {
	flags := func(b0, b1 byte) (f types.BootOptionParam_BootFlags) {
		if err := f.Unpack([]byte{b0, b1, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		return f
	}
	tests := []struct {
		name  string
		state bootState
		first bootDevice // of the next boot
		then  bootDevice // of the one after it
		keeps byte       // first byte of the flags in between
	}{
		{name: "as delivered", state: bootState{Own: bootPXE}, first: bootPXE, then: bootPXE},
		{name: "disk once", state: bootState{bootPXE, flags(0x80, 0x08)}, first: bootDisk, then: bootPXE},
		{
			name:  "disk once, EFI",
			state: bootState{bootPXE, flags(0xa0, 0x08)},
			first: bootDisk,
			then:  bootPXE,
		},
		{
			name:  "safe-mode disk once",
			state: bootState{bootPXE, flags(0x80, 0x0c)},
			first: bootDisk,
			then:  bootPXE,
		},
		{
			name:  "network once, own order disk",
			state: bootState{bootDisk, flags(0x80, 0x04)},
			first: bootPXE,
			then:  bootDisk,
		},
		{
			name: "disk from now on", state: bootState{bootPXE, flags(0xc0, 0x08)}, first: bootDisk,
			then: bootDisk, keeps: 0xc0,
		},
		{
			name: "network from now on, EFI", state: bootState{bootDisk, flags(0xe0, 0x04)}, first: bootPXE,
			then: bootPXE, keeps: 0xe0,
		},
		{
			name: "not valid", state: bootState{bootPXE, flags(0x40, 0x08)}, first: bootPXE, then: bootPXE,
			keeps: 0x40,
		},
		{name: "no override", state: bootState{bootDisk, flags(0x80, 0x00)}, first: bootDisk, then: bootDisk},
		{
			name: "no override from now on", state: bootState{bootDisk, flags(0xc0, 0x00)}, first: bootPXE,
			then: bootPXE, keeps: 0xc0,
		},
		{
			name:  "CD-ROM, which it does not have",
			state: bootState{bootDisk, flags(0x80, 0x14)},
			first: bootDisk,
			then:  bootDisk,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.state.next(); got != tt.first {
				t.Errorf("first boot = %q, want %q", got, tt.first)
			}
			after := tt.state.booted()
			if got := after.next(); got != tt.then {
				t.Errorf("boot after that = %q, want %q", got, tt.then)
			}
			if got := after.Flags.Pack()[0]; got != tt.keeps {
				t.Errorf("flags byte 1 in between = %02x, want %02x", got, tt.keeps)
			}
		})
	}
}
