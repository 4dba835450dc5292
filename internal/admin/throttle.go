package admin

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// HeldBack returns one page of the accounts and addresses that are held back, sorted. Role domain
// sees its accounts and no addresses that other domains may share.
func (r *Request) HeldBack(p Page) (*api.Throttle, error) {
	if err := r.Caller.May(ForRead | ForDomain); err != nil {
		return nil, err
	}
	after, err := p.after()
	if err != nil {
		return nil, err
	}
	all := r.Throttled(r.Time)
	name := func(t api.Throttled) string { return t.Account + " " + t.Address }
	list := slices.DeleteFunc(all.Items, func(t api.Throttled) bool {
		return r.Caller.Role == store.RoleDomain && address.Domain(t.Account) != r.Caller.Domain || name(t) <= after
	})
	slices.SortFunc(list, func(a, b api.Throttled) int { return strings.Compare(name(a), name(b)) })
	distributed := slices.DeleteFunc(all.Distributed, func(d api.DistributedGuessing) bool { return !r.Caller.Reaches(d.Domain) })
	slices.SortFunc(distributed, func(a, b api.DistributedGuessing) int { return strings.Compare(a.Domain, b.Domain) })
	if distributed == nil {
		distributed = []api.DistributedGuessing{}
	}
	if list == nil {
		list = []api.Throttled{}
	}
	page := firstPage(p, list, name)
	return &api.Throttle{Items: page.Items, Next: page.Next, Distributed: distributed}, nil
}

// LiftThrottle forgets the wrong secrets of an account or an address, on all nodes. Role domain lifts
// accounts of its domain.
func (r *Request) LiftThrottle(ctx context.Context, subject string) (*Result[api.Throttled], error) {
	if err := r.Caller.May(ForDomain); err != nil {
		return nil, err
	}
	res := &Result[api.Throttled]{}
	var ip netip.Addr
	change := func(ch *store.Change) error {
		Describe(ch, "throttle.lift", address.Domain(res.View.Account), subject)
		ch.AuditOnly()
		return nil
	}
	if strings.Contains(subject, "@") {
		a, err := r.Account(subject)
		if err != nil {
			return nil, err
		}
		subject, res.View.Account = a.address, a.address
		err = a.Change(ctx, change)
		if err != nil {
			return nil, err
		}
	} else {
		var err error
		if ip, err = readSource(subject); err != nil {
			var f api.Faults
			f.Parameter("subject", "invalid_subject", "is neither an account nor an IP address: %v", err)
			return nil, f.Err()
		}
		if r.Caller.Tenant() != "" {
			return nil, api.NotFound("address")
		}
		subject, res.View.Address = ip.String(), ip.String()
		if err := r.change(ctx, ForAdmin, store.Global, change); err != nil {
			return nil, err
		}
	}
	if !r.DryRun {
		r.Lift(res.View.Account, ip, r.Time)
	}
	return res, nil
}

// readSource reads an address, or a network as the list shows it.
func readSource(text string) (netip.Addr, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Addr().Unmap(), nil
	}
	return address.ParseIP(text)
}
