package console

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/ansi/parser"

	"github.com/pxectl/pxectl/internal/printable"
)

// Bounds of a transcript, since anybody can be at the other end of a serial line.
const (
	maxLine     = 512 // a longer line is cut into several
	maxLines    = 40
	maxBytes    = 4 << 10
	maxEscape   = 64  // of an escape sequence; anything longer is text
	maxString   = 256 // of a control string
	screenWidth = 80  // firmware breaks lines there
)

// A Transcript turns the output of a serial console into lines of plain text, and keeps the last of them. It
// leaves out escape sequences and control characters. A jump of the cursor ends a line. Every byte takes the
// same time.
type Transcript struct {
	lines []string
	size  int // of lines

	line  []byte // the current one
	cr    bool   // the last byte was a carriage return
	wraps bool   // it fills the screen's width, and may go on in the next line

	terminal *ansi.Parser      // nil before the first byte
	escaped  int               // bytes of the escape sequence so far
	ended    func(line string) // set while Add runs
}

// Add takes output, and calls ended with each line that it ends.
func (t *Transcript) Add(output []byte, ended func(line string)) {
	if t.terminal == nil {
		t.terminal = &ansi.Parser{}
		t.terminal.SetParamsSize(16)
		t.terminal.SetDataSize(1) // the content of strings is not wanted; 0 would keep all of it
		t.terminal.SetHandler(ansi.Handler{
			Print:     t.print,
			Execute:   t.control,
			HandleCsi: func(c ansi.Cmd, _ ansi.Params) { t.sequence(c) },
			HandleEsc: t.escape,
		})
	}
	t.ended = ended
	for _, c := range output {
		t.byte(c)
	}
}

// byte gives the terminal a byte. It first ends a character that was cut short and a sequence without an end:
// the terminal would swallow all that follows.
func (t *Transcript) byte(c byte) {
	if state := t.terminal.State(); state == parser.Utf8State && c&0xc0 != 0x80 ||
		inString(state) && c == '\n' {
		t.terminal.Reset()
	}
	t.terminal.Advance(c)
	state := t.terminal.State()
	if state == parser.GroundState || state == parser.Utf8State || c == ansi.ESC {
		t.escaped = 0
		return
	}
	if t.escaped++; t.escaped >= maxString || t.escaped >= maxEscape && !inString(state) {
		t.terminal.Reset()
		t.escaped = 0
	}
}

// inString says whether the state is inside a control string: DCS, OSC, SOS, PM or APC.
func inString(state parser.State) bool {
	return state >= parser.DcsEntryState && state <= parser.DcsStringState ||
		state >= parser.OscStringState && state <= parser.ApcStringState
}

// print takes a character.
func (t *Transcript) print(r rune) {
	if t.cr {
		// The line is overwritten, as by a progress counter. Report it and do not keep it.
		t.end(false)
	}
	t.put(r)
}

// control takes a control character: C0, or C1 of ECMA-48 section 5.3.
func (t *Transcript) control(c byte) {
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

// sequence takes a control sequence. One that moves the cursor to another line, or clears the screen, ends
// the line.
func (t *Transcript) sequence(c ansi.Cmd) {
	switch {
	case c.Prefix() != 0 || c.Intermediate() != 0:
	case c.Final() == 'C':
		t.put(' ')
	case strings.IndexByte("ABEFHJdf", c.Final()) >= 0:
		t.end(true)
	}
}

// escape takes an escape sequence of two characters. A reset, or a move to another line, ends the line.
func (t *Transcript) escape(c ansi.Cmd) {
	if c.Intermediate() == 0 && strings.IndexByte("cDEM", c.Final()) >= 0 {
		t.end(true)
	}
}

func (t *Transcript) put(r rune) {
	// A kernel's line does not continue firmware's.
	if len(t.line)+utf8.RuneLen(r) > maxLine || t.wraps && r == '[' {
		t.end(true)
	}
	t.wraps = false
	t.line = utf8.AppendRune(t.line, r)
}

// wrapped says whether the line goes on in the next one. Firmware and iPXE break lines at the edge of the
// screen. A kernel does not.
func (t *Transcript) wrapped() bool {
	n := utf8.RuneCount(t.line)
	return n > 0 && n%screenWidth == 0 && t.line[0] != '['
}

// end ends a line.
func (t *Transcript) end(keep bool) {
	line := plain(t.line)
	t.line, t.cr, t.wraps = t.line[:0], false, false
	if line == "" {
		return
	}
	if keep {
		t.lines = append(t.lines, line)
		t.size += len(line)
		drop := 0
		for len(t.lines)-drop > maxLines || t.size > maxBytes {
			t.size -= len(t.lines[drop])
			drop++
		}
		if drop > 0 {
			t.lines = append(t.lines[:0], t.lines[drop:]...)
		}
	}
	t.ended(line)
}

// Last returns the last n lines, the current one included.
func (t *Transcript) Last(n int) []string {
	lines := t.lines
	if line := plain(t.line); line != "" {
		lines = append(lines[:len(lines):len(lines)], line)
	}
	return lines[max(0, len(lines)-n):]
}

// nonceArgument matches the nonce in the kernel's arguments, which a kernel without "quiet" prints.
var nonceArgument = regexp.MustCompile(`(pxectl\.nonce=)\S+`)

// plain removes unprintable characters and the nonce.
func plain(line []byte) string {
	text := strings.TrimSpace(printable.Only(string(line)))
	if strings.Contains(text, "pxectl.nonce=") {
		text = nonceArgument.ReplaceAllString(text, "$1*")
	}
	return text
}
