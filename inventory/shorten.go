package inventory

import (
	"encoding/json"
	"fmt"
)

const (
	// mostListed is how many elements of a list are decoded: more than are kept of any.
	mostListed = maxPCI + 1
	// deepest is how deep JSON may be nested. A result has five levels.
	deepest = 32
)

// Shortened cuts the lists in JSON to mostListed elements, within raw, before somebody decodes it: 67 KB can
// be a list of 22,000 empty disks, which take 5 MB. What is no JSON is returned as it is, for the decoder to
// refuse.
func Shortened(raw []byte) ([]byte, error) {
	if !json.Valid(raw) {
		return raw, nil
	}
	var (
		open    [deepest]struct{ list, cut bool } // cut: the rest is left out
		commas  [deepest]int
		depth   int // how many of them are open
		cuts    int // how many of those are cut
		out     = raw[:0]
		tooDeep = fmt.Errorf("nested more than %d deep", deepest)
	)
	for i := 0; i < len(raw); i++ {
		from := i
		switch raw[i] {
		case '"':
			for i++; raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			if depth == deepest {
				return nil, tooDeep
			}
			open[depth].list, open[depth].cut, commas[depth] = raw[i] == '[', false, 0
			depth++
		case '}', ']':
			if depth--; open[depth].cut {
				cuts--
			}
		case ',':
			if top := &open[depth-1]; top.list && !top.cut {
				if commas[depth-1]++; commas[depth-1] == mostListed {
					top.cut = true
					cuts++
				}
			}
		}
		if cuts == 0 {
			out = append(out, raw[from:i+1]...)
		}
	}
	return out, nil
}
