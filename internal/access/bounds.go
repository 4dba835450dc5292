package access

import (
	"net/netip"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
)

// Bounds limit where a secure password is accepted (F27). The zero value sets no limit.
type Bounds struct {
	// Protocols are names separated by spaces, and Networks entries as [address.ParseNetwork] reads
	// them, without spaces inside; "" for any. Both lie in the account's record, so that a decision
	// copies nothing.
	Protocols string
	Networks  string
	Expires   time.Time // zero for never
}

// Expired reports whether the secure password is no longer valid at a time: from Expires on.
// Without Expires it never expires. The time is an argument.
func (b *Bounds) Expired(now time.Time) bool { return !b.Expires.IsZero() && !now.Before(b.Expires) }

// outside returns which limit excludes a login, "" for none. A network whose entry cannot be read,
// and a missing address, match nothing.
func (b *Bounds) outside(l *Login) string {
	switch {
	case b.Protocols != "" && !anyWord(b.Protocols, func(name string) bool { return ParseProtocol(name) == l.Protocol }):
		return "protocol"
	case b.Networks != "" && !anyWord(b.Networks, func(entry string) bool { return contains(entry, l.IP) }):
		return "network"
	}
	return ""
}

func contains(entry string, ip netip.Addr) bool {
	r, err := address.ParseNetwork(entry)
	return err == nil && r.Contains(ip)
}

// anyWord reports whether f accepts one of the words that spaces separate.
func anyWord(list string, f func(string) bool) bool {
	for found := true; found; {
		var word string
		if word, list, found = strings.Cut(list, " "); f(word) {
			return true
		}
	}
	return false
}
