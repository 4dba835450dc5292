package gate

import (
	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Recheck evaluates the rules for the name that the passdb behind Drawbridge has given a login
// whose password it has verified, before the login is admitted. The typed name is what Drawbridge
// judged. Recheck refuses and never admits: the outcome is Deny, Next or TempFail.
//
// If both names are one account, or no rules apply to the final name, nothing is left to evaluate.
// Otherwise all rules are evaluated for the final account, including enforced secure passwords: the
// mailbox password was used. A refusal closes the record of the typed name with the same reason and
// adds one for the final name; it does not count as a wrong password.
func (g *Gate) Recheck(l *access.Login, typed string) access.Decision {
	g.complete(l)
	if !g.Available(l.Time) {
		return g.unavailable(l)
	}
	q, v := g.query(l)
	key := g.pendingKey(typed, l.IP, l.Service)
	if !v.Known || key.account == q.Address {
		return access.Decision{Outcome: access.Next, Reason: access.ReasonOK, Account: q.Address}
	}
	q.Secret = access.Secret{State: access.SecretAuthenticated}
	d := access.Decide(q, noAsker{}, false)
	switch {
	case d.Outcome == access.Deny:
		session := bounded(l.Session)
		first := g.pending.same(session, true) // of the SASL door, even if Dovecot has reported it as a success
		if p := g.pending.take(session, key); p != nil {
			first = p
		}
		if first != nil {
			g.close(first, d.Outcome, d.Reason, l.Time)
		}
		rec := newRecord(l, &d)
		rec.Domain = v.Domain
		g.Log.Info(line("login", rec))
		g.writes.record(rec)
	case g.opened(l, &d, v):
	case l.Protocol == access.SMTP:
		g.authenticated(d.Account, l.IP, store.CredentialMailbox, l.Service, l.Time)
	}
	return d
}
