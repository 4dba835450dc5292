package admin

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Logins are the login records of a managed domain; for role self, only those of its own account.
type Logins struct{ domain *Domain }

// Logins returns the login records of a managed domain.
func (r *Request) Logins(domain string) (*Logins, error) {
	d, err := r.domain(domain, ForRead|ForDomain|ForSelf)
	if err != nil {
		return nil, err
	}
	return &Logins{d}, nil
}

// List returns one page of login records, newest first. The domain of the query is that of the
// records; its account, IP address and client are validated.
func (l *Logins) List(ctx context.Context, q store.RecordQuery) (*api.List[api.LoginRecord], error) {
	q, err := l.Selected(q)
	if err != nil {
		return nil, err
	}
	records, next, err := l.domain.Journal.Records(ctx, q)
	if err != nil {
		return nil, err
	}
	return &api.List[api.LoginRecord]{Items: list(records), Next: next}, nil
}

// Selected validates a query, as [Logins.List] does, and limits it to what the caller may see.
func (l *Logins) Selected(q store.RecordQuery) (store.RecordQuery, error) {
	d := l.domain
	q.Domain, q.Limit = d.name, cmp.Or(q.Limit, defaultLimit)
	var f api.Faults
	if q.IP != "" {
		ip, err := address.ParseIP(q.IP)
		if err != nil {
			f.Parameter("ip", "invalid_network", "%v", err)
		}
		q.IP = ip.String()
	}
	q.Account = d.readRecordFilters(q.Account, q.Since, q.Until, &f)
	if known := d.clientTypes(); q.Client != "" && !slices.Contains(known, access.ClientType(q.Client)) {
		f.Parameter("client", "unknown_client_type", "there is no client type %q%s", q.Client, api.Suggest(q.Client, texts(known)))
	}
	if err := f.Err(); err != nil {
		return q, err
	}
	q.Hidden = history.Hidden(&q, d.Pepper.Pseudonym)
	var err error
	q.Account, err = d.recordsOf(q.Account)
	return q, err
}

// readRecordFilters validates the filters that all queries of records have, and returns the
// canonical account, "" for all.
func (d *Domain) readRecordFilters(account string, since, until time.Time, f *api.Faults) string {
	if account != "" {
		addr, err := address.Parse(account, d.name)
		account = d.Store.State.Canonical(addr)
		switch {
		case err != nil:
			f.Parameter("account", "invalid_address", "%v", err)
		case address.Domain(account) != d.name:
			f.Parameter("account", "outside_domain", "is not an address of this domain")
		}
	}
	if !since.IsZero() && !until.IsZero() && until.Before(since) {
		f.Parameter("until", "conflict", "is before since")
	}
	return account
}

// recordsOf returns the account whose records the caller may query, "" for all: role self has its
// own only.
func (d *Domain) recordsOf(account string) (string, error) {
	if d.Caller.Role != store.RoleSelf {
		return account, nil
	}
	if account != "" && account != d.Caller.Account {
		return "", api.NotFound("account")
	}
	return d.Caller.Account, nil
}

// Record returns one login record.
func (l *Logins) Record(ctx context.Context, id string) (*api.LoginRecord, error) {
	d := l.domain
	rec, err := d.Journal.Record(ctx, d.name, id)
	if errors.Is(err, store.ErrNoRecord) || err == nil && d.Caller.Role == store.RoleSelf && rec.Account != d.Caller.Account {
		return nil, api.NotFound("login record")
	}
	return rec, err
}

// Explain evaluates a recorded login by the present rules.
func (l *Logins) Explain(ctx context.Context, id string) (*api.ExplainedLogin, error) {
	d := l.domain
	if err := d.Caller.May(ForRead | ForDomain); err != nil {
		return nil, err
	}
	rec, err := l.Record(ctx, id)
	if err != nil {
		return nil, err
	}
	if rec.Pseudonymised {
		return nil, errPseudonymised()
	}
	var login history.Login
	if !d.history().Recall(rec, &login) {
		return nil, api.NotFound("login record")
	}
	_, v := d.Store.State.View(login.Address)
	decision := login.Explain(v.Site(d.Site), v.Rules)
	decision.Trace = append(decision.Trace, d.disabledSteps("")...)
	e := &api.ExplainedLogin{Record: *rec, Decision: decision}
	if decision.Outcome != rec.Outcome || decision.Reason != rec.Reason || decision.PolicyID != rec.PolicyID {
		e.Differs, e.WhyDiffers = true, d.whyDiffers(rec, &login, &decision)
	}
	return e, nil
}

func errPseudonymised() error {
	return api.Conflict("pseudonymised", "the record was pseudonymised: the address that rules apply to is no longer known")
}

// reasonWords are the reasons of decisions, in the past and the present tense.
var reasonWords = map[access.Reason]struct{ was, is string }{
	access.ReasonOK:              {"it passed", "it passes"},
	access.ReasonPolicy:          {"the policy refused it", "the policy refuses it"},
	access.ReasonIPBlocked:       {"its address was blocked", "its address is blocked"},
	access.ReasonProtocol:        {"its protocol was off", "its protocol is off"},
	access.ReasonSecureRequired:  {"a secure password was required", "a secure password is required"},
	access.ReasonBadSecret:       {"its secret was wrong", "its secret is wrong"},
	access.ReasonRevokedSecret:   {"its secure password was revoked", "its secure password is revoked"},
	access.ReasonSecretScope:     {"its secure password was not valid there", "its secure password is not valid there"},
	access.ReasonSecondFactor:    {"a second factor was missing or wrong", "a second factor is required"},
	access.ReasonSuspended:       {"the account was suspended", "the account is suspended"},
	access.ReasonThrottled:       {"it was throttled", "it is throttled"},
	access.ReasonPasswordExpired: {"its password had expired", "its password has expired"},
	access.ReasonUnknownAccount:  {"the account had no record", "the account has no record"},
}

// whyDiffers says what decided a recorded login, and what decides it now.
func (d *Domain) whyDiffers(rec *store.LoginRecord, l *history.Login, now *access.Decision) string {
	text := "then " + cmp.Or(reasonWords[rec.Reason].was, string(rec.Reason))
	if rec.PolicyID != "" {
		text += " (" + rec.PolicyID
		switch p, ok := d.Store.State.Policy(d.name, rec.PolicyID); {
		case !ok:
			text += ", which was deleted"
		case !p.Doc.Enabled:
			text += ", which is disabled"
		case p.Doc.Mode == access.Report:
			text += ", which only reports"
		}
		text += ")"
	}
	text += "; now " + cmp.Or(reasonWords[now.Reason].is, string(now.Reason))
	if now.PolicyID != "" {
		text += " (" + now.PolicyID + ")"
	}
	if now.Outcome != access.Deny && l.Secret.State == access.SecretUnseen {
		text += "; the record does not say whether its secret was correct; it is assumed to be"
	}
	return text
}
