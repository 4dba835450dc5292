package adminapi

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// applyTries bounds how often a document is held against a domain anew because the domain changed
// between the look and the change.
const applyTries = 4

// errMoved is that change.
var errMoved = errors.New("the domain changed meanwhile")

// applyDomain makes a domain what a document says (F32).
func applyDomain(c *call) (*answer, error) {
	var f api.Faults
	in := rest.Decode[api.DomainDocument](c.schemas, c.body, &f)
	if in.Domain != nil {
		if name, err := address.ParseDomain(in.Domain.Name); err != nil || name != c.domain {
			f.Add("/domain/name", "conflict", "is not the domain in the URL: apply the document to its own domain, or correct the name")
		}
	}
	base, ok := parseRevision(in.Revision)
	if in.Revision != "" && !ok {
		f.Add("/revision", "malformed", "is no revision that an export has: leave it as it was exported, or leave it out to overwrite what there is")
	}
	e := &guard.Edit{}
	if in.Policies != nil || in.IPBlocks != nil {
		var err error
		if e, err = c.guard.Begin(c.ctx, c.edits()); err != nil {
			return nil, err
		}
	}
	for range applyTries {
		var p *plan
		err := c.Store.Update(c.ctx, store.ShardOf(c.domain), c.id.actor, true, func(ch *store.Change) (err error) {
			p, err = c.plan(ch, in, base, e, &f)
			return err
		})
		if err == nil && !c.dryRun {
			err = p.carryOut()
		}
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return p.answer(), nil
	}
	return nil, api.Conflict("interrupted", "other changes keep coming between; nothing was changed: apply it again")
}

// plan is what a document changes, at a head of the domain's shard.
type plan struct {
	c    *call
	in   *api.DomainDocument
	base revision // that the document was exported with
	cur  *content
	next *content
	was  revision // of cur
	head store.Head
	// protects is an edit that protects the people whom the plan must not lock out.
	protects *guard.Edit
	// steps are in the order in which they are made.
	steps []step
	// pending tells when what was made undoes itself.
	pending *api.PendingRevert
}

// step is one change of a plan.
type step struct {
	api.PlanItem
	does      effect
	section   section
	cur, next any                       // as the store keeps it; nil pointers for nothing
	write     func(*store.Change) error // nil for what the guard writes
}

// plan holds a document against the domain as it is.
func (c *call) plan(ch *store.Change, in *api.DomainDocument, base revision, protects *guard.Edit, f *api.Faults) (*plan, error) {
	p := &plan{c: c, in: in, base: base, protects: protects, head: c.Store.State.Head(store.ShardOf(c.domain))}
	if p.cur = c.content(sectionsOf(in), ch.Now); p.cur == nil {
		return nil, api.NotFound("domain")
	}
	p.was = revisionOf(p.cur.document())
	if err := c.matchTag(true, quoted(p.was.String())); err != nil {
		return nil, err
	}
	p.next = c.desired(in, p.cur, ch, f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	if p.next.domain != nil {
		if err := c.mayName(p.cur.domain, p.next.domain); err != nil {
			return nil, err
		}
	}
	p.compare()
	if err := p.stale(); err != nil {
		return nil, err
	}
	if err := p.undoable(); err != nil {
		return nil, err
	}
	if err := c.guard.Check(ch.Now, c.edits(), p.edit()); err != nil {
		return nil, err
	}
	for _, a := range p.removed() {
		if err := mayDelete(a); err != nil {
			return nil, err
		}
	}
	if warnings := p.losses(); len(warnings) > 0 && !c.dryRun && !c.flag("confirm") {
		var all []string
		for _, w := range warnings {
			all = append(all, w.Detail)
		}
		return nil, api.Conflict("confirm_required", "%s Repeat with ?confirm=true.", strings.Join(all, " "))
	}
	return p, nil
}

// resource is a kind of thing in a document: what tells one from another, what a document shows of
// it, and how it is written, nothing (nil) for a removal; no write for what the guard writes.
type resource[D, V any] struct {
	kind    string
	section section
	id      func(*D) string
	view    func(*D) V
	write   func(ch *store.Change, cur, next *D) error
}

// steps are what is different.
func (r resource[D, V]) steps(cur, next []*D) []step {
	before, after := map[string]*D{}, map[string]*D{}
	for _, d := range cur {
		before[r.id(d)] = d
	}
	for _, d := range next {
		after[r.id(d)] = d
	}
	all := maps.Clone(before)
	maps.Copy(all, after)
	var list []step
	for _, id := range slices.Sorted(maps.Keys(all)) {
		b, a := before[id], after[id]
		s := step{PlanItem: api.PlanItem{Kind: r.kind, ID: id}, section: r.section, cur: b, next: a}
		if r.write != nil {
			s.write = func(ch *store.Change) error { return r.write(ch, b, a) }
		}
		switch {
		case b == nil:
			s.does = addition
		case a == nil:
			s.does = removal
		case same(r.view(b), r.view(a)):
			continue
		default:
			s.Changes = store.Changes(r.view(b), r.view(a))
		}
		list = append(list, s)
	}
	return list
}

// shownSettings is a domain as a plan compares it.
type shownSettings struct {
	api.Domain
	SecurePasswordPolicy api.SecurePasswordPolicy `json:"secure_password_policy"`
}

// compare finds the steps from what is to what is wanted.
func (p *plan) compare() {
	c := p.c
	if p.cur.domain != nil {
		domain := resource[store.Domain, shownSettings]{
			"domain", sectionDomain, func(d *store.Domain) string { return d.Name },
			func(d *store.Domain) shownSettings {
				return shownSettings{shownDomain(d), viewSecurePolicy(&d.SecurePasswords)}
			},
			func(ch *store.Change, _, next *store.Domain) error { ch.PutDomain(next); return nil },
		}
		p.steps = domain.steps([]*store.Domain{p.cur.domain}, []*store.Domain{p.next.domain})
	}
	department := resource[store.Department, api.Department]{
		"department", sectionDepartments, func(d *store.Department) string { return d.Path }, viewDepartment,
		func(ch *store.Change, cur, next *store.Department) error {
			if next == nil {
				ch.DeleteDepartment(c.domain, cur.Path)
			} else {
				ch.PutDepartment(c.domain, next)
			}
			return nil
		},
	}
	policy := resource[store.Policy, api.Policy]{"policy", sectionPolicies, func(v *store.Policy) string { return v.ID }, shownPolicy, nil}
	block := resource[store.Block, api.IPBlock]{"ip_block", sectionBlocks, guard.Range, shownBlock, nil}
	blocks := block.steps(p.cur.blocks, p.next.blocks)
	for i := range blocks {
		blocks[i].ID = blocks[i].network() // people know it as it is written, not by the range
	}
	account := resource[store.Account, api.AccountSettings]{
		"account", sectionAccounts, func(a *store.Account) string { return a.Address }, shownAccount, c.writeAccount,
	}
	// Departments go last: in between, accounts that are still to be written may be in them.
	departments := department.steps(p.cur.departments, p.next.departments)
	gone := func(s step) bool { return s.does == removal }
	p.steps = slices.Concat(p.steps, slices.DeleteFunc(slices.Clone(departments), gone), policy.steps(p.cur.policies, p.next.policies),
		blocks, account.steps(p.cur.accounts, p.next.accounts),
		slices.DeleteFunc(departments, func(s step) bool { return !gone(s) }))
}

// network is the one that a step of a blocked address is about, as the document has it, or else as
// the domain has it.
func (s *step) network() string {
	if next, _ := s.next.(*store.Block); next != nil {
		return next.Network
	}
	return s.cur.(*store.Block).Network
}

// edit is the part of a plan that can lock people out.
func (p *plan) edit() *guard.Edit {
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

// undoable refuses that a change undo itself of which only a part could.
func (p *plan) undoable() error {
	var f api.Faults
	if p.c.query.Has("revert_after") && slices.ContainsFunc(p.steps, func(s step) bool { return s.write != nil }) {
		f.Parameter("revert_after", "conflict", "undoes policies and blocked addresses only, and the document changes more: apply the other sections first")
	}
	return f.Err()
}

// writeAccount writes an account's record as it was planned, with the secrets that it has by now.
// It may be a later transaction than the one that the plan was held against: what somebody set
// meanwhile is not overwritten.
func (c *call) writeAccount(ch *store.Change, cur, next *store.Account) error {
	planned := next
	if planned == nil {
		planned = cur
	}
	now, exists := c.Store.State.Account(planned.Address)
	if exists != (cur != nil) || exists && !same(shownAccount(now.Doc), shownAccount(cur)) {
		return api.Conflict("interrupted", "somebody else changed an account of the document meanwhile: export the domain again, and apply what is still to be done")
	}
	if next == nil {
		ch.DeleteAccount(cur.Address)
		return nil
	}
	written := *next
	if exists {
		written.Secrets, written.MailboxHash, written.MailboxSetAt = now.Doc.Secrets, now.Doc.MailboxHash, now.Doc.MailboxSetAt
	}
	ch.PutAccount(&written)
	return nil
}

// stale refuses a document of which a section was changed in the domain since it was exported, and
// says otherwise: whoever changed it would lose that.
func (p *plan) stale() error {
	var f api.Faults
	for s := range sections {
		changes := slices.ContainsFunc(p.steps, func(step step) bool { return step.section == s })
		if p.base[s] != "" && p.base[s] != p.was[s] && changes {
			f.Add(s.field(), "stale", "was changed in the domain since the document was exported, and the document says otherwise: "+
				"export it again and put what you want into that, or take revision out of the document to overwrite what was changed")
		}
	}
	if len(f.List) == 0 {
		return nil
	}
	refusal := api.Conflict("stale", "the domain was changed since the document was exported; errors lists where")
	refusal.Errors = f.List
	return refusal
}

// removed are the accounts that the document leaves out.
func (p *plan) removed() map[string]*store.Account {
	gone := map[string]*store.Account{}
	for _, s := range p.steps {
		if a, ok := s.cur.(*store.Account); ok && s.does == removal {
			gone[a.Address] = a
		}
	}
	return gone
}

// losses warns of secrets that would be deleted and of suspensions that would be lifted.
func (p *plan) losses() (list []api.Warning) {
	if lost := p.secretsLost(); lost > 0 {
		list = append(list, api.Warning{Code: "secrets_lost", Detail: fmt.Sprintf("Of the accounts to be removed, %d have secure passwords or a mailbox password here, which are deleted with them.", lost)})
	}
	var lifted []string
	for _, s := range p.steps {
		cur, _ := s.cur.(*store.Account)
		if next, _ := s.next.(*store.Account); cur != nil && next != nil && cur.Suspended && !next.Suspended {
			lifted = append(lifted, cur.Address)
		}
	}
	if len(lifted) > 0 {
		list = append(list, api.Warning{Code: "suspensions_lifted", Detail: "The suspension is lifted of " + strings.Join(lifted[:min(len(lifted), 10)], ", ") + "."})
		if len(lifted) > 10 {
			list[len(list)-1].Detail = fmt.Sprintf("The suspensions of %d accounts are lifted.", len(lifted))
		}
	}
	return list
}

// secretsLost counts the accounts that would be removed with a live secret.
func (p *plan) secretsLost() (lost int) {
	for _, a := range p.removed() {
		if a.MailboxHash != "" || len(a.Live()) > 0 {
			lost++
		}
	}
	return lost
}

// carryOut makes the changes of a plan. All of them are one transaction, unless there are more
// accounts than one transaction takes: then those that are left follow in further ones, and last
// the departments that go.
func (p *plan) carryOut() error {
	c := p.c
	if len(p.steps) == 0 {
		return nil
	}
	if p.next.domain != nil && !slices.Equal(p.next.domain.AliasDomains, list(p.cur.domain.AliasDomains)) {
		c.names.Lock()
		defer c.names.Unlock()
		if err := c.claim(c.domain, append([]string{c.domain}, p.next.domain.AliasDomains...)); err != nil {
			return err
		}
	}
	// Keys first: one that outlived its account would open the next of that name.
	if gone := p.removed(); len(gone) > 0 {
		if err := c.revokeKeys(c.domain, func(k *store.Key) bool { return gone[k.Account] != nil }); err != nil {
			return err
		}
	}
	parts := p.parts()
	for i := range parts {
		err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
			if i == 0 && c.Store.State.Head(store.ShardOf(c.domain)) != p.head {
				again, err := c.plan(ch, p.in, p.base, p.protects, &api.Faults{})
				if err != nil {
					return err
				}
				if again.was != p.was {
					return errMoved
				}
				*p, parts = *again, again.parts() // what moved was something else, such as a secret
			}
			if i > 0 && parts[i][0].section == sectionDepartments {
				if err := c.vacated(parts[i]); err != nil {
					return err
				}
			}
			return p.write(ch, parts[i])
		})
		if err != nil && i > 0 {
			refusal := *problemOf(err)
			refusal.Detail = fmt.Sprintf("all but %d changes were made, and then: %s", len(slices.Concat(parts[i:]...)), refusal.Detail)
			c.Log.Error("applying a document", "domain", c.domain, "error", err)
			return &refusal
		}
		if err != nil {
			return err
		}
	}
	if p.next.domain != nil {
		if names := givenUp(p.cur.domain, p.next.domain); len(names) > 0 {
			c.release(c.domain, names)
		}
	}
	return nil
}

// vacated refuses to take departments away into which somebody else put something while the parts
// before were made.
func (c *call) vacated(steps []step) error {
	c.planned.departments = map[string]bool{}
	defer func() { c.planned = planned{} }()
	for _, d := range c.Store.State.Departments(c.domain) {
		c.planned.departments[d.Doc.Path] = true
	}
	for _, s := range steps {
		delete(c.planned.departments, s.ID)
	}
	var f api.Faults
	c.stillNamed(&api.DomainDocument{}, &f)
	for path := range c.planned.departments {
		if slices.ContainsFunc(parents(path), func(parent string) bool { return !c.planned.departments[parent] }) {
			f.Add("/departments", "in_use", "leaves out a department with one below it")
		}
	}
	if len(f.List) > 0 {
		return api.Conflict("interrupted", "somebody else put something meanwhile into departments that the document leaves out: export the domain again, and apply what is still to be done")
	}
	return nil
}

// parts divides the steps into what one transaction takes. Of several, the last has what can only
// go when all else is done.
func (p *plan) parts() [][]step {
	first := slices.IndexFunc(p.steps, func(s step) bool { return s.section == sectionAccounts })
	if first < 0 {
		return [][]step{p.steps}
	}
	end := len(p.steps)
	for p.steps[end-1].section != sectionAccounts {
		end--
	}
	parts := slices.Collect(slices.Chunk(p.steps[first:end], chunk))
	parts[0] = slices.Concat(p.steps[:first], parts[0])
	switch gone := p.steps[end:]; {
	case len(parts) == 1:
		return [][]step{p.steps}
	case len(gone) > 0:
		parts = append(parts, gone)
	}
	return parts
}

func (p *plan) write(ch *store.Change, steps []step) error {
	count := map[effect]int{}
	edited := false
	for _, s := range steps {
		count[s.does]++
		ch.DiffOf(s.Kind+"/"+s.ID, s.cur, s.next)
		if s.write == nil {
			edited = true
			continue
		}
		if err := s.write(ch); err != nil {
			return err
		}
	}
	audit(ch, "domain.apply", p.c.domain, p.c.domain)
	ch.Audit.Note = fmt.Sprintf("%d added, %d changed, %d removed", count[addition], count[alteration], count[removal])
	if !edited {
		return nil
	}
	var err error
	p.pending, err = p.c.edit(ch, p.edit()) // they are all in one part
	return err
}

// effect is what a step does.
type effect uint8

const (
	alteration effect = iota
	addition
	removal
)

// answer tells of a plan, with the revision that the domain has now: before the change for a dry
// run, and else after it.
func (p *plan) answer() *answer {
	v := api.Plan{Applied: !p.c.dryRun, Additions: []api.PlanItem{}, Changes: []api.PlanItem{}, Removals: []api.PlanItem{}, Revision: p.was.String(), Pending: p.pending}
	if v.Applied {
		v.Revision = p.next.document().Revision
	}
	for _, s := range p.steps {
		switch s.does {
		case addition:
			v.Additions = append(v.Additions, s.PlanItem)
		case removal:
			v.Removals = append(v.Removals, s.PlanItem)
		case alteration:
			v.Changes = append(v.Changes, s.PlanItem)
		}
		if next, ok := s.next.(*store.Policy); ok && next != nil {
			for _, w := range p.c.policyWarnings(next) {
				v.Warnings = append(v.Warnings, api.Warning{Code: w.Code, Detail: "Policy " + next.ID + ": " + w.Detail})
			}
		}
	}
	v.Warnings = append(v.Warnings, p.losses()...)
	return &answer{tag: quoted(v.Revision), body: v, pending: p.pending}
}
