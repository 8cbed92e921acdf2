package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/pxectl/pxectl/lab"
)

// TestControlsAreEscaped: nothing that is printed moves the cursor, and the JSON still decodes to the same
// text.
func TestControlsAreEscaped(t *testing.T) {
	const hostile = "a\u009b31mb\u0090c\x7fd\u202ee\x1b[2Jf\u0085g\rh"
	for _, output := range []string{"json", "yaml", "name", "table"} {
		var out bytes.Buffer
		c := &cli{out: &out, output: output}
		if err := c.print(map[string]string{"text": hostile}, []string{hostile},
			func(t *table) { t.row(hostile) }); err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(out.String(),
			func(r rune) bool {
				return r != '\n' &&
					(unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r))
			}); i >= 0 {
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

// The rack's machines are printed as any others.
func TestMachinesOfARack(t *testing.T) {
	machines := []lab.Status{
		{Name: "m1", Firmware: "bios", Power: "off", Boot: "pxe"},
		{Name: "m2", Firmware: "uefi", Power: "on", PID: 7},
	}
	for output, want := range map[string]string{
		"name": "m1\nm2\n",
		"table": "MACHINE  FIRMWARE  POWER  BOOT  MAC  BMC  PID  CONSOLE\n" +
			"m1       bios      off    pxe   -    -    -    -\n" +
			"m2       uefi      on     -     -    -    7    -\n",
	} {
		var out bytes.Buffer
		if err := (&cli{out: &out, output: output}).printMachines(machines); err != nil ||
			out.String() != want {
			t.Errorf("-o %s: %v,\n%swant\n%s", output, err, out.String(), want)
		}
	}
	var out bytes.Buffer
	var back []lab.Status
	if err := (&cli{out: &out, output: "json"}).printMachines(machines); err != nil ||
		json.Unmarshal(out.Bytes(), &back) != nil || !slices.Equal(back, machines) {
		t.Errorf("-o json: %v, %s, want %+v", err, out.String(), machines)
	}
}
