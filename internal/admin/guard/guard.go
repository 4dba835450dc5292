// Package guard changes the access policies and blocked addresses of a domain without locking
// people out. An edit that would lock out its author, all administrators or too many members is
// refused, unless the caller confirms it or has it reverted automatically. It also keeps the
// pending reverts: what an edit replaced, until it is confirmed or reverted.
//
//	e, err := g.Begin(ctx, req)   // before the transaction: how members logged in recently
//	e.Policies[id] = next         // in the transaction: nil removes
//	pending, err := g.Apply(ch, req, e)
package guard

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Limits says which edits are refused because they would lock people out (F24).
type Limits struct {
	// Percent is the share of the active members that an edit may lock out. 50 when zero.
	Percent int
	// ActiveWithin is how recently an active member logged in. 7 days when zero.
	ActiveWithin time.Duration
}

// The defaults of [Limits].
const (
	DefaultPercent      = 50
	DefaultActiveWithin = 7 * 24 * time.Hour
)

const (
	// maxWho is the number of people that a refusal lists.
	maxWho = 100
	// maxRevert is the size of a pending revert, in bytes: each later edit of a part of it rewrites
	// the rest.
	maxRevert = 4 << 20
)

// Guard checks and applies edits of policies and blocked addresses.
type Guard struct {
	Limits
	State   *store.State
	History *history.History
	// Exempt reports whether a policy locks nobody out, whatever it refuses: it was made by the
	// simple switch, whose purpose is to block mail programs.
	Exempt func(*store.Policy) bool
}

// Request is who edits which domain, and how.
type Request struct {
	Domain string
	Actor  store.Actor
	// From is the address of the caller; the zero Addr if no policy concerns the caller, as on a
	// unix socket.
	From netip.Addr
	// Confirm makes the edit whoever it locks out, and ends the pending reverts of what it changes.
	Confirm bool
	// RevertAfter reverts the edit after so long unless it is confirmed; 0 for never.
	RevertAfter time.Duration
	Time        time.Time
}

// replaces reports whether the edit ends the pending reverts of what it changes.
func (r *Request) replaces() bool { return r.Confirm || r.RevertAfter > 0 }

// Edit is a change of policies and blocked addresses by their ids; nil removes one.
type Edit struct {
	Policies map[string]*store.Policy
	Blocks   map[string]*store.Block
	// recent is how members logged in recently; nil if nobody is protected.
	recent *history.Recent
}

// With returns an edit of other policies and blocked addresses, which protects the same people.
func (e *Edit) With(policies map[string]*store.Policy, blocks map[string]*store.Block) *Edit {
	return &Edit{Policies: policies, Blocks: blocks, recent: e.recent}
}

// Begin starts an edit. It protects people unless the request confirms or reverts the edit.
func (g *Guard) Begin(ctx context.Context, req *Request) (*Edit, error) {
	e := &Edit{}
	if req.replaces() {
		return e, nil
	}
	var err error
	e.recent, err = g.History.Recent(ctx, req.Domain, req.Time.Add(-cmp.Or(g.ActiveWithin, DefaultActiveWithin)))
	return e, err
}

// Apply adds an edit to a change, or refuses it. It returns the pending revert of what was edited;
// nil if there is none.
func (g *Guard) Apply(ch *store.Change, req *Request, e *Edit) (*api.PendingRevert, error) {
	if err := g.Check(ch.Now, req, e); err != nil {
		return nil, err
	}
	before, confirmed := store.Revert{Policies: map[string]*store.Policy{}, Blocks: map[string]*store.Block{}}, Confirmed(g.State, req.Domain)
	for id, p := range e.Policies {
		cur, _ := g.State.Policy(req.Domain, id)
		before.Policies[id] = cur.Doc
		if was, pending := confirmed.Policies[id]; pending {
			before.Policies[id] = was
		}
		if p == nil {
			ch.DeletePolicy(req.Domain, id)
		} else {
			ch.PutPolicy(req.Domain, p)
		}
	}
	for id, b := range e.Blocks {
		cur, _ := g.State.Block(req.Domain, id)
		before.Blocks[id] = cur.Doc
		if b == nil {
			ch.DeleteBlock(req.Domain, id)
		} else {
			ch.PutBlock(req.Domain, b)
		}
	}
	blocked, kept := g.settle(ch, req, e)
	maps.Copy(before.Blocks, blocked)
	if req.RevertAfter == 0 {
		if kept != nil {
			ch.Audit.Note = strings.TrimSpace(ch.Audit.Note + " (still reverted at " + kept.At.Format(time.RFC3339) + " unless confirmed)")
		}
		return kept, nil
	}
	if text, err := json.Marshal(&before); err != nil || len(text) > maxRevert {
		return nil, api.Conflict("too_large", "the edit replaces more than the %d MiB that can be kept for a revert: split it, or make it without a revert", maxRevert>>20)
	}
	before.ID, before.CreatedAt, before.At = store.NewID(), ch.Now, ch.Now.Add(req.RevertAfter)
	before.By, before.Action, before.Target, before.Rev = req.Actor, ch.Audit.Action, ch.Audit.Target, ch.Rev
	ch.Audit.Note = strings.TrimSpace(ch.Audit.Note + " (reverted at " + before.At.Format(time.RFC3339) + " unless confirmed)")
	ch.PutRevert(req.Domain, &before)
	return &api.PendingRevert{ID: before.ID, At: before.At}, nil
}

// Check refuses an edit that would lock out the author at the address of the caller, every
// administrator, or more members than the limit.
func (g *Guard) Check(now time.Time, req *Request, e *Edit) error {
	_, v := g.State.View("@" + req.Domain)
	if e.recent == nil || !v.Known {
		return nil
	}
	before := v.Rules
	if p := e.Policies[store.ManagedThirdParty]; p != nil && g.Exempt(p) {
		before = g.State.Rules(req.Domain, now, func(set *access.Settings) { set.PutPolicy(&p.Policy) })
	}
	after := g.State.Rules(req.Domain, now, func(set *access.Settings) { e.apply(g.State, req.Domain, now, set) })
	administrators := administrators(v.Settings)
	var who locked
	var whom []string
	if req.From.IsValid() && g.admits(before, administrators, req) && !g.admits(after, administrators, req) {
		whom = append(whom, "all administrators at your address, "+req.From.String())
		for _, a := range administrators {
			_, policyID := access.Judge(g.consoleLogin(a, req, after))
			who.add("author", api.Who{Account: a, IP: req.From.String(), Client: access.ClientConsole, Protocol: access.Web.String(), PolicyID: policyID})
		}
	}
	active, out := e.recent.LockedOut(before, after)
	activeAdministrators := 0
	for _, a := range active {
		if slices.Contains(administrators, a) {
			activeAdministrators++
		}
	}
	outAdministrators := slices.DeleteFunc(slices.Clone(out), func(l history.Locked) bool { return !slices.Contains(administrators, l.Account) })
	if len(outAdministrators) > 0 && len(outAdministrators) == activeAdministrators {
		whom = append(whom, "all administrators who logged in recently")
		who.members("administrator", outAdministrators)
	}
	if len(out)*100 > len(active)*cmp.Or(g.Percent, DefaultPercent) {
		whom = append(whom, fmt.Sprintf("%d of the %d members who logged in recently", len(out), len(active)))
		who.members("member", out)
	}
	if len(who) == 0 {
		return nil
	}
	p := api.Conflict("lockout", "the change would lock out %s: lockout.who lists them", strings.Join(whom, ", ")).
		OrRepeat("confirm=true", "revert_after=10m")
	p.Lockout = &api.Lockout{Active: len(active), LockedOut: len(out), Who: who[:min(len(who), maxWho)], More: max(0, len(who)-maxWho)}
	return p
}

// locked lists the people whom an edit would lock out, each account once.
type locked []api.Who

func (l *locked) add(as string, w api.Who) {
	if i := slices.IndexFunc(*l, func(x api.Who) bool { return x.Account == w.Account }); i >= 0 {
		(*l)[i].As = append((*l)[i].As, as)
		return
	}
	w.As = []string{as}
	*l = append(*l, w)
}

func (l *locked) members(as string, out []history.Locked) {
	for _, m := range out {
		l.add(as, api.Who{
			Account: m.Account, IP: address.IPText(m.IP), Client: m.Client, Protocol: m.Protocol.String(), LastLogin: m.Time, PolicyID: m.PolicyID,
		})
	}
}

// apply makes the edit in the settings of a domain.
func (e *Edit) apply(st *store.State, domain string, now time.Time, set *access.Settings) {
	for id, p := range e.Policies {
		if p == nil {
			set.RemovePolicy(id)
		} else {
			set.PutPolicy(&p.Policy)
		}
	}
	if len(e.Blocks) == 0 {
		return
	}
	set.Blocked = nil
	for _, b := range st.Blocks(domain) {
		if _, edited := e.Blocks[b.Doc.ID]; !edited && !b.Doc.Expired(now) {
			set.Blocked = append(set.Blocked, b.Doc.Network)
		}
	}
	for _, b := range e.Blocks {
		if b != nil {
			set.Blocked = append(set.Blocked, b.Network)
		}
	}
}

// administrators are the addresses of a domain's administrators: by default its postmaster.
func administrators(d *store.Domain) []string {
	if len(d.Administrators) > 0 {
		return d.Administrators
	}
	return []string{"postmaster@" + d.Name}
}

// admits reports whether an administrator could log in to the console from the caller's address.
func (g *Guard) admits(rules *access.Rules, administrators []string, req *Request) bool {
	return slices.ContainsFunc(administrators, func(a string) bool {
		reason, _ := access.Judge(g.consoleLogin(a, req, rules))
		return reason == ""
	})
}

// consoleLogin is a login of an administrator to the console from the caller's address.
func (g *Guard) consoleLogin(account string, req *Request, rules *access.Rules) *access.Query {
	q := &access.Query{
		Login:   &access.Login{Account: account, Protocol: access.Web, Service: access.Web.String(), IP: req.From, RealIP: req.From, Time: req.Time},
		Address: account, Rules: rules, Client: access.ClientConsole,
	}
	if g.History.Region != nil {
		q.Region = g.History.Region(req.From)
	}
	_, v := g.State.View(account)
	q.Account = v.Account.Facts(new(access.Account))
	return q
}
