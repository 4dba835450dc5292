package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Secure does at once what an account needs that somebody else has used: its changes are one
// transaction. The address is blocked before, so that nobody comes back from there meanwhile. Role
// self may revoke its secure passwords and end its sessions.
func (a *Account) Secure(ctx context.Context, in *api.Secure, f *api.Faults) (*Result[api.Secured], error) {
	if err := a.Caller.May(ForDomain | ForSelf); err != nil {
		return nil, err
	}
	if a.Caller.Role == store.RoleSelf && (in.BlockIP != "" || in.ResetMailboxPassword || in.SwitchOff) {
		return nil, api.Forbidden("role self may revoke_secure_passwords and end_sessions")
	}
	if *in == (api.Secure{}) {
		f.Add("", "required", "name what to do: block_ip, revoke_secure_passwords, reset_mailbox_password, switch_off or end_sessions")
	}
	if in.ResetMailboxPassword && !a.KeepsPasswords() {
		f.Add("/reset_mailbox_password", "next_passdb", "is not possible here: mailbox passwords belong to the site's next passdb")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	res := &Result[api.Secured]{View: api.Secured{Account: a.address}}
	v := &res.View
	if in.BlockIP != "" {
		if err := a.secureBlock(ctx, in.BlockIP, v, f); err != nil {
			return nil, err
		}
	}
	var hash string
	if in.ResetMailboxPassword {
		var err error
		if hash, v.Password, err = a.newMailboxHash(ctx, &api.MailboxPassword{Generate: true}, f); err != nil {
			return nil, err
		}
	}
	after, _ := a.Store.State.Account(a.address)
	if !in.RevokeSecurePasswords && !in.ResetMailboxPassword && !in.SwitchOff {
		v.Remains = a.remains(ctx, in, after.Doc)
		return res, nil
	}
	err := a.ChangeAs(ctx, ForDomain|ForSelf, func(ch *store.Change) error {
		v.Revoked, v.SwitchedOff, v.Unchanged = nil, nil, false
		cur, ok := a.Store.State.Account(a.address)
		base := cur.Doc
		if !ok {
			if err := a.checkListed(a.address); err != nil {
				return err
			}
			base = NewAccount(a.address, ch)
		}
		next := *base
		next.Secrets = append([]store.SecurePassword(nil), base.Secrets...)
		if in.RevokeSecurePasswords {
			for _, p := range base.Secrets {
				if p.RevokedAt.IsZero() {
					next.Revoke(p.ID, ch.Now)
					v.Revoked = append(v.Revoked, p.ID)
				}
			}
		}
		if in.ResetMailboxPassword {
			next.FormerHashes = former(base, a.passwordRules().History)
			next.MailboxHash, next.MailboxSetAt, next.MustChange, v.MailboxReset = hash, ch.Now, false, true
		}
		if in.SwitchOff {
			next.Protocols = maps.Clone(base.Protocols)
			if next.Protocols == nil {
				next.Protocols = access.Switches{}
			}
			for _, p := range []access.Protocol{access.IMAP, access.POP3, access.SMTP, access.Sieve} {
				if on, set := next.Protocols[p.String()]; on || !set {
					next.Protocols[p.String()] = false
					v.SwitchedOff = append(v.SwitchedOff, p.String())
				}
			}
		}
		res.Rev = ch.Rev
		after.Doc = &next
		if v.Unchanged = len(v.Revoked)+len(v.SwitchedOff) == 0 && !in.ResetMailboxPassword; v.Unchanged {
			res.Rev = cur.Rev
			return nil
		}
		Describe(ch, "account.secure", a.name, a.address)
		ch.Audit.Note = strings.Join(v.Revoked, " ")
		ch.Diff(base, &next)
		ch.PutAccount(&next)
		return nil
	})
	if err == nil {
		v.Remains = a.remains(ctx, in, after.Doc)
	}
	return res, err
}

// forwardsWithin bounds how long the answer waits for what forwards an account's mail.
const forwardsWithin = 10 * time.Second

// remains lists what was not dealt with of an account that somebody else has used. Its document may be
// nil.
func (a *Account) remains(ctx context.Context, in *api.Secure, doc *store.Account) []api.Remaining {
	list := []api.Remaining{}
	left := func(kind, format string, args ...any) {
		list = append(list, api.Remaining{Kind: kind, Detail: fmt.Sprintf(format, args...)})
	}
	if doc == nil {
		doc = &store.Account{Address: a.address}
	}
	switch {
	case in.ResetMailboxPassword:
	case !a.KeepsPasswords():
		left("mailbox_password", "the mailbox password is not kept here: change it in the site's next passdb")
	case doc.MailboxSetAt.IsZero():
		left("mailbox_password", "the mailbox password was not changed")
	default:
		left("mailbox_password", "the mailbox password is that of %s: set a new one, unless that was done after the theft", doc.MailboxSetAt.Format(time.DateTime))
	}
	for _, p := range doc.Live(a.Time) {
		left("secure_password", "the secure password %q of %s still works", p.Label, p.CreatedAt.Format(time.DateOnly))
	}
	if !doc.HasFactor() {
		left("second_factor", "the account has no second factor")
	}
	for i := range doc.Factors {
		if f := &doc.Factors[i]; f.Confirmed() {
			left("second_factor", "the second factor %q (%s) is from %s: is it the owner's?", f.Label, f.Kind, f.ConfirmedAt.Format(time.DateOnly))
		}
	}
	var on, off []string
	domainSwitches := access.Switches{}
	if d, ok := a.Store.State.Domain(a.name); ok {
		domainSwitches = d.Doc.Protocols
	}
	for _, p := range access.SwitchedProtocols {
		switch own, set := doc.Protocols[p.String()]; {
		case set && !own:
			off = append(off, p.String())
		case set:
			on = append(on, p.String()+" (its own switch)")
		default:
			if of, set := domainSwitches[p.String()]; of || !set {
				on = append(on, p.String())
			}
		}
	}
	if len(on) > 0 && !doc.Suspended {
		left("protocols", "may be used: %s", strings.Join(on, ", "))
	}
	if len(off) > 0 {
		left("switched_off", "its own switches are off: %s; put them on once it is safe", strings.Join(off, ", "))
	}
	for _, k := range a.Store.State.Keys() {
		if k := k.Doc; k.Account == a.address && (k.ExpiresAt.IsZero() || a.Time.Before(k.ExpiresAt)) {
			left("key", "the API key %q of role %s still works", k.Name, k.Role)
		}
	}
	if !in.EndSessions && a.WouldEnd != nil {
		left("sessions", "open sessions that the rules permit go on")
	}
	if a.FindForwards == nil {
		left("forwards_unknown", "forwards to outside are not known: this daemon knows no Dovecot and no alias maps")
		return list
	}
	ctx, cancel := context.WithTimeout(ctx, forwardsWithin)
	defer cancel()
	outside(a.FindForwards.Of(ctx, a.address), func(kind, _, detail string) { left(kind, "%s", detail) })
	return list
}

// secureBlock blocks an address unless it is blocked already.
func (a *Account) secureBlock(ctx context.Context, ip string, v *api.Secured, f *api.Faults) error {
	block, err := a.CreateIPBlock(ctx, &api.IPBlock{Network: ip, Note: "secured " + a.address}, f)
	var p *api.Problem
	switch {
	case errors.As(err, &p) && p.Code == "exists":
	case err != nil:
		return err
	default:
		v.IPBlock = block.View.ID
	}
	v.BlockedIP = ip
	return nil
}

// Confirm learns that a recorded login was the account's own: what was unusual about it is usual from
// now on.
func (l *Logins) Confirm(ctx context.Context, id string) (*api.LoginRecord, error) {
	d := l.domain
	if err := d.Caller.May(ForDomain | ForSelf); err != nil {
		return nil, err
	}
	rec, err := l.Record(ctx, id)
	if err != nil {
		return nil, err
	}
	if rec.Outcome != access.Allow {
		return nil, api.Conflict("not_allowed", "the login did not succeed, so it cannot be marked as the account's own")
	}
	if rec.Pseudonymised {
		return nil, errPseudonymised()
	}
	rec.Domain = d.name
	err = d.changeFor(ctx, ForDomain|ForSelf, d.DryRun, func(ch *store.Change) error {
		Describe(ch, "login.confirm", d.name, rec.Account)
		ch.Audit.Note = rec.ID
		ch.AuditOnly()
		return nil
	})
	if err == nil && !d.DryRun {
		err = d.Learn(ctx, rec)
	}
	return rec, err
}
