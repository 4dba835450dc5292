package adminapi

import (
	"bytes"
	"encoding/json"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

func viewScope(s *access.Scope) *api.Scope {
	v := &api.Scope{All: s.All, Departments: viewDepartments(s.Departments), Members: s.Members}
	if len(s.Except.Departments)+len(s.Except.Members) > 0 {
		v.Except = &api.Exceptions{Departments: viewDepartments(s.Except.Departments), Members: s.Except.Members}
	}
	return v
}

func viewDepartments(departments []access.ScopeDepartment) []api.ScopeDepartment {
	var v []api.ScopeDepartment
	for _, d := range departments {
		v = append(v, api.ScopeDepartment(d))
	}
	return v
}

// scope reads a scope. It reaches nowhere outside the call's domain: its departments exist there,
// and its members are addresses of the domain.
func (c *call) scope(in *api.Scope, pointer string, f *api.Faults) access.Scope {
	s := access.Scope{
		All:         in.All,
		Departments: c.scopeDepartments(in.Departments, pointer+"/departments", f),
		Members:     c.scopeMembers(in.Members, pointer+"/members", f),
	}
	if in.Except != nil {
		s.Except.Departments = c.scopeDepartments(in.Except.Departments, pointer+"/except/departments", f)
		s.Except.Members = c.scopeMembers(in.Except.Members, pointer+"/except/members", f)
	}
	return s
}

func (c *call) scopeDepartments(in []api.ScopeDepartment, pointer string, f *api.Faults) []access.ScopeDepartment {
	var departments []access.ScopeDepartment
	for i, d := range in {
		if !c.department(d.Path) && !f.Has(f.Under+api.At(pointer, i)) {
			f.Add(api.At(api.At(pointer, i), "path"), "unknown_department", "there is no such department: create it first")
		}
		departments = append(departments, access.ScopeDepartment(d))
	}
	return departments
}

func (c *call) scopeMembers(in []string, pointer string, f *api.Faults) []string {
	var members []string
	seen := make(map[string]bool, len(in))
	for i, m := range in {
		addr, err := address.Parse(m, c.domain)
		addr = c.Store.State.Canonical(addr)
		switch {
		case err != nil:
			f.Add(api.At(pointer, i), "invalid_address", "%v", err)
		case address.Domain(addr) != c.domain:
			f.Add(api.At(pointer, i), "outside_domain", "is no address of this domain: a scope reaches no other")
		case !seen[addr]:
			seen[addr] = true
			members = append(members, addr)
		}
	}
	return members
}

// covers tells whether a scope concerns accounts of the call's domain, whose records may be nil. To
// ask for many of them is cheap.
func (c *call) covers(s *access.Scope) func(addr string, record *store.Account) bool {
	var tree []string
	for _, d := range c.Store.State.Departments(c.domain) {
		tree = append(tree, d.Doc.Path)
	}
	covers := s.Covers(tree)
	return func(addr string, record *store.Account) bool {
		if record == nil {
			return covers(addr, nil)
		}
		return covers(addr, record.Departments)
	}
}

// nobody reports whether a scope concerns nobody, whatever accounts there are.
func emptyScope(s *api.Scope) bool {
	return !s.All && len(s.Departments)+len(s.Members) == 0
}

// same reports whether two documents are kept alike.
func same(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}
