package nocloud

import (
	"bytes"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/pxectl/pxectl/inventory"
)

// An Instance is what one deployment tells cloud-init.
type Instance struct {
	ID        string // cloud-init does nothing at a boot whose instance-id it knows
	Hostname  string
	SSHKeys   []string      // lines of authorized_keys
	UserData  []byte        // as the operator gave it, compressed or not
	Network   string        // network-config, or "" for DHCP on the boot NIC
	BootMAC   inventory.MAC // "" when it is not known
	PhoneHome string        // the URL that the system calls when it runs
}

// emptyUserData is what cloud-init wants when there is none: the file must exist.
const emptyUserData = "#cloud-config\n{}\n"

// Seed writes the files of the seed.
func (i Instance) Seed() (inventory.Seed, error) {
	var seed inventory.Seed
	meta := mapping("instance-id", text(i.ID), "local-hostname", text(i.Hostname))
	if len(i.SSHKeys) > 0 {
		meta.Content = append(meta.Content, plain("public-keys"), list(i.SSHKeys...))
	}
	// In vendor-data, so that the operator's user-data stays as it is; a phone_home there wins, and then the
	// deployment ends unverified.
	vendor := mapping("phone_home",
		mapping("url", text(i.PhoneHome), "post", list("instance_id", "hostname"), "tries", plain("20")))
	// By MAC: interface names differ between the ramdisk's kernel and the image's, and cloud-init's networkd
	// renderer does not honour a match by name.
	network := mapping("version", plain("2"), "ethernets", mapping("boot", mapping(
		"match", mapping("macaddress", text(string(i.BootMAC))), "dhcp4", plain("true"))))
	for _, file := range []struct {
		to   *string
		head string
		of   *yaml.Node
	}{
		{&seed.MetaData, "", meta},
		{&seed.VendorData, "#cloud-config\n", vendor},
		{&seed.NetworkConfig, "", network},
	} {
		body, err := yaml.Marshal(file.of)
		if err != nil {
			return inventory.Seed{}, err
		}
		*file.to = file.head + string(body)
	}
	switch {
	case strings.TrimSpace(i.Network) != "":
		seed.NetworkConfig = i.Network
	case i.BootMAC == "":
		seed.NetworkConfig = ""
	}
	seed.UserData = i.UserData
	if len(bytes.TrimSpace(seed.UserData)) == 0 {
		seed.UserData = []byte(emptyUserData)
	}
	return seed, nil
}

// text is a string that comes from data. It is always quoted: YAML 1.1 takes 52:54:00:12:34:56 for a number
// in base 60, and "no" for false.
func text(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: s}
}

// plain is a number, a truth value or a key of ours.
func plain(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

func list(of ...string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for _, s := range of {
		n.Content = append(n.Content, text(s))
	}
	return n
}

// mapping takes keys and values in turn.
func mapping(keysAndValues ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, v := range keysAndValues {
		if key, ok := v.(string); ok {
			v = plain(key)
		}
		n.Content = append(n.Content, v.(*yaml.Node))
	}
	return n
}
