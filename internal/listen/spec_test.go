package listen

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	prefix := netip.MustParsePrefix
	for text, want := range map[string]Spec{
		"unix:/run/x.sock": {Path: "/run/x.sock"},
		"unix:/run//y/../x.sock?mode=0660&group=dovecot": {Path: "/run/x.sock", Mode: 0o660, Group: "dovecot"},
		"unix:/x?user=postfix&mode=666":                  {Path: "/x", Mode: 0o666, User: "postfix"},
		"inet:127.0.0.1:10040":                           {Addr: netip.MustParseAddrPort("127.0.0.1:10040")},
		"inet:[::1]:1":                                   {Addr: netip.MustParseAddrPort("[::1]:1")},
		"inet:[::ffff:127.0.0.1]:1":                      {Addr: netip.MustParseAddrPort("127.0.0.1:1")},
		"inet:0.0.0.0:1?allow_from=10.0.0.0/8,2001:db8::7": {
			Addr: netip.MustParseAddrPort("0.0.0.0:1"), AllowFrom: []netip.Prefix{prefix("10.0.0.0/8"), prefix("2001:db8::7/128")},
		},
		"inet:[::]:1?tls_cert=/c.pem&tls_key=/k.pem": {Addr: netip.MustParseAddrPort("[::]:1"), TLSCert: "/c.pem", TLSKey: "/k.pem"},
	} {
		got, err := Parse(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestParseFaults(t *testing.T) {
	long := "unix:/" + strings.Repeat("x", maxPath)
	for text, want := range map[string][]string{
		"":                                      {"write unix:/path or inet:address:port"},
		"tcp:127.0.0.1:1":                       {"write unix:/path or inet:address:port"},
		"unix:run/x":                            {"not absolute"},
		"unix:/":                                {"not absolute"},
		"unix:/a\x00b":                          {"control characters"},
		long:                                    {"path of 108 bytes is too long", "at most 107"},
		"unix:/" + strings.Repeat("x", 1e4):     {"is too long"},
		"unix:/x?":                              {"unknown option"},
		"unix:/x?mod=0660":                      {`unknown option "mod"`, "mode, user and group"},
		"unix:/x?allow_from=10.0.0.0/8":         {`unknown option "allow_from"`},
		"unix:/x?mode=0999":                     {"octal permissions"},
		"unix:/x?mode=0070":                     {"octal permissions"},
		"unix:/x?mode=01777":                    {"octal permissions"},
		"unix:/x?mode=0660&mode=0600":           {"mode is given twice"},
		"unix:/x?group=":                        {"name of a group"},
		"unix:x?mode=9&group=&tls_key=/k":       {"not absolute", "octal permissions", "name of a group", `unknown option "tls_key"`},
		"inet:localhost:25":                     {"not an address with a port"},
		"inet:127.0.0.1":                        {"not an address with a port"},
		"inet:127.0.0.1:70000":                  {"not an address with a port"},
		"inet:[fe80::1%eth0]:25":                {"not an address with a port"},
		"inet:127.0.0.1:25?group=x":             {"allow_from, tls_cert and tls_key"},
		"inet:0.0.0.0:25":                       {"beyond loopback", "allow_from="},
		"inet:[::]:25":                          {"beyond loopback"},
		"inet:0.0.0.0:25?allow_from=":           {"write an address or a network"},
		"inet:0.0.0.0:25?allow_from=10.1.2.3/8": {"write 10.0.0.0/8"},
		"inet:0.0.0.0:25?allow_from=::ffff:10.0.0.0/104":                    {"IPv4 network"},
		"inet:0.0.0.0:25?allow_from=10.0.0.0/8,example.org":                 {`"example.org"`},
		"inet:0.0.0.0:25?allow_from=" + strings.Repeat("::1,", 128) + "::1": {"names 129 networks: at most 128"},
		"inet:0.0.0.0:25?tls_cert=/c":                                       {"give both"},
		"inet:0.0.0.0:25?tls_cert=c&tls_key=/k":                             {"absolute path of a PEM file"},
	} {
		got, err := Parse(text)
		if err == nil || !reflect.DeepEqual(got, Spec{}) {
			t.Errorf("Parse(%.80q) = %+v, %v; want the zero Spec and an error", text, got, err)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("Parse(%.80q): %v; want it to contain %q", text, err, w)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("Parse(%.80q): error of several lines: %v", text, err)
		}
	}
}

// FuzzParse holds that what parses prints as a text that parses to the same, and that nothing
// beyond loopback is open to all.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"unix:/run/drawbridge/login.sock?mode=0660&group=dovecot",
		"unix:/x?user=0&group=dovecot&mode=0777",
		"inet:127.0.0.1:10040",
		"inet:[::ffff:10.0.0.1]:1?allow_from=10.0.0.0/8,::1,::ffff:1.2.3.4",
		"inet:[::]:1?tls_cert=/a?b=c&tls_key=/k",
		"unix:/a?mode=0660&&",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("error of several lines: %v", err)
			}
			return
		}
		again, err := Parse(s.String())
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Fatalf("%q is %+v, printed %q, which is %+v, %v", text, s, s, again, err)
		}
		if s.Unix() == s.Addr.IsValid() {
			t.Fatalf("%q: want either a path or an address: %+v", text, s)
		}
		if !s.Unix() && !s.Addr.Addr().IsLoopback() && len(s.AllowFrom) == 0 && !s.TLS() {
			t.Fatalf("%q is open to everybody", text)
		}
		if len(s.Path) > maxPath {
			t.Fatalf("%q: path of %d bytes", text, len(s.Path))
		}
	})
}
