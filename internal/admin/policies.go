package admin

import (
	"context"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	maxPolicyID = 64 // characters
	// MaxPolicies is the number of access policies that a domain may have: each change compiles all
	// of them, so one more is refused.
	MaxPolicies = 10_000
)

// ViewPolicy shows a policy as the API does, with empty lists in place of missing ones. It shares
// no memory that a caller could change.
func ViewPolicy(p *store.Policy) api.Policy {
	enabled := p.Enabled // a view must not point into a document, which is shared
	return api.Policy{
		ID: p.ID, Name: p.Name, Type: string(p.Type), Enabled: &enabled, Mode: string(p.Mode), Managed: p.Managed,
		Scope: ViewScope(&p.Scope), IPs: list(p.IPs), Regions: list(p.Regions), ExceptIPs: list(p.ExceptIPs),
		Clients: texts(p.Clients), Protocols: list(p.Protocols), CreatedAt: p.CreatedAt,
	}
}

// Policies returns one page of the access policies, enabled or not, oldest first, without their
// pending reverts.
func (d *Domain) Policies(p Page) (*api.List[api.Policy], error) {
	return PageOf(p, d.Store.State.Policies(d.name), func(v *store.Policy) string { return ByAge(v.CreatedAt, v.ID) }, ViewPolicy)
}

// Policy returns an access policy by its id with its revision and its pending revert, if any; 404
// if there is none.
func (d *Domain) Policy(id string) (*Result[api.Policy], error) {
	p, ok := d.Store.State.Policy(d.name, id)
	if !ok {
		return nil, api.NotFound("policy")
	}
	view := ViewPolicy(p.Doc)
	view.Pending = guard.Pending(d.Store.State, d.name)[p.Doc.ID]
	return &Result[api.Policy]{View: view, Rev: p.Rev}, nil
}

// CheckPolicyID refuses ids that would be something else in a path: 1 to 64 letters, digits,
// hyphens and underscores, and no reserved name.
func CheckPolicyID(id string, fault func(code, format string, args ...any)) {
	switch {
	case id == "" || len(id) > maxPolicyID || strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}):
		fault("invalid_name", "must be 1 to %d letters, digits, hyphens and underscores", maxPolicyID)
	case slices.Contains([]string{"test", "preview", "migrate", DraftID}, id):
		fault("reserved", "is a reserved name: choose another")
	}
}

// CreatePolicy creates a policy; with id "", its id is generated. An id that is taken is 409
// exists. decode returns the request's value with its faults.
func (d *Domain) CreatePolicy(ctx context.Context, id string, decode func(*api.Faults) *api.Policy) (*Result[api.Policy], error) {
	if id == "" {
		id = store.NewID()
	}
	return d.editPolicy(ctx, id, func(cur *store.Policy, f *api.Faults) (*api.Policy, error) {
		CheckPolicyID(id, func(code, format string, args ...any) { f.Add("/id", code, format, args...) })
		in := decode(f)
		if cur != nil {
			return nil, api.Conflict("exists", "there is a policy of this id already: change that one, or choose another id")
		}
		return in, nil
	})
}

// PutPolicy creates or replaces a policy as a whole. decode returns the request's value, and adds
// its faults to those of the policy.
func (d *Domain) PutPolicy(ctx context.Context, id string, decode func(*api.Faults) *api.Policy) (*Result[api.Policy], error) {
	return d.editPolicy(ctx, id, func(_ *store.Policy, f *api.Faults) (*api.Policy, error) {
		CheckPolicyID(id, func(code, format string, args ...any) { f.Parameter("id", code, format, args...) })
		return decode(f), nil
	})
}

// PatchPolicy changes a policy: edit receives its present view, again after a conflict, and returns
// the wanted one. 404 if there is none.
func (d *Domain) PatchPolicy(ctx context.Context, id string, edit Edit[api.Policy]) (*Result[api.Policy], error) {
	return d.editPolicy(ctx, id, func(cur *store.Policy, f *api.Faults) (*api.Policy, error) {
		if cur == nil {
			return nil, api.NotFound("policy")
		}
		view := ViewPolicy(cur)
		return edit(&view, f)
	})
}

// editPolicy makes one change of a policy. edit receives the current policy, nil for none.
func (d *Domain) editPolicy(ctx context.Context, id string, edit func(cur *store.Policy, f *api.Faults) (*api.Policy, error)) (*Result[api.Policy], error) {
	res := &Result[api.Policy]{}
	var next *store.Policy
	err := d.changeRules(ctx, func(ch *store.Change, e *guard.Edit) error {
		cur, exists := d.Store.State.Policy(d.name, id)
		if err := d.Match(exists, cur.Rev); err != nil {
			return err
		}
		var f api.Faults
		in, err := edit(cur.Doc, &f)
		if err != nil {
			return err
		}
		if in.ID != "" && in.ID != id {
			f.Add("/id", "conflict", "is not the one in the URL, and cannot be changed: create the new policy and delete this one")
		}
		next = d.ReadPolicy(in, id, cur.Doc, "", &f)
		if err := f.Err(); err != nil {
			return err
		}
		if !exists {
			returning := guard.Returning(d.Store.State, d.name).Policies
			delete(returning, id)
			if len(d.Store.State.Policies(d.name))+len(returning) >= MaxPolicies {
				return tooManyPolicies()
			}
			next.CreatedAt = ch.Now
		}
		*res = Result[api.Policy]{View: ViewPolicy(next), Rev: ch.Rev, Created: !exists}
		pending := guard.Pending(d.Store.State, d.name)[id]
		if exists && Same(normalPolicy(cur.Doc), next) && (!d.Confirm || pending == nil) {
			res.Rev, res.View.Pending = cur.Rev, pending
			return nil
		}
		Describe(ch, "policy.update", d.name, id)
		if !exists {
			Describe(ch, "policy.create", d.name, id)
		}
		ch.Audit.Note = next.Name
		ch.Diff(cur.Doc, next)
		e.Policies = map[string]*store.Policy{id: next}
		res.Pending, err = d.ApplyRules(ch, e)
		res.View.Pending = res.Pending
		return err
	})
	if err == nil {
		res.View.Warnings = d.PolicyWarnings(ctx, next) // reads login records: not within the change
	}
	return res, err
}

func tooManyPolicies() error {
	return api.Conflict("limit", "a domain may have %d policies: delete those that are not needed", MaxPolicies)
}

// DeletePolicy deletes a policy and returns its last state.
func (d *Domain) DeletePolicy(ctx context.Context, id string) (*Result[api.Policy], error) {
	res := &Result[api.Policy]{}
	err := d.changeRules(ctx, func(ch *store.Change, e *guard.Edit) error {
		cur, ok := d.Store.State.Policy(d.name, id)
		if err := d.Existing(ok, cur.Rev, "policy"); err != nil {
			return err
		}
		res.View = ViewPolicy(cur.Doc)
		Describe(ch, "policy.delete", d.name, id)
		ch.Audit.Note = cur.Doc.Name
		ch.Diff(cur.Doc, nil)
		e.Policies = map[string]*store.Policy{id: nil}
		var err error
		res.Pending, err = d.ApplyRules(ch, e)
		return err
	})
	return res, err
}

// PolicyWarnings reports possible mistakes in a policy.
func (d *Domain) PolicyWarnings(ctx context.Context, p *store.Policy) []api.Warning {
	warnings := d.regionWarning(ctx, p)
	postmaster := "postmaster@" + d.name
	record, _ := d.Store.State.Account(postmaster)
	if !p.Scope.All || !d.Covers(&p.Scope)(postmaster, record.Doc) {
		return warnings
	}
	return append(warnings, api.Warning{
		Code: "postmaster_included", Detail: "The policy applies to " + postmaster + " too. If that is not intended, put the address into scope.except.members.",
	})
}

// normalPolicy replaces nil lists by empty ones, for comparison.
func normalPolicy(p *store.Policy) *store.Policy {
	n := *p
	n.IPs, n.Regions, n.ExceptIPs, n.Clients, n.Protocols = list(n.IPs), list(n.Regions), list(n.ExceptIPs), list(n.Clients), list(n.Protocols)
	return &n
}
