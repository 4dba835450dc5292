package saslauth

import (
	"cmp"
	"context"
	"crypto/rand"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
)

// Verifier decides logins that Drawbridge's own pages receive. Mailbox passwords that are not kept
// here are verified by the site's own server, as those of Postfix' clients are.
type Verifier struct {
	Gate Gate
	Log  hclog.Logger
	next *relay // nil for none

	refusal atomic.Int64 // how long the last refusal of next took
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
		if d.Outcome == access.Deny && !d.Verified && v.next != nil {
			v.wait(ctx)
		}
		return d
	}
	away := access.Decision{Outcome: access.TempFail, Reason: access.ReasonStoreUnavailable, Account: d.Account}
	if v.next == nil {
		v.Log.Error("a log-in is for the next passdb, and the setting sasl.next names none", "account", d.Account)
		return away
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	a := auth{login: *l}
	a.passed = append(a.passed, "\tservice="+escape(l.Service)+"\tnologin"...)
	if l.IP.IsValid() {
		a.passed = append(a.passed, "\trip="+l.IP.String()...)
	}
	if l.TLS {
		a.passed = append(a.passed, "\tsecured"...)
	}
	began := time.Now()
	found, err := v.next.verify(ctx, v.Gate, &a, l, cmp.Or(d.User, l.Account))
	switch {
	case err != nil:
		v.Log.Warn("sasl.next cannot be asked about a log-in", "error", err)
		return away
	case found.permits():
		d.Outcome, d.Reason, d.Account = access.Allow, access.ReasonOK, cmp.Or(found.rules.Account, d.Account)
		return d
	case found.accepted:
		return found.rules
	}
	v.refusal.Store(int64(time.Since(began)))
	return access.Decision{Outcome: access.Deny, Reason: access.ReasonBadSecret, Account: d.Account}
}

// wait takes as long as the next server's last refusal: otherwise the time of an answer shows which
// accounts are refused without asking it, such as suspended ones.
func (v *Verifier) wait(ctx context.Context) {
	select {
	case <-time.After(min(time.Duration(v.refusal.Load()), answerWithin)):
	case <-ctx.Done():
	}
}
