package interfaces

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/inventory"
)

// A Set watches the provisioning interfaces of an appliance. Run updates it; the other methods but Tell may
// be called at any time.
type Set struct {
	log     *slog.Logger
	note    func(inventory.Event)
	moved   func(name string, a netip.Addr)
	changes *os.File // an rtnetlink socket, readable after a change

	mu   sync.Mutex
	all  []*State
	news chan struct{} // closed when an address changes
	// unopened is what could not be opened, by interface and service.
	unopened map[string]error
}

// A State is an interface with the address that it is served at now.
type State struct {
	config.Interface
	Was   netip.Addr // the address before, if there was one
	Since time.Time  // when it left that address

	at condition
}

// A condition is what look finds of an interface.
type condition struct {
	index int // 0: there is no such interface
	up    bool
	link  bool
	has   bool // the address that we serve at
}

const (
	// Changes that belong together (made anew, brought up, given its address) come within settle.
	settle = 200 * time.Millisecond
	// The kernel loses messages when there are many, so the interfaces are also looked at every lookAgain. A
	// port that is taken at a new address is tried again after as long.
	lookAgain = 2 * time.Second
)

// Of returns the interfaces as they are now. Nothing is watched yet.
func Of(all []config.Interface, log *slog.Logger) *Set {
	f := &Set{
		log: log, note: func(inventory.Event) {}, moved: func(string, netip.Addr) {},
		news: make(chan struct{}), unopened: map[string]error{},
	}
	for _, in := range all {
		l := &State{Interface: in}
		l.at, _ = look(in.Name, in.Address)
		f.all = append(f.all, l)
	}
	return f
}

// Tell sets whom Run tells; call it before Run. note gets each change as an event. moved gets an interface's
// new address before anything answers there.
func (f *Set) Tell(note func(inventory.Event), moved func(name string, a netip.Addr)) {
	f.note, f.moved = note, moved
}

// Listen subscribes to the kernel's messages about links and IPv4 addresses: rtnetlink(7).
func (f *Set) Listen() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
		unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("follow the interfaces: %w", err)
	}
	if err := unix.Bind(fd,
		&unix.SockaddrNetlink{
			Family: unix.AF_NETLINK,
			Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR,
		}); err != nil {
		unix.Close(fd)
		return fmt.Errorf("follow the interfaces: %w", err)
	}
	f.changes = os.NewFile(uintptr(fd), "rtnetlink")
	return nil
}

// Close closes a set that listens and will not run.
func (f *Set) Close() error { return f.changes.Close() }

// Run looks at the interfaces whenever the kernel says that something happened, until ctx ends.
func (f *Set) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx,
		bug.Recovering(f.log, "stop to follow the interfaces", func() { _ = f.changes.Close() }))
	defer stop()
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		// The messages are not read, but the interfaces themselves, so messages that were lost (ENOBUFS) do
		// no harm.
		_ = f.changes.SetReadDeadline(time.Now().Add(lookAgain))
		_, err := f.changes.Read(buf)
		if err == nil || errors.Is(err, unix.ENOBUFS) {
			_ = sleep.For(ctx, settle)
			f.drain(buf)
		}
		f.look()
	}
	return nil
}

func (f *Set) drain(buf []byte) {
	_ = f.changes.SetReadDeadline(time.Now())
	for {
		if _, err := f.changes.Read(buf); err != nil {
			return
		}
	}
}

// look returns the condition of an interface, and its IPv4 addresses.
func look(name string, ours netip.Addr) (c condition, addrs []netip.Addr) {
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return condition{}, nil
	}
	addrs = config.IPv4Of(*nic)
	return condition{
		nic.Index, nic.Flags&net.FlagUp != 0, nic.Flags&net.FlagRunning != 0,
		slices.Contains(addrs, ours),
	}, addrs
}

// look compares the interfaces with what they were. It moves those that have another address, and logs and
// notes what happened.
func (f *Set) look() {
	for _, l := range f.all {
		now, addrs := look(l.Name, l.Address)
		before, from := l.at, l.Address
		if now == before && now.has {
			continue
		}
		if moves := !now.has && !l.Fixed && len(addrs) > 0; moves {
			now.has = true
			f.move(l, addrs[0])
		}
		f.mu.Lock()
		l.at = now
		f.mu.Unlock()
		if text, ok := told(l.Name, before, now, from, l.Address); text != "" {
			level := slog.LevelInfo
			if !ok {
				level = slog.LevelWarn
			}
			f.log.Log(context.Background(), level, text, "interface", l.Name, "address", l.Address)
			f.note(inventory.Event{
				At:   time.Now().UTC(),
				Kind: inventory.KindInterface,
				Text: text,
				Data: map[string]string{
					inventory.DataInterface: l.Name, inventory.DataAddress: l.Address.String(),
				},
			})
		}
	}
}

// move makes another address of an interface the one that we serve at.
func (f *Set) move(l *State, a netip.Addr) {
	f.moved(l.Name, a)
	f.mu.Lock()
	defer f.mu.Unlock()
	l.Was, l.Address, l.Since = l.Address, a, time.Now()
	close(f.news)
	f.news = make(chan struct{})
}

// told says in words what happened to an interface, and whether machines can boot from it again; "" when
// nothing did.
func told(name string, before, now condition, from, to netip.Addr) (text string, ok bool) {
	switch {
	case now == before && from == to:
		return "", true
	case now.index == 0:
		return fmt.Sprintf("interface %s is gone: no machine on it can boot until it is back", name), false
	case !now.has:
		return fmt.Sprintf("interface %s no longer has the address %v: no machine on it can boot until it has",
			name, to), false
	case from != to && !now.up:
		return fmt.Sprintf("interface %s has the address %v instead of %v, and is down", name, to,
			from), false
	case !now.up:
		return fmt.Sprintf("interface %s is down: no machine on it can boot until it is up", name), false
	case from != to:
		return fmt.Sprintf("interface %s has the address %v instead of %v; machines boot from there now",
			name, to, from), true
	case !now.link:
		return fmt.Sprintf("interface %s has no link", name), false
	}
	return fmt.Sprintf("interface %s is back with the address %v", name, to), true
}

// address returns where an interface is served now. news is closed when an address changes.
func (f *Set) address(name string) (a netip.Addr, news <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := slices.IndexFunc(f.all, func(l *State) bool { return l.Name == name })
	return f.all[at].Address, f.news
}

// All returns the interfaces as they are now.
func (f *Set) All() []State {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]State, len(f.all))
	for i, l := range f.all {
		all[i] = *l
	}
	return all
}

// AddressFor returns where a machine with that address reaches us: our address in its network, or the first
// interface's when a router is between.
func (f *Set) AddressFor(machine netip.Addr) netip.Addr {
	all := f.All()
	for _, in := range all {
		if nic, err := net.InterfaceByName(in.Name); err == nil && inNetworkOf(nic, in.Address, machine) {
			return in.Address
		}
	}
	return all[0].Address
}

// A Service has its sockets open. Run serves until ctx ends and closes them; Close closes those of a service
// that will not run.
type Service struct {
	Run   func(ctx context.Context) error
	Close func() error
}

// At opens a service at the address of an interface. The service's Run opens it anew at each new address.
// what is its name in the log.
func (f *Set) At(name, what string, open func(netip.Addr) (Service, error)) (Service, error) {
	first, _ := f.address(name)
	s, err := open(first)
	if err != nil {
		return Service{}, err
	}
	run := func(ctx context.Context) error {
		var all sync.WaitGroup
		defer all.Wait()
		for at, now := first, s; ; {
			here, leave := context.WithCancelCause(ctx)
			serve := now.Run
			all.Go(func() {
				var err error
				defer func() { leave(err) }()
				defer bug.Return(f.log, what, &err)
				err = serve(here)
			})
			var ok bool
			if at, now, ok = f.next(here, name, what, at, open); !ok {
				if ctx.Err() != nil {
					return nil
				}
				return context.Cause(here) // it ended by itself
			}
			leave(nil) // transfers from the old address cannot succeed
		}
	}
	return Service{run, s.Close}, nil
}

// next waits until the interface has another address, and opens the service there. ok is false when ctx ended
// first.
func (f *Set) next(
	ctx context.Context, name, what string, at netip.Addr, open func(netip.Addr) (Service, error),
) (netip.Addr, Service, bool) {
	var complained netip.Addr
	for {
		a, news := f.address(name)
		var again <-chan time.Time
		if a != at {
			s, err := open(a)
			f.opened(name, what, err)
			if err == nil {
				return a, s, true
			}
			if complained != a {
				complained = a
				f.log.Error(what+" cannot be served at the new address yet", "interface", name, "address", a,
					"err", err)
			}
			again = time.After(lookAgain)
		} else {
			f.opened(name, what, nil) // the old address is back, where the service is still open
		}
		select {
		case <-ctx.Done():
			return at, Service{}, false
		case <-news:
		case <-again:
		}
	}
}

// inNetworkOf says whether a machine is in the network of our address on an interface.
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
