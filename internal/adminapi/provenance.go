package adminapi

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// settings are those of an account that a batch may set, by the names that marks and results give
// them. A switch that is inherited is missing.
func settings(a *store.Account) map[string]any {
	s := map[string]any{"suspended": a.Suspended, "departments": list(a.Departments), "secure_passwords": secureMode(a)}
	for protocol, on := range a.Protocols {
		s["protocols."+protocol] = on
	}
	return s
}

// changed maps the settings in which two records differ to [before, after].
func changed(cur, next *store.Account) map[string][2]any {
	differ := map[string][2]any{}
	before, after := settings(cur), settings(next)
	for name, v := range after {
		if !reflect.DeepEqual(before[name], v) {
			differ[name] = [2]any{before[name], v}
		}
	}
	for name, v := range before {
		if _, ok := after[name]; !ok {
			differ[name] = [2]any{v, nil}
		}
	}
	return differ
}

// fieldsOf maps the fields of a record that hold the settings which changed, as the audit tells
// them, to [before, after].
func fieldsOf(settings map[string][2]any, cur, next *store.Account) map[string][2]any {
	fields := make(map[string][2]any, len(settings))
	for name, v := range settings {
		if strings.HasPrefix(name, "protocols.") {
			name, v = "protocols", [2]any{cur.Protocols, next.Protocols}
		}
		fields[name] = v
	}
	return fields
}

// unmark returns marks that no longer speak for settings which were set otherwise.
func unmark(marks []store.BatchMark, settings map[string][2]any) []store.BatchMark {
	if len(settings) == 0 {
		return marks
	}
	var left []store.BatchMark
	for _, m := range marks {
		m.Settings = slices.DeleteFunc(slices.Clone(m.Settings), func(name string) bool { _, ok := settings[name]; return ok })
		if len(m.Settings) > 0 {
			left = append(left, m)
		}
	}
	return left
}

// mark has a record remember that a batch set what changed. What it left to be inherited is
// nobody's.
func mark(a *store.Account, by store.BatchMark, settings map[string][2]any) {
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if settings[name][1] != nil {
			by.Settings = append(by.Settings, name)
		}
	}
	if len(by.Settings) > 0 {
		a.Batches = append(slices.Clone(a.Batches), by)
	}
}

// own tells of a setting that the account itself has by which batch it got it, if by one.
func own[T any](s api.Setting[T], a *store.Account, name string) api.Setting[T] {
	if m := a.SetByBatch(name); m != nil && s.SetBy == "account" {
		s.SetBy, s.Batch = "batch", &api.BatchMark{At: m.At, By: m.By, Scope: m.Scope}
	}
	return s
}

// The words for a scope name so many departments and members, in so many bytes.
const (
	maxNamed = 3
	maxWords = 200
)

// wordsOf says whom a scope selects, briefly however long its lists are.
func wordsOf(s *access.Scope) string {
	text := "all"
	if !s.All {
		text = names(s.Departments, s.Members)
	}
	if except := names(s.Except.Departments, s.Except.Members); except != "" {
		text += " except " + except
	}
	if len(text) > maxWords {
		text = strings.ToValidUTF8(text[:maxWords], "") + "…"
	}
	return text
}

func names(departments []access.ScopeDepartment, members []string) string {
	var list []string
	for _, d := range departments[:min(len(departments), maxNamed)] {
		if d.Sub {
			d.Path += " with those below"
		}
		list = append(list, d.Path)
	}
	list = append(list, members[:min(len(members), maxNamed)]...)
	if more := len(departments) + len(members) - len(list); more > 0 {
		list = append(list, fmt.Sprintf("%d more", more))
	}
	return strings.Join(list, ", ")
}

// policiesOf tells of the policies that concern the call's account why they do.
func (c *call) policiesOf(departments, ids []string) []api.EffectivePolicy {
	list := make([]api.EffectivePolicy, 0, len(ids))
	for _, id := range ids {
		p, ok := c.Store.State.Policy(c.domain, id)
		if !ok {
			continue // removed since the rules were looked at
		}
		v := viewPolicy(p.Doc)
		e := api.EffectivePolicy{ID: id, Name: v.Name, Type: v.Type, Mode: v.Mode, Clients: v.Clients, Protocols: v.Protocols}
		e.NamedBy, e.Department = namedBy(&p.Doc.Scope, c.account, departments)
		list = append(list, e)
	}
	return list
}

// namedBy returns the closest part of a scope that names an account which is in it.
func namedBy(s *access.Scope, account string, departments []string) (part, department string) {
	if slices.Contains(s.Members, account) {
		return "member", ""
	}
	for _, d := range s.Departments {
		if slices.ContainsFunc(departments, d.Has) {
			return "department", d.Path
		}
	}
	return "all", ""
}
