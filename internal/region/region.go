// Package region looks up the country of an address, IPv4 and IPv6, in a database that an
// administrator or the distribution keeps up to date. IPv4-mapped, 6to4 and NAT64 addresses have
// the country of the IPv4 address inside.
//
// Two formats are supported. The pair of CSV files of Debian's tor-geoipdb, the second named like
// the first with a 6 at its end:
//
//	# Generated: Thu, 25 Jun 2026 04:33:59 GMT
//	16777216,16777471,AU
//	16777472,16778239,CN
//
//	2001:200::,2001:200:134:ffff:ffff:ffff:ffff:ffff,JP
//
// And a MaxMind database (.mmdb) with country.iso_code, or else registered_country.iso_code; its
// format is [MaxMind DB 2.0].
//
// Where such a database has coordinates (location.latitude, location.longitude), as those of cities
// have, it knows places, too. Databases of networks, which [OpenNetworks] reads, have
// autonomous_system_number and autonomous_system_organization. Both are looked up in the file's
// content, which is kept in memory.
//
// Either is read as a whole into sorted arrays: a [Database] is immutable, look-ups are binary
// searches without allocation, and changes of the file do not affect it. A [Source] reloads the
// database of a setting while the daemon runs.
//
// # Diagnostics
//
// A file is read as a whole or refused. Errors name the file, and of a CSV the line:
//
//	/usr/share/tor/geoip:17: the range begins before the end of the one above
//
// A database without IPv4 or without IPv6 ranges is accepted and logged: its addresses are unknown.
//
// # Limits
//
// The package downloads nothing, and knows no unit below a country. Databases also answer EU and AP
// (Europe, Asia/Pacific: registered there, country unknown) and ZZ: in Debian's, EU is a third of
// the covered IPv6 space. A region is no proof: networks move, and anybody can rent an address.
//
// [MaxMind DB 2.0]: https://maxmind.github.io/MaxMind-DB/
package region

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sort"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/drawbridge/drawbridge/internal/access"
)

// Database contains the countries of all addresses, in memory. It is immutable and safe for
// concurrent use. The nil Database is empty.
type Database struct {
	Paths              []string
	Kind               string    // KindCSV or KindMMDB
	Date               time.Time // of the data: as the files say, else of the files
	RangesV4, RangesV6 int       // in the files
	ReadAt             time.Time

	networks bool              // autonomous systems, no regions
	located  bool              // there are coordinates
	reader   *maxminddb.Reader // of what is not in the stretches; nil without

	names []string // the first is access.RegionUnknown
	v4    stretches[uint32]
	v6    stretches[uint128]
}

// The kinds of database.
const (
	KindCSV  = "csv"
	KindMMDB = "mmdb"
)

type uint128 struct{ hi, lo uint64 }

func (a uint128) above(b uint128) bool { return a.hi > b.hi || a.hi == b.hi && a.lo > b.lo }

// Lookup returns the region of an address: a code of ISO 3166-1 alpha-2, or another code of the
// database, such as XK, EU or ZZ; [access.RegionUnknown] for a public address that the database
// does not contain; [access.RegionNoDatabase] from a nil Database; "" for an address without a
// region: private, shared (RFC 6598), loopback, link-local, multicast, unspecified or invalid.
func (d *Database) Lookup(ip netip.Addr) string {
	ip = inner(ip, nil)
	if !public(ip) {
		return ""
	}
	if d == nil {
		return access.RegionNoDatabase
	}
	return d.names[d.find(ip)]
}

var shared = netip.MustParsePrefix("100.64.0.0/10") // carrier-grade NAT, RFC 6598

func public(ip netip.Addr) bool {
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !shared.Contains(ip)
}

// find returns the code of the last stretch that begins at or before an address.
func (d *Database) find(ip netip.Addr) uint16 {
	if ip.Is4() {
		key, starts := key4(ip), d.v4.starts
		return d.v4.codes[sort.Search(len(starts), func(i int) bool { return starts[i] > key })-1]
	}
	key, starts := key6(ip), d.v6.starts
	return d.v6.codes[sort.Search(len(starts), func(i int) bool { return starts[i].above(key) })-1]
}

// stretches are the addresses of one family: each begins at its start, and ends before the next
// one's. The first start is the family's lowest address. A code is an index into the names of
// regions.
type stretches[K comparable] struct {
	starts []K
	codes  []uint16
}

// begin starts a stretch, or extends one of the same region.
func (s *stretches[K]) begin(key K, code uint16) {
	last := len(s.starts) - 1
	switch {
	case last >= 0 && s.codes[last] == code:
	case last >= 0 && s.starts[last] == key: // the family's lowest address: nothing is before it
		s.codes[last] = code
	default:
		s.starts, s.codes = append(s.starts, key), append(s.codes, code)
	}
}

// clip releases the spare capacity of the slices.
func (s *stretches[K]) clip() {
	s.starts, s.codes = slices.Clone(s.starts), slices.Clone(s.codes)
}

func key4(ip netip.Addr) uint32 {
	b := ip.As4()
	return binary.BigEndian.Uint32(b[:])
}

func key6(ip netip.Addr) uint128 {
	b := ip.As16()
	return uint128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// Missing returns the address family without ranges: "IPv4", "IPv6" or "". Its public addresses are
// unknown.
func (d *Database) Missing() string {
	switch {
	case d == nil:
	case d.RangesV4 == 0:
		return "IPv4"
	case d.RangesV6 == 0:
		return "IPv6"
	}
	return ""
}

// Holds reports whether the database contains addresses of a region, by its code in capitals. The
// nil Database contains none.
func (d *Database) Holds(code string) bool {
	return d != nil && slices.Contains(d.names[1:], code)
}

// Codes returns the codes of the regions with addresses in the database, sorted; none for the nil
// Database. The slice is the caller's own.
func (d *Database) Codes() []string {
	if d == nil {
		return nil
	}
	codes := slices.Clone(d.names[1:])
	slices.Sort(codes)
	return codes
}

// builder builds a database range by range.
type builder struct {
	Database
	codes      map[string]uint16
	numbered   bool       // there are autonomous systems
	end4, end6 netip.Addr // last addresses of the ranges so far
}

func newBuilder() *builder {
	b := &builder{}
	b.names = []string{access.RegionUnknown}
	b.codes = map[string]uint16{}
	b.v4.begin(0, 0)
	b.v6.begin(uint128{}, 0)
	return b
}

// code returns the index of a region's name.
func (b *builder) code(name string) (uint16, error) {
	switch name {
	case "??":
		return 0, nil
	case "UK": // reserved for, and in some data meaning, the United Kingdom
		name = "GB"
	}
	if n, ok := b.codes[name]; ok {
		return n, nil
	}
	letter := func(c byte) bool { return 'A' <= c && c <= 'Z' }
	if len(name) != 2 || !letter(name[0]) || !letter(name[1]) {
		return 0, errors.New("the region is not two capital letters, nor ?? for unknown")
	}
	n := uint16(len(b.names)) //nolint:gosec // two letters make no more than 676
	b.codes[name] = n
	b.names = append(b.names, name)
	return n, nil
}

// add adds a range, which must be above all earlier ones of its family.
func (b *builder) add(low, high netip.Addr, code uint16) error {
	end, count := &b.end4, &b.RangesV4
	if low.Is6() {
		end, count = &b.end6, &b.RangesV6
	}
	switch {
	case high.Less(low):
		return errors.New("the range ends before it begins")
	case end.IsValid() && !end.Less(low):
		return errors.New("the range begins before the end of the one above")
	}
	if end.IsValid() && end.Next() != low {
		b.from(end.Next(), 0)
	}
	b.from(low, code)
	*end = high
	*count++
	return nil
}

// from sets the region of the addresses from one on.
func (b *builder) from(ip netip.Addr, code uint16) {
	if ip.Is4() {
		b.v4.begin(key4(ip), code)
	} else {
		b.v6.begin(key6(ip), code)
	}
}

// finish closes the last ranges and returns the database.
func (b *builder) finish() *Database {
	for _, end := range []netip.Addr{b.end4, b.end6} {
		if next := end.Next(); end.IsValid() && next.IsValid() {
			b.from(next, 0)
		}
	}
	d := b.Database
	d.v4.clip()
	d.v6.clip()
	return &d
}
