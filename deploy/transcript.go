package deploy

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a transcript. Anybody may be at the other end of a serial line.
const (
	lineBytes       = 512 // longer lines are cut into several
	transcriptLines = 40
	transcriptBytes = 4 << 10
	escapeBytes     = 64  // of one escape sequence; a longer one is none
	titleBytes      = 256 // of one that carries a string
	screenWide      = 80  // columns at which firmware breaks lines
)

// A transcript makes lines of plain text of what a serial console says and keeps the last of them. Escape sequences and control
// characters are left out, and a jump of the cursor ends a line. It costs the same for each byte, whatever the bytes are.
type transcript struct {
	lines []string
	size  int // of lines

	line    []byte // not ended yet
	escape  byte   // what sequence we are in: 0 none, ESC, '[' or ']'
	escaped int    // its bytes so far
	cr      bool   // the last byte was a carriage return
	wraps   bool   // it fills the screen's width, and may go on in the next line
}

const esc = 0x1b

// add takes what was said and calls heard with each line as it ends.
func (t *transcript) add(said []byte, heard func(line string)) {
	for _, c := range said {
		t.byte(c, heard)
	}
}

func (t *transcript) byte(c byte, heard func(string)) {
	if t.escape != 0 {
		t.inEscape(c, heard)
		return
	}
	if t.cr && c != '\n' && c != '\r' && c >= ' ' {
		// The line is written over: a progress that counts up. What it said is read, and not kept.
		t.end(heard, false)
	}
	t.cr = t.cr && c < ' ' && c != '\n'
	switch {
	case c == esc:
		t.escape, t.escaped = esc, 0
	case c == '\n':
		if t.wraps = !t.wraps && t.wrapped(); !t.wraps {
			t.end(heard, true)
		}
	case c == '\r':
		t.cr = true
	case c == '\b':
		if n := len(t.line); n > 0 {
			_, size := utf8.DecodeLastRune(t.line)
			t.line = t.line[:n-size]
		}
	case c == '\t':
		t.put(' ', heard)
	case c < ' ' || c == 0x7f:
	default:
		t.put(c, heard)
	}
}

func (t *transcript) put(c byte, heard func(string)) {
	if len(t.line) >= lineBytes || t.wraps && c == '[' { // a kernel's line does not go on what firmware said
		t.end(heard, true)
	}
	t.wraps = false
	t.line = append(t.line, c)
}

// wrapped says that the line goes on in the next one: firmware, and iPXE with it, breaks lines at the edge of its screen. A kernel does not.
func (t *transcript) wrapped() bool {
	n := utf8.RuneCount(t.line)
	return n > 0 && n%screenWide == 0 && t.line[0] != '['
}

// inEscape takes the bytes of an escape sequence: ECMA-48 sections 5.3 and 5.4, and the strings of section 5.6.
func (t *transcript) inEscape(c byte, heard func(string)) {
	t.escaped++
	switch t.escape {
	case esc:
		switch {
		case c == '[':
			t.escape = '['
		case c == ']' || c == 'P' || c == '^' || c == '_' || c == 'X':
			t.escape = ']'
		case c == 'c': // reset: an empty screen
			t.escape = 0
			t.end(heard, true)
		case c >= ' ' && c <= '/' && t.escaped < escapeBytes: // more to come
		default:
			t.escape = 0
		}
	case '[':
		switch {
		case c >= ' ' && c <= '?' && t.escaped < escapeBytes: // parameters
		case c == 'C':
			t.escape = 0
			t.put(' ', heard)
		default:
			t.escape = 0
			if strings.IndexByte("ABEFHJdf", c) >= 0 { // to another line, or an empty screen
				t.end(heard, true)
			}
		}
	case ']':
		if c == 7 || c == '\\' || c == '\n' || t.escaped >= titleBytes {
			t.escape = 0
		}
	}
}

// end ends a line.
func (t *transcript) end(heard func(string), keep bool) {
	line := plain(t.line)
	t.line, t.cr, t.wraps = t.line[:0], false, false
	if line == "" {
		return
	}
	if keep {
		t.lines = append(t.lines, line)
		t.size += len(line)
		drop := 0
		for len(t.lines)-drop > transcriptLines || t.size > transcriptBytes {
			t.size -= len(t.lines[drop])
			drop++
		}
		if drop > 0 {
			t.lines = append(t.lines[:0], t.lines[drop:]...)
		}
	}
	heard(line)
}

// last is the last n lines, with the one that has not ended.
func (t *transcript) last(n int) []string {
	lines := t.lines
	if line := plain(t.line); line != "" {
		lines = append(lines[:len(lines):len(lines)], line)
	}
	return lines[max(0, len(lines)-n):]
}

// nonceSaid is the nonce in the kernel's arguments, which a kernel that is not told to be quiet prints.
var nonceSaid = regexp.MustCompile(`(pxectl\.nonce=)\S+`)

// plain leaves only what can be printed, and no secret.
func plain(line []byte) string {
	text := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, string(line)))
	if strings.Contains(text, "pxectl.nonce=") {
		text = nonceSaid.ReplaceAllString(text, "$1*")
	}
	return text
}
