package adminapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	maxDepartmentPath = 255 // bytes
	maxDepartmentPart = 100 // bytes of one name in it
	// maxRenamed bounds the accounts that one renaming rewrites: it is one transaction.
	maxRenamed = 50_000
)

// checkDepartment says what is wrong with a department's path.
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

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// parents returns the paths above a department, from the top down.
func parents(path string) []string {
	var list []string
	for i, c := range path {
		if c == '/' {
			list = append(list, path[:i])
		}
	}
	return list
}

func viewDepartment(d *store.Department) api.Department {
	return api.Department{Path: d.Path, Name: d.Name, SendAs: list(d.SendAs)}
}

func listDepartments(c *call) (*answer, error) {
	return listed(c, c.Store.State.Departments(c.domain), func(d *store.Department) string { return d.Path }, viewDepartment)
}

func getDepartment(c *call) (*answer, error) {
	d, ok := c.Store.State.Department(c.domain, c.r.PathValue("path"))
	if !ok {
		return nil, api.NotFound("department")
	}
	return found(d.Rev, viewDepartment(d.Doc)), nil
}

// makeDepartment adds a department to a change, with those above it that are missing.
func (c *call) makeDepartment(ch *store.Change, d *store.Department) {
	for _, path := range parents(d.Path) {
		if _, ok := c.Store.State.Department(c.domain, path); !ok {
			ch.PutDepartment(c.domain, &store.Department{Path: path, Name: lastPart(path)})
		}
	}
	ch.PutDepartment(c.domain, d)
}

func lastPart(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// departmentOf reads a department as it was sent. cur is the stored one, nil for none.
func (c *call) departmentOf(in *api.Department, cur *store.Department, f *api.Faults) *store.Department {
	d := store.Department{Path: in.Path, Name: in.Name}
	if err := checkDepartment(d.Path); err != nil {
		f.Add("/path", "invalid_path", "%v", err)
	}
	if strings.ContainsFunc(d.Name, unprintable) {
		f.Add("/name", "unprintable", "has a character that does not print")
	}
	if d.Name == "" {
		d.Name = lastPart(d.Path)
	}
	var kept []string
	if cur != nil {
		kept = cur.SendAs
	}
	d.SendAs = c.sendAs(in.SendAs, kept, "", f)
	return &d
}

func putDepartment(c *call) (*answer, error) {
	path := c.r.PathValue("path")
	var f api.Faults
	in := rest.Decode[api.Department](c.schemas, c.body, &f)
	if in.Path != "" && in.Path != path {
		f.Add("/path", "conflict", "is not the one in the URL: PATCH renames a department")
	}
	in.Path = path
	before, _ := c.Store.State.Department(c.domain, path)
	next := c.departmentOf(in, before.Doc, &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	ans := &answer{etag: true, body: viewDepartment(next)}
	err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		if !c.managed(c.domain) {
			return api.NotFound("domain")
		}
		cur, exists := c.Store.State.Department(c.domain, path)
		if err := c.match(exists, cur.Rev); err != nil {
			return err
		}
		ans.status, ans.rev = 0, ch.Rev
		if exists && same(cur.Doc, next) {
			ans.rev = cur.Rev
			return nil
		}
		audit(ch, "department.update", c.domain, path)
		if !exists {
			ans.status, ans.location = http.StatusCreated, c.departmentURL(path)
			audit(ch, "department.create", c.domain, path)
		}
		ch.Diff(cur.Doc, next)
		c.makeDepartment(ch, next)
		return nil
	})
	return ans, err
}

func (c *call) departmentURL(path string) string {
	parts := strings.Split(path, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return "/v1/domains/" + url.PathEscape(c.domain) + "/departments/" + strings.Join(parts, "/")
}

func patchDepartment(c *call) (*answer, error) {
	path := c.r.PathValue("path")
	ans := &answer{etag: true}
	err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		cur, ok := c.Store.State.Department(c.domain, path)
		if !ok {
			return api.NotFound("department")
		}
		if err := c.match(true, cur.Rev); err != nil {
			return err
		}
		var f api.Faults
		view := viewDepartment(cur.Doc)
		if view.Name == lastPart(path) {
			view.Name = "" // follows the path
		}
		in, err := rest.Patch(c.schemas, &view, c.body, &f)
		if err != nil {
			return err
		}
		next := c.departmentOf(in, cur.Doc, &f)
		if strings.HasPrefix(next.Path, path+"/") {
			f.Add("/path", "conflict", "is below the department itself: choose another place")
		}
		if err := f.Err(); err != nil {
			return err
		}
		ans.rev, ans.body = ch.Rev, viewDepartment(next)
		if same(cur.Doc, next) {
			ans.rev = cur.Rev
			return nil
		}
		audit(ch, "department.update", c.domain, path)
		ch.Diff(cur.Doc, next)
		if next.Path == path {
			ch.PutDepartment(c.domain, next)
			return nil
		}
		ans.location = c.departmentURL(next.Path)
		return c.rename(ch, path, next)
	})
	return ans, err
}

// rename moves a department with those below it, and rewrites whatever names them.
func (c *call) rename(ch *store.Change, from string, next *store.Department) error {
	if _, taken := c.Store.State.Department(c.domain, next.Path); taken {
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
	if c.unconfirmed(func(path string) bool { _, ok := moved(path); return ok }) > 0 {
		return api.Conflict("in_use", "a change of a policy that names it is not confirmed yet: confirm that, or wait until it is undone")
	}
	c.makeDepartment(ch, next)
	for _, d := range c.Store.State.Departments(c.domain) {
		to, ok := moved(d.Doc.Path)
		if !ok {
			continue
		}
		ch.DeleteDepartment(c.domain, d.Doc.Path)
		if d.Doc.Path != from {
			department := *d.Doc
			department.Path = to
			ch.PutDepartment(c.domain, &department)
		}
	}
	accounts := 0
	for _, a := range c.Store.State.Accounts(c.domain, "", 0) {
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
	for _, p := range c.Store.State.Policies(c.domain) {
		policy := *p.Doc
		if renameScope(&policy.Scope, moved) {
			ch.PutPolicy(c.domain, &policy)
		}
	}
	d, ok := c.Store.State.Domain(c.domain)
	if !ok {
		return api.NotFound("domain")
	}
	domain := *d.Doc
	if renameScope(&domain.SecurePasswords.Scope, moved) {
		ch.PutDomain(&domain)
	}
	ch.Audit.Note = fmt.Sprintf("renamed, with %d accounts", accounts)
	return nil
}

// renameScope rewrites departments in a copy of a scope's lists, and reports whether there was
// anything to rewrite.
func renameScope(s *access.Scope, moved func(string) (string, bool)) bool {
	changed := false
	rename := func(list []access.ScopeDepartment) []access.ScopeDepartment {
		list = slices.Clone(list)
		for i := range list {
			to, ok := moved(list[i].Path)
			list[i].Path, changed = to, changed || ok
		}
		return list
	}
	s.Departments = rename(s.Departments)
	s.Except.Departments = rename(s.Except.Departments)
	return changed
}

func deleteDepartment(c *call) (*answer, error) {
	path := c.r.PathValue("path")
	ans := &answer{}
	err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		cur, ok := c.Store.State.Department(c.domain, path)
		if !ok {
			return api.NotFound("department")
		}
		if err := c.match(true, cur.Rev); err != nil {
			return err
		}
		if in := c.referrers(path); len(in) > 0 {
			p := api.Conflict("in_use", "the department is in use: take out of it what referrers counts first")
			p.Referrers = in
			return p
		}
		ans.body = viewDepartment(cur.Doc)
		audit(ch, "department.delete", c.domain, path)
		ch.Diff(cur.Doc, nil)
		ch.DeleteDepartment(c.domain, path)
		return nil
	})
	return ans, err
}

// referrers counts what names a department, by kind.
func (c *call) referrers(path string) map[string]int {
	n := map[string]int{}
	for _, a := range c.Store.State.Accounts(c.domain, "", 0) {
		if slices.Contains(a.Doc.Departments, path) {
			n["accounts"]++
		}
	}
	for _, d := range c.Store.State.Departments(c.domain) {
		if strings.HasPrefix(d.Doc.Path, path+"/") {
			n["departments"]++
		}
	}
	is := func(p string) bool { return p == path }
	names := func(s *access.Scope) bool { return namesDepartment(s, is) }
	for _, p := range c.Store.State.Policies(c.domain) {
		if names(&p.Doc.Scope) {
			n["policies"]++
		}
	}
	if d, ok := c.Store.State.Domain(c.domain); ok && names(&d.Doc.SecurePasswords.Scope) {
		n["secure_password_policy"]++
	}
	if reverts := c.unconfirmed(is); reverts > 0 {
		n["reverts"] = reverts
	}
	return n
}

func namesDepartment(s *access.Scope, is func(path string) bool) bool {
	named := func(d access.ScopeDepartment) bool { return is(d.Path) }
	return slices.ContainsFunc(s.Departments, named) || slices.ContainsFunc(s.Except.Departments, named)
}

// unconfirmed counts the changes which, undone, would bring back policies that name a department.
func (c *call) unconfirmed(is func(path string) bool) (reverts int) {
	for _, r := range c.Store.State.Reverts(c.domain) {
		for id, before := range r.Doc.Policies {
			cur, _ := c.Store.State.Policy(c.domain, id)
			if before != nil && namesDepartment(&before.Scope, is) || cur.Doc != nil && namesDepartment(&cur.Doc.Scope, is) {
				reverts++
				break
			}
		}
	}
	return reverts
}
