package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/ipxe"
	"github.com/pxectl/pxectl/power"
)

// Config is appliance.yaml. The file of that name at the top of the repository documents every key.
type Config struct {
	DataDir      string       `yaml:"data_dir"`
	Provisioning Provisioning `yaml:"provisioning"`
	DHCP         DHCP         `yaml:"dhcp"`
	TFTP         Listen       `yaml:"tftp"`
	HTTP         Listen       `yaml:"http"`
	API          API          `yaml:"api"`
	Discovery    Discovery    `yaml:"discovery"`
	Boot         ipxe.Rules   `yaml:"boot"`
	BMC          BMC          `yaml:"bmc"`
	Deploy       Deploy       `yaml:"deploy"`
	Log          Log          `yaml:"log"`

	Path string `yaml:"-"` // where it was read from
}

// Provisioning names the interfaces that machines boot from.
type Provisioning struct {
	Interfaces []Interface `yaml:"interfaces"`
}

// Interface is one of them. Where the file gives no address, it is the interface's first IPv4 address, and
// another one when that goes away.
type Interface struct {
	Name    string     `yaml:"name"`
	Address netip.Addr `yaml:"address"`

	Fixed bool `yaml:"-"` // the file gives the address
}

// DHCP says how we take part in DHCP.
type DHCP struct {
	Mode   string     `yaml:"mode"`
	Server dhcpd.Plan `yaml:"server"`
}

// Listen is a port.
type Listen struct {
	Port int `yaml:"port"`
}

// API is where operators and agents call.
type API struct {
	Socket string `yaml:"socket"`
	Port   int    `yaml:"port"`
}

// Discovery is about machines that nobody announced.
type Discovery struct {
	Policy string `yaml:"policy"`
}

// BMC has the credentials for BMCs that have none of their own, and says whether reported BMCs are accepted.
type BMC struct {
	User         string `yaml:"user"`
	Password     string `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
	// TrustReported accepts the BMC addresses that agents of approved machines report.
	TrustReported bool `yaml:"trust_reported"`
}

// Deploy bounds the waiting steps of a deployment.
type Deploy struct {
	BootAgent  time.Duration `yaml:"boot_agent"`
	WriteImage time.Duration `yaml:"write_image"`
	VerifyOS   time.Duration `yaml:"verify_os"`
}

// Log is about our own log on standard error.
type Log struct {
	Level  slog.Level `yaml:"level"`
	Format string     `yaml:"format"`
}

// RamdiskDir is where kernel and ramdisk lie: ARCH/vmlinuz and ARCH/initrd.
func (c Config) RamdiskDir() string { return filepath.Join(c.DataDir, "ramdisk") }

// ScriptDir is where the templates lie that the rules of `boot` name.
func (c Config) ScriptDir() string { return filepath.Join(c.DataDir, "scripts") }

// checkBoot finds what is wrong with the rules, and with the scripts that they name.
func (c Config) checkBoot() (mistakes []string) {
	for i, r := range c.Boot {
		key := fmt.Sprintf("boot[%d]", i)
		if err := r.Check(); err != nil {
			for line := range strings.Lines(err.Error()) {
				line = strings.TrimSpace(line)
				if field, _, ok := strings.Cut(line, ": "); ok && !strings.Contains(field, " ") {
					mistakes = append(mistakes, key+"."+line)
				} else {
					mistakes = append(mistakes, key+": "+line)
				}
			}
		}
		if r.Script == "" {
			continue
		}
		if _, err := ipxe.LoadTemplate(c.ScriptDir(), r.Script); err != nil {
			mistakes = append(mistakes, key+".script: "+err.Error())
		}
	}
	return mistakes
}

// Defaults is the configuration of an empty file.
func Defaults() Config {
	return Config{
		DataDir:   "/var/lib/pxectl",
		DHCP:      DHCP{Mode: "proxy", Server: dhcpd.Plan{LeaseTime: 12 * time.Hour, UnknownShare: 50}},
		TFTP:      Listen{Port: 69},
		HTTP:      Listen{Port: 8080},
		API:       API{Socket: "/run/pxectl/pxectl.sock", Port: 8443},
		Discovery: Discovery{Policy: string(deploy.PolicyApprove)},
		Deploy:    Deploy{BootAgent: 30 * time.Minute, WriteImage: 4 * time.Hour, VerifyOS: 30 * time.Minute},
		Log:       Log{Format: "text"},
	}
}

// Load reads a configuration and reports all its mistakes at once, each with key and value.
func Load(path string) (Config, error) {
	raw, err := readConfig(path)
	if err != nil {
		return Config{}, unreadable(err)
	}
	c, err := Parse(path, raw, net.Interfaces)
	c.Path = path
	return c, err
}

// unreadable gives the error of reading a configuration its next move.
func unreadable(err error) error {
	p := &inventory.Problem{
		Code: inventory.CodeInternal, Detail: fmt.Sprintf("read the configuration: %v", err), Err: err,
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.Hint = "write it: README has the smallest one that works; " +
			"or name another file (`pxectl serve --config FILE`)"
	case errors.Is(err, fs.ErrPermission):
		p.Hint = "run this as root, or as the user that runs pxectl"
	default:
		p.Hint = "name a configuration file: appliance.yaml documents every key"
	}
	return p
}

// maxMistakes is how many mistakes are reported at once: a file with more is no configuration.
const maxMistakes = 20

// maxConfig is the largest file that is read, in bytes: far above what anybody writes.
const maxConfig = 1 << 20

func readConfig(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	switch {
	case err != nil:
		return nil, err
	case len(raw) > maxConfig:
		return nil, fmt.Errorf("%s: more than %d bytes: no configuration", path, maxConfig)
	case !utf8.Valid(raw):
		return nil, fmt.Errorf("%s: not a text: no configuration", path)
	}
	return raw, nil
}

// Parse is Load of a file's contents. name is the file's name in errors; interfaces lists those of this host.
func Parse(name string, raw []byte, interfaces func() ([]net.Interface, error)) (Config, error) {
	c := Defaults()
	d := decode(raw, &c)
	if len(d.mistakes) == 0 || c.Provisioning.Interfaces != nil {
		d.wrong(c.check(interfaces))
	}
	mistakes := d.inOrder()
	if len(mistakes) == 0 {
		return c, nil
	}
	n, many := len(mistakes), "mistakes"
	if n == 1 {
		many = "mistake"
	}
	if n > maxMistakes {
		mistakes = append(mistakes[:maxMistakes], fmt.Sprintf("and %d more", n-maxMistakes))
	}
	return Config{}, fmt.Errorf("%s: %d %s:\n  %s", name, n, many, strings.Join(mistakes, "\n  "))
}

// check finds values that are well-formed and wrong. It fills in the interfaces' addresses and the password
// of password_file.
func (c *Config) check(interfaces func() ([]net.Interface, error)) (mistakes []string) {
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Sprintf(format, args...)) }
	oneOf := func(key, value string, have ...string) {
		if !slices.Contains(have, value) {
			wrong("%s: %q (have: %s)", key, value, strings.Join(have, ", "))
		}
	}
	port := func(key string, p int) {
		if p < 1 || p > 65535 {
			wrong("%s: %d is no port (1 to 65535)", key, p)
		}
	}
	oneOf("dhcp.mode", c.DHCP.Mode, "proxy", "server", "off")
	oneOf("discovery.policy", c.Discovery.Policy, string(deploy.PolicyApprove), string(deploy.PolicyAuto),
		string(deploy.PolicyDeny))
	oneOf("log.format", c.Log.Format, "text", "json")
	port("tftp.port", c.TFTP.Port)
	port("http.port", c.HTTP.Port)
	port("api.port", c.API.Port)
	if c.HTTP.Port == c.API.Port {
		wrong("api.port: %d is http.port too", c.API.Port)
	}
	for key, path := range map[string]string{"data_dir": c.DataDir, "api.socket": c.API.Socket} {
		if !filepath.IsAbs(path) {
			wrong("%s: %q: want an absolute path", key, path)
		}
	}
	for key, d := range map[string]time.Duration{
		"deploy.boot_agent":  c.Deploy.BootAgent,
		"deploy.write_image": c.Deploy.WriteImage, "deploy.verify_os": c.Deploy.VerifyOS,
	} {
		if d < time.Second {
			wrong("%s: %s is too short", key, d)
		}
	}
	if c.BMC.Password != "" && c.BMC.PasswordFile != "" {
		wrong("bmc.password_file: %q, and bmc.password is set too: choose one", c.BMC.PasswordFile)
	}
	if c.BMC.PasswordFile != "" {
		raw, err := os.ReadFile(c.BMC.PasswordFile)
		if err != nil {
			wrong("bmc.password_file: %v", err)
		}
		c.BMC.Password = strings.TrimRight(string(raw), "\r\n")
	}
	if err := power.CheckUser(c.BMC.User); err != nil {
		wrong("bmc.user: %v", err)
	}
	if err := power.CheckPassword(c.BMC.Password); err != nil {
		wrong("bmc.password: %v", err)
	}
	slices.Sort(mistakes) // the maps above have no order
	mistakes = append(mistakes, c.checkBoot()...)
	mistakes = append(mistakes, c.checkServer()...)
	return append(mistakes, c.checkInterfaces(interfaces)...)
}

// checkServer checks dhcp.server in every mode, so that a change of the mode shows no new mistakes.
func (c *Config) checkServer() (mistakes []string) {
	for _, m := range c.DHCP.Server.Check() {
		mistakes = append(mistakes, "dhcp.server."+m)
	}
	if c.DHCP.Mode == "server" && len(c.DHCP.Server.Subnets) == 0 {
		mistakes = append(mistakes,
			"dhcp.server.subnets: none; with dhcp.mode server, name the networks that get addresses")
	}
	return mistakes
}

func (c *Config) checkInterfaces(interfaces func() ([]net.Interface, error)) (mistakes []string) {
	have, err := interfaces()
	if err != nil {
		return []string{fmt.Sprintf("provisioning.interfaces: list the interfaces of this machine: %v", err)}
	}
	names := make([]string, len(have))
	for i := range have {
		names[i] = have[i].Name
	}
	if len(c.Provisioning.Interfaces) == 0 {
		return []string{
			"provisioning.interfaces: none; name the interface that the machines boot from (have: " +
				strings.Join(names, ", ") + ")",
		}
	}
	for i := range c.Provisioning.Interfaces {
		in := &c.Provisioning.Interfaces[i]
		key := fmt.Sprintf("provisioning.interfaces[%d]", i)
		at := slices.Index(names, in.Name)
		if at < 0 {
			mistakes = append(mistakes,
				fmt.Sprintf("%s.name: no such interface %q (have: %s)", key, in.Name,
					strings.Join(names, ", ")))
			continue
		}
		if before := slices.IndexFunc(c.Provisioning.Interfaces[:i],
			func(o Interface) bool { return o.Name == in.Name }); before >= 0 {
			mistakes = append(mistakes,
				fmt.Sprintf("%s.name: %s is provisioning.interfaces[%d] too: "+
					"an interface is served at one address",
					key, in.Name, before))
			continue
		}
		addr, err := AddressOf(have[at], in.Address)
		if err != nil {
			mistakes = append(mistakes, key+".address: "+err.Error())
		} else if c.DHCP.Mode == "server" {
			mistakes = append(mistakes, c.checkWire(in.Name, addr, IPv4Of(have[at]))...)
		}
		in.Fixed, in.Address = in.Address.IsValid(), addr
	}
	return mistakes
}

// checkWire finds subnets whose pools would never be used: machines on a wire get addresses of one subnet,
// the one of our own address there.
func (c *Config) checkWire(name string, ours netip.Addr, all []netip.Addr) (mistakes []string) {
	served := slices.IndexFunc(c.DHCP.Server.Subnets, func(s dhcpd.Subnet) bool {
		return s.Subnet.Contains(ours)
	})
	for _, a := range all {
		at := slices.IndexFunc(c.DHCP.Server.Subnets, func(s dhcpd.Subnet) bool {
			return s.Subnet.Contains(a)
		})
		if at < 0 || at == served {
			continue
		}
		key, subnet := fmt.Sprintf("dhcp.server.subnets[%d].subnet", at), c.DHCP.Server.Subnets[at].Subnet
		if served < 0 {
			mistakes = append(mistakes,
				fmt.Sprintf("%s: %v is the network of %v on %s, which is served at %v: "+
					"set its provisioning.interfaces[].address to %v",
					key, subnet, a, name, ours, a))
			continue
		}
		mistakes = append(mistakes,
			fmt.Sprintf("%s: %v is a second network on the wire of %s (%v beside %v), "+
				"where machines get addresses of %v alone: "+
				"make one subnet of both (a shorter prefix, several pools), "+
				"or give the second an interface of its own (a VLAN); "+
				"when it is behind a relay, take %v off %s",
				key, subnet, name, a, ours, c.DHCP.Server.Subnets[served].Subnet, a, name))
	}
	return mistakes
}

// IPv4Of returns the IPv4 addresses of an interface.
func IPv4Of(in net.Interface) (all []netip.Addr) {
	addrs, _ := in.Addrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			all = append(all, p.Addr())
		}
	}
	return all
}

// AddressOf returns the wanted IPv4 address of an interface, or its first one when want is not valid. It is
// an error when the interface does not have it.
func AddressOf(in net.Interface, want netip.Addr) (netip.Addr, error) {
	var have []string
	for _, a := range IPv4Of(in) {
		if !want.IsValid() || want == a {
			return a, nil
		}
		have = append(have, a.String())
	}
	if !want.IsValid() {
		return netip.Addr{}, errors.New("interface " + in.Name + " has no IPv4 address; give it one first")
	}
	return netip.Addr{}, fmt.Errorf("%s is not an address of %s (have: %s)", want, in.Name,
		strings.Join(have, ", "))
}
