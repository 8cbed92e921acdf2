package printable

import (
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestOnly(t *testing.T) {
	for in, want := range map[string]string{
		"":                    "",
		"plain, größer":       "plain, größer",
		"\x1b[31mred\x1b[0m":  "[31mred[0m",
		"a\u202eb\u009bc\x00": "abc",
		"cut \xe2\x82":        "cut ",
		"a\tb\nc":             "abc",
	} {
		if got := Only(in); got != want {
			t.Errorf("Only(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzOnly(f *testing.F) {
	f.Add("\x1b]0;title\x07text\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := Only(s)
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("Only(%q) keeps %q", s, r)
			}
		}
		if !utf8.ValidString(got) || len(got) > len(s) || Only(got) != got {
			t.Errorf("Only(%q) = %q", s, got)
		}
	})
}
