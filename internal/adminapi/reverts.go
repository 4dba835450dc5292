package adminapi

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// maxRevertAfter bounds how long a change waits to be confirmed.
const maxRevertAfter = 7 * 24 * time.Hour

// maxRevert bounds what one change that waits to be confirmed keeps of what was there before: each
// later change of a part of it writes the rest anew.
const maxRevert = 4 * rest.MaxBody

// certain is what was there, by id, before the changes of a domain that still wait to be confirmed;
// nil for nothing.
func (c *call) certain() *edition {
	was := &edition{policies: map[string]*store.Policy{}, blocks: map[string]*store.Block{}}
	for _, r := range c.Store.State.Reverts(c.domain) {
		maps.Copy(was.policies, r.Doc.Policies)
		maps.Copy(was.blocks, r.Doc.Blocks)
	}
	return was
}

// returning are the policies and blocked addresses that are gone now, and come back unless their
// removal is confirmed: what is new must leave room for them.
func (c *call) returning() *edition {
	was := c.certain()
	maps.DeleteFunc(was.policies, func(id string, before *store.Policy) bool {
		_, there := c.Store.State.Policy(c.domain, id)
		return there || before == nil
	})
	maps.DeleteFunc(was.blocks, func(id string, before *store.Block) bool {
		_, there := c.Store.State.Block(c.domain, id)
		return there || before == nil
	})
	return was
}

// settle ends the pending reverts that a change replaces: of the edited policies and blocked
// addresses with confirm or revert_after, and of those that the change itself puts back. Any other
// edit keeps its revert, and the first of them is returned. blocked are the blocks that no longer
// come back because the change blocks their networks.
func (c *call) settle(ch *store.Change, e *edition) (blocked map[string]*store.Block, kept *api.PendingRevert) {
	replaces := c.flag("confirm") || c.query.Has("revert_after")
	blocked = map[string]*store.Block{}
	ranges := map[string]bool{}
	for _, b := range e.blocks {
		if b != nil {
			ranges[blockRange(b)] = true
		}
	}
	for _, r := range c.Store.State.Reverts(c.domain) {
		next := *r.Doc
		next.Policies, next.Blocks = maps.Clone(next.Policies), maps.Clone(next.Blocks)
		keeps := false
		settled := func(edited bool, putBack func() bool) bool {
			if edited && !replaces && !putBack() {
				keeps = true
				return false
			}
			return edited
		}
		maps.DeleteFunc(next.Policies, func(id string, was *store.Policy) bool {
			p, edited := e.policies[id]
			return settled(edited, func() bool { return (p == nil) == (was == nil) && (p == nil || same(shownPolicy(was), shownPolicy(p))) })
		})
		maps.DeleteFunc(next.Blocks, func(id string, was *store.Block) bool {
			b, edited := e.blocks[id]
			if !edited && was != nil && ranges[blockRange(was)] {
				blocked[id] = was
				return true
			}
			return settled(edited, func() bool { return (b == nil) == (was == nil) && (b == nil || same(shownBlock(was), shownBlock(b))) })
		})
		switch {
		case len(next.Policies)+len(next.Blocks) == 0:
			ch.DeleteRevert(c.domain, next.ID)
		case len(next.Policies)+len(next.Blocks) < len(r.Doc.Policies)+len(r.Doc.Blocks):
			ch.PutRevert(c.domain, &next)
		}
		if keeps && (kept == nil || next.At.Before(kept.At)) {
			kept = &api.PendingRevert{ID: next.ID, At: next.At}
		}
	}
	return blocked, kept
}

// pending tells when policies of the call's domain are put back to what they were, by id.
func (c *call) pending() map[string]*api.PendingRevert {
	pending := map[string]*api.PendingRevert{}
	for _, r := range c.Store.State.Reverts(c.domain) {
		for id := range r.Doc.Policies {
			pending[id] = &api.PendingRevert{ID: r.Doc.ID, At: r.Doc.At}
		}
	}
	return pending
}

func (c *call) revert() (store.Revised[store.Revert], bool) {
	list := c.Store.State.Reverts(c.domain)
	i := slices.IndexFunc(list, func(r store.Revised[store.Revert]) bool { return r.Doc.ID == c.r.PathValue("id") })
	if i < 0 {
		return store.Revised[store.Revert]{}, false
	}
	return list[i], true
}

// without returns a map without the keys of another one.
func without[V any](m, keys map[string]V) map[string]V {
	left := make(map[string]V, len(m))
	for k, v := range m {
		if _, ok := keys[k]; !ok {
			left[k] = v
		}
	}
	return left
}

func revertPath(domain, id string) string {
	return "/v1/domains/" + url.PathEscape(domain) + "/reverts/" + url.PathEscape(id)
}

func viewRevert(r *store.Revert) api.Revert {
	return api.Revert{ID: r.ID, At: r.At, CreatedAt: r.CreatedAt, By: api.Actor(r.By), Action: r.Action, Target: r.Target}
}

func listReverts(c *call) (*answer, error) {
	return listed(c, c.Store.State.Reverts(c.domain), func(r *store.Revert) string { return byAge(r.At, r.ID) }, viewRevert)
}

func getRevert(c *call) (*answer, error) {
	r, ok := c.revert()
	if !ok {
		return nil, errNoRevert()
	}
	return found(r.Rev, viewRevert(r.Doc)), nil
}

func errNoRevert() error {
	return api.Refuse(http.StatusNotFound, "not_found", "nothing of this id waits to be confirmed: it was confirmed, undone, or changed again")
}

// confirmRevert keeps a change: it is not undone any more.
func confirmRevert(c *call) (*answer, error) {
	ans := &answer{}
	err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		r, ok := c.revert()
		if !ok {
			return errNoRevert()
		}
		if err := c.match(true, r.Rev); err != nil {
			return err
		}
		ans.body = viewRevert(r.Doc)
		audit(ch, "revert.confirm", c.domain, r.Doc.Target)
		ch.Audit.Note = r.Doc.Action + " by " + r.Doc.By.Name
		ch.DeleteRevert(c.domain, r.Doc.ID)
		return nil
	})
	return ans, err
}
