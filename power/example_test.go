package power_test

import (
	"context"
	"fmt"

	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

// A machine boots from the network: off, boot device set and read back, on. The simulated BMC forgets
// overrides for one boot, so the override becomes persistent.
func Example() {
	ctx, pace := context.Background(), powertest.Fast
	bmc := &powertest.BMC{Quirks: powertest.Forgetful}
	if err := power.Off(ctx, bmc, pace); err != nil {
		fmt.Println(err)
		return
	}
	stands, err := power.AssertBoot(ctx, bmc, power.Boot{Device: power.DevicePXE}, pace)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(stands)
	fmt.Println(power.On(ctx, bmc, pace))
	// Output:
	// pxe persistent
	// <nil>
}
