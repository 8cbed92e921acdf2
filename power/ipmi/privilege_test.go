package ipmi

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/pxectl/pxectl/power"
)

// A console is opened with the lowest privilege level that the BMC accepts, and the next console begins with
// that level.
func TestConsoleAsksForTheLowestPrivilege(t *testing.T) {
	t.Parallel()
	for _, level := range levels {
		t.Run(level.String(), func(t *testing.T) {
			r := newRack(t, "127.0.0.1:0")
			// Section 26.2, parameter 2: payloads are encrypted and signed, and who may activate SOL.
			if code := r.bmc.SOL.Config().SetParam(2, []byte{0xc0 | byte(level)}); code != types.CodeOK {
				t.Fatal(code)
			}
			a := newAttacker(t, r.addr, func(d []byte) [][]byte { return [][]byte{d} })
			console := a.open(t, admin).(power.Console)
			var asked []types.PrivilegeLevel
			for range 2 {
				if err := console.Console(t.Context(), strings.NewReader("x"), io.Discard); err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range a.sent(types.PayloadTypeRAKPMessage1) {
				asked = append(asked, types.PrivilegeLevel(p[24]&0x0f))
			}
			want := append(slices.Clone(levels[:slices.Index(levels, level)+1]), level)
			if !slices.Equal(asked, want) {
				t.Errorf("privilege levels that were asked for = %v, want %v", asked, want)
			}
		})
	}
}

func TestPowerAsksForAnOperatorsPrivilege(t *testing.T) {
	t.Parallel()
	r := newRack(t, "127.0.0.1:0")
	a := newAttacker(t, r.addr, func(d []byte) [][]byte { return [][]byte{d} })
	b := a.open(t, admin)
	if err := b.Do(t.Context(), power.ActOn); err != nil {
		t.Fatal(err)
	}
	if err := b.SetBoot(t.Context(), power.Boot{Device: power.DevicePXE}); err != nil {
		t.Fatal(err)
	}
	for _, p := range a.sent(types.PayloadTypeRAKPMessage1) {
		if level := types.PrivilegeLevel(p[24] & 0x0f); level != types.PrivilegeLevelOperator {
			t.Errorf("privilege level %v was asked for, want Operator", level)
		}
	}
}
