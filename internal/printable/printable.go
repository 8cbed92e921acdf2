// Package printable removes from a text whatever a terminal would not print as text.
package printable

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Only returns s without control characters, invalid UTF-8 and other characters that do not print.
func Only(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}
