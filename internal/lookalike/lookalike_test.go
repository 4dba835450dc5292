package lookalike

import (
	"slices"
	"strings"
	"testing"
)

func TestDomain(t *testing.T) {
	const ours = "example.org"
	for domain, want := range map[string]bool{
		"example.org": false, "mail.example.org": false, "EXAMPLE.org": false, "": false,
		"partner.example": false, "example-partners.example": false, "simple.net": false,
		"example.com":         true, // another top-level domain
		"example.co.uk":       true,
		"mail.example.com":    true,
		"examp1e.org":         true, // a digit
		"exarnple.org":        true,
		"exmaple.org":         true, // exchanged
		"exampl.org":          true,
		"examplee.net":        true,
		"ехаmрlе.org":         true, // Cyrillic
		"xn--xample-9uf.org":  true, // the same, as DNS has it
		"exämple.org":         true,
		"example.org.example": false, // the registered name is "example.org.example" under an unknown suffix
	} {
		if got := Domain(domain, ours); got != want {
			t.Errorf("%s looks like %s: %v", domain, ours, got)
		}
	}
	if Domain("abd.org", "abc.org") || !Domain("abc.net", "abc.org") {
		t.Error("short names")
	}
	if Domain("b.example.co.uk", "a.example.co.uk") {
		t.Error("another domain of the same registrant")
	}
}

func TestSkeleton(t *testing.T) {
	for _, c := range [][2]string{{"Ann Smith", "Аnn Ѕmіth"}, {"modern", "rnodem"}, {"ALICE", "A1lCE"}, {"José", "Jose"}, {"x", "x\u200d"}, {"ａｎｎ", "ann"}} {
		if a, b := Skeleton(c[0]), Skeleton(c[1]); a != b {
			t.Errorf("%q %q, %q %q", c[0], a, c[1], b)
		}
	}
	if Skeleton("ann") == Skeleton("bob") {
		t.Error("all the same")
	}
}

func TestLocals(t *testing.T) {
	for name, want := range map[string]string{
		"Ann Smith": "ann.smith", "Smith, Ann": "ann.smith", "ANN SMITH (Sales)": "annsmith", "Аnn Ѕmіth": "ann.smith", "Ann M. Smith": "asmith",
		"Jürgen Müller": "jurgen.muller", "Patrick O'Neil": "patrick.oneil",
	} {
		if got := Locals(name); !slices.Contains(got, want) {
			t.Errorf("%s: %v lacks %s", name, got, want)
		}
	}
	for _, name := range []string{"", "Ann", "a b c d e", "!!!"} {
		if got := Locals(name); got != nil {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func FuzzSkeleton(f *testing.F) {
	f.Add("раypal.example", "example.org")
	f.Fuzz(func(t *testing.T, a, b string) {
		if s := Skeleton(a); s != Skeleton(strings.ToUpper(strings.ToLower(a))) && isASCII(a) {
			t.Fatalf("%q: capitals matter", a)
		}
		Domain(a, b)
		Locals(a)
	})
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 127 }) < 0
}
