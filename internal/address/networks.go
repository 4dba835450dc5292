package address

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gaissmai/bart"
	"go4.org/netipx"
)

// MaxNetworks bounds the entries of one list.
const MaxNetworks = 1_000_000

// Networks is an immutable set of addresses. The zero value is empty.
type Networks struct{ trie *bart.Lite }

// Contains reports whether ip is in the set. An invalid address is in none. IPv4-mapped IPv6
// addresses must have been unmapped, as [ParseIP] does. It does not allocate.
func (n Networks) Contains(ip netip.Addr) bool {
	return n.trie != nil && n.trie.Contains(ip)
}

// Empty reports whether the set has no address.
func (n Networks) Empty() bool { return n.trie == nil }

// Fault is one entry of a list that cannot be used.
type Fault struct {
	Index int // position in the list, from 0
	Err   error
}

// ParseNetworks reads a list of addresses ("192.0.2.1"), prefixes ("192.0.2.0/24") and ranges
// ("192.0.2.1-192.0.2.9"), IPv4 and IPv6. All faulty entries are returned; the set holds the
// others.
func ParseNetworks(list []string) (Networks, []Fault) {
	var faults []Fault
	if len(list) == 0 {
		return Networks{}, nil
	}
	if len(list) > MaxNetworks {
		return Networks{}, []Fault{{MaxNetworks, fmt.Errorf("list has more than %d entries", MaxNetworks)}}
	}
	trie := new(bart.Lite)
	var prefixes []netip.Prefix
	for i, entry := range list {
		r, err := ParseNetwork(entry)
		if err != nil {
			faults = append(faults, Fault{i, err})
			continue
		}
		prefixes = r.AppendPrefixes(prefixes[:0])
		for _, p := range prefixes {
			trie.Insert(p)
		}
	}
	if trie.Size() == 0 {
		return Networks{}, faults
	}
	trie.Aggregate() // neighbours become one, for the memory's sake
	return Networks{trie}, faults
}

// With returns the set with all addresses of others. n itself does not change.
func (n Networks) With(others []Networks) Networks {
	trie := n.trie
	if n.Empty() {
		trie = new(bart.Lite)
	}
	for _, o := range others {
		switch {
		case o.Empty():
		case n.Empty(): // no one else uses the trie
			trie.Union(o.trie)
		default:
			trie = trie.UnionPersist(o.trie)
		}
	}
	if trie.Size() == 0 {
		return Networks{}
	}
	return Networks{trie}
}

// Within reports whether every address of a list is also in another. Entries that cannot be read
// count as absent.
func Within(list, in []string) bool {
	var b netipx.IPSetBuilder
	for _, entry := range list {
		if r, err := ParseNetwork(entry); err == nil {
			b.AddRange(r)
		}
	}
	for _, entry := range in {
		if r, err := ParseNetwork(entry); err == nil {
			b.RemoveRange(r)
		}
	}
	left, err := b.IPSet()
	return err == nil && len(left.Ranges()) == 0
}

// EntryOf returns the first entry of a list that contains ip, as written; "" for none. It parses
// the list each time: it is for explanations.
func EntryOf(list []string, ip netip.Addr) string {
	for _, entry := range list {
		if r, err := ParseNetwork(entry); err == nil && r.Contains(ip) {
			return entry
		}
	}
	return ""
}

// ParseNetwork reads one entry of a list of networks.
func ParseNetwork(entry string) (netipx.IPRange, error) {
	switch {
	case strings.Contains(entry, "-"):
		from, to, _ := strings.Cut(entry, "-")
		lo, err := ParseIP(strings.TrimSpace(from))
		if err != nil {
			return netipx.IPRange{}, fmt.Errorf("start of the range: %w", err)
		}
		hi, err := ParseIP(strings.TrimSpace(to))
		if err != nil {
			return netipx.IPRange{}, fmt.Errorf("end of the range: %w", err)
		}
		if lo.Is4() != hi.Is4() {
			return netipx.IPRange{}, errors.New("range mixes IPv4 and IPv6: use one family")
		}
		if hi.Less(lo) {
			return netipx.IPRange{}, fmt.Errorf("range runs backward: write %s-%s", hi, lo)
		}
		return netipx.IPRangeFrom(lo, hi), nil
	case strings.Contains(entry, "/"):
		p, err := netip.ParsePrefix(entry)
		if err != nil {
			return netipx.IPRange{}, errors.New("not a prefix: write an address, a slash and its length, as in 203.0.113.0/24 (at most /32) or 2001:db8::/32 (at most /128)")
		}
		if p.Addr().Is4In6() {
			return netipx.IPRange{}, errors.New("IPv4-mapped prefix: write it as an IPv4 prefix")
		}
		if p.Masked() != p {
			return netipx.IPRange{}, fmt.Errorf("address has bits set beyond the prefix length: write %s or %s/%d", p.Masked(), p.Addr(), p.Addr().BitLen())
		}
		return netipx.RangeOfPrefix(p), nil
	default:
		ip, err := ParseIP(entry)
		if err != nil {
			return netipx.IPRange{}, err
		}
		return netipx.IPRangeFrom(ip, ip), nil
	}
}

// ParseIP reads one IPv4 or IPv6 address. IPv4-mapped addresses become IPv4; zones are refused.
func ParseIP(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, errors.New("not an IP address: write one like 203.0.113.7 or 2001:db8::7")
	}
	if ip.Zone() != "" {
		return netip.Addr{}, errors.New("address has a zone: leave out the % and what follows")
	}
	return ip.Unmap(), nil
}

// IPText is how records have an address: "" for none.
func IPText(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	return ip.String()
}

// IPOf reads what [IPText] wrote.
func IPOf(text string) netip.Addr {
	ip, _ := netip.ParseAddr(text) // the zero Addr for none
	return ip
}
