package api

import (
	"strings"
	"testing"
)

func TestSuggestions(t *testing.T) {
	known := []string{"dry_run", "limit", "cursor"}
	for name, want := range map[string]string{
		"dryrun": "did you mean dry_run?", "limits": "did you mean limit?", "curser": "did you mean cursor?",
		"page": "known are dry_run, limit, cursor", "": "known are dry_run, limit, cursor", strings.Repeat("x", 1000): "known are",
	} {
		if got := Suggest(name, known); !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
