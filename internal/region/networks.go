package region

import (
	"net/netip"
	"strconv"

	"github.com/oschwald/maxminddb-golang/v2"
)

// maxOrganization bounds the name of a network, in bytes.
const maxOrganization = 100

// Place is where a database says that an address is.
type Place struct {
	Latitude  float64 `maxminddb:"latitude"`
	Longitude float64 `maxminddb:"longitude"`
	Radius    uint16  `maxminddb:"accuracy_radius"` // km; 0 if the database does not say
}

// Place returns where an address is; false if the database has no coordinates of it.
func (d *Database) Place(ip netip.Addr) (p Place, ok bool) {
	ip = inner(ip, nil)
	if d == nil || !d.located || !public(ip) {
		return p, false
	}
	var record struct {
		Location *Place `maxminddb:"location"`
	}
	if err := d.reader.Lookup(ip).Decode(&record); err != nil || record.Location == nil || *record.Location == (Place{}) {
		return p, false
	}
	return *record.Location, true
}

// Network returns the autonomous system that announces an address and the name of its organization,
// such as "AS3320 Deutsche Telekom AG"; "" if it is not known.
func (d *Database) Network(ip netip.Addr) string {
	ip = inner(ip, nil)
	if d == nil || !d.networks || !public(ip) {
		return ""
	}
	name, _ := systemOf(d.reader.Lookup(ip)) // all were read before
	return name
}

func systemOf(n maxminddb.Result) (string, error) {
	var s struct {
		Number       uint32 `maxminddb:"autonomous_system_number"`
		Organization string `maxminddb:"autonomous_system_organization"`
	}
	if err := n.Decode(&s); err != nil || s.Number == 0 {
		return "", err
	}
	name := "AS" + strconv.FormatUint(uint64(s.Number), 10)
	if s.Organization != "" {
		name += " " + s.Organization[:min(len(s.Organization), maxOrganization)]
	}
	return name, nil
}

// system notes that a database numbers systems. They are looked up where they are.
func (b *builder) system(n maxminddb.Result) (uint16, error) {
	name, err := systemOf(n)
	b.numbered = b.numbered || name != ""
	return 0, err
}

// Place is [Database.Place] in the current database.
func (s *Source) Place(ip netip.Addr) (Place, bool) {
	d, ip := s.at(ip)
	return d.Place(ip)
}

// Network is [Database.Network] in the current database.
func (s *Source) Network(ip netip.Addr) string {
	d, ip := s.at(ip)
	return d.Network(ip)
}
