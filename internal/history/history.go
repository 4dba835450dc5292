// Package history holds login records against rules: what a policy would have done to the logins of
// the last days, and whom a change would lock out.
//
// A record does not hold the secret, so that [History.Compare] and [Recent.LockedOut] take only the
// steps that do not depend on it ([access.Judge]): suspension, blocked addresses, protocol
// switches, access policies. [Login.Explain] takes all steps, with what the record tells of the
// secret: which secure password it was, that it was wrong, or that it was good; else it is taken
// for the mailbox password. The account is taken as it is now, with its departments and switches;
// client type and address are those of the record. A region that the record lacks is looked up now.
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
	// Region tells the region of an address, as a region.Source does; nil as if no address had one.
	Region func(netip.Addr) string
}

// each gives f a domain's records from since on, newest first, until f reports false. The record is
// f's only during the call.
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

// Login is a recorded login, to be judged again.
type Login struct {
	access.Query // without Rules
	login        access.Login
	account      access.Account
	then         then
}

// then is how a login ended. It answers the engine as it was answered then.
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

// Recall fills l with what a record and the account as it is now tell of a login. It reports false
// for a record whose account is no address, or whose service was mapped to no protocol: no rule was
// ever asked about those.
func (h *History) Recall(rec *store.LoginRecord, l *Login) bool {
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
	l.Account = v.Account.Facts(&l.account)
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

// secret is what is known of a secret that was no secure password of the account.
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

// judge tells whether rules refuse the login, why, and by which policy; reason "" is no refusal.
func (l *Login) judge(rules *access.Rules) (reason access.Reason, policyID string) {
	l.Rules = rules
	return access.Judge(&l.Query)
}

// Explain decides the login under rules, step by step. What the next passdb would say is taken from
// the record; a secret that was wrong then is never good now.
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

// cameIn reports whether the login of a record was admitted, as far as is known: one that the next
// passdb decides and that was never reported counts.
func cameIn(rec *store.LoginRecord) bool {
	return rec.Outcome == access.Allow || rec.Outcome == access.Next
}

// ruled reports whether it was a rule that refused the login of a record: its secret may have been
// right.
func ruled(rec *store.LoginRecord) bool {
	switch rec.Reason {
	case access.ReasonPolicy, access.ReasonIPBlocked, access.ReasonProtocol, access.ReasonSuspended:
		return rec.Outcome == access.Deny
	default:
		return false
	}
}
