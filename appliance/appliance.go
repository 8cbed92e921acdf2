package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/appliance/interfaces"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// Options are the settings that are not in the configuration file.
type Options struct {
	Version string
	// NewDatabase creates the database beside the keys or images of an appliance, which is an error
	// otherwise. With a database there, it is an error.
	NewDatabase bool
	Log         *slog.Logger
}

// An Appliance has every part built and every socket open. Call Run once, or Close if it will not run.
type Appliance struct {
	cfg      config.Config
	version  string
	log      *slog.Logger
	db       *boltdb.Store
	images   *store.Store
	engine   *deploy.Engine
	services []service
}

type service struct {
	name string
	interfaces.Service
}

// Serve builds an appliance and runs it until ctx ends. It returns at most stopWithin later.
func Serve(ctx context.Context, cfg config.Config, o Options) error {
	return serve(ctx, cfg, o, stopWithin)
}

func serve(ctx context.Context, cfg config.Config, o Options, grace time.Duration) error {
	return within(ctx, grace, o.Log, func(ctx context.Context) error {
		a, err := New(cfg, o)
		if err != nil {
			return err
		}
		return a.Run(ctx)
	})
}

// New opens the database, the images and every socket, so a port that is taken is an error and not a line in
// the log. Nothing runs before Run.
func New(cfg config.Config, o Options) (*Appliance, error) {
	return build(cfg, o, func(*deploy.Config) {})
}

// build is New; adjust lets tests replace BMCs and clocks in the engine's configuration.
func build(cfg config.Config, o Options, adjust func(*deploy.Config)) (*Appliance, error) {
	a := &Appliance{cfg: cfg, version: o.Version, log: o.Log}
	if err := a.open(o, adjust); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *Appliance) open(o Options, adjust func(*deploy.Config)) error {
	if err := os.MkdirAll(a.cfg.DataDir, 0o750); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	db, secrets, err := openDatabase(a.cfg.DataDir, o.NewDatabase, a.log)
	if err != nil {
		return err
	}
	a.db = db
	if a.images, err = store.Open(filepath.Join(a.cfg.DataDir, "images"), a.log); err != nil {
		return fmt.Errorf("images: %w", err)
	}
	nics := interfaces.Of(a.cfg.Provisioning.Interfaces, a.log)
	engine := a.engineConfig(secrets, nics)
	adjust(&engine)
	if a.engine, err = deploy.New(engine); err != nil {
		return err
	}
	return a.listen(secrets, nics)
}

// Run serves until ctx ends. Then it closes everything.
func (a *Appliance) Run(ctx context.Context) error {
	defer func() { _ = errors.Join(a.images.Close(), a.db.Close()) }()
	group, ctx := errgroup.WithContext(ctx)
	engine := service{"engine", interfaces.Service{Run: a.engine.Run}}
	for _, s := range append(slices.Clone(a.services), engine) {
		group.Go(func() (err error) {
			defer bug.Return(a.log, s.name, &err)
			defer func() {
				if ctx.Err() != nil {
					a.log.Debug("stopped", "service", s.name)
				}
			}()
			if err := s.Run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	a.log.Info("pxectl serves", "version", a.version, "config", a.cfg.Path, "data", a.cfg.DataDir,
		"socket", a.cfg.API.Socket)
	// The engine may stop before the services that answer machines. Drain writes the events that they noted
	// after that.
	return errors.Join(group.Wait(), a.engine.Drain())
}

// Close closes an appliance that will not run.
func (a *Appliance) Close() error {
	var errs []error
	for _, s := range slices.Backward(a.services) {
		if s.Close != nil {
			errs = append(errs, s.Close())
		}
	}
	if a.images != nil {
		errs = append(errs, a.images.Close())
	}
	if a.db != nil {
		errs = append(errs, a.db.Close())
	}
	return errors.Join(errs...)
}
