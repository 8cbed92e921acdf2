package appliance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
	"github.com/pxectl/pxectl/ipxe"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/ipmi"
	"github.com/pxectl/pxectl/tftpd"
)

// RamdiskDir is where kernel and ramdisk lie, below the data directory: ARCH/vmlinuz and ARCH/initrd.
func (c Config) RamdiskDir() string { return filepath.Join(c.DataDir, "ramdisk") }

// A service runs until ctx ends.
type service struct {
	name string
	run  func(ctx context.Context) error
}

// Run builds the appliance from a configuration file and runs it until ctx ends, and stopWithin longer at most.
//
// An empty database beside the keys or images of an appliance is an error, unless newDatabase says that it is meant.
func Run(ctx context.Context, configPath, version string, newDatabase bool) error {
	cfg, err := Load(configPath)
	if err != nil {
		return err
	}
	log := newLog(cfg.Log, os.Stderr)
	return within(ctx, stopWithin, log, func(ctx context.Context) error { return run(ctx, cfg, configPath, version, newDatabase, log) })
}

// run is Run without a bound on the stop. Every socket is open before anything runs, so a port that is taken is an error and not
// a line in the log.
func run(ctx context.Context, cfg Config, configPath, version string, newDatabase bool, log *slog.Logger) error {
	if err := os.MkdirAll(cfg.DataDir, 0o750); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	db, secrets, err := openDatabase(cfg.DataDir, newDatabase, log)
	if err != nil {
		return err
	}
	defer db.Close()
	pictures, err := store.Open(filepath.Join(cfg.DataDir, "images"), log)
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	defer pictures.Close()
	nics := cfg.follow(log)
	engine, err := deploy.New(engineConfig(cfg, db, secrets, pictures, nics, log))
	if err != nil {
		return err
	}
	services, err := listen(cfg, version, nics, engine, pictures, secrets, log)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range append(services, service{"engine", engine.Run}) {
		group.Go(func() (err error) {
			defer bug.Return(log, s.name, &err)
			defer func() {
				if ctx.Err() != nil {
					log.Debug("stopped", "service", s.name)
				}
			}()
			if err := s.run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	log.Info("pxectl serves", "version", version, "config", configPath, "data", cfg.DataDir, "socket", cfg.API.Socket)
	// The engine may stop before those who still answer machines: what they note then is written last.
	return errors.Join(group.Wait(), engine.Drain())
}

// engineConfig is what the configuration means to the engine.
func engineConfig(cfg Config, db *boltdb.Store, secrets keys, pictures *store.Store, nics *followed, log *slog.Logger) deploy.Config {
	return deploy.Config{
		Store: db, Key: secrets.sign, Seal: secrets.seal, Unseal: secrets.unseal,
		OpenBMC: (&ipmi.Driver{Log: log}).Open, BMC: power.Target{User: cfg.BMC.User, Password: cfg.BMC.Password},
		Image:  func(ref string) (deploy.Image, error) { return findImage(pictures, ref) },
		Server: nics.serverFor, Policy: deploy.Policy(cfg.Discovery.Policy),
		TrustReportedBMC: cfg.BMC.TrustReported, Interfaces: func() []netip.Prefix { return ownAddresses(log) },
		Deadlines: deploy.Deadlines{BootAgent: cfg.Deploy.BootAgent, WriteImage: cfg.Deploy.WriteImage, VerifyOS: cfg.Deploy.VerifyOS},
		Log:       log,
	}
}

// listen opens every socket. Services that were opened before one that could not be are left to the end of the process.
func listen(cfg Config, version string, nics *followed, engine *deploy.Engine, pictures *store.Store, secrets keys, log *slog.Logger) ([]service, error) {
	plane := bootPlane{engine: engine, addresses: &addresses{list: neighbourTable}, ramdisk: cfg.RamdiskDir(), http: uint16(cfg.HTTP.Port), tls: uint16(cfg.API.Port), pin: secrets.pin}
	var err error
	if plane.ruleBook, err = cfg.ruleBook(); err != nil {
		return nil, err
	}
	plane.neighbours = &neighbours{log: log, note: engine.NoteOwn, off: cfg.DHCP.Mode == "off"}
	services := plane.overhear(cfg, log)

	if err := nics.listen(); err != nil {
		return nil, err
	}
	nics.note = engine.NoteOwn
	services = append(services, service{"interfaces", nics.run})
	dhcp, err := listenDHCP(cfg, plane, log)
	switch {
	case err != nil:
		return nil, err
	case dhcp != nil:
		nics.moved = dhcp.Readdress
		services = append(services, service{"dhcp", dhcp.Run})
	}
	boot := plane.web(pictures.Handler(), log)
	agents := api.AgentHandler(engine, func(id string) ([]byte, error) {
		raw, _, err := pictures.Manifest(id)
		return raw, imageProblem(id, err)
	}, log)
	tlsConfig := api.AgentTLS(secrets.tls)
	for _, in := range cfg.Provisioning.Interfaces {
		for _, stand := range []struct {
			what string
			open func(netip.Addr) (runner, error)
		}{
			{"tftp", func(a netip.Addr) (runner, error) {
				return listenTFTP(netip.AddrPortFrom(a, uint16(cfg.TFTP.Port)), plane, log)
			}},
			{"http", func(a netip.Addr) (runner, error) {
				return listenHTTP("http.port", netip.AddrPortFrom(a, uint16(cfg.HTTP.Port)), nil, boot, log)
			}},
			{"agents", func(a netip.Addr) (runner, error) {
				return listenHTTP("api.port", netip.AddrPortFrom(a, uint16(cfg.API.Port)), tlsConfig, agents, log)
			}},
		} {
			s, err := nics.at(in.Name, stand.what, stand.open)
			if err != nil {
				return nil, err
			}
			services = append(services, s)
		}
	}
	l, err := api.ListenUnix(cfg.API.Socket)
	if err != nil {
		return nil, fmt.Errorf("api.socket: %w", err)
	}
	checks := doctor{cfg: cfg, nics: nics, engine: engine, pictures: pictures, neighbours: plane.neighbours, ask: dhcpd.Ask}
	operators := api.NewServer(api.Config{Fleet: engine, Images: guardedImages{pictures, engine}, Leases: leaseBook{dhcp, engine, cfg.DHCP.Mode}, Doctor: checks.examine, Version: version, Log: log, Ready: func() error { return ready(plane) }}).Handler()
	return append(services, service{"api", func(ctx context.Context) error { return api.Serve(ctx, l, operators, log) }}), nil
}

func listenTFTP(at netip.AddrPort, plane bootPlane, log *slog.Logger) (runner, error) {
	t, err := tftpd.Listen(tftpd.Config{
		Addr: at.String(), Open: plane.file, Done: plane.sawTFTP, Log: log,
		Client: func(a netip.Addr) string { return string(plane.addresses.mac(a)) },
	})
	if err != nil {
		return nil, err
	}
	return t.Run, nil
}

// listenHTTP serves HTTP, with limits on what strangers may open, and inside TLS when that is configured.
func listenHTTP(key string, at netip.AddrPort, secure *tls.Config, h http.Handler, log *slog.Logger) (runner, error) {
	tcp, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	l := ipxe.LimitConns(tcp)
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	return func(ctx context.Context) error { return api.Serve(ctx, l, forStrangers(h, strangersBody), log) }, nil
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

func inNetworkOf(nic *net.Interface, ours, machine netip.Addr) bool {
	addrs, err := nic.Addrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == ours && p.Contains(machine) {
			return true
		}
	}
	return false
}

// findImage looks an image up for a deployment, and makes sure that its manifest is whole.
func findImage(s *store.Store, ref string) (deploy.Image, error) {
	info, err := s.Get(ref)
	if err != nil {
		return deploy.Image{}, imageProblem(ref, err)
	}
	if _, _, err := s.Manifest(info.ID); err != nil {
		return deploy.Image{}, imageProblem(ref, err)
	}
	img := deploy.Image{ID: info.ID, Name: info.Name, RawSize: uint64(info.RawSize), SectorSize: info.SectorSize, Stored: uint64(info.DataSize)}
	if info.System != nil {
		img.Smallest, img.Fault = uint64(info.System.Smallest), info.System.Fault
	}
	return img, nil
}

func imageProblem(ref string, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return &inventory.Problem{Code: inventory.CodeNotFound, Detail: fmt.Sprintf("no image %q", ref), Hint: "`pxectl image list` shows the images there are, `pxectl image import FILE` adds one", Err: err}
	}
	return err
}

// guardedImages keeps an image that a running deployment needs.
type guardedImages struct {
	*store.Store
	engine *deploy.Engine
}

func (g guardedImages) Delete(ref string) (store.Info, error) {
	info, err := g.Get(ref)
	if err != nil {
		return info, err
	}
	if machine, ok := g.engine.ImageInUse(info.ID); ok {
		return info, &inventory.Problem{
			Code: inventory.CodeConflict, Detail: fmt.Sprintf("image %s is being written to %s", info.Name, machine),
			Hint: "wait for the deployment, or cancel it: `pxectl deployment list`",
		}
	}
	return g.Store.Delete(info.ID)
}
