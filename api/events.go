package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pxectl/pxectl/inventory"
)

const (
	eventBatch    = 500              // read from the store at a time
	streamQuiet   = 15 * time.Second // after which a comment shows that the stream lives
	streamBlocked = 30 * time.Second // a reader that takes nothing for so long is cut; it can resume
	maxTail       = 10_000
)

var eventsOperation = &huma.Operation{
	OperationID: "events",
	Method:      http.MethodGet,
	Path:        "/v1/events",
	Summary:     "The timeline, as server-sent events",
	Description: "Each message has the event's seq as its id and the event as its data. " +
		"To resume without loss, give the last seq as after or in the header Last-Event-ID.",
	Parameters: []*huma.Param{
		queryParam("after", "only events with a higher seq", huma.TypeInteger),
		queryParam("machine", "only events of this machine (name, id or MAC)", huma.TypeString),
		queryParam("tail", "of the events that there are already, only the last so many", huma.TypeInteger),
		queryParam("follow", "go on with new events as they happen", huma.TypeBoolean),
	},
	Responses: map[string]*huma.Response{
		"200": {
			Description: "Events, oldest first", Content: map[string]*huma.MediaType{"text/event-stream": {}},
		},
	},
}

// eventQuery is what a caller asks of the timeline.
type eventQuery struct {
	after   uint64
	machine inventory.MachineID
	macs    []inventory.MAC // of that machine: packets seen before it was known belong to it
	tail    int             // 0: all
	follow  bool
}

func (q eventQuery) wants(e inventory.Event) bool {
	return q.machine == "" || e.Machine == q.machine || e.Machine == "" && slices.Contains(q.macs, e.MAC)
}

func (s *Server) eventQuery(r *http.Request) (eventQuery, error) {
	var q eventQuery
	var err error
	values := r.URL.Query()
	after := values.Get("after")
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		after = last // a browser that reconnects repeats its first URL and adds this header
	}
	if after != "" {
		if q.after, err = strconv.ParseUint(after, 10, 64); err != nil {
			return q, invalid("after %q: want the seq of an event", after)
		}
	}
	if v := values.Get("tail"); v != "" {
		if q.tail, err = strconv.Atoi(v); err != nil || q.tail < 1 || q.tail > maxTail {
			return q, invalid("tail %q: want a number from 1 to %d", v, maxTail)
		}
	}
	if v := values.Get("follow"); v != "" {
		if q.follow, err = strconv.ParseBool(v); err != nil {
			return q, invalid("follow %q: want true or false", v)
		}
	}
	if ref := values.Get("machine"); ref != "" {
		m, err := s.fleet.Machine(ref)
		if err != nil {
			return q, err
		}
		q.machine, q.macs = m.ID, m.MACs
	}
	return q, nil
}

func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request) error {
	q, err := s.eventQuery(r)
	if err != nil {
		return err
	}
	// The first batch is read before the header is sent, so that an error can still be the answer.
	batch, err := s.fleet.Events(q.after, q.machine, eventBatch)
	if err != nil {
		return err
	}
	ctx, cancel := whileServing(r)
	defer cancel()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := eventWriter{w: w, rc: http.NewResponseController(w)}
	if err := s.sendEvents(ctx, out, q, batch); err != nil && ctx.Err() == nil {
		s.log.Debug("event stream ended", "actor", actorOf(ctx), "err", err)
	}
	return nil
}

func (s *Server) sendEvents(
	ctx context.Context, out eventWriter, q eventQuery, batch []inventory.Event,
) error {
	var err error
	var kept []inventory.Event // the last q.tail
	for len(batch) > 0 {
		if q.tail == 0 {
			if err := out.send(batch); err != nil {
				return err
			}
		} else {
			kept = append(kept, batch...)
			kept = kept[max(0, len(kept)-q.tail):]
		}
		q.after = batch[len(batch)-1].Seq
		if batch, err = s.fleet.Events(q.after, q.machine, eventBatch); err != nil {
			return err
		}
	}
	if err := out.send(kept); err != nil || !q.follow {
		return err
	}
	// From here on, events of all machines are read and those of other machines dropped. Wait counts all
	// events, so an event of another machine must move our place too, or Wait would return at once for ever.
	for {
		batch, err := s.fleet.Events(q.after, "", eventBatch)
		if err != nil {
			return err
		}
		wanted := batch[:0:0]
		for _, e := range batch {
			q.after = e.Seq
			if q.wants(e) {
				wanted = append(wanted, e)
			}
		}
		if err := out.send(wanted); err != nil {
			return err
		}
		if len(batch) > 0 {
			continue
		}
		quiet, cancel := context.WithTimeout(ctx, streamQuiet)
		err = s.fleet.Wait(quiet, q.after)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // quiet
			if err := out.comment("quiet"); err != nil {
				return err
			}
		}
	}
}

type eventWriter struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (o eventWriter) send(events []inventory.Event) error {
	_ = o.rc.SetWriteDeadline(time.Now().Add(streamBlocked))
	for _, e := range events {
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(o.w, "id: %d\ndata: %s\n\n", e.Seq, data); err != nil {
			return err
		}
	}
	return o.rc.Flush()
}

func (o eventWriter) comment(text string) error {
	_ = o.rc.SetWriteDeadline(time.Now().Add(streamBlocked))
	if _, err := fmt.Fprintf(o.w, ": %s\n\n", text); err != nil {
		return err
	}
	return o.rc.Flush()
}
