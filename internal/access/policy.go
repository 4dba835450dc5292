package access

import (
	"slices"
	"strings"
)

// PolicyType is whitelist or blacklist: a whitelist admits only what it matches, a blacklist
// refuses what it matches. There are no other types.
type PolicyType string

// The policy types.
const (
	Whitelist PolicyType = "whitelist"
	Blacklist PolicyType = "blacklist"
)

// PolicyMode selects enforcement, or a record of the refusals that enforcement would cause.
type PolicyMode string

// The policy modes.
const (
	Enforce PolicyMode = "enforce"
	Report  PolicyMode = "report"
)

// Policy is a whitelist or a blacklist over scope × place × client type × protocol (F9).
//
// Its place is the addresses in IPs or the regions, or anywhere if both are empty, minus ExceptIPs.
// Empty Clients or Protocols select all.
type Policy struct {
	ID        string       `json:"id"`
	Name      string       `json:"name"`
	Type      PolicyType   `json:"type"`
	Enabled   bool         `json:"enabled"`
	Mode      PolicyMode   `json:"mode"`
	Managed   string       `json:"managed,omitempty"` // the simple switch that maintains it (F1)
	Scope     Scope        `json:"scope"`
	IPs       []string     `json:"ips"`
	Regions   []string     `json:"regions"`
	ExceptIPs []string     `json:"except_ips"`
	Clients   []ClientType `json:"clients"`
	Protocols []string     `json:"protocols"`
}

// Scope is the set of accounts that a rule applies to: all, or departments and members, minus
// exceptions. The zero value is empty.
type Scope struct {
	All         bool              `json:"all,omitempty"`
	Departments []ScopeDepartment `json:"departments,omitempty"`
	Members     []string          `json:"members,omitempty"`
	Except      Exceptions        `json:"except,omitzero"`
}

// RenameDepartments renames the departments that the scope names, in copies of its lists. moved
// returns the new path of a department, and whether it changes. The result reports whether any did.
func (s *Scope) RenameDepartments(moved func(path string) (string, bool)) (renamed bool) {
	for _, list := range []*[]ScopeDepartment{&s.Departments, &s.Except.Departments} {
		*list = slices.Clone(*list)
		for i := range *list {
			to, ok := moved((*list)[i].Path)
			(*list)[i].Path, renamed = to, renamed || ok
		}
	}
	return renamed
}

// Exceptions are departments and members that are subtracted from a scope: an exception wins over
// everything that the scope names.
type Exceptions struct {
	Departments []ScopeDepartment `json:"departments,omitempty"`
	Members     []string          `json:"members,omitempty"`
}

// ScopeDepartment selects a department by its path, with or without its subdepartments.
type ScopeDepartment struct {
	Path string `json:"path"`
	Sub  bool   `json:"sub,omitempty"`
}

// Has reports whether the entry includes a department, by its path: the same one, or with Sub any
// below it.
func (d ScopeDepartment) Has(path string) bool {
	return path == d.Path || d.Sub && strings.HasPrefix(path, d.Path+"/")
}
