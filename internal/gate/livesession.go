package gate

import (
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/store"
)

// dovecotSubmission is the service name of Dovecot's own submission server. Sessions of other SMTP
// servers are judged at each command.
const dovecotSubmission = "submission"

// opened reports a login that opens a session of Dovecot, if it is one.
func (g *Gate) opened(l *access.Login, d *access.Decision, v store.View) bool {
	if g.Sessions == nil || !v.Known || l.NoLogin() || l.Relayed {
		return false
	}
	switch d.Outcome {
	case access.Allow, access.Next:
	case access.Deny, access.TempFail:
		return false
	}
	switch l.Protocol {
	case access.IMAP, access.POP3, access.Sieve:
	case access.SMTP:
		if l.Service != dovecotSubmission {
			return false
		}
	case access.Web:
		return false
	}
	s := &access.Session{
		Account: d.Account, Protocol: l.Protocol, Service: bounded(l.Service), IP: l.IP, Client: d.Client,
		Credential: sessionCredential(l, d), Hidden: l.Lookup == access.LookupCredentials, ID: bounded(l.Session), Began: l.Time,
	}
	if s.Credential != store.CredentialUnverified {
		s.Verified = l.Time
	}
	if s.Credential == store.CredentialMailbox {
		s.PasswordSet = v.Account.MailboxSetAt()
	}
	g.Sessions.Opened(s, v.Version)
	return true
}

// Judge decides whether the present rules would admit the login of an open session again: Deny if
// they would not. The secret is the one that was verified then; a secure password that was revoked,
// and a mailbox password that was changed, are refused. Rules and account facts, unless nil, take
// the place of the present ones.
func (g *Gate) Judge(s *access.Session, rules *access.Rules, account *access.Account) access.Decision {
	now := time.Now()
	if !g.Available(now) {
		return access.Decision{Outcome: access.TempFail, Reason: access.ReasonStoreUnavailable}
	}
	l := access.Login{Account: s.Account, Protocol: s.Protocol, Service: s.Service, IP: s.IP, RealIP: s.IP, Session: s.ID, Time: now}
	q := access.Query{Site: g.Site, Login: &l, Client: s.Client, Region: g.region(s.IP)}
	var v store.View
	q.Address, v = g.Store.State.View(s.Account)
	q.Unmanaged = g.Unmanaged.Next(address.Domain(q.Address))
	if v.Known {
		q.Site = v.Site(g.Site)
		q.Rules, q.Account = v.Rules, v.Account.Facts(new(access.Account))
		if rules != nil {
			q.Rules = rules
		}
		if account != nil {
			q.Account = account
		}
	}
	if q.Client == "" {
		q.Client = v.Clients.Classify(&l)
	}
	if s.Hidden {
		l.Lookup = access.LookupCredentials
	}
	changed := false
	switch s.Credential {
	case store.CredentialMaster:
		l.MasterUser = store.CredentialMaster
	case store.CredentialMailbox:
		q.Secret = access.Secret{State: access.SecretAuthenticated}
		changed = !q.Site.NextPassdb && !v.Account.MailboxSetAt().Equal(s.PasswordSet)
	case store.CredentialUnverified:
		q.Secret = access.Secret{State: access.SecretAuthenticated}
	default:
		q.Secret = v.Account.SecretOf(s.Credential)
		refuseSuspended(&q.Secret, &v, q.Address)
	}
	d := access.Decide(&q, noAsker{}, false)
	if changed {
		refuseChanged(&d)
	}
	return d
}

// AccountOf returns the account that a user name of the mail server means, "" for none: a bare name
// has the default domain.
func (g *Gate) AccountOf(user string) string {
	addr, err := address.Parse(user, g.DefaultDomain)
	if err != nil {
		return ""
	}
	account, v := g.Store.State.View(addr)
	if !v.Known {
		// A domain that was deleted: its sessions may still be open.
		return addr
	}
	return account
}
