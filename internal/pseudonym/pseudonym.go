// Package pseudonym replaces what identifies a person's connection in old records: addresses, what
// clients say about themselves, and session ids, which contain the address.
//
// A pseudonym is a keyed hash. Equal values of one domain have equal pseudonyms, so that records
// can still be compared and searched for; those of two domains differ. Without the key nobody finds
// the value, and with it only by trying values. An address becomes "ip-NETWORK-ADDRESS": the first
// part is equal for all addresses of an IPv4 /24 or IPv6 /48.
package pseudonym

import (
	"net/netip"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// Hash returns 12 hexadecimal digits of a value of a domain, computed with the site's key.
type Hash func(domain, value string) string

const prefix = "ip-"

// Address returns the pseudonym of an address as records write it; "" for "".
func (h Hash) Address(domain, text string) string {
	if text == "" {
		return ""
	}
	ip := address.IPOf(text).Unmap()
	if !ip.IsValid() {
		return prefix + h(domain, text)
	}
	return h.network(domain, ip) + h(domain, ip.String())
}

// Network returns what the pseudonyms of a network's addresses begin with; "" if the network is not
// an IPv4 /24, an IPv6 /48 or a single address.
func (h Hash) Network(domain string, p netip.Prefix) string {
	switch {
	case p.IsSingleIP():
		return h.Address(domain, p.Addr().String())
	case p.IsValid() && p.Bits() == networkBits(p.Addr()):
		return h.network(domain, p.Addr())
	}
	return ""
}

func (h Hash) network(domain string, ip netip.Addr) string {
	p, _ := ip.WithZone("").Prefix(networkBits(ip)) // the length fits
	return prefix + h(domain, p.String()) + "-"
}

func networkBits(ip netip.Addr) int {
	if ip.Is4() {
		return 24
	}
	return 48
}

// Client returns the pseudonym of what a client says about itself; "" for "".
func (h Hash) Client(domain, text string) string {
	if text == "" {
		return ""
	}
	return "client-" + h(domain, text)
}

// Login replaces what identifies a connection in a login record of a domain.
func (h Hash) Login(domain string, r *access.LoginRecord) {
	for _, ip := range []string{r.IP, r.RealIP} {
		if ip != "" {
			r.Note = strings.ReplaceAll(r.Note, ip, h.Address(domain, ip))
		}
	}
	r.IP, r.RealIP, r.ClientID = h.Address(domain, r.IP), h.Address(domain, r.RealIP), h.Client(domain, r.ClientID)
	r.Session, r.Pseudonymised = "", true
}

// Message replaces the address in a message record of a domain.
func (h Hash) Message(domain string, r *mailflow.Record) { r.IP = h.Address(domain, r.IP) }
