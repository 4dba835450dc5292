// Package lookalike finds names and domains that readers take for others: раypal.example with
// Cyrillic letters, examp1e.org, exmaple.org, example.com for example.org, and the name of a
// colleague before a foreign address.
//
// It compares skeletons (Unicode Technical Standard 39, section 4): texts that look alike have the
// same one. Compared with that standard it goes further where mail programs make differences hard
// to see: capitals, accents, i and l, 0 and o, "rn" and m, "vv" and w.
package lookalike

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
	"golang.org/x/text/unicode/norm"
)

// skeletons maps characters to what they look like.
var skeletons = func() map[rune]string {
	m := map[rune]string{'0': "o", '1': "l", 'i': "l", '|': "l", 'ı': "l", 'm': "rn", 'w': "vv", '5': "s", '2': "z"}
	for _, p := range prototypes {
		var b strings.Builder
		for _, r := range p[0] {
			if s, ok := m[r]; ok {
				b.WriteString(s)
			} else {
				b.WriteRune(r)
			}
		}
		for _, r := range p[1] {
			m[r] = b.String()
		}
	}
	return m
}()

// Skeleton returns a text that is the same for all texts that look alike. It is for comparing, not
// for displaying.
func Skeleton(text string) string {
	var b strings.Builder
	for _, r := range norm.NFKD.String(strings.ToLower(norm.NFKC.String(text))) {
		switch s, ok := skeletons[r]; {
		case ok:
			b.WriteString(s)
		case r < utf8.RuneSelf:
			b.WriteRune(r)
		case unicode.In(r, unicode.Mn, unicode.Cf, unicode.Variation_Selector):
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Domain reports whether a domain looks like one of ours without belonging to it: with characters
// that look like ours, with one letter more, less or another, with two exchanged, or with another
// top-level domain. Both may be in ASCII or Unicode form. Domains below ours are ours.
func Domain(domain, ours string) bool {
	domain, ours = display(domain), display(ours)
	if domain == ours || strings.HasSuffix(domain, "."+ours) || domain == "" || ours == "" {
		return false
	}
	name, suffix := registered(domain)
	own, ownSuffix := registered(ours)
	if name == own && suffix == ownSuffix || own == "" {
		return false // the same registrant
	}
	a, b := Skeleton(name), Skeleton(own)
	if a == b {
		return true
	}
	// Short names are alike by chance.
	return utf8.RuneCountInString(own) >= 5 && oneEdit([]rune(strings.ToLower(name)), []rune(strings.ToLower(own)))
}

// display returns the Unicode form of a domain.
func display(domain string) string {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	if u, err := idna.ToUnicode(domain); err == nil {
		return u
	}
	return domain
}

// registered divides a domain into the label that was registered and the public suffix.
func registered(domain string) (name, suffix string) {
	ascii, err := idna.ToASCII(domain)
	if err != nil {
		ascii = domain
	}
	suffix, _ = publicsuffix.PublicSuffix(ascii)
	rest := strings.TrimSuffix(strings.TrimSuffix(ascii, suffix), ".")
	return display(rest[strings.LastIndexByte(rest, '.')+1:]), suffix
}

// oneEdit reports whether one letter added, removed or replaced, or two exchanged, make a into b.
func oneEdit(a, b []rune) bool {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return len(a)+len(b) <= 2 && len(a) < 2 && len(b) < 2 || len(a) == 2 && len(b) == 2 && a[0] == b[1] && a[1] == b[0]
}

// maxWords bounds the words of a name that local parts are made of.
const maxWords = 4

// Locals returns the local parts that somebody with a display name may have: "Ann Smith" makes
// ann.smith, smith.ann, annsmith, asmith and others. A single word makes none: first names prove
// nothing.
func Locals(name string) []string {
	words := words(name)
	if len(words) < 2 || len(words) > maxWords {
		return nil
	}
	first, last := words[0], words[len(words)-1]
	pairs := [][2]string{{first, last}, {last, first}}
	if len(words) > 2 {
		pairs = append(pairs, [2]string{words[0], words[1]}, [2]string{words[1], words[2]})
	}
	var all []string
	for _, p := range pairs {
		initial := initialOf(p[0])
		all = append(all, p[0]+"."+p[1], p[0]+"_"+p[1], p[0]+"-"+p[1], p[0]+p[1], initial+p[1], initial+"."+p[1], p[0]+initialOf(p[1]))
	}
	return all
}

func initialOf(word string) string {
	_, n := utf8.DecodeRuneInString(word)
	return word[:n]
}

// words returns the words of a name as they stand in addresses: in lower case and ASCII as far as
// letters look like it, without titles in brackets.
func words(name string) []string {
	var b strings.Builder
	depth := 0
	for _, r := range norm.NFKD.String(strings.ToLower(norm.NFKC.String(name))) {
		switch {
		case r == '(' || r == '[':
			depth++
		case r == ')' || r == ']':
			depth--
		case depth > 0, unicode.In(r, unicode.Mn, unicode.Cf):
		case r >= utf8.RuneSelf && plain[r] != "":
			b.WriteString(plain[r])
		case unicode.IsLetter(r) || unicode.IsDigit(r):
			b.WriteRune(r)
		case r == '\'' || r == '’':
		default:
			b.WriteByte(' ')
		}
	}
	return strings.Fields(b.String())
}

// plain maps characters to the ASCII letters that they look like.
var plain = func() map[rune]string {
	m := map[rune]string{}
	for _, p := range prototypes {
		for _, r := range p[1] {
			m[r] = p[0]
		}
	}
	return m
}()

// Name returns a text that is the same for display names that readers take for one, whatever the
// order of their words: "Smith, Ann" and "Ánn Smith (sales)". It is "" for a name without words.
func Name(name string) string {
	w := words(name)
	slices.Sort(w)
	return Skeleton(strings.Join(w, " "))
}
