package gate

import (
	"mime"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	// sessionMemory is for how long an authentication for submission counts.
	sessionMemory = 24 * time.Hour
	// connectionMemory is for how long a connection is remembered after its last request.
	connectionMemory = time.Hour
	// maxSessions bounds accounts' addresses and connections remembered.
	maxSessions = 200_000
	// maxAuthentications bounds those remembered of one account and address.
	maxAuthentications = 32

	// credentialMaster stands for a master's secret where credentials are named.
	credentialMaster = "master"
)

// sessions knows which credentials open submission sessions may have begun
// with. Postfix tells no more of a session than its account and its client, so
// a connection is bound, when first seen, to all credentials that recently
// authenticated the account from there; one revoked ends them all, and each
// device authenticates again.
//
// Where a credential that is no longer good is among them, a connection must
// further be matched by an authentication of a good one that no other
// connection was matched by: else a session that was opened before the
// revocation, and first seen after it, would pass for another device's.
type sessions struct {
	mu          sync.RWMutex
	auths       map[accountAddr][]authentication
	connections map[connection]*bound
}

type accountAddr struct {
	account string
	ip      netip.Addr
}

type connection struct {
	accountAddr
	port uint16
}

type authentication struct {
	credential string
	at         time.Time
	matched    bool
}

type bound struct {
	credentials []string
	seen        atomic.Int64 // unix seconds
	refused     atomic.Value // the access.Reason last logged
}

func newSessions() *sessions {
	return &sessions{auths: map[accountAddr][]authentication{}, connections: map[connection]*bound{}}
}

func (s *sessions) authenticated(account string, ip netip.Addr, credential string, at time.Time) {
	key := accountAddr{account, ip}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.auths) >= maxSessions {
		for k := range s.auths {
			delete(s.auths, k)
			break
		}
	}
	list := s.auths[key]
	if len(list) >= maxAuthentications {
		list = forgetOne(list)
	}
	s.auths[key] = append(list, authentication{credential, at, false})
}

// forgetOne drops the oldest authentication of a credential that has a newer
// one, or the oldest of all: each credential stays in the set while it can.
func forgetOne(list []authentication) []authentication {
	for i := range list {
		if slices.ContainsFunc(list[i+1:], func(a authentication) bool { return a.credential == list[i].credential }) {
			return slices.Delete(list, i, i+1)
		}
	}
	return slices.Delete(list, 0, 1)
}

// find returns what a connection is bound to, or nil when it was not seen.
func (s *sessions) find(c connection, now time.Time) *bound {
	s.mu.RLock()
	b := s.connections[c]
	s.mu.RUnlock()
	if b != nil {
		b.seen.Store(now.Unix())
	}
	return b
}

// bind binds a connection that is first seen. good tells whether a credential
// may go on; it is called under the lock.
func (s *sessions) bind(c connection, now time.Time, good func(credential string) bool) *bound {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.connections[c]; b != nil {
		return b // another request of the same connection was first
	}
	list := s.auths[c.accountAddr]
	b := &bound{}
	bad, match := "", -1
	for i, a := range list {
		if now.Sub(a.at) > sessionMemory {
			continue
		}
		if !good(a.credential) {
			bad = a.credential
			continue
		}
		if !slices.Contains(b.credentials, a.credential) {
			b.credentials = append(b.credentials, a.credential)
		}
		if !a.matched {
			match = i
		}
	}
	if match >= 0 {
		list[match].matched = true
	} else if bad != "" {
		b.credentials = append(b.credentials, bad)
	}
	b.seen.Store(now.Unix())
	if len(s.connections) >= maxSessions {
		for k := range s.connections {
			delete(s.connections, k)
			break
		}
	}
	s.connections[c] = b
	return b
}

func (s *sessions) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, list := range s.auths {
		list = slices.DeleteFunc(list, func(a authentication) bool { return now.Sub(a.at) > sessionMemory })
		if len(list) == 0 {
			delete(s.auths, k)
		} else {
			s.auths[k] = list
		}
	}
	for k, b := range s.connections {
		if now.Unix()-b.seen.Load() > int64(connectionMemory/time.Second) {
			delete(s.connections, k)
		}
	}
}

// bind notes that a submission session may begin, here and on all daemons.
func (g *Gate) bind(account string, ip netip.Addr, credentialID string, at time.Time) {
	g.sessions.authenticated(account, ip, credentialID, at)
	g.behind.event(store.Event{Origin: g.origin, Time: at, Kind: store.EventBind, Account: account, IP: addrText(ip), Protocol: access.SMTP.String(), Credential: credentialID})
}

// session is an authenticated submission session, looked up once per request.
type session struct {
	query   access.Query
	login   access.Login
	view    store.View
	account string
	bound   *bound
}

// session looks up who submits and binds the connection. The outcome is the
// zero value when rules concern the session.
func (g *Gate) session(s *session, name string, ip netip.Addr, port uint16, cert string, now time.Time) access.Outcome {
	if !g.Available(now) {
		return access.TempFail
	}
	addr, err := address.Parse(name, g.DefaultDomain)
	if err != nil {
		return access.Deny
	}
	s.account, s.view = g.Store.State.View(addr)
	if !s.view.Known {
		if g.Site.UnmanagedAsk {
			return access.Next
		}
		return access.Deny
	}
	// No ports, no server name: what the login did not carry must not make
	// another client type of its session.
	s.login = access.Login{Service: "smtp", Protocol: access.SMTP, IP: ip, RealIP: ip, ClientCert: cert, Time: now}
	s.query = access.Query{Site: g.Site, Login: &s.login, Address: s.account, Rules: s.view.Rules, Account: accessAccount(s.view.Account)}
	s.query.Client = s.view.Clients.Classify(&s.login)
	// Whoever is told has authenticated.
	if s.query.Site.Reveal == access.RevealWeb {
		s.query.Site.Reveal = access.RevealVerified
	}
	c := connection{accountAddr{s.account, ip}, port}
	if s.bound = g.sessions.find(c, now); s.bound == nil {
		s.bound = g.sessions.bind(c, now, func(credential string) bool { return s.decide(credential).Outcome != access.Deny })
	}
	return 0
}

// decide holds the rules against one of the credentials that the session may
// have begun with.
func (s *session) decide(credential string) access.Decision {
	s.login.MasterUser = ""
	s.query.Secret = access.Secret{State: access.SecretAuthenticated}
	switch credential {
	case store.CredentialMailbox:
	case credentialMaster:
		s.login.MasterUser = credentialMaster
	default:
		s.query.Secret = access.Secret{State: access.SecretRevoked, CredentialID: credential}
		if p := secret(s.view.Account, credential); p != nil {
			s.query.Secret.Label = p.Label
			if p.Live() {
				s.query.Secret.State = access.SecretLive
			}
		}
	}
	return access.Decide(&s.query, noAsker{}, false)
}

func secret(a *store.Account, id string) *store.SecurePassword {
	if a == nil {
		return nil
	}
	for i := range a.Secrets {
		if a.Secrets[i].ID == id {
			return &a.Secrets[i]
		}
	}
	return nil
}

// noAsker answers for a session: its secret was verified when it began.
type noAsker struct{}

func (noAsker) Throttled() bool { return false }
func (noAsker) Mailbox() bool   { return false }

// Submission decides whether an authenticated SMTP session may go on. A
// refusal is recorded and logged once per connection; permits are neither.
func (g *Gate) Submission(sub access.Submission) access.Decision {
	now := time.Now()
	var s session
	switch o := g.session(&s, sub.Account, sub.IP, sub.Port, sub.ClientCert, now); o {
	case access.TempFail:
		return access.Decision{Outcome: o, Reason: access.ReasonStoreUnavailable}
	case access.Deny:
		return access.Decision{Outcome: o, Reason: access.ReasonUnmanagedDomain, Account: s.account}
	case access.Next:
		return access.Decision{Outcome: o, Reason: access.ReasonUnmanagedDomain, Account: s.account}
	case access.Allow:
	}
	if s.bound == nil || len(s.bound.credentials) == 0 {
		// Nothing is known of how it authenticated: as little as the mailbox password proves.
		return g.refused(&s, s.decide(store.CredentialMailbox))
	}
	var d access.Decision
	for _, c := range s.bound.credentials {
		if d = s.decide(c); d.Outcome == access.Deny {
			break
		}
	}
	return g.refused(&s, d)
}

// refused records a refusal, once per connection and reason.
func (g *Gate) refused(s *session, d access.Decision) access.Decision {
	if d.Outcome != access.Deny {
		return d
	}
	if last, _ := s.bound.refused.Swap(d.Reason).(access.Reason); last == d.Reason {
		return d
	}
	rec := newRecord(&s.login, &d)
	rec.Domain, rec.Credential = s.view.Domain, s.query.Secret.Label
	if d.Stale {
		g.Log.Info(staleLine("submission", rec))
	} else {
		g.Log.Info(line("submission", rec))
	}
	g.behind.record(rec)
	return d
}

// Needs tells which parts of messages some rule in force wants to see.
func (g *Gate) Needs() mailflow.Needs {
	return mailflow.Needs{Headers: g.Store.State.AnyDomain(func(d *store.Domain) bool {
		return d.SenderCheck == mailflow.CheckBoth || d.TraceHeader
	})}
}

// Submitter tells which rules for messages concern an authenticated session.
func (g *Gate) Submitter(login string, ip netip.Addr, port uint16) mailflow.Submitter {
	var s session
	switch g.session(&s, login, ip, port, "", time.Now()) {
	case access.TempFail:
		return mailflow.Submitter{Unavailable: true}
	case access.Deny, access.Next:
		return mailflow.Submitter{} // policyd answers for these
	case access.Allow:
	}
	m := mailflow.Submitter{Account: s.account, Check: s.view.Settings.SenderCheck}
	record := s.view.Account
	m.Owns = func(addr string) bool {
		addr = g.Store.State.Canonical(addr)
		return addr == s.account || record != nil && slices.Contains(record.Aliases, addr)
	}
	if s.view.Settings.TraceHeader {
		m.Trace = s.trace()
	}
	return m
}

// trace is the value of the header that names client type and credential (M10).
func (s *session) trace() string {
	var labels, ids []string
	for _, c := range s.bound.credentials {
		label := c
		if p := secret(s.view.Account, c); p != nil {
			label = p.Label
		}
		labels = append(labels, quoteHeader(label))
		ids = append(ids, c)
	}
	if len(ids) == 0 {
		return "client=" + string(s.query.Client)
	}
	return "client=" + string(s.query.Client) + "; credential=" + strings.Join(labels, ",") + "; id=" + strings.Join(ids, ",")
}

// quoteHeader makes a label fit for a header: ASCII, one line, quoted.
func quoteHeader(label string) string {
	if encoded := mime.QEncoding.Encode("utf-8", label); encoded != label {
		return encoded
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(label) + `"`
}

func parseAddr(s string) netip.Addr {
	ip, _ := netip.ParseAddr(s) // the zero Addr for none
	return ip
}
