package habit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var monday = time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)

func home(day int) *Login {
	return &Login{Time: monday.AddDate(0, 0, day), IP: netip.MustParseAddr("203.0.113.9"), Region: "DE", Device: "phone", Client: "third-party imap"}
}

func away(day int) *Login {
	l := home(day)
	l.IP, l.Region = netip.MustParseAddr("198.51.100.9"), "BR"
	return l
}

func kinds(f Finding) string { return fmt.Sprint(f.Kinds) }

// Each trait is found by itself, in the order of the record, and twice only until it is usual.
func TestUnusual(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Login)
		want   string
	}{
		{"the same", func(*Login) {}, "[]"},
		{"the same network", func(l *Login) { l.IP = netip.MustParseAddr("203.0.113.200") }, "[]"},
		{"a network", func(l *Login) { l.IP = netip.MustParseAddr("203.0.114.9") }, "[new_network]"},
		{"an IPv6 network", func(l *Login) { l.IP = netip.MustParseAddr("2001:db8::1") }, "[new_network]"},
		{"no address", func(l *Login) { l.IP = netip.Addr{} }, "[]"},
		{"a region", func(l *Login) { l.Region = "BR" }, "[new_region]"},
		{"an unknown region", func(l *Login) { l.Region = "" }, "[]"},
		{"a device", func(l *Login) { l.Device = "laptop" }, "[new_device]"},
		{"a client", func(l *Login) { l.Client = "web imap" }, "[new_client]"},
		{"all", func(l *Login) { *l = Login{l.Time, netip.MustParseAddr("192.0.2.1"), "", "FR", "x", "y"} }, "[new_network new_region new_device new_client]"},
	} {
		var m Memory
		if f := m.Judge(home(0), nil); kinds(f) != "[]" {
			t.Fatalf("the first login: %v", f)
		}
		l := home(1)
		c.change(l)
		if f := m.Judge(l, nil); kinds(f) != c.want || f.Fresh != (c.want != "[]") || f.Previous.IP != home(0).IP {
			t.Errorf("%s: %+v, want %s", c.name, f, c.want)
		}
	}
}

// What is new becomes usual on the fourth day, or at once if the user confirms it, and is forgotten
// again after three months.
func TestLearning(t *testing.T) {
	var m Memory
	m.Judge(home(0), nil)
	for day := 1; day <= 5; day++ {
		f := m.Judge(away(day), nil)
		if unusual := day <= 3; (kinds(f) != "[]") != unusual || f.Fresh != (day == 1) {
			t.Errorf("day %d: %+v", day, f)
		}
	}
	if f := m.Judge(home(6), nil); kinds(f) != "[]" {
		t.Errorf("what was usual before: %v", f)
	}
	var n Memory
	n.Judge(home(0), nil)
	n.Judge(away(1), nil)
	n.Confirm(away(1))
	if f := n.Judge(away(2), nil); kinds(f) != "[]" {
		t.Errorf("after it was confirmed: %v", f)
	}
	if f := n.Judge(home(2+forgetAfter), nil); !slices.Contains(f.Kinds, NewNetwork) || !f.Fresh {
		t.Errorf("after three months: %v", f)
	}
}

func TestTravelAndHours(t *testing.T) {
	var m Memory
	m.Judge(home(0), nil)
	soon := away(0)
	soon.Time = soon.Time.Add(20 * time.Minute)
	if f := m.Judge(soon, nil); !slices.Contains(f.Kinds, ImpossibleTravel) || !strings.Contains(f.Doubt, "from BR 20 minutes after DE") || !strings.Contains(f.Doubt, "VPN") {
		t.Errorf("two countries in 20 minutes: %+v", f)
	}
	later := home(0)
	later.Time = later.Time.Add(3 * time.Hour)
	if f := m.Judge(later, nil); slices.Contains(f.Kinds, ImpossibleTravel) {
		t.Errorf("two countries in three hours: %+v", f)
	}
	for range enoughHours {
		m.Judge(home(1), nil)
	}
	night := home(2)
	night.Time = night.Time.Add(-6 * time.Hour)
	if f := m.Judge(night, nil); kinds(f) != "[unusual_hour]" {
		t.Errorf("at three in the night: %v", f)
	}
}

// A memory is bounded whatever somebody logs in with, and what it is packed as is read back.
func TestBoundedAndPacked(t *testing.T) {
	var m Memory
	m.Judge(home(0), nil)
	for i := range 1000 {
		l := home(1)
		l.IP, l.Device = netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), strings.Repeat("x", 300)+fmt.Sprint(i)
		m.Judge(l, nil)
	}
	b := m.Pack()
	if len(m.traits) != maxTraits || len(b) > 600 {
		t.Errorf("%d traits in %d bytes", len(m.traits), len(b))
	}
	again, ok := Parse(b)
	if !ok || !slices.Equal(again.Pack(), b) {
		t.Error("a packed memory reads as another")
	}
}

// Whoever has a password causes a bounded number of notices a day, whatever the client says about
// itself; the last one is known to be the last, also by the next daemon.
func TestNoticesOfADayAreBounded(t *testing.T) {
	var m Memory
	m.Judge(home(0), nil)
	for day := 1; day <= 2; day++ {
		fresh, last := 0, 0
		for i := range 100 {
			l := home(day)
			l.Device = fmt.Sprint(day, "x", i)
			f := m.Judge(l, nil)
			if kinds(f) != "[new_device]" {
				t.Fatalf("day %d, device %d: %v", day, i, f)
			}
			if f.Fresh {
				fresh++
			}
			if f.Last {
				last++
			}
			m, _ = Parse(m.Pack())
		}
		if fresh != maxNotices || last != 1 {
			t.Errorf("day %d: %d fresh, %d the last", day, fresh, last)
		}
	}
}

// What an earlier version packed is read.
func TestEarlierFormat(t *testing.T) {
	var m Memory
	m.Judge(home(0), nil)
	b := m.Pack()
	early := slices.Concat([]byte{1}, b[1:25], b[28:])
	if n, ok := Parse(early); !ok || kinds(n.Judge(home(1), nil)) != "[]" {
		t.Errorf("%t", ok)
	}
}

func FuzzParse(f *testing.F) {
	var m Memory
	m.Judge(home(0), nil)
	f.Add(m.Pack())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := Parse(b)
		if !ok {
			return
		}
		again, ok := Parse(m.Pack())
		if !ok || !slices.Equal(again.Pack(), m.Pack()) {
			t.Errorf("%x", b)
		}
		m.Judge(home(1), nil)
	})
}

func BenchmarkJudge(b *testing.B) {
	var m Memory
	m.Judge(home(0), nil)
	packed := m.Pack()
	l := home(1)
	for b.Loop() {
		m, _ := Parse(packed)
		m.Judge(l, nil)
		packed = m.Pack()
	}
}

// With a database of places, the distance decides and not the border; the doubt says how far and how
// exact.
func TestTravelByDistance(t *testing.T) {
	places := map[string]Place{
		"203.0.113.9":  {Latitude: 49.0, Longitude: 8.4, Radius: 20}, // Karlsruhe
		"203.0.113.99": {Latitude: 48.6, Longitude: 7.7, Radius: 20}, // Strasbourg, 70 km on
		"198.51.100.9": {Latitude: -23.5, Longitude: -46.6, Radius: 500},
		"198.51.100.8": {Latitude: 40.4, Longitude: -3.7}, // Madrid, how exact is not said
	}
	locate := func(ip netip.Addr) (Place, bool) {
		p, ok := places[ip.String()]
		return p, ok
	}
	for _, c := range []struct {
		ip, region string
		after      time.Duration
		want       string // in the doubt; "" for no finding
	}{
		{"203.0.113.99", "FR", 10 * time.Minute, ""},
		{"198.51.100.9", "BR", 11 * time.Hour, ""},
		{"198.51.100.9", "BR", 3 * time.Hour, "from BR 180 minutes after DE, about 9726 km away (at least 9206 km, as exact as the database says it is), which would be 3069 km/h"},
		{"198.51.100.8", "DE", time.Hour, "(the database does not say how exact that is)"},
		{"192.0.2.9", "FR", 10 * time.Minute, "how far away is not known"},
		{"192.0.2.9", "DE", 10 * time.Minute, ""},
	} {
		var m Memory
		m.Judge(home(0), locate)
		l := home(0)
		l.Time, l.IP, l.Region = l.Time.Add(c.after), netip.MustParseAddr(c.ip), c.region
		f := m.Judge(l, locate)
		if found := slices.Contains(f.Kinds, ImpossibleTravel); found != (c.want != "") || !strings.Contains(f.Doubt, c.want) || found && !strings.Contains(f.Doubt, "VPN") {
			t.Errorf("%s (%s) after %v: %v, %q", c.ip, c.region, c.after, f.Kinds, f.Doubt)
		}
	}
}

// A network is the autonomous system where it is known. An account whose networks were known by
// address gets no notice of each when a site begins to use a database.
func TestNetworkByNumber(t *testing.T) {
	var m Memory
	m.Judge(home(0), nil)
	numbered := func(day int, ip, network string) *Login {
		l := home(day)
		l.IP, l.Network = netip.MustParseAddr(ip), network
		return l
	}
	for _, c := range []struct{ ip, network, want string }{
		{"203.0.113.9", "AS64496", "[]"},
		{"198.51.100.9", "AS64496", "[]"}, // another /24 of the same
		{"203.0.113.9", "AS64497", "[]"},  // a known /24 that has moved
		{"192.0.2.9", "AS64498", "[new_network]"},
		{"192.0.2.9", "AS64498", "[new_network]"}, // not yet usual
	} {
		if f := m.Judge(numbered(1, c.ip, c.network), nil); kinds(f) != c.want {
			t.Errorf("%s of %s: %v, want %s", c.ip, c.network, f.Kinds, c.want)
		}
	}
	m.Confirm(numbered(1, "192.0.2.9", "AS64498"))
	if f := m.Judge(numbered(2, "192.0.2.77", "AS64498"), nil); kinds(f) != "[]" {
		t.Errorf("after it was me: %v", f.Kinds)
	}
}
