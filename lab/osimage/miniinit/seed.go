package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// A Seed is the parsed NoCloud seed, from its four files.
type Seed struct {
	InstanceID string
	Hostname   string // short
	FQDN       string
	PhoneHome  *PhoneHome
	Network    []Interface
	Warnings   []string // what was ignored, and why
}

// PhoneHome is the configuration of cc_phone_home.
type PhoneHome struct {
	URL   string
	Post  []string // names of fields, in order; all of them for "all"
	Tries int
}

// An Interface is the configuration of a NIC. Without any, each NIC asks by DHCP.
type Interface struct {
	MAC       string // "" for any
	DHCP      bool
	Addresses []netip.Prefix
	Gateway   netip.Addr
}

// maxSeedFile bounds a file of the seed; the partition has 4 MiB.
const maxSeedFile = 1 << 20

func readSeed(dir fs.FS) (Seed, error) {
	read := func(name string, required bool) ([]byte, error) {
		f, err := dir.Open(name)
		if errors.Is(err, fs.ErrNotExist) && !required {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("seed: %w", err)
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("seed: %w", err)
		}
		if st.Size() > maxSeedFile {
			return nil, fmt.Errorf("seed: %s has %d bytes, at most %d", name, st.Size(), maxSeedFile)
		}
		return fs.ReadFile(dir, name)
	}
	// NoCloud requires these two; the others are optional.
	meta, err := read("meta-data", true)
	if err != nil {
		return Seed{}, err
	}
	user, err := read("user-data", true)
	if err != nil {
		return Seed{}, err
	}
	vendor, err := read("vendor-data", false)
	if err != nil {
		return Seed{}, err
	}
	network, err := read("network-config", false)
	if err != nil {
		return Seed{}, err
	}
	return parseSeed(meta, user, vendor, network)
}

type cloudConfig struct {
	Hostname  string         `yaml:"hostname"`
	FQDN      string         `yaml:"fqdn"`
	PhoneHome map[string]any `yaml:"phone_home"`
}

func parseSeed(meta, user, vendor, network []byte) (Seed, error) {
	var m struct {
		InstanceID    string `yaml:"instance-id"`
		LocalHostname string `yaml:"local-hostname"`
	}
	if err := yaml.Unmarshal(meta, &m); err != nil {
		return Seed{}, fmt.Errorf("seed: meta-data: %w", err)
	}
	if m.InstanceID == "" {
		return Seed{}, errors.New("seed: meta-data: no instance-id")
	}
	s := Seed{InstanceID: m.InstanceID}
	// User-data overrides vendor-data, key by key.
	var c cloudConfig
	for _, file := range []struct {
		name string
		text []byte
	}{{"vendor-data", vendor}, {"user-data", user}} {
		over, err := parseCloudConfig(file.text)
		if err != nil {
			s.Warnings = append(s.Warnings, file.name+": "+err.Error())
			continue
		}
		if over.Hostname != "" {
			c.Hostname = over.Hostname
		}
		if over.FQDN != "" {
			c.FQDN = over.FQDN
		}
		if over.PhoneHome != nil {
			c.PhoneHome = over.PhoneHome
		}
	}
	// cloud-init's get_hostname_fqdn: an fqdn names both; then hostname; then the data source.
	full := firstOf(c.FQDN, c.Hostname, m.LocalHostname, "localhost")
	s.Hostname, _, _ = strings.Cut(firstOf(c.Hostname, full), ".")
	s.FQDN = full
	if len(s.Hostname) > 64 || strings.ContainsAny(s.Hostname, " \t\r\n/\x00\x1b") || s.Hostname == "" {
		return Seed{}, fmt.Errorf("seed: hostname %+q is not one", s.Hostname)
	}
	if c.PhoneHome != nil {
		p, err := parsePhoneHome(c.PhoneHome)
		if err != nil {
			s.Warnings = append(s.Warnings, "phone_home: "+err.Error())
		} else {
			p.URL = strings.NewReplacer("${INSTANCE_ID}", s.InstanceID,
				"$INSTANCE_ID", s.InstanceID).Replace(p.URL)
			s.PhoneHome = &p
		}
	}
	var err error
	if s.Network, err = parseNetwork(network); err != nil {
		return Seed{}, fmt.Errorf("seed: network-config: %w", err)
	}
	return s, nil
}

func parseCloudConfig(text []byte) (cloudConfig, error) {
	var c cloudConfig
	if len(strings.TrimSpace(string(text))) == 0 {
		return c, nil
	}
	first, _, _ := strings.Cut(string(text), "\n")
	if strings.TrimSpace(first) != "#cloud-config" {
		return c, fmt.Errorf("passed over: it begins with %+.30q, and only #cloud-config is known here",
			first)
	}
	err := yaml.Unmarshal(text, &c)
	return c, err
}

// parsePhoneHome reads the module's keys as it does: post is "all" or a list of fields, and tries that is no
// number means 10.
func parsePhoneHome(m map[string]any) (PhoneHome, error) {
	p := PhoneHome{Post: postFields, Tries: 10}
	p.URL, _ = m["url"].(string)
	if p.URL == "" {
		return p, errors.New("no url")
	}
	if list, ok := m["post"].([]any); ok {
		p.Post = nil
		for _, f := range list {
			p.Post = append(p.Post, fmt.Sprint(f))
		}
	}
	if n, err := strconv.Atoi(fmt.Sprint(m["tries"])); err == nil && n > 0 {
		p.Tries = min(n, 1000)
	}
	return p, nil
}

type netplan struct {
	Version   int `yaml:"version"`
	Ethernets map[string]struct {
		Match struct {
			MAC string `yaml:"macaddress"`
		} `yaml:"match"`
		DHCP4     bool     `yaml:"dhcp4"`
		Addresses []string `yaml:"addresses"`
		Gateway4  string   `yaml:"gateway4"`
		Routes    []struct {
			To  string `yaml:"to"`
			Via string `yaml:"via"`
		} `yaml:"routes"`
	} `yaml:"ethernets"`
}

// parseNetwork reads network-config version 2, at the top or below the key "network".
func parseNetwork(text []byte) ([]Interface, error) {
	if len(strings.TrimSpace(string(text))) == 0 {
		return nil, nil
	}
	var file struct {
		Network *netplan `yaml:"network"`
	}
	var n netplan
	err := yaml.Unmarshal(text, &file)
	if err == nil && file.Network == nil {
		err = yaml.Unmarshal(text, &n)
	} else if err == nil {
		n = *file.Network
	}
	if err != nil {
		return nil, err
	}
	if n.Version != 2 {
		return nil, fmt.Errorf("version %d, and only version 2 is known here", n.Version)
	}
	var out []Interface
	for id, e := range n.Ethernets {
		i := Interface{MAC: strings.ToLower(e.Match.MAC), DHCP: e.DHCP4}
		for _, a := range e.Addresses {
			p, err := netip.ParsePrefix(a)
			if err != nil {
				return nil, fmt.Errorf("%s: addresses: %w", id, err)
			}
			i.Addresses = append(i.Addresses, p)
		}
		gateway := e.Gateway4
		for _, r := range e.Routes {
			if r.To == "default" || r.To == "0.0.0.0/0" {
				gateway = r.Via
			}
		}
		if gateway != "" {
			g, err := netip.ParseAddr(gateway)
			if err != nil {
				return nil, fmt.Errorf("%s: gateway: %w", id, err)
			}
			i.Gateway = g
		}
		out = append(out, i)
	}
	return out, nil
}

func firstOf(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}
