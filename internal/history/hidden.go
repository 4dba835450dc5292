package history

import (
	"github.com/drawbridge/drawbridge/internal/pseudonym"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Hidden returns the pseudonyms of what a query selects, by which it finds pseudonymised records.
// The hash is that of the site's pepper.
func Hidden(q *store.RecordQuery, hash func(domain, value string) string) store.Hidden {
	h := pseudonym.Hash(hash)
	return store.Hidden{IP: h.Address(q.Domain, q.IP), Network: h.Network(q.Domain, q.Network), Device: h.Client(q.Domain, q.Device)}
}
