package console

import (
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
)

// maxTree is how many departments a form shows as a tree; beyond it, paths are entered.
const maxTree = 300

// scopeForm is what a form shows of a scope, and of the departments that it can select.
type scopeForm struct {
	Scope  *api.Scope
	Except api.Exceptions
	Tree   []*branch // nil: none, or more than maxTree
	Many   bool      // more than maxTree
	Step   int       // of the form that it is a part of, 0 for none
}

// branch is a department in a tree, with what a scope says of it.
type branch struct {
	api.Department
	Leaf string // the last part of its path
	Mark string // in, in-only, out, out-only (without subdepartments), or "" for nothing
	Sub  []*branch
}

// scopeForm returns the form of a scope of a domain; nil selects nobody.
func (v *visit) scopeForm(d *admin.Domain, s *api.Scope) (f scopeForm, err error) {
	list, err := d.Departments(admin.Page{Limit: maxTree})
	if err != nil {
		return f, err
	}
	if f.Scope = s; s == nil {
		f.Scope = &api.Scope{}
	}
	if f.Scope.Except != nil {
		f.Except = *f.Scope.Except
	}
	f.Many = list.Next != ""
	if !f.Many {
		f.Tree = tree(list.Items, f.Scope.Departments, f.Except.Departments)
	}
	return f, nil
}

// tree arranges departments below their parents. The list is sorted by path.
func tree(list []api.Department, in, out []api.ScopeDepartment) (roots []*branch) {
	at := map[string]*branch{}
	for _, d := range list {
		b := &branch{Department: d}
		for _, m := range []struct {
			word  string
			among []api.ScopeDepartment
		}{{"in", in}, {"out", out}} {
			if i := slices.IndexFunc(m.among, func(s api.ScopeDepartment) bool { return s.Path == d.Path }); i >= 0 {
				b.Mark = m.word
				if !m.among[i].Sub {
					b.Mark += "-only"
				}
			}
		}
		at[d.Path] = b
		up := strings.LastIndexByte(d.Path, '/')
		b.Leaf = d.Path[up+1:]
		if parent := at[d.Path[:max(up, 0)]]; parent != nil {
			parent.Sub = append(parent.Sub, b)
		} else {
			roots = append(roots, b)
		}
	}
	return roots
}

// scope reads the scope fields of a form: marks in the tree, and paths and addresses in lines.
func (v *visit) scope() *api.Scope {
	departments := func(field, mark string) (list []api.ScopeDepartment) {
		for _, path := range v.rows(field) {
			path, only := strings.CutSuffix(path, "/.")
			list = append(list, api.ScopeDepartment{Path: path, Sub: !only})
		}
		for _, marked := range v.R.PostForm["tree"] {
			word, path, _ := strings.Cut(marked, ":")
			if word, only := strings.CutSuffix(word, "-only"); word == mark {
				list = append(list, api.ScopeDepartment{Path: path, Sub: !only})
			}
		}
		return list
	}
	s := &api.Scope{All: v.Value("all") == "true"}
	if !s.All {
		s.Departments, s.Members = departments("departments", "in"), v.Lines("members")
	}
	if out := (api.Exceptions{Departments: departments("except_departments", "out"), Members: v.Lines("except_members")}); out.Departments != nil || len(out.Members) > 0 {
		s.Except = &out
	}
	return s
}
