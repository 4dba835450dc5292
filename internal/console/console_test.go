package console

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
)

// Every change is a POST, is made by those only who may change something, and asks for the key again
// where it is dangerous.
func TestRoutes(t *testing.T) {
	for _, r := range routes() {
		method, path, _ := strings.Cut(r.pattern, " ")
		changes := method == "POST" && !strings.HasPrefix(path, "/logout") && !strings.HasSuffix(path, "/check")
		if changes && r.roles != writers {
			t.Errorf("%s may be sent by %s", r.pattern, r.roles)
		}
		if method == "GET" && r.danger != harmless {
			t.Errorf("%s wants the key again", r.pattern)
		}
		if r.danger == unlessPlanned && !lasts(r.pattern) && path != "/domains/{domain}/secure-passwords" {
			t.Errorf("%s changes much, and any number may run", r.pattern)
		}
	}
	for _, path := range []string{"policies/check", "batch", "document"} { // renamed, they would not be limited
		if !slices.ContainsFunc(routes(), func(r route) bool { return r.pattern == "POST /domains/{domain}/"+path && lasts(r.pattern) }) {
			t.Errorf("any number of %s may run", path)
		}
	}
}

func TestChart(t *testing.T) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	var items []api.LoginRecord
	for i := range 48 { // newest first
		items = append(items, api.LoginRecord{Time: at.Add(-time.Duration(i) * time.Hour), Outcome: access.Deny})
	}
	items[0].Outcome = access.Allow
	bars, sum := chart(items), 0
	for _, b := range bars {
		sum += b.Allow + b.Deny + b.Next
		if b.AllowAt < 0 || b.DenyAt < 0 || b.AllowHigh+b.DenyHigh+b.NextHigh > 100 {
			t.Errorf("%+v", b)
		}
	}
	if len(bars) != 24 || sum != len(items) || bars[23].Allow != 1 {
		t.Errorf("%d bars, %d logins: %+v", len(bars), sum, bars)
	}
	if chart(items[:1]) != nil || chart(nil) != nil {
		t.Error("one login has a chart")
	}
}

// A page's command is copied into a shell: a link that somebody else made adds no word or command to it.
func TestWord(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "",
		"ann@example.org":         "ann@example.org",
		"2001:db8::1":             "2001:db8::1",
		"x; rm -rf ~":             "'x; rm -rf ~'",
		"$(id)`id`":               "'$(id)`id`'",
		"it's":                    `'it'\''s'`,
		"a\nreboot\u009b":         "'a reboot '",
		"--key-file=/dev/stdin x": "'--key-file=/dev/stdin x'",
	} {
		if got := word(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
