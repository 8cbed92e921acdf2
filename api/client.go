package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// maxAnswer bounds an ordinary answer; a rack of machines with their reports is a few MB.
const maxAnswer = 256 << 20

// A Client calls one appliance. It can be used by several goroutines at once. Errors that the
// appliance answered with, and those of reaching it, are *inventory.Problem.
type Client struct {
	base   string // without a slash at the end
	socket string // "" for http
	http   *http.Client
}

// NewClient makes a client for a Unix socket (a path, or unix://PATH) or an http(s) base URL. It opens
// nothing.
func NewClient(target string) (*Client, error) {
	if strings.HasPrefix(target, "http://") || strings.HasPrefix(target, "https://") {
		u, err := url.Parse(target)
		if err != nil {
			return nil, err
		}
		return &Client{base: strings.TrimSuffix(u.String(), "/"), http: &http.Client{}}, nil
	}
	socket := strings.TrimPrefix(target, "unix://")
	if socket == "" {
		return nil, errors.New("want a path, unix://PATH or an http URL")
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &Client{base: "http://pxectl", socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 16,
		DisableCompression:  true,
	}}}, nil
}

// Version asks which program answers.
func (c *Client) Version(ctx context.Context) (VersionInfo, error) {
	return get[VersionInfo](ctx, c, "/v1/version")
}

// Machines lists all, without their reports.
func (c *Client) Machines(ctx context.Context) ([]inventory.Machine, error) {
	l, err := get[Machines](ctx, c, "/v1/machines")
	return l.Machines, err
}

// Machine returns a machine with its report. ref is a name, id or MAC, here and below.
func (c *Client) Machine(ctx context.Context, ref string) (inventory.Machine, error) {
	return get[inventory.Machine](ctx, c, machinePath(ref))
}

// AddMachine enrols a machine.
func (c *Client) AddMachine(ctx context.Context, m deploy.NewMachine) (inventory.Machine, error) {
	return call[inventory.Machine](ctx, c, http.MethodPost, "/v1/machines", m)
}

// EditMachine changes what e names and leaves the rest.
func (c *Client) EditMachine(ctx context.Context, ref string, e deploy.Edit) (inventory.Machine, error) {
	return call[inventory.Machine](ctx, c, http.MethodPatch, machinePath(ref), e)
}

// DeleteMachine forgets a machine.
func (c *Client) DeleteMachine(ctx context.Context, ref string) error {
	_, err := call[struct{}](ctx, c, http.MethodDelete, machinePath(ref), nil)
	return err
}

// DeleteDiscovered forgets all machines that wait for approval, and says how many there were.
func (c *Client) DeleteDiscovered(ctx context.Context) (int, error) {
	d, err := call[Deleted](ctx, c, http.MethodDelete, "/v1/machines?state=discovered", nil)
	return d.Deleted, err
}

// Approve lets a discovered machine in. Approving it again is no error.
func (c *Client) Approve(ctx context.Context, ref string, a deploy.Approval) (inventory.Machine, error) {
	return call[inventory.Machine](ctx, c, http.MethodPost, machinePath(ref)+"/approve", a)
}

// Why says how far a machine came.
func (c *Client) Why(ctx context.Context, ref string) (diagnose.Diagnosis, error) {
	return get[diagnose.Diagnosis](ctx, c, machinePath(ref)+"/why")
}

// PowerStatus asks the BMC for the machine's power.
func (c *Client) PowerStatus(ctx context.Context, ref string) (inventory.Power, error) {
	return get[inventory.Power](ctx, c, machinePath(ref)+"/power")
}

// Power has the BMC do a. For on, off and cycle it returns when that is proved.
func (c *Client) Power(ctx context.Context, ref string, a power.Action) (inventory.Power, error) {
	return call[inventory.Power](ctx, c, http.MethodPost, machinePath(ref)+"/power", PowerRequest{a})
}

// BootDevice asks the BMC for the override of the boot order.
func (c *Client) BootDevice(ctx context.Context, ref string) (BootDevice, error) {
	return get[BootDevice](ctx, c, machinePath(ref)+"/boot")
}

// SetBootDevice sets the override of the boot order, and returns what the BMC reads back.
func (c *Client) SetBootDevice(ctx context.Context, ref string, b BootDevice) (BootDevice, error) {
	return call[BootDevice](ctx, c, http.MethodPut, machinePath(ref)+"/boot", b)
}

// Deploy starts a deployment. It returns when the deployment is recorded, and does not wait for its end.
func (c *Client) Deploy(ctx context.Context, ref string, r inventory.DeployRequest) (Deployment, error) {
	return call[Deployment](ctx, c, http.MethodPost, machinePath(ref)+"/deploy", r)
}

// Plan says what Deploy would do.
func (c *Client) Plan(ctx context.Context, ref string, r inventory.DeployRequest) (deploy.Plan, error) {
	return call[deploy.Plan](ctx, c, http.MethodPost, machinePath(ref)+"/plan", r)
}

// Release erases the disks of a machine that has a system; the answer is the run that does so.
func (c *Client) Release(ctx context.Context, ref string, r inventory.EraseRequest) (Deployment, error) {
	return call[Deployment](ctx, c, http.MethodPost, machinePath(ref)+"/release", r)
}

// Clean erases the disks of a machine that is available.
func (c *Client) Clean(ctx context.Context, ref string, r inventory.EraseRequest) (Deployment, error) {
	return call[Deployment](ctx, c, http.MethodPost, machinePath(ref)+"/clean", r)
}

// Erasures lists erased disks, newest first. more says that there are older ones.
func (c *Client) Erasures(
	ctx context.Context, q deploy.ErasureQuery,
) (list []inventory.Erasure, more bool, err error) {
	v := url.Values{"limit": {strconv.Itoa(q.Limit)}}
	if q.Of != "" {
		v.Set("of", q.Of)
	}
	if q.Before != 0 {
		v.Set("before", strconv.FormatUint(q.Before, 10))
	}
	l, err := get[Erasures](ctx, c, "/v1/erasures?"+v.Encode())
	return l.Erasures, l.More, err
}

// Deployments lists deployments, newest first. more says that there are older ones.
func (c *Client) Deployments(
	ctx context.Context, q deploy.DeploymentQuery,
) (list []Deployment, more bool, err error) {
	v := url.Values{"limit": {strconv.Itoa(q.Limit)}}
	if q.Machine != "" {
		v.Set("machine", q.Machine)
	}
	if q.Running {
		v.Set("running", "true")
	}
	if q.Before != "" {
		v.Set("before", string(q.Before))
	}
	l, err := get[Deployments](ctx, c, "/v1/deployments?"+v.Encode())
	return l.Deployments, l.More, err
}

// Deployment returns a deployment. ref is its id, or a machine's name, id or MAC for the machine's last one.
func (c *Client) Deployment(ctx context.Context, ref string) (Deployment, error) {
	return get[Deployment](ctx, c, "/v1/deployments/"+url.PathEscape(ref))
}

// CancelDeployment cancels a deployment. ref is its id, or its machine's name, id or MAC.
func (c *Client) CancelDeployment(ctx context.Context, ref string) (Deployment, error) {
	return call[Deployment](ctx, c, http.MethodPost, "/v1/deployments/"+url.PathEscape(ref)+"/cancel", nil)
}

// RetryDeployment starts a failed deployment again. ref is its id, or its machine's name, id or MAC.
func (c *Client) RetryDeployment(ctx context.Context, ref string) (Deployment, error) {
	return call[Deployment](ctx, c, http.MethodPost, "/v1/deployments/"+url.PathEscape(ref)+"/retry", nil)
}

// Images lists what is in the store.
func (c *Client) Images(ctx context.Context) ([]store.Info, error) {
	l, err := get[ImageList](ctx, c, "/v1/images")
	return l.Images, err
}

// Image returns an image. ref is its name, its id or the beginning of its id, as for DeleteImage.
func (c *Client) Image(ctx context.Context, ref string) (store.Info, error) {
	return get[store.Info](ctx, c, "/v1/images/"+url.PathEscape(ref))
}

// DeleteImage deletes an image. It is refused while a deployment needs the image.
func (c *Client) DeleteImage(ctx context.Context, ref string) error {
	_, err := call[struct{}](ctx, c, http.MethodDelete, "/v1/images/"+url.PathEscape(ref), nil)
	return err
}

func machinePath(ref string) string { return "/v1/machines/" + url.PathEscape(ref) }

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return call[T](ctx, c, http.MethodGet, path, nil)
}

// call makes one request with a JSON body (or none, for nil) and reads the answer as T.
func call[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	var content io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return out, fmt.Errorf("%s %s: %w", method, path, err)
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return out, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.do(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return out, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&out); err != nil {
		return out, c.unreachable(fmt.Errorf("%s %s: answer: %w", method, path, err))
	}
	return out, nil
}

// do sends the request; an answer that is not a success becomes a Problem.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readProblem(resp)
}

func readProblem(resp *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var p Problem
	if err := json.Unmarshal(data, &p); err != nil || p.Code == "" {
		return &inventory.Problem{
			Code: codeOf(resp.StatusCode), Detail: fmt.Sprintf("the appliance answered %s", resp.Status),
			Hint: "is it a pxectl that listens there?",
		}
	}
	return p.problem()
}

func (p *Problem) problem() *inventory.Problem {
	return &inventory.Problem{Code: p.Code, Detail: p.Detail, Hint: p.Hint}
}

// unreachable says what to do when the appliance could not be reached or went away.
func (c *Client) unreachable(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err // without the URL that we made up
	}
	where := c.socket
	if where == "" {
		where = c.base
	}
	p := &inventory.Problem{Code: inventory.CodeInternal, Err: fmt.Errorf("%w: %w", ErrUnreachable, err)}
	switch {
	case c.socket != "" && errors.Is(err, fs.ErrNotExist):
		p.Detail = fmt.Sprintf("no appliance at %s: no such socket", where)
		p.Hint = "is `pxectl serve` running? another socket: --socket or PXECTL_SOCKET"
	case errors.Is(err, syscall.ECONNREFUSED):
		p.Detail = fmt.Sprintf("no appliance at %s: nobody is listening", where)
		p.Hint = "start `pxectl serve`; another socket: --socket or PXECTL_SOCKET"
	case errors.Is(err, fs.ErrPermission):
		p.Detail = fmt.Sprintf("no permission to use %s", where)
		p.Hint = "run as root, or as a member of the socket's group"
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		p.Detail = fmt.Sprintf("the appliance at %s went away in the middle of the answer", where)
		p.Hint = "see its log, then try again"
	default:
		p.Detail = fmt.Sprintf("appliance at %s: %v", where, err)
	}
	return p
}

// ErrUnreachable is wrapped by problems of reaching the appliance, so that a caller that waits
// for something can wait for the appliance's return too.
var ErrUnreachable = errors.New("appliance unreachable")
