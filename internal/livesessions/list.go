package livesessions

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"sync"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
)

// Open is a listed open session.
type Open struct {
	ID   string // names it as long as it is open
	Node string // the Dovecot's address
	// Logins are those that it may be of: one if Exact.
	Logins   []*access.Session
	Exact    bool
	Account  string
	Domain   string // as the account has it
	Protocol access.Protocol
	IP       string

	node    *node
	session session
}

// List returns the open sessions of a domain, "" for all, or of one account unless that is "", and
// the number of Dovecots that did not answer.
func (s *Sessions) List(ctx context.Context, domain, account string) (list []Open, unreachable []string) {
	c := scope{all: domain == "", domains: map[string]bool{domain: true}}
	if account != "" {
		c = scope{accounts: map[string]bool{account: true}}
	}
	found := make([][]Open, len(s.nodes))
	failed := make([]bool, len(s.nodes))
	var asking sync.WaitGroup
	for i, n := range s.nodes {
		asking.Go(func() {
			connections, err := n.list(ctx)
			failed[i] = err != nil
			for _, o := range n.identify(ctx, connections, &c) {
				found[i] = append(found[i], Open{
					ID: o.id(n), Node: n.dovecot.String(), Logins: o.logins, Exact: o.exact,
					Account: o.account, Domain: address.Domain(o.account), Protocol: o.protocol, IP: o.IP.String(), node: n, session: o,
				})
			}
		})
	}
	asking.Wait()
	for i := range found {
		list = append(list, found[i]...)
		if failed[i] {
			unreachable = append(unreachable, s.nodes[i].dovecot.String())
		}
	}
	slices.SortFunc(list, func(a, b Open) int { return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.ID, b.ID)) })
	return list, unreachable
}

// WouldEnd returns the number of open sessions of a domain, or of one account unless that is "", that
// other rules would end. Account facts, unless nil, take the place of the present ones.
func (s *Sessions) WouldEnd(ctx context.Context, domain, account string, rules *access.Rules, facts *access.Account) int {
	n := 0
	list, _ := s.List(ctx, domain, account)
	for i := range list {
		if slices.ContainsFunc(list[i].Logins, func(l *access.Session) bool { return s.Judge.Judge(l, rules, facts).Outcome == access.Deny }) {
			n++
		}
	}
	return n
}

// id names a session without repeating the mail server's own id, with which others might be
// guessed.
func (s *session) id(n *node) string {
	parts := slices.Concat([]string{n.dovecot.String(), s.User, s.Service, s.PID, s.IP.String()}, s.Fields)
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:10])
}

// End ends listed sessions. Without names for sessions, Dovecot ends all of the account from the
// same address.
func (s *Sessions) End(ctx context.Context, list []Open) Outcome {
	var o Outcome
	type kick struct {
		*node
		origin
	}
	done := map[kick]bool{}
	for i := range list {
		open := &list[i]
		group := []session{open.session}
		if !open.Exact {
			k := kick{open.node, open.session.origin}
			if done[k] {
				continue
			}
			done[k] = true
		}
		ended, err := open.node.end(ctx, group)
		switch {
		case err != nil:
			s.Log.Warn("ending a session", "account", open.Account, "error", err)
			o.Failed++
		case ended:
			o.Ended++
		}
	}
	return o
}
