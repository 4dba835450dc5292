package config

import (
	"strings"

	"github.com/drawbridge/drawbridge/internal/spelling"
)

const maxName = 64 // bytes of an unknown name that is repeated and compared

// unknown says what may have been meant by a name, with its tables, that is not in the manual.
func unknown(all []setting, name string, isTable bool) string {
	what := "there is no such setting"
	if isTable {
		what = "there is no such table"
	}
	if near := nearest(all, name, isTable); near != "" {
		return what + ": did you mean " + near + "?"
	}
	return what + ": remove it ('drawbridged -d' prints all settings)"
}

// nearest finds the setting, or for a table the table, that name was meant to be; "" when none is
// near.
func nearest(all []setting, name string, isTable bool) string {
	if len(name) > maxName {
		return ""
	}
	leaf := name[strings.LastIndexByte(name, '.')+1:]
	best, bestDistance := "", 1+len(name)/4
	for _, s := range all {
		candidate, candidateLeaf := s.name, s.name[strings.LastIndexByte(s.name, '.')+1:]
		if isTable {
			candidate, _, _ = strings.Cut(s.name, ".")
			candidate = "[" + candidate + "]"
		}
		distance := spelling.Distance(strings.ToLower(name), strings.Trim(candidate, "[]"), bestDistance+1)
		if !isTable && leaf == candidateLeaf && leaf != "listen" {
			distance = 0 // the right name under the wrong table, as below a [table] line by mistake
			if !strings.Contains(s.name, ".") {
				candidate += ", before the first [table]"
			}
		}
		if distance < bestDistance || distance == bestDistance && best == "" {
			best, bestDistance = candidate, distance
		}
	}
	return best
}

func shorten(name string) string {
	if len(name) > maxName {
		return strings.ToValidUTF8(name[:maxName], "") + "…"
	}
	return name
}
