package admin

import (
	"context"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/store"
)

// cutOff returns whom a change of the domain would cut off, by the logins of the last days and the
// open sessions.
func (d *Domain) cutOff(ctx context.Context, next *store.Domain) (*api.CutOff, error) {
	var are *access.Rules
	would := d.Store.State.Rules(d.name, d.Time, func(set *access.Settings) {
		are = access.Compile(set) // of the same moment
		set.Protocols, set.Enforced, set.EnforceFor = next.Protocols, next.SecurePasswords.Enforced, next.SecurePasswords.Scope
	})
	return d.cutOffBy(ctx, history.Draft{Are: are, Would: would})
}

// cutOff returns whether a change of the account would cut it off.
func (a *Account) cutOff(ctx context.Context, next *store.Account) (*api.CutOff, error) {
	rules := a.Store.State.Rules(a.name, a.Time, func(*access.Settings) {})
	return a.cutOffBy(ctx, history.Draft{Are: rules, Would: rules, Account: a.address, Facts: &access.Account{
		Suspended: next.Suspended, Departments: next.Departments, Protocols: next.Protocols.Compile(), Secure: next.Secure, HasSecure: len(next.Secrets) > 0,
	}})
}

func (d *Domain) cutOffBy(ctx context.Context, draft history.Draft) (*api.CutOff, error) {
	if draft.Would == nil {
		return nil, api.NotFound("domain")
	}
	draft.Domain, draft.Site = d.name, d.Site
	out, err := d.history().CutOff(ctx, d.Time.UTC().Truncate(time.Second).AddDate(0, 0, -PreviewDays), draft)
	if err != nil {
		return nil, err
	}
	for i := range out.Accounts {
		if r, ok := d.Store.State.Account(out.Accounts[i].Address); ok {
			out.Accounts[i].SecurePasswords = len(r.Doc.Live(d.Time))
		}
	}
	if d.WouldEnd != nil {
		out.Sessions = d.WouldEnd(ctx, d.name, draft.Account, draft.Would, draft.Facts)
	}
	return out, nil
}
