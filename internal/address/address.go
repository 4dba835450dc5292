// Package address knows mail addresses and networks in the one spelling that the rest of Drawbridge
// compares.
//
// An account is "local@domain" in lower case, without a trailing dot. Both halves are ASCII: an
// internationalised domain is written in its xn-- form, as Postfix and Dovecot write it, and a
// local part outside ASCII is refused because no two programs fold its case alike.
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

// ParseDomain returns the canonical form of a domain name: lower case, without a trailing dot, at
// least one label, each of letters, digits, underscores and inner hyphens.
func ParseDomain(name string) (string, error) {
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
			if c := name[i]; !isAlnum(c) && c != '-' && c != '_' {
				return "", errors.New("has a domain with a character other than letters, digits, hyphens and dots; write an internationalised domain in its xn-- form")
			}
			continue
		}
		label := name[start:i]
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return "", fmt.Errorf("has a domain with an empty label, one longer than %d octets, or one that begins or ends with a hyphen", maxLabel)
		}
		start = i + 1
	}
	return strings.ToLower(name), nil
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
		if c := local[i]; !isAlnum(c) && strings.IndexByte("!#$%&'*+-/=?^_`{|}~.", c) < 0 {
			return "", errors.New("has a local part with a character outside RFC 5321's atoms")
		}
	}
	return strings.ToLower(local), nil
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
