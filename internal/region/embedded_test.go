package region

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mmdbtest"
)

// An IPv6 address that embeds an IPv4 address has its region, and none if that one is private.
func TestEmbeddedIPv4(t *testing.T) {
	s := mustOpen(t, pair(t, "3221225984,3221226239,DE\n", "2001:db8::,2001:db8:ffff:ffff:ffff:ffff:ffff:ffff,FR\n"))
	s.nat64.Store(&[]netip.Prefix{
		netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("2001:db8:7::/48"), netip.MustParsePrefix("2001:db8:8:1::/64"),
	})
	look(t, s.Lookup, map[string]string{
		"192.0.2.33": "DE", "::ffff:192.0.2.33": "DE", "2002:c000:221::1": "DE", "64:ff9b::192.0.2.33": "DE",
		"2001:db8:7:c000:2:2100::": "DE", "2001:db8:8:1:c0:2:2100:0": "DE", // RFC 6052, section 2.4
		"2001:db8:9::1": "FR", "64:ff9a::192.0.2.33": access.RegionUnknown,
		"64:ff9b::10.0.0.1": "", "2002:a00:1::": "",
	})
	// Without the setting, NAT64 is an IPv6 network like others.
	s.nat64.Store(nil)
	look(t, s.Lookup, map[string]string{"64:ff9b::192.0.2.33": access.RegionUnknown, "2002:c000:221::1": "DE"})
	// The nil Source has no database, and embedded addresses no region of their own.
	var none *Source
	look(t, none.Lookup, map[string]string{"::ffff:10.0.0.1": "", "2002:c000:221::1": access.RegionNoDatabase})
}

// RFC 6052, section 2.4: one address in each length of prefix.
func TestInner(t *testing.T) {
	for prefix, ip := range map[string]string{
		"2001:db8::/32": "2001:db8:c000:221::", "2001:db8:100::/40": "2001:db8:1c0:2:21::", "2001:db8:122::/48": "2001:db8:122:c000:2:2100::",
		"2001:db8:122:300::/56": "2001:db8:122:3c0:0:221::", "2001:db8:122:344::/64": "2001:db8:122:344:c0:2:2100::", "2001:db8:122:344::/96": "2001:db8:122:344::192.0.2.33",
	} {
		if got := inner(netip.MustParseAddr(ip), []netip.Prefix{netip.MustParsePrefix(prefix)}); got.String() != "192.0.2.33" {
			t.Errorf("%s in %s: %s", ip, prefix, got)
		}
	}
}

// What databases say of addresses without a country is a region of its own, with a name.
func TestWider(t *testing.T) {
	d := mustLoad(t, pair(t, "3221225984,3221226239,EU\n3325256704,3325256959,ZZ\n3405803776,3405804031,??\n", "2001:db8::,2001:db8:ffff:ffff:ffff:ffff:ffff:ffff,AP\n"))
	look(t, d.Lookup, map[string]string{"192.0.2.1": "EU", "198.51.100.1": "ZZ", "203.0.113.1": access.RegionUnknown, "2001:db8::1": "AP"})
	for _, code := range []string{"EU", "AP", "ZZ"} {
		if !d.Holds(code) || !strings.Contains(strings.ToLower(Name(code)), "unknown") {
			t.Errorf("%s: held %v, named %q", code, d.Holds(code), Name(code))
		}
	}
}

// A database that lacks an address family is accepted, named in the log, and its addresses are
// unknown.
func TestMissingFamily(t *testing.T) {
	for want, prefix := range map[string]string{"IPv6": "192.0.2.0/24", "IPv4": "2001:db8::/32"} {
		var m mmdbtest.Tree
		m.Add(prefix, mmdbtest.Country("country", "DE"))
		path := m.Write(t, time.Now())
		d := mustLoad(t, path)
		if got := d.Missing(); got != want {
			t.Errorf("%s alone: %q is missing", prefix, got)
		}
		var log strings.Builder
		(&Source{}).incomplete(hclog.New(&hclog.LoggerOptions{Output: &log}), d)
		if text := log.String(); !strings.Contains(text, "has no "+want) || !strings.Contains(text, filepath.Base(path)) {
			t.Errorf("%s alone: %s", prefix, text)
		}
	}
	if got := mustLoad(t, pair(t, "3221225984,3221226239,DE\n", "2001:db8::,2001:db8::ffff,DE\n")).Missing(); got != "" {
		t.Errorf("both: %q is missing", got)
	}
	if got := (*Database)(nil).Missing(); got != "" {
		t.Errorf("no database: %q is missing", got)
	}
}
