package mailflow

import (
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/lookalike"
)

// imposter reports whether mail from outside gives itself for mail of a domain: its From field has
// an address of the domain, or one of a domain that looks like it, or the name of an account of the
// domain. Values of the field are given decoded. Known reports whether an address has an account,
// and named whether an account of the domains has a display name.
func imposter(values []string, domains []string, known, named func(text string) bool) bool {
	for _, value := range values {
		name, addr := value, ""
		if i := strings.LastIndexByte(value, '<'); i >= 0 {
			name, addr = value[:i], strings.Trim(value[i+1:], "<> \t")
		} else if strings.Contains(value, "@") {
			name, addr = "", strings.TrimSpace(value)
		}
		// Readers see all of the name, so addresses in it count as well.
		words := strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune(" \t,;:\"'<>()[]", r) })
		for _, word := range append(words, addr) {
			if _, d, ok := strings.Cut(word, "@"); ok && resembles(d, domains) {
				return true
			}
		}
		if plain := strings.NewReplacer(`"`, "", `\`, "").Replace(name); NameKey(plain) != "" && named(plain) {
			return true
		}
		for _, local := range lookalike.Locals(strings.NewReplacer(`"`, "", `\`, "").Replace(name)) {
			for _, d := range domains {
				if known(local + "@" + d) {
					return true
				}
			}
		}
	}
	return false
}

// resembles reports whether a domain is one of ours, or looks like one.
func resembles(domain string, ours []string) bool {
	if d, err := address.ParseDomain(domain); err == nil {
		domain = d
	}
	for _, own := range ours {
		if domain == own || strings.HasSuffix(domain, "."+own) || lookalike.Domain(domain, own) {
			return true
		}
	}
	return false
}

// NameKey is the same for display names that readers take for one: whatever the case, the order of
// the words, accents and letters that look alike. "" for a name without words.
func NameKey(name string) string { return lookalike.Name(name) }
