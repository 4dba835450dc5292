package region

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
)

const (
	plain4 = `# Generated: Thu, 25 Jun 2026 04:33:59 GMT
#
3221225984,3221226239,DE
3221226240,3221226495,FR
3325256704,3325256959,??
3405803776,3405804031,UK
4278190080,4294967295,XK
`
	plain6 = `# Generated: Wed, 24 Jun 2026 04:33:59 GMT
2001:db8::,2001:db8:0:ffff:ffff:ffff:ffff:ffff,DE
2001:db8:1::,2001:db8:1:0:ffff:ffff:ffff:ffff,FR
`
)

// pair writes the two files and returns the path of the first.
func pair(t testing.TB, v4, v6 string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "geoip")
	write(t, path, v4)
	write(t, path+"6", v6)
	return path
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustLoad(t testing.TB, path string) *Database {
	t.Helper()
	d, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func look(t *testing.T, lookup func(netip.Addr) string, want map[string]string) {
	t.Helper()
	for ip, region := range want {
		addr, _ := netip.ParseAddr(ip) // "" is the invalid address
		if got := lookup(addr); got != region {
			t.Errorf("%q is in %q, want %q", ip, got, region)
		}
	}
}

func TestCSV(t *testing.T) {
	path := pair(t, plain4, plain6)
	d := mustLoad(t, path)
	look(t, d.Lookup, map[string]string{
		"192.0.1.255": access.RegionUnknown, "192.0.2.0": "DE", "192.0.2.255": "DE", "192.0.3.0": "FR", "192.0.3.255": "FR", "192.0.4.0": access.RegionUnknown,
		"198.51.100.7": access.RegionUnknown, "203.0.113.0": "GB", "0.0.0.1": access.RegionUnknown, "255.255.255.254": "XK",
		"::ffff:192.0.2.1": "DE", "2001:db7:ffff::": access.RegionUnknown, "2001:db8::": "DE", "2001:db8:0:ffff::1": "DE", "2001:db8:1::1": "FR",
		"2001:db8:1:1::": access.RegionUnknown, "2a00::1": access.RegionUnknown, "fe7f::1": access.RegionUnknown,
	})
	if d.RangesV4 != 5 || d.RangesV6 != 2 || d.Kind != KindCSV || fmt.Sprint(d.Paths) != fmt.Sprint([]string{path, path + "6"}) {
		t.Errorf("%+v", d)
	}
	if want := time.Date(2026, 6, 24, 4, 33, 59, 0, time.UTC); !d.Date.Equal(want) {
		t.Errorf("dated %v, want that of the older file, %v", d.Date, want)
	}
	if got := fmt.Sprint(d.Codes()); got != "[DE FR GB XK]" || !d.Holds("XK") || d.Holds("UK") || d.Holds(access.RegionUnknown) {
		t.Errorf("holds %s", got)
	}
}

// What no database is asked about: these addresses are everywhere.
func TestNoRegion(t *testing.T) {
	everything := mustLoad(t, pair(t, "0,4294967295,DE\n", "::,ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff,DE\n"))
	var nobody *Database
	none := map[string]string{}
	for _, ip := range []string{
		"", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "127.0.0.1", "169.254.1.1", "100.64.0.0", "100.127.255.255", "224.0.0.1", "255.255.255.255",
		"::", "::1", "fe80::1", "fd00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:100.64.0.1",
	} {
		none[ip] = ""
	}
	look(t, everything.Lookup, none)
	look(t, nobody.Lookup, none)
	public := []string{"100.63.255.255", "100.128.0.0", "8.8.8.8", "172.32.0.1", "2001:db8::1", "2a00::1", "::ffff:8.8.8.8"}
	for _, ip := range public {
		look(t, everything.Lookup, map[string]string{ip: "DE"})
		look(t, nobody.Lookup, map[string]string{ip: access.RegionNoDatabase})
	}
}

func TestDates(t *testing.T) {
	for header, want := range map[string]string{
		"# Generated: Thu, 25 Jun 2026 04:33:59 GMT":                       "2026-06-25",
		"# Last updated based on February 7 2018 Maxmind GeoLite2 Country": "2018-02-07",
		"# Generated: yesterday":                                           "2020-01-02",
		"# Last updated based on ":                                         "2020-01-02",
		"# nothing":                                                        "2020-01-02",
	} {
		path := pair(t, header+"\n1,2,DE\n", header+"\n::1,::2,DE\n")
		old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
		for _, name := range []string{path, path + "6"} {
			if err := os.Chtimes(name, old, old); err != nil {
				t.Fatal(err)
			}
		}
		if got := mustLoad(t, path).Date.Format(time.DateOnly); got != want {
			t.Errorf("%s: %s, want %s", header, got, want)
		}
	}
}

func TestCSVFaults(t *testing.T) {
	for _, c := range []struct{ v4, v6, want string }{
		{"1,2\n", plain6, "geoip:1: not LOW,HIGH,REGION"},
		{"#\n\n1,2,DE,FR\n", plain6, "geoip:3: the region is not"},
		{"1,2,de\n", plain6, "geoip:1: the region is not"},
		{"1,2,\n", plain6, "geoip:1: the region is not"},
		{"1,2,DEU\n", plain6, "geoip:1: the region is not"},
		{"1,4294967296,DE\n", plain6, "geoip:1: not an IPv4"},
		{"+1,2,DE\n", plain6, "geoip:1: not an IPv4"},
		{"0.0.0.1,0.0.0.2,DE\n", plain6, "geoip:1: not an IPv4"},
		{"2,1,DE\n", plain6, "geoip:1: the range ends before it begins"},
		{"1,2,DE\n2,3,DE\n", plain6, "geoip:2: the range begins before the end of the one above"},
		{"5,6,DE\n1,2,DE\n", plain6, "geoip:2: the range begins before"},
		{"1,4294967295,DE\n1,2,DE\n", plain6, "geoip:2: the range begins before"},
		{"1,2,DE\n3,4", plain6, "geoip:2: not LOW,HIGH,REGION"},
		{"1,2,DE\n" + strings.Repeat("9", maxLine+1), plain6, "geoip:2: the line is longer than"},
		{strings.Repeat("#"+strings.Repeat("9", 127)+"\n", maxCSV/129+2), plain6, "geoip: is larger than 64 MiB"},
		{"# only\n", plain6, "geoip: holds no ranges"},
		{plain4, "", "geoip6: holds no ranges"},
		{plain4, "192.0.2.1,192.0.2.2,DE\n", "geoip6:1: not an IPv6"},
		{plain4, "::ffff:1.2.3.4,::ffff:1.2.3.5,DE\n", "geoip6:1: not an IPv6"},
		{plain4, "fe80::1%1,fe80::2%1,DE\n", "geoip6:1: not an IPv6"},
		{plain4, "::2,::1,DE\n", "geoip6:1: the range ends"},
	} {
		path := pair(t, c.v4, c.v6)
		_, err := Load(path)
		if err == nil || !strings.HasPrefix(err.Error(), filepath.Dir(path)+"/"+c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40q, %.40q: %v, want %q", c.v4, c.v6, err, c.want)
		}
	}
	path := pair(t, plain4, plain6)
	if err := os.Remove(path + "6"); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path+"6") {
		t.Errorf("without its twin: %v", err)
	}
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
}

// The binary search over stretches agrees with the lines, one by one.
func FuzzCSV(f *testing.F) {
	f.Add(plain4, plain6)
	f.Add("0,4294967295,DE\n", "::,ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff,??\n")
	f.Add("1,1,DE\n2,2,DE\n3,9,FR\n", "::1,::1,DE\n::2:0:0:0:0,::3:0:0:0:0,DE\n")
	f.Fuzz(func(t *testing.T, v4, v6 string) {
		b := newBuilder()
		if b.readCSV(strings.NewReader(v4), "v4", parseDecimal) != nil || b.readCSV(strings.NewReader(v6), "v6", parseIPv6) != nil {
			return
		}
		d := b.finish()
		for _, family := range []struct {
			text  string
			parse func(string) (netip.Addr, error)
		}{{v4, parseDecimal}, {v6, parseIPv6}} {
			type stretch struct {
				low, high netip.Addr
				code      string
			}
			var all []stretch
			for line := range strings.Lines(family.text) {
				line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
				if cells := strings.Split(line, ","); len(cells) == 3 && line[0] != '#' {
					low, err := family.parse(cells[0])
					high, err2 := family.parse(cells[1])
					if err != nil || err2 != nil {
						t.Fatalf("%q was read", line)
					}
					all = append(all, stretch{low, high, strings.NewReplacer("??", access.RegionUnknown, "ZZ", access.RegionUnknown, "UK", "GB").Replace(cells[2])})
				}
			}
			for _, s := range all[:min(len(all), 50)] {
				for _, ip := range []netip.Addr{s.low.Prev(), s.low, s.high, s.high.Next()} {
					if !ip.IsValid() {
						continue
					}
					want := access.RegionUnknown
					for _, other := range all {
						if !ip.Less(other.low) && !other.high.Less(ip) {
							want = other.code
						}
					}
					if got := d.names[d.find(ip)]; got != want {
						t.Fatalf("%s is in %s, want %s", ip, got, want)
					}
				}
			}
		}
	})
}

func TestCountries(t *testing.T) {
	list := Countries()
	for i, c := range list {
		if len(c.Code) != 2 || c.Code != strings.ToUpper(c.Code) || c.Name == "" || i > 0 && c.Code <= list[i-1].Code {
			t.Errorf("%d: %+v", i, c)
		}
		if Name(c.Code) != c.Name || Meant(c.Name) != c.Code {
			t.Errorf("%+v: found as %q, by name as %q", c, Name(c.Code), Meant(c.Name))
		}
	}
	if Name("UK") != "" || Name("de") != "" || Meant("uk") != "GB" || Meant("germany") != "DE" || Meant("nowhere") != "" {
		t.Error("what is none is one")
	}
	for _, c := range Wider() {
		if Name(c.Code) != c.Name || c.Name == "" {
			t.Errorf("%+v: found as %q", c, Name(c.Code))
		}
	}
}
