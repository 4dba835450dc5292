package mailflow

import (
	"slices"
	"strings"
)

// DepartmentPrefix marks an approver that is a department: each of its members is one.
const DepartmentPrefix = "department:"

// RenameDepartments renames the departments that the rule names, in copies of its lists. moved
// returns the new path of a department, and whether it changes. The result reports whether any did.
func (r *Rule) RenameDepartments(moved func(path string) (string, bool)) bool {
	inScope := r.Scope.RenameDepartments(moved)
	return renameApprovers(&r.Action.Approvers, moved) || inScope
}

// RenameDepartments renames the departments that the group names, as [Rule.RenameDepartments] does.
func (g *Group) RenameDepartments(moved func(path string) (string, bool)) bool {
	renamed := renameApprovers(&g.Approvers, moved)
	g.Departments = slices.Clone(g.Departments)
	for i, path := range g.Departments {
		to, ok := moved(path)
		g.Departments[i], renamed = to, renamed || ok
	}
	return renamed
}

func renameApprovers(approvers *[]string, moved func(path string) (string, bool)) (renamed bool) {
	*approvers = slices.Clone(*approvers)
	for i, entry := range *approvers {
		if path, isDepartment := strings.CutPrefix(entry, DepartmentPrefix); isDepartment {
			to, ok := moved(path)
			(*approvers)[i], renamed = DepartmentPrefix+to, renamed || ok
		}
	}
	return renamed
}

// NamesAny reports whether the rule names an address that satisfies f.
func (r *Rule) NamesAny(f func(addr string) bool) bool {
	for _, list := range [][]string{r.Scope.Members, r.Scope.Except.Members, r.Match.Senders, r.Match.Recipients, r.Action.To, r.Action.Approvers} {
		if slices.ContainsFunc(list, f) {
			return true
		}
	}
	return false
}

// NamesAny reports whether the group names an address, as a member, sender or approver, that
// satisfies f. Departments are not addresses: see [Group.RenameDepartments].
func (g *Group) NamesAny(f func(addr string) bool) bool {
	return slices.ContainsFunc(g.Members, f) || slices.ContainsFunc(g.Senders, f) || slices.ContainsFunc(g.Approvers, f)
}
