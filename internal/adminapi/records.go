package adminapi

import (
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

func listLogins(c *call) (*answer, error) {
	q := store.RecordQuery{
		Domain: c.domain, Outcome: c.query.Get("outcome"), Reason: c.query.Get("reason"), Policy: c.query.Get("policy"), Client: c.query.Get("client"),
		Since: c.time("since"), Until: c.time("until"), Limit: c.limit(), Cursor: c.query.Get("cursor"),
	}
	var f api.Faults
	if text := c.query.Get("ip"); text != "" {
		ip, _ := address.ParseIP(text) // was checked
		q.IP = ip.String()
	}
	if text := c.query.Get("account"); text != "" {
		addr, err := address.Parse(text, c.domain)
		q.Account = c.Store.State.Canonical(addr)
		switch {
		case err != nil:
			f.Parameter("account", "invalid_address", "%v", err)
		case address.Domain(q.Account) != c.domain:
			f.Parameter("account", "outside_domain", "is no address of this domain")
		}
	}
	if q.Client != "" && !slices.Contains(c.clientTypes(), access.ClientType(q.Client)) {
		f.Parameter("client", "unknown_client_type", "there is no client type %q%s", q.Client, rest.Suggest(q.Client, texts(c.clientTypes())))
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && q.Until.Before(q.Since) {
		f.Parameter("until", "conflict", "is before since")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	if c.id.role == store.RoleSelf {
		if q.Account != "" && q.Account != c.id.account {
			return nil, api.NotFound("account")
		}
		q.Account = c.id.account
	}
	records, next, err := c.Journal.Records(c.ctx, q)
	if err != nil {
		return nil, err
	}
	return &answer{body: api.List[api.LoginRecord]{Items: list(records), Next: next}}, nil
}

// time returns a parameter that is a time, or the zero Time.
func (c *call) time(name string) time.Time {
	t, _ := time.Parse(time.RFC3339, c.query.Get(name)) // was checked; "" is no time
	return t
}

func listAudit(c *call) (*answer, error) {
	q := store.AuditQuery{Since: c.time("since"), Limit: c.limit(), Cursor: c.query.Get("cursor")}
	if text := c.query.Get("domain"); text != "" {
		name, err := address.ParseDomain(text)
		if err != nil {
			var f api.Faults
			f.Parameter("domain", "invalid_domain", "%v", err)
			return nil, f.Err()
		}
		q.Domain = name // of a domain that is gone, too
	}
	if c.id.role == store.RoleDomain {
		if q.Domain != "" && q.Domain != c.id.domain {
			return nil, api.NotFound("domain")
		}
		q.Domain = c.id.domain
	}
	entries, next, err := c.Journal.Audit(c.ctx, q)
	if err != nil {
		return nil, err
	}
	page := api.List[api.AuditEntry]{Items: make([]api.AuditEntry, len(entries)), Next: next}
	for i := range entries {
		e := &entries[i]
		page.Items[i] = api.AuditEntry{
			ID: e.ID, Time: e.Time, Actor: api.Actor(e.Actor), Action: e.Action, Domain: e.Domain, Target: e.Target, Note: e.Note, Changes: e.Changes,
		}
	}
	return &answer{body: page}, nil
}
