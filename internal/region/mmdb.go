package region

import (
	"errors"
	"fmt"

	"github.com/oschwald/maxminddb-golang/v2"
	"go4.org/netipx"
)

const (
	// maxMMDB is the largest MaxMind database in bytes; it is read as a whole. A database of cities
	// has 130 MB.
	maxMMDB = 256 << 20
	// maxNetworks is the largest number of networks: a crafted tree can have more than can be
	// counted.
	maxNetworks = 1 << 24
)

// readMMDB adds the networks of a MaxMind database, without the aliases of the IPv4 networks (such
// as 2002::/16).
func (b *builder) readMMDB(data []byte, name string) error {
	r, err := maxminddb.OpenBytes(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := finite(data, &r.Metadata); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	b.Date = r.Metadata.BuildTime().UTC()
	read := b.country
	if b.networks {
		read = b.system
	}
	known := map[uintptr]uint16{} // networks share their records
	for n := range r.Networks() {
		if err := n.Err(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if b.RangesV4+b.RangesV6 >= maxNetworks {
			return fmt.Errorf("%s: has more than %d networks", name, maxNetworks)
		}
		code, ok := known[n.Offset()]
		if !ok {
			if code, err = read(n); err != nil {
				return fmt.Errorf("%s: %s: %w", name, n.Prefix(), err)
			}
			known[n.Offset()] = code
		}
		if err := b.add(n.Prefix().Addr(), netipx.PrefixLastIP(n.Prefix()), code); err != nil {
			return fmt.Errorf("%s: %s: %w", name, n.Prefix(), err)
		}
	}
	if b.located || b.networks {
		b.reader = r
	}
	switch {
	case b.networks && !b.numbered:
		return fmt.Errorf("%s: numbers no autonomous system: is it a database of networks, such as GeoLite2-ASN?", name)
	case !b.networks && len(b.names) == 1:
		return fmt.Errorf("%s: names no country: is it a database of countries?", name)
	}
	return nil
}

// finite refuses a search tree that cannot be traversed: shared nodes can give a small tree more
// leaves than can be counted, most of them empty, and the library does not report those.
func finite(data []byte, m *maxminddb.Metadata) error {
	if m.RecordSize != 24 && m.RecordSize != 28 && m.RecordSize != 32 {
		return fmt.Errorf("has records of %d bits, which the format does not know", m.RecordSize)
	}
	t := tree{data: data, nodes: m.NodeCount, record: m.RecordSize, ends: make([]int, m.NodeCount)}
	for range ipv4Bits {
		if t.ipv4 < t.nodes {
			t.ipv4, _ = t.children(t.ipv4)
		}
	}
	if m.IPVersion != 6 {
		t.ipv4 = t.nodes // all of it is
	}
	_, err := t.count(0, 0, true)
	return err
}

const (
	ipv4Bits = 96  // of the prefix below which an IPv6 tree has the IPv4 addresses
	ipv6Bits = 128 // of an address
)

// tree is the search tree of a MaxMind database.
type tree struct {
	data          []byte
	nodes, record uint  // how many, and the bits of one side of a node
	ipv4          uint  // the node below which IPv4 is; its aliases are not followed
	ends          []int // below each node that was counted; counting while it is
}

const counting = -1

// count counts the leaves below a node. first reports whether all bits so far are 0.
func (t *tree) count(node uint, depth int, first bool) (ends int, err error) {
	switch {
	case node >= t.nodes, node == t.ipv4 && !first:
		return 1, nil
	case depth == ipv6Bits || t.ends[node] == counting:
		return 0, errors.New("its search tree is deeper than addresses are long")
	case t.ends[node] > 0:
		return t.ends[node], nil
	}
	t.ends[node] = counting
	left, right := t.children(node)
	if ends, err = t.count(left, depth+1, first); err != nil {
		return 0, err
	}
	more, err := t.count(right, depth+1, false)
	if ends += more; err == nil && ends > maxNetworks {
		err = fmt.Errorf("has more than %d networks", maxNetworks)
	}
	t.ends[node] = ends
	return ends, err
}

// children returns the two targets of a node.
func (t *tree) children(node uint) (left, right uint) {
	b := t.data[node*t.record/4:]
	high := func(i int) uint { return uint(b[i])<<16 | uint(b[i+1])<<8 | uint(b[i+2]) }
	switch t.record {
	case 24:
		return high(0), high(3)
	case 28:
		return uint(b[3]>>4)<<24 | high(0), uint(b[3]&0xf)<<24 | high(4)
	default:
		return high(0)<<8 | uint(b[3]), high(4)<<8 | uint(b[7])
	}
}

// country returns the country of a network's users, else that of its registration. MaxMind and
// DB-IP name the code country.iso_code, ip-location-db country_code, and IPinfo country.
func (b *builder) country(n maxminddb.Result) (uint16, error) {
	var record map[string]any
	if err := n.Decode(&record); err != nil {
		return 0, err
	}
	if at, _ := record["location"].(map[string]any); at["latitude"] != nil && at["longitude"] != nil {
		b.located = true
	}
	isoCode := func(v any) any {
		country, _ := v.(map[string]any)
		return country["iso_code"]
	}
	for _, v := range []any{isoCode(record["country"]), isoCode(record["registered_country"]), record["country_code"], record["country"]} {
		if code, _ := v.(string); code != "" {
			return b.code(code)
		}
	}
	return 0, nil
}
