package lab

import (
	"fmt"
	"os"
	"path/filepath"
)

// site is the network before we come: the DHCP server, which we may not touch and which has no boot options,
// and a router that announces itself, since without any router iPXE waits 13 s for one.
func site(c Config) ([]service, error) {
	pid := filepath.Join(c.Dir, "dnsmasq.pid")
	dnsmasq := service{name: "dnsmasq", log: filepath.Join(c.Dir, "dnsmasq.log"), ready: pid, argv: []string{
		"ip", "netns", "exec", siteNS, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null",
		"--user=root", "--log-facility=-", "--log-dhcp", "--port=0", "--interface=eth0", "--bind-interfaces",
		"--pid-file=" + pid, "--dhcp-leasefile=" + filepath.Join(c.Dir, "dnsmasq.leases"),
	}}
	if c.DHCP == Dnsmasq {
		dnsmasq.argv = append(dnsmasq.argv,
			"--dhcp-range=10.77.0.100,10.77.0.200,255.255.255.0,1h", "--dhcp-authoritative",
			"--no-ping", // otherwise each first offer waits 3 s for an answer to a ping
		)
	}
	services := []service{dnsmasq}
	switch {
	case hasIPv6():
		services[0].argv = append(services[0].argv, "--enable-ra", "--dhcp-range=fd77::,ra-only,64")
	case c.DHCP != Dnsmasq:
		services = nil // there is no router to announce
	}
	if c.DHCP == Kea {
		kea, err := keaDHCP(filepath.Join(c.Dir, "kea"))
		if err != nil {
			return nil, fmt.Errorf("the site's DHCP server: %w", err)
		}
		services = append(services, kea)
	}
	return services, nil
}

const keaProgram = "/usr/sbin/kea-dhcp4"

// keaDHCP is Kea with one plain subnet.
func keaDHCP(dir string) (service, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return service{}, err
	}
	// Debian's AppArmor profile, which goes by the program's path, lets it write only below /run and /var.
	program := filepath.Join(dir, "kea-dhcp4")
	if err := copySparse(program, keaProgram); err != nil {
		return service{}, err
	}
	if err := os.Chmod(program, 0o755); err != nil {
		return service{}, err
	}
	config := filepath.Join(dir, "kea.conf")
	if err := os.WriteFile(config, []byte(keaConfig), 0o644); err != nil {
		return service{}, err
	}
	return service{
		name: "kea", log: filepath.Join(dir, "kea.log"), ready: filepath.Join(dir, "kea.kea-dhcp4.pid"),
		argv: []string{
			"env", "KEA_PIDFILE_DIR=" + dir, "KEA_LOCKFILE_DIR=" + dir,
			"ip", "netns", "exec", siteNS, program, "-c", config,
		},
	}, nil
}

const keaConfig = `{ "Dhcp4": {
  "interfaces-config": { "interfaces": [ "eth0" ] },
  "lease-database": { "type": "memfile", "persist": false },
  "valid-lifetime": 3600,
  "subnet4": [ { "subnet": "10.77.0.0/24", "pools": [ { "pool": "10.77.0.100 - 10.77.0.200" } ] } ],
  "loggers": [ { "name": "kea-dhcp4", "severity": "INFO", "output_options": [ { "output": "stdout" } ] } ]
} }
`
