package powertest

import (
	"testing"

	"github.com/pxectl/pxectl/power"
)

func TestBMC(t *testing.T) {
	for name, quirks := range map[string]Quirks{
		"obedient":    {},
		"slow status": SlowStatus,
		"mute":        Mute,
	} {
		t.Run(name, func(t *testing.T) {
			Run(t, func(testing.TB) (power.BMC, Rig) {
				b := &BMC{Quirks: quirks}
				rig := Rig{
					On: b.On, Set: b.Set, Restarts: b.Restarts, Override: b.Override,
					WrongPassword: func() power.BMC { return &BMC{Quirks: Quirks{Refuses: true}} },
					Silent:        func() power.BMC { return &BMC{Quirks: Quirks{Silent: true}} },
				}
				if quirks.DropsBoot {
					rig.LosesBootFlags = "told to"
				}
				return b, rig
			})
		})
	}
}
