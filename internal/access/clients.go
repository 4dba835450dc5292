package access

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
)

// Evidence is what proves a client type. All kinds that are given must match. Only Networks (of the
// TCP peer) and ClientCert prove; the others narrow.
type Evidence struct {
	Networks    []string `json:"networks"`
	ClientCert  string   `json:"client_cert"`
	ServerNames []string `json:"server_names"`
	LocalPorts  []uint16 `json:"local_ports"`
	Services    []string `json:"services"`
}

// Proves reports whether the evidence has a kind that proves anything.
func (e *Evidence) Proves() bool { return len(e.Networks) > 0 || e.ClientCert != "" }

// Clients tells client types by evidence. Immutable, safe for concurrent use; the zero value knows
// only third-party.
type Clients struct{ rules []clientRule }

type clientRule struct {
	client   ClientType
	networks address.Networks
	Evidence
}

// CompileClients prepares client types for decisions. Where several types match, the first by name
// wins, so that the answer does not depend on the order in which they were made.
func CompileClients(types map[ClientType][]Evidence) *Clients {
	c := &Clients{}
	names := make([]ClientType, 0, len(types))
	for t := range types {
		names = append(names, t)
	}
	slices.Sort(names)
	for _, t := range names {
		for _, e := range types[t] {
			n, _ := address.ParseNetworks(e.Networks)
			c.rules = append(c.rules, clientRule{t, n, e})
		}
	}
	return c
}

// Classify returns the client type that the evidence of a login proves, or third-party. It does not
// allocate.
func (c *Clients) Classify(l *Login) ClientType {
	peer := l.RealIP
	if !peer.IsValid() {
		peer = l.IP
	}
	for i := range c.rules {
		if c.rules[i].match(l, peer) {
			return c.rules[i].client
		}
	}
	return ClientThirdParty
}

// Proven reports whether a network or a certificate proves that a login is of a client type. Other
// evidence only narrows: anybody could present it.
func (c *Clients) Proven(l *Login, t ClientType) bool {
	peer := l.RealIP
	if !peer.IsValid() {
		peer = l.IP
	}
	return slices.ContainsFunc(c.rules, func(r clientRule) bool {
		return r.client == t && r.Proves() && r.match(l, peer)
	})
}

// match holds what was given against what the protocol carried: what it does not carry does not
// match.
func (r *clientRule) match(l *Login, peer netip.Addr) bool {
	e := &r.Evidence
	if len(e.Networks) > 0 && !r.networks.Contains(peer) {
		return false
	}
	if e.ClientCert != "" && (l.ClientCert == "" || e.ClientCert != l.ClientCert) {
		return false
	}
	if len(e.ServerNames) > 0 && !slices.ContainsFunc(e.ServerNames, func(n string) bool { return strings.EqualFold(n, l.ServerName) }) {
		return false
	}
	if len(e.LocalPorts) > 0 && (l.LocalPort == 0 || !slices.Contains(e.LocalPorts, l.LocalPort)) {
		return false
	}
	if len(e.Services) > 0 && !slices.Contains(e.Services, l.Service) {
		return false
	}
	return len(e.Networks)+len(e.ClientCert)+len(e.ServerNames)+len(e.LocalPorts)+len(e.Services) > 0
}
