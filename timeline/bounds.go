package timeline

import (
	"fmt"
	"maps"
	"strings"

	"github.com/pxectl/pxectl/inventory"
)

// PerTransaction is how many events one transaction writes at most. It bounds how long another writer waits.
const PerTransaction = 50

// Strangers choose the content of events. These bound an event's text, a datum, and a datum of several lines:
// the log of a failed order, and a console's output.
const (
	maxText  = 1 << 10
	maxDatum = 512
	maxLines = 5 << 10
)

func maxDatumOf(key string) int {
	if key == inventory.DataLog || key == inventory.DataConsole {
		return maxLines
	}
	return maxDatum
}

// Bounded returns the event with its text and data cut to their bounds.
func Bounded(e inventory.Event) inventory.Event {
	e.Text = clip(e.Text, maxText)
	for k, v := range e.Data {
		if most := maxDatumOf(k); len(v) > most {
			e.Data = maps.Clone(e.Data)
			e.Data[k] = clip(v, most)
		}
	}
	return e
}

// AtMost returns the first n events of one change. The last of them says how many were left out.
func AtMost(n int, events []inventory.Event) []inventory.Event {
	if len(events) <= n {
		return events
	}
	more := inventory.Event{
		Kind: events[n-1].Kind, Text: fmt.Sprintf("… and %d more that are not kept", len(events)-n+1),
	}
	return append(events[:n-1:n-1], more)
}

// clip cuts a text to n bytes at a whole character.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}
