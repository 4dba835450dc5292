package mail

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Groups returns one page of the groups of the domain, by address, as this daemon has them in memory. The
// error is a bad cursor.
func (d *Domain) Groups(p admin.Page) (*api.List[api.Group], error) {
	return admin.PageOf(p, d.Store.State.Groups(d.Name()), func(g *store.Group) string { return g.Address }, ViewGroup)
}

// ViewGroup returns a group as the API shows it. Its lists are copies, and empty rather than nil, so that
// JSON has [].
func ViewGroup(g *store.Group) api.Group {
	return api.Group{
		Address: g.Address, Aliases: append([]string{}, g.Aliases...), Members: append([]string{}, g.Members...),
		WhoMaySend: string(g.WhoMaySend), Senders: append([]string{}, g.Senders...), Departments: append([]string{}, g.Departments...),
		Approvers: append([]string{}, g.Approvers...), ExemptApprovers: g.ExemptApprovers, CreatedAt: g.CreatedAt,
	}
}

// Group returns the group at an account's address with its revision; 404 not_found if the
// domain has no such group.
func (s Site) Group(a *admin.Account) (*admin.Result[api.Group], error) {
	g, ok := a.Store.State.Group(a.Name(), a.Address())
	if !ok {
		return nil, api.NotFound("group")
	}
	return &admin.Result[api.Group]{View: ViewGroup(g.Doc), Rev: g.Rev}, nil
}

// PutGroup creates or replaces the group at an account's address. All faults are reported at once; an
// unchanged group keeps its revision and leaves no audit entry.
func (s Site) PutGroup(ctx context.Context, a *admin.Account, in *api.Group, f *api.Faults) (*admin.Result[api.Group], error) {
	res := &admin.Result[api.Group]{}
	err := a.Change(ctx, func(ch *store.Change) error {
		cur, exists := a.Store.State.Group(a.Name(), a.Address())
		if err := a.Match(exists, cur.Rev); err != nil {
			return err
		}
		if other, err := address.Parse(in.Address, a.Name()); in.Address != "" && (err != nil || a.Store.State.Canonical(other) != a.Address()) {
			f.Add("/address", "conflict", "is not the one in the URL, and cannot be changed")
		}
		d := s.Of(a.Domain)
		next := d.ReadGroup(in, a.Address(), f)
		others := d.Store.State.Groups(d.Name())
		CheckGroup(next, func(yield func(*store.Group) bool) {
			for _, g := range others {
				if !yield(g.Doc) {
					return
				}
			}
		}, f)
		if err := f.Err(); err != nil {
			return err
		}
		next.CreatedAt = ch.Now
		if exists {
			next.CreatedAt = cur.Doc.CreatedAt
		}
		*res = admin.Result[api.Group]{View: ViewGroup(next), Rev: ch.Rev, Created: !exists}
		if exists && admin.Same(cur.Doc, next) {
			res.Rev = cur.Rev
			return nil
		}
		admin.Describe(ch, "group.update", a.Name(), a.Address())
		if !exists {
			admin.Describe(ch, "group.create", a.Name(), a.Address())
		}
		ch.Diff(cur.Doc, next)
		ch.PutGroup(a.Name(), next)
		return nil
	})
	return res, err
}

// DeleteGroup deletes the group at an account's address, and returns its last state. Whoever may write to
// the address is then no longer limited.
func (s Site) DeleteGroup(ctx context.Context, a *admin.Account) (*admin.Result[api.Group], error) {
	res := &admin.Result[api.Group]{}
	err := a.Change(ctx, func(ch *store.Change) error {
		cur, ok := a.Store.State.Group(a.Name(), a.Address())
		if err := a.Existing(ok, cur.Rev, "group"); err != nil {
			return err
		}
		res.View = ViewGroup(cur.Doc)
		admin.Describe(ch, "group.delete", a.Name(), a.Address())
		ch.Diff(cur.Doc, nil)
		ch.DeleteGroup(a.Name(), a.Address())
		return nil
	})
	return res, err
}

// ReadGroup validates a group of an address: its members, senders, departments and approvers. Faults go to
// f; the result is not nil.
func (d *Domain) ReadGroup(in *api.Group, addr string, f *api.Faults) *store.Group {
	g := &store.Group{Group: mailflow.Group{
		Address: addr, Aliases: d.readParties(in.Aliases, "/aliases", f), Members: d.readPersons(in.Members, "/members", f),
		WhoMaySend: mailflow.WhoMaySend(cmp.Or(in.WhoMaySend, string(mailflow.Anyone))), Senders: d.readPersons(in.Senders, "/senders", f),
		Approvers: d.readApprovers(in.Approvers, "/approvers", f), ExemptApprovers: in.ExemptApprovers,
	}}
	for i, alias := range g.Aliases {
		if address.Domain(alias) != d.Name() {
			f.Add(api.At("/aliases", i), "outside_domain", "is not an address of this domain or its alias domains")
		}
	}
	for i, path := range in.Departments {
		if !d.HasDepartment(path) {
			f.Add(api.At("/departments", i), "unknown_department", "there is no such department: create it first")
		}
		g.Departments = append(g.Departments, path)
	}
	listed := len(g.Senders)+len(g.Departments) > 0
	if listed && g.WhoMaySend != mailflow.Listed {
		f.Add("/who_may_send", "conflict", "must be listed, or leave out senders and departments")
	}
	if !listed && g.WhoMaySend == mailflow.Listed && !f.Within("/senders") {
		f.Add("/senders", "required", "is needed, or departments: nobody could write to the group")
	}
	return g
}

// CheckGroup reports addresses of a group that lead to other groups of all: its address or aliases that
// are theirs, as faults with their pointers.
func CheckGroup(g *store.Group, all iter.Seq[*store.Group], f *api.Faults) {
	for other := range all {
		if other.Address == g.Address {
			continue
		}
		if slices.Contains(other.Aliases, g.Address) {
			f.Add("/address", "duplicate", "is an alias of the group %s", other.Address)
		}
		for i, alias := range g.Aliases {
			if alias == other.Address || slices.Contains(other.Aliases, alias) {
				f.Add(api.At("/aliases", i), "duplicate", "leads to the group %s already", other.Address)
			}
		}
	}
}
