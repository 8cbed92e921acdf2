package rogue

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
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
	Note func(inventory.Event) // called for a server that tells machines what to boot
	Off  bool                  // we take no part in DHCP, so somebody else has to tell machines what to boot
	// Own returns this host's addresses. nil: no answer is known to come from somebody with one of them.
	Own func() []netip.Prefix

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
	Last      time.Time // when it was last heard
	Leases    bool      // it hands out addresses
	Boots     string    // what it tells machines to boot; "" when nothing
	Pxectl    bool      // it answers as we do
	Impostor  string    // its MAC, when its address is one of ours
}

// MaxServers bounds what forged packets can make us remember.
const MaxServers = 64

// remembered is how long a server is kept after it was last heard.
const remembered = 24 * time.Hour

// Heard records an answer of another server. The first time that a server tells a machine what to boot is
// logged and noted. It returns the answer, with Impostor if its server or source is an address of ours.
func (s *Servers) Heard(o dhcpd.Overheard) dhcpd.Overheard {
	if s.Own != nil {
		for _, p := range s.Own() {
			if a := p.Addr(); a == o.Server || a == o.Source {
				o.Server, o.Impostor = a, true
				break
			}
		}
	}
	s.record(o)
	return o
}

func (s *Servers) record(o dhcpd.Overheard) {
	s.mu.Lock()
	s.forgetLocked(o.Time)
	h := s.atLocked(key{o.Server, o.Interface}, o.Boots())
	if h == nil {
		s.mu.Unlock()
		return
	}
	before := h.Boots
	h.Last, h.Leases = o.Time, h.Leases || o.Addr.IsValid()
	if o.Boots() {
		h.Boots = cmp.Or(BootName(o.File), o.Class)
		h.Pxectl = h.Pxectl || looksLikeUs(o)
	}
	if o.Impostor {
		h.Impostor = o.From.String()
	}
	now := *h
	s.mu.Unlock()
	if before != "" || now.Boots == "" || s.Off {
		return
	}
	what := "another DHCP server tells machines what to boot"
	if now.Impostor != "" {
		what = "somebody answers DHCP with our address, and tells machines what to boot"
	}
	s.Log.Warn(what, "server", o.Server, "mac", o.From.String(), "interface", o.Interface, "boot", now.Boots,
		"pxectl", now.Pxectl)
	s.Note(inventory.Event{
		At: o.Time.UTC(), Kind: inventory.KindDHCP, Text: now.String(), Data: map[string]string{
			inventory.DataServer: o.Server.String(), inventory.DataInterface: o.Interface,
			inventory.DataBoot: now.Boots,
		},
	})
}

// atLocked returns the entry of a server, and makes it when it is missing. If there is no room, the new
// server replaces the one that was silent for longest, and one that boots nothing before one that tells
// machines what to boot. A new server that boots nothing replaces none of the latter: then atLocked returns
// nil.
func (s *Servers) atLocked(k key, boots bool) *Server {
	if h := s.all[k]; h != nil {
		return h
	}
	if len(s.all) >= MaxServers {
		harm := func(h *Server) int { return min(len(h.Boots), 1) }
		leaves := slices.MinFunc(slices.Collect(maps.Values(s.all)), func(a, b *Server) int {
			return cmp.Or(harm(a)-harm(b), a.Last.Compare(b.Last))
		})
		if leaves.Boots != "" && !boots {
			return nil
		}
		delete(s.all, key{leaves.Addr, leaves.Interface})
	}
	if s.all == nil {
		s.all = map[key]*Server{}
	}
	h := &Server{Addr: k.addr, Interface: k.iface}
	s.all[k] = h
	return h
}

// forgetLocked forgets the servers that have been silent for long.
func (s *Servers) forgetLocked(now time.Time) {
	maps.DeleteFunc(s.all, func(_ key, h *Server) bool { return now.Sub(h.Last) > remembered })
}

// Absent records why no server can be heard.
func (s *Servers) Absent(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.absent = err.Error()
}

// String is one line: who it is, where, and what it tells machines to boot.
func (s Server) String() string {
	if s.Impostor != "" {
		return fmt.Sprintf("somebody answers with our address %v on %s, from the MAC %s, "+
			"and tells machines to boot %q", s.Addr, s.Interface, s.Impostor, s.Boots)
	}
	who := "another DHCP server"
	if s.Pxectl {
		who = "another pxectl"
	}
	return fmt.Sprintf("%s, %v on %s, tells machines to boot %q", who, s.Addr, s.Interface, s.Boots)
}

// List returns the servers, first those that tell machines what to boot, and why nothing can be heard, if so.
func (s *Servers) List() (all []Server, absent string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLocked(time.Now())
	for _, h := range s.all {
		all = append(all, *h)
	}
	slices.SortFunc(all, func(a, b Server) int {
		return cmp.Or(strings.Compare(b.Boots, a.Boots), a.Addr.Compare(b.Addr),
			strings.Compare(a.Interface, b.Interface))
	})
	return all, s.absent
}

// looksLikeUs says whether an answer has the form of ours: one of our boot programs, by URL or with the
// server's address as TFTP server name beside it, or our script with iPXE's settings in its query.
func looksLikeUs(o dhcpd.Overheard) bool {
	if u, err := url.Parse(o.File); err == nil && u.Host != "" {
		_, program := ipxe.NBP(strings.TrimPrefix(u.Path, ipxe.NBPPath("")))
		return u.Path == "/boot.ipxe" && strings.HasPrefix(u.RawQuery, "mac=${") || program
	}
	_, program := ipxe.NBP(o.File)
	return program && o.TFTP == o.Server.String()
}

// BootName is a boot file without iPXE's settings, fit for a terminal: at most 64 bytes, and "(unreadable)"
// when nothing of it can be shown.
func BootName(file string) string {
	name, _, _ := strings.Cut(file, "?")
	if name = inventory.Text(printable.Only(name), 64); name == "" && file != "" {
		return "(unreadable)"
	}
	return name
}
