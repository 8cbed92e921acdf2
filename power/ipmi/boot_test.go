package ipmi

import (
	"errors"
	"testing"

	"github.com/pxectl/pxectl/power"
)

// The bytes are those that ipmitool 1.8.19 sends for the same device and options.
func TestBootFlags(t *testing.T) {
	for _, c := range []struct {
		boot power.Boot
		want [5]byte
	}{
		{power.Boot{Device: power.DeviceNone}, [5]byte{}},
		{power.Boot{Device: power.DevicePXE}, [5]byte{0x80, 0x04}},
		{power.Boot{Device: power.DevicePXE, Persistent: true}, [5]byte{0xc0, 0x04}},
		{power.Boot{Device: power.DevicePXE, EFI: true}, [5]byte{0xa0, 0x04}},
		{power.Boot{Device: power.DevicePXE, Persistent: true, EFI: true}, [5]byte{0xe0, 0x04}},
		{power.Boot{Device: power.DeviceDisk, EFI: true}, [5]byte{0xa0, 0x08}},
		{power.Boot{Device: power.DeviceCDROM}, [5]byte{0x80, 0x14}},
		{power.Boot{Device: power.DeviceBIOS, EFI: true}, [5]byte{0xa0, 0x18}},
	} {
		got, err := bootFlags(c.boot)
		if err != nil || got != c.want {
			t.Errorf("bootFlags(%s) = %x, %v, want %x", c.boot, got, err, c.want)
		}
		back, err := parseBootOptions(append([]byte{1, 5}, got[:]...))
		if err != nil || back != c.boot {
			t.Errorf("parseBootOptions of %x = %s, %v, want %s", got, back, err, c.boot)
		}
	}
	if _, err := bootFlags(power.Boot{Device: power.DeviceOther}); !errors.Is(err, power.ErrUnsupported) {
		t.Errorf("bootFlags(other) = %v, want ErrUnsupported", err)
	}
}

func TestParseBootOptions(t *testing.T) {
	none := power.Boot{Device: power.DeviceNone}
	for _, c := range []struct {
		name string
		data []byte
		want power.Boot
		err  bool
	}{
		{"valid bit off", []byte{1, 5, 0x60, 0x04, 0, 0, 0}, none, false},
		{"valid, no override", []byte{1, 5, 0x80, 0, 0, 0, 0}, none, false},
		{
			"only two bytes of flags",
			[]byte{1, 5, 0xa0, 0x04},
			power.Boot{Device: power.DevicePXE, EFI: true},
			false,
		},
		{
			"parameter locked",
			[]byte{1, 0x85, 0x80, 0x04, 0, 0, 0},
			power.Boot{Device: power.DevicePXE},
			false,
		},
		{
			"other bits of byte 2",
			[]byte{1, 5, 0x80, 0xc7, 0, 0, 0},
			power.Boot{Device: power.DevicePXE},
			false,
		},
		{"floppy", []byte{1, 5, 0x80, 0x3c, 0, 0, 0}, power.Boot{Device: power.DeviceOther}, false},
		{"another parameter", []byte{1, 4, 0x80, 0x04}, power.Boot{}, true},
		{"short", []byte{1, 5, 0x80}, power.Boot{}, true},
		{"empty", nil, power.Boot{}, true},
	} {
		got, err := parseBootOptions(c.data)
		if got != c.want || (err != nil) != c.err {
			t.Errorf("%s: parseBootOptions(%x) = %s, %v, want %s", c.name, c.data, got, err, c.want)
		}
	}
}

func FuzzParseBootOptions(f *testing.F) {
	f.Add([]byte{1, 5, 0xe0, 0x04, 0, 0, 0})
	f.Add([]byte{1, 0x85, 0xa0, 0x24, 0, 0, 0})
	f.Add([]byte{1, 5})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseBootOptions(data)
		if err != nil || b.Device == power.DeviceOther {
			return
		}
		flags, err := bootFlags(b)
		if err != nil {
			t.Fatalf("parseBootOptions(%x) = %s, of which bootFlags says %v", data, b, err)
		}
		if again, err := parseBootOptions(append([]byte{1, 5}, flags[:]...)); err != nil || again != b {
			t.Fatalf("parseBootOptions(%x) = %s, and of its own bytes %x %s, %v", data, b, flags, again, err)
		}
	})
}
