package adminapi

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"go4.org/netipx"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// maxBlocks bounds the blocked addresses of a domain.
const maxBlocks = 10_000

func viewBlock(b *store.Block) api.IPBlock { return api.IPBlock(*b) }

// blocks returns the blocks of the call's domain that have not expired.
func (c *call) blocks(now time.Time) []store.Revised[store.Block] {
	var live []store.Revised[store.Block]
	for _, b := range c.Store.State.Blocks(c.domain) {
		if !b.Doc.Expired(now) {
			live = append(live, b)
		}
	}
	return live
}

func listBlocks(c *call) (*answer, error) {
	return listed(c, c.blocks(c.now), func(b *store.Block) string { return byAge(b.CreatedAt, b.ID) }, viewBlock)
}

func createBlock(c *call) (*answer, error) {
	var f api.Faults
	in := rest.Decode[api.IPBlock](c.schemas, c.body, &f)
	b, network := readBlock(in, &f)
	if b.Expired(c.now) {
		f.Add("/expires_at", "in_the_past", "is not in the future")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	ans := &answer{etag: true}
	err := c.changeRules(func(ch *store.Change, e *guard.Edit) error {
		live, returning := c.blocks(ch.Now), guard.Returning(c.Store.State, c.domain).Blocks
		maps.DeleteFunc(returning, func(_ string, was *store.Block) bool { return guard.Range(was) == network.String() })
		if len(live)+len(returning) >= maxBlocks {
			return api.Conflict("limit", "the domain has %d blocked addresses, the most there may be: delete those that are not needed, or block ranges", maxBlocks)
		}
		for _, other := range live {
			if r, err := address.ParseNetwork(other.Doc.Network); err == nil && r == network {
				return api.Conflict("exists", "it is blocked already, by %s: delete that first to change note or expiry", other.Doc.ID)
			}
		}
		b.CreatedAt, ans.rev = ch.Now, ch.Rev
		ans.body = viewBlock(b)
		audit(ch, "ip_block.create", c.domain, b.ID)
		// Those that have expired concern nobody any more, and go with the next that is made.
		if gone := c.forgetExpired(ch); gone > 0 {
			ch.Audit.Note = fmt.Sprintf("forgot %d that had expired", gone)
		}
		ch.Diff(nil, b)
		e.Blocks = map[string]*store.Block{b.ID: b}
		var err error
		ans.pending, err = c.edit(ch, e)
		return err
	})
	return ans, err
}

// readBlock reads a block as it was sent.
func readBlock(in *api.IPBlock, f *api.Faults) (*store.Block, netipx.IPRange) {
	b := &store.Block{ID: store.NewID(), Network: in.Network, Note: in.Note}
	if !in.ExpiresAt.IsZero() {
		b.ExpiresAt = in.ExpiresAt.UTC()
	}
	network, err := address.ParseNetwork(in.Network)
	if err != nil {
		f.Add("/network", "invalid_network", "%v", err)
	}
	if strings.TrimSpace(in.Note) != in.Note || strings.ContainsFunc(in.Note, unprintable) {
		f.Add("/note", "unprintable", "begins or ends with a space, or has a character that does not print")
	}
	return b, network
}

func (c *call) forgetExpired(ch *store.Change) (gone int) {
	for _, b := range c.Store.State.Blocks(c.domain) {
		if b.Doc.Expired(ch.Now) {
			ch.DeleteBlock(c.domain, b.Doc.ID)
			gone++
		}
	}
	return gone
}

func deleteBlock(c *call) (*answer, error) {
	id := c.r.PathValue("id")
	ans := &answer{}
	err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		cur, ok := c.Store.State.Block(c.domain, id)
		if !ok || cur.Doc.Expired(ch.Now) {
			return api.NotFound("blocked address")
		}
		if err := c.match(true, cur.Rev); err != nil {
			return err
		}
		ans.body = viewBlock(cur.Doc)
		audit(ch, "ip_block.delete", c.domain, id)
		ch.Diff(cur.Doc, nil)
		var err error
		ans.pending, err = c.edit(ch, &guard.Edit{Blocks: map[string]*store.Block{id: nil}}) // it locks nobody out
		return err
	})
	return ans, err
}
