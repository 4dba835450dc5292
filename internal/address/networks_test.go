package address

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

func TestParseNetwork(t *testing.T) {
	tests := map[string]struct{ from, to string }{
		"203.0.113.7":                {"203.0.113.7", "203.0.113.7"},
		"203.0.113.0/24":             {"203.0.113.0", "203.0.113.255"},
		"0.0.0.0/0":                  {"0.0.0.0", "255.255.255.255"},
		"203.0.113.7/32":             {"203.0.113.7", "203.0.113.7"},
		"192.0.2.1-192.0.2.100":      {"192.0.2.1", "192.0.2.100"},
		"192.0.2.1 - 192.0.2.100":    {"192.0.2.1", "192.0.2.100"},
		"192.0.2.1-192.0.2.1":        {"192.0.2.1", "192.0.2.1"},
		"2001:db8::7":                {"2001:db8::7", "2001:db8::7"},
		"2001:DB8::/32":              {"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"},
		"::/0":                       {"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"2001:db8::1-2001:db8::f":    {"2001:db8::1", "2001:db8::f"},
		"::ffff:203.0.113.7":         {"203.0.113.7", "203.0.113.7"},
		"::ffff:192.0.2.1-192.0.2.9": {"192.0.2.1", "192.0.2.9"},
	}
	for entry, tt := range tests {
		r, err := ParseNetwork(entry)
		if err != nil || r.From().String() != tt.from || r.To().String() != tt.to {
			t.Errorf("%q is %v to %v, %v; want %s to %s", entry, r.From(), r.To(), err, tt.from, tt.to)
		}
	}
}

func TestParseNetworkRefuses(t *testing.T) {
	tests := map[string]string{
		"":                          "not an IP address",
		"example.org":               "not an IP address",
		"203.0.113":                 "not an IP address",
		"203.0.113.256":             "not an IP address",
		"203.0.113.07":              "not an IP address",
		" 203.0.113.7":              "not an IP address",
		"203.0.113.0/33":            "not a prefix",
		"203.0.113.0/-1":            "start of the range",
		"203.0.113.0/24/24":         "not a prefix",
		"203.0.113.0/255.255.255.0": "not a prefix",
		"203.0.113.7/24":            "write 203.0.113.0/24 or 203.0.113.7/32",
		"2001:db8::7/32":            "write 2001:db8::/32 or 2001:db8::7/128",
		"::ffff:203.0.113.0/120":    "write it as an IPv4 prefix",
		"192.0.2.9-192.0.2.1":       "write 192.0.2.1-192.0.2.9",
		"192.0.2.1-":                "end of the range",
		"-192.0.2.1":                "start of the range",
		"192.0.2.1-2001:db8::1":     "mixes IPv4 and IPv6",
		"192.0.2.1-192.0.2.9-1":     "end of the range",
		"fe80::1%eth0":              "has a zone",
		"fe80::1%a-b":               "start of the range",
		"fe80::/10%eth0":            "not a prefix",
	}
	for entry, says := range tests {
		if r, err := ParseNetwork(entry); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q is %v, %v; want an error that says %q", entry, r, err, says)
		}
	}
}

func TestParseNetworks(t *testing.T) {
	set, faults := ParseNetworks([]string{"203.0.113.7", "x", "192.0.2.0/24", "y/8"})
	if len(faults) != 2 || faults[0].Index != 1 || faults[1].Index != 3 {
		t.Errorf("faults %v, want those of entries 1 and 3", faults)
	}
	for ip, want := range map[string]bool{"203.0.113.7": true, "192.0.2.255": true, "203.0.113.8": false, "2001:db8::1": false} {
		if set.Contains(netip.MustParseAddr(ip)) != want {
			t.Errorf("%s in the set: %v", ip, !want)
		}
	}
	if set.Contains(netip.Addr{}) || set.Empty() {
		t.Error("an invalid address is in the set, or the set is empty")
	}
	for what, list := range map[string][]string{"no list": nil, "an empty list": {}, "nothing readable": {"x"}} {
		if set, _ := ParseNetworks(list); !set.Empty() || set.Contains(netip.MustParseAddr("203.0.113.7")) {
			t.Errorf("%s makes a set that is not empty", what)
		}
	}
	if _, faults := ParseNetworks(make([]string, MaxNetworks+1)); len(faults) != 1 || faults[0].Index != MaxNetworks {
		t.Errorf("a list that is too long: %d faults", len(faults))
	}
}

// An entry holds an address exactly if both ends say so, compared octet by octet.
func FuzzParseNetwork(f *testing.F) {
	for _, entry := range []string{"203.0.113.7", "203.0.113.0/24", "192.0.2.1-192.0.2.9", "2001:db8::/32", "2001:db8::1-2001:db8::f", "::ffff:1.2.3.4", "::/0", "0.0.0.0/0", "fe80::1%eth0", "1.2.3.4/33", "9.9.9.9-1.1.1.1"} {
		f.Add(entry, uint64(0), uint64(0xcb007107))
	}
	f.Fuzz(func(t *testing.T, entry string, hi, lo uint64) {
		r, err := ParseNetwork(entry)
		set, faults := ParseNetworks([]string{entry})
		if (err == nil) != (len(faults) == 0) || set.Empty() != (err != nil) {
			t.Fatalf("ParseNetwork says %v, ParseNetworks %v", err, faults)
		}
		if err != nil {
			return
		}
		if r.From().Is4() != r.To().Is4() || r.From().Is4In6() || r.From().Zone() != "" || r.To().Less(r.From()) {
			t.Fatalf("%q is %v", entry, r)
		}
		again, err := ParseNetwork(r.From().String() + "-" + r.To().String())
		if err != nil || again != r {
			t.Fatalf("%q is %v, which parses to %v, %v", entry, r, again, err)
		}
		var b [16]byte
		for i := range 8 {
			b[i], b[8+i] = byte(hi>>(56-8*i)), byte(lo>>(56-8*i))
		}
		some := []netip.Addr{netip.AddrFrom16(b).Unmap(), netip.AddrFrom4([4]byte(b[12:])), r.From(), r.To(), r.From().Prev(), r.To().Next()}
		for _, ip := range some {
			if want := ip.IsValid() && between(ip, r.From(), r.To()); set.Contains(ip) != want {
				t.Fatalf("%v in %q: %v, want %v", ip, entry, !want, want)
			}
		}
	})
}

// between is the naive check.
func between(ip, from, to netip.Addr) bool {
	if ip.BitLen() != from.BitLen() {
		return false
	}
	a, lo, hi := string(ip.AsSlice()), string(from.AsSlice()), string(to.AsSlice())
	return lo <= a && a <= hi
}

func BenchmarkContains(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	list := make([]string, 10_000)
	for i := range list {
		list[i] = fmt.Sprintf("%d.%d.%d.0/24", 1+rng.IntN(223), rng.IntN(256), rng.IntN(256))
	}
	set, _ := ParseNetworks(list)
	ip := netip.MustParseAddr("203.0.113.7")
	b.ReportAllocs()
	for b.Loop() {
		set.Contains(ip)
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		list, in []string
		want     bool
	}{
		{nil, nil, true},
		{[]string{"192.0.2.1"}, nil, false},
		{[]string{"192.0.2.0/25", "192.0.2.128-192.0.2.255"}, []string{"192.0.2.0/24"}, true},
		{[]string{"192.0.2.0/24"}, []string{"192.0.2.0/25", "192.0.2.129-192.0.2.255"}, false},
		{[]string{"192.0.2.0/24"}, []string{"192.0.2.0/25", "192.0.2.128/25"}, true},
		{[]string{"192.0.2.1", "2001:db8::1"}, []string{"0.0.0.0/0"}, false},
		{[]string{"0.0.0.0/0", "::/0"}, []string{"0.0.0.0/0", "::/1", "8000::/1"}, true},
		{[]string{"192.0.2.1"}, []string{"::/0", "nonsense"}, false},
	} {
		if got := Within(c.list, c.in); got != c.want {
			t.Errorf("%q within %q: %v", c.list, c.in, got)
		}
	}
}

func TestEntryOf(t *testing.T) {
	list := []string{"nonsense", "192.0.2.7", "192.0.2.0/28", "198.51.100.1-198.51.100.9", "2001:DB8::/32"}
	for ip, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "192.0.2.8": "192.0.2.0/28", "198.51.100.9": "198.51.100.1-198.51.100.9", "198.51.100.10": "", "2001:db8::1": "2001:DB8::/32", "::1": "",
	} {
		if got := EntryOf(list, netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s is in %q, want %q", ip, got, want)
		}
	}
	if got := EntryOf(list, netip.Addr{}); got != "" {
		t.Errorf("no address is in %q", got)
	}
}

// What is put together holds what its parts hold, and leaves them as they are.
func TestWith(t *testing.T) {
	a, _ := ParseNetworks([]string{"10.0.0.0/25", "2001:db8::/64"})
	b, _ := ParseNetworks([]string{"10.0.0.128/25", "192.0.2.1-192.0.2.3"})
	all := a.With([]Networks{{}, b})
	for ip, in := range map[string][2]bool{
		"10.0.0.1": {true, false}, "10.0.0.200": {false, true}, "192.0.2.3": {false, true}, "2001:db8::1": {true, false}, "192.0.2.4": {},
	} {
		addr := netip.MustParseAddr(ip)
		if got := [2]bool{a.Contains(addr), b.Contains(addr)}; got != in {
			t.Errorf("%s in the sets: %v", ip, got)
		}
		if all.Contains(addr) != (in[0] || in[1]) {
			t.Errorf("%s in all: %v", ip, all.Contains(addr))
		}
	}
	if !(Networks{}).With([]Networks{{}}).Empty() || all.Empty() {
		t.Error("what is empty is not told from what is not")
	}
}
