package console

import (
	"math"
	"net/url"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/web"
)

// maxTree is how many departments a page shows as a tree. Of more it shows one level after the other,
// and finds up to maxFound.
const maxTree, maxFound = 300, 50

// scopeForm is what a form shows of a scope, and of the departments that it can select.
type scopeForm struct {
	Scope  *api.Scope
	Except api.Exceptions
	Tree   []*branch // nil: none, or more than maxTree
	Many   *level    // more than maxTree; nil: fewer
	Step   int       // of the form that it is a part of, 0 for none
}

// branch is a department in a tree, with what a scope says of it.
type branch struct {
	api.Department
	Leaf string // the last part of its path
	Mark string // in, in-only, out, out-only (without subdepartments), or "" for nothing
	Sub  []*branch
	// Below counts the departments below it, at any depth; only in a level.
	Below int
}

// level is a part of many departments: those directly below one of them, or those that were found.
type level struct {
	At     string // the path of the page that shows another level
	Marked []*branch
	Items  []*branch // without those that are marked
	Under  string    // "" for the first level
	Above  []string  // the departments above Under, and it
	Find   string
	More   int // that are not shown
}

// scopeForm returns the form of a scope of a domain; nil selects nobody.
func (v *visit) scopeForm(d *admin.Domain, s *api.Scope) (f scopeForm, err error) {
	list, err := d.Departments(admin.Page{Limit: math.MaxInt})
	if err != nil {
		return f, err
	}
	if f.Scope = s; s == nil {
		f.Scope = &api.Scope{}
	}
	if f.Scope.Except != nil {
		f.Except = *f.Scope.Except
	}
	if len(list.Items) > maxTree {
		f.Many = v.level(list.Items, f.Scope.Departments, f.Except.Departments)
	} else {
		f.Tree = tree(list.Items, f.Scope.Departments, f.Except.Departments)
	}
	return f, nil
}

// pick shows a script another level, or what it finds, and the departments that are marked.
func (v *visit) pick() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	f, err := v.scopeForm(d, v.scope())
	if err != nil {
		return err
	}
	if f.Many == nil {
		return web.NotFound()
	}
	return v.Part(pages, "departments", "pick", false, f.Many)
}

// level returns what a page shows of many departments: below the one that the request names, or found
// by its words.
func (v *visit) level(list []api.Department, in, out []api.ScopeDepartment) *level {
	_ = v.R.ParseForm() // it was parsed before
	l := levelOf(list, v.R.Form.Get("under"), strings.TrimSpace(v.R.Form.Get("find")), in, out)
	l.At = "/domains/" + url.PathEscape(v.R.PathValue("domain")) + "/departments/pick"
	return l
}

// levelOf selects departments from a list that is sorted by path.
func levelOf(list []api.Department, under, find string, in, out []api.ScopeDepartment) *level {
	l := &level{Under: under, Find: find}
	for i, c := range under {
		if c == '/' {
			l.Above = append(l.Above, under[:i])
		}
	}
	if under != "" {
		l.Above = append(l.Above, under)
	}
	known, below := map[string]bool{}, map[string]int{}
	for _, d := range list {
		known[d.Path] = true
		for i, c := range d.Path {
			if c == '/' {
				below[d.Path[:i]]++
			}
		}
	}
	words := strings.Fields(strings.ToLower(find))
	for _, d := range list {
		b := &branch{Department: d, Leaf: d.Path, Below: below[d.Path], Mark: marked(d.Path, in, out)}
		up := d.Path[:max(strings.LastIndexByte(d.Path, '/'), 0)]
		if !known[up] {
			up = ""
		}
		text := strings.ToLower(d.Path + " " + d.Name)
		switch {
		case b.Mark != "":
			l.Marked = append(l.Marked, b)
		case find != "" && slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }), find == "" && up != under:
		case find != "" && len(l.Items) >= maxFound, len(l.Items) >= maxTree:
			l.More++
		default:
			l.Items = append(l.Items, b)
		}
	}
	return l
}

// marked returns what a scope says of a department; see [branch].
func marked(path string, in, out []api.ScopeDepartment) (mark string) {
	for _, m := range []struct {
		word  string
		among []api.ScopeDepartment
	}{{"in", in}, {"out", out}} {
		if i := slices.IndexFunc(m.among, func(s api.ScopeDepartment) bool { return s.Path == path }); i >= 0 {
			mark = m.word
			if !m.among[i].Sub {
				mark += "-only"
			}
		}
	}
	return mark
}

// tree arranges departments below their parents. The list is sorted by path.
func tree(list []api.Department, in, out []api.ScopeDepartment) (roots []*branch) {
	at := map[string]*branch{}
	for _, d := range list {
		b := &branch{Department: d, Mark: marked(d.Path, in, out)}
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
