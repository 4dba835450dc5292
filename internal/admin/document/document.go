// Package document exports a domain as one document, and applies a document to a domain: it
// compares what the document says with the domain, and makes the difference.
//
//	doc, err := document.Export(d, true)
//	plan, err := document.Apply(ctx, d, doc, &faults)   // with d's DryRun: what would change
//
// A section that a document does not have is left alone. A document with the revision that it was
// exported with does not overwrite what others changed since.
package document

import (
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/admin/mail"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// format is the version of the documents that this version reads and writes.
const format = 1

// maxAccounts is the number of accounts in one document, as in its schema.
const maxAccounts = 100_000

// section is a part of a document.
type section int

// The sections, in the order of a revision.
const (
	sectionDomain section = iota // with the secure password policy
	sectionDepartments
	sectionPolicies
	sectionBlocks
	sectionAccounts
	sectionMailRules
	sectionGroups
	sections
)

// field is the JSON pointer of a section.
func (s section) field() string {
	return [sections]string{"/domain", "/departments", "/policies", "/ip_blocks", "/accounts", "/mail_rules", "/groups"}[s]
}

// sectionsOf reports which sections a document has.
func sectionsOf(d *api.DomainDocument) [sections]bool {
	return [sections]bool{
		d.Domain != nil || d.SecurePasswordPolicy != nil, d.Departments != nil, d.Policies != nil, d.IPBlocks != nil, d.Accounts != nil,
		d.MailRules != nil, d.Groups != nil,
	}
}

// content is what documents contain of a domain, as it is stored. A missing section is nil.
type content struct {
	domain      *store.Domain
	departments []*store.Department
	policies    []*store.Policy
	blocks      []*store.Block
	accounts    []*store.Account
	rules       []*store.MailRule
	groups      []*store.Group
}

// contentOf reads sections of a domain; nil if it is no longer managed.
func contentOf(d *admin.Domain, has [sections]bool, now time.Time) *content {
	st := d.Store.State
	domain, ok := st.Domain(d.Name())
	if !ok {
		return nil
	}
	c := &content{}
	if has[sectionDomain] {
		c.domain = domain.Doc
	}
	if has[sectionDepartments] {
		c.departments = docs(st.Departments(d.Name()))
	}
	if has[sectionPolicies] {
		c.policies = docs(st.Policies(d.Name()))
	}
	if has[sectionBlocks] {
		c.blocks = docs(d.LiveIPBlocks(now))
	}
	if has[sectionAccounts] {
		c.accounts = docs(st.Accounts(d.Name(), "", 0))
	}
	if has[sectionMailRules] {
		c.rules = docs(st.MailRules(d.Name()))
	}
	if has[sectionGroups] {
		c.groups = docs(st.Groups(d.Name()))
	}
	return c
}

func docs[T any](list []store.Revised[T]) []*T {
	items := make([]*T, len(list))
	for i, r := range list {
		items[i] = r.Doc
	}
	return items
}

// A document contains what can be set: no secret, count or time, and no id that another site would
// not have.

func viewDomain(d *store.Domain) api.Domain {
	v := admin.ViewDomain(d)
	v.CreatedAt = time.Time{}
	return v
}

func viewPolicy(p *store.Policy) api.Policy {
	v := admin.ViewPolicy(p)
	v.CreatedAt, v.Managed = time.Time{}, ""
	return v
}

func viewBlock(b *store.Block) api.IPBlock {
	v := admin.ViewIPBlock(b)
	v.CreatedAt, v.ID = time.Time{}, ""
	return v
}

func viewRule(r *store.MailRule) api.MailRule {
	v := mail.ViewRule(r)
	v.CreatedAt = time.Time{}
	return v
}

func viewGroup(g *store.Group) api.Group {
	v := mail.ViewGroup(g)
	v.CreatedAt = time.Time{}
	return v
}

func viewAccount(a *store.Account) api.AccountSettings {
	v := admin.ViewAccount(a).AccountSettings
	v.Preset = "" // the switches say it: nobody should have to edit both
	return v
}

// document shows the content in a fixed order, with its revision.
func (c *content) document() *api.DomainDocument {
	d := &api.DomainDocument{Format: format}
	if c.domain != nil {
		domain, enforcement := viewDomain(c.domain), admin.ViewSecurePasswordPolicy(&c.domain.SecurePasswords)
		d.Domain, d.SecurePasswordPolicy = &domain, &enforcement
	}
	d.Departments = views(c.departments, func(v *store.Department) string { return v.Path }, admin.ViewDepartment)
	d.Policies = views(c.policies, func(v *store.Policy) string { return v.ID }, viewPolicy)
	d.IPBlocks = views(c.blocks, guard.Range, viewBlock)
	d.MailRules = views(c.rules, func(v *store.MailRule) string { return v.ID }, viewRule)
	d.Groups = views(c.groups, func(v *store.Group) string { return v.Address }, viewGroup)
	d.Accounts = views(c.accounts, func(v *store.Account) string { return v.Address }, viewAccount)
	d.Revision = revisionOf(d).String()
	return d
}

// views shows the items of a section, sorted; nil for a missing section.
func views[D, V any](items []*D, id func(*D) string, view func(*D) V) []V {
	if items == nil {
		return nil
	}
	list := make([]V, len(items))
	for i, d := range slices.SortedFunc(slices.Values(items), func(a, b *D) int { return strings.Compare(id(a), id(b)) }) {
		list[i] = view(d)
	}
	return list
}

// Export returns the settings of a domain as one document, with or without its accounts.
func Export(d *admin.Domain, accounts bool) (*api.DomainDocument, error) {
	c := contentOf(d, [sections]bool{true, true, true, true, accounts, true, true}, d.Time)
	if c == nil {
		return nil, api.NotFound("domain")
	}
	if len(c.accounts) > maxAccounts {
		return nil, api.Conflict("too_large", "the domain has more than %d accounts: export it without them", maxAccounts).OrRepeat("accounts=false")
	}
	return c.document(), nil
}
