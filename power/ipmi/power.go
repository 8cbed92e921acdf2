package ipmi

import (
	"context"
	"fmt"

	"github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/command/chassis"
	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/pxectl/pxectl/power"
)

var controls = map[power.Action]chassis.ChassisControl{
	power.ActOn:    chassis.ChassisControlPowerUp,
	power.ActOff:   chassis.ChassisControlPowerDown,
	power.ActSoft:  chassis.ChassisControlSoftShutdown,
	power.ActCycle: chassis.ChassisControlPowerCycle,
	power.ActReset: chassis.ChassisControlHardReset,
}

func (c *controller) Power(ctx context.Context) (on bool, err error) {
	err = c.talk(ctx, "read power", func(ctx context.Context, session *client.Client) error {
		on, err = isOn(ctx, session)
		return err
	})
	return on && err == nil, err
}

func isOn(ctx context.Context, session *client.Client) (bool, error) {
	status, err := session.GetChassisStatus(ctx)
	if err != nil {
		return false, err
	}
	return status.PowerIsOn, nil
}

func (c *controller) Do(ctx context.Context, a power.Action) error {
	control, ok := controls[a]
	if !ok {
		return c.fail("power", fmt.Errorf("action %q: %w", a, power.ErrUnsupported))
	}
	return c.talk(ctx, "power "+string(a), func(ctx context.Context, session *client.Client) error {
		_, err := session.ChassisControl(ctx, control)
		if _, answered := types.IsResponseError(err); !answered || a == power.ActCycle ||
			a == power.ActReset {
			return err
		}
		// Some BMCs refuse to do what is done already.
		if on, readErr := isOn(ctx, session); readErr == nil && on == (a == power.ActOn) {
			return nil
		}
		return err
	})
}
