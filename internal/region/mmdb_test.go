package region

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
)

// mmdb is the least writer of the MaxMind DB format 2.0: records of 24 bits, an IPv6 tree with IPv4
// at ::/96, values shorter than 29 bytes.
type mmdb struct {
	nodes [][2]int // > 0: a node; < 0: data at -n-1; 0: nothing
	data  []byte
}

type field struct {
	key   string
	value []byte
}

func text(s string) []byte { return append([]byte{2<<5 | byte(len(s))}, s...) }

func number(kind byte, n uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, n)
	if kind > 7 { // extended: uint64
		return append([]byte{8, kind - 7}, b...)
	}
	size := byte(4)
	if kind == 5 { // uint16
		size = 2
	}
	return append([]byte{kind<<5 | size}, b[8-size:]...)
}

func fields(list ...field) []byte {
	b := []byte{7<<5 | byte(len(list))}
	for _, f := range list {
		b = append(append(b, text(f.key)...), f.value...)
	}
	return b
}

func (f field) bytes() []byte { return append(text(f.key), f.value...) }

func country(key, code string) []byte {
	return fields(field{key, fields(field{"iso_code", text(code)})})
}

func (m *mmdb) add(prefix string, record []byte) {
	p := netip.MustParsePrefix(prefix)
	ip, bits := p.Addr().As16(), p.Bits()
	if p.Addr().Is4() {
		ip, bits = [16]byte{}, bits+96
		v4 := p.Addr().As4()
		copy(ip[12:], v4[:])
	}
	if m.nodes == nil {
		m.nodes = make([][2]int, 1)
	}
	at := 0
	for i := range bits {
		side := &m.nodes[at][ip[i/8]>>(7-i%8)&1]
		switch {
		case i == bits-1:
			*side = -len(m.data) - 1
		case *side == 0:
			*side = len(m.nodes)
			at = *side
			m.nodes = append(m.nodes, [2]int{})
		default:
			at = *side
		}
	}
	m.data = append(m.data, record...)
}

func (m *mmdb) bytes(built time.Time) []byte {
	var b []byte
	for _, node := range m.nodes {
		for _, side := range node {
			n := side
			switch {
			case side == 0:
				n = len(m.nodes)
			case side < 0:
				n = len(m.nodes) + 16 - side - 1
			}
			b = append(b, byte(n>>16), byte(n>>8), byte(n))
		}
	}
	b = append(append(b, make([]byte, 16)...), m.data...)
	b = append(b, "\xab\xcd\xefMaxMind.com"...)
	return append(b, fields(
		field{"binary_format_major_version", number(5, 2)}, field{"binary_format_minor_version", number(5, 0)},
		field{"node_count", number(6, uint64(len(m.nodes)))}, field{"record_size", number(5, 24)}, field{"ip_version", number(5, 6)},
		field{"database_type", text("Test-Country")}, field{"build_epoch", number(9, uint64(built.Unix()))},
	)...)
}

func (m *mmdb) write(t testing.TB, built time.Time) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "country.mmdb")
	if err := os.WriteFile(path, m.bytes(built), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMMDB(t *testing.T) {
	var m mmdb
	m.add("192.0.2.0/24", country("country", "DE"))
	m.add("192.0.3.0/25", country("registered_country", "FR"))
	m.add("203.0.113.0/24", fields(field{"country", fields(field{"iso_code", text("XK")})}, field{"registered_country", fields(field{"iso_code", text("RS")})}))
	m.add("203.0.114.0/24", fields(field{"continent", fields(field{"code", text("EU")})}))
	m.add("2001:db8::/32", country("country", "FR"))
	m.add("198.51.100.0/25", fields(field{"country_code", text("IT")}))
	m.add("198.51.100.128/25", fields(field{"country", text("ES")}, field{"country_name", text("Spain")}))
	built := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	d := mustLoad(t, m.write(t, built))
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
	var good, asn, small mmdb
	good.add("192.0.2.0/24", country("country", "DE"))
	asn.add("192.0.2.0/24", fields(field{"autonomous_system_number", number(6, 1)}))
	small.add("192.0.2.0/24", country("country", "de"))
	whole := good.bytes(time.Unix(1, 0))
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":               {nil, ""},
		"half":                {whole[:len(whole)/2], ""},
		"no countries":        {asn.bytes(time.Unix(1, 0)), "names no country"},
		"small letters":       {small.bytes(time.Unix(1, 0)), "192.0.2.0/24: the region is not two capital letters"},
		"records of no size":  {bytes.Replace(whole, field{"record_size", number(5, 24)}.bytes(), field{"record_size", number(5, 0)}.bytes(), 1), ""},
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
		m := mmdb{nodes: nodes, data: country("country", "DE")}
		_, err := Load(m.write(t, time.Unix(1, 0)))
		if err == nil || !strings.Contains(err.Error(), "has more than") && !strings.Contains(err.Error(), "deeper than") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A database with aliases of the IPv4 networks, which real ones have, is accepted. Their addresses
// are looked up by the IPv4 address inside.
func TestMMDBAliases(t *testing.T) {
	var m mmdb
	m.add("192.0.2.0/24", country("country", "DE"))
	at := 0
	for range 96 {
		at = m.nodes[at][0]
	}
	m.add("2002::/16", nil)
	node := 0
	for _, bit := range "001000000000001" {
		node = m.nodes[node][bit-'0']
	}
	m.nodes[node][0] = at
	d := mustLoad(t, m.write(t, time.Unix(1, 0)))
	look(t, d.Lookup, map[string]string{"192.0.2.1": "DE", "2002:c000:201::1": "DE"})
}
