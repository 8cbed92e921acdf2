package ipmi

import (
	"context"
	"fmt"
	"time"

	"github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/power"
)

// Boot option parameters, IPMI 2.0 table 28-14.
const (
	paramSetInProgress = 0
	paramKeepValid     = 3
	paramAcknowledge   = 4
	paramBootFlags     = 5
)

// Boot flags, parameter 5: byte 1 and the device selector in bits 5 to 2 of byte 2.
const (
	flagValid      = 0x80
	flagPersistent = 0x40
	flagEFI        = 0x20
	selectorMask   = 0x3c
)

var selectors = map[power.Device]byte{
	power.DevicePXE:   0x04,
	power.DeviceDisk:  0x08,
	power.DeviceCDROM: 0x14,
	power.DeviceBIOS:  0x18,
}

// bootFlags returns the five bytes of parameter 5 for b.
func bootFlags(b power.Boot) ([5]byte, error) {
	if b.Device == power.DeviceNone {
		return [5]byte{}, nil // not valid: no override
	}
	selector, ok := selectors[b.Device]
	if !ok {
		return [5]byte{}, fmt.Errorf("boot device %q: %w", b.Device, power.ErrUnsupported)
	}
	flags := [5]byte{flagValid, selector}
	if b.Persistent {
		flags[0] |= flagPersistent
	}
	if b.EFI {
		flags[0] |= flagEFI
	}
	return flags, nil
}

// parseBootOptions reads the answer to Get System Boot Options for parameter 5 (section 28.13):
// version, parameter, and the flags, of which some BMCs send fewer than five bytes.
func parseBootOptions(data []byte) (power.Boot, error) {
	if len(data) < 4 {
		return power.Boot{}, fmt.Errorf("boot flags: %d bytes, want 7", len(data))
	}
	if p := data[1] & 0x7f; p != paramBootFlags {
		return power.Boot{}, fmt.Errorf("boot flags: answer is of parameter %d, want %d", p, paramBootFlags)
	}
	flags, selector := data[2], data[3]&selectorMask
	if flags&flagValid == 0 || selector == 0 {
		return power.Boot{Device: power.DeviceNone}, nil
	}
	b := power.Boot{Device: power.DeviceOther, Persistent: flags&flagPersistent != 0, EFI: flags&flagEFI != 0}
	for device, s := range selectors {
		if s == selector {
			b.Device = device
		}
	}
	return b, nil
}

func (c *controller) Boot(ctx context.Context) (power.Boot, error) {
	var b power.Boot
	err := c.talk(ctx, "read boot device", func(ctx context.Context, session *client.Client) error {
		answer, err := session.RawCommand(ctx, types.NetFnChassisRequest, 0x09, []byte{paramBootFlags, 0, 0},
			"Get System Boot Options")
		if err != nil {
			return err
		}
		b, err = parseBootOptions(answer.Response)
		return err
	})
	return b, err
}

func (c *controller) SetBoot(ctx context.Context, b power.Boot) error {
	doing := "set boot device " + string(b.Device)
	flags, err := bootFlags(b)
	if err != nil {
		return c.fail(doing, err)
	}
	return c.talk(ctx, doing, func(ctx context.Context, session *client.Client) (err error) {
		set := func(param byte, data ...byte) error {
			_, err := session.RawCommand(ctx, types.NetFnChassisRequest, 0x08, append([]byte{param}, data...),
				"Set System Boot Options")
			return err
		}
		// Parameters 0, 3 and 4 are optional and often refused; only silence is an error.
		took := func(param byte, data ...byte) (bool, error) {
			err := set(param, data...)
			if _, answered := types.IsResponseError(err); answered {
				return false, nil
			}
			return err == nil, err
		}
		begun, err := begin(ctx, set, 4*c.driver.backoff())
		if err != nil {
			return err
		}
		if begun {
			defer func() { // 0 is "complete"; without it, the BMC may refuse the next client
				if _, end := took(paramSetInProgress, 0); err == nil {
					err = end
				}
			}()
		}
		// Bit 3: keep the flags when no power command comes within 60 s.
		if _, err := took(paramKeepValid, 0x08); err != nil {
			return err
		}
		if _, err := took(paramAcknowledge, 0x01, 0x01); err != nil { // the BIOS has not handled these yet
			return err
		}
		if err := set(paramBootFlags, flags[:]...); err != nil {
			return err
		}
		if begun {
			_, err = took(paramSetInProgress, 2) // commit, for the BMCs that keep changes until then
		}
		return err
	})
}

// begin tells the BMC that boot options are being set, which not every BMC supports. When another client is
// setting them, or died while it did, begin waits once, and then ends what that client began.
func begin(
	ctx context.Context, set func(param byte, data ...byte) error, patience time.Duration,
) (begun bool, err error) {
	for try := range 3 {
		err := set(paramSetInProgress, 1)
		code, answered := types.IsResponseError(err)
		switch {
		case err == nil:
			return true, nil
		case !answered:
			return false, err
		case code.CompletionCode() != 0x81: // table 28-12: set in progress is not "complete"
			return false, nil
		case try == 0:
			err = sleep.For(ctx, patience)
		case try == 1:
			if err = set(paramSetInProgress, 0); err != nil {
				if _, answered := types.IsResponseError(err); answered {
					return false, nil
				}
			}
		default:
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}
