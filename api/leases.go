package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Leases are those that the appliance's own DHCP server gave. Without such a server, both methods return a
// Problem with inventory.CodeConflict.
type Leases interface {
	Leases() ([]Lease, error)
	DeleteLease(netip.Addr) error
}

// A Lease is an address and who has it.
type Lease struct {
	Address   string    `json:"address"`
	MAC       string    `json:"mac"`
	ClientID  string    `json:"client_id" doc:"in hexadecimal; 01 and the MAC for clients that send none"`
	Hostname  string    `json:"hostname,omitempty" doc:"what the client calls itself"`
	Machine   string    `json:"machine,omitempty" doc:"name of the machine with that MAC"`
	State     string    `json:"state" enum:"bound,declined" doc:"declined: out of use for a while, because the client found somebody else there"`
	Reserved  bool      `json:"reserved"`
	ExpiresAt time.Time `json:"expires_at"`
}

// LeaseList is the answer to a list.
type LeaseList struct {
	Leases []Lease `json:"leases"`
}

func (s *Server) addLeases(rest huma.API) {
	handle(rest, http.MethodGet, "/v1/leases", "List DHCP leases", func(context.Context,
		*struct{},
	) (*body[LeaseList], error) {
		all, err := s.leases.Leases()
		return &body[LeaseList]{LeaseList{all}}, err
	})
	type ref struct {
		Address string `path:"address"`
	}
	handle(rest, http.MethodDelete, "/v1/leases/{address}", "Delete a DHCP lease", func(ctx context.Context,
		in *ref,
	) (*struct{}, error) {
		a, err := netip.ParseAddr(in.Address)
		if err != nil {
			return nil, invalid("address %q: want an IP address", in.Address)
		}
		if err := s.leases.DeleteLease(a); err != nil {
			return nil, err
		}
		s.log.Info("lease deleted", "address", a, "actor", actorOf(ctx))
		return nil, nil
	})
}

// Leases lists what the appliance's DHCP server gave.
func (c *Client) Leases(ctx context.Context) ([]Lease, error) {
	l, err := get[LeaseList](ctx, c, "/v1/leases")
	return l.Leases, err
}

// DeleteLease makes the DHCP server forget who has an address.
func (c *Client) DeleteLease(ctx context.Context, address string) error {
	_, err := call[struct{}](ctx, c, http.MethodDelete, "/v1/leases/"+url.PathEscape(address), nil)
	return err
}
