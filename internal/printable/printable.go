// Package printable takes out of a text what a terminal could take for more than text.
package printable

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Only returns s without control characters, invalid UTF-8, and all else that is not printed.
func Only(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}
