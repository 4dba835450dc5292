package history

import (
	"context"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Bounds of [History.CutOff].
const (
	maxCutOffRecords  = 20_000
	maxCutOffAccounts = 1000
)

// Draft is a change of a domain's rules, or of one account's settings.
type Draft struct {
	Domain  string
	Site    access.Site // as the settings have it; the account's domain may decide otherwise
	Are     *access.Rules
	Would   *access.Rules
	Account string          // "" for all
	Facts   *access.Account // the account as it would be; nil for as it is
}

// CutOff returns the accounts whose recorded logins the present rules admit and a draft would
// refuse, with their last such login. All steps are evaluated, including the secret. At most the
// newest 20 000 records are read.
func (h *History) CutOff(ctx context.Context, since time.Time, draft Draft) (*api.CutOff, error) {
	out := &api.CutOff{Since: since, Accounts: []api.CutOffAccount{}}
	at := map[string]int{}
	q := store.RecordQuery{Domain: draft.Domain, Account: draft.Account, Since: since, Limit: 1000}
	var l Login
	for {
		records, next, err := h.Records(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range records {
			rec := &records[i]
			out.Examined++
			if !cameIn(rec) || !h.Recall(rec, &l) {
				continue
			}
			site := l.view.Site(draft.Site)
			if l.Explain(site, draft.Are).Outcome == access.Deny {
				continue
			}
			if draft.Facts != nil && l.Address == draft.Account {
				l.Account = draft.Facts
			}
			if l.Explain(site, draft.Would).Outcome != access.Deny {
				continue
			}
			n, known := at[l.Address]
			switch {
			case known:
			case len(out.Accounts) == maxCutOffAccounts:
				out.Others++
				continue
			default:
				n = len(out.Accounts)
				at[l.Address] = n
				out.Accounts = append(out.Accounts, api.CutOffAccount{
					Address: l.Address, LastLogin: api.CutOffLogin{Time: rec.Time, IP: rec.IP, Protocol: rec.Protocol, Client: rec.Client, ClientID: rec.ClientID},
				})
			}
			out.Accounts[n].Logins++
		}
		if next == "" || out.Examined >= maxCutOffRecords {
			return out, nil
		}
		q.Cursor = next
	}
}
