package store

import "strings"

const otherName = "choose a name that cannot be mistaken for one, as debian-12"

// idThatBegins returns the id of another image that begins with name, so that the name would hide it, or "".
func (s *Store) idThatBegins(name string) string {
	if len(name) < minPrefix {
		return ""
	}
	for _, info := range s.List() {
		if strings.HasPrefix(info.ID, strings.ToLower(name)) && info.Name != name {
			return info.ID
		}
	}
	return ""
}

// looksLikeID says whether people would take a name for an id, of which 12 digits are shown. A number is a
// date or a version.
func looksLikeID(name string) bool {
	return len(name) >= 12 && strings.Trim(name, "0123456789abcdefABCDEF") == "" &&
		strings.Trim(name, "0123456789") != ""
}
