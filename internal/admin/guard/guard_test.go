package guard_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

const domain = "example.org"

// site is a domain with a guard, whose members logged in recently as records say.
type site struct {
	t       *testing.T
	store   *store.Store
	guard   *guard.Guard
	records []store.LoginRecord
}

// newSite returns a site with the administrator ann, and two members who logged in from outside.
func newSite(t *testing.T) *site {
	t.Helper()
	st, _ := redistest.NewStore(t, redistest.Start(t).Options())
	redistest.Run(t, st)
	redistest.Ready(t, st)
	s := &site{t: t, store: st}
	s.guard = &guard.Guard{
		State: st.State, Exempt: func(p *store.Policy) bool { return p.Name == "exempt" },
		History: &history.History{State: st.State, Records: s.recorded},
	}
	s.update(func(ch *store.Change) {
		ch.PutDomain(&store.Domain{Name: domain, Administrators: []string{"ann@example.org"}})
		for _, who := range []string{"ann", "bob", "cat"} {
			ch.PutAccount(&store.Account{Address: who + "@example.org"})
		}
	})
	s.login("ann", "192.0.2.1")
	s.login("bob", "198.51.100.1")
	s.login("cat", "198.51.100.2")
	return s
}

// recorded are the records since a time, as the journal returns them.
func (s *site) recorded(_ context.Context, q store.RecordQuery) (since []store.LoginRecord, next string, err error) {
	for _, r := range s.records {
		if !r.Time.Before(q.Since) {
			since = append(since, r)
		}
	}
	return since, "", nil
}

// login records that a member logged in an hour ago.
func (s *site) login(who, ip string) {
	s.records = append(s.records, store.LoginRecord{
		Time: time.Now().Add(-time.Hour), Account: who + "@example.org", Domain: domain, IP: ip, Protocol: "imap", TLS: true,
		Client: access.ClientThirdParty, Outcome: access.Allow, Reason: access.ReasonOK,
	})
}

func (s *site) update(f func(*store.Change)) {
	s.t.Helper()
	err := s.store.Update(s.t.Context(), store.ShardOf(domain), store.Actor{Name: "test"}, false, func(ch *store.Change) error { f(ch); return nil })
	if err != nil {
		s.t.Fatal(err)
	}
}

// request is one by ann, from the office.
func request() *guard.Request {
	return &guard.Request{Domain: domain, Actor: store.Actor{Name: "ann"}, From: netip.MustParseAddr("192.0.2.1"), Time: time.Now()}
}

// apply makes an edit.
func (s *site) apply(req *guard.Request, fill func(*guard.Edit)) (pending *api.PendingRevert, err error) {
	s.t.Helper()
	e, err := s.guard.Begin(s.t.Context(), req)
	if err != nil {
		s.t.Fatal(err)
	}
	fill(e)
	err = s.store.Update(s.t.Context(), store.ShardOf(domain), req.Actor, false, func(ch *store.Change) error {
		ch.Audit.Action = "policy.update"
		pending, err = s.guard.Apply(ch, req, e)
		return err
	})
	return pending, err
}

func putPolicy(p *store.Policy) func(*guard.Edit) {
	return func(e *guard.Edit) { e.Policies = map[string]*store.Policy{p.ID: p} }
}

// only lets everybody in from some networks alone.
func only(id string, ips ...string) *store.Policy {
	return &store.Policy{CreatedAt: time.Now(), Policy: access.Policy{
		ID: id, Name: id, Type: access.Whitelist, Enabled: true, Mode: access.Enforce, Scope: access.Scope{All: true}, IPs: ips,
	}}
}

// lockout returns the lock-out of a refusal; nil if the edit was made.
func (s *site) lockout(err error) *api.Lockout {
	s.t.Helper()
	if err == nil {
		return nil
	}
	var p *api.Problem
	if !errors.As(err, &p) || p.Code != "lockout" || p.Lockout == nil {
		s.t.Fatalf("%v, want a lock-out", err)
	}
	return p.Lockout
}

// Whom an edit locks out decides whether it is refused, and the refusal names them.
func TestCheck(t *testing.T) {
	block := func(network string) func(*guard.Edit) {
		return func(e *guard.Edit) { e.Blocks = map[string]*store.Block{"b": {ID: "b", Network: network}} }
	}
	reporting := only("p", "192.0.2.0/24")
	reporting.Mode = access.Report
	disabled := only("p", "192.0.2.0/24")
	disabled.Enabled = false
	exempt := only("p", "192.0.2.0/24")
	exempt.Name = "exempt"
	for name, c := range map[string]struct {
		edit      func(*guard.Edit)
		from      string
		percent   int
		as        []string // of the refusal, in order of who; none if it is not refused
		lockedOut int
	}{
		"the author, who is all administrators": {putPolicy(only("p", "198.51.100.0/24")), "192.0.2.1", 0, []string{"author administrator"}, 1},
		"most members":                          {putPolicy(only("p", "192.0.2.0/24")), "192.0.2.1", 0, []string{"member", "member"}, 2},
		"everybody":                             {putPolicy(only("p", "203.0.113.0/24")), "192.0.2.1", 0, []string{"author administrator member", "member", "member"}, 3},
		"one member":                            {block("198.51.100.2"), "192.0.2.1", 0, nil, 0},
		"one member of a strict site":           {block("198.51.100.2"), "192.0.2.1", 30, []string{"member"}, 1},
		"the author by a block":                 {block("192.0.2.0/30"), "192.0.2.1", 0, []string{"author administrator"}, 1},
		"administrators only, from the socket":  {putPolicy(only("p", "198.51.100.0/24")), "", 0, []string{"administrator"}, 1},
		"a caller who was blocked before":       {block("192.0.2.9"), "203.0.113.1", 0, nil, 0},
		"a policy that only reports":            {putPolicy(reporting), "192.0.2.1", 0, nil, 0},
		"a disabled policy":                     {putPolicy(disabled), "192.0.2.1", 0, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.guard.Percent = c.percent
			req := request()
			req.From, _ = netip.ParseAddr(c.from) // the zero Addr on a socket
			_, err := s.apply(req, c.edit)
			l := s.lockout(err)
			if l == nil {
				l = &api.Lockout{}
			}
			var as []string
			for _, w := range l.Who {
				as = append(as, strings.Join(w.As, " "))
			}
			if !slices.Equal(as, c.as) || l.LockedOut != c.lockedOut {
				t.Errorf("%d locked out, as %q; want %d, as %q", l.LockedOut, as, c.lockedOut, c.as)
			}
			if edited := len(s.store.State.Policies(domain)) + len(s.store.State.Blocks(domain)); edited > 0 == (c.as != nil) {
				t.Errorf("refused: %v, and %d documents were written", c.as != nil, edited)
			}
		})
	}
}

// The managed policy of the simple switch protects nobody from itself, but from other edits.
func TestExempt(t *testing.T) {
	s := newSite(t)
	p := only(store.ManagedThirdParty, "203.0.113.0/24")
	p.Name = "exempt"
	if _, err := s.apply(request(), putPolicy(p)); err != nil {
		t.Fatal(err)
	}
	s = newSite(t)
	p = only(store.ManagedThirdParty, "203.0.113.0/24")
	if _, err := s.apply(request(), putPolicy(p)); s.lockout(err) == nil {
		t.Error("a customised managed policy locked everybody out")
	}
}

// A confirmed edit is made whomever it locks out, and one with a revert as well.
func TestConfirm(t *testing.T) {
	s := newSite(t)
	req := request()
	req.Confirm = true
	if pending, err := s.apply(req, putPolicy(only("p", "203.0.113.0/24"))); err != nil || pending != nil {
		t.Fatalf("pending %v, %v", pending, err)
	}
	s = newSite(t)
	req = request()
	req.RevertAfter = time.Hour
	pending, err := s.apply(req, putPolicy(only("p", "203.0.113.0/24")))
	if err != nil || pending == nil {
		t.Fatalf("pending %v, %v", pending, err)
	}
	if got := guard.Pending(s.store.State, domain)["p"]; got == nil || got.ID != pending.ID {
		t.Errorf("pending by policy: %v, want %v", got, pending)
	}
	r, ok := guard.Find(s.store.State, domain, pending.ID)
	if !ok || r.Doc.By.Name != "ann" || r.Doc.Action != "policy.update" {
		t.Errorf("revert %+v", r.Doc)
	}
	if was, pending := r.Doc.Policies["p"]; !pending || was != nil {
		t.Errorf("it restores %v, want that it removes the policy", was)
	}
}

// A later edit keeps the revert of the first, unless it replaces it or puts back what was there.
func TestReverts(t *testing.T) {
	tried := func(t *testing.T) (*site, *api.PendingRevert) {
		s := newSite(t)
		s.update(func(ch *store.Change) { ch.PutPolicy(domain, only("p", "192.0.2.0/24", "198.51.100.0/24")) })
		req := request()
		req.RevertAfter = time.Hour
		pending, err := s.apply(req, putPolicy(only("p", "192.0.2.0/24")))
		if err != nil {
			t.Fatal(err)
		}
		return s, pending
	}
	restored := func(t *testing.T, s *site, ips ...string) {
		t.Helper()
		was := guard.Confirmed(s.store.State, domain).Policies["p"]
		if was == nil || !slices.Equal(was.IPs, ips) {
			t.Errorf("reverts restore %+v, want %q", was, ips)
		}
	}
	t.Run("an edit keeps it", func(t *testing.T) {
		s, first := tried(t)
		pending, err := s.apply(request(), putPolicy(only("p", "192.0.2.0/25", "198.51.100.0/24")))
		if err != nil || pending == nil || pending.ID != first.ID {
			t.Fatalf("pending %v, %v; want %v", pending, err, first)
		}
		restored(t, s, "192.0.2.0/24", "198.51.100.0/24")
	})
	t.Run("a new time replaces it", func(t *testing.T) {
		s, first := tried(t)
		req := request()
		req.RevertAfter = 2 * time.Hour
		pending, err := s.apply(req, putPolicy(only("p", "192.0.2.0/25")))
		if err != nil || pending == nil || pending.ID == first.ID {
			t.Fatalf("pending %v, %v", pending, err)
		}
		if n := len(s.store.State.Reverts(domain)); n != 1 {
			t.Errorf("%d reverts are pending", n)
		}
		restored(t, s, "192.0.2.0/24", "198.51.100.0/24") // and not what was never confirmed
	})
	t.Run("confirm ends it", func(t *testing.T) {
		s, _ := tried(t)
		req := request()
		req.Confirm = true
		if pending, err := s.apply(req, putPolicy(only("p", "192.0.2.0/25"))); err != nil || pending != nil {
			t.Fatalf("pending %v, %v", pending, err)
		}
		if n := len(s.store.State.Reverts(domain)); n != 0 {
			t.Errorf("%d reverts are pending", n)
		}
	})
	t.Run("putting back ends it", func(t *testing.T) {
		s, _ := tried(t)
		if pending, err := s.apply(request(), putPolicy(only("p", "192.0.2.0/24", "198.51.100.0/24"))); err != nil || pending != nil {
			t.Fatalf("pending %v, %v", pending, err)
		}
		if n := len(s.store.State.Reverts(domain)); n != 0 {
			t.Errorf("%d reverts are pending", n)
		}
	})
}

// What was deleted on trial returns, and so leaves no room for others; a block that is made again
// returns once.
func TestReturning(t *testing.T) {
	s := newSite(t)
	s.update(func(ch *store.Change) {
		ch.PutPolicy(domain, only("p", "192.0.2.0/24", "198.51.100.0/24"))
		ch.PutBlock(domain, &store.Block{ID: "b", Network: "203.0.113.0/24"})
	})
	req := request()
	req.RevertAfter = time.Hour
	_, err := s.apply(req, func(e *guard.Edit) {
		e.Policies, e.Blocks = map[string]*store.Policy{"p": nil}, map[string]*store.Block{"b": nil}
	})
	if err != nil {
		t.Fatal(err)
	}
	returning := guard.Returning(s.store.State, domain)
	if len(returning.Policies) != 1 || len(returning.Blocks) != 1 {
		t.Fatalf("returning %+v", returning)
	}
	_, err = s.apply(request(), func(e *guard.Edit) {
		e.Blocks = map[string]*store.Block{"c": {ID: "c", Network: "203.0.113.0-203.0.113.255"}}
	})
	if err != nil {
		t.Fatal(err)
	}
	returning = guard.Returning(s.store.State, domain)
	if len(returning.Policies) != 1 || len(returning.Blocks) != 0 {
		text, _ := json.Marshal(returning)
		t.Errorf("after blocking the network again: returning %s", text)
	}
}

// Members who have not logged in for a while do not count.
func TestActiveWithin(t *testing.T) {
	s := newSite(t)
	for i := range s.records {
		if s.records[i].Account != "ann@example.org" {
			s.records[i].Time = time.Now().Add(-guard.DefaultActiveWithin - time.Hour)
		}
	}
	if _, err := s.apply(request(), putPolicy(only("p", "192.0.2.0/24"))); err != nil {
		t.Errorf("%v", err)
	}
}

// A store that does not answer refuses an edit: it cannot be known whom it would lock out.
func TestNoHistory(t *testing.T) {
	s := newSite(t)
	away := errors.New("away")
	s.guard.History.Records = func(context.Context, store.RecordQuery) ([]store.LoginRecord, string, error) { return nil, "", away }
	if _, err := s.guard.Begin(t.Context(), request()); !errors.Is(err, away) {
		t.Errorf("%v", err)
	}
}
