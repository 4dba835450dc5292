package access

import "strings"

// PolicyType is whitelist or blacklist.
type PolicyType string

// The policy types.
const (
	Whitelist PolicyType = "whitelist"
	Blacklist PolicyType = "blacklist"
)

// PolicyMode says whether a policy refuses or only records what it would refuse.
type PolicyMode string

// The policy modes.
const (
	Enforce PolicyMode = "enforce"
	Report  PolicyMode = "report"
)

// Policy is a whitelist or a blacklist over scope × place × client type × protocol (F9).
//
// Its place is the addresses in IPs or the regions, or anywhere when both are empty, minus
// ExceptIPs. Empty Clients or Protocols select all.
type Policy struct {
	ID        string       `json:"id"`
	Name      string       `json:"name"`
	Type      PolicyType   `json:"type"`
	Enabled   bool         `json:"enabled"`
	Mode      PolicyMode   `json:"mode"`
	Managed   string       `json:"managed,omitempty"` // which simple switch maintains it (F1)
	Scope     Scope        `json:"scope"`
	IPs       []string     `json:"ips"`
	Regions   []string     `json:"regions"`
	ExceptIPs []string     `json:"except_ips"`
	Clients   []ClientType `json:"clients"`
	Protocols []string     `json:"protocols"`
}

// Scope says whom a rule concerns: all, or departments and members, minus exceptions. The zero
// value concerns nobody.
type Scope struct {
	All         bool              `json:"all,omitempty"`
	Departments []ScopeDepartment `json:"departments,omitempty"`
	Members     []string          `json:"members,omitempty"`
	Except      Exceptions        `json:"except,omitzero"`
}

// Exceptions are taken out of a scope.
type Exceptions struct {
	Departments []ScopeDepartment `json:"departments,omitempty"`
	Members     []string          `json:"members,omitempty"`
}

// ScopeDepartment names a department by its path, with or without those below it.
type ScopeDepartment struct {
	Path string `json:"path"`
	Sub  bool   `json:"sub,omitempty"`
}

// Has reports whether a department is the one that is named, or named with it.
func (d ScopeDepartment) Has(path string) bool {
	return path == d.Path || d.Sub && strings.HasPrefix(path, d.Path+"/")
}
