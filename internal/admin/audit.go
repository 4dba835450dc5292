package admin

import (
	"context"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Audit returns one page of administrative changes and credential events, newest first. domain ""
// means all that the caller reaches; it may name a domain that no longer exists.
func (r *Request) Audit(ctx context.Context, domain string, since time.Time, p Page) (*api.List[api.AuditEntry], error) {
	if err := r.Caller.May(ForRead | ForDomain); err != nil {
		return nil, err
	}
	q := store.AuditQuery{Since: since, Limit: p.limit(), Cursor: p.Cursor}
	if domain != "" {
		name, err := address.ParseDomain(domain)
		if err != nil {
			var f api.Faults
			f.Parameter("domain", "invalid_domain", "%v", err)
			return nil, f.Err()
		}
		q.Domain = name
	}
	if r.Caller.Role == store.RoleDomain {
		if q.Domain != "" && q.Domain != r.Caller.Domain {
			return nil, api.NotFound("domain")
		}
		q.Domain = r.Caller.Domain
	}
	entries, next, err := r.Journal.Audit(ctx, q)
	if err != nil {
		return nil, err
	}
	page := &api.List[api.AuditEntry]{Items: make([]api.AuditEntry, len(entries)), Next: next}
	for i := range entries {
		e := &entries[i]
		page.Items[i] = api.AuditEntry{
			ID: e.ID, Time: e.Time, Actor: api.Actor(e.Actor), Action: e.Action, Domain: e.Domain, Target: e.Target, Note: e.Note, Changes: e.Changes,
		}
	}
	return page, nil
}
