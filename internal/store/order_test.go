package store

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Whatever is put, removed and listed, each page of a list is what a sorted map has.
func TestPagesOfAccounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := &State{domains: map[string]*domainState{"example.org": {domainRules: &domainRules{}}}}
		index := &st.domains["example.org"].accounts
		want := map[string]string{}
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			addr := fmt.Sprintf("u%d@example.org", rapid.IntRange(0, 30).Draw(t, "account"))
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				index.remove(addr)
				delete(want, addr)
			case 1, 2:
				r := sized(addr, rapid.SampledFrom([]int{0, 500, 3000}).Draw(t, "size"))
				index.put(r)
				want[addr] = r.packed
			default:
				limit := rapid.IntRange(1, 12).Draw(t, "limit")
				var got, expect []string
				for _, r := range st.first("example.org", addr, limit) {
					if r.packed != want[r.Address()] {
						t.Fatalf("%s is another record", r.Address())
					}
					got = append(got, r.Address())
				}
				for _, name := range slices.Sorted(maps.Keys(want)) {
					if name > addr && len(expect) < limit {
						expect = append(expect, name)
					}
				}
				if !slices.Equal(got, expect) {
					t.Fatalf("%d after %s: %q, want %q", limit, addr, got, expect)
				}
			}
		}
	})
}
