// Package livesessions ends open sessions of Dovecot that the current rules would refuse.
//
// It follows every change of the state ([store.State.Watch]). For each Dovecot a goroutine then lists
// the open sessions, judges those that the change concerns, and ends the refused ones. Changes that
// arrive meanwhile are judged together by one further pass.
//
// # Which login a session has
//
// Dovecot lists user, service and address. How the session logged in comes from the logins decided
// here, and from the login records for those that another daemon decided or that are older than
// this one. On Dovecot 2.4 each session bears the id of its login, given by the Lua passdb. On 2.3,
// and for logins that the next passdb decides, a session may be any of the account's logins with
// its protocol and address: if one of them is refused, all sessions of the account from that
// address end. A session without a known login is evaluated as one with the mailbox password.
//
// # Logins in flight
//
// A login that was decided before a change may appear as a session after it. Refused logins of the
// last seconds are looked for again until they are too old, and all sessions once a minute.
//
// # Diagnostics
//
// A Dovecot that cannot be reached, or a session that does not end, is logged once and tried again
// until it is done. No login ever waits for a Dovecot.
package livesessions

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/livesessions/doveadm"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Judge decides by the present rules.
type Judge interface {
	// Judge returns Deny for an open session whose login would be refused now. Rules and account
	// facts, unless nil, take the place of the present ones.
	Judge(s *access.Session, rules *access.Rules, account *access.Account) access.Decision
	// AccountOf returns the account that a user name of the mail server means, "" for none.
	AccountOf(user string) string
}

// Dovecot is one server whose sessions are listed and ended, as *doveadm.Doveadm is. Calls may take
// seconds, and end with their context.
type Dovecot interface {
	String() string
	Who(ctx context.Context) ([]doveadm.Connection, error)
	KickSession(ctx context.Context, id string) (bool, error)
	KickUser(ctx context.Context, user string, ip netip.Addr) (bool, error)
}

// Options are the parts of Sessions. All are needed.
type Options struct {
	State *store.State
	Judge Judge
	// Records returns a page of login records, newest first, and the next page's cursor.
	Records  func(context.Context, store.RecordQuery) ([]store.LoginRecord, string, error)
	Services map[string]string // further service names → protocol
	Log      hclog.Logger
}

// Sessions ends the sessions of some Dovecots. It is safe for concurrent use.
type Sessions struct {
	Options
	nodes  []*node
	logins logins

	mu      sync.Mutex
	waiting map[*Change]bool
}

// pollEvery is how often all sessions are judged without a change, and logins whose sessions have
// ended are forgotten.
const pollEvery = time.Minute

// New returns Sessions of some Dovecots, at least one.
func New(o Options, dovecots ...Dovecot) *Sessions {
	s := &Sessions{Options: o, logins: newLogins(len(dovecots)), waiting: map[*Change]bool{}}
	for _, d := range dovecots {
		s.nodes = append(s.nodes, newNode(s, len(s.nodes), d))
	}
	return s
}

// Run ends sessions until ctx ends. It begins with all open sessions: rules may have changed while
// this daemon was not running.
func (s *Sessions) Run(ctx context.Context) {
	watcher := s.State.Watch()
	defer watcher.Close()
	var running sync.WaitGroup
	defer running.Wait()
	for _, n := range s.nodes {
		running.Go(func() { n.run(ctx) })
	}
	running.Go(func() { s.poll(ctx) })
	s.JudgeAll()
	for {
		e, err := watcher.Next(ctx)
		if err != nil {
			return
		}
		s.request(scopeOf(&e))
	}
}

// JudgeAll judges all sessions again, because something other than the state has changed.
func (s *Sessions) JudgeAll() { s.request(scope{all: true}) }

// request has all nodes judge the sessions of a scope.
func (s *Sessions) request(c scope) {
	if c.empty() {
		return
	}
	for _, n := range s.nodes {
		n.request(c)
	}
}

// poll judges all sessions at intervals, and forgets the logins whose sessions have ended.
func (s *Sessions) poll(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.JudgeAll()
		since := time.Now()
		open := map[place]bool{}
		ids := map[string]bool{}
		for _, n := range s.nodes {
			list, err := n.list(ctx)
			if err != nil {
				open = nil // what is open there is unknown
				break
			}
			for i := range list {
				if p, ok := s.place(&list[i]); ok {
					open[p] = true
				}
				for _, f := range list[i].Fields {
					ids[f] = true
				}
			}
		}
		if open != nil {
			s.logins.forget(open, ids, since)
		}
	}
}

// Opened implements gate.Sessions.
func (s *Sessions) Opened(session *access.Session, version uint64) {
	s.logins.add(session)
	if s.State.Version() != version { // decided by rules that may have changed, and heard of too late
		s.request(scope{accounts: map[string]bool{session.Account: true}})
	}
}

// Closed implements gate.Sessions.
func (s *Sessions) Closed(id string, success bool) { s.logins.closed(id, success, time.Now()) }

// place returns where a connection belongs; false for one that is no login from an address.
func (s *Sessions) place(c *doveadm.Connection) (place, bool) {
	protocol := access.ProtocolOfService(c.Service, s.Services)
	if protocol == 0 || !c.IP.IsValid() {
		return place{}, false
	}
	account := s.Judge.AccountOf(c.User)
	return place{origin{account, c.IP}, protocol}, account != ""
}

// managed reports whether rules apply to an account.
func (s *Sessions) managed(account string) bool {
	_, ok := s.State.ResolveDomain(address.Domain(account))
	return ok
}

// scope is which accounts a change may concern. The zero value is none.
type scope struct {
	all               bool
	domains, accounts map[string]bool
}

func scopeOf(e *store.StateEvent) scope {
	c := scope{all: e.Resync}
	for _, d := range e.Domains {
		c.add(scope{domains: map[string]bool{d: true}})
	}
	for _, a := range e.Accounts {
		c.add(scope{accounts: map[string]bool{a: true}})
	}
	return c
}

func (c *scope) empty() bool { return !c.all && len(c.domains)+len(c.accounts) == 0 }

func (c *scope) add(other scope) {
	c.all = c.all || other.all
	for d := range other.domains {
		if c.domains == nil {
			c.domains = map[string]bool{}
		}
		c.domains[d] = true
	}
	for a := range other.accounts {
		if c.accounts == nil {
			c.accounts = map[string]bool{}
		}
		c.accounts[a] = true
	}
}

func (c *scope) covers(account string) bool {
	return c.all || c.accounts[account] || c.domains[address.Domain(account)]
}

// count returns how many of some accounts the scope covers.
func (c *scope) count(accounts []string) (n int) {
	for _, account := range accounts {
		if c.covers(account) {
			n++
		}
	}
	return n
}
