package inventory

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// A list that anybody sends is cut before it is decoded; what is short enough stays as it is.
func TestShortened(t *testing.T) {
	list := func(element string, n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + "]"
	}
	for _, c := range []struct{ name, in, want string }{
		{
			"a result", `{"boot_id":"b","report":{"disks":[{"name":"a,]}\"\\"},{}]},"error":""}`,
			`{"boot_id":"b","report":{"disks":[{"name":"a,]}\"\\"},{}]},"error":""}`,
		},
		{
			"22,333 disks", `{"report":{"disks":` + list("{}", 22_333) + `,"arch":"x"}}`,
			`{"report":{"disks":` + list("{}", mostListed) + `,"arch":"x"}}`,
		},
		{"as many as there may be", list("1", mostListed), list("1", mostListed)},
		{"one more", list("[]", mostListed+1), list("[]", mostListed)},
		{
			"lists in a list", list(`{"content":`+list(`"}]"`, 2000)+`}`, 2000),
			list(`{"content":`+list(`"}]"`, mostListed)+`}`, mostListed),
		},
		{
			"many members", `{` + strings.Repeat(`"a":1,`, 3000) + `"b":[ 1 , 2 ]}`,
			`{` + strings.Repeat(`"a":1,`, 3000) + `"b":[ 1 , 2 ]}`,
		},
		{"no JSON", `{"a":[1,`, `{"a":[1,`},
		{"nothing", "", ""},
		{"a number", "1", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Shortened([]byte(c.in))
			if err != nil || string(got) != c.want {
				t.Errorf("Shortened() = %d bytes, %.100s, %v, want %d, %.100s", len(got), got, err,
					len(c.want), c.want)
			}
		})
	}
	if got, err := Shortened([]byte(strings.Repeat("[", deepest+1) +
		strings.Repeat("]", deepest+1))); err == nil {
		t.Errorf("Shortened() of what is nested too deep = %s, want an error", got)
	}
}

// A shortened report says in Problems that there may have been more.
func TestAShortenedReportSaysSo(t *testing.T) {
	raw, err := Shortened([]byte(`{"disks":[` + strings.TrimSuffix(strings.Repeat("{},", 20_000), ",") +
		`]}`))
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Disks) != mostListed {
		t.Errorf("%d disks are decoded, want %d", len(r.Disks), mostListed)
	}
	if r = r.Bounded(StrangerReport); len(r.Disks) != maxDisks ||
		r.Problems[0] != "1025 or more disks are reported, and the first 256 kept" {
		t.Errorf("%d disks are kept, and the problems are %q", len(r.Disks), r.Problems)
	}
}

// cutLists does to decoded JSON what Shortened does to its text.
func cutLists(v any) any {
	switch v := v.(type) {
	case []any:
		v = v[:min(len(v), mostListed)]
		for i := range v {
			v[i] = cutLists(v[i])
		}
		return v
	case map[string]any:
		for k := range v {
			v[k] = cutLists(v[k])
		}
	}
	return v
}

func FuzzShortened(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,"],",{"b":[[],{}]}]}`, `[[[0]]]`, `"\\"`, ` [ "\"" , null ] `,
		`{"":[`, "[1,\u20281]",
	} {
		f.Add([]byte(s), uint16(3000))
	}
	f.Fuzz(func(t *testing.T, raw []byte, times uint16) {
		if json.Valid(raw) { // lists longer than the fuzzer's
			raw = []byte("[" + strings.Repeat(string(raw)+",", int(times%3000)) + string(raw) + "]")
		}
		var whole, cut any
		bad := json.Unmarshal(raw, &whole) != nil
		out, err := Shortened([]byte(string(raw)))
		if err != nil {
			return
		}
		if err := json.Unmarshal(out, &cut); (err != nil) != bad ||
			!bad && !reflect.DeepEqual(cut, cutLists(whole)) {
			t.Fatalf("Shortened(%.200q) = %.200q, %v, want the same with shorter lists", raw, out, err)
		}
	})
}
