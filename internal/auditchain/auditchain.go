// Package auditchain chains the audit entries of each shard by hashes, so that an entry that was
// removed, changed, reordered or cut off is found and named.
//
//	link(n) = SHA-256(link(n-1), n, entry(n)), in hexadecimal
//
// Whoever can write to the store can compute a whole chain anew. What proves that nobody did is a
// head that was kept elsewhere: an [Anchor]. A chain that passes through its anchors is as it was when
// they were taken.
//
// The package is pure: it reads no store and no file.
package auditchain

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
)

// Link returns the link of the entry number n that follows the link before; that of the first is "".
func Link(before string, n uint64, entry []byte) string {
	return link(sha256.New(), before, n, entry)
}

func link(h hash.Hash, before string, n uint64, entry []byte) string {
	var room [128]byte
	b := append(append(room[:0], before...), ' ')
	b = append(strconv.AppendUint(b, n, 10), ' ')
	h.Reset()
	h.Write(b)
	h.Write(entry)
	return hex.EncodeToString(h.Sum(room[:0]))
}

// Head is the end of a shard's chain.
type Head struct {
	Shard int    `json:"shard"`
	N     uint64 `json:"n"`
	Link  string `json:"link"`
}

// Anchor is a head that was kept elsewhere. Its text is "SHARD-N-LINK".
type Anchor = Head

// String returns the text of a head.
func (h Head) String() string { return fmt.Sprintf("%d-%d-%s", h.Shard, h.N, h.Link) }

// errAnchor: a text is no anchor.
var errAnchor = errors.New("not an anchor: it is SHARD-NUMBER-LINK, several with commas")

// ParseAnchors reads heads that [Heads.String] wrote.
func ParseAnchors(text string) ([]Anchor, error) {
	var list []Anchor
	for part := range strings.SplitSeq(text, ",") {
		fields := strings.Split(part, "-")
		if len(fields) != 3 || len(fields[2]) != hex.EncodedLen(sha256.Size) {
			return nil, errAnchor
		}
		shard, err1 := strconv.Atoi(fields[0])
		n, err2 := strconv.ParseUint(fields[1], 10, 64)
		if err := cmp.Or(err1, err2); err != nil {
			return nil, errAnchor
		}
		list = append(list, Anchor{shard, n, fields[2]})
	}
	return list, nil
}

// Text returns heads as one text, for [ParseAnchors]. Those of chains that have not begun are left out.
func Text(heads []Head) string {
	var parts []string
	for _, h := range heads {
		if h.Link != "" {
			parts = append(parts, h.String())
		}
	}
	return strings.Join(parts, ",")
}

// Digest returns one hash of all heads, short enough to be read out. Their order does not matter.
func Digest(heads []Head) string {
	heads = slices.SortedFunc(slices.Values(heads), func(a, b Head) int { return cmp.Compare(a.Shard, b.Shard) })
	sum := sha256.Sum256([]byte(Text(heads)))
	return hex.EncodeToString(sum[:])
}

// Break is where a chain is not what it was.
type Break struct {
	Shard  int
	N      uint64
	Reason string
}

// Verifier verifies the chain of one shard, entry after entry. The zero Verifier, with its Shard set,
// begins with the first entry.
type Verifier struct {
	Shard int
	// Anchors of this shard; others are ignored.
	Anchors []Anchor

	entries int
	n       uint64 // of the last entry
	last    string // its link; "" while entries from before there were chains are read
	broken  *Break
	hash    hash.Hash
}

// Add verifies the next entry. Entries without a link are accepted until the first that has one: they
// are older than the chain.
func (v *Verifier) Add(n uint64, linked string, entry []byte) {
	v.entries++
	before := v.n
	v.n = n
	if v.broken != nil {
		return
	}
	if v.hash == nil {
		v.hash = sha256.New()
	}
	switch {
	case n <= before:
		v.breaks(n, fmt.Sprintf("the entries are not in order: it follows %d", before))
	case n != before+1:
		v.breaks(before+1, fmt.Sprintf("entries were removed: %d is followed by %d", before, n))
	case linked == "" && v.last != "":
		v.breaks(n, "its link was removed")
	case linked != "" && linked != link(v.hash, v.last, n, entry):
		v.breaks(n, "it was changed, or does not follow the entry before")
	}
	v.last = linked
	for _, a := range v.Anchors {
		if a.Shard == v.Shard && a.N == n && a.Link != linked && v.broken == nil {
			v.breaks(n, "it is not the entry that the anchor was taken of")
		}
	}
}

func (v *Verifier) breaks(n uint64, reason string) { v.broken = &Break{v.Shard, n, reason} }

// End returns the head of the chain and where it is broken, nil if it is not. atLeast is the number
// of the last entry that there must be.
func (v *Verifier) End(atLeast uint64) (h Head, entries int, broken *Break) {
	for _, a := range v.Anchors {
		if a.Shard == v.Shard {
			atLeast = max(atLeast, a.N)
		}
	}
	if v.broken == nil && v.n < atLeast {
		v.breaks(v.n+1, fmt.Sprintf("the end was cut off: there must be entries up to %d", atLeast))
	}
	return Head{v.Shard, v.n, v.last}, v.entries, v.broken
}
