package document

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// plan is what a document changes, at one head of the domain's shard.
type plan struct {
	domain *admin.Domain
	in     *api.DomainDocument
	base   revision // that the document was exported with
	cur    *content
	next   *content
	was    revision // of cur
	head   store.Head
	// protects is an edit that protects the people whom the plan must not lock out.
	protects *guard.Edit
	steps    []step // in the order in which they are made
	pending  *api.PendingRevert
}

// step is one change of a plan.
type step struct {
	api.PlanItem
	effect    effect
	section   section
	cur, next any                       // as stored; nil pointers for none
	write     func(*store.Change) error // nil for what the guard writes
}

// effect is the effect of a step.
type effect uint8

const (
	alteration effect = iota
	addition
	removal
)

// newPlan compares a document with the domain as it is, and refuses what must not be applied.
func newPlan(d *admin.Domain, ch *store.Change, in *api.DomainDocument, base revision, protects *guard.Edit, f *api.Faults) (*plan, error) {
	p := &plan{domain: d, in: in, base: base, protects: protects, head: d.Store.State.Head(store.ShardOf(d.Name()))}
	if p.cur = contentOf(d, sectionsOf(in), ch.Now); p.cur == nil {
		return nil, api.NotFound("domain")
	}
	p.was = revisionOf(p.cur.document())
	if err := d.MatchTag(true, p.was.String()); err != nil {
		return nil, err
	}
	p.next = desired(d, in, p.cur, ch, f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	if p.next.domain != nil {
		if err := d.CheckNames(p.cur.domain, p.next.domain); err != nil {
			return nil, err
		}
	}
	p.compare()
	if err := p.checkStale(); err != nil {
		return nil, err
	}
	if err := p.checkRevert(); err != nil {
		return nil, err
	}
	if err := d.CheckRules(ch, p.rules()); err != nil {
		return nil, err
	}
	for _, a := range p.removed() {
		if err := admin.CheckDeletable(a); err != nil {
			return nil, err
		}
	}
	if warnings := p.losses(); len(warnings) > 0 && !d.DryRun && !d.Confirm {
		var all []string
		for _, w := range warnings {
			all = append(all, w.Detail)
		}
		return nil, api.Conflict("confirm_required", "%s", strings.Join(all, " ")).OrRepeat("confirm=true")
	}
	return p, nil
}

// kind is a kind of resource in a document: its identity, its view in the document, and how it is
// written, nil for a removal. Without write, the guard writes it.
type kind[D, V any] struct {
	name    string
	section section
	id      func(*D) string
	view    func(*D) V
	write   func(ch *store.Change, cur, next *D) error
}

// steps are the differences between two lists.
func (k kind[D, V]) steps(cur, next []*D) []step {
	before, after := map[string]*D{}, map[string]*D{}
	for _, d := range cur {
		before[k.id(d)] = d
	}
	for _, d := range next {
		after[k.id(d)] = d
	}
	all := maps.Clone(before)
	maps.Copy(all, after)
	var list []step
	for _, id := range slices.Sorted(maps.Keys(all)) {
		b, a := before[id], after[id]
		s := step{PlanItem: api.PlanItem{Kind: k.name, ID: id}, section: k.section, cur: b, next: a}
		if k.write != nil {
			s.write = func(ch *store.Change) error { return k.write(ch, b, a) }
		}
		switch {
		case b == nil:
			s.effect = addition
		case a == nil:
			s.effect = removal
		case admin.Same(k.view(b), k.view(a)):
			continue
		default:
			s.Changes = store.Changes(k.view(b), k.view(a))
		}
		list = append(list, s)
	}
	return list
}

// domainSettings is a domain as a plan compares it.
type domainSettings struct {
	api.Domain
	SecurePasswordPolicy api.SecurePasswordPolicy `json:"secure_password_policy"`
}

// compare finds the steps from the present to the desired state.
func (p *plan) compare() {
	if p.cur.domain != nil {
		domain := kind[store.Domain, domainSettings]{
			"domain", sectionDomain, func(d *store.Domain) string { return d.Name },
			func(d *store.Domain) domainSettings {
				return domainSettings{viewDomain(d), admin.ViewSecurePasswordPolicy(&d.SecurePasswords)}
			},
			func(ch *store.Change, _, next *store.Domain) error { ch.PutDomain(next); return nil },
		}
		p.steps = domain.steps([]*store.Domain{p.cur.domain}, []*store.Domain{p.next.domain})
	}
	department := kind[store.Department, api.Department]{
		"department", sectionDepartments, func(d *store.Department) string { return d.Path }, admin.ViewDepartment,
		func(ch *store.Change, cur, next *store.Department) error {
			if next == nil {
				ch.DeleteDepartment(p.domain.Name(), cur.Path)
			} else {
				ch.PutDepartment(p.domain.Name(), next)
			}
			return nil
		},
	}
	policy := kind[store.Policy, api.Policy]{"policy", sectionPolicies, func(v *store.Policy) string { return v.ID }, viewPolicy, nil}
	block := kind[store.Block, api.IPBlock]{"ip_block", sectionBlocks, guard.Range, viewBlock, nil}
	blocks := block.steps(p.cur.blocks, p.next.blocks)
	for i := range blocks {
		blocks[i].ID = blocks[i].network()
	}
	rule := kind[store.MailRule, api.MailRule]{
		"mail_rule", sectionMailRules, func(r *store.MailRule) string { return r.ID }, viewRule,
		func(ch *store.Change, cur, next *store.MailRule) error {
			if next == nil {
				ch.DeleteMailRule(p.domain.Name(), cur.ID)
			} else {
				ch.PutMailRule(p.domain.Name(), next)
			}
			return nil
		},
	}
	group := kind[store.Group, api.Group]{
		"group", sectionGroups, func(g *store.Group) string { return g.Address }, viewGroup,
		func(ch *store.Change, cur, next *store.Group) error {
			if next == nil {
				ch.DeleteGroup(p.domain.Name(), cur.Address)
			} else {
				ch.PutGroup(p.domain.Name(), next)
			}
			return nil
		},
	}
	account := kind[store.Account, api.AccountSettings]{
		"account", sectionAccounts, func(a *store.Account) string { return a.Address }, viewAccount, p.writeAccount,
	}
	// Departments are removed last: accounts that are written before may still be in them.
	departments := department.steps(p.cur.departments, p.next.departments)
	removed := func(s step) bool { return s.effect == removal }
	p.steps = slices.Concat(p.steps, slices.DeleteFunc(slices.Clone(departments), removed), policy.steps(p.cur.policies, p.next.policies),
		blocks, rule.steps(p.cur.rules, p.next.rules), group.steps(p.cur.groups, p.next.groups), account.steps(p.cur.accounts, p.next.accounts),
		slices.DeleteFunc(departments, func(s step) bool { return !removed(s) }))
}

// network is that of a blocked address as the document spells it, or else the domain.
func (s *step) network() string {
	if next, _ := s.next.(*store.Block); next != nil {
		return next.Network
	}
	return s.cur.(*store.Block).Network
}

// rules is the part of the plan that can lock people out.
func (p *plan) rules() *guard.Edit {
	policies, blocks := map[string]*store.Policy{}, map[string]*store.Block{}
	for _, s := range p.steps {
		switch next := s.next.(type) {
		case *store.Policy:
			policies[s.ID] = next
		case *store.Block:
			if cur, _ := s.cur.(*store.Block); cur != nil {
				blocks[cur.ID] = next
			} else {
				blocks[next.ID] = next
			}
		}
	}
	return p.protects.With(policies, blocks)
}

// checkRevert refuses to revert a change of which only a part can be reverted.
func (p *plan) checkRevert() error {
	var f api.Faults
	if p.domain.RevertAfter > 0 && slices.ContainsFunc(p.steps, func(s step) bool { return s.write != nil }) {
		f.Parameter("revert_after", "conflict", "reverts policies and blocked addresses only, and the document changes more: apply the other sections first")
	}
	return f.Err()
}

// checkStale refuses a document that would overwrite a section which was changed since the export.
func (p *plan) checkStale() error {
	var f api.Faults
	for s := range sections {
		changes := slices.ContainsFunc(p.steps, func(step step) bool { return step.section == s })
		if p.base[s] != "" && p.base[s] != p.was[s] && changes {
			f.Add(s.field(), "stale", "was changed in the domain since the document was exported, and the document differs from it: "+
				"export it again and repeat your changes in that, or remove revision from the document to overwrite the changes")
		}
	}
	if len(f.List) == 0 {
		return nil
	}
	refusal := api.Conflict("stale", "the domain was changed since the document was exported; errors lists where")
	refusal.Errors = f.List
	return refusal
}

// removed are the accounts that the document leaves out, by address.
func (p *plan) removed() map[string]*store.Account {
	accounts := map[string]*store.Account{}
	for _, s := range p.steps {
		if a, ok := s.cur.(*store.Account); ok && s.effect == removal {
			accounts[a.Address] = a
		}
	}
	return accounts
}

// maxLifted is the number of addresses in a warning about suspensions.
const maxLifted = 10

// losses warns of secrets that are deleted and suspensions that are lifted.
func (p *plan) losses() (list []api.Warning) {
	lost := 0
	for _, a := range p.removed() {
		if a.MailboxHash != "" || len(a.Live(time.Now())) > 0 {
			lost++
		}
	}
	if lost > 0 {
		list = append(list, api.Warning{Code: "secrets_lost", Detail: fmt.Sprintf("Of the accounts to be removed, %d have secure passwords or a mailbox password here, which are deleted with them.", lost)})
	}
	var lifted []string
	for _, s := range p.steps {
		cur, _ := s.cur.(*store.Account)
		if next, _ := s.next.(*store.Account); cur != nil && next != nil && cur.Suspended && !next.Suspended {
			lifted = append(lifted, cur.Address)
		}
	}
	if p.next.domain != nil {
		if admin.MovesPasswords(p.cur.domain, p.next.domain) {
			list = append(list, api.Warning{Code: "passwords_moved", Detail: admin.TextPasswordsMove + "."})
		}
		if n := p.domain.ExpiringPasswords(p.cur.domain, p.next.domain); n > 0 {
			list = append(list, api.Warning{Code: "passwords_expire", Detail: fmt.Sprintf("The new max_age refuses %d mailbox passwords at once, because they are older.", n)})
		}
	}
	switch {
	case len(lifted) > maxLifted:
		list = append(list, api.Warning{Code: "suspensions_lifted", Detail: fmt.Sprintf("The suspensions of %d accounts are lifted.", len(lifted))})
	case len(lifted) > 0:
		list = append(list, api.Warning{Code: "suspensions_lifted", Detail: "The suspension is lifted of " + strings.Join(lifted, ", ") + "."})
	}
	return list
}
