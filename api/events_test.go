package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/inventory"
)

func history(n int) *apitest.Fleet {
	fleet := apitest.New(inventory.Machine{Name: "m1"}, inventory.Machine{Name: "m2"})
	machines := fleet.Machines()
	for i := range n {
		fleet.Happen(inventory.Event{
			Machine: machines[i%2].ID, Kind: inventory.KindDHCP, Text: fmt.Sprint("event ", i+1),
		})
	}
	return fleet
}

func TestEventsOnce(t *testing.T) {
	c, socket := serve(t, history(1203)) // more than two batches
	for _, tt := range []struct {
		name        string
		q           api.EventQuery
		first, last uint64
		count       int
	}{
		{"all", api.EventQuery{}, 1, 1203, 1203},
		{"after", api.EventQuery{After: 1200}, 1201, 1203, 3},
		{"of one machine, by name", api.EventQuery{Machine: "m2", After: 1000}, 1002, 1202, 101},
		{"tail", api.EventQuery{Tail: 7}, 1197, 1203, 7},
		{"tail of one machine", api.EventQuery{Tail: 2, Machine: "m2"}, 1200, 1202, 2},
		{"tail of more than there are", api.EventQuery{Tail: 50, After: 1201}, 1202, 1203, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var seqs []uint64
			err := c.Events(t.Context(), tt.q, func(e inventory.Event) error {
				seqs = append(seqs, e.Seq)
				return nil
			})
			if err != nil || len(seqs) != tt.count || seqs[0] != tt.first || seqs[len(seqs)-1] != tt.last {
				t.Errorf("Events(%+v) = %v %v, want %d from %d to %d", tt.q, seqs, err, tt.count, tt.first,
					tt.last)
			}
		})
	}
	// As a browser comes back: its first URL again, with the id of the last message.
	req, _ := http.NewRequest("GET", "http://pxectl/v1/events?after=3", nil)
	req.Header.Set("Last-Event-ID", "1202")
	resp, err := httpOver(socket).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := resp.Header.Get("Content-Type") + "\n" + string(data)
	want := "text/event-stream\nid: 1203\ndata: {\"seq\":1203,\"at\":\"2026-11-20T10:20:03Z\"," +
		"\"machine\":\"m-00000001\",\"kind\":\"dhcp\",\"text\":\"event 1203\"}\n\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stream (-want +got):\n%s", diff)
	}
}

// TestEventsFollow kills the server in the middle of a stream and starts it again: the client
// goes on where it was, sees every event once, and events of other machines do not disturb it.
func TestEventsFollow(t *testing.T) {
	fleet := history(3)
	machines := fleet.Machines()
	handler := newHandler(fleet)
	socket := filepath.Join(shortDir(t), "s")
	stop := start(t, socket, handler)
	c := newClient(t, socket)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen := make(chan uint64)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Events(ctx, api.EventQuery{Machine: "m1", Follow: true}, func(e inventory.Event) error {
			seen <- e.Seq
			return nil
		})
	}()
	expect := func(want uint64) {
		t.Helper()
		select {
		case got := <-seen:
			if got != want {
				t.Fatalf("event %d, want %d", got, want)
			}
		case err := <-ended:
			t.Fatalf("Events ended with %v, want event %d", err, want)
		}
	}
	expect(1)
	expect(3)
	fleet.Happen(inventory.Event{Machine: machines[1].ID})
	expect(fleet.Happen(inventory.Event{Machine: machines[0].ID}))
	expect(fleet.Happen(inventory.Event{MAC: machines[0].MACs[0]}))
	stop()
	fleet.Happen(inventory.Event{Machine: machines[1].ID})
	missed := fleet.Happen(inventory.Event{Machine: machines[0].ID})
	start(t, socket, handler)
	expect(missed)
	expect(fleet.Happen(inventory.Event{Machine: machines[0].ID}))
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Events after cancel = %v, want canceled", err)
	}
}

func TestEventsErrorIsAnAnswer(t *testing.T) {
	fleet := history(1)
	fleet.Fail("Events", errors.New("read the store: checksum differs"))
	c, _ := serve(t, fleet)
	err := c.Events(t.Context(), api.EventQuery{Follow: true}, func(inventory.Event) error { return nil })
	if problemCode(err) != inventory.CodeInternal || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("Events of a broken store = %v, want its error", err)
	}
}
