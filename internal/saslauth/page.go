package saslauth

import (
	"cmp"
	"context"
	"crypto/rand"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
)

// Verifier decides logins that Drawbridge's own pages receive. Mailbox passwords that are not kept
// here are verified by the site's own server, as those of Postfix' clients are.
type Verifier struct {
	Gate Gate
	Log  hclog.Logger
	next *relay // nil for none
}

// NewVerifier returns a verifier that asks the server at the unix socket next; "" for none.
func NewVerifier(gate Gate, log hclog.Logger, next string) *Verifier {
	v := &Verifier{Gate: gate, Log: log}
	if next != "" {
		v.next = &relay{path: next}
	}
	return v
}

// Close ends idle connections.
func (v *Verifier) Close() {
	if v.next != nil {
		v.next.close()
	}
}

// Login decides a login by its mailbox password, and records it. The outcome is never next.
func (v *Verifier) Login(ctx context.Context, l *access.Login) access.Decision {
	l.Session, l.Relayed, l.Mechanism = access.RelayedSession+rand.Text(), v.next != nil, "PLAIN"
	d := v.Gate.Login(ctx, l)
	if d.Outcome != access.Next {
		return d
	}
	away := access.Decision{Outcome: access.TempFail, Reason: access.ReasonStoreUnavailable, Account: d.Account}
	if v.next == nil {
		v.Log.Error("a log-in is for the next passdb, and the setting sasl.next names none", "account", d.Account)
		return away
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	a := auth{mechanism: "PLAIN", login: *l, hasFirst: true, initial: encodePlain("", cmp.Or(d.User, l.Account), l.Secret)}
	a.passed = append(a.passed, "\tservice="+escape(l.Service)+"\tnologin"...)
	if l.IP.IsValid() {
		a.passed = append(a.passed, "\trip="+l.IP.String()...)
	}
	if l.TLS {
		a.passed = append(a.passed, "\tsecured"...)
	}
	p, ans, err := v.next.begin(ctx, &a)
	clear(a.initial)
	if err != nil {
		v.Log.Warn("sasl.next cannot be asked about a log-in", "error", err)
		return away
	}
	ending := &access.Ending{Account: l.Account, IP: l.IP, Service: l.Service, Session: l.Session}
	refused := access.Decision{Outcome: access.Deny, Reason: access.ReasonBadSecret, Account: d.Account}
	switch {
	case ans.verb == "OK" && ans.user != "" && !ans.nologin:
		v.next.put(p)
		final := *l
		final.Account = ans.user
		again := v.Gate.Recheck(&final, l.Account)
		if again.Outcome != access.Allow && again.Outcome != access.Next {
			return again
		}
		ending.Success = true
		v.Gate.Report(ending)
		d.Outcome, d.Reason, d.Account = access.Allow, access.ReasonOK, cmp.Or(again.Account, d.Account)
		return d
	case ans.verb == "FAIL" && !ans.temporary:
		v.next.put(p)
		v.Gate.Report(ending)
		return refused
	case ans.verb == "OK" && ans.nologin:
		v.next.put(p)
		return refused
	}
	p.end()
	v.Log.Warn("sasl.next reports a temporary failure of a log-in, or an answer that cannot be read")
	return away
}
