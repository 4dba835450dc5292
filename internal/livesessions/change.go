package livesessions

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/store"
)

// settleWithin is how long the answer to a change waits for its sessions to end.
const settleWithin = 2 * time.Second

// Outcome is how many sessions a change ended, and how many it could not end yet: those known to be
// open. Unreachable Dovecots may have others.
type Outcome struct{ Ended, Failed, Unreachable int }

// Change counts the sessions that end from [Sessions.Expect] on.
type Change struct {
	s     *Sessions
	scope scope
	ended int
	left  map[*node]int // those that did not end in the last pass
}

// Expect begins to count the sessions of an account, or of all accounts of a domain if account is
// "". It comes before the change; [Change.Settle] must follow.
func (s *Sessions) Expect(domain, account string) *Change {
	c := &Change{s: s, scope: scope{domains: map[string]bool{domain: true}}, left: map[*node]int{}}
	if account != "" {
		c.scope = scope{accounts: map[string]bool{account: true}}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[c] = true
	return c
}

// Settle waits, for a bounded time, until the sessions that the change refuses have ended.
func (c *Change) Settle(ctx context.Context) Outcome {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	defer c.Forget()
	if c.s.idle(&c.scope) {
		return Outcome{}
	}
	numbers := make([]uint64, len(c.s.nodes))
	for i, n := range c.s.nodes {
		numbers[i] = n.request(c.scope)
	}
	var away []*node
	for i, n := range c.s.nodes {
		if !n.wait(ctx, numbers[i]) || n.unreachable() {
			away = append(away, n)
		}
	}
	o := Outcome{Unreachable: len(away)}
	for _, n := range away { // when the others have ended theirs
		o.Failed += n.left(ctx, &c.scope)
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	o.Ended = c.ended
	for n, left := range c.left {
		if !slices.Contains(away, n) {
			o.Failed += left
		}
	}
	return o
}

// idle reports whether nobody that a scope covers has a session, as far as is known: then a change
// need not wait. What is open all the same ends a moment later.
func (s *Sessions) idle(c *scope) bool {
	if len(s.logins.known(c)) > 0 {
		return false
	}
	for _, n := range s.nodes {
		if n.mayHave(c, time.Now()) {
			return false
		}
	}
	return true
}

// Forget stops counting.
func (c *Change) Forget() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	delete(c.s.waiting, c)
}

// report counts the sessions that a pass ended, and those that it left, by their accounts, for the
// changes that wait.
func (s *Sessions) report(n *node, ended, left []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.waiting {
		c.ended += c.scope.count(ended)
		c.left[n] = c.scope.count(left)
	}
}

// domainOf returns the managed domain of an account.
func (s *Sessions) domainOf(account string) (string, bool) {
	return s.State.ResolveDomain(address.Domain(account))
}

// sessionOf is the session that a recorded login opened. It does not keep the record's texts, which
// are parts of the whole text that it was read from.
func sessionOf(rec *store.LoginRecord) *access.Session {
	s := &access.Session{
		Account: strings.Clone(rec.Account), Protocol: access.ParseProtocol(rec.Protocol), Service: strings.Clone(rec.Service), IP: address.IPOf(rec.IP),
		Client: access.ClientType(strings.Clone(string(rec.Client))), Credential: store.CredentialMailbox, Hidden: rec.SecretHidden, ID: strings.Clone(rec.Session), Began: rec.Time,
	}
	switch {
	case rec.MasterUser != "":
		s.Credential = store.CredentialMaster
	case rec.CredentialID != "":
		s.Credential = strings.Clone(rec.CredentialID)
	case rec.Outcome == access.Next || !rec.ClosedAt.IsZero():
		s.Credential = store.CredentialUnverified
	}
	return s
}
