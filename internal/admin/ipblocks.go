package admin

import (
	"context"
	"fmt"
	"maps"
	"time"

	"go4.org/netipx"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// MaxIPBlocks is the number of blocked addresses that a domain may have; one more is refused with
// 409. It bounds the time in which the domain's rules are compiled.
const MaxIPBlocks = 10_000

// ViewIPBlock shows a blocked address as the API does; the network stays as it was written, not in
// canonical form.
func ViewIPBlock(b *store.Block) api.IPBlock { return api.IPBlock(*b) }

// LiveIPBlocks returns the blocked addresses of the domain that have not expired by a time, oldest
// first. Expired ones have no effect.
func (d *Domain) LiveIPBlocks(now time.Time) []store.Revised[store.Block] {
	var live []store.Revised[store.Block]
	for _, b := range d.Store.State.Blocks(d.name) {
		if !b.Doc.Expired(now) {
			live = append(live, b)
		}
	}
	return live
}

// IPBlocks returns one page of the blocked addresses that have not expired, oldest first. Whoever
// reaches the domain may read them.
func (d *Domain) IPBlocks(p Page) (*api.List[api.IPBlock], error) {
	return PageOf(p, d.LiveIPBlocks(d.Time), func(b *store.Block) string { return ByAge(b.CreatedAt, b.ID) }, ViewIPBlock)
}

// ReadIPBlock validates a blocked address and gives it an id. It also returns its network as a
// range, for comparison; faults go to f.
func ReadIPBlock(in *api.IPBlock, f *api.Faults) (*store.Block, netipx.IPRange) {
	b := &store.Block{ID: store.NewID(), Network: in.Network, Note: in.Note}
	if !in.ExpiresAt.IsZero() {
		b.ExpiresAt = in.ExpiresAt.UTC()
	}
	network, err := address.ParseNetwork(in.Network)
	if err != nil {
		f.Add("/network", "invalid_network", "%v", err)
	}
	CheckText(in.Note, "/note", f)
	return b, network
}

// CreateIPBlock blocks an IP address, prefix or range until it expires. The lock-out guard may
// refuse it with 409 unless the request confirms it.
func (d *Domain) CreateIPBlock(ctx context.Context, in *api.IPBlock, f *api.Faults) (*Result[api.IPBlock], error) {
	b, network := ReadIPBlock(in, f)
	if b.Expired(d.Time) {
		f.Add("/expires_at", "in_the_past", "is not in the future")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	res := &Result[api.IPBlock]{Created: true}
	err := d.changeRules(ctx, func(ch *store.Change, e *guard.Edit) error {
		live, returning := d.LiveIPBlocks(ch.Now), guard.Returning(d.Store.State, d.name).Blocks
		maps.DeleteFunc(returning, func(_ string, was *store.Block) bool { return guard.Range(was) == network.String() })
		if len(live)+len(returning) >= MaxIPBlocks {
			return api.Conflict("limit", "the domain has the maximum of %d blocked addresses: delete some, or block ranges", MaxIPBlocks)
		}
		for _, other := range live {
			if r, err := address.ParseNetwork(other.Doc.Network); err == nil && r == network {
				return api.Conflict("exists", "the network is blocked already, by %s: delete that first to change note or expiry", other.Doc.ID)
			}
		}
		b.CreatedAt, res.Rev = ch.Now, ch.Rev
		res.View = ViewIPBlock(b)
		Describe(ch, "ip_block.create", d.name, b.ID)
		if expired := d.deleteExpired(ch); expired > 0 {
			ch.Audit.Note = fmt.Sprintf("deleted %d that had expired", expired)
		}
		ch.Diff(nil, b)
		e.Blocks = map[string]*store.Block{b.ID: b}
		var err error
		res.Pending, err = d.ApplyRules(ch, e)
		return err
	})
	return res, err
}

// deleteExpired deletes the blocked addresses that have expired, and counts them.
func (d *Domain) deleteExpired(ch *store.Change) (expired int) {
	for _, b := range d.Store.State.Blocks(d.name) {
		if b.Doc.Expired(ch.Now) {
			ch.DeleteBlock(d.name, b.Doc.ID)
			expired++
		}
	}
	return expired
}

// DeleteIPBlock unblocks an address or range, and returns its last state.
func (d *Domain) DeleteIPBlock(ctx context.Context, id string) (*Result[api.IPBlock], error) {
	res := &Result[api.IPBlock]{}
	err := d.Change(ctx, func(ch *store.Change) error {
		cur, ok := d.Store.State.Block(d.name, id)
		if !ok || cur.Doc.Expired(ch.Now) {
			return api.NotFound("blocked address")
		}
		if err := d.Match(true, cur.Rev); err != nil {
			return err
		}
		res.View = ViewIPBlock(cur.Doc)
		Describe(ch, "ip_block.delete", d.name, id)
		ch.Diff(cur.Doc, nil)
		var err error
		res.Pending, err = d.ApplyRules(ch, &guard.Edit{Blocks: map[string]*store.Block{id: nil}}) // it locks nobody out
		return err
	})
	return res, err
}
