package adminapi

import (
	"net"
	"net/netip"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// edits is the call as a request to edit policies and blocked addresses.
func (c *call) edits() *guard.Request {
	return &guard.Request{
		Domain: c.domain, Actor: c.id.actor, From: c.from(), Time: c.now,
		Confirm: c.flag("confirm"), RevertAfter: c.duration("revert_after"),
	}
}

// changeRules makes one change of the domain's policies and blocked addresses: f fills the edit and
// applies it by [call.edit].
func (c *call) changeRules(f func(*store.Change, *guard.Edit) error) error {
	e, err := c.guard.Begin(c.ctx, c.edits())
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

// edit adds an edit to a change, or refuses it. It returns the pending revert; nil for none.
func (c *call) edit(ch *store.Change, e *guard.Edit) (*api.PendingRevert, error) {
	return c.guard.Apply(ch, c.edits(), e)
}

// from is the address of the caller; the zero Addr on a unix socket, whose callers no policy
// concerns.
func (c *call) from() netip.Addr {
	host, _, err := net.SplitHostPort(c.r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	ip, _ := address.ParseIP(host) // the zero Addr for none
	return ip
}

// exempt reports whether a policy is one that the simple switch makes.
func exempt(p *store.Policy) bool { return !viewThirdParty(p).Customised }
