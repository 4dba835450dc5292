package region

import (
	"fmt"

	"github.com/oschwald/maxminddb-golang/v2"
	"go4.org/netipx"
)

const (
	// maxMMDB bounds a MaxMind database, which is read as a whole: one of cities has 130 MB.
	maxMMDB = 256 << 20
	// maxNetworks bounds its networks: a tree that was made to can have more than can be counted.
	maxNetworks = 1 << 24
)

// readMMDB adds the networks of a MaxMind database. Aliases of the IPv4 networks
// (2002::/16 and such) are left out: their addresses are unknown.
func (b *builder) readMMDB(data []byte, name string) error {
	r, err := maxminddb.OpenBytes(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer r.Close() //nolint:errcheck // opened from memory
	b.Date = r.Metadata.BuildTime().UTC()
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
			if code, err = b.country(n); err != nil {
				return fmt.Errorf("%s: %s: %w", name, n.Prefix(), err)
			}
			known[n.Offset()] = code
		}
		if err := b.add(n.Prefix().Addr(), netipx.PrefixLastIP(n.Prefix()), code); err != nil {
			return fmt.Errorf("%s: %s: %w", name, n.Prefix(), err)
		}
	}
	if len(b.names) == 1 {
		return fmt.Errorf("%s: names no country: is it a database of countries?", name)
	}
	return nil
}

// country returns where a network's users are, or else where it is registered.
func (b *builder) country(n maxminddb.Result) (uint16, error) {
	var code string
	for _, field := range []string{"country", "registered_country"} {
		if err := n.DecodePath(&code, field, "iso_code"); err != nil {
			return 0, err
		}
		if code != "" {
			return b.code(code)
		}
	}
	return 0, nil
}
