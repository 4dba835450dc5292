package region_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/region"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

func debian(t testing.TB) (string, *region.Database) {
	t.Helper()
	path, err := trialstack.Regions("../..")
	if err != nil {
		t.Fatal(err)
	}
	d, err := region.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, d
}

// What Debian ships today, of which only lasting things are expected.
func TestDebian(t *testing.T) {
	_, d := debian(t)
	if d.RangesV4 < 100_000 || d.RangesV6 < 50_000 || d.Date.Before(time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%d and %d ranges of %v", d.RangesV4, d.RangesV6, d.Date)
	}
	for ip, want := range map[string]string{
		"130.149.7.1":               "DE", // TU Berlin
		"193.0.6.139":               "NL", // RIPE NCC
		"2001:67c:2e8:22::c100:68b": "NL",
		"133.11.0.1":                "JP", // University of Tokyo
		"2001:200::1":               "JP", // WIDE
		"2001:660::1":               "FR", // RENATER
		"127.0.0.1":                 "",
		"10.0.0.1":                  "",
		"fd00::1":                   "",
		"4000::1":                   access.RegionUnknown, // not in use
	} {
		if got := d.Lookup(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s is in %q, want %q", ip, got, want)
		}
	}
	for _, c := range []string{"DE", "FR", "US", "CN", "BR", "ZA", "AU"} {
		if !d.Holds(c) {
			t.Errorf("has no address of %s", c)
		}
	}
	if n := testing.AllocsPerRun(100, func() { d.Lookup(netip.MustParseAddr("2001:660::1")) }); n != 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	_, d := debian(b)
	// Addresses all over the space, so that no search finds the caches warm by the one before.
	var v4, v6 [1 << 14]netip.Addr
	for i := range v4 {
		n := uint32(i) * 2654435761 // Knuth's multiplier spreads them
		b4 := [4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
		v4[i] = netip.AddrFrom4(b4)
		v6[i] = netip.AddrFrom16([16]byte{0x2a, b4[0] & 0xf, b4[1], b4[2], b4[3]})
	}
	for _, family := range []struct {
		name string
		list []netip.Addr
	}{{"IPv4", v4[:]}, {"IPv6", v6[:]}} {
		b.Run(family.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d.Lookup(family.list[i%len(family.list)])
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	path, _ := debian(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := region.Load(path); err != nil {
			b.Fatal(err)
		}
	}
}
