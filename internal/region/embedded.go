package region

import "net/netip"

var sixToFour = netip.MustParsePrefix("2002::/16") // RFC 3056

// inner returns the IPv4 address inside an IPv4-mapped, 6to4 or NAT64 address (RFC 6052), else ip.
// The database contains IPv4 addresses, but none of these.
func inner(ip netip.Addr, nat64 []netip.Prefix) netip.Addr {
	ip = ip.Unmap()
	if !ip.Is6() {
		return ip
	}
	b := ip.As16()
	if sixToFour.Contains(ip) {
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	for _, n := range nat64 {
		if !n.Contains(ip) {
			continue
		}
		at, v4 := n.Bits()/8, [4]byte{}
		for i := range v4 {
			if at == 8 { // RFC 6052 leaves bits 64 to 71 zero
				at++
			}
			v4[i] = b[at]
			at++
		}
		return netip.AddrFrom4(v4)
	}
	return ip
}
