package store

import (
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
)

// compileSendAs returns, for each department with send_as entries, these and those of the
// departments above it.
func (r *domainRules) compileSendAs() map[string][]string {
	var compiled map[string][]string
	for path, d := range r.departments {
		if len(d.doc.SendAs) == 0 {
			continue
		}
		list := slices.Clip(d.doc.SendAs)
		for above, found := parent(path); found; above, found = parent(above) {
			if d := r.departments[above]; d != nil {
				list = append(list, d.doc.SendAs...)
			}
		}
		if compiled == nil {
			compiled = make(map[string][]string)
		}
		compiled[path] = list
	}
	return compiled
}

// parent returns the path of the department above.
func parent(path string) (above string, found bool) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], i >= 0
}

// Sender answers the sender check about a canonical address: the settings of its domain, nil if
// that is not managed, and whether the account of the view may send from it. It may from its own
// address, its aliases, what it or its departments were granted (send_as), and from extensions of
// all these. It does not allocate.
func (st *State) Sender(v *View, account, addr string) (settings *Domain, granted bool) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	addr, d := st.managed(addr)
	if d != nil {
		settings = d.doc.doc
	}
	if !v.Known {
		return settings, false
	}
	domain, local := address.Domain(addr), address.Local(addr)
	base, _ := address.LocalBase(local, st.Delimiters)
	match := func(entry string) bool {
		in := address.Domain(entry)
		if name, ok := st.names[in]; ok { // it may have become an alias domain since
			in = name
		}
		if in != domain {
			return false
		}
		entry = address.Local(entry)
		return entry == local || entry == base || entry == "*"
	}
	if match(account) || v.Account.mayUse(match) {
		return settings, true
	}
	return settings, v.sendAs != nil && v.Account.anyDepartment(func(path string) bool {
		for found := true; found; path, found = parent(path) {
			if list, ok := v.sendAs[path]; ok {
				return slices.ContainsFunc(list, match)
			}
		}
		return false
	})
}
