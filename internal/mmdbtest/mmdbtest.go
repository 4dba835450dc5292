// Package mmdbtest writes MaxMind databases for tests.
package mmdbtest

import (
	"encoding/binary"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Tree is the least writer of the MaxMind DB format 2.0: records of 24 bits, an IPv6 tree with IPv4
// at ::/96, values shorter than 285 bytes.
type Tree struct {
	Nodes [][2]int // > 0: a node; < 0: data at -n-1; 0: nothing
	Data  []byte
}

// Field is one of a map.
type Field struct {
	Key   string
	Value []byte
}

// Text encodes a string.
func Text(s string) []byte {
	if len(s) >= 29 {
		return append([]byte{2<<5 | 29, byte(len(s) - 29)}, s...) //nolint:gosec // a test knows
	}
	return append([]byte{2<<5 | byte(len(s))}, s...) //nolint:gosec // shorter than 29
}

// Double encodes a number with a fraction.
func Double(n float64) []byte {
	return binary.BigEndian.AppendUint64([]byte{3<<5 | 8}, math.Float64bits(n))
}

// Number encodes a whole number: kind 5 is uint16, 6 uint32, 9 uint64.
func Number(kind byte, n uint64) []byte {
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

// Fields encodes a map.
func Fields(list ...Field) []byte {
	b := []byte{7<<5 | byte(len(list))} //nolint:gosec // a few
	for _, f := range list {
		b = append(append(b, Text(f.Key)...), f.Value...)
	}
	return b
}

// Bytes encodes a field.
func (f Field) Bytes() []byte { return append(Text(f.Key), f.Value...) }

// Country is the record of a country.
func Country(key, code string) []byte {
	return Fields(Field{key, Fields(Field{"iso_code", Text(code)})})
}

// Add has the addresses of a network answer a record.
func (m *Tree) Add(prefix string, record []byte) {
	p := netip.MustParsePrefix(prefix)
	ip, bits := p.Addr().As16(), p.Bits()
	if p.Addr().Is4() {
		ip, bits = [16]byte{}, bits+96
		v4 := p.Addr().As4()
		copy(ip[12:], v4[:])
	}
	if m.Nodes == nil {
		m.Nodes = make([][2]int, 1)
	}
	at := 0
	for i := range bits {
		side := &m.Nodes[at][ip[i/8]>>(7-i%8)&1]
		switch {
		case i == bits-1:
			*side = -len(m.Data) - 1
		case *side == 0:
			*side = len(m.Nodes)
			at = *side
			m.Nodes = append(m.Nodes, [2]int{})
		default:
			at = *side
		}
	}
	m.Data = append(m.Data, record...)
}

// Bytes is the database.
func (m *Tree) Bytes(built time.Time) []byte {
	var b []byte
	for _, node := range m.Nodes {
		for _, side := range node {
			n := side
			switch {
			case side == 0:
				n = len(m.Nodes)
			case side < 0:
				n = len(m.Nodes) + 16 - side - 1
			}
			b = append(b, byte(n>>16), byte(n>>8), byte(n)) //nolint:gosec // 24 bits
		}
	}
	b = append(append(b, make([]byte, 16)...), m.Data...)
	b = append(b, "\xab\xcd\xefMaxMind.com"...)
	return append(b, Fields(
		Field{"binary_format_major_version", Number(5, 2)}, Field{"binary_format_minor_version", Number(5, 0)},
		Field{"node_count", Number(6, uint64(len(m.Nodes)))}, Field{"record_size", Number(5, 24)}, Field{"ip_version", Number(5, 6)},
		Field{"database_type", Text("Test-Country")}, Field{"build_epoch", Number(9, uint64(built.Unix()))}, //nolint:gosec // after 1970
	)...)
}

// Write writes the database to a new file.
func (m *Tree) Write(t testing.TB, built time.Time) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "country.mmdb")
	if err := os.WriteFile(path, m.Bytes(built), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Network is the record of an autonomous system, as in GeoLite2 ASN.
func Network(number uint64, organization string) []byte {
	return Fields(Field{"autonomous_system_number", Number(6, number)}, Field{"autonomous_system_organization", Text(organization)})
}

// City is the record of a place in a country, as in GeoLite2 City.
func City(code string, latitude, longitude float64, radius uint64) []byte {
	return Fields(Field{"country", Fields(Field{"iso_code", Text(code)})}, Field{"location", Fields(
		Field{"accuracy_radius", Number(5, radius)}, Field{"latitude", Double(latitude)}, Field{"longitude", Double(longitude)})})
}
