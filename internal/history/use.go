package history

import (
	"context"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Use is what the recorded logins of a domain used.
type Use struct {
	Records  int
	Oldest   time.Time            // of the records; zero without any
	Protocol map[string]UsedBy    // by account
	Devices  map[string]time.Time // by credential id: the last login
	Policies map[string]time.Time // by id: the last login that it refused, or would have refused
}

// UsedBy is when an account last used each protocol; zero for never.
type UsedBy [access.Web + 1]time.Time

// Use reads the logins of a domain since a time, of one account only, unless that is "".
func (h *History) Use(ctx context.Context, domain, account string, since time.Time) (*Use, error) {
	u := &Use{Protocol: map[string]UsedBy{}, Devices: map[string]time.Time{}, Policies: map[string]time.Time{}}
	err := h.each(ctx, domain, since, func(r *store.LoginRecord) bool {
		u.Records++
		u.Oldest = r.Time
		for _, id := range append(r.WouldRefuse, r.PolicyID) {
			if _, ok := u.Policies[id]; id != "" && !ok {
				u.Policies[strings.Clone(id)] = r.Time
			}
		}
		if !cameIn(r) || account != "" && r.Account != account {
			return true
		}
		if _, ok := u.Devices[r.CredentialID]; r.CredentialID != "" && !ok {
			u.Devices[strings.Clone(r.CredentialID)] = r.Time
		}
		p := access.ParseProtocol(r.Protocol)
		by := u.Protocol[r.Account]
		if p != 0 && by[p].IsZero() {
			by[p] = r.Time
			u.Protocol[strings.Clone(r.Account)] = by // the record keeps the whole text that it was read from
		}
		return true
	})
	return u, err
}
