package auditchain

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

type entry struct {
	n    uint64
	link string
	text string
}

func chain(n int) []entry {
	var list []entry
	before := ""
	for i := range n {
		e := entry{n: uint64(i + 1), text: fmt.Sprintf(`{"action":"policy.create","target":"%d"}`, i)}
		e.link = Link(before, e.n, []byte(e.text))
		before = e.link
		list = append(list, e)
	}
	return list
}

func verify(list []entry, atLeast uint64, anchors ...Anchor) (Head, *Break) {
	v := Verifier{Shard: 3, Anchors: anchors}
	for _, e := range list {
		v.Add(e.n, e.link, []byte(e.text))
	}
	h, _, broken := v.End(atLeast)
	return h, broken
}

// What was done to a chain is found at the entry where it was done.
func TestTampering(t *testing.T) {
	whole := chain(10)
	anchor := Anchor{3, 6, whole[5].link}
	relinked := func(list []entry) []entry { // by somebody who knows how
		before := ""
		for i := range list {
			list[i].n = uint64(i + 1)
			list[i].link = Link(before, list[i].n, []byte(list[i].text))
			before = list[i].link
		}
		return list
	}
	for _, c := range []struct {
		name   string
		do     func([]entry) []entry
		at     uint64
		reason string
	}{
		{"nothing", func(l []entry) []entry { return l }, 0, ""},
		{"changed", func(l []entry) []entry { l[4].text = `{"action":"nothing"}`; return l }, 5, "changed"},
		{"link changed", func(l []entry) []entry { l[4].link = l[3].link; return l }, 5, "changed"},
		{"link removed", func(l []entry) []entry { l[4].link = ""; return l }, 5, "link was removed"},
		{"removed", func(l []entry) []entry { return slices.Delete(l, 4, 5) }, 5, "removed"},
		{"first removed", func(l []entry) []entry { return l[1:] }, 1, "removed"},
		{"reordered", func(l []entry) []entry { l[4], l[5] = l[5], l[4]; return l }, 5, "removed"},
		{"exchanged texts", func(l []entry) []entry { l[4].text, l[5].text = l[5].text, l[4].text; return l }, 5, "changed"},
		{"repeated", func(l []entry) []entry { return slices.Insert(l, 5, l[4]) }, 5, "order"},
		{"cut off", func(l []entry) []entry { return l[:8] }, 9, "cut off"},
		{"empty", func([]entry) []entry { return nil }, 1, "cut off"},
		{"written anew before the anchor", func(l []entry) []entry { l[2].text = "{}"; return relinked(l) }, 6, "anchor"},
		{"removed and written anew", func(l []entry) []entry { return relinked(slices.Delete(l, 2, 3)) }, 6, "anchor"},
	} {
		_, broken := verify(c.do(slices.Clone(whole)), 10, anchor)
		switch {
		case c.at == 0 && broken != nil:
			t.Errorf("%s: broken at %v", c.name, broken)
		case c.at == 0:
		case broken == nil || broken.N != c.at || broken.Shard != 3 || !strings.Contains(broken.Reason, c.reason):
			t.Errorf("%s: %+v, want %d because it says %q", c.name, broken, c.at, c.reason)
		}
	}
	if _, broken := verify(chain(5), 0, anchor); broken == nil || broken.N != 6 {
		t.Errorf("a chain that ends before its anchor: %+v", broken)
	}
}

// Entries that are older than chains are accepted before it, and only there.
func TestOldEntries(t *testing.T) {
	list := []entry{{1, "", "{}"}, {2, "", "{}"}}
	list = append(list, entry{3, Link("", 3, []byte("{}")), "{}"})
	if h, broken := verify(list, 3); broken != nil || h.N != 3 {
		t.Errorf("%v %+v", h, broken)
	}
}

func TestAnchors(t *testing.T) {
	heads := []Head{{3, 10, chain(10)[9].link}, {32, 1, chain(1)[0].link}}
	got, err := ParseAnchors(Text(heads))
	if err != nil || !slices.Equal(got, heads) {
		t.Errorf("%v %v", got, err)
	}
	if Digest(heads) != Digest([]Head{heads[1], heads[0]}) || Digest(heads) == Digest(heads[:1]) {
		t.Error("the digest depends on the order, or not on the heads")
	}
	for _, bad := range []string{"", "x", "3-10", "3-10-abc", "a-1-" + heads[0].Link, Text(heads) + ","} {
		if got, err := ParseAnchors(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func FuzzParseAnchors(f *testing.F) {
	f.Add("3-10-" + strings.Repeat("a", 64))
	f.Fuzz(func(t *testing.T, text string) {
		heads, err := ParseAnchors(text)
		if err != nil {
			return
		}
		again, err := ParseAnchors(Text(heads))
		if err != nil || !slices.Equal(again, heads) {
			t.Errorf("%q: %v, then %v %v", text, heads, again, err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	list := chain(1000)
	for b.Loop() {
		if _, broken := verify(list, 0); broken != nil {
			b.Fatal(broken)
		}
	}
}
