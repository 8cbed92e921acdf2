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

// Run builds the appliance from a configuration file and runs it until ctx ends. Every socket is open before
// anything runs, so a port that is taken is an error and not a line in the log.
func Run(ctx context.Context, configPath, version string) error {
	cfg, err := Load(configPath)
	if err != nil {
		return err
	}
	log := newLog(cfg.Log)
	if err := os.MkdirAll(cfg.DataDir, 0o750); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	db, err := boltdb.Open(filepath.Join(cfg.DataDir, "pxectl.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	secrets, err := loadKeys(filepath.Join(cfg.DataDir, "keys"))
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	pictures, err := store.Open(filepath.Join(cfg.DataDir, "images"), log)
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	defer pictures.Close()
	engine, err := deploy.New(deploy.Config{
		Store: db, Key: secrets.sign, Seal: secrets.seal, Unseal: secrets.unseal,
		OpenBMC: (&ipmi.Driver{Log: log}).Open, BMC: power.Target{User: cfg.BMC.User, Password: cfg.BMC.Password},
		Image:  func(ref string) (deploy.Image, error) { return findImage(pictures, ref) },
		Server: cfg.serverFor, Policy: deploy.Policy(cfg.Discovery.Policy),
		Deadlines: deploy.Deadlines{BootAgent: cfg.Deploy.BootAgent, WriteImage: cfg.Deploy.WriteImage, VerifyOS: cfg.Deploy.VerifyOS},
		Log:       log,
	})
	if err != nil {
		return err
	}
	services, err := listen(cfg, version, engine, pictures, secrets, log)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range append(services, service{"engine", engine.Run}) {
		group.Go(func() error {
			if err := s.run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	log.Info("pxectl serves", "version", version, "config", configPath, "data", cfg.DataDir, "socket", cfg.API.Socket)
	return group.Wait()
}

// listen opens every socket. Services that were opened before one that could not be are left to the end of the process.
func listen(cfg Config, version string, engine *deploy.Engine, pictures *store.Store, secrets keys, log *slog.Logger) ([]service, error) {
	plane := bootPlane{engine: engine, ramdisk: cfg.RamdiskDir(), http: uint16(cfg.HTTP.Port), tls: uint16(cfg.API.Port), pin: secrets.pin}
	var err error
	if plane.ruleBook, err = cfg.ruleBook(); err != nil {
		return nil, err
	}
	plane.neighbours = &neighbours{log: log, note: engine.Note, off: cfg.DHCP.Mode == "off"}
	services := plane.overhear(cfg, log)

	dhcp, err := listenDHCP(cfg, plane, log)
	switch {
	case err != nil:
		return nil, err
	case dhcp != nil:
		services = append(services, service{"dhcp", dhcp.Run})
	}
	for _, in := range cfg.Provisioning.Interfaces {
		addr := netip.AddrPortFrom(in.Address, uint16(cfg.TFTP.Port)).String()
		t, err := tftpd.Listen(tftpd.Config{
			Addr: addr, Open: plane.file, Done: plane.sawTFTP, Log: log,
			Client: func(a netip.Addr) string { return string(engine.MACAt(a)) },
		})
		if err != nil {
			return nil, err
		}
		services = append(services, service{"tftp", t.Run})
	}

	boot := http.NewServeMux()
	boot.Handle("/images/", plane.recorded(pictures.Handler()))
	boot.HandleFunc("POST /phone-home/{deployment}/{token}", plane.phoneHome)
	boot.Handle("/", ipxe.Handler(ipxe.Config{Decide: plane.script, Ramdisk: plane.ramdiskFile, Observe: plane.sawHTTP, Log: log}))
	agents := api.AgentHandler(engine, func(id string) ([]byte, error) {
		raw, _, err := pictures.Manifest(id)
		return raw, imageProblem(id, err)
	}, log)
	tlsConfig := &tls.Config{Certificates: []tls.Certificate{secrets.tls}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	for _, in := range cfg.Provisioning.Interfaces {
		plain, err := net.Listen("tcp", netip.AddrPortFrom(in.Address, uint16(cfg.HTTP.Port)).String())
		if err != nil {
			return nil, fmt.Errorf("http.port: %w", err)
		}
		secure, err := net.Listen("tcp", netip.AddrPortFrom(in.Address, uint16(cfg.API.Port)).String())
		if err != nil {
			return nil, fmt.Errorf("api.port: %w", err)
		}
		encrypted := tls.NewListener(ipxe.LimitConns(secure), tlsConfig)
		services = append(services,
			service{"http", func(ctx context.Context) error { return api.Serve(ctx, ipxe.LimitConns(plain), boot, log) }},
			service{"agents", func(ctx context.Context) error { return api.Serve(ctx, encrypted, agents, log) }},
		)
	}
	l, err := api.ListenUnix(cfg.API.Socket)
	if err != nil {
		return nil, fmt.Errorf("api.socket: %w", err)
	}
	checks := doctor{cfg: cfg, engine: engine, pictures: pictures, neighbours: plane.neighbours, ask: dhcpd.Ask}
	operators := api.NewServer(api.Config{Fleet: engine, Images: guardedImages{pictures, engine}, Leases: leaseBook{dhcp, engine, cfg.DHCP.Mode}, Doctor: checks.examine, Version: version, Log: log}).Handler()
	return append(services, service{"api", func(ctx context.Context) error { return api.Serve(ctx, l, operators, log) }}), nil
}

func newLog(c Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// serverFor is where a machine with that address reaches the boot plane: our address in its network, or the first
// one when a router stands between.
func (c Config) serverFor(machine netip.Addr) netip.AddrPort {
	for _, in := range c.Provisioning.Interfaces {
		if nic, err := net.InterfaceByName(in.Name); err == nil && inNetworkOf(nic, in.Address, machine) {
			return netip.AddrPortFrom(in.Address, uint16(c.HTTP.Port))
		}
	}
	return netip.AddrPortFrom(c.Provisioning.Interfaces[0].Address, uint16(c.HTTP.Port))
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
	return deploy.Image{ID: info.ID, Name: info.Name, RawSize: uint64(info.RawSize), SectorSize: info.SectorSize, Stored: uint64(info.DataSize)}, nil
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
