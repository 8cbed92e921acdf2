package tftpd

import "strings"

// Normalise returns the name that a boot file was advertised under, from the name that a client asked for.
// Seen in the field: a leading slash or several, backslashes, and, where firmware copies DHCP option 67
// without its length, a trailing 0xff (the END option) with whatever follows it, NULs or spaces. The result
// is relative, has no "." or ".." element, and is "" when nothing is left.
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

// Meant returns the longest of the names that raw begins with, if foreign bytes follow it: some BIOS ROMs
// read DHCP option 67 past its end into the next option. At least one of that option's code, length and first
// byte is no printable character. Other file names consist of printable characters, so they do not match.
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
