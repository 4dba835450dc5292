package admin

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/store"
)

// settings are those of an account that a batch can set, by the names in marks and results.
// Inherited switches are missing.
func settings(a *store.Account) map[string]any {
	s := map[string]any{"suspended": a.Suspended, "departments": list(a.Departments), "secure_passwords": secureMode(a)}
	for protocol, on := range a.Protocols {
		s["protocols."+protocol] = on
	}
	return s
}

// changedSettings maps the settings in which two records differ to [before, after].
func changedSettings(cur, next *store.Account) map[string][2]any {
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

// changedFields maps the fields of the record with changed settings to [before, after], for the
// audit.
func changedFields(settings map[string][2]any, cur, next *store.Account) map[string][2]any {
	fields := make(map[string][2]any, len(settings))
	for name, v := range settings {
		if strings.HasPrefix(name, "protocols.") {
			name, v = "protocols", [2]any{cur.Protocols, next.Protocols}
		}
		fields[name] = v
	}
	return fields
}

// mark records in an account which settings a batch set. Inherited settings have no mark.
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

// unmark returns the marks without settings that changed since.
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

// Limits of the description of a scope.
const (
	maxNamed = 3   // departments, and members
	maxWords = 200 // bytes
)

// describeScope says whom a scope selects, briefly however long its lists are.
func describeScope(s *access.Scope) string {
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
			d.Path += " with subdepartments"
		}
		list = append(list, d.Path)
	}
	list = append(list, members[:min(len(members), maxNamed)]...)
	if more := len(departments) + len(members) - len(list); more > 0 {
		list = append(list, fmt.Sprintf("%d more", more))
	}
	return strings.Join(list, ", ")
}
