package guard

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Confirmed returns what pending reverts of a domain would put back, by id: nil for what they would
// remove.
func Confirmed(st *store.State, domain string) *Edit {
	was := &Edit{Policies: map[string]*store.Policy{}, Blocks: map[string]*store.Block{}}
	for _, r := range st.Reverts(domain) {
		maps.Copy(was.Policies, r.Doc.Policies)
		maps.Copy(was.Blocks, r.Doc.Blocks)
	}
	return was
}

// Returning returns the policies and blocked addresses that do not exist now, and that pending
// reverts would put back: new ones must leave room for them.
func Returning(st *store.State, domain string) *Edit {
	was := Confirmed(st, domain)
	maps.DeleteFunc(was.Policies, func(id string, before *store.Policy) bool {
		_, exists := st.Policy(domain, id)
		return exists || before == nil
	})
	maps.DeleteFunc(was.Blocks, func(id string, before *store.Block) bool {
		_, exists := st.Block(domain, id)
		return exists || before == nil
	})
	return was
}

// Pending returns the pending reverts of a domain by the ids of the policies that they change.
func Pending(st *store.State, domain string) map[string]*api.PendingRevert {
	pending := map[string]*api.PendingRevert{}
	for _, r := range st.Reverts(domain) {
		for id := range r.Doc.Policies {
			pending[id] = &api.PendingRevert{ID: r.Doc.ID, At: r.Doc.At}
		}
	}
	return pending
}

// Find returns a pending revert.
func Find(st *store.State, domain, id string) (store.Revised[store.Revert], bool) {
	list := st.Reverts(domain)
	i := slices.IndexFunc(list, func(r store.Revised[store.Revert]) bool { return r.Doc.ID == id })
	if i < 0 {
		return store.Revised[store.Revert]{}, false
	}
	return list[i], true
}

// settle ends the pending reverts that an edit replaces: of the edited policies and blocked
// addresses with confirm or revert_after, and of those that the edit itself puts back. Any other
// edit keeps its revert, and the first of them is returned. blocked are the blocks that no longer
// return because the edit blocks their networks.
func (g *Guard) settle(ch *store.Change, req *Request, e *Edit) (blocked map[string]*store.Block, kept *api.PendingRevert) {
	blocked = map[string]*store.Block{}
	ranges := map[string]bool{}
	for _, b := range e.Blocks {
		if b != nil {
			ranges[Range(b)] = true
		}
	}
	for _, r := range g.State.Reverts(req.Domain) {
		next := *r.Doc
		next.Policies, next.Blocks = maps.Clone(next.Policies), maps.Clone(next.Blocks)
		keeps := false
		settled := func(edited bool, putBack func() bool) bool {
			if edited && !req.replaces() && !putBack() {
				keeps = true
				return false
			}
			return edited
		}
		maps.DeleteFunc(next.Policies, func(id string, was *store.Policy) bool {
			p, edited := e.Policies[id]
			return settled(edited, func() bool { return samePolicy(p, was) })
		})
		maps.DeleteFunc(next.Blocks, func(id string, was *store.Block) bool {
			b, edited := e.Blocks[id]
			if !edited && was != nil && ranges[Range(was)] {
				blocked[id] = was
				return true
			}
			return settled(edited, func() bool { return sameBlock(b, was) })
		})
		switch {
		case len(next.Policies)+len(next.Blocks) == 0:
			ch.DeleteRevert(req.Domain, next.ID)
		case len(next.Policies)+len(next.Blocks) < len(r.Doc.Policies)+len(r.Doc.Blocks):
			ch.PutRevert(req.Domain, &next)
		}
		if keeps && (kept == nil || next.At.Before(kept.At)) {
			kept = &api.PendingRevert{ID: next.ID, At: next.At}
		}
	}
	return blocked, kept
}

// Range returns the network of a blocked address in one spelling, for comparison.
func Range(b *store.Block) string {
	r, err := address.ParseNetwork(b.Network)
	if err != nil {
		return b.Network
	}
	return r.String()
}

// samePolicy reports whether two policies, nil for none, are set to the same.
func samePolicy(a, b *store.Policy) bool {
	if a == nil || b == nil {
		return a == b
	}
	text := func(p store.Policy) []byte {
		p.CreatedAt, p.Managed = time.Time{}, ""
		p.IPs, p.Regions, p.ExceptIPs = normal(p.IPs), normal(p.Regions), normal(p.ExceptIPs)
		if len(p.Scope.Except.Departments)+len(p.Scope.Except.Members) == 0 {
			p.Scope.Except = access.Exceptions{}
		}
		p.Clients, p.Protocols = normal(p.Clients), normal(p.Protocols)
		doc, _ := json.Marshal(&p) // texts and flags: never fails
		return doc
	}
	return bytes.Equal(text(*a), text(*b))
}

// normal makes a nil list an empty one.
func normal[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// sameBlock reports whether two blocked addresses, nil for none, are set to the same.
func sameBlock(a, b *store.Block) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Network == b.Network && a.Note == b.Note && a.ExpiresAt.Equal(b.ExpiresAt)
}
