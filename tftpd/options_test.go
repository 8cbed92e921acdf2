package tftpd

import (
	"bytes"
	"io"
	"maps"
	"strconv"
	"strings"
	"testing"
)

// A version of the library with another sender must not take the server down.
func TestNoOptionsToBeFound(t *testing.T) {
	var buf bytes.Buffer // has no field opts
	type other struct {
		io.ReaderFrom
		opts []string
	}
	for name, rf := range map[string]io.ReaderFrom{"nil": nil, "no such field": &buf, "another type": &other{opts: []string{"blksize"}}, "not a pointer": other{}} {
		if got := optionsOf(rf); got != nil {
			t.Errorf("optionsOf(%s) = %v, want nil", name, got)
		}
	}
	lowerNames(nil)
	if got := limitBlock(nil, 1428); got != minBlock {
		t.Errorf("limitBlock(nil) = %d, want %d", got, minBlock)
	}
}

func FuzzOptions(f *testing.F) {
	f.Add("blksize", "1468", "BLKSIZE", "512", uint8(0))
	f.Add("BlkSize", "99999999999999999999", "tsize", "0", uint8(3))
	f.Add("blksize", "-1", "", "", uint8(2))
	f.Add("\u0130", "\u212a", "blksize", "8192", uint8(1))
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string, rung uint8) {
		options := map[string]string{name1: value1, name2: value2}
		lowerNames(options)
		for name := range options {
			if lower := strings.ToLower(name); lower != name && strings.ToLower(lower) == lower {
				t.Errorf("lowerNames left %q", name)
			}
		}
		before := maps.Clone(options)
		most := ladder[int(rung)%len(ladder)]
		got := limitBlock(options, most)
		if got < minBlock || got > most {
			t.Errorf("limitBlock(%q, %d) = %d, want 512 to %d", before, most, got, most)
		}
		if n, err := strconv.Atoi(options["blksize"]); err == nil && n >= minBlock && n <= 65464 && n != got {
			t.Errorf("limitBlock(%q, %d) = %d, but the library will acknowledge %d", before, most, got, n)
		}
	})
}
