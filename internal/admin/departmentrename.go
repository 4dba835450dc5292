package admin

import (
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// maxRenamed is the number of accounts that one renaming rewrites: it is one transaction.
const maxRenamed = 50_000

// renameDepartment moves a department with its subdepartments, and rewrites what names them.
func (d *Domain) renameDepartment(ch *store.Change, from string, next *store.Department) error {
	if _, taken := d.Store.State.Department(d.name, next.Path); taken {
		return api.Conflict("exists", "there is a department at that path already")
	}
	moved := func(path string) (string, bool) {
		if path == from {
			return next.Path, true
		}
		if rest, ok := strings.CutPrefix(path, from+"/"); ok {
			return next.Path + "/" + rest, true
		}
		return path, false
	}
	if d.revertsNaming(func(path string) bool { _, ok := moved(path); return ok }) > 0 {
		return api.Conflict("in_use", "a policy that names the department has a pending revert: confirm the change of the policy, or wait until it is reverted")
	}
	d.putWithParents(ch, next)
	for _, department := range d.Store.State.Departments(d.name) {
		to, ok := moved(department.Doc.Path)
		if !ok {
			continue
		}
		ch.DeleteDepartment(d.name, department.Doc.Path)
		if department.Doc.Path != from {
			renamed := *department.Doc
			renamed.Path = to
			ch.PutDepartment(d.name, &renamed)
		}
	}
	accounts := 0
	for _, a := range d.Store.State.Accounts(d.name, "", 0) {
		if !a.Doc.InDepartment(from) {
			continue
		}
		if accounts++; accounts > maxRenamed {
			return api.Conflict("too_large", "more than %d accounts belong to it: move them to the new department by batches first", maxRenamed)
		}
		account := *a.Doc
		account.Departments = slices.Clone(account.Departments)
		for i, path := range account.Departments {
			account.Departments[i], _ = moved(path)
		}
		ch.PutAccount(&account)
	}
	for _, p := range d.Store.State.Policies(d.name) {
		policy := *p.Doc
		if policy.Scope.RenameDepartments(moved) {
			ch.PutPolicy(d.name, &policy)
		}
	}
	for _, r := range d.Store.State.MailRules(d.name) {
		rule := *r.Doc
		if rule.RenameDepartments(moved) {
			ch.PutMailRule(d.name, &rule)
		}
	}
	for _, g := range d.Store.State.Groups(d.name) {
		group := *g.Doc
		if group.RenameDepartments(moved) {
			ch.PutGroup(d.name, &group)
		}
	}
	cur, ok := d.Store.State.Domain(d.name)
	if !ok {
		return api.NotFound("domain")
	}
	domain := *cur.Doc
	if domain.RenameDepartments(moved) {
		ch.PutDomain(&domain)
	}
	ch.Audit.Note = fmt.Sprintf("renamed, with %d accounts", accounts)
	return nil
}
