package deploy

import (
	"encoding/json"
	"fmt"

	"github.com/pxectl/pxectl/deploy/nocloud"
	"github.com/pxectl/pxectl/inventory"
)

// seed makes the NoCloud seed of the running deployment.
func (w *worker) seed() (inventory.Seed, error) {
	s := w.snap.Load()
	plain, err := w.e.cfg.Unseal(s.d.Secret)
	if err != nil {
		return inventory.Seed{}, fmt.Errorf("unseal the user-data: %w", err)
	}
	var sec secret
	if err := json.Unmarshal(plain, &sec); err != nil {
		return inventory.Seed{}, err
	}
	var mac inventory.MAC
	if s.m.Boot != nil {
		mac = s.m.Boot.MAC
	}
	return nocloud.Instance{
		ID: string(s.d.ID), Hostname: s.d.Hostname, SSHKeys: sec.SSHKeys, UserData: sec.UserData,
		Network: sec.Network, BootMAC: mac,
		PhoneHome: phoneHomeURL(w.server(), s.d.ID, w.e.cfg.Key.PhoneHomeToken(s.d.ID)),
	}.Seed()
}
