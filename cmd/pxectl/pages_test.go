package main

import "testing"

// A list is fetched page by page, each from the last of the one before, and no longer than it was asked for.
func TestPages(t *testing.T) {
	const total = 1203
	next := func(last *int, size int) (page []int, more bool, err error) {
		from := 0
		if last != nil {
			from = *last + 1
		}
		for i := from; i < min(from+size, total); i++ {
			page = append(page, i)
		}
		return page, from+size < total, nil
	}
	for limit, want := range map[int]int{0: total, 1: 1, 500: 500, 501: 501, 1203: total, 1204: total} {
		all, more, err := pages(limit, next)
		if err != nil || len(all) != want || more != (want < total) {
			t.Errorf("limit %d: %d of %d, more %v, %v", limit, len(all), total, more, err)
		}
		for i, v := range all {
			if v != i {
				t.Fatalf("limit %d: number %d is %d", limit, i, v)
			}
		}
	}
}
