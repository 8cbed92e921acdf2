package deploy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/pxectl/pxectl/inventory"
)

// emptyUserData is what cloud-init wants when there is none: the file must exist (NoCloud).
const emptyUserData = "#cloud-config\n{}\n"

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
	return makeSeed(*s.d, sec, mac, PhoneHomeURL(w.server(), s.d.ID, w.e.cfg.Key.PhoneHomeToken(s.d.ID)))
}

// PhoneHomeURL is where a deployed system proves that it runs.
func PhoneHomeURL(server netip.AddrPort, id inventory.DeploymentID, token string) string {
	return fmt.Sprintf("http://%s/phone-home/%s/%s", server, id, token)
}

// makeSeed writes the four files of the NoCloud data source. The instance-id is the deployment's, because cloud-init
// does nothing at a boot whose instance-id it knows.
func makeSeed(d inventory.Deployment, sec secret, bootMAC inventory.MAC, phoneHome string) (inventory.Seed, error) {
	meta := yaml.MapSlice{
		{Key: "instance-id", Value: string(d.ID)},
		{Key: "local-hostname", Value: d.Hostname},
	}
	if len(sec.SSHKeys) > 0 {
		meta = append(meta, yaml.MapItem{Key: "public-keys", Value: sec.SSHKeys})
	}
	metaData, err := yaml.Marshal(meta)
	if err != nil {
		return inventory.Seed{}, err
	}
	// In vendor-data, so that the operator's user-data stays as it is; a phone_home there wins, and then the
	// deployment ends unverified.
	vendor, err := yaml.Marshal(yaml.MapSlice{{Key: "phone_home", Value: yaml.MapSlice{
		{Key: "url", Value: phoneHome},
		{Key: "post", Value: []string{"instance_id", "hostname"}},
		{Key: "tries", Value: 20},
	}}})
	if err != nil {
		return inventory.Seed{}, err
	}
	seed := inventory.Seed{
		MetaData: string(metaData), UserData: sec.UserData, VendorData: "#cloud-config\n" + string(vendor), NetworkConfig: sec.Network,
	}
	if strings.TrimSpace(seed.UserData) == "" {
		seed.UserData = emptyUserData
	}
	if strings.TrimSpace(seed.NetworkConfig) == "" && bootMAC != "" {
		// By MAC: interface names differ between the ramdisk's kernel and the image's, and cloud-init's networkd
		// renderer does not honour a match by name.
		network, err := yaml.Marshal(yaml.MapSlice{
			{Key: "version", Value: 2},
			{Key: "ethernets", Value: yaml.MapSlice{{Key: "boot", Value: yaml.MapSlice{
				{Key: "match", Value: yaml.MapSlice{{Key: "macaddress", Value: string(bootMAC)}}},
				{Key: "dhcp4", Value: true},
			}}}},
		})
		if err != nil {
			return inventory.Seed{}, err
		}
		seed.NetworkConfig = string(network)
	}
	return seed, nil
}
