package tftpd

import "strings"

// Normalise is the name that a boot file was advertised under, given what a client
// asked for. Seen in the field: a leading slash or several, backslashes, and, where
// firmware copies DHCP option 67 without its length, a trailing 0xff (the END option)
// with whatever follows it, NULs or spaces. The result is relative, has no "." or ".."
// element, and is "" when nothing is left.
func Normalise(raw string) string {
	if end := strings.IndexAny(raw, "\x00\r\n"); end >= 0 {
		raw = raw[:end]
	}
	// 0xff is never part of UTF-8, so it cannot be part of a name.
	if end := strings.IndexByte(raw, 0xff); end >= 0 {
		raw = raw[:end]
	}
	var kept []string
	for elem := range strings.SplitSeq(strings.ReplaceAll(raw, `\`, "/"), "/") {
		switch elem = strings.TrimSpace(elem); elem {
		case "", ".":
		case "..":
			// A ".." cannot lead out: above the first element it has no effect.
			kept = kept[:max(0, len(kept)-1)]
		default:
			kept = append(kept, elem)
		}
	}
	return strings.Join(kept, "/")
}

// Meant is the longest of the names that a client asks for with rubbish behind it: BIOS ROMs read DHCP option
// 67 on into the next option. Of that one's code, length and first byte one at least is no printable
// character; other names have none.
func Meant(raw string, names []string) (name string, ok bool) {
	raw = strings.TrimLeft(raw, `/\`)
	for _, n := range names {
		behind, found := strings.CutPrefix(raw, n)
		if found && len(n) > len(name) &&
			strings.ContainsFunc(behind[:min(3, len(behind))],
				func(r rune) bool { return r < ' ' || r > '~' }) {
			name = n
		}
	}
	return name, name != ""
}
