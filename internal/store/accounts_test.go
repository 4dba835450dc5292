package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func sized(addr string, n int) Record {
	return pack(addr, &Account{MailboxHash: strings.Repeat("x", n)}, 1)
}

// Whatever is put and removed, the index holds what a map holds, and a record that was read before
// stays as it was.
func TestAccountsAreAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var index accounts
		want := map[string]string{}
		type seen struct {
			r Record
			s string
		}
		var before []seen
		names := rapid.IntRange(1, 60).Draw(t, "names")
		for range rapid.IntRange(0, 300).Draw(t, "changes") {
			addr := fmt.Sprintf("u%d@example.org", rapid.IntRange(0, names).Draw(t, "account"))
			if r := index.get(addr); r.Exists() {
				before = append(before, seen{r, strings.Clone(r.packed)})
			}
			if rapid.IntRange(0, 2).Draw(t, "remove") == 0 {
				index.remove(addr)
				delete(want, addr)
				continue
			}
			r := sized(addr, rapid.SampledFrom([]int{0, 10, 500, 3000}).Draw(t, "size"))
			index.put(r)
			want[addr] = r.packed
		}
		got := map[string]string{}
		for r := range index.all() {
			got[r.Address()] = r.packed
		}
		if !maps.Equal(got, want) || index.count != len(want) {
			t.Fatalf("%d accounts instead of %d", len(got), len(want))
		}
		for i := range names + 1 {
			addr := fmt.Sprintf("u%d@example.org", i)
			if index.get(addr).packed != want[addr] {
				t.Fatalf("%s is not found", addr)
			}
		}
		for _, b := range before {
			if b.r.packed != b.s {
				t.Fatal("a record changed after it was read")
			}
		}
	})
}

// Replaced records do not accumulate, and records longer than a page are kept.
func TestAccountsGiveUpPages(t *testing.T) {
	var index accounts
	live := 0
	for i := range 1000 {
		r := sized(fmt.Sprintf("u%d@example.org", i), 1000)
		index.put(r)
		live += len(r.packed)
	}
	for i := range 20_000 {
		index.put(sized(fmt.Sprintf("u%d@example.org", i*7919%1000), 1000))
	}
	held := 0
	for _, p := range index.pages {
		held += cap(p.data)
	}
	if held > 2*live+2*pageSize {
		t.Errorf("%d bytes for %d", held, live)
	}
	big := sized("big@example.org", 3*pageSize)
	index.put(big)
	index.put(sized("u1@example.org", 5))
	if index.get("big@example.org") != big || index.get("u1@example.org") != sized("u1@example.org", 5) {
		t.Error("a long record is lost")
	}
	for i := range 1000 {
		index.remove(fmt.Sprintf("u%d@example.org", i))
	}
	if got := slices.Collect(index.all()); len(got) != 1 || got[0] != big {
		t.Errorf("%d left", len(got))
	}
}

// A page of a snapshot with anything but whole accounts of the domain, once each, is refused.
func TestPagesAreChecked(t *testing.T) {
	page := func(records ...Record) (b []byte) {
		for _, r := range records {
			b = appendText(b, r.packed)
		}
		return b
	}
	ann, bob := sized("ann@example.org", 3), sized("bob@example.org", 3)
	add := func(b []byte) error {
		var index accounts
		return index.addPage("example.org", b, func(Record) {})
	}
	if err := add(page(ann, bob)); err != nil {
		t.Error(err)
	}
	for what, b := range map[string][]byte{
		"an account twice":   page(ann, bob, ann),
		"another domain":     page(ann, sized("x@example.net", 3)),
		"half an account":    page(ann, Record{bob.packed[:len(bob.packed)-1]}),
		"an empty record":    page(ann, Record{}),
		"too long a page":    page(sized("big@example.org", 2*pageSize), ann),
		"a longer account":   page(Record{ann.packed + "x"}),
		"of a newer version": page(Record{ann.packed[:17] + "\xff" + ann.packed[18:]}),
	} {
		if err := add(b); !errors.Is(err, errPacked) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
