package deploy

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/pxectl/pxectl/inventory"
)

// PhoneHome takes a deployed system's call, with the token from its seed. hostname is called only when the
// token is right, so that a stranger's body is not read.
func (e *Engine) PhoneHome(
	ctx context.Context, id inventory.DeploymentID, token, remoteIP string, hostname func() string,
) error {
	if !e.cfg.Key.IsPhoneHome(id, token) {
		return refused("phone-home: the token is not that deployment's", "")
	}
	d, err := e.Deployment(string(id))
	if err != nil {
		return err
	}
	w, err := e.find(string(d.Machine))
	if err != nil {
		return err
	}
	name := hostname() // here, since the machine's worker must not wait for it
	_, err = call(ctx, w, func() (struct{}, error) {
		s := w.snap.Load()
		if s.d == nil || s.d.ID != id {
			return struct{}{}, &inventory.Problem{
				Code: inventory.CodeConflict, Detail: "phone-home: the machine has been deployed again since",
			}
		}
		if !s.d.PhonedHomeAt.IsZero() && s.m.Interrupted == nil {
			return struct{}{}, nil // cloud-init repeats it when our answer was lost
		}
		return struct{}{}, w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
			if d.PhonedHomeAt.IsZero() {
				d.PhonedHomeAt = w.now()
			}
			m.Interrupted = nil
			if m.State == inventory.Deployed {
				m.Unverified = false
			}
			return []inventory.Event{
				{
					Kind: inventory.KindOS,
					Text: fmt.Sprintf("the system phoned home from %s as %s", remoteIP, name),
				},
			}
		})
	})
	return err
}

// phoneHomeURL is where a deployed system proves that it runs.
func phoneHomeURL(server netip.AddrPort, id inventory.DeploymentID, token string) string {
	return fmt.Sprintf("http://%s/phone-home/%s/%s", server, id, token)
}
