package appliance

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/appliance/doctor"
	"github.com/pxectl/pxectl/appliance/interfaces"
	"github.com/pxectl/pxectl/appliance/keys"
	"github.com/pxectl/pxectl/appliance/rogue"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/ipxe"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/ipmi"
	"github.com/pxectl/pxectl/tftpd"
)

// engineConfig makes the engine's configuration.
func (a *Appliance) engineConfig(secrets keys.Keys, nics *interfaces.Set) deploy.Config {
	cfg := a.cfg
	return deploy.Config{
		Store: a.db, Key: secrets.Sign, Seal: secrets.Seal, Unseal: secrets.Unseal,
		OpenBMC: (&ipmi.Driver{Log: a.log}).Open,
		BMC:     power.Target{User: cfg.BMC.User, Password: cfg.BMC.Password},
		Image:   func(ref string) (deploy.Image, error) { return findImage(a.images, ref) },
		Server: func(machine netip.Addr) netip.AddrPort {
			return netip.AddrPortFrom(nics.AddressFor(machine), uint16(cfg.HTTP.Port))
		},
		Policy:           deploy.Policy(cfg.Discovery.Policy),
		TrustReportedBMC: cfg.BMC.TrustReported,
		Interfaces:       func() []netip.Prefix { return ownAddresses(a.log) },
		Deadlines: deploy.Deadlines{
			BootAgent: cfg.Deploy.BootAgent, WriteImage: cfg.Deploy.WriteImage, VerifyOS: cfg.Deploy.VerifyOS,
		},
		Log: a.log,
	}
}

// listen opens every socket.
func (a *Appliance) listen(secrets keys.Keys, nics *interfaces.Set) error {
	cfg := a.cfg
	rules, err := newRuleBook(cfg)
	if err != nil {
		return err
	}
	plane := bootPlane{
		engine: a.engine, addresses: &addresses{list: neighbourTable}, ruleBook: rules,
		rogues:  &rogue.Servers{Log: a.log, Note: a.engine.Note, Off: cfg.DHCP.Mode == "off"},
		ramdisk: cfg.RamdiskDir(), http: uint16(cfg.HTTP.Port), tls: uint16(cfg.API.Port), pin: secrets.Pin,
	}
	plane.rogues.Own = func() []netip.Prefix { return ownAddresses(a.log) }
	if l := plane.overhear(cfg, a.log); l != nil {
		a.serve("overhear", interfaces.Service{Run: l.Run, Close: l.Close})
	}
	if err := nics.Listen(); err != nil {
		return err
	}
	a.serve("interfaces", interfaces.Service{Run: nics.Run, Close: nics.Close})
	moved := func(string, netip.Addr) {}
	dhcp, err := listenDHCP(cfg, plane, a.log)
	switch {
	case err != nil:
		return err
	case dhcp != nil:
		moved = dhcp.Readdress
		a.serve("dhcp", interfaces.Service{Run: dhcp.Run, Close: dhcp.Close})
	}
	nics.Tell(a.engine.NoteOwn, moved)
	if err := a.listenForMachines(plane, secrets, nics); err != nil {
		return err
	}
	l, err := api.ListenUnix(cfg.API.Socket)
	if err != nil {
		return fmt.Errorf("api.socket: %w", err)
	}
	house := doctor.House{
		Config: cfg, Rogues: plane.rogues, Ask: dhcpd.Ask, Interfaces: nics, Engine: a.engine,
		Images: a.images,
	}
	operators := api.NewServer(api.Config{
		Fleet:   a.engine,
		Images:  guardedImages{a.images, a.engine},
		Leases:  leaseBook{dhcp, a.engine, cfg.DHCP.Mode},
		Doctor:  house.Examine,
		Version: a.version,
		Log:     a.log,
		Ready:   func() error { return ready(plane, nics) },
	}).Handler()
	a.serve("api", interfaces.Service{
		Run:   func(ctx context.Context) error { return api.Serve(ctx, l, operators, a.log) },
		Close: l.Close,
	})
	return nil
}

func (a *Appliance) serve(name string, s interfaces.Service) {
	a.services = append(a.services, service{name, s})
}

// listenForMachines opens TFTP, HTTP and the agents' port on each provisioning interface.
func (a *Appliance) listenForMachines(plane bootPlane, secrets keys.Keys, nics *interfaces.Set) error {
	boot := plane.web(a.images.Handler(), a.log)
	agents := api.AgentHandler(a.engine, func(id string) (io.ReadCloser, error) {
		f, err := a.images.OpenManifest(id)
		if err != nil {
			return nil, imageProblem(id, err)
		}
		return f, nil
	}, a.log)
	tlsConfig := api.AgentTLS(secrets.TLS)
	at := func(ip netip.Addr, port int) netip.AddrPort { return netip.AddrPortFrom(ip, uint16(port)) }
	for _, in := range a.cfg.Provisioning.Interfaces {
		for _, s := range []struct {
			name string
			open func(netip.Addr) (interfaces.Service, error)
		}{
			{"tftp", func(ip netip.Addr) (interfaces.Service, error) {
				return listenTFTP(at(ip, a.cfg.TFTP.Port), plane, a.log)
			}},
			{"http", func(ip netip.Addr) (interfaces.Service, error) {
				return listenHTTP("http.port", at(ip, a.cfg.HTTP.Port), nil, boot, a.log)
			}},
			{"agents", func(ip netip.Addr) (interfaces.Service, error) {
				return listenHTTP("api.port", at(ip, a.cfg.API.Port), tlsConfig, agents, a.log)
			}},
		} {
			opened, err := nics.At(in.Name, s.name, s.open)
			if err != nil {
				return err
			}
			a.serve(s.name, opened)
		}
	}
	return nil
}

func listenTFTP(at netip.AddrPort, plane bootPlane, log *slog.Logger) (interfaces.Service, error) {
	t, err := tftpd.Listen(tftpd.Config{
		Addr: at.String(), Open: plane.file, Done: plane.sawTFTP, Log: log,
		Client: func(a netip.Addr) string { return string(plane.addresses.mac(a)) },
	})
	if err != nil {
		return interfaces.Service{}, err
	}
	return interfaces.Service{Run: t.Run, Close: t.Close}, nil
}

// listenHTTP serves HTTP, over TLS if secure is given, with limits on what strangers may open. Errors name
// key, the port's key in the configuration.
func listenHTTP(
	key string, at netip.AddrPort, secure *tls.Config, h http.Handler, log *slog.Logger,
) (interfaces.Service, error) {
	tcp, err := net.Listen("tcp", at.String())
	if err != nil {
		return interfaces.Service{}, fmt.Errorf("%s: %w", key, err)
	}
	most := ipxe.MaxConns
	if secure != nil {
		most = ipxe.MaxTLSConns
	}
	l, h := ipxe.LimitConns(tcp, most, h)
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	return interfaces.Service{
		Run: func(ctx context.Context) error {
			return api.Serve(ctx, l, forStrangers(h, strangersBody), log)
		},
		Close: l.Close,
	}, nil
}

// ownAddresses are those of this host on all its interfaces, as they are now.
func ownAddresses(log *slog.Logger) (all []netip.Prefix) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		log.Error("list our own addresses", "err", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, p)
		}
	}
	return all
}
