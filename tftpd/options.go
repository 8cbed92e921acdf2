package tftpd

import (
	"io"
	"reflect"
	"strconv"
	"strings"
	"unsafe"
)

// optionsOf is the live map of the options that the client asked for, from which the
// library will negotiate. The library shows it to nobody before the OACK is sent, so
// this reaches into its sender, by name and type: with a version of the library that has no
// such field it is nil, the two functions below do nothing, and their tests fail.
func optionsOf(rf io.ReaderFrom) map[string]string {
	v := reflect.ValueOf(rf)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil
	}
	f := v.Elem().FieldByName("opts")
	if want := reflect.TypeFor[map[string]string](); !f.IsValid() || !f.Type().ConvertibleTo(want) {
		return nil
	}
	return *(*map[string]string)(unsafe.Pointer(f.UnsafeAddr()))
}

// lowerNames makes option names what the library looks for; RFC 2347 says that their
// case does not matter.
func lowerNames(options map[string]string) {
	for name, value := range options {
		if lower := strings.ToLower(name); lower != name {
			delete(options, name)
			options[lower] = value
		}
	}
}

// limitBlock lowers the block size that was asked for and returns the one that will be
// sent: 512 where none was asked for (RFC 1350), or where it is not one (RFC 2348).
func limitBlock(options map[string]string, most int) int {
	n, err := strconv.Atoi(options["blksize"])
	if err != nil || n < minBlock || n > 65464 {
		return minBlock
	}
	if n > most {
		options["blksize"] = strconv.Itoa(most)
	}
	return min(n, most)
}
