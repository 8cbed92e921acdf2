package apitest

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// asksBMC says why a machine's BMC cannot be asked.
func asksBMC(m inventory.Machine) error { return deploy.Wish{BMC: true}.Refused(m, nil) }

func (f *Fleet) Power(_ context.Context, actor, ref string, a power.Action) (inventory.Power, error) {
	m, err := f.change("Power", actor, ref, func(m *inventory.Machine) error {
		if err := asksBMC(*m); err != nil {
			return err
		}
		if m.State == inventory.Deploying || m.State == inventory.Cleaning {
			return &inventory.Problem{
				Code:   inventory.CodeConflict,
				Detail: fmt.Sprintf("%s is being deployed (%s), and its power with it", m.Name, m.Deployment),
				Hint:   "run `pxectl deployment cancel " + string(m.Deployment) + "` first",
			}
		}
		m.Power = inventory.Power{Known: true, On: a != power.ActOff && a != power.ActSoft, ObservedAt: Epoch}
		return nil
	})
	return m.Power, err
}

func (f *Fleet) PowerStatus(_ context.Context, ref string) (inventory.Power, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.findLocked("PowerStatus", ref)
	if err != nil {
		return inventory.Power{}, err
	}
	return m.Power, asksBMC(*m)
}

func (f *Fleet) BootDevice(_ context.Context, ref string) (power.Boot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.findLocked("Boot", ref)
	if err != nil {
		return power.Boot{}, err
	}
	if err := asksBMC(*m); err != nil {
		return power.Boot{}, err
	}
	b, ok := f.boot[m.ID]
	if !ok {
		b.Device = power.DeviceNone
	}
	return b, nil
}

func (f *Fleet) SetBootDevice(_ context.Context, actor, ref string, b power.Boot) (power.Boot, error) {
	_, err := f.change("SetBootDevice", actor, ref, func(m *inventory.Machine) error {
		if err := asksBMC(*m); err != nil {
			return err
		}
		f.boot[m.ID] = b
		return nil
	})
	return b, err
}

// Console greets and then sends back what it gets, in upper case. "logout" ends it.
func (f *Fleet) Console(_ context.Context, actor, ref string, in io.Reader, out io.Writer) error {
	m, err := f.change("Console", actor, ref, func(m *inventory.Machine) error { return asksBMC(*m) })
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "%s login: ", m.Name); err != nil {
		return err
	}
	buf := make([]byte, 1024)
	for {
		n, err := in.Read(buf)
		if err != nil {
			return nil
		}
		if _, err := io.WriteString(out, strings.ToUpper(string(buf[:n]))); err != nil {
			return err
		}
		if strings.Contains(string(buf[:n]), "logout") {
			return nil
		}
	}
}
