package console

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestTranscript(t *testing.T) {
	for name, c := range map[string]struct {
		said string
		want []string
	}{
		"lines": {"one\r\ntwo\n\n\r\nthree", []string{"one", "two", "three"}},
		"colours": {
			"\x1b[0;1miPXE 1.0.0+\x1b[0m -- Open Source\r\n", []string{"iPXE 1.0.0+ -- Open Source"},
		},
		"a cleared screen": {
			"GRUB\x1b[2J\x1b[01;01HBdsDxe: failed\r\n", []string{"GRUB", "BdsDxe: failed"},
		},
		"a reset": {"login: \x1bc\x1b[?7l\x1b[2JSeaBIOS\r\n", []string{"login:", "SeaBIOS"}},
		"GRUB's own way": {
			"\x1b[0;30;47mWe\x1b[11;02H\x1b[11;03Hlcome to GRUB!\r\n", []string{"We", "lcome to GRUB!"},
		},
		"the cursor forward": {"a\x1b[5Cb\n", []string{"a b"}},
		"backspaces":         {"Press Ctrl-B...\b \b\b \b\b \bnet0\n", []string{"Press Ctrl-Bnet0"}},
		"written over":       {"10%\r20%\r30%\r\ndone\r\n", []string{"30%", "done"}},
		"a wrapped line": {
			strings.Repeat("x", 70) + " (https://\r\nipxe.org/4c0a6092)\r\nnext\r\n",
			[]string{strings.Repeat("x", 70) + " (https://ipxe.org/4c0a6092)", "next"},
		},
		"80 columns and no more": {
			strings.Repeat("x", 80) + "\r\n\r\nnext\r\n" + strings.Repeat("y", 80) +
				"\r\n[    1.000000] k\r\n",
			[]string{strings.Repeat("x", 80), "next", strings.Repeat("y", 80), "[    1.000000] k"},
		},
		"a kernel's 80 columns": {
			"[    1.000000] " + strings.Repeat("k", 65) + "\r\nnext\r\n",
			[]string{"[    1.000000] " + strings.Repeat("k", 65), "next"},
		},
		"a window title":       {"a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c\n", []string{"abc"}},
		"one that never ends":  {"\x1b]" + strings.Repeat("t", maxString-1) + "heard\n", []string{"heard"}},
		"a sequence of no end": {"\x1b[" + strings.Repeat("1", maxEscape-1) + "heard\n", []string{"heard"}},
		"not UTF-8":            {"\xff\xfesize \xc3\xa9\xc2\x9b \u202edrow\n", []string{"size é drow"}},
		"a nonce": {
			"[    0.000000] Kernel command line: pxectl.nonce=3q2-7wAA_x quiet\r\n",
			[]string{"[    0.000000] Kernel command line: pxectl.nonce=* quiet"},
		},
		"one in another":         {"\x1b[0 \x1b[31mX\n", []string{"X"}},
		"a backslash in a title": {"a\x1b]0;C:\\boot\x1b\\b\n", []string{"ab"}},
		"strings": {
			"a\x1bP1$r0m\x1b\\b\x1bXsos\x1b\\c\x1b^pm\x1b\\d\x1b_apc\x1b\\e\n", []string{"abcde"},
		},
		"C1":                     {"a\x9b31mb\x9d0;title\x9cc\x85d\x84e\n", []string{"abc", "d", "e"}},
		"private sequences":      {"a\x1b[?25h\x1b[>4;2mb\x1b[!pc\n", []string{"abc"}},
		"a title and then lines": {"\x1b]0;no end\nKernel panic\n", []string{"Kernel panic"}},
		"a character cut short":  {"\xf0Kernel \xe2\x82panic\xc3\x1b[0m!\n", []string{"Kernel panic!"}},
		"a sequence given up":    {"\x1b[3\x18one\x1b[3\x1atwo\n", []string{"onetwo"}},
		"controls":               {"a\x00b\x07c\x7f\td\n", []string{"abc d"}},
	} {
		t.Run(name, func(t *testing.T) {
			var tr Transcript
			tr.Add([]byte(c.said), func(string) {})
			if diff := cmp.Diff(c.want, tr.Last(maxLines)); diff != "" {
				t.Errorf("lines of %q (-want +got):\n%s", c.said, diff)
			}
		})
	}
}

// An overwritten line is reported and not kept. It can be the last line before a hang.
func TestTranscriptReportsOverwrittenLines(t *testing.T) {
	var tr Transcript
	var heard []string
	tr.Add([]byte("loading\rpanic\rgone\n"), func(line string) { heard = append(heard, line) })
	if diff := cmp.Diff([]string{"loading", "panic", "gone"}, heard); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
}

// Any input gives plain lines within bounds, and the same lines however it is cut into packets.
func FuzzTranscript(f *testing.F) {
	f.Add([]byte("\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2)\r\nBooting from ROM...\r\n"), 3)
	f.Add([]byte("[    5.273002] Kernel panic - not syncing: "+
		"VFS: Unable to mount root fs on unknown-block(0,0)\r\n"),
		7)
	f.Add([]byte(strings.Repeat("x", 3*maxLine)+"\b\b\r\x1b]\x1b[31"), 1)
	f.Add([]byte(strings.Repeat("line\n", 2*maxLines)), 100)
	f.Fuzz(func(t *testing.T, said []byte, cut int) {
		var whole, parts Transcript
		var heard, again []string
		whole.Add(said, func(line string) { heard = append(heard, line) })
		cut = max(1, cut)
		for rest := said; len(rest) > 0; {
			n := min(cut, len(rest))
			parts.Add(rest[:n], func(line string) { again = append(again, line) })
			rest = rest[n:]
		}
		if diff := cmp.Diff(heard, again); diff != "" {
			t.Errorf("in packets of %d (-whole +packets):\n%s", cut, diff)
		}
		size := 0
		for _, line := range whole.Last(maxLines + 1) {
			size += len(line)
			if !utf8.ValidString(line) ||
				strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("a line is not plain: %q", line)
			}
		}
		if len(whole.lines) > maxLines || size > maxBytes+maxLine || len(whole.line) > maxLine {
			t.Errorf("kept are %d lines of %d bytes", len(whole.lines), size)
		}
	})
}
