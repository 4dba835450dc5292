// Package history evaluates rules against login records: the effect that a policy would have had on
// the logins of the last days, and the accounts that a change would lock out.
//
// A record does not contain the secret. [History.Compare] and [Recent.LockedOut] therefore evaluate
// only the steps that do not depend on it ([access.Judge]): suspension, blocked addresses, protocol
// switches, access policies. [Login.Explain] evaluates all steps with what the record says about
// the secret: the secure password, or a wrong or right secret; otherwise it assumes the mailbox
// password. The account's departments and switches are the present ones; client type and address
// are those of the record. A missing region is looked up now.
package history

import (
	"cmp"
	"context"
	"net/netip"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/store"
)

// History reads login records.
type History struct {
	State *store.State
	// Records returns one page of a domain's login records, newest first, and the next page's cursor.
	Records func(context.Context, store.RecordQuery) (items []store.LoginRecord, next string, err error)
	// Region returns the region of an address, as a region.Source does; nil as if no address had
	// one.
	Region func(netip.Addr) string
}

// each calls f with a domain's records from since on, newest first, until f returns false. The
// record is valid only during the call.
func (h *History) each(ctx context.Context, domain string, since time.Time, f func(*store.LoginRecord) bool) error {
	q := store.RecordQuery{Domain: domain, Since: since, Limit: 1000}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		records, next, err := h.Records(ctx, q)
		if err != nil {
			return err
		}
		for i := range records {
			if !f(&records[i]) {
				return nil
			}
		}
		if next == "" {
			return nil
		}
		q.Cursor = next
	}
}

// Login is a recorded login, to be evaluated again.
type Login struct {
	access.Query // without Rules
	view         store.View
	login        access.Login
	account      access.Account
	then         then
}

// then is the result of a login. It answers the engine's questions as they were answered at the
// time.
type then struct {
	outcome access.Outcome
	reason  access.Reason
	closed  bool // by the next passdb
}

// Throttled implements [access.Asker].
func (t then) Throttled() bool { return t.reason == access.ReasonThrottled }

// Mailbox implements [access.Asker].
func (t then) Mailbox() bool { return !t.wrong() }

// wrong reports whether the secret was refused.
func (t then) wrong() bool {
	return t.reason == access.ReasonBadSecret || t.reason == access.ReasonRevokedSecret
}

// Recall fills l from a record and the present account. It returns false for a record whose account
// is not an address, or whose service maps to no protocol: no rule applied to those. It also returns
// false for a pseudonymised one: its address is not known.
func (h *History) Recall(rec *store.LoginRecord, l *Login) bool {
	if rec.Pseudonymised {
		return false
	}
	addr, err := address.Parse(rec.Account, "")
	if err != nil {
		return false
	}
	addr, v := h.State.View(addr)
	l.login = access.Login{
		Account: addr, Service: rec.Service, Protocol: access.ParseProtocol(rec.Protocol),
		IP: address.IPOf(rec.IP), RealIP: address.IPOf(rec.RealIP), TLS: rec.TLS, Mechanism: rec.Mechanism,
		Session: rec.Session, MasterUser: rec.MasterUser, ClientID: rec.ClientID, Time: rec.Time,
	}
	if !l.login.RealIP.IsValid() {
		l.login.RealIP = l.login.IP
	}
	l.Query = access.Query{Login: &l.login, Address: addr, Client: rec.Client, Region: rec.Region}
	if l.login.Protocol == 0 {
		return false
	}
	if l.Region == "" && h.Region != nil {
		l.Region = h.Region(l.login.IP)
	}
	l.view, l.Account = v, v.Account.Facts(&l.account)
	if rec.SecretHidden {
		l.login.Lookup = access.LookupCredentials
	}
	l.then = then{rec.Outcome, rec.Reason, !rec.ClosedAt.IsZero()}
	l.Secret = access.Secret{State: l.then.secret()}
	if rec.CredentialID != "" {
		l.Secret = v.Account.SecretOf(rec.CredentialID)
		l.Secret.Label = cmp.Or(l.Secret.Label, rec.Credential)
	}
	return true
}

// secret returns the state of a secret that was not a secure password of the account.
func (t then) secret() access.SecretState {
	switch {
	case t.outcome == access.Allow:
		return access.SecretAuthenticated
	case t.reason == access.ReasonThrottled, t.wrong() && t.closed:
		return access.SecretOther
	case t.wrong():
		return access.SecretShaped // or there was none: where mailbox passwords are another's, only these are refused here
	default:
		return access.SecretUnseen
	}
}

// judge returns the reason and policy by which rules refuse the login; reason "" is no refusal.
func (l *Login) judge(rules *access.Rules) (reason access.Reason, policyID string) {
	l.Rules = rules
	return access.Judge(&l.Query)
}

// Explain decides the login under rules, step by step. The next passdb's answer is that of the
// record; a secret that was wrong then stays wrong.
func (l *Login) Explain(site access.Site, rules *access.Rules) access.Decision {
	l.Site, l.Rules = site, rules
	d := access.Decide(&l.Query, l.then, true)
	step := access.Step{Step: "next_passdb", Result: "refuse"}
	switch {
	case d.Outcome != access.Next:
		return d
	case l.then.wrong():
		d.Outcome, d.Reason, step.Detail = access.Deny, access.ReasonBadSecret, "the secret was wrong then"
	case l.then.outcome == access.Allow && l.then.closed:
		d.Outcome, step.Result, step.Detail = access.Allow, "pass", "the secret was right then"
	default:
		return d
	}
	d.Trace = append(d.Trace, step)
	return d
}

// cameIn reports whether the login was admitted, as far as known: one that the next passdb decides
// and never reported counts.
func cameIn(rec *store.LoginRecord) bool {
	return rec.Outcome == access.Allow || rec.Outcome == access.Next
}

// ruled reports whether a rule refused the login: its secret may have been right.
func ruled(rec *store.LoginRecord) bool {
	switch rec.Reason {
	case access.ReasonPolicy, access.ReasonIPBlocked, access.ReasonProtocol, access.ReasonSuspended:
		return rec.Outcome == access.Deny
	default:
		return false
	}
}
