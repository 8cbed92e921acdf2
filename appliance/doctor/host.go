package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/appliance/keys"
)

// ports checks whether other programs have our ports.
func (d House) ports() []api.Check {
	const subject = "ports"
	if !d.running() && answers(d.Config.API.Socket) {
		return []api.Check{
			pass(subject, "an appliance that runs has them (it answers on %s)", d.Config.API.Socket),
		}
	}
	var checks []api.Check
	if d.Config.DHCP.Mode != "off" {
		// 67 can be shared, so a second listener is no error at the start.
		table, _ := os.ReadFile("/proc/net/udp")
		n := listeners(string(table), 67)
		if d.running() {
			n--
		}
		if n > 0 {
			checks = append(checks,
				warn(subject, "another program on this host listens on UDP 67",
					"a DHCP server beside pxectl works if it leaves boot options alone: "+
						"`ss -ulpn 'sport = :67'` names it"))
		}
	}
	if d.running() { // it would not run without them
		return append(checks, pass(subject, "all are open"))
	}
	var denied []string
	for _, p := range d.wanted() {
		err := try(p)
		switch {
		case err == nil:
		case errors.Is(err, fs.ErrPermission):
			denied = append(denied, p.String())
		case errors.Is(err, syscall.EADDRINUSE):
			tool := map[string]string{"udp": "-ulpn", "tcp": "-tlpn"}[p.network]
			checks = append(checks,
				fail(subject, p.String()+" is taken by another program",
					fmt.Sprintf("`ss %s 'sport = :%d'` names it; stop it, or %s", tool, p.at.Port(),
						p.instead)))
		default:
			checks = append(checks, fail(subject, fmt.Sprintf("%v: %v", p, err), "is the address right?"))
		}
	}
	if len(denied) > 0 {
		checks = append(checks,
			warn(subject, "not permitted to try "+strings.Join(denied, ", "),
				"run this as root, or as the user that runs pxectl with CAP_NET_BIND_SERVICE"))
	}
	if len(checks) == 0 {
		checks = append(checks, pass(subject, "all are free"))
	}
	return checks
}

// A port that pxectl listens on.
type port struct {
	network string // udp or tcp
	at      netip.AddrPort
	instead string // what to do instead of stopping the program that has it
}

func (p port) String() string { return strings.ToUpper(p.network) + " port " + fmt.Sprint(p.at.Port()) }

func (d House) wanted() []port {
	var all []port
	if d.Config.DHCP.Mode != "off" {
		all = append(all, port{
			"udp", netip.AddrPortFrom(netip.IPv4Unspecified(), 4011),
			"set dhcp.mode to off: UEFI asks at this port and no other",
		})
	}
	for _, in := range d.Config.Provisioning.Interfaces {
		all = append(all,
			port{
				"udp", netip.AddrPortFrom(in.Address, uint16(d.Config.TFTP.Port)), "choose another tftp.port",
			},
			port{
				"tcp", netip.AddrPortFrom(in.Address, uint16(d.Config.HTTP.Port)), "choose another http.port",
			},
			port{"tcp", netip.AddrPortFrom(in.Address, uint16(d.Config.API.Port)), "choose another api.port"})
	}
	return all
}

// try opens a port and closes it again.
func try(p port) error {
	if p.network == "udp" {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(p.at))
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(p.at))
	if err != nil {
		return err
	}
	return l.Close()
}

func answers(socket string) bool {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// listeners counts the sockets with a local port in the text of /proc/net/udp: "  17: 00000000:0043
// 00000000:0000 07 …".
func listeners(table string, port uint16) int {
	n := 0
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > 2 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			n++
		}
	}
	return n
}

// clock checks this host's clock: agents set theirs from it.
func clock() api.Check {
	const subject, next = "clock", "run an NTP client (`apt install chrony`): " +
		"agents set their clocks from this one"
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case time.Now().Year() < 2026:
		return fail(subject, "says "+time.Now().Format(time.DateOnly), next)
	case err != nil:
		return warn(subject, "the kernel does not say whether it is synchronised: "+err.Error(), next)
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		return warn(subject, "is not synchronised", next)
	}
	return pass(subject, "is synchronised")
}

// Free space, in bytes. A full disk stops imports first and then the database.
const (
	spaceFail = 1 << 30
	spaceWarn = 10 << 30
)

func space(dir string) api.Check {
	const subject = "disk space"
	var st unix.Statfs_t
	at := dir
	for unix.Statfs(at, &st) != nil {
		if at == filepath.Dir(at) {
			return warn(subject, "cannot be read", "look at "+dir)
		}
		at = filepath.Dir(at) // before the first start there is no data directory
	}
	free := st.Bavail * uint64(st.Bsize)
	text := fmt.Sprintf("%.1f GiB free in %s", float64(free)/(1<<30), dir)
	const next = "`pxectl image delete` those that nobody needs, or give data_dir a larger disk"
	switch {
	case free < spaceFail:
		return fail(subject, text, next)
	case free < spaceWarn:
		return warn(subject, text, next)
	}
	return pass(subject, "%s", text)
}

// permissions checks whether others on this host can read secrets, or change what machines boot.
func (d House) permissions() api.Check {
	const subject = "permissions"
	data := d.Config.DataDir
	secret := []string{filepath.Join(data, "pxectl.db"), d.Config.BMC.PasswordFile}
	files, _ := filepath.Glob(filepath.Join(data, "keys", "*.key"))
	for _, path := range files {
		if mode, open := keys.Open(path); open {
			return fail(subject, fmt.Sprintf("%s has mode %04o, and the appliance does not start with a key that "+
				"others can read", path, mode), "`chmod 600 "+path+"`")
		}
	}
	if d.Config.BMC.Password != "" && d.Config.BMC.PasswordFile == "" {
		secret = append(secret, d.Config.Path) // the password is in it
	}
	const others = 0o007
	for _, path := range secret {
		if st, err := os.Stat(path); path != "" && err == nil && st.Mode().Perm()&others != 0 {
			return fail(subject,
				fmt.Sprintf("%s has mode %04o: everybody on this host can read its secrets", path,
					st.Mode().Perm()), "`chmod o= "+path+"`")
		}
	}
	for _, path := range []string{data, filepath.Join(data, "images"), filepath.Join(data, "ramdisk")} {
		if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o002 != 0 {
			return fail(subject,
				fmt.Sprintf("%s has mode %04o: everybody on this host can change what machines boot", path,
					st.Mode().Perm()), "`chmod o-w "+path+"`")
		}
	}
	if st, err := os.Stat(d.Config.API.Socket); err == nil && st.Mode().Perm()&others != 0 {
		return fail(subject,
			fmt.Sprintf("%s has mode %04o: everybody on this host can erase machines", d.Config.API.Socket,
				st.Mode().Perm()), "restart pxectl, which makes it anew; its group may use it")
	}
	if _, err := os.Stat(data); errors.Is(err, fs.ErrPermission) {
		return warn(subject, err.Error(), "run this as the user that runs pxectl")
	}
	return pass(subject, "keys, database and socket are closed to others")
}
