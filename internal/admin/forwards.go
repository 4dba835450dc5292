package admin

import (
	"context"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	// maxSieveLogins bounds the logins by ManageSieve that are listed.
	maxSieveLogins = 10
	// sieveRecords is how many of an account's login records are read for them.
	sieveRecords = 5000
)

// Forwards lists what sends the account's mail on, files, answers or deletes it, and the logins by which
// that may have been set up.
func (a *Account) Forwards(ctx context.Context) (*api.Forwards, error) {
	if err := a.Caller.May(ForRead | ForDomain); err != nil {
		return nil, err
	}
	if a.FindForwards == nil {
		return nil, api.Conflict("not_available", "this daemon knows no Dovecot and no alias maps")
	}
	f := a.FindForwards.Of(ctx, a.address)
	q := store.RecordQuery{Domain: a.name, Account: a.address, Outcome: access.Allow.String(), Limit: 1000}
	for read := 0; read < sieveRecords; {
		page, next, err := a.Journal.Records(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range page {
			if r := &page[i]; r.Protocol == access.Sieve.String() && len(f.ManageSieve) < maxSieveLogins {
				f.ManageSieve = append(f.ManageSieve, api.SieveLogin{ID: r.ID, Time: r.Time, IP: r.IP, Device: r.Credential})
			}
		}
		read += len(page)
		if q.Cursor = next; next == "" || len(f.ManageSieve) == maxSieveLogins {
			break
		}
	}
	return f, nil
}
