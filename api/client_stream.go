package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/internal/backoff"
	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/inventory"
)

// EventQuery says which events of the timeline to read.
type EventQuery struct {
	After   uint64 // only events with a higher seq
	Machine string // ref; "" for all
	Tail    int    // how many of the events that there are, the last ones; 0 for all
	Follow  bool
}

// Events calls each for every event, oldest first. With Follow it goes on until ctx ends or each returns an
// error. When the connection breaks, it connects again and goes on after the last event seen.
func (c *Client) Events(ctx context.Context, q EventQuery, each func(inventory.Event) error) error {
	ever := false // an appliance that was never there is an error, one that went away is waited for
	wait := backoff.Backoff{First: 250 * time.Millisecond, Most: 5 * time.Second}
	for {
		began := q.After
		attached, err := c.eventsOnce(ctx, &q, each)
		ever = ever || attached
		broken := err == nil || errors.Is(err, ErrUnreachable)
		if !q.Follow || !ever || !broken || ctx.Err() != nil {
			return err
		}
		if q.After > began {
			wait.Reset()
		}
		if err := sleep.For(ctx, wait.Next()); err != nil {
			return err
		}
	}
}

// eventsOnce reads one answer, and sets q to begin after the last event that it saw.
func (c *Client) eventsOnce(
	ctx context.Context, q *EventQuery, each func(inventory.Event) error,
) (attached bool, err error) {
	v := url.Values{}
	if q.After > 0 {
		v.Set("after", strconv.FormatUint(q.After, 10))
	}
	if q.Machine != "" {
		v.Set("machine", q.Machine)
	}
	if q.Tail > 0 {
		v.Set("tail", strconv.Itoa(q.Tail))
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/v1/events?"+v.Encode(), nil)
	if err != nil {
		return false, err
	}
	resp, err := c.do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var stop error
	err = readEvents(resp.Body, func(data []byte) error {
		var e inventory.Event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("event after %d: %w", q.After, err)
		}
		stop = each(e)
		q.After, q.Tail = e.Seq, 0
		return stop
	})
	switch {
	case stop != nil:
		return true, stop
	case err != nil && ctx.Err() != nil:
		return true, ctx.Err()
	case err != nil:
		return true, c.unreachable(err)
	}
	return true, nil
}

// maxEvent bounds one line of an event stream.
const maxEvent = 1 << 20

// readEvents reads a stream of server-sent events (WHATWG HTML, section 9.2.6) and calls each with the data
// of every message. It skips event names, ids and comments, because the data has all of that.
func readEvents(r io.Reader, each func(data []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	var data []byte
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 {
			if len(data) > 0 {
				if err := each(data); err != nil {
					return err
				}
			}
			data = data[:0]
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		if string(field) != "data" {
			continue
		}
		if len(data) > 0 {
			data = append(data, '\n')
		}
		data = append(data, bytes.TrimPrefix(value, []byte(" "))...)
		if len(data) > maxEvent {
			return fmt.Errorf("event stream: a message of more than %d bytes", maxEvent)
		}
	}
	return lines.Err()
}

// Import sends an image and returns it as it was stored.
func (c *Client) Import(ctx context.Context, src io.Reader, opt store.ImportOptions) (store.Info, error) {
	v := url.Values{"name": {opt.Name}}
	if opt.Format != "" {
		v.Set("format", opt.Format)
	}
	if opt.SHA256 != "" {
		v.Set("sha256", opt.SHA256)
	}
	if opt.SHA512 != "" {
		v.Set("sha512", opt.SHA512)
	}
	if opt.Force {
		v.Set("force", "true")
	}
	if opt.Size > 0 {
		v.Set("size", strconv.FormatInt(opt.Size, 10))
	}
	source := &watchedReader{r: src}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/v1/images?"+v.Encode(), source)
	if err != nil {
		return store.Info{}, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := c.do(req)
	if err != nil {
		return store.Info{}, source.blame(err)
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	for {
		var line ImportLine
		if err := lines.Decode(&line); err != nil {
			return store.Info{}, source.blame(c.unreachable(fmt.Errorf("import %s: %w", opt.Name, err)))
		}
		switch {
		case line.Problem != nil:
			return store.Info{}, source.blame(line.Problem.problem())
		case line.Image != nil:
			return *line.Image, nil
		case line.Progress != nil && opt.Progress != nil:
			opt.Progress(*line.Progress)
		}
	}
}

// VerifyImage has the appliance read an image again. A damaged image is a verdict and no error.
func (c *Client) VerifyImage(
	ctx context.Context, ref string, progress func(store.Progress),
) (store.Verdict, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		c.base+"/v1/images/"+url.PathEscape(ref)+"/verify", nil)
	if err != nil {
		return store.Verdict{}, err
	}
	resp, err := c.do(req)
	if err != nil {
		return store.Verdict{}, err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	for {
		var line VerifyLine
		if err := lines.Decode(&line); err != nil {
			return store.Verdict{}, c.unreachable(fmt.Errorf("verify %s: %w", ref, err))
		}
		switch {
		case line.Problem != nil:
			return store.Verdict{}, line.Problem.problem()
		case line.Verdict != nil:
			return *line.Verdict, nil
		case line.Progress != nil && progress != nil:
			progress(*line.Progress)
		}
	}
}

// watchedReader remembers why the source of an upload broke; the transport and the appliance only
// know that it was cut.
type watchedReader struct {
	r      io.Reader
	broken atomic.Pointer[error]
}

func (w *watchedReader) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		w.broken.Store(&err)
	}
	return n, err
}

func (w *watchedReader) blame(err error) error {
	if why := w.broken.Load(); why != nil {
		return fmt.Errorf("read the image: %w", *why)
	}
	return err
}

// Console attaches to a machine's serial console. Closing it detaches.
func (c *Client) Console(ctx context.Context, ref string) (io.ReadWriteCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+machinePath(ref)+"/console", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", consoleProtocol)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return nil, readProblem(resp)
	}
	conn, ok := resp.Body.(io.ReadWriteCloser) // net/http promises it for 101
	if !ok {
		return nil, errors.New("console: the connection is not writable")
	}
	return conn, nil
}
