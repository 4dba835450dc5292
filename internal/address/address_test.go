package address

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		name, want string
	}{
		"canonical":                {"ann@example.org", "ann@example.org"},
		"capitals":                 {"Ann.B@Example.ORG", "ann.b@example.org"},
		"trailing dot":             {"ann@example.org.", "ann@example.org"},
		"bare name":                {"ann", "ann@default.example"},
		"bare name in capitals":    {"ANN", "ann@default.example"},
		"extension":                {"ann+lists@example.org", "ann+lists@example.org"},
		"all atoms of RFC 5321":    {"!#$%&'*+-/=?^_`{|}~@example.org", "!#$%&'*+-/=?^_`{|}~@example.org"},
		"one label":                {"root@localhost", "root@localhost"},
		"U-labels":                 {"ann@Bücher.example", "ann@xn--bcher-kva.example"},
		"U-labels, decomposed":     {"ann@bu\u0308cher.example", "ann@xn--bcher-kva.example"},
		"ideographic full stop":    {"ann@bücher。example", "ann@xn--bcher-kva.example"},
		"full-width letters":       {"ann@ｅｘａｍｐｌｅ.org", "ann@example.org"},
		"internationalised domain": {"ann@XN--bcher-kva.example", "ann@xn--bcher-kva.example"},
		"longest local part":       {strings.Repeat("a", 64) + "@example.org", strings.Repeat("a", 64) + "@example.org"},
		"longest label":            {"a@" + strings.Repeat("b", 63) + ".org", "a@" + strings.Repeat("b", 63) + ".org"},
		"longest domain":           {"a@" + longDomain(253), "a@" + longDomain(253)},
		"longest domain with dot":  {"a@" + longDomain(253) + ".", "a@" + longDomain(253)},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			got, err := Parse(tt.name, "default.example")
			if err != nil || got != tt.want {
				t.Errorf("Parse(%q) = %q, %v; want %q", tt.name, got, err, tt.want)
			}
		})
	}
}

// longDomain returns a domain of n octets.
func longDomain(n int) string {
	return strings.Repeat("b.", (n-1)/2) + strings.Repeat("c", n-2*((n-1)/2))
}

func TestParseRefuses(t *testing.T) {
	tests := map[string]struct{ name, says string }{
		"nothing":                  {"", "empty local part"},
		"no local part":            {"@example.org", "empty local part"},
		"no domain":                {"ann@", "empty domain"},
		"only a dot":               {"ann@.", "empty domain"},
		"two trailing dots":        {"ann@example.org..", "empty label"},
		"empty label":              {"ann@example..org", "empty label"},
		"leading hyphen":           {"ann@-example.org", "hyphen"},
		"trailing hyphen":          {"ann@example-.org", "hyphen"},
		"two at signs":             {"ann@example.org@example.net", "outside RFC 5321"},
		"space":                    {"ann b@example.org", "outside RFC 5321"},
		"line break":               {"ann\n@example.org", "outside RFC 5321"},
		"quoted local part":        {`"ann b"@example.org`, "outside RFC 5321"},
		"NUL":                      {"ann\x00@example.org", "outside RFC 5321"},
		"letters outside ASCII":    {"änn@example.org", "outside RFC 5321"},
		"no valid U-label":         {"ann@-ü-.example", "internationalised"},
		"joiner in a domain":       {"ann@exa\u200dmple.örg", "internationalised"},
		"octets that are no UTF-8": {"ann@b\xfccher.example", "internationalised"},
		"address literal":          {"ann@[192.0.2.1]", "letters, digits"},
		"dot at the beginning":     {".ann@example.org", "dot at its end"},
		"dot at the end":           {"ann.@example.org", "dot at its end"},
		"two dots":                 {"ann..b@example.org", "two in a row"},
		"local part too long":      {strings.Repeat("a", 65) + "@example.org", "longer than 64"},
		"label too long":           {"a@" + strings.Repeat("b", 64) + ".org", "longer than 63"},
		"domain too long":          {"a@" + longDomain(254), "longer than 253"},
		"domain too long, dotted":  {"a@" + longDomain(254) + ".", "longer than 253"},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			got, err := Parse(tt.name, "default.example")
			if err == nil || got != "" || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("Parse(%q) = %q, %v; want an error that says %q", tt.name, got, err, tt.says)
			}
			if len(tt.name) > 8 && strings.Contains(err.Error(), tt.name) {
				t.Errorf("the error repeats the name: %v", err)
			}
		})
	}
	if _, err := Parse("ann", ""); !errors.Is(err, ErrNoDomain) {
		t.Errorf("a bare name without a default domain: %v", err)
	}
}

func TestBase(t *testing.T) {
	for _, tt := range []struct{ address, delimiters, want string }{
		{"ann+lists@example.org", "+", "ann@example.org"},
		{"ann+a+b@example.org", "+", "ann@example.org"},
		{"ann-a+b@example.org", "+-", "ann@example.org"},
		{"ann-a@example.org", "+", ""},
		{"ann@example.org", "+", ""},
		{"+ann@example.org", "+", ""},
		{"ann.+x@example.org", "+", ""},
		{"ann+lists@example.org", "", ""},
	} {
		got, ok := Base(tt.address, tt.delimiters)
		if ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("Base(%q, %q) = %q, %v; want %q", tt.address, tt.delimiters, got, ok, tt.want)
		}
	}
}

func TestHalves(t *testing.T) {
	for _, tt := range []struct{ address, local, domain string }{
		{"ann@example.org", "ann", "example.org"},
		{"ann", "ann", ""},
		{"", "", ""},
		{"@", "", ""},
	} {
		if local, domain := Local(tt.address), Domain(tt.address); local != tt.local || domain != tt.domain {
			t.Errorf("%q has the halves %q and %q, want %q and %q", tt.address, local, domain, tt.local, tt.domain)
		}
	}
}

func TestParseOfCanonicalDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { _, _ = Parse("ann@example.org", "") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What parses is in its one spelling: it parses to itself, and its halves are lower-case ASCII
// without what would end a line, a word or a key.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"ann@example.org", "Ann@Example.Org.", "ann", "a@b@c", "ann@", "@", "", "ä@b", "ann@xn--bcher-kva.de", "a..b@c", "a@-c", "a b@c", "a/b@c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := Parse(name, "example.org")
		if err != nil {
			if got != "" {
				t.Fatalf("an error, and yet %q", got)
			}
			return
		}
		if again, err := Parse(got, ""); err != nil || again != got {
			t.Fatalf("%q parses to %q, and that to %q, %v", name, got, again, err)
		}
		if Local(got)+"@"+Domain(got) != got || strings.Count(got, "@") != 1 {
			t.Fatalf("the halves of %q are %q and %q", got, Local(got), Domain(got))
		}
		if d, err := ParseDomain(Domain(got)); err != nil || d != Domain(got) {
			t.Fatalf("the domain of %q parses to %q, %v", got, d, err)
		}
		for _, c := range []byte(got) {
			if c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' {
				t.Fatalf("%q has the octet %#x", got, c)
			}
		}
		if upper, err := Parse(strings.ToUpper(got), ""); err != nil || upper != got {
			t.Fatalf("%q in capitals parses to %q, %v", got, upper, err)
		}
	})
}
