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
	// credentialOpen stands for a mailbox password that the next passdb has yet to verify.
	credentialOpen = "mailbox?"
)

// sessions knows how open submission sessions may have begun: with which credentials, and at which
// services, which may be evidence of a client type. Postfix tells no more of a session than its
// account and its client.
//
// Where the milter told when the connection began, it is bound, when first asked about, to all
// credentials that authenticated the account from that address since then: mostly one.
//
// Else it is bound to all that recently did; one revoked ends them all, and each device
// authenticates again. If one that is no longer good is among them, the connection must further be
// matched by an authentication of a good one that no other connection was matched by: a session
// that was opened before the revocation, and first asked about after it, would pass for another
// device's. A mailbox password that the next passdb verifies counts for that once Dovecot has
// reported that it did: anybody can try one.
//
// Other daemons' authentications arrive a moment late, so a connection of which nothing is known,
// and that was not refused, is bound again once there is something to bind it to. Until then a bad
// one that it may have begun with counts.
type sessions struct {
	room    sync.Pool     // of *session, so that a request needs no memory of its own
	regions atomic.Uint64 // changes of the regions of addresses

	mu          sync.RWMutex
	auths       map[accountAddr][]authentication
	connections map[connection]*bound
	permits     map[access.Submission]permit
	began       map[peer]connected
}

// beginning is when the connections of one client's end began that are open: mostly one. There may
// be two, to two ports of ours, and which of them a request belongs to cannot be told: what counts
// is the first.
type beginning struct{ first, last time.Time }

type connected struct {
	beginning
	open int
}

// permit is that a session may go on, as decided at a version of what decides. Most requests are
// the next command of a session that may.
type permit struct {
	version version
	bound   *bound
	access.Decision
}

// version tells whether anything that a permit depends on has changed.
type version struct{ state, regions uint64 }

func (g *Gate) version() version {
	return version{g.Store.State.Version(), g.sessions.regions.Load()}
}

// RegionsChanged has open sessions judged again at their next request: their addresses may be in
// other regions now.
func (g *Gate) RegionsChanged() { g.sessions.regions.Add(1) }

// peer is the client's end of an SMTP connection.
type peer struct {
	ip   netip.Addr
	port uint16
}

type accountAddr struct {
	account string
	ip      netip.Addr
}

type connection struct {
	accountAddr
	port uint16
}

func (c connection) peer() peer { return peer{c.ip, c.port} }

// opening is how a session began: the credential, and the service that the login named, which
// Postfix has for each listener and does not repeat.
type opening struct{ credential, service string }

type authentication struct {
	opening
	at        time.Time
	matched   bool
	elsewhere bool // told by another daemon, whose clock may differ
}

type bound struct {
	openings []opening
	began    beginning    // of the connection; zero when nobody told
	seen     atomic.Int64 // unix seconds
	refused  atomic.Value // the access.Reason last logged
}

// settled reports whether the connection stays bound as it is.
func (b *bound) settled() bool { return len(b.openings) > 0 || b.refused.Load() != nil }

func newSessions() *sessions {
	return &sessions{room: sync.Pool{New: func() any { return new(session) }}, auths: map[accountAddr][]authentication{}, connections: map[connection]*bound{}, permits: map[access.Submission]permit{}, began: map[peer]connected{}}
}

// connected notes that a connection begins.
func (s *sessions) connected(p peer, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	makeRoom(s.began, maxSessions)
	c := s.began[p]
	if c.open == 0 {
		c.first = at
	}
	c.last = at
	c.open++
	s.began[p] = c
}

// disconnected notes that a connection has ended.
func (s *sessions) disconnected(p peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.began[p]; ok && c.open > 0 {
		c.open--
		s.began[p] = c
	}
}

// makeRoom drops any entry from a map that is full: which, an attacker cannot choose.
func makeRoom[K comparable, V any](m map[K]V, most int) {
	if len(m) < most {
		return
	}
	for k := range m {
		delete(m, k)
		return
	}
}

func (s *sessions) authenticated(account string, ip netip.Addr, o opening, at time.Time, elsewhere bool) {
	key := accountAddr{account, ip}
	s.mu.Lock()
	defer s.mu.Unlock()
	makeRoom(s.auths, maxSessions)
	list := s.auths[key]
	if slices.ContainsFunc(list, func(a authentication) bool { return a.opening == o && a.at.Equal(at) }) {
		return // another daemon's, delivered again after Redis was away
	}
	if len(list) >= maxAuthentications {
		list = forgetOne(list)
	}
	s.auths[key] = append(list, authentication{o, at, false, elsewhere})
}

// forgetOne drops the oldest authentication of a credential that has a newer one at the same
// service, or the oldest of all: each stays in the set while it can.
func forgetOne(list []authentication) []authentication {
	for i := range list {
		if slices.ContainsFunc(list[i+1:], func(a authentication) bool { return a.opening == list[i].opening }) {
			return slices.Delete(list, i, i+1)
		}
	}
	return slices.Delete(list, 0, 1)
}

// permitted returns the decision on an earlier request of the same connection, if it was a permit
// and nothing has changed since.
func (s *sessions) permitted(sub access.Submission, v version, now time.Time) (access.Decision, bool) {
	s.mu.RLock()
	p, ok := s.permits[sub]
	ok = ok && p.version == v && p.bound.began == s.began[peer{sub.IP, sub.Port}].beginning
	s.mu.RUnlock()
	if !ok {
		return access.Decision{}, false
	}
	p.bound.seen.Store(now.Unix())
	return p.Decision, true
}

func (s *sessions) permit(sub access.Submission, p permit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	makeRoom(s.permits, maxSessions)
	s.permits[sub] = p
}

// find returns what a connection is bound to, or nil when it is to be bound.
func (s *sessions) find(c connection, now time.Time) *bound {
	s.mu.RLock()
	b := s.connections[c]
	if b != nil && b.began != s.began[c.peer()].beginning {
		b = nil // the port serves another connection, too
	}
	if b != nil && !b.settled() && len(s.auths[c.accountAddr]) > 0 {
		b = nil
	}
	s.mu.RUnlock()
	if b != nil {
		b.seen.Store(now.Unix())
	}
	return b
}

// bind binds a connection that is first seen or not yet settled. good tells whether a session that
// began so may go on; it is called under the lock.
func (s *sessions) bind(c connection, now time.Time, good func(opening) bool) *bound {
	s.mu.Lock()
	defer s.mu.Unlock()
	began := s.began[c.peer()].beginning
	before := s.connections[c]
	if before != nil && before.settled() && before.began == began {
		return before // another request of the same connection was first
	}
	b := &bound{began: began}
	list := s.auths[c.accountAddr]
	if !began.first.IsZero() {
		b.openings = since(list, began.first)
	}
	if before != nil && before.began.first.Equal(began.first) { // it may still be the connection that it was
		for _, o := range before.openings {
			if !slices.Contains(b.openings, o) {
				b.openings = append(b.openings, o)
			}
		}
	}
	if len(b.openings) == 0 {
		b.openings = recent(list, now, good)
		if !began.first.IsZero() { // unheard of yet, which a bad one may be as well as a good one
			b.openings = slices.DeleteFunc(b.openings, good)
		}
	}
	b.seen.Store(now.Unix())
	makeRoom(s.connections, maxSessions)
	s.connections[c] = b
	return b
}

// clocks is by how much the clocks of two daemons may differ.
const clocks = 2 * time.Second

// since returns how the account authenticated since a connection began.
func since(list []authentication, began time.Time) (openings []opening) {
	for _, a := range list {
		from := began
		if a.elsewhere {
			from = began.Add(-clocks)
		}
		if o, _ := a.meant(); !a.at.Before(from) && !slices.Contains(openings, o) {
			openings = append(openings, o)
		}
	}
	return openings
}

// recent returns how the account authenticated lately in ways that are good; with one that no
// longer is, where the connection could be matched by no other.
func recent(list []authentication, now time.Time, good func(opening) bool) (openings []opening) {
	var bad opening
	match := -1
	for i, a := range list {
		if now.Sub(a.at) > sessionMemory {
			continue
		}
		o, verified := a.meant()
		if !good(o) {
			bad = o
			continue
		}
		if !slices.Contains(openings, o) {
			openings = append(openings, o)
		}
		if verified && !a.matched {
			match = i
		}
	}
	if match >= 0 {
		list[match].matched = true
	} else if bad.credential != "" {
		openings = append(openings, bad)
	}
	return openings
}

// meant returns how it was, and whether the credential was verified.
func (a *authentication) meant() (o opening, verified bool) {
	if a.credential == credentialOpen {
		return opening{store.CredentialMailbox, a.service}, false
	}
	return a.opening, true
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
	for p, at := range s.began {
		if at.open == 0 && now.Sub(at.last) > connectionMemory || now.Sub(at.last) > sessionMemory {
			delete(s.began, p)
		}
	}
	for k, b := range s.connections {
		if now.Unix()-b.seen.Load() > int64(connectionMemory/time.Second) {
			delete(s.connections, k)
		}
	}
	for k, p := range s.permits {
		if s.connections[connection{accountAddr{p.Account, k.IP}, k.Port}] != p.bound {
			delete(s.permits, k)
		}
	}
}

// bind notes that a submission session may begin, here and on all daemons.
func (g *Gate) bind(account string, ip netip.Addr, o opening, at time.Time) {
	g.sessions.authenticated(account, ip, o, at, false)
	g.behind.event(store.Event{
		Origin: g.origin, Time: at, Kind: store.EventBind, Account: account, IP: address.IPText(ip),
		Protocol: access.SMTP.String(), Service: o.service, Credential: o.credential,
	})
}

// Connected notes that an SMTP connection begins, as the milter tells. The function it returns is
// to be called when the connection has ended.
func (g *Gate) Connected(ip netip.Addr, port uint16) (ended func()) {
	p := peer{ip, port}
	g.sessions.connected(p, time.Now())
	return sync.OnceFunc(func() { g.sessions.disconnected(p) })
}

// unknownOpening is taken where nothing is known of how a session authenticated: as little as the
// mailbox password proves, at a listener without a service name of its own.
func unknownOpening() opening { return opening{store.CredentialMailbox, "smtp"} }

// session is an authenticated submission session, looked up once per request.
type session struct {
	query   access.Query
	login   access.Login
	record  access.Account // its list of departments is used again by later sessions
	view    store.View
	account string
	bound   *bound
}

// session looks up who submits and binds the connection. The outcome is the zero value when rules
// concern the session.
func (g *Gate) session(s *session, name string, ip netip.Addr, port uint16, now time.Time) access.Outcome {
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
	// No ports, no certificate: what the login did not carry must not make another client type of
	// its session. The service is added by decide.
	s.login = access.Login{Protocol: access.SMTP, IP: ip, RealIP: ip, Time: now}
	s.query = access.Query{Site: g.Site, Login: &s.login, Address: s.account, Rules: s.view.Rules, Account: s.view.Account.Facts(&s.record)}
	s.query.Region = g.region(s.login.IP)
	// Whoever is told has authenticated.
	if s.query.Site.Reveal == access.RevealWeb {
		s.query.Site.Reveal = access.RevealVerified
	}
	c := connection{accountAddr{s.account, ip}, port}
	if s.bound = g.sessions.find(c, now); s.bound == nil {
		s.bound = g.sessions.bind(c, now, func(o opening) bool { return s.decide(o).Outcome != access.Deny })
	}
	return 0
}

// client returns the type of client that a session is of that began at a service.
func (s *session) client(service string) access.ClientType {
	s.login.Service = service
	return s.view.Clients.Classify(&s.login)
}

// decide holds the rules against one of the ways that the session may have begun.
func (s *session) decide(o opening) access.Decision {
	s.query.Client = s.client(o.service)
	s.login.MasterUser = ""
	s.query.Secret = access.Secret{State: access.SecretAuthenticated}
	switch o.credential {
	case store.CredentialMailbox:
	case credentialMaster:
		s.login.MasterUser = credentialMaster
	default:
		s.query.Secret = s.view.Account.SecretOf(o.credential)
	}
	return access.Decide(&s.query, noAsker{}, false)
}

// noAsker answers where nothing is verified or counted: for a session, whose secret was verified
// when it began, and for a login that nobody makes.
type noAsker struct{}

func (noAsker) Throttled() bool { return false }
func (noAsker) Mailbox() bool   { return false }

// Submission decides whether an authenticated SMTP session may go on. A refusal is recorded and
// logged once per connection; permits are neither.
func (g *Gate) Submission(sub access.Submission) access.Decision {
	now := time.Now()
	v := g.version() // before anything is looked up: what changes meanwhile ends the permit
	if d, ok := g.sessions.permitted(sub, v, now); ok && g.Available(now) {
		return d
	}
	s, _ := g.sessions.room.Get().(*session)
	defer func() {
		*s = session{record: access.Account{Departments: s.record.Departments[:0]}}
		g.sessions.room.Put(s)
	}()
	switch o := g.session(s, sub.Account, sub.IP, sub.Port, now); o {
	case access.TempFail:
		return access.Decision{Outcome: o, Reason: access.ReasonStoreUnavailable}
	case access.Deny, access.Next:
		return access.Decision{Outcome: o, Reason: access.ReasonUnmanagedDomain, Account: s.account}
	case access.Allow:
	}
	if len(s.bound.openings) == 0 {
		return g.refused(s, s.decide(unknownOpening()))
	}
	var d access.Decision
	for _, o := range s.bound.openings {
		if d = s.decide(o); d.Outcome == access.Deny {
			return g.refused(s, d)
		}
	}
	if sub.Sender != "" {
		m := g.submitter(s)
		if v := m.Envelope(sub.Sender); v.Refused {
			d.Outcome, d.Reason, d.Message = access.Deny, access.ReasonSenderNotOwned, v.Text
			return g.refused(s, d)
		}
	}
	g.sessions.permit(sub, permit{v, s.bound, d})
	return d
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
		return d.SenderCheck.Headers() || d.TraceHeader
	})}
}

// Submitter returns the rules for messages that apply to an authenticated session.
func (g *Gate) Submitter(login string, ip netip.Addr, port uint16) mailflow.Submitter {
	var s session
	switch g.session(&s, login, ip, port, time.Now()) {
	case access.TempFail:
		return mailflow.Submitter{Unavailable: true}
	case access.Deny, access.Next:
		return mailflow.Submitter{} // policyd answers for these
	case access.Allow:
	}
	m := g.submitter(&s)
	m.Headers = g.Store.State.AnyDomain(func(d *store.Domain) bool { return d.SenderCheck.Headers() })
	if s.view.Settings.TraceHeader {
		m.Trace = s.trace()
	}
	return m
}

// submitter returns which sender addresses a session may use. It depends on the session's account
// and nothing else of the session.
func (g *Gate) submitter(s *session) mailflow.Submitter {
	granted := g.grants(s.account, s.view)
	return mailflow.Submitter{
		Account: s.account, Check: s.view.Settings.SenderCheck,
		Address: func(addr string) mailflow.Address {
			canonical, v := g.Store.State.View(addr)
			a := mailflow.Address{Managed: v.Known, Granted: granted(canonical)}
			if v.Known {
				a.Check = v.Settings.SenderCheck
			}
			return a
		},
	}
}

// grants returns whether an account may send from a canonical address: its own, an alias, what it
// or a department of it was granted, and the extensions of all these.
func (g *Gate) grants(account string, v store.View) func(addr string) bool {
	list := sync.OnceValue(func() []string {
		a := v.Account.Account()
		if a == nil {
			return nil
		}
		list := append(a.Aliases, a.SendAs...)
		for _, path := range a.Departments {
			list = append(list, g.Store.State.SendAs(v.Domain, path)...)
		}
		for i, entry := range list {
			list[i] = g.Store.State.Canonical(entry) // its domain may have become an alias domain since
		}
		return list
	})
	owns := func(addr string) bool {
		return addr == account || slices.Contains(list(), addr)
	}
	return func(addr string) bool {
		local, domain := address.Local(addr), address.Domain(addr)
		base, _, extended := strings.Cut(local, "+")
		return owns(addr) || extended && base != "" && owns(base+"@"+domain) || slices.Contains(list(), "*@"+domain)
	}
}

// trace is the value of the header that names client type and credential (M10).
func (s *session) trace() string {
	if len(s.bound.openings) == 0 {
		return "client=" + string(s.client(unknownOpening().service))
	}
	var clients, labels, ids []string
	for _, o := range s.bound.openings {
		if client := string(s.client(o.service)); !slices.Contains(clients, client) {
			clients = append(clients, client)
		}
		if slices.Contains(ids, o.credential) {
			continue
		}
		label := o.credential
		if p, ok := s.view.Account.Secret(o.credential); ok {
			label = p.Label
		}
		labels, ids = append(labels, quoteHeader(label)), append(ids, o.credential)
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
