package gate

import (
	"context"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Recheck evaluates the rules for the name that the passdb behind Drawbridge has given a login
// whose password it has verified, before the login is admitted. The typed name is what Drawbridge
// judged. Recheck refuses and never admits: the outcome is Deny, Next or TempFail.
//
// If both names are one account, or no rules apply to the final name, no rules are left to evaluate.
// Otherwise all rules are evaluated for the final account, including enforced secure passwords: the
// mailbox password was used. A log-in to a page proves its second factor here, after its password. A
// refusal closes the record of the typed name with the same reason and adds one for the final name,
// if that is another account; it does not count as a wrong password.
func (g *Gate) Recheck(l *access.Login, typed string) access.Decision {
	g.complete(l)
	if l.NoLogin() { // mail is delivered as before
		return access.Decision{Outcome: access.Next, Reason: access.ReasonOK}
	}
	session, key := bounded(l.Session), g.pendingKey(typed, l.IP, l.Service)
	end := g.pending.take
	if l.Reported {
		end = g.pending.refuse
	}
	if !g.Available(l.Time) {
		if l.Reported {
			end(session, key)
		}
		return g.unavailable(l)
	}
	q, v := g.query(l)
	same := key.account == q.Address
	d := access.Decision{Outcome: access.Next, Reason: access.ReasonOK, Account: q.Address, Client: q.Client, Verified: true}
	if !v.Known || same && !l.Page {
		return d
	}
	if !same {
		q.Secret = access.Secret{State: access.SecretAuthenticated}
		d = access.Decide(q, noAsker{}, false)
	}
	if d.Outcome != access.Deny && l.AsksFactor() {
		if err := g.prove(context.Background(), l, q, &v, &d); err != nil {
			d = access.Decision{Outcome: access.TempFail, Reason: access.ReasonStoreUnavailable, Account: q.Address, Client: q.Client}
		}
	}
	switch {
	case d.Outcome == access.Deny, d.Outcome == access.TempFail:
		first := g.pending.same(session, true) // of the SASL door, even if Dovecot has reported it as a success
		if p := end(session, key); p != nil {
			first = p
		}
		if first != nil {
			g.close(first, d.Outcome, d.Reason, d.Note, l.Time)
		}
		if first == nil || !same {
			g.ended(l, &d, v.Domain)
		}
	case same:
	case g.opened(l, &d, v):
	case l.Protocol == access.SMTP:
		g.authenticated(d.Account, l.IP, store.CredentialMailbox, l.Service, l.Time)
	}
	return d
}

// Check evaluates the rules that need no secret, for a login that no passdb of Drawbridge sees: of
// the name as it was typed, and of the name that the site's passdb has given it. It refuses and
// never admits. verified says that the password is known to be right; otherwise only the site's own
// webmail learns the reason.
//
// The throttle is not asked: it would reveal, after the password was verified, that it was right. A
// login that passes is recorded when [Gate.Report] says how it ended.
func (g *Gate) Check(l *access.Login, typed string, verified bool) access.Decision {
	g.complete(l)
	if !g.Available(l.Time) {
		return g.unavailable(l)
	}
	first := *l
	if typed != "" {
		first.Account = typed
	}
	d, v := g.check(&first, verified)
	if d.Outcome != access.Deny && first.Account != l.Account {
		if final, fv := g.check(l, verified); fv.Known && final.Account != d.Account {
			d, v = final, fv
		}
	}
	if d.Outcome == access.Deny {
		g.ended(l, &d, v.Domain)
	}
	return d
}

// check decides a login whose secret is for the site's own passdb.
func (g *Gate) check(l *access.Login, verified bool) (access.Decision, store.View) {
	q, v := g.query(l)
	q.Site.NextPassdb = true
	q.Secret = access.Secret{State: access.SecretUnseen}
	if verified {
		q.Secret.State = access.SecretAuthenticated
	}
	d := access.Decide(q, noAsker{}, false)
	if !verified && q.Client != access.ClientWeb {
		d.Message = ""
	}
	return d, v
}

// unjudged records how a login ended that no passdb of Drawbridge saw.
func (g *Gate) unjudged(l *access.Login, success bool) {
	g.complete(l)
	q, v := g.query(l)
	d := access.Decision{Outcome: access.Deny, Reason: access.ReasonBadSecret, Account: q.Address, Client: q.Client, Region: access.ShownRegion(q.Region)}
	if success {
		d.Outcome, d.Reason = access.Allow, access.ReasonOK
		if !g.opened(l, &d, v) && l.Protocol == access.SMTP && v.Known {
			g.authenticated(d.Account, l.IP, sessionCredential(l, &d), l.Service, l.Time)
		}
	}
	g.ended(l, &d, v.Domain)
}

// ended logs a login and records it in its domain, "" for one that is not managed.
func (g *Gate) ended(l *access.Login, d *access.Decision, domain string) {
	rec := g.newRecord(l, d)
	rec.Domain = domain
	g.Log.Info(line("login", rec))
	if domain != "" {
		g.writes.record(rec)
	}
}
