package admin

import (
	"context"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Messages returns one page of message records, newest first.
func (l *Logins) Messages(ctx context.Context, q store.MessageQuery) (*api.List[api.MessageRecord], error) {
	d := l.domain
	q.Domain = d.name
	if q.Limit == 0 {
		q.Limit = defaultLimit
	}
	var f api.Faults
	if q.Account != "" {
		addr, err := address.Parse(q.Account, d.name)
		q.Account = d.Store.State.Canonical(addr)
		switch {
		case err != nil:
			f.Parameter("account", "invalid_address", "%v", err)
		case address.Domain(q.Account) != d.name:
			f.Parameter("account", "outside_domain", "is not an address of this domain")
		}
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && q.Until.Before(q.Since) {
		f.Parameter("until", "conflict", "is before since")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	if d.Caller.Role == store.RoleSelf {
		if q.Account != "" && q.Account != d.Caller.Account {
			return nil, api.NotFound("account")
		}
		q.Account = d.Caller.Account
	}
	records, next, err := d.ReadMessages(ctx, q)
	if err != nil {
		return nil, err
	}
	return &api.List[api.MessageRecord]{Items: list(records), Next: next}, nil
}
