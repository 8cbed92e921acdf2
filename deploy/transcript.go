package deploy

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/ansi/parser"
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

	line  []byte // not ended yet
	cr    bool   // the last byte was a carriage return
	wraps bool   // it fills the screen's width, and may go on in the next line

	terminal *ansi.Parser      // nil until something was said
	escaped  int               // bytes of the escape sequence so far
	heard    func(line string) // while add runs
}

// add takes what was said and calls heard with each line as it ends.
func (t *transcript) add(said []byte, heard func(line string)) {
	if t.terminal == nil {
		t.terminal = &ansi.Parser{}
		t.terminal.SetParamsSize(16)
		t.terminal.SetDataSize(1) // what strings say is not wanted; 0 would keep all of it
		t.terminal.SetHandler(ansi.Handler{
			Print:     t.print,
			Execute:   t.control,
			HandleCsi: func(c ansi.Cmd, _ ansi.Params) { t.sequence(c) },
			HandleEsc: t.escape,
		})
	}
	t.heard = heard
	for _, c := range said {
		t.byte(c)
	}
}

// byte gives a byte to the terminal, and ends what would swallow all that comes after it: a rune that is cut short, and a
// sequence without an end. A line that goes bad is one of a machine in trouble.
func (t *transcript) byte(c byte) {
	if state := t.terminal.State(); state == parser.Utf8State && c&0xc0 != 0x80 || inString(state) && c == '\n' {
		t.terminal.Reset()
	}
	t.terminal.Advance(c)
	state := t.terminal.State()
	if state == parser.GroundState || state == parser.Utf8State || c == ansi.ESC {
		t.escaped = 0
		return
	}
	if t.escaped++; t.escaped >= titleBytes || t.escaped >= escapeBytes && !inString(state) {
		t.terminal.Reset()
		t.escaped = 0
	}
}

// inString says that what comes is of a sequence that carries a string: DCS, OSC, SOS, PM, APC.
func inString(state parser.State) bool {
	return state >= parser.DcsEntryState && state <= parser.DcsStringState ||
		state >= parser.OscStringState && state <= parser.ApcStringState
}

// print takes a character.
func (t *transcript) print(r rune) {
	if t.cr {
		// The line is written over: a progress that counts up. What it said is read, and not kept.
		t.end(false)
	}
	t.put(r)
}

// control takes a control character: C0, or C1 of ECMA-48 section 5.3.
func (t *transcript) control(c byte) {
	switch c {
	case ansi.LF, ansi.IND, ansi.NEL:
		if t.wraps = !t.wraps && t.wrapped(); !t.wraps {
			t.end(true)
		}
		t.cr = false
	case ansi.CR:
		t.cr = true
	case ansi.BS:
		if n := len(t.line); n > 0 {
			_, size := utf8.DecodeLastRune(t.line)
			t.line = t.line[:n-size]
		}
	case ansi.HT:
		t.put(' ')
	}
}

// sequence takes a control sequence. Of those that move the cursor to another line, or clear the screen, each ends a line.
func (t *transcript) sequence(c ansi.Cmd) {
	switch {
	case c.Prefix() != 0 || c.Intermediate() != 0:
	case c.Final() == 'C':
		t.put(' ')
	case strings.IndexByte("ABEFHJdf", c.Final()) >= 0:
		t.end(true)
	}
}

// escape takes an escape sequence of two characters: a reset, and moves to another line.
func (t *transcript) escape(c ansi.Cmd) {
	if c.Intermediate() == 0 && strings.IndexByte("cDEM", c.Final()) >= 0 {
		t.end(true)
	}
}

func (t *transcript) put(r rune) {
	if len(t.line)+utf8.RuneLen(r) > lineBytes || t.wraps && r == '[' { // a kernel's line does not go on what firmware said
		t.end(true)
	}
	t.wraps = false
	t.line = utf8.AppendRune(t.line, r)
}

// wrapped says that the line goes on in the next one: firmware, and iPXE with it, breaks lines at the edge of its screen. A kernel does not.
func (t *transcript) wrapped() bool {
	n := utf8.RuneCount(t.line)
	return n > 0 && n%screenWide == 0 && t.line[0] != '['
}

// end ends a line.
func (t *transcript) end(keep bool) {
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
	t.heard(line)
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
