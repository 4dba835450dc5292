package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	maxDepartmentPath = 255 // bytes
	maxDepartmentPart = 100 // bytes of one name in it
)

// checkDepartment validates the path of a department.
func checkDepartment(path string) error {
	if len(path) > maxDepartmentPath {
		return fmt.Errorf("is longer than %d bytes", maxDepartmentPath)
	}
	for part := range strings.SplitSeq(path, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return errors.New(`has an empty part, or one that is "." or "..": write names separated by single slashes, as in sales/emea`)
		case len(part) > maxDepartmentPart:
			return fmt.Errorf("has a part longer than %d bytes", maxDepartmentPart)
		case strings.TrimSpace(part) != part || strings.ContainsFunc(part, unprintable) || strings.Contains(part, ";"):
			return errors.New("has a part that begins or ends with a space, or that has a semicolon or a character that does not print")
		}
	}
	return nil
}

// Parents returns the paths above a department, from the top down.
func Parents(path string) []string {
	var list []string
	for i, c := range path {
		if c == '/' {
			list = append(list, path[:i])
		}
	}
	return list
}

// UnnamedDepartment is a department whose name is the last part of its path.
func UnnamedDepartment(path string) *store.Department {
	return &store.Department{Path: path, Name: lastPart(path)}
}

func lastPart(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// ViewDepartment shows a department.
func ViewDepartment(d *store.Department) api.Department {
	return api.Department{Path: d.Path, Name: d.Name, SendAs: list(d.SendAs)}
}

// HasDepartment reports whether the domain has a department, or will have it.
func (d *Domain) HasDepartment(path string) bool {
	if d.planned.departments != nil {
		return d.planned.departments[path]
	}
	_, ok := d.Store.State.Department(d.name, path)
	return ok
}

// Departments returns one page of the departments, by path.
func (d *Domain) Departments(p Page) (*api.List[api.Department], error) {
	return PageOf(p, d.Store.State.Departments(d.name), func(v *store.Department) string { return v.Path }, ViewDepartment)
}

// Department returns a department.
func (d *Domain) Department(path string) (*Result[api.Department], error) {
	v, ok := d.Store.State.Department(d.name, path)
	if !ok {
		return nil, api.NotFound("department")
	}
	return &Result[api.Department]{View: ViewDepartment(v.Doc), Rev: v.Rev}, nil
}

// ReadDepartment validates a department. cur is the stored one, nil for none.
func (d *Domain) ReadDepartment(in *api.Department, cur *store.Department, f *api.Faults) *store.Department {
	next := store.Department{Path: in.Path, Name: in.Name}
	if err := checkDepartment(next.Path); err != nil {
		f.Add("/path", "invalid_path", "%v", err)
	}
	if strings.ContainsFunc(next.Name, unprintable) {
		f.Add("/name", "unprintable", "has a character that does not print")
	}
	if next.Name == "" {
		next.Name = lastPart(next.Path)
	}
	var kept []string
	if cur != nil {
		kept = cur.SendAs
	}
	next.SendAs = d.readSendAs(in.SendAs, kept, f)
	return &next
}

// PutDepartment creates or replaces a department, and creates missing parents.
func (d *Domain) PutDepartment(ctx context.Context, path string, in *api.Department, f *api.Faults) (*Result[api.Department], error) {
	if in.Path != "" && in.Path != path {
		f.Add("/path", "conflict", "is not the path of this department: rename the department to move it")
	}
	in.Path = path
	before, _ := d.Store.State.Department(d.name, path)
	next := d.ReadDepartment(in, before.Doc, f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	res := &Result[api.Department]{View: ViewDepartment(next)}
	err := d.Change(ctx, func(ch *store.Change) error {
		cur, exists := d.Store.State.Department(d.name, path)
		if err := d.Match(exists, cur.Rev); err != nil {
			return err
		}
		res.Created, res.Rev = !exists, ch.Rev
		if exists && Same(cur.Doc, next) {
			res.Rev = cur.Rev
			return nil
		}
		Describe(ch, "department.update", d.name, path)
		if !exists {
			Describe(ch, "department.create", d.name, path)
		}
		ch.Diff(cur.Doc, next)
		d.putWithParents(ch, next)
		return nil
	})
	return res, err
}

// putWithParents adds a department to a change, with its missing parents.
func (d *Domain) putWithParents(ch *store.Change, next *store.Department) {
	for _, path := range Parents(next.Path) {
		if _, ok := d.Store.State.Department(d.name, path); !ok {
			ch.PutDepartment(d.name, UnnamedDepartment(path))
		}
	}
	ch.PutDepartment(d.name, next)
}

// PatchDepartment changes a department. A new path renames it, with its subdepartments.
func (d *Domain) PatchDepartment(ctx context.Context, path string, edit Edit[api.Department]) (*Result[api.Department], error) {
	res := &Result[api.Department]{}
	err := d.Change(ctx, func(ch *store.Change) error {
		cur, ok := d.Store.State.Department(d.name, path)
		if err := d.Existing(ok, cur.Rev, "department"); err != nil {
			return err
		}
		var f api.Faults
		view := ViewDepartment(cur.Doc)
		if view.Name == lastPart(path) {
			view.Name = "" // follows the path
		}
		in, err := edit(&view, &f)
		if err != nil {
			return err
		}
		next := d.ReadDepartment(in, cur.Doc, &f)
		if strings.HasPrefix(next.Path, path+"/") {
			f.Add("/path", "conflict", "is below the department itself: choose another place")
		}
		if err := f.Err(); err != nil {
			return err
		}
		res.Rev, res.View = ch.Rev, ViewDepartment(next)
		if Same(cur.Doc, next) {
			res.Rev = cur.Rev
			return nil
		}
		Describe(ch, "department.update", d.name, path)
		ch.Diff(cur.Doc, next)
		if next.Path == path {
			ch.PutDepartment(d.name, next)
			return nil
		}
		return d.renameDepartment(ch, path, next)
	})
	return res, err
}

// DeleteDepartment deletes a department that nothing names, and returns its last state.
func (d *Domain) DeleteDepartment(ctx context.Context, path string) (*Result[api.Department], error) {
	res := &Result[api.Department]{}
	err := d.Change(ctx, func(ch *store.Change) error {
		cur, ok := d.Store.State.Department(d.name, path)
		if err := d.Existing(ok, cur.Rev, "department"); err != nil {
			return err
		}
		if in := d.departmentReferrers(path); len(in) > 0 {
			var users []string
			for _, kind := range slices.Sorted(maps.Keys(in)) {
				users = append(users, counted(in[kind], referrerWords[kind]))
			}
			p := api.Conflict("in_use", "the department is in use by %s: remove it there first", strings.Join(users, ", "))
			p.Referrers = in
			return p
		}
		res.View = ViewDepartment(cur.Doc)
		Describe(ch, "department.delete", d.name, path)
		ch.Diff(cur.Doc, nil)
		ch.DeleteDepartment(d.name, path)
		return nil
	})
	return res, err
}

// referrerWords are the kinds of what can name a department.
var referrerWords = map[string]string{
	"accounts": "account", "departments": "subdepartment", "policies": "policy", "mail_rules": "mail rule", "groups": "group",
	"secure_password_policy": "enforcement of secure passwords", "second_factor": "requirement of a second factor", "reverts": "pending revert",
}

// departmentReferrers counts what names a department, by kind.
func (d *Domain) departmentReferrers(path string) map[string]int {
	n := map[string]int{}
	for _, a := range d.Store.State.Accounts(d.name, "", 0) {
		if slices.Contains(a.Doc.Departments, path) {
			n["accounts"]++
		}
	}
	for _, other := range d.Store.State.Departments(d.name) {
		if strings.HasPrefix(other.Doc.Path, path+"/") {
			n["departments"]++
		}
	}
	is := func(p string) bool { return p == path }
	for _, p := range d.Store.State.Policies(d.name) {
		if namesDepartment(&p.Doc.Scope, is) {
			n["policies"]++
		}
	}
	same := func(p string) (string, bool) { return p, p == path }
	for _, r := range d.Store.State.MailRules(d.name) {
		if rule := *r.Doc; rule.RenameDepartments(same) {
			n["mail_rules"]++
		}
	}
	for _, g := range d.Store.State.Groups(d.name) {
		if group := *g.Doc; group.RenameDepartments(same) {
			n["groups"]++
		}
	}
	if domain, ok := d.Store.State.Domain(d.name); ok {
		if namesDepartment(&domain.Doc.SecurePasswords.Scope, is) {
			n["secure_password_policy"]++
		}
		if second := domain.Doc.SecondFactor; second != nil && namesDepartment(&second.Scope, is) {
			n["second_factor"]++
		}
	}
	if reverts := d.revertsNaming(is); reverts > 0 {
		n["reverts"] = reverts
	}
	return n
}

func namesDepartment(s *access.Scope, is func(path string) bool) bool {
	return slices.ContainsFunc(ScopeDepartments(s), func(d access.ScopeDepartment) bool { return is(d.Path) })
}

// revertsNaming counts the pending reverts of policies that name a department, now or once
// reverted.
func (d *Domain) revertsNaming(is func(path string) bool) (reverts int) {
	for _, r := range d.Store.State.Reverts(d.name) {
		for id, before := range r.Doc.Policies {
			cur, _ := d.Store.State.Policy(d.name, id)
			if before != nil && namesDepartment(&before.Scope, is) || cur.Doc != nil && namesDepartment(&cur.Doc.Scope, is) {
				reverts++
				break
			}
		}
	}
	return reverts
}
