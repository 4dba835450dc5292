package admin

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// maxKeyword is the longest forbidden keyword in bytes.
const maxKeyword = 100

// viewPasswordPolicy shows a domain's rules for mailbox passwords; nil for none.
func viewPasswordPolicy(p *store.PasswordPolicy) *api.PasswordPolicy {
	if p == nil {
		return nil
	}
	return &api.PasswordPolicy{
		MinLength: p.MinLength, MinStrength: p.MinStrength, ForbiddenKeywords: p.ForbiddenKeywords, History: p.History, MaxAge: viewAge(p.MaxAge),
	}
}

// readPasswordPolicy validates a domain's rules for mailbox passwords.
func readPasswordPolicy(in *api.PasswordPolicy, f *api.Faults) *store.PasswordPolicy {
	if in == nil {
		return nil
	}
	p := &store.PasswordPolicy{MinLength: in.MinLength, MinStrength: in.MinStrength, History: in.History}
	for i, word := range in.ForbiddenKeywords {
		word = strings.TrimSpace(word)
		switch pointer := api.At("/password_policy/forbidden_keywords", i); {
		case word == "":
			f.Add(pointer, "empty", "is empty: leave it out")
		case len(word) > maxKeyword:
			f.Add(pointer, "too_long", "has %d bytes: use at most %d", len(word), maxKeyword)
		default:
			p.ForbiddenKeywords = append(p.ForbiddenKeywords, word)
		}
	}
	age, err := readAge(in.MaxAge)
	if err != nil {
		f.Add("/password_policy/max_age", "invalid_duration", "%v", err)
	}
	if p.MaxAge = age; p.MinLength == 0 && p.MinStrength == 0 && len(p.ForbiddenKeywords) == 0 && p.History == 0 && p.MaxAge == 0 {
		return nil
	}
	return p
}

// ExpiringPasswords returns the number of mailbox passwords that are older than a changed policy
// allows, if it allows less than before.
func (d *Domain) ExpiringPasswords(cur, next *store.Domain) int {
	age := maxAge(next)
	if age == 0 || maxAge(cur) > 0 && maxAge(cur) <= age {
		return 0
	}
	return d.Store.State.MailboxPasswordsBefore(d.name, time.Now().Add(-age))
}

func maxAge(d *store.Domain) time.Duration {
	if d.Passwords == nil {
		return 0
	}
	return d.Passwords.MaxAge
}

// ageUnits are the units of an age, the longest first.
var ageUnits = [...]struct {
	letter byte
	unit   time.Duration
}{{'d', 24 * time.Hour}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}}

// readAge reads an age such as 180d; "" is 0.
func readAge(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	for _, u := range ageUnits {
		if digits, ok := strings.CutSuffix(s, string(u.letter)); ok {
			if n, err := strconv.Atoi(digits); err == nil && n > 0 && n <= 100_000 {
				return time.Duration(n) * u.unit, nil
			}
		}
	}
	return 0, fmt.Errorf("%q is not an age: write a number up to 100000 and d, h, m or s, such as 180d", s)
}

// viewAge writes an age in the longest unit that it is a multiple of.
func viewAge(age time.Duration) string {
	for _, u := range ageUnits {
		if age > 0 && age%u.unit == 0 {
			return strconv.FormatInt(int64(age/u.unit), 10) + string(u.letter)
		}
	}
	return ""
}
