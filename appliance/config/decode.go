package config

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// A mistake has the place of its key in the file.
type mistake struct {
	place int
	text  string
}

// A decoder fills a configuration and collects what is wrong.
type decoder struct {
	places   map[string]int // of each key, by its whole path: its position in the file
	mistakes []mistake
}

// decode reads YAML into the struct that into points to and reports every mistake at once, each with its key:
// YAML decoders stop at the first one, and nobody likes to correct a file ten times.
func decode(raw []byte, into any) *decoder {
	d := &decoder{places: map[string]int{}}
	var tree any
	if err := yaml.UnmarshalWithOptions(raw, &tree, yaml.UseOrderedMap()); err != nil {
		// Do not quote the file: it may be the wrong one, with secrets.
		d.mistakes = []mistake{
			{text: fmt.Sprintf("%.200s", strings.TrimSpace(yaml.FormatError(err, false, false)))},
		}
		return d
	}
	if tree != nil {
		d.fill(tree, reflect.ValueOf(into).Elem(), "")
	}
	return d
}

// wrong adds mistakes of the form "key: what is wrong". One whose key is not in the file comes where the
// nearest key above it is, or at the end.
func (d *decoder) wrong(texts []string) {
	for _, text := range texts {
		key, _, _ := strings.Cut(text, ": ")
		place, ok := d.places[key]
		for !ok && key != "" {
			key = key[:max(0, strings.LastIndexAny(key, ".["))]
			place, ok = d.places[key]
		}
		if key == "" {
			place = len(d.places)
		}
		d.mistakes = append(d.mistakes, mistake{place, text})
	}
}

// inOrder returns all mistakes in the order of the file.
func (d *decoder) inOrder() (texts []string) {
	slices.SortStableFunc(d.mistakes, func(a, b mistake) int { return a.place - b.place })
	for _, m := range d.mistakes {
		texts = append(texts, m.text)
	}
	return texts
}

// fill decodes one node of the tree into a value. path is its key.
func (d *decoder) fill(node any, into reflect.Value, path string) {
	d.places[path] = len(d.places)
	complain := func(format string, args ...any) {
		d.mistakes = append(d.mistakes, mistake{
			len(d.places), strings.TrimPrefix(path+": ", ": ") + fmt.Sprintf(format, args...),
		})
	}
	switch {
	case into.Kind() == reflect.Struct && !isScalar(into):
		entries, ok := node.(yaml.MapSlice)
		if !ok {
			switch { // a key with nothing below it leaves the defaults
			case node != nil && path == "":
				complain("this is no configuration: want keys (%s)", readable(into))
			case node != nil:
				complain("%s: want keys below it (%s)", short(node), readable(into))
			}
			return
		}
		if path == "" && len(entries) > 0 && !slices.ContainsFunc(entries, func(e yaml.MapItem) bool {
			return slices.Contains(yamlKeys(into), fmt.Sprint(e.Key))
		}) {
			complain("this is no configuration: none of its keys is known, want some of (%s)", readable(into))
			return
		}
		for _, entry := range entries {
			key := fmt.Sprint(entry.Key)
			i := slices.Index(yamlKeys(into), key)
			if i < 0 || key == "-" {
				complain("unknown key %.40q (have: %s)", key, readable(into))
				continue
			}
			d.fill(entry.Value, into.Field(i), strings.TrimPrefix(path+"."+key, "."))
		}
	case into.Kind() == reflect.Slice:
		items, ok := node.([]any)
		if !ok {
			complain("%s: want a list", short(node))
			return
		}
		list := reflect.MakeSlice(into.Type(), len(items), len(items))
		for i, item := range items {
			d.fill(item, list.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
		into.Set(list)
	case into.Type() == reflect.TypeFor[slog.Level]():
		// slog also accepts numbers and levels between these, but we log at none of them.
		if node == nil {
			return
		}
		if !slices.Contains(levels, strings.ToLower(short(node))) {
			complain("%q (have: %s)", short(node), strings.Join(levels, ", "))
			return
		}
		_ = into.Addr().Interface().(*slog.Level).UnmarshalText([]byte(short(node))) // it knows these four
	default:
		if node == nil {
			return
		}
		raw, err := yaml.Marshal(node)
		if err == nil {
			err = yaml.Unmarshal(raw, into.Addr().Interface())
		}
		if err != nil {
			complain("%s: not %s", short(node), kindOf(into))
		}
	}
}

var levels = []string{"debug", "info", "warn", "error"}

// short returns the first 40 bytes of a value, which are enough to find it by.
func short(node any) string {
	s := fmt.Sprint(node)
	if len(s) > 40 {
		s = strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}

// isScalar says whether a struct is one word in YAML, since it has a text form of its own.
func isScalar(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(interface{ UnmarshalText([]byte) error })
	return ok
}

// readable returns the keys that a file may have, for an error.
func readable(v reflect.Value) string {
	return strings.Join(slices.DeleteFunc(yamlKeys(v), func(key string) bool { return key == "-" }), ", ")
}

// yamlKeys returns the YAML names of a struct's fields, in their order.
func yamlKeys(v reflect.Value) []string {
	names := make([]string, v.NumField())
	for i := range names {
		names[i] = v.Type().Field(i).Tag.Get("yaml")
	}
	return names
}

func kindOf(v reflect.Value) string {
	switch v.Type().String() {
	case "time.Duration":
		return "a duration like 90s, 15m or 4h"
	case "netip.Addr":
		return "an IP address"
	case "netip.Prefix":
		return "a network like 192.0.2.0/24"
	case "leases.Range":
		return "a range like 192.0.2.100-192.0.2.199"
	}
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	default:
		return "a text"
	}
}
