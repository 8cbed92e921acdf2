package appliance

import (
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/pxectl/pxectl/appliance/rogue"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/internal/printable"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/ipxe"
	"github.com/pxectl/pxectl/tftpd"
)

// A bootPlane connects the servers that machines talk to (dhcpd, tftpd, ipxe) with the engine that decides.
type bootPlane struct {
	engine  *deploy.Engine
	ramdisk string // directory
	http    uint16 // ports
	tls     uint16
	pin     string

	addresses *addresses
	rogues    *rogue.Servers
	ruleBook  ruleBook
}

// autoexec is the script that EFI builds of iPXE request by themselves, from where they were loaded.
const autoexec = "autoexec.ipxe"

// dhcp decides what a DHCP client boots.
func (p bootPlane) dhcp(_ context.Context, c dhcpd.Client) (dhcpd.Boot, bool) {
	mac, ok := machineMAC(c.MAC)
	if !ok {
		return dhcpd.Boot{}, false
	}
	rules := p.ruleBook.about(mac, ipxe.Params{}, p.engine.MachineAt)
	if a := p.engine.BootDecision(mac); !a.Agent && (!a.Local || rules.Local == ipxe.Silence) {
		return dhcpd.Boot{}, false
	}
	server := netip.AddrPortFrom(c.Server, p.http)
	nbp, ok := rules.NBP(uint16(c.Arch), c.Class == dhcpd.ClassIPXE)
	switch {
	case c.WantsURL() && c.Class != dhcpd.ClassHTTP:
		return dhcpd.Boot{URL: ipxe.ScriptURL(server), Short: ipxe.AutoexecURL(server)}, true
	case !ok || !c.HasArch:
		return dhcpd.Boot{}, false
	case c.WantsURL():
		return dhcpd.Boot{URL: "http://" + server.String() + ipxe.NBPPath(nbp)}, true
	default:
		return dhcpd.Boot{File: nbp}, true
	}
}

// file returns what the TFTP server sends: a network boot program, or the script that it asks for. Any other
// name is fs.ErrNotExist.
func (p bootPlane) file(_ context.Context, r tftpd.Request) ([]byte, error) {
	name, _ := fileMeant(r)
	if name == autoexec {
		return ipxe.Autoexec(netip.AddrPortFrom(r.Server, p.http)), nil
	}
	if b, ok := ipxe.NBP(name); ok {
		return b, nil
	}
	return nil, fs.ErrNotExist
}

// fileMeant returns the name of the file that a client asks for. rubbish is true when other bytes follow the
// name in the request.
func fileMeant(r tftpd.Request) (name string, rubbish bool) {
	if _, ok := ipxe.NBP(r.Name); ok || r.Name == autoexec {
		return r.Name, false
	}
	if name, ok := tftpd.Meant(r.Raw, append(ipxe.NBPs(), autoexec)); ok {
		return name, true
	}
	return r.Name, false
}

// web serves all that machines request by plain HTTP.
func (p bootPlane) web(images http.Handler, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/images", p.recorded(images)) // else the mux redirects it
	mux.Handle("/images/", p.recorded(images))
	mux.HandleFunc("POST /phone-home/{deployment}/{token}", p.phoneHome)
	mux.Handle("/", ipxe.Handler(ipxe.Config{
		Decide: p.script, Ramdisk: p.ramdiskFile, Observe: p.sawHTTP, Log: log,
	}))
	return cleanPath(mux)
}

// script decides what a machine's iPXE does.
func (p bootPlane) script(_ context.Context, params ipxe.Params, server netip.AddrPort) ipxe.Boot {
	mac, err := inventory.ParseMAC(params.MAC)
	if err != nil {
		return ipxe.Boot{Action: ipxe.Local, Reason: "not a machine's MAC"}
	}
	return p.ruleBook.apply(p.usual(mac, params, server), p.ruleBook.about(mac, params, p.engine.MachineAt))
}

// usual decides as script does, but without the rules of the configuration.
func (p bootPlane) usual(mac inventory.MAC, params ipxe.Params, server netip.AddrPort) ipxe.Boot {
	a := p.engine.IssueBoot(mac)
	switch {
	case a.Local:
		return ipxe.Boot{Action: ipxe.Local, Reason: a.Name + " has its own system"}
	case !a.Agent:
		return ipxe.Boot{Action: ipxe.Local, Reason: "unknown machine"}
	}
	for _, name := range []string{"vmlinuz", "initrd"} {
		if _, ok := p.ramdiskFile(params.GoArch(), name); !ok {
			return ipxe.Boot{
				Action: ipxe.Wait,
				Reason: "the appliance has no ramdisk for " + params.GoArch() + ": run pxectl ramdisk build",
			}
		}
	}
	return ipxe.Boot{Action: ipxe.Agent, Reason: a.Name, Args: []string{
		"pxectl.url=https://" + netip.AddrPortFrom(server.Addr(), p.tls).String(),
		"pxectl.pin=" + p.pin,
		"pxectl.nonce=" + a.Nonce,
	}}
}

// ramdiskFile finds the kernel or the ramdisk of an architecture.
func (p bootPlane) ramdiskFile(goarch, name string) (string, bool) {
	path := filepath.Join(p.ramdisk, goarch, name)
	_, err := os.Stat(path)
	return path, err == nil
}

// maxPhoneHome bounds the form of a system that phones home. cloud-init sends less, even with all its host keys.
const maxPhoneHome = 8 << 10

// phoneHome answers deployed systems: POST /phone-home/{deployment}/{token}, as cloud-init's phone_home
// module sends it.
func (p bootPlane) phoneHome(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxPhoneHome)
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	id := inventory.DeploymentID(r.PathValue("deployment"))
	err := p.engine.PhoneHome(r.Context(), id, r.PathValue("token"), remote.Addr().String(),
		func() string { return inventory.Text(printable.Only(r.FormValue("hostname")), 64) })
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	status := http.StatusInternalServerError
	switch inventory.AsProblem(err).Code {
	case inventory.CodeRefused:
		status = http.StatusForbidden
	case inventory.CodeNotFound, inventory.CodeConflict:
		status = http.StatusGone
	}
	http.Error(w, err.Error(), status)
}
