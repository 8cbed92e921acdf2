package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
)

// A record stays for ever, so the list of them has pages.
func TestErasuresHavePages(t *testing.T) {
	fleet := apitest.New()
	for i := range 703 {
		fleet.Erase(inventory.Erasure{
			MachineName: []string{"m1", "m2", "m3"}[i%3],
			Disk:        inventory.DiskIdentity{Serial: fmt.Sprintf("D%d", i)},
		})
	}
	c, socket := serve(t, fleet)
	for of, total := range map[string]int{"": 703, "m2": 234, "D7": 1, "nobody": 0} {
		var all []string
		q := deploy.ErasureQuery{Of: of, Limit: 100}
		for pages := 0; ; pages++ {
			page, more, err := c.Erasures(t.Context(), q)
			if err != nil || len(page) > 100 || more != (len(all)+len(page) < total) {
				t.Fatalf("page %d of %q: %d records, more %v, %v", pages, of, len(page), more, err)
			}
			for _, r := range page {
				all = append(all, r.Disk.Serial)
			}
			if !more {
				break
			}
			q.Before = page[len(page)-1].Seq
		}
		if slices.Sort(all); len(slices.Compact(all)) != total {
			t.Errorf("%q: the pages have %d records, want %d", of, len(all), total)
		}
	}
	if page, _, err := c.Erasures(t.Context(), deploy.ErasureQuery{Limit: 1}); err != nil ||
		page[0].Disk.Serial != "D702" {
		t.Errorf("the first record is %+v, %v, want the newest", page, err)
	}
	var answer struct {
		Erasures []inventory.Erasure
		More     bool
	}
	_, _, text := ask(t, socket, http.MethodGet, "/v1/erasures", "")
	if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Erasures) != 100 ||
		!answer.More {
		t.Errorf("without a limit there are %d records, more %v, %v, want 100 and more", len(answer.Erasures),
			answer.More, err)
	}
	for _, limit := range []int{-1, 0, 501} {
		if _, _, err := c.Erasures(t.Context(),
			deploy.ErasureQuery{Limit: limit}); problemCode(err) != inventory.CodeInvalid {
			t.Errorf("limit %d: %v, want that it is refused", limit, err)
		}
	}
}
