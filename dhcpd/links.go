package dhcpd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// An Interface is one provisioning interface and our own IPv4 address on it, which
// answers carry as the server's.
type Interface struct {
	Name string
	Addr netip.Addr
}

// checkInterfaces reports every interface that is missing or lacks its address, with
// what there is instead.
func checkInterfaces(want []Interface) error {
	if len(want) == 0 {
		return errors.New("dhcp: no interface given")
	}
	there, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("dhcp: list interfaces: %w", err)
	}
	var names []string
	for _, i := range there {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	var errs []error
	for _, w := range want {
		at := slices.IndexFunc(there, func(i net.Interface) bool { return i.Name == w.Name })
		if at < 0 {
			errs = append(errs, fmt.Errorf("dhcp: no such interface %q (have: %s)", w.Name, list(names)))
			continue
		}
		have, err := ipv4Addrs(there[at])
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("dhcp: addresses of interface %q: %w", w.Name, err))
		case !slices.Contains(have, w.Addr.String()):
			errs = append(errs,
				fmt.Errorf("dhcp: interface %q does not have the IPv4 address %v (has: %s)", w.Name, w.Addr,
					list(have)))
		}
	}
	return errors.Join(errs...)
}

func ipv4Addrs(i net.Interface) ([]string, error) {
	addrs, err := i.Addrs()
	if err != nil {
		return nil, err
	}
	var have []string
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil {
			have = append(have, ip.IP.String())
		}
	}
	return have, nil
}

func list(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

// links finds the configured interface of a packet by its index. The index of an
// interface that is made anew (a bridge, a VLAN) changes, so the names are read again
// when an unknown one turns up, at most once a second.
type links struct {
	now func() time.Time

	mu         sync.Mutex
	configured map[string]netip.Addr
	names      map[int]string
	readAt     time.Time
}

func newLinks(want []Interface, now func() time.Time) *links {
	l := &links{configured: map[string]netip.Addr{}, now: now}
	for _, w := range want {
		l.configured[w.Name] = w.Addr
	}
	return l
}

// readdress sets our own address on an interface. The interface's index may have changed, too.
func (l *links) readdress(name string, a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.configured[name]; ok {
		l.configured[name], l.names, l.readAt = a, nil, time.Time{}
	}
}

// ours says whether an address is one that we answer with.
func (l *links) ours(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, have := range l.configured {
		if have == a {
			return true
		}
	}
	return false
}

// find is the interface with that index; ok is false when it is not one of ours.
func (l *links) find(index int) (i Interface, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	name, known := l.names[index]
	if now := l.now(); !known && now.Sub(l.readAt) >= time.Second {
		if all, err := net.Interfaces(); err == nil {
			l.names, l.readAt = map[int]string{}, now
			for _, i := range all {
				l.names[i.Index] = i.Name
			}
		}
		name = l.names[index]
	}
	a, ok := l.configured[name]
	return Interface{Name: name, Addr: a}, ok
}
