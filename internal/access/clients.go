package access

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
)

// Evidence proves a client type. Every kind that is set must match. Only Networks (of the TCP peer)
// and ClientCert are proof; the other kinds narrow them.
type Evidence struct {
	Networks    []string `json:"networks"`
	ClientCert  string   `json:"client_cert"`
	ServerNames []string `json:"server_names"`
	LocalPorts  []uint16 `json:"local_ports"`
	Services    []string `json:"services"`
}

// Proves reports whether the evidence includes proof: a network or a certificate.
func (e *Evidence) Proves() bool { return len(e.Networks) > 0 || e.ClientCert != "" }

// Clients maps evidence to client types. It is immutable and safe for concurrent use; the zero
// value contains third-party only.
type Clients struct{ rules []clientRule }

type clientRule struct {
	client   ClientType
	networks address.Networks
	Evidence
}

// CompileClients compiles client types for decisions. If several types match, the first by name
// wins, whatever the order of their creation.
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

// Classify returns the client type that the evidence of a login proves, else third-party. It does
// not allocate.
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

// Proven reports whether a network or a certificate proves the client type of a login. Any client
// can present the other kinds of evidence.
func (c *Clients) Proven(l *Login, t ClientType) bool {
	peer := l.RealIP
	if !peer.IsValid() {
		peer = l.IP
	}
	return slices.ContainsFunc(c.rules, func(r clientRule) bool {
		return r.client == t && r.Proves() && r.match(l, peer)
	})
}

// match compares the required evidence with that of the login. Evidence that the protocol does not
// carry does not match.
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
