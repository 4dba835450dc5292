package credential

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/trustelem/zxcvbn"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

const (
	// MaxStrength is the highest strength that [Rules] can demand.
	MaxStrength = 4
	// MaxHistory is the number of former passwords that [Rules] can compare with: each costs a slow
	// hash at every change.
	MaxHistory = 24
	// ownNameLength is the shortest part of an own name that a password must not contain: shorter
	// ones are part of too many words.
	ownNameLength = 4
	// estimated bounds the characters whose strength is estimated: the time grows with their cube.
	estimated = 64
)

// Rules are what a domain demands of new mailbox passwords (F16), beside what [CheckNew] demands of
// all. The zero value demands nothing.
type Rules struct {
	MinLength   int      // in characters; 0 for none
	MinStrength int      // zxcvbn's score, 1 (very guessable) to MaxStrength; 0 for none
	Forbidden   []string // words that a password must not contain, in any case
	History     int      // latest passwords that must not be used again, up to MaxHistory
}

// Fault is a rule that a password breaks.
type Fault struct {
	Code string // too_short, too_weak, forbidden_keyword, own_name, used_before
	// Format and Args say what to do, as for [fmt.Sprintf]; they do not repeat the password.
	Format string
	Args   []any
}

// Check returns the rules that a new password breaks; names are the user's own, such as the local
// parts of addresses. It does not compare with former passwords: see [Hasher.Used].
func (r *Rules) Check(password []byte, names []string) []Fault {
	var faults []Fault
	add := func(code, format string, args ...any) {
		faults = append(faults, Fault{code, format, args})
	}
	text := norm.NFC.String(string(password))
	if n := utf8.RuneCountInString(text); n < r.MinLength {
		add("too_short", "has %d characters: use at least %d", n, r.MinLength)
	}
	folded := folded(text)
	for _, word := range r.Forbidden {
		if strings.Contains(folded, foldedWord(word)) {
			add("forbidden_keyword", "contains the word %q, which the domain forbids: leave it out", word)
		}
	}
	for _, name := range ownNames(names) {
		if r.demands() && strings.Contains(folded, name) {
			add("own_name", "contains the user's own name %q: leave it out", name)
			break
		}
	}
	if r.MinStrength > 0 {
		if score := r.Strength(password, names); score < r.MinStrength {
			add("too_weak", "is too easy to guess (strength %d of %d, at least %d is needed): use several unrelated words", score, MaxStrength, r.MinStrength)
		}
	}
	return faults
}

// Strength estimates how hard a password is to guess for who knows the user's names and the forbidden
// words: zxcvbn's score, 0 (at once) to [MaxStrength].
func (r *Rules) Strength(password []byte, names []string) int {
	estimate := []rune(norm.NFC.String(string(password)))
	if len(estimate) > estimated {
		estimate = estimate[:estimated]
	}
	return zxcvbn.PasswordStrength(string(estimate), append(ownNames(names), r.Forbidden...)).Score
}

// demands reports whether there is any rule.
func (r *Rules) demands() bool {
	return r.MinLength > 0 || r.MinStrength > 0 || len(r.Forbidden) > 0 || r.History > 0
}

// ownNames returns the parts of names that a password must not contain, folded.
func ownNames(names []string) []string {
	var parts []string
	for _, name := range names {
		for _, part := range strings.FieldsFunc(folded(name), func(c rune) bool { return strings.ContainsRune(".-_+", c) }) {
			if utf8.RuneCountInString(part) >= ownNameLength {
				parts = append(parts, part)
			}
		}
	}
	return parts
}

func folded(s string) string { return cases.Fold().String(norm.NFKC.String(s)) }

// foldedWord folds a forbidden word. An empty one, which validation refuses, would forbid all.
func foldedWord(s string) string {
	if s = folded(s); s == "" {
		return "\x00"
	}
	return s
}

// Used reports whether a password matches one of the stored hashes of former passwords. It waits
// for its turn until ctx ends; the error is that of [Hasher.Verify]. A hash of a scheme that is no
// longer supported counts as another password.
func (h *Hasher) Used(ctx context.Context, former []string, password []byte) (bool, error) {
	for _, stored := range former {
		if CheckStored(stored) != nil {
			continue
		}
		if ok, _, err := h.Verify(ctx, stored, password); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}
