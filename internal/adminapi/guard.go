package adminapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
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

// Guard says which changes of policies and blocked addresses are refused because they would lock
// people out (F24).
type Guard struct {
	// Percent of the active members: a change that would lock out more is refused. 50 when zero.
	Percent int
	// ActiveWithin is for how long a member who came in counts as active. 7 days when zero.
	ActiveWithin time.Duration
}

// The defaults of [Guard].
const (
	DefaultGuardPercent = 50
	DefaultActiveWithin = 7 * 24 * time.Hour
)

// maxWho bounds whom a refusal lists.
const maxWho = 100

// edition is a change of the call's domain's policies and blocked addresses, by id; nil removes.
// All such changes are made through it.
type edition struct {
	policies map[string]*store.Policy
	blocks   map[string]*store.Block
	// recent is how members came in lately; nil when nobody is to be guarded against being locked
	// out.
	recent *history.Recent
}

// guarded begins a change that is refused if it would lock people out, unless the caller confirms
// it or has it undone by itself.
func (c *call) guarded() (*edition, error) {
	e := &edition{}
	if c.flag("confirm") || c.query.Has("revert_after") {
		return e, nil
	}
	var err error
	e.recent, err = c.history.Recent(c.ctx, c.domain, c.now.Add(-cmp.Or(c.Guard.ActiveWithin, DefaultActiveWithin)))
	return e, err
}

// changeRules makes one change of the call's domain's policies and blocked addresses, guarded: f
// fills the edition, and puts it into the change by [call.edit].
func (c *call) changeRules(f func(*store.Change, *edition) error) error {
	e, err := c.guarded()
	if err != nil {
		return err
	}
	return c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		if !c.managed(c.domain) {
			return api.NotFound("domain")
		}
		return f(ch, e)
	})
}

// edit puts the policies and blocked addresses into a change, or refuses it. It returns when the
// change is reverted unless it is confirmed; nil for never.
func (c *call) edit(ch *store.Change, e *edition) (*api.PendingRevert, error) {
	if err := c.lockout(ch.Now, e); err != nil {
		return nil, err
	}
	before, certain := store.Revert{Policies: map[string]*store.Policy{}, Blocks: map[string]*store.Block{}}, c.certain()
	for id, p := range e.policies {
		cur, _ := c.Store.State.Policy(c.domain, id)
		before.Policies[id] = cur.Doc
		if was, pending := certain.policies[id]; pending {
			before.Policies[id] = was
		}
		if p == nil {
			ch.DeletePolicy(c.domain, id)
		} else {
			ch.PutPolicy(c.domain, p)
		}
	}
	for id, b := range e.blocks {
		cur, _ := c.Store.State.Block(c.domain, id)
		before.Blocks[id] = cur.Doc
		if b == nil {
			ch.DeleteBlock(c.domain, id)
		} else {
			ch.PutBlock(c.domain, b)
		}
	}
	blocked, kept := c.settle(ch, e)
	maps.Copy(before.Blocks, blocked)
	after := c.duration("revert_after")
	if after == 0 {
		if kept != nil {
			ch.Audit.Note = strings.TrimSpace(ch.Audit.Note + " (still reverted at " + kept.At.Format(time.RFC3339) + " unless confirmed)")
			c.w.Header().Set("Revert", revertPath(c.domain, kept.ID))
		}
		return kept, nil
	}
	if text, err := json.Marshal(&before); err != nil || len(text) > maxRevert {
		return nil, api.Conflict("too_large", "what it replaces is too much to be kept until it is confirmed, more than %d MiB: make it in parts, or without revert_after", maxRevert>>20)
	}
	before.ID, before.CreatedAt, before.At = store.NewID(), ch.Now, ch.Now.Add(after)
	before.By, before.Action, before.Target, before.Rev = c.id.actor, ch.Audit.Action, ch.Audit.Target, ch.Rev
	ch.Audit.Note = strings.TrimSpace(ch.Audit.Note + " (undone at " + before.At.Format(time.RFC3339) + " unless it is confirmed)")
	ch.PutRevert(c.domain, &before)
	c.w.Header().Set("Revert", revertPath(c.domain, before.ID)) // a deletion answers nothing else
	return &api.PendingRevert{ID: before.ID, At: before.At}, nil
}

// lockout refuses an edition that would lock out the author at the address that they call from,
// every administrator, or more members than may be.
func (c *call) lockout(now time.Time, e *edition) error {
	_, v := c.Store.State.View("@" + c.domain)
	if e.recent == nil || !v.Known {
		return nil
	}
	before := v.Rules
	// What the simple switch can say guards nobody, however it is said: to keep mail programs out
	// is what it is for.
	if p := e.policies[store.ManagedThirdParty]; p != nil && !viewThirdParty(p).Customised {
		before = c.Store.State.Rules(c.domain, now, func(set *access.Settings) { set.PutPolicy(&p.Policy) })
	}
	after := c.Store.State.Rules(c.domain, now, func(set *access.Settings) { e.apply(c.Store.State, c.domain, now, set) })
	administrators := c.administrators(v.Settings)
	var who locked
	var whom []string
	if author := c.author(); author.IsValid() && c.admits(before, administrators, author) && !c.admits(after, administrators, author) {
		whom = append(whom, "all administrators at your address, "+author.String())
		for _, a := range administrators {
			_, policyID := access.Judge(c.consoleLogin(a, author, after))
			who.add("author", api.Who{Account: a, IP: author.String(), Client: access.ClientConsole, Protocol: access.Web.String(), PolicyID: policyID})
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
		whom = append(whom, "all administrators who came in lately")
		who.members("administrator", outAdministrators)
	}
	if len(out)*100 > len(active)*cmp.Or(c.Guard.Percent, DefaultGuardPercent) {
		whom = append(whom, fmt.Sprintf("%d of the %d members who came in lately", len(out), len(active)))
		who.members("member", out)
	}
	if len(who) == 0 {
		return nil
	}
	p := api.Conflict("lockout", "it would lock out %s: lockout.who lists whom, and as what; "+
		"?confirm=true makes the change all the same, ?revert_after=10m makes it and undoes it unless it is confirmed in time", strings.Join(whom, ", and "))
	p.Lockout = &api.Lockout{Active: len(active), LockedOut: len(out), Who: who[:min(len(who), maxWho)], More: max(0, len(who)-maxWho)}
	return p
}

// locked lists whom a change would lock out, each account once.
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

// admits reports whether some administrator could log in to the console from an address.
func (c *call) admits(rules *access.Rules, administrators []string, ip netip.Addr) bool {
	return slices.ContainsFunc(administrators, func(a string) bool {
		reason, _ := access.Judge(c.consoleLogin(a, ip, rules))
		return reason == ""
	})
}

// apply makes the edition's changes in a domain's settings.
func (e *edition) apply(st *store.State, domain string, now time.Time, set *access.Settings) {
	for id, p := range e.policies {
		if p == nil {
			set.RemovePolicy(id)
		} else {
			set.PutPolicy(&p.Policy)
		}
	}
	if len(e.blocks) == 0 {
		return
	}
	set.Blocked = nil
	for _, b := range st.Blocks(domain) {
		if _, edited := e.blocks[b.Doc.ID]; !edited && !b.Doc.Expired(now) {
			set.Blocked = append(set.Blocked, b.Doc.Network)
		}
	}
	for _, b := range e.blocks {
		if b != nil {
			set.Blocked = append(set.Blocked, b.Network)
		}
	}
}

// administrators are the addresses of who administers a domain: its postmaster, unless it names
// others.
func (c *call) administrators(d *store.Domain) []string {
	if len(d.Administrators) > 0 {
		return d.Administrators
	}
	return []string{"postmaster@" + d.Name}
}

// author is the address that the caller is at; the zero Addr on a unix socket, whose callers no
// policy concerns.
func (c *call) author() netip.Addr {
	host, _, err := net.SplitHostPort(c.r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	ip, _ := address.ParseIP(host) // the zero Addr for none
	return ip
}

// consoleLogin is a login of an administrator to the console.
func (c *call) consoleLogin(account string, ip netip.Addr, rules *access.Rules) *access.Query {
	q := &access.Query{
		Login:   &access.Login{Account: account, Protocol: access.Web, Service: access.Web.String(), IP: ip, RealIP: ip, Time: c.now},
		Address: account, Rules: rules, Client: access.ClientConsole,
		Region: c.Regions.Lookup(ip),
	}
	_, v := c.Store.State.View(account)
	q.Account = v.Account.Facts(new(access.Account))
	return q
}
