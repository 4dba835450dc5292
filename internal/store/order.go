package store

import (
	"math"
	"slices"
	"sort"
	"strings"
)

// order is the addresses of a domain's records, sorted, one behind the other. A list of one page
// then reads the records of that page: without it, it reads all of them, each somewhere else in
// memory. It never changes.
type order struct {
	text string
	ends []uint32
}

// newOrder sorts the addresses of records; nil if they are too long together.
func newOrder(list []Record) *order {
	var text strings.Builder
	ends := make([]uint32, len(list))
	for i, r := range list {
		text.WriteString(r.Address())
		if text.Len() > math.MaxUint32 {
			return nil
		}
		ends[i] = uint32(text.Len()) //nolint:gosec // G115: just checked
	}
	apart := order{text.String(), ends}
	addresses := make([]string, len(list))
	for i := range addresses {
		addresses[i] = apart.at(i)
	}
	slices.Sort(addresses)
	sorted := &order{strings.Join(addresses, ""), ends}
	end := uint32(0)
	for i, addr := range addresses {
		end += uint32(len(addr)) //nolint:gosec // G115: as above
		ends[i] = end
	}
	return sorted
}

func (o *order) at(i int) string {
	from := uint32(0)
	if i > 0 {
		from = o.ends[i-1]
	}
	return o.text[from:o.ends[i]]
}

// disorder forgets the order, since an address came or went.
func (a *accounts) disorder() {
	a.order, a.listed = nil, false
	a.version++
}

// following returns up to limit records whose addresses follow after, sorted, if the order is known.
func (a *accounts) following(after string, limit int) (list []Record, known bool) {
	o := a.order
	if o == nil {
		return nil, false
	}
	from := sort.Search(len(o.ends), func(i int) bool { return o.at(i) > after })
	for i := from; i < min(from+limit, len(o.ends)); i++ {
		list = append(list, a.get(o.at(i)))
	}
	return list, true
}
