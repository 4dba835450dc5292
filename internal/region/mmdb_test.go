package region

import (
	"bytes"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mmdbtest"
)

func TestMMDB(t *testing.T) {
	var m mmdbtest.Tree
	m.Add("192.0.2.0/24", mmdbtest.Country("country", "DE"))
	m.Add("192.0.3.0/25", mmdbtest.Country("registered_country", "FR"))
	m.Add("203.0.113.0/24", mmdbtest.Fields(mmdbtest.Field{Key: "country", Value: mmdbtest.Fields(mmdbtest.Field{Key: "iso_code", Value: mmdbtest.Text("XK")})}, mmdbtest.Field{Key: "registered_country", Value: mmdbtest.Fields(mmdbtest.Field{Key: "iso_code", Value: mmdbtest.Text("RS")})}))
	m.Add("203.0.114.0/24", mmdbtest.Fields(mmdbtest.Field{Key: "continent", Value: mmdbtest.Fields(mmdbtest.Field{Key: "code", Value: mmdbtest.Text("EU")})}))
	m.Add("2001:db8::/32", mmdbtest.Country("country", "FR"))
	m.Add("198.51.100.0/25", mmdbtest.Fields(mmdbtest.Field{Key: "country_code", Value: mmdbtest.Text("IT")}))
	m.Add("198.51.100.128/25", mmdbtest.Fields(mmdbtest.Field{Key: "country", Value: mmdbtest.Text("ES")}, mmdbtest.Field{Key: "country_name", Value: mmdbtest.Text("Spain")}))
	built := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	d := mustLoad(t, m.Write(t, built))
	look(t, d.Lookup, map[string]string{
		"192.0.1.255": access.RegionUnknown, "192.0.2.0": "DE", "192.0.2.255": "DE", "192.0.3.0": "FR", "192.0.3.127": "FR", "192.0.3.128": access.RegionUnknown,
		"203.0.113.9": "XK", "203.0.114.9": access.RegionUnknown, "2001:db8:ffff::1": "FR", "2001:db9::": access.RegionUnknown, "10.0.0.1": "", "::ffff:192.0.2.1": "DE",
		"198.51.100.1": "IT", "198.51.100.200": "ES",
	})
	if d.RangesV4 != 6 || d.RangesV6 != 1 || d.Kind != KindMMDB || !d.Date.Equal(built) || len(d.Paths) != 1 {
		t.Errorf("%+v", d)
	}
}

func TestMMDBFaults(t *testing.T) {
	var good, asn, small mmdbtest.Tree
	good.Add("192.0.2.0/24", mmdbtest.Country("country", "DE"))
	asn.Add("192.0.2.0/24", mmdbtest.Fields(mmdbtest.Field{Key: "autonomous_system_number", Value: mmdbtest.Number(6, 1)}))
	small.Add("192.0.2.0/24", mmdbtest.Country("country", "de"))
	whole := good.Bytes(time.Unix(1, 0))
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":               {nil, ""},
		"half":                {whole[:len(whole)/2], ""},
		"no countries":        {asn.Bytes(time.Unix(1, 0)), "names no country"},
		"small letters":       {small.Bytes(time.Unix(1, 0)), "192.0.2.0/24: the region is not two capital letters"},
		"records of no size":  {bytes.Replace(whole, mmdbtest.Field{Key: "record_size", Value: mmdbtest.Number(5, 24)}.Bytes(), mmdbtest.Field{Key: "record_size", Value: mmdbtest.Number(5, 0)}.Bytes(), 1), ""},
		"without its records": {append(append([]byte{}, whole[:100]...), whole[len(whole)-200:]...), ""},
	} {
		path := filepath.Join(t.TempDir(), "x.mmdb")
		write(t, path, string(c.data))
		_, err := Load(path)
		if err == nil || !strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A file of a few hundred bytes would keep its reader busy for longer than anybody lives: its nodes
// are shared, or lead back to themselves.
func TestMMDBWithoutEnd(t *testing.T) {
	lattice := func(levels int, end int) (nodes [][2]int) {
		for i := range levels {
			nodes = append(nodes, [2]int{i + 1, i + 1})
		}
		nodes[levels-1] = [2]int{end, end}
		return nodes
	}
	loop := [][2]int{{1, 1}, {1, 1}}
	aliases := lattice(97, -1) // each way but the first ends at an alias of IPv4
	for name, nodes := range map[string][][2]int{
		"empty": lattice(128, 0), "with records": lattice(128, -1), "a loop": loop, "aliases": aliases, "too deep": lattice(200, 0),
	} {
		m := mmdbtest.Tree{Nodes: nodes, Data: mmdbtest.Country("country", "DE")}
		_, err := Load(m.Write(t, time.Unix(1, 0)))
		if err == nil || !strings.Contains(err.Error(), "has more than") && !strings.Contains(err.Error(), "deeper than") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A database with aliases of the IPv4 networks, which real ones have, is accepted. Their addresses
// are looked up by the IPv4 address inside.
func TestMMDBAliases(t *testing.T) {
	var m mmdbtest.Tree
	m.Add("192.0.2.0/24", mmdbtest.Country("country", "DE"))
	at := 0
	for range 96 {
		at = m.Nodes[at][0]
	}
	m.Add("2002::/16", nil)
	node := 0
	for _, bit := range "001000000000001" {
		node = m.Nodes[node][bit-'0']
	}
	m.Nodes[node][0] = at
	d := mustLoad(t, m.Write(t, time.Unix(1, 0)))
	look(t, d.Lookup, map[string]string{"192.0.2.1": "DE", "2002:c000:201::1": "DE"})
}

// Networks are named from a database of their own, places from one of regions that has coordinates.
func TestNetworksAndPlaces(t *testing.T) {
	built := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	var numbers, cities mmdbtest.Tree
	numbers.Add("192.0.2.0/24", mmdbtest.Network(64496, "Example Telecom, a network of examples"))
	numbers.Add("2001:db8::/32", mmdbtest.Fields(mmdbtest.Field{Key: "autonomous_system_number", Value: mmdbtest.Number(6, 64511)}))
	cities.Add("192.0.2.0/24", mmdbtest.City("DE", 49.5, 8.25, 20))
	cities.Add("203.0.113.0/24", mmdbtest.Country("country", "FR"))
	networks, err := OpenNetworks(numbers.Write(t, built), netip.MustParsePrefix("64:ff9b::/96"))
	if err != nil {
		t.Fatal(err)
	}
	for ip, want := range map[string]string{
		"192.0.2.9": "AS64496 Example Telecom, a network of examples", "64:ff9b::c000:209": "AS64496 Example Telecom, a network of examples",
		"2001:db8:ffff::1": "AS64511", "203.0.113.9": "", "10.0.0.1": "", "": "",
	} {
		addr, _ := netip.ParseAddr(ip)
		if got := networks.Network(addr); got != want {
			t.Errorf("the network of %s is %q, want %q", ip, got, want)
		}
	}
	if d := networks.Database(); d.RangesV4 != 1 || d.RangesV6 != 1 || !d.Date.Equal(built) {
		t.Errorf("%+v", d)
	}
	regions := mustOpen(t, cities.Write(t, built))
	if p, ok := regions.Place(netip.MustParseAddr("192.0.2.9")); !ok || p != (Place{49.5, 8.25, 20}) || regions.Lookup(netip.MustParseAddr("192.0.2.9")) != "DE" {
		t.Errorf("the place is %+v %v", p, ok)
	}
	for _, ip := range []string{"203.0.113.9", "198.51.100.1", "10.0.0.1"} {
		if p, ok := regions.Place(netip.MustParseAddr(ip)); ok {
			t.Errorf("%s is at %+v", ip, p)
		}
	}
	if regions.Network(netip.MustParseAddr("192.0.2.9")) != "" {
		t.Error("a database of regions names a network")
	}
	if _, ok := networks.Place(netip.MustParseAddr("192.0.2.9")); ok {
		t.Error("a database of networks has a place")
	}
	var none *Source
	if _, ok := none.Place(netip.MustParseAddr("192.0.2.9")); ok || none.Network(netip.MustParseAddr("192.0.2.9")) != "" {
		t.Error("no source answers")
	}
	csv := pair(t, "3221225984,3221226239,DE\n", "2001:db8::,2001:db8::1,FR\n")
	for path, want := range map[string]string{cities.Write(t, built): "numbers no autonomous system", csv: "is no MaxMind file"} {
		if _, err := OpenNetworks(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
