package deploy

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// Strangers that send results without end use up only the turns of strangers: known machines have their own.
// Another stranger gets the next free turn, and a stop ends the waiting.
func TestResultsHaveTheirTurn(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	e := r.start()
	nonces := map[inventory.MAC]string{}
	const stranger, known = inventory.MAC("52:54:00:00:00:0a"), inventory.MAC("52:54:00:00:00:0b")
	for _, mac := range []inventory.MAC{stranger, known} {
		nonce, err := registers(t, e, mac, "192.0.2.7")
		if err != nil {
			t.Fatal(err)
		}
		nonces[mac] = nonce
	}
	if _, err := e.Approve(t.Context(), "test", string(known), Approval{}); err != nil {
		t.Fatal(err)
	}
	var ends []func()
	for i := range resultsOfStrangers / callsPerIP {
		mac, ip := inventory.MAC(fmt.Sprintf("52:54:77:00:00:%02x", i)), fmt.Sprint("192.0.2.", 100+i)
		nonce, err := registers(t, e, mac, ip)
		if err != nil {
			t.Fatal(err)
		}
		for n := range callsPerIP {
			_, end, err := e.ResultTurn(t.Context(), agentAt(nonce, ip))
			if err != nil {
				t.Fatalf("turn %d of stranger %d: %v", n, i, err)
			}
			ends = append(ends, end)
		}
		if i == 0 { // from wherever else it is used
			short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			_, _, err := e.ResultTurn(short, agentAt(nonce, "192.0.2.99"))
			cancel()
			asProblem(t, "one more turn with a nonce", err, inventory.CodeTimeout,
				"busy with the calls of other agents", "call again")
		}
	}
	limit, end, err := e.ResultTurn(t.Context(), agentAt(nonces[known], "192.0.2.7"))
	if err != nil || limit != inventory.KnownReport+envelope {
		t.Fatalf("a known machine's turn beside strangers: %d bytes, %v", limit, err)
	}
	end()
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, _, err = e.ResultTurn(short, agentAt(nonces[stranger], "192.0.2.7"))
	asProblem(t, "a stranger's turn when all are taken", err, inventory.CodeTimeout,
		"busy with the calls of other agents", "call again")

	waits := func() <-chan error {
		got := make(chan error, 1)
		go func() {
			_, _, err := e.ResultTurn(context.Background(), agentAt(nonces[stranger], "192.0.2.8"))
			got <- err
		}()
		return got
	}
	next := waits()
	ends[0]()
	if err := <-next; err != nil {
		t.Errorf("a stranger's turn after another one's: %v", err)
	}
	next = waits()
	r.mu.Lock()
	stop := r.end
	r.mu.Unlock()
	stop()
	start := time.Now()
	if err := <-next; err == nil || time.Since(start) > turnTime/2 {
		t.Errorf("a turn that is waited for ends with %v, %v after the stop began", err, time.Since(start))
	}
}
