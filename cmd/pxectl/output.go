package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/goccy/go-yaml"
)

var outputs = []string{"table", "json", "yaml", "name"}

// print shows v in the format of -o: names for name, table for table, v itself otherwise.
func (c *cli) print(v any, names []string, table func(*table)) error {
	switch c.output {
	case "json":
		return printJSON(c.out, v)
	case "yaml":
		return printYAML(c.out, v)
	case "name":
		for _, n := range names {
			fmt.Fprintln(c.out, clean(n))
		}
		return nil
	}
	t := newTable(c.out)
	table(t)
	return t.w.Flush()
}

func printJSON(w io.Writer, v any) error {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, escapeControls(out.String()))
	return err
}

// escapeControls escapes in JSON the characters that move a terminal's cursor and that JSON leaves alone:
// DEL, the C1 controls (U+009B begins an escape sequence as ESC [ does), and those that change the direction
// of text.
func escapeControls(json string) string {
	var out strings.Builder
	for _, r := range json {
		if r >= 0x7f && moves(r) {
			fmt.Fprintf(&out, `\u%04x`, r)
		} else {
			out.WriteRune(r)
		}
	}
	return out.String()
}

// moves says whether a rune moves a terminal's cursor or the text around it.
func moves(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }

// printYAML shows the members of the JSON form, with the same names in the same order.
func printYAML(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if data, err = yaml.JSONToYAML(data); err != nil {
		return err
	}
	// A plain scalar has no escapes.
	text := strings.Map(func(r rune) rune {
		if r != '\n' && moves(r) {
			return '?'
		}
		return r
	}, strings.TrimRight(string(data), "\n"))
	_, err = io.WriteString(w, text+"\n")
	return err
}

// A table is aligned columns of text.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer) *table { return &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

// row adds a line; an empty cell shows as "-".
func (t *table) row(cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		s := clean(fmt.Sprint(cell))
		if s == "" {
			s = "-"
		}
		fmt.Fprint(t.w, s)
	}
	fmt.Fprint(t.w, "\n")
}

// field adds "Name  value", unless the value is empty.
func (t *table) field(name string, value any) {
	if s := clean(fmt.Sprint(value)); s != "" {
		fmt.Fprintf(t.w, "%s\t%s\n", name, s)
	}
}

// clean keeps text from the network (host names, serial numbers, events) from moving the reader's cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case moves(r) || r == unicode.ReplacementChar:
			return '?'
		}
		return r
	}, s)
}

// printAnswers prints the answers of n machines, one word or two each, and then returns asked: the error of
// those that did not answer. all is their answers for programs.
func (c *cli) printAnswers(
	all any, n int, column string, answer func(i int) (machine, said string), asked error,
) error {
	if n == 0 {
		return asked
	}
	var names []string
	for i := range n {
		name, _ := answer(i)
		names = append(names, name)
	}
	if err := c.print(all, names, func(t *table) {
		t.row("MACHINE", column)
		for i := range n {
			t.row(answer(i))
		}
	}); err != nil {
		return err
	}
	return asked
}
