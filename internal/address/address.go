// Package address knows mail addresses and networks in the one spelling that the rest of Drawbridge
// compares.
//
// An account is "local@domain" in lower case, without a trailing dot. Both halves are ASCII: an
// internationalised domain becomes its xn-- form, as Postfix and Dovecot write it, and a local part
// outside ASCII is refused because no two programs fold its case alike.
//
// A network is a single address, a CIDR prefix or an "a-b" range, IPv4 or IPv6; see
// [ParseNetworks].
//
// The package does no I/O.
package address

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Bounds of RFC 5321 section 4.5.3.1 and RFC 1035 section 2.3.4, in octets.
const (
	maxLocal  = 64
	maxDomain = 253
	maxLabel  = 63
)

// ErrNoDomain is returned by [Parse] for a bare name when there is no default domain to complete
// it.
var ErrNoDomain = errors.New("has no domain: write local@domain")

// Parse returns the canonical "local@domain" form of a name. A name without "@" gets defaultDomain,
// which must be canonical or empty. The error says what is wrong with the name without repeating
// it, so that it can be shown anywhere.
func Parse(name, defaultDomain string) (string, error) {
	at := strings.LastIndexByte(name, '@')
	if at < 0 {
		if defaultDomain == "" {
			return "", ErrNoDomain
		}
		local, err := parseLocal(name)
		if err != nil {
			return "", err
		}
		return local + "@" + defaultDomain, nil
	}
	local, err := parseLocal(name[:at])
	if err != nil {
		return "", err
	}
	domain, err := ParseDomain(name[at+1:])
	if err != nil {
		return "", err
	}
	if at+1+len(domain) == len(name) && name[:at] == local && name[at+1:] == domain {
		return name, nil // already canonical: no copy on the hot path
	}
	return local + "@" + domain, nil
}

// Domain returns the part of a canonical address behind its last "@", or "" when it has none.
func Domain(account string) string {
	if at := strings.LastIndexByte(account, '@'); at >= 0 {
		return account[at+1:]
	}
	return ""
}

// Local returns the part of a canonical address before its last "@".
func Local(account string) string {
	if at := strings.LastIndexByte(account, '@'); at >= 0 {
		return account[:at]
	}
	return account
}

// Base returns an address without its extension: the local part up to the first of the delimiters
// (Postfix' recipient_delimiter). False if there is none, or nothing in front of it.
func Base(account, delimiters string) (string, bool) {
	local := Local(account)
	base, extended := LocalBase(local, delimiters)
	if !extended {
		return account, false
	}
	return base + account[len(local):], true
}

// LocalBase is [Base] of a local part alone. It does not allocate.
func LocalBase(local, delimiters string) (string, bool) {
	i := strings.IndexAny(local, delimiters)
	if i <= 0 || local[i-1] == '.' { // "a." is no local part
		return local, false
	}
	return local[:i], true
}

// ParseDomain returns the canonical form of a domain name: lower case, without a trailing dot, at
// least one label, each of letters, digits, underscores and inner hyphens. An internationalised
// domain (U-labels) becomes its ASCII form (A-labels, RFC 5891), mapped as UTS 46 says.
func ParseDomain(name string) (string, error) {
	plain, upper := scan(name)
	if !plain {
		ascii, err := idna.Lookup.ToASCII(name)
		if err != nil || !utf8.ValidString(name) {
			return "", errors.New("has a domain that is no valid internationalised domain name")
		}
		name, upper = ascii, true
	}
	name = strings.TrimSuffix(name, ".")
	if name == "" {
		return "", errors.New("has an empty domain")
	}
	if len(name) > maxDomain {
		return "", fmt.Errorf("has a domain longer than %d octets", maxDomain)
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '.' {
			if characters[name[i]]&inDomain == 0 {
				return "", errors.New("has a domain with a character other than letters, digits, hyphens and dots")
			}
			continue
		}
		label := name[start:i]
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return "", fmt.Errorf("has a domain with an empty label, one longer than %d octets, or one that begins or ends with a hyphen", maxLabel)
		}
		start = i + 1
	}
	if upper {
		name = strings.ToLower(name)
	}
	return name, nil
}

func parseLocal(local string) (string, error) {
	if local == "" {
		return "", errors.New("has an empty local part")
	}
	if len(local) > maxLocal {
		return "", fmt.Errorf("has a local part longer than %d octets", maxLocal)
	}
	if local[0] == '.' || local[len(local)-1] == '.' || strings.Contains(local, "..") {
		return "", errors.New("has a local part with a dot at its end or two in a row")
	}
	for i := range len(local) {
		if characters[local[i]]&inLocal == 0 {
			return "", errors.New("has a local part with a character outside RFC 5321's atoms")
		}
	}
	if _, upper := scan(local); upper {
		local = strings.ToLower(local)
	}
	return local, nil
}

// The parts of an address that a character may stand in.
const (
	inLocal = 1 << iota
	inDomain
)

// characters says which parts of an address each octet may stand in.
var characters = func() (table [256]uint8) {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	for _, c := range []byte(letters + "!#$%&'*+-/=?^_`{|}~.") {
		table[c] |= inLocal
	}
	for _, c := range []byte(letters + "-_") {
		table[c] |= inDomain
	}
	return table
}()

// scan reports whether a text is ASCII, and whether it has capitals.
func scan(s string) (ascii, upper bool) {
	ascii = true
	for i := range len(s) {
		c := s[i]
		ascii = ascii && c < utf8.RuneSelf
		upper = upper || 'A' <= c && c <= 'Z'
	}
	return ascii, upper
}
