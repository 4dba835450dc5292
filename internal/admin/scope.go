package admin

import (
	"slices"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// ViewScope shows a scope.
func ViewScope(s *access.Scope) *api.Scope {
	v := &api.Scope{All: s.All, Departments: viewScopeDepartments(s.Departments), Members: s.Members}
	if len(s.Except.Departments)+len(s.Except.Members) > 0 {
		v.Except = &api.Exceptions{Departments: viewScopeDepartments(s.Except.Departments), Members: s.Except.Members}
	}
	return v
}

func viewScopeDepartments(departments []access.ScopeDepartment) []api.ScopeDepartment {
	var v []api.ScopeDepartment
	for _, d := range departments {
		v = append(v, api.ScopeDepartment(d))
	}
	return v
}

// ReadScope reads a scope. Its departments must exist in the domain, and its members must be
// addresses of the domain. Another name of an account, such as an alias, becomes the account: logins
// under it are the account's.
func (d *Domain) ReadScope(in *api.Scope, pointer string, f *api.Faults) access.Scope {
	s := access.Scope{
		All:         in.All,
		Departments: d.scopeDepartments(in.Departments, pointer+"/departments", f),
		Members:     d.scopeMembers(in.Members, pointer+"/members", f),
	}
	if in.Except != nil {
		s.Except.Departments = d.scopeDepartments(in.Except.Departments, pointer+"/except/departments", f)
		s.Except.Members = d.scopeMembers(in.Except.Members, pointer+"/except/members", f)
	}
	return s
}

// Person returns the address of the account of the domain that a name means: of one of its aliases, or
// of its address with an extension. Of other addresses only an alias domain is resolved: whose they are
// is not for every administrator of this domain to know.
func (d *Domain) Person(addr string) string {
	if addr = d.Store.State.Canonical(addr); address.Domain(addr) != d.name {
		return addr
	}
	return d.within(addr)
}

// within returns the account that a name means if it is in the domain of the name.
func (r *Request) within(addr string) string {
	addr = r.Store.State.Canonical(addr)
	if account := r.Store.State.Person(addr); address.Domain(account) == address.Domain(addr) {
		return account
	}
	return addr
}

func (d *Domain) scopeDepartments(in []api.ScopeDepartment, pointer string, f *api.Faults) []access.ScopeDepartment {
	var departments []access.ScopeDepartment
	for i, department := range in {
		if !d.HasDepartment(department.Path) && !f.Has(f.Under+api.At(pointer, i)) {
			f.Add(api.At(api.At(pointer, i), "path"), "unknown_department", "there is no such department: create it first")
		}
		departments = append(departments, access.ScopeDepartment(department))
	}
	return departments
}

func (d *Domain) scopeMembers(in []string, pointer string, f *api.Faults) []string {
	var members []string
	seen := make(map[string]bool, len(in))
	for i, m := range in {
		addr, err := address.Parse(m, d.name)
		addr = d.Person(addr)
		switch {
		case err != nil:
			f.Add(api.At(pointer, i), "invalid_address", "%v", err)
		case address.Domain(addr) != d.name:
			f.Add(api.At(pointer, i), "outside_domain", "is not an address of this domain")
		case !seen[addr]:
			seen[addr] = true
			members = append(members, addr)
		}
	}
	return members
}

// Covers returns a function that reports whether a scope selects an account of the domain, whose
// record may be nil. It is cheap to call for many accounts.
func (d *Domain) Covers(s *access.Scope) func(addr string, record *store.Account) bool {
	var tree []string
	for _, department := range d.Store.State.Departments(d.name) {
		tree = append(tree, department.Doc.Path)
	}
	covers := s.Covers(tree)
	return func(addr string, record *store.Account) bool {
		if record == nil {
			return covers(addr, nil)
		}
		return covers(addr, record.Departments)
	}
}

// emptyScope reports whether a scope names nobody, exceptions aside.
func emptyScope(s *api.Scope) bool {
	return !s.All && len(s.Departments)+len(s.Members) == 0
}

// nobody reports whether a scope selects nobody, whatever accounts exist: each part of it is
// excepted by name.
func nobody(s *access.Scope) bool {
	return !s.All && !slices.ContainsFunc(s.Members, func(m string) bool { return !slices.Contains(s.Except.Members, m) }) &&
		!slices.ContainsFunc(s.Departments, func(d access.ScopeDepartment) bool {
			return !slices.ContainsFunc(s.Except.Departments, func(out access.ScopeDepartment) bool {
				return out.Has(d.Path) && (out.Sub || !d.Sub)
			})
		})
}

// CheckNobody refuses a scope that selects nobody, unless its fields have faults already.
func CheckNobody(s *access.Scope, pointer string, f *api.Faults) {
	if nobody(s) && !f.Within(pointer) {
		f.Add(pointer, "never_matches", `selects nobody, so that the policy would never match: say "all":true, name departments or members, or except fewer`)
	}
}

// ScopeDepartments returns the departments that a scope names, exceptions included.
func ScopeDepartments(s *access.Scope) []access.ScopeDepartment {
	return slices.Concat(s.Departments, s.Except.Departments)
}
