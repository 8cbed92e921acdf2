package rogue

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/internal/printable"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/ipxe"
)

// Servers are the other DHCP servers that were overheard. The zero Servers is ready for use.
type Servers struct {
	Log  *slog.Logger
	Note func(inventory.Event) // told of a server that tells machines what to boot
	Off  bool                  // we take no part in DHCP, so somebody else has to tell machines what to boot

	mu     sync.Mutex
	absent string // why nothing can be heard; "" when it can
	all    map[key]*Server
}

// A key is a server on an interface.
type key struct {
	addr  netip.Addr
	iface string
}

// A Server is another DHCP server, and what it said.
type Server struct {
	Addr      netip.Addr
	Interface string
	Last      time.Time
	Leases    bool   // it hands out addresses
	Boots     string // what it tells machines to boot; "" when nothing
	Pxectl    bool   // it answers as we do
}

// maxServers bounds what forged packets can make us remember. Past it, new servers are not.
const maxServers = 64

// Heard takes what was overheard. The first time that a server tells a machine what to boot is logged and
// noted.
func (s *Servers) Heard(o dhcpd.Overheard) {
	s.mu.Lock()
	if s.all == nil {
		s.all = map[key]*Server{}
	}
	k := key{o.Server, o.Interface}
	h := s.all[k]
	if h == nil {
		if len(s.all) >= maxServers {
			s.mu.Unlock()
			return
		}
		h = &Server{Addr: o.Server, Interface: o.Interface}
		s.all[k] = h
	}
	before := h.Boots
	h.Last, h.Leases = o.Time, h.Leases || o.Addr.IsValid()
	if o.Boots() {
		h.Boots = cmp.Or(BootName(o.File), o.Class)
		h.Pxectl = h.Pxectl || looksLikeUs(o)
	}
	now := *h
	s.mu.Unlock()
	if before != "" || now.Boots == "" || s.Off {
		return
	}
	s.Log.Warn("another DHCP server tells machines what to boot", "server", o.Server, "interface", o.Interface, "boot", now.Boots, "pxectl", now.Pxectl)
	s.Note(inventory.Event{At: o.Time.UTC(), Kind: inventory.KindDHCP, Text: now.String(), Data: map[string]string{
		inventory.DataServer: o.Server.String(), inventory.DataInterface: o.Interface, inventory.DataBoot: now.Boots,
	}})
}

// Absent says why nothing can be heard.
func (s *Servers) Absent(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.absent = err.Error()
}

// String is one line.
func (s Server) String() string {
	who := "another DHCP server"
	if s.Pxectl {
		who = "another pxectl"
	}
	return fmt.Sprintf("%s, %v on %s, tells machines to boot %q", who, s.Addr, s.Interface, s.Boots)
}

// List returns the servers, those that matter most first, and why nothing can be heard.
func (s *Servers) List() (all []Server, absent string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.all {
		all = append(all, *h)
	}
	slices.SortFunc(all, func(a, b Server) int {
		return cmp.Or(strings.Compare(b.Boots, a.Boots), a.Addr.Compare(b.Addr), strings.Compare(a.Interface, b.Interface))
	})
	return all, s.absent
}

// looksLikeUs says whether an answer has our own form: a name of our boot programs with the server's address
// in words beside it, or our script with iPXE's settings behind it.
func looksLikeUs(o dhcpd.Overheard) bool {
	if u, err := url.Parse(o.File); err == nil && u.Host != "" {
		_, program := ipxe.NBP(strings.TrimPrefix(u.Path, ipxe.NBPPath("")))
		return u.Path == "/boot.ipxe" && strings.HasPrefix(u.RawQuery, "mac=${") || program
	}
	_, program := ipxe.NBP(o.File)
	return program && o.TFTP == o.Server.String()
}

// BootName is a boot file without iPXE's settings, fit for a terminal.
func BootName(file string) string {
	file, _, _ = strings.Cut(file, "?")
	return inventory.Text(printable.Only(file), 64)
}
