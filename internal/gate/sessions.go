package gate

import (
	"mime"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/submission"
)

// version is the version of everything that a permit depends on.
func (g *Gate) version() submission.Version {
	return submission.Version{State: g.Store.State.Version(), Regions: g.regions.Load()}
}

// RegionsChanged has open sessions re-evaluated at their next request, because their addresses may
// be in other regions now.
func (g *Gate) RegionsChanged() { g.regions.Add(1) }

// Connected records the start of an SMTP connection, which the milter reports. The caller must call
// ended when the connection has ended.
func (g *Gate) Connected(ip netip.Addr, port uint16) (ended func()) {
	g.sessions.Connected(ip, port, time.Now())
	g.mails.milter.Add(1)
	return sync.OnceFunc(func() {
		g.mails.milter.Add(-1)
		g.sessions.Disconnected(ip, port, time.Now())
	})
}

// authenticated notes a login for submission, here and on all daemons.
func (g *Gate) authenticated(account string, ip netip.Addr, credential, service string, at time.Time) {
	g.sessions.Authenticated(account, ip, g.authentication(account, credential, service, at, false))
	g.writes.event(store.Event{
		Origin: g.origin, Time: at, Kind: store.EventBind, Account: account, IP: address.IPText(ip),
		Protocol: access.SMTP.String(), Service: service, Credential: credential,
	})
}

// otherPassword is the [submission.AuthMethod.PasswordSet] of a mailbox password that was replaced.
const otherPassword = -1

// authentication returns the authentication that an event describes. A login from before the mailbox
// password was set used another one, unless it was here and the clock was set back since.
func (g *Gate) authentication(account, credential, service string, at time.Time, remote bool) submission.Authentication {
	a := submission.Authentication{AuthMethod: submission.AuthMethod{Credential: credential, Service: service}, Time: at, Remote: remote}
	if credential == store.CredentialUnverified {
		a.Credential, a.Unverified = store.CredentialMailbox, true
	}
	if credential != store.CredentialMailbox {
		return a
	}
	if _, v := g.Store.State.View(account); !v.Site(g.Site).NextPassdb {
		a.PasswordSet = passwordSet(v.Account)
		if at.UnixNano() < a.PasswordSet && (remote || a.PasswordSet <= time.Now().UnixNano()) {
			a.PasswordSet = otherPassword
		}
	}
	return a
}

// passwordSet returns when an account's mailbox password was set, in nanoseconds since 1970; 1 if
// the record does not say.
func passwordSet(r store.Record) int64 {
	if at := r.MailboxSetAt(); !at.IsZero() {
		return at.UnixNano()
	}
	return 1
}

// unknownMethod is assumed while it is unknown how a session authenticated. It proves least: the
// mailbox password, at a listener without a service name of its own.
func unknownMethod() submission.AuthMethod {
	return submission.AuthMethod{Credential: store.CredentialMailbox, Service: "smtp"}
}

// session is an authenticated submission session, looked up once per request.
type session struct {
	query   access.Query
	login   access.Login
	record  access.Account // its list of departments is used again by later sessions
	view    store.View
	account string
	bound   *submission.Session
}

// release gives a session back to the pool.
func (g *Gate) release(s *session) {
	*s = session{record: access.Account{Departments: s.record.Departments[:0]}}
	g.room.Put(s)
}

// session looks up who submits and binds the connection. The outcome is the zero value when rules
// concern the session.
func (g *Gate) session(s *session, sub *access.Submission, now time.Time) access.Outcome {
	if !g.Available(now) {
		return access.TempFail
	}
	addr, err := address.Parse(sub.Account, g.DefaultDomain)
	if err != nil {
		if g.unreadable(sub.Account) {
			return access.Next
		}
		return access.Deny
	}
	s.account, s.view = g.Store.State.View(addr)
	if !s.view.Known {
		if g.Unmanaged.Next(address.Domain(s.account)) {
			return access.Next
		}
		return access.Deny
	}
	// No ports, no certificate: what the login did not carry must not make another client type of
	// its session. The service is added by decide.
	s.login = access.Login{Protocol: access.SMTP, IP: sub.IP, RealIP: sub.IP, Time: now}
	s.query = access.Query{Site: s.view.Site(g.Site), Login: &s.login, Address: s.account, Rules: s.view.Rules, Account: s.view.Account.Facts(&s.record)}
	s.query.Region = g.region(s.login.IP)
	// The client has authenticated, so it may get the reason.
	if s.query.Site.Reveal == access.RevealWeb {
		s.query.Site.Reveal = access.RevealVerified
	}
	if s.bound = g.sessions.Find(s.account, sub.IP, sub.Port, now); s.bound == nil {
		s.bound = g.sessions.Bind(s.account, sub, now, func(m submission.AuthMethod) bool { return s.decide(m).Outcome != access.Deny })
	}
	return 0
}

// client returns the type of client that a session is of that began at a service.
func (s *session) client(service string) access.ClientType {
	s.login.Service = service
	return s.view.Clients.Classify(&s.login)
}

// decide evaluates the rules for one of the methods that the session may have authenticated with.
func (s *session) decide(m submission.AuthMethod) access.Decision {
	s.query.Client = s.client(m.Service)
	s.login.MasterUser = ""
	s.query.Secret = access.Secret{State: access.SecretAuthenticated}
	changed := false
	switch m.Credential {
	case store.CredentialMailbox:
		if s.view.Suspends(s.account, store.CredentialMailbox) {
			return access.Decision{
				Outcome: access.Deny, Reason: access.ReasonSuspended, Account: s.account, Client: s.query.Client,
				Message: textSendingSuspended, Note: "the mailbox password reached a sending limit",
			}
		}
		changed = m.PasswordSet != 0 && m.PasswordSet != passwordSet(s.view.Account)
	case store.CredentialMaster:
		s.login.MasterUser = store.CredentialMaster
	default:
		s.query.Secret = s.view.Account.SecretOf(m.Credential)
		refuseSuspended(&s.query.Secret, &s.view, s.account)
	}
	d := access.Decide(&s.query, noAsker{}, false)
	if changed {
		refuseChanged(&d)
	}
	return d
}

// refuseChanged refuses a session whose mailbox password was replaced.
func refuseChanged(d *access.Decision) {
	if d.Outcome != access.Deny {
		d.Outcome, d.Reason, d.Note = access.Deny, access.ReasonRevokedSecret, "the mailbox password was changed"
	}
}

// noAsker answers where nothing is verified or counted: for a session, whose secret was verified
// when it began, and for a hypothetical login.
type noAsker struct{}

func (noAsker) Throttled() bool { return false }
func (noAsker) Mailbox() bool   { return false }

// Submission decides whether an authenticated SMTP session may continue. A refusal is recorded and
// logged once per connection; permits are neither.
func (g *Gate) Submission(sub access.Submission) access.Decision {
	now := time.Now()
	v := g.version() // before anything is looked up: what changes meanwhile ends the permit
	if d, ok := g.sessions.Permitted(sub, v, now); ok && g.Available(now) {
		return d
	}
	s, _ := g.room.Get().(*session)
	defer g.release(s)
	switch o := g.session(s, &sub, now); o {
	case access.TempFail:
		return access.Decision{Outcome: o, Reason: access.ReasonStoreUnavailable}
	case access.Deny, access.Next:
		d := access.Decision{Outcome: o, Reason: access.ReasonUnmanagedDomain, Account: s.account}
		m := g.submitter(s)
		m.Account, m.Check = sub.Account, mailflow.CheckOff
		if v := m.Envelope(sub.Sender); o == access.Next && v.Refused {
			d.Outcome, d.Reason, d.Message = access.Deny, access.ReasonSenderNotOwned, v.Text
			s.login = access.Login{Protocol: access.SMTP, IP: sub.IP, RealIP: sub.IP, Time: now}
			g.Log.Info(line("submission", newRecord(&s.login, &d)))
		}
		return d
	case access.Allow:
	}
	bound := s.bound.State() == submission.Bound
	methods := s.bound.Methods()
	if !bound {
		methods = []submission.AuthMethod{unknownMethod()}
	}
	var d access.Decision
	lasting := true
	for _, m := range methods {
		if d = s.decide(m); d.Outcome == access.Deny {
			return g.refused(s, d)
		}
		lasting = lasting && s.query.Secret.Bounds.Expires.IsZero()
	}
	if sub.Sender != "" && sub.Sender != s.account { // its own address is always the account's to use
		m := g.submitter(s)
		if v := m.Envelope(sub.Sender); v.Refused {
			d.Outcome, d.Reason, d.Message = access.Deny, access.ReasonSenderNotOwned, v.Text
			if !bound { // the session may still be bound: only its sender is refused
				g.record(s, &d)
				return d
			}
			return g.refused(s, d)
		}
	}
	if lasting {
		g.sessions.Permit(s.bound, sub, v, d)
	}
	return d
}

// refused records a refusal, once per connection and reason.
func (g *Gate) refused(s *session, d access.Decision) access.Decision {
	if s.bound.Refuse(d.Reason) {
		g.record(s, &d)
	}
	return d
}

func (g *Gate) record(s *session, d *access.Decision) {
	rec := g.newRecord(&s.login, d)
	rec.Domain, rec.Credential = s.view.Domain, s.query.Secret.Label
	g.Log.Info(line("submission", rec))
	g.writes.record(rec)
}

// Submitter returns the rules for messages that apply to an authenticated session. The sender of
// sub does not matter; its session is bound as by [Gate.Submission].
func (g *Gate) Submitter(sub access.Submission) mailflow.Submitter {
	s, _ := g.room.Get().(*session)
	defer g.release(s)
	var m mailflow.Submitter
	switch g.session(s, &sub, time.Now()) {
	case access.TempFail:
		return mailflow.Submitter{Unavailable: true}
	case access.Deny, access.Next:
		// No rules apply to the session: policyd decides whether it may submit at all. It may not
		// use addresses of managed domains.
		m = g.submitter(s)
		m.Account, m.Check = sub.Account, mailflow.CheckOff
	default: // rules apply to the session
		m = g.submitter(s)
		if s.view.Settings.TraceHeader {
			m.Trace = s.trace()
		}
	}
	m.Headers = g.Store.State.AnyDomain(func(d *store.Domain) bool { return d.SenderCheck.Headers() })
	return m
}

// submitter returns which sender addresses a session may use. That depends on the account only.
func (g *Gate) submitter(s *session) mailflow.Submitter {
	m := mailflow.Submitter{Account: s.account}
	if s.view.Known {
		m.Check = s.view.Settings.SenderCheck
	}
	account, view := s.account, s.view // the session is used again
	m.Address = func(addr string) mailflow.Address {
		domain, granted := g.Store.State.Sender(&view, account, addr)
		a := mailflow.Address{Managed: domain != nil, Granted: granted}
		if domain != nil {
			a.Check = domain.SenderCheck
		}
		return a
	}
	return m
}

// trace is the value of the header that names client type and credential (M10).
func (s *session) trace() string {
	if s.bound.State() != submission.Bound {
		return "client=" + string(s.client(unknownMethod().Service))
	}
	var clients, labels, ids []string
	for _, m := range s.bound.Methods() {
		if client := string(s.client(m.Service)); !slices.Contains(clients, client) {
			clients = append(clients, client)
		}
		if slices.Contains(ids, m.Credential) {
			continue
		}
		label := m.Credential
		if p, ok := s.view.Account.Secret(m.Credential); ok {
			label = p.Label
		}
		labels, ids = append(labels, quoteHeader(label)), append(ids, m.Credential)
	}
	return "client=" + strings.Join(clients, ",") + "; credential=" + strings.Join(labels, ",") + "; id=" + strings.Join(ids, ",")
}

// quoteHeader makes a label fit for a header: ASCII, one line, quoted.
func quoteHeader(label string) string {
	if encoded := mime.QEncoding.Encode("utf-8", label); encoded != label {
		return encoded
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(label) + `"`
}
