// Package submission knows how open SMTP sessions may have authenticated: with which credentials,
// and at which services.
//
// Postfix names only the account and the client's address and port of a session, and never says how
// it authenticated. Authentications are therefore remembered for a day by account and address, and
// a session is bound to those that it may have begun with. When one of them is no longer usable,
// the session ends and each device authenticates again. See ADR 4 for the reasons.
//
// # States
//
// A session is one account on one connection.
//
//	                 first request
//	                       │
//	   ┌───────────────────┴────────────────────┐
//	   │ no authentication known                │ authentications known
//	   ▼                                        ▼
//	Waiting ── next request, one is known ──▶ Bound ◀─┐
//	   │                                        │     │ a second connection of the same
//	   │ Refuse                                 └─────┘ address and port begins: bound
//	   ▼                                                again, methods are only added
//	Refused
//
// Every state ends when the connection is closed and its address and port are used again, and an
// hour after the last request.
//
//   - Waiting: another daemon may have seen the login, and its event arrives a moment later. Until
//     then the session is judged by a method that proves as little as possible.
//   - Bound: the methods are fixed. Every request is decided by the present rules for each of them.
//   - Refused: later authentications belong to later connections. The session stays as it is.
//
// # Binding
//
// If the milter reported when the connection began, the session is bound to all authentications of
// the account from that address since then: usually one. If another server passed the login on, as
// Dovecot's submission service does, the login is older than the connection, and this does not
// apply.
//
// Otherwise it is bound to all usable ones of the last day. If an unusable one is among them, the
// session also needs an authentication of its own: a verified, usable one that no other session was
// matched with. Without it the unusable method is added, because a session that was opened before a
// revocation, and first asked about after it, would pass for another device's. A mailbox password
// that the next passdb verifies counts only once Dovecot has reported success.
//
// # Permits
//
// The last decision that let a session continue is remembered with the version of the rules that it
// was made at. The next equal request needs one look-up until the rules change, and a second one
// while the session waits: an authentication may be known by now.
//
// The package is pure: it has no clock, no I/O and no log.
package submission

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/expiring"
)

const (
	// authenticationMemory is how long an authentication counts.
	authenticationMemory = 24 * time.Hour
	// sessionMemory is how long a session is remembered after its last request.
	sessionMemory = time.Hour
	// maxEntries bounds the connections, and the pairs of account and address, that are remembered.
	maxEntries = 200_000
	// maxAuthentications bounds those remembered of one account and address.
	maxAuthentications = 32
	// maxAccounts bounds the sessions of one connection: without a milter, connections that use the
	// same address and port one after another cannot be distinguished.
	maxAccounts = 32
	// maxSkew is how far the clocks of two daemons may differ.
	maxSkew = 2 * time.Second
)

// AuthMethod is how a session authenticated: the credential, and the service that the login named.
// Postfix has a service for each listener and does not repeat it after AUTH.
type AuthMethod struct {
	Credential, Service string
	// PasswordSet is when the mailbox password in use was set, in nanoseconds since 1970; 0 if that
	// is unknown or of no concern.
	PasswordSet int64
}

// Authentication is one login for submission, as the gate or an event of another daemon reports it.
// Time is when it was decided.
type Authentication struct {
	AuthMethod
	Time       time.Time
	Unverified bool // the next passdb has not confirmed the secret yet
	Remote     bool // seen by another daemon, whose clock may differ
	matched    bool // a session counts on it
}

// Version is the version of everything that a permit depends on; a permit of another version is
// decided again.
type Version struct{ State, Regions uint64 }

// Sessions remembers authentications, connections and sessions, each up to 200 000 entries. It is
// safe for concurrent use.
type Sessions struct {
	mu              sync.RWMutex
	authentications *expiring.Map[origin, authentications]
	connections     *expiring.Map[peer, *connection]
}

// New returns a Sessions that knows nothing: every session waits until an authentication becomes
// known.
func New() *Sessions {
	return &Sessions{
		authentications: expiring.New[origin, authentications](maxEntries),
		connections:     expiring.New[peer, *connection](maxEntries),
	}
}

// peer is the client's end of a connection.
type peer struct {
	ip   netip.Addr
	port uint16
}

// origin is where an account authenticated from.
type origin struct {
	account string
	ip      netip.Addr
}

// connection describes the open connections of one peer: usually one. Two may be open to two ports
// of the server; which of them a request belongs to is unknown, so the earlier counts.
type connection struct {
	first, last time.Time  // when they began
	begun       int        // how many began; zero if the milter did not report it
	open        int        // how many are still open
	sessions    []*Session // one for each account, the last bound last
}

// Expired implements [expiring.Value].
func (c *connection) Expired(now time.Time) bool {
	for _, s := range c.sessions {
		if !s.expired(now) {
			return false
		}
	}
	if c.open > 0 {
		return now.Sub(c.last) >= authenticationMemory
	}
	return now.Sub(c.last) >= sessionMemory
}

func (c *connection) session(account string, now time.Time) *Session {
	for _, s := range c.sessions {
		if s.account == account && !s.expired(now) {
			return s
		}
	}
	return nil
}

// Session is one account on one connection, in one of the states of the package comment. Its
// methods never change once it is bound.
type Session struct {
	account string
	methods []AuthMethod
	begun   int // connections that had begun when the session was bound
	permit  permit
	bound   time.Time    // which has a monotonic clock
	seen    atomic.Int64 // the last request, in nanoseconds after that
	reason  atomic.Value // access.Reason of the last refusal
}

type permit struct {
	request access.Submission // with the account's name as it was spelled
	version Version
	access.Decision
}

// State is the state of a session; the package comment has the diagram. The zero value is Waiting.
type State uint8

// The states of a session; see the package comment.
const (
	Waiting State = iota
	Bound
	Refused
)

// State returns the state of the session now. A refusal before it was bound makes it Refused; after
// that it stays Bound.
func (s *Session) State() State {
	switch {
	case len(s.methods) > 0:
		return Bound
	case s.reason.Load() != nil:
		return Refused
	}
	return Waiting
}

// Methods returns how the session may have authenticated; empty unless it is [Bound]. The caller
// must not change them.
func (s *Session) Methods() []AuthMethod { return s.methods }

// Refuse notes that a request was refused. It reports whether the reason is another than that of
// the last refusal, so that each is recorded once.
func (s *Session) Refuse(reason access.Reason) (first bool) {
	last, _ := s.reason.Swap(reason).(access.Reason)
	return last != reason
}

func (s *Session) see(now time.Time) { s.seen.Store(int64(now.Sub(s.bound))) }

func (s *Session) expired(now time.Time) bool {
	return now.Sub(s.bound)-time.Duration(s.seen.Load()) >= sessionMemory
}

// Connected notes that a connection begins, as the milter reports it. A second one of the same
// address and port has the sessions bound again.
func (s *Sessions) Connected(ip netip.Addr, port uint16, at time.Time) {
	p := peer{ip, port}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.connections.Get(p, at)
	if !ok || c.open == 0 {
		c = &connection{first: at}
		s.connections.Put(p, c)
	}
	c.last = at
	c.begun++
	c.open++
}

// Disconnected notes that a connection has ended. Its sessions are kept: requests about them may
// still be on the way.
func (s *Sessions) Disconnected(ip netip.Addr, port uint16, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.connections.Get(peer{ip, port}, at); ok && c.open > 0 {
		c.open--
	}
}

// Open returns the number of open connections.
func (s *Sessions) Open() (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, c := range s.connections.All(time.Time{}) {
		n += c.open
	}
	return n
}

// authentications are those of one origin, the last noted last.
type authentications []Authentication

// Expired implements [expiring.Value].
func (l authentications) Expired(now time.Time) bool {
	return !slices.ContainsFunc(l, func(a Authentication) bool { return now.Sub(a.Time) < authenticationMemory })
}

// Authenticated notes a login for submission from an address, for a day. One that is delivered
// twice, with the same time and method, counts once.
func (s *Sessions) Authenticated(account string, ip netip.Addr, a Authentication) {
	key := origin{account, ip}
	s.mu.Lock()
	defer s.mu.Unlock()
	list, _ := s.authentications.Get(key, a.Time)
	if slices.ContainsFunc(list, func(b Authentication) bool { return b.same(&a) && b.Time.Equal(a.Time) }) {
		return
	}
	if len(list) >= maxAuthentications {
		list = list.dropOne()
	}
	s.authentications.Put(key, append(list, a))
}

func (a *Authentication) same(b *Authentication) bool {
	return a.AuthMethod == b.AuthMethod && a.Unverified == b.Unverified
}

// dropOne drops the oldest authentication that a later one of the same method repeats, or the
// oldest of all: each method is remembered as long as there is room.
func (l authentications) dropOne() authentications {
	for i := range l {
		if slices.ContainsFunc(l[i+1:], func(b Authentication) bool { return b.same(&l[i]) }) {
			return slices.Delete(l, i, i+1)
		}
	}
	return slices.Delete(l, 0, 1)
}

// since returns the methods of the authentications since a connection began.
func (l authentications) since(began time.Time) (methods []AuthMethod) {
	for i := range l {
		from := began
		if l[i].Remote {
			from = began.Add(-maxSkew)
		}
		if !l[i].Time.Before(from) && !slices.Contains(methods, l[i].AuthMethod) {
			methods = append(methods, l[i].AuthMethod)
		}
	}
	return methods
}

// recent returns the usable methods of the last day, and an unusable one if there is one and no
// authentication is left that only this session is matched with.
func (l authentications) recent(now time.Time, usable func(AuthMethod) bool) (methods []AuthMethod) {
	var unusable []AuthMethod
	match := -1
	for i := range l {
		a := &l[i]
		if now.Sub(a.Time) >= authenticationMemory {
			continue
		}
		if !usable(a.AuthMethod) {
			unusable = append(unusable[:0], a.AuthMethod)
			continue
		}
		if !slices.Contains(methods, a.AuthMethod) {
			methods = append(methods, a.AuthMethod)
		}
		if !a.Unverified && !a.matched {
			match = i
		}
	}
	if match >= 0 {
		l[match].matched = true
		return methods
	}
	return append(methods, unusable...)
}

// Permitted returns the decision on the last request of a session if it was a permit, the request
// was an equal one and nothing has changed since: a waiting session that can be bound now has none.
// It does not allocate.
func (s *Sessions) Permitted(sub access.Submission, v Version, now time.Time) (access.Decision, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, ok := s.connections.Get(peer{sub.IP, sub.Port}, now)
	if !ok {
		return access.Decision{}, false
	}
	for _, b := range c.sessions {
		if b.permit.Outcome != 0 && b.permit.version == v && b.permit.request == sub && b.begun == c.begun {
			if len(b.methods) == 0 && (b.State() != Waiting || s.known(b.account, sub.IP, now)) {
				break
			}
			b.see(now)
			return b.permit.Decision, true
		}
	}
	return access.Decision{}, false
}

// Permit remembers the decision that lets a session continue, in place of the one before, with the
// request and the version it was made for.
func (s *Sessions) Permit(b *Session, sub access.Submission, v Version, d access.Decision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.permit = permit{sub, v, d}
}

// Find returns the session of an account on a connection, or nil if it has to be bound.
func (s *Sessions) Find(account string, ip netip.Addr, port uint16, now time.Time) *Session {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, ok := s.connections.Get(peer{ip, port}, now)
	if !ok {
		return nil
	}
	b := c.session(account, now)
	if b == nil || b.begun != c.begun {
		return nil
	}
	if b.State() == Waiting && s.known(account, ip, now) {
		return nil
	}
	b.see(now)
	return b
}

// known reports whether a waiting session has to be bound now.
func (s *Sessions) known(account string, ip netip.Addr, now time.Time) bool {
	_, ok := s.authentications.Get(origin{account, ip}, now)
	return ok
}

// Bind binds a session of an account that [Sessions.Find] did not find. Usable reports whether a
// session with that method may continue; it is called under the lock.
func (s *Sessions) Bind(account string, sub *access.Submission, now time.Time, usable func(AuthMethod) bool) *Session {
	p := peer{sub.IP, sub.Port}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.connections.Get(p, now)
	if !ok {
		c = &connection{}
		s.connections.Put(p, c)
	}
	before := c.session(account, now)
	if before != nil && before.State() != Waiting && before.begun == c.begun {
		return before // another request of the same session was first
	}
	b := &Session{account: account, begun: c.begun, bound: now}
	list, _ := s.authentications.Get(origin{account, sub.IP}, now)
	reported := c.begun > 0 && !sub.Passed
	if reported {
		b.methods = list.since(c.first)
	}
	if before != nil {
		for _, m := range before.methods {
			if !slices.Contains(b.methods, m) {
				b.methods = append(b.methods, m)
			}
		}
	}
	if len(b.methods) == 0 {
		b.methods = list.recent(now, usable)
		if reported { // its own is not known yet, and may be an unusable one as well as a usable one
			b.methods = slices.DeleteFunc(b.methods, usable)
		}
	}
	c.put(b, now)
	return b
}

// put sets the session of an account, and drops expired ones and one too many.
func (c *connection) put(b *Session, now time.Time) {
	c.sessions = slices.DeleteFunc(c.sessions, func(s *Session) bool {
		return s.account == b.account || s.expired(now)
	})
	if len(c.sessions) >= maxAccounts {
		c.sessions = slices.Delete(c.sessions, 0, 1)
	}
	c.sessions = append(c.sessions, b)
}

// Sweep removes expired entries, which otherwise only stop counting. It looks at every entry, under
// the lock: call it every few minutes.
func (s *Sessions) Sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.authentications.Sweep(now)
	s.connections.Sweep(now)
}
