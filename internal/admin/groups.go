package admin

import (
	"context"
	"slices"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Groups returns one page of the groups, by address.
func (d *Domain) Groups(p Page) (*api.List[api.Group], error) {
	return pageOf(p, d.Store.State.Groups(d.name), func(g *store.Group) string { return g.Address }, ViewGroup)
}

// ViewGroup shows a group.
func ViewGroup(g *store.Group) api.Group {
	return api.Group{
		Address: g.Address, Aliases: list(g.Aliases), Members: list(g.Members), WhoMaySend: string(g.WhoMaySend), Senders: list(g.Senders),
		Departments: list(g.Departments), Approvers: list(g.Approvers), ExemptApprovers: g.ExemptApprovers, CreatedAt: g.CreatedAt,
	}
}

// Group returns the group at the account's address.
func (a *Account) Group() (*Result[api.Group], error) {
	g, ok := a.Store.State.Group(a.name, a.address)
	if !ok {
		return nil, api.NotFound("group")
	}
	return &Result[api.Group]{View: ViewGroup(g.Doc), Rev: g.Rev}, nil
}

// PutGroup creates or replaces the group at the account's address.
func (a *Account) PutGroup(ctx context.Context, in *api.Group, f *api.Faults) (*Result[api.Group], error) {
	res := &Result[api.Group]{}
	err := a.Change(ctx, func(ch *store.Change) error {
		cur, exists := a.Store.State.Group(a.name, a.address)
		if err := a.match(exists, cur.Rev); err != nil {
			return err
		}
		if other, err := address.Parse(in.Address, a.name); in.Address != "" && (err != nil || a.Store.State.Canonical(other) != a.address) {
			f.Add("/address", "conflict", "is not the one in the URL, and cannot be changed")
		}
		next := a.ReadGroup(in, a.address, "", f)
		if err := f.Err(); err != nil {
			return err
		}
		next.CreatedAt = ch.Now
		if exists {
			next.CreatedAt = cur.Doc.CreatedAt
		}
		*res = Result[api.Group]{View: ViewGroup(next), Rev: ch.Rev, Created: !exists}
		if exists && Same(cur.Doc, next) {
			res.Rev = cur.Rev
			return nil
		}
		Describe(ch, "group.update", a.name, a.address)
		if !exists {
			Describe(ch, "group.create", a.name, a.address)
		}
		ch.Diff(cur.Doc, next)
		ch.PutGroup(a.name, next)
		return nil
	})
	return res, err
}

// DeleteGroup deletes the group at the account's address, and returns its last state.
func (a *Account) DeleteGroup(ctx context.Context) (*Result[api.Group], error) {
	res := &Result[api.Group]{}
	err := a.Change(ctx, func(ch *store.Change) error {
		cur, ok := a.Store.State.Group(a.name, a.address)
		if err := a.existing(ok, cur.Rev, "group"); err != nil {
			return err
		}
		res.View = ViewGroup(cur.Doc)
		Describe(ch, "group.delete", a.name, a.address)
		ch.Diff(cur.Doc, nil)
		ch.DeleteGroup(a.name, a.address)
		return nil
	})
	return res, err
}

// ReadGroup validates a group of an address.
func (d *Domain) ReadGroup(in *api.Group, addr, pointer string, f *api.Faults) *store.Group {
	g := &store.Group{Group: mailflow.Group{
		Address: addr, Aliases: d.readParties(in.Aliases, pointer+"/aliases", f), Members: d.readParties(in.Members, pointer+"/members", f),
		WhoMaySend: mailflow.WhoMaySend(orElse(in.WhoMaySend, string(mailflow.Anyone))), Senders: d.readParties(in.Senders, pointer+"/senders", f),
		Approvers: d.readApprovers(in.Approvers, pointer+"/approvers", f), ExemptApprovers: in.ExemptApprovers,
	}}
	for i, alias := range g.Aliases {
		if address.Domain(alias) != d.name {
			f.Add(api.At(pointer+"/aliases", i), "outside_domain", "is not an address of this domain or its alias domains")
		}
		if other := d.groupOf(alias); other != "" && other != addr {
			f.Add(api.At(pointer+"/aliases", i), "duplicate", "leads to the group %s already", other)
		}
	}
	for i, path := range in.Departments {
		if !d.hasDepartment(path) {
			f.Add(api.At(pointer+"/departments", i), "unknown_department", "there is no such department: create it first")
		}
		g.Departments = append(g.Departments, path)
	}
	listed := len(g.Senders)+len(g.Departments) > 0
	if listed && g.WhoMaySend != mailflow.Listed {
		f.Add(pointer+"/who_may_send", "conflict", "must be listed, or leave out senders and departments")
	}
	if !listed && g.WhoMaySend == mailflow.Listed && !f.Within(pointer+"/senders") {
		f.Add(pointer+"/senders", "required", "is needed, or departments: nobody could write to the group")
	}
	if other := d.groupOf(addr); other != "" && other != addr {
		f.Add(pointer+"/address", "duplicate", "is an alias of the group %s", other)
	}
	return g
}

// groupOf returns the group that an address leads to, by name or alias; "" for none.
func (d *Domain) groupOf(addr string) string {
	for _, g := range d.Store.State.Groups(d.name) {
		if g.Doc.Address == addr || slices.Contains(g.Doc.Aliases, addr) {
			return g.Doc.Address
		}
	}
	return ""
}
