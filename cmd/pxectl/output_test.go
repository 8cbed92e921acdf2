package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// TestControlsAreEscaped: nothing that is printed moves the cursor, and the JSON still decodes to the same
// text.
func TestControlsAreEscaped(t *testing.T) {
	const hostile = "a\u009b31mb\u0090c\x7fd\u202ee\x1b[2Jf\u0085g\rh"
	for _, output := range []string{"json", "yaml", "name", "table"} {
		var out bytes.Buffer
		c := &cli{out: &out, output: output}
		if err := c.print(map[string]string{"text": hostile}, []string{hostile}, func(t *table) { t.row(hostile) }); err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(out.String(), func(r rune) bool { return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) }); i >= 0 {
			t.Errorf("-o %s prints %q", output, out.String())
		}
		if output != "json" {
			continue
		}
		var back map[string]string
		if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["text"] != hostile {
			t.Errorf("-o json reads back as %q, %v, want %q", back["text"], err, hostile)
		}
	}
}
