package gate

import (
	"context"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/store"
)

// provesNow reports whether a login proves its second factor before it is answered. Where the next
// passdb verifies the password, a page's log-in proves it in [Gate.Recheck], after the password.
// Other clients are not heard of again, so they prove it first.
func (g *Gate) provesNow(l *access.Login, d *access.Decision) bool {
	return l.AsksFactor() && (d.Outcome == access.Allow || d.Outcome == access.Next && !l.Page)
}

// prove demands a second factor of a login that the rules admit and whose client takes part: if the
// account has one, or its domain requires one.
func (g *Gate) prove(ctx context.Context, l *access.Login, q *access.Query, v *store.View, d *access.Decision) error {
	if !v.Known || l.MasterUser != "" || l.Proven || g.proven(l) {
		return nil
	}
	kinds := v.Account.FactorKinds()
	if len(kinds) == 0 {
		if v.Rules.FactorRequired(q.Address, q.Account) {
			q.RefuseFactor(d, nil, "a second factor is required, and the account has none")
		}
		return nil
	}
	if l.OTP == "" {
		q.RefuseFactor(d, kinds, "no second factor was given")
		return nil
	}
	refusal := "second factors cannot be verified here"
	if g.Factor != nil {
		var err error
		if refusal, err = g.Factor(ctx, q.Address, l.OTP, l.IP); err != nil {
			return err
		}
	}
	if refusal != "" {
		q.RefuseFactor(d, kinds, refusal)
	}
	return nil
}

// Resume decides a page's log-in without its password: that of a user who shows a second factor after
// the mailbox password was accepted, which the page has kept for a few minutes, or whom the site's own
// log-in has verified. All rules are
// evaluated again, and the login is recorded as one of its own. The outcome is never next.
func (g *Gate) Resume(ctx context.Context, l *access.Login) access.Decision {
	g.complete(l)
	if !g.Available(l.Time) {
		return g.unavailable(l)
	}
	q, v := g.query(l)
	q.Secret = access.Secret{State: access.SecretAuthenticated}
	d := access.Decide(q, noAsker{}, false)
	var err error
	switch {
	case !v.Known:
		d.Outcome, d.Reason = access.Deny, access.ReasonUnmanagedDomain
	case d.Outcome == access.Allow, d.Outcome == access.Next:
		d.Outcome = access.Allow
		err = g.prove(ctx, l, q, &v, &d)
	}
	if err != nil {
		d = access.Decision{Outcome: access.TempFail, Reason: access.ReasonStoreUnavailable, Account: q.Address, Client: q.Client}
	}
	if d.Outcome == access.Allow {
		g.success(d.Account, l.IP, l.Time)
	}
	g.ended(l, &d, v.Domain)
	if g.Decided != nil {
		g.Decided(l.Protocol, &d)
	}
	return d
}

// proven reports whether a login repeats one of Drawbridge's own pages, behind which a passdb asks
// again: the page proves its second factor, which the passdb is not shown.
func (g *Gate) proven(l *access.Login) bool {
	return !l.Page && l.Protocol == access.Web && g.pending.same(l.Session, false) != nil
}
