package document

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// applyTries is how often a document is compared again because the domain changed between the
// comparison and the change.
const applyTries = 4

// errMoved is that change.
var errMoved = errors.New("the domain changed meanwhile")

// Apply applies a document to a domain (F32) and returns the plan. Its revision is that of the
// domain before the change for a dry run, and else after it.
func Apply(ctx context.Context, d *admin.Domain, in *api.DomainDocument, f *api.Faults) (*api.Plan, error) {
	ctx = context.WithoutCancel(ctx) // not left half done
	if in.Domain != nil {
		if name, err := address.ParseDomain(in.Domain.Name); err != nil || name != d.Name() {
			f.Add("/domain/name", "conflict", "is not the domain in the URL: apply the document to its own domain, or correct the name")
		}
	}
	base, ok := parseRevision(in.Revision)
	if in.Revision != "" && !ok {
		f.Add("/revision", "malformed", "is not the revision of an export: keep it as exported, or leave it out to overwrite the present state")
	}
	e := &guard.Edit{}
	if in.Policies != nil || in.IPBlocks != nil {
		var err error
		if e, err = d.BeginRules(ctx); err != nil {
			return nil, err
		}
	}
	for range applyTries {
		var p *plan
		err := d.Try(ctx, func(ch *store.Change) (err error) {
			p, err = newPlan(d, ch, in, base, e, f)
			return err
		})
		if err == nil && !d.DryRun {
			err = p.carryOut(ctx)
		}
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return p.view(ctx), nil
	}
	return nil, api.Conflict("interrupted", "other changes interfered several times; nothing was changed: apply it again")
}

// carryOut makes the changes of a plan, in one transaction if there are not too many accounts.
// Otherwise the remaining accounts follow in further transactions, and last the departments to be
// removed.
func (p *plan) carryOut(ctx context.Context) error {
	d := p.domain
	if len(p.steps) == 0 {
		return nil
	}
	if p.next.domain != nil && !slices.Equal(p.next.domain.AliasDomains, p.cur.domain.AliasDomains) {
		done, err := d.ClaimNames(ctx, p.next.domain.AliasDomains)
		if err != nil {
			return err
		}
		defer done()
	}
	// Keys first: a key that outlived its account would open the next account of that name.
	removed := p.removed()
	if len(removed) > 0 {
		if err := d.RevokeKeys(ctx, func(k *store.Key) bool { return removed[k.Account] != nil }); err != nil {
			return err
		}
	}
	parts := p.parts()
	for i := range parts {
		err := d.Change(ctx, func(ch *store.Change) error {
			if i == 0 && d.Store.State.Head(store.ShardOf(d.Name())) != p.head {
				again, err := newPlan(d, ch, p.in, p.base, p.protects, &api.Faults{})
				if err != nil {
					return err
				}
				if again.was != p.was {
					return errMoved
				}
				*p, parts = *again, again.parts() // something else changed, such as a secret
			}
			if i > 0 && parts[i][0].section == sectionDepartments {
				if err := p.checkVacated(parts[i]); err != nil {
					return err
				}
			}
			return p.write(ch, parts[i])
		})
		if err != nil && i > 0 {
			refusal := *admin.ProblemOf(err)
			refusal.Detail = fmt.Sprintf("all but %d changes were made, then: %s", len(slices.Concat(parts[i:]...)), refusal.Detail)
			d.Log.Error("applying a document", "domain", d.Name(), "error", err)
			return &refusal
		}
		if err != nil {
			return err
		}
	}
	if len(removed) > 0 {
		d.ForgetAccounts(ctx, slices.Collect(maps.Keys(removed))...)
	}
	if p.next.domain != nil {
		d.ReleaseNames(ctx, admin.ReleasedNames(p.cur.domain, p.next.domain))
	}
	return nil
}

// errOvertaken reports a change by somebody else between two transactions of one document.
func errOvertaken(what string) error {
	return api.Conflict("interrupted", "somebody else changed %s meanwhile: export the domain again, and apply the rest", what)
}

// checkVacated refuses to remove departments that were used again since the earlier transactions.
func (p *plan) checkVacated(steps []step) error {
	d := p.domain
	left := map[string]bool{}
	for _, department := range d.Store.State.Departments(d.Name()) {
		left[department.Doc.Path] = true
	}
	for _, s := range steps {
		delete(left, s.ID)
	}
	var f api.Faults
	checkReferences(d, &api.DomainDocument{}, left, &f)
	orphaned := false
	for path := range left {
		orphaned = orphaned || slices.ContainsFunc(admin.Parents(path), func(parent string) bool { return !left[parent] })
	}
	if orphaned || len(f.List) > 0 {
		return errOvertaken("departments that the document leaves out")
	}
	return nil
}

// writeAccount writes a planned record, with the secrets that the account has by now. It may run in
// a later transaction than the plan: settings that changed meanwhile are not overwritten.
func (p *plan) writeAccount(ch *store.Change, cur, next *store.Account) error {
	planned := next
	if planned == nil {
		planned = cur
	}
	now, exists := p.domain.Store.State.Account(planned.Address)
	if exists != (cur != nil) || exists && !admin.Same(viewAccount(now.Doc), viewAccount(cur)) {
		return errOvertaken("an account of the document")
	}
	if next == nil {
		ch.DeleteAccount(cur.Address)
		return nil
	}
	written := *next
	if exists {
		written.KeepSecrets(now.Doc)
	}
	ch.PutAccount(&written)
	return nil
}

// parts divides the steps into transactions. Of several, the last one removes departments.
func (p *plan) parts() [][]step {
	first := slices.IndexFunc(p.steps, func(s step) bool { return s.section == sectionAccounts })
	if first < 0 {
		return [][]step{p.steps}
	}
	end := len(p.steps)
	for p.steps[end-1].section != sectionAccounts {
		end--
	}
	parts := slices.Collect(slices.Chunk(p.steps[first:end], admin.Chunk))
	parts[0] = slices.Concat(p.steps[:first], parts[0])
	switch removed := p.steps[end:]; {
	case len(parts) == 1:
		return [][]step{p.steps}
	case len(removed) > 0:
		parts = append(parts, removed)
	}
	return parts
}

// write adds steps to a change.
func (p *plan) write(ch *store.Change, steps []step) error {
	count := map[effect]int{}
	rules := false
	for _, s := range steps {
		count[s.effect]++
		ch.DiffOf(s.Kind+"/"+s.ID, s.cur, s.next)
		if s.write == nil {
			rules = true
			continue
		}
		if err := s.write(ch); err != nil {
			return err
		}
	}
	admin.Describe(ch, "domain.apply", p.domain.Name(), p.domain.Name())
	ch.Audit.Note = fmt.Sprintf("%d added, %d changed, %d removed", count[addition], count[alteration], count[removal])
	if !rules {
		return nil
	}
	var err error
	p.pending, err = p.domain.ApplyRules(ch, p.rules()) // all of them are in one part
	return err
}

// view shows the plan.
func (p *plan) view(ctx context.Context) *api.Plan {
	v := &api.Plan{Applied: !p.domain.DryRun, Additions: []api.PlanItem{}, Changes: []api.PlanItem{}, Removals: []api.PlanItem{}, Revision: p.was.String(), Pending: p.pending}
	if v.Applied {
		v.Revision = p.next.document().Revision
	}
	for _, s := range p.steps {
		switch s.effect {
		case addition:
			v.Additions = append(v.Additions, s.PlanItem)
		case removal:
			v.Removals = append(v.Removals, s.PlanItem)
		case alteration:
			v.Changes = append(v.Changes, s.PlanItem)
		}
		if next, ok := s.next.(*store.Policy); ok && next != nil {
			for _, w := range p.domain.PolicyWarnings(ctx, next) {
				v.Warnings = append(v.Warnings, api.Warning{Code: w.Code, Detail: "Policy " + next.ID + ": " + w.Detail})
			}
		}
	}
	v.Warnings = append(v.Warnings, p.losses()...)
	return v
}
