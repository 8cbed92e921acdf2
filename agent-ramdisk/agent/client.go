package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"time"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/inventory"
)

// ErrNonce is the appliance's answer 401: it does not know this boot (any more). Only a reboot helps, since
// it brings a new nonce.
var ErrNonce = errors.New("the appliance refuses this boot's nonce")

// errGone is its answer (404, 409, 410) that it no longer wants the order.
var errGone = errors.New("the appliance does not know or want this any more")

// callTime bounds a call: the appliance holds "next" for 20 s.
const callTime = 45 * time.Second

// A Client calls the appliance.
type Client struct {
	params Params
	http   *http.Client
}

// NewClient makes a client that trusts only the pinned key. It makes a key of its own, which binds this boot
// to the client; the key is never written down.
func NewClient(p Params) (*Client, error) {
	own, err := selfSigned()
	if err != nil {
		return nil, fmt.Errorf("make the agent's key: %w", err)
	}
	return &Client{p, &http.Client{
		Timeout: callTime,
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout:   15 * time.Second, // an emulated or very busy CPU is slow
			ResponseHeaderTimeout: 40 * time.Second,
			IdleConnTimeout:       90 * time.Second,
			TLSClientConfig: &tls.Config{
				MinVersion: tls.VersionTLS13,
				// The pin replaces the certificate chain, and holds whatever this machine's clock says.
				InsecureSkipVerify: true,
				VerifyConnection:   pinned(p.Pin),
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					return own, nil
				},
			},
		},
	}}, nil
}

// selfSigned makes a key and the smallest certificate for it that TLS accepts.
func selfSigned() (*tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pxectl agent"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, nil
}

func pinned(pin [32]byte) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errors.New("the server shows no certificate")
		}
		if got := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo); got != pin {
			return fmt.Errorf("the server's key is sha256:%x, and not the pinned one: "+
				"somebody else answers at the appliance's address, or its key was changed", got)
		}
		return nil
	}
}

// call posts in as JSON and reads the answer into out, which may be nil.
func (c *Client) call(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, path, nil, body, func(r io.Reader) error {
		if out == nil {
			return nil
		}
		return json.NewDecoder(io.LimitReader(r, 16<<20)).Decode(out)
	})
}

// manifest fetches an image's manifest and checks it against the image's id. refused says why a complete
// manifest is wrong, which is final. Another call may mend err.
func (c *Client) manifest(ctx context.Context, bootID, id string) (m *images.Manifest, refused, err error) {
	header := http.Header{inventory.BootIDHeader: {bootID}}
	err = c.do(ctx, http.MethodGet, "/agent/v1/images/"+id+"/manifest", header, nil, func(r io.Reader) error {
		var got string
		m, got, refused = images.Read(r)
		switch got {
		case "":
			return refused
		case id:
		default:
			refused = fmt.Errorf("its sha256 is %s", got)
		}
		return nil
	})
	return m, refused, err
}

func (c *Client) do(
	ctx context.Context, method, path string, header http.Header, body []byte, read func(io.Reader) error,
) error {
	req, err := http.NewRequestWithContext(ctx, method, c.params.URL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	maps.Copy(req.Header, header)
	req.Header.Set("Authorization", "Bearer "+c.params.Nonce)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return refusal(resp)
	}
	if err := read(resp.Body); err != nil {
		return fmt.Errorf("%s %s: answer: %w", method, path, err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // reuse the connection
	return nil
}

// refusal reads problem+json (RFC 9457).
func refusal(resp *http.Response) error {
	var p struct{ Code, Detail string }
	// Without problem+json, the status must do.
	_ = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&p)
	err := fmt.Errorf("%s %s: %s %s %s", resp.Request.Method, resp.Request.URL.Path, resp.Status, p.Code,
		p.Detail)
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return fmt.Errorf("%w: %w", ErrNonce, err)
	case http.StatusGone, http.StatusNotFound, http.StatusConflict:
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return err
}

func (c *Client) register(
	ctx context.Context, r inventory.Registration,
) (out inventory.Registered, err error) {
	return out, c.call(ctx, "/agent/v1/register", r, &out)
}

func (c *Client) next(ctx context.Context, bootID string) (out inventory.Order, err error) {
	return out, c.call(ctx, "/agent/v1/next", inventory.Ask{BootID: bootID}, &out)
}

func (c *Client) progress(ctx context.Context, order string, p inventory.Progress) error {
	return c.call(ctx, "/agent/v1/orders/"+order+"/progress", p, nil)
}

func (c *Client) result(ctx context.Context, order string, r inventory.Result) error {
	return c.call(ctx, "/agent/v1/orders/"+order+"/result", r, nil)
}
