package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// decode reads YAML into the struct that into points to and reports every mistake at once, each with its key:
// YAML decoders stop at the first one, and nobody likes to correct a file ten times.
func decode(raw []byte, into any) (mistakes []string) {
	var tree any
	if err := yaml.UnmarshalWithOptions(raw, &tree, yaml.UseOrderedMap()); err != nil {
		// Without the lines around it: the file may be another one than was meant, and not for everybody's
		// eyes.
		return []string{fmt.Sprintf("%.200s", strings.TrimSpace(yaml.FormatError(err, false, false)))}
	}
	if tree != nil {
		fill(tree, reflect.ValueOf(into).Elem(), "", &mistakes)
	}
	return mistakes
}

// fill puts one node of the tree into its place.
func fill(node any, into reflect.Value, path string, mistakes *[]string) {
	complain := func(format string, args ...any) {
		*mistakes = append(*mistakes, strings.TrimPrefix(path+": ", ": ")+fmt.Sprintf(format, args...))
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
			fill(entry.Value, into.Field(i), strings.TrimPrefix(path+"."+key, "."), mistakes)
		}
	case into.Kind() == reflect.Slice:
		items, ok := node.([]any)
		if !ok {
			complain("%s: want a list", short(node))
			return
		}
		list := reflect.MakeSlice(into.Type(), len(items), len(items))
		for i, item := range items {
			fill(item, list.Index(i), fmt.Sprintf("%s[%d]", path, i), mistakes)
		}
		into.Set(list)
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

// short is enough of a value to find it by.
func short(node any) string {
	s := fmt.Sprint(node)
	if len(s) > 40 {
		s = strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}

// isScalar says that a struct is written as one word in YAML: it has a text form of its own.
func isScalar(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(interface{ UnmarshalText([]byte) error })
	return ok
}

// readable are the keys that a file may have.
func readable(v reflect.Value) string {
	return strings.Join(slices.DeleteFunc(yamlKeys(v), func(key string) bool { return key == "-" }), ", ")
}

// yamlKeys are the YAML names of a struct's fields, in their order.
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
