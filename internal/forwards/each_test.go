package forwards_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/forwards"
	"github.com/drawbridge/drawbridge/internal/livesessions/doveadm"
)

// Of many accounts, a map is asked at once, each gets its own targets, and a Dovecot and a map that keep
// failing are left out: their accounts are counted.
func TestEach(t *testing.T) {
	t.Parallel()
	away, err := doveadm.Parse("unix:"+filepath.Join(t.TempDir(), "none"), nil)
	if err != nil {
		t.Fatal(err)
	}
	postfix := t.TempDir()
	if err := os.WriteFile(filepath.Join(postfix, "main.cf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const good, bad = "inline:{ { a003@example.org = eve@example.com, a003@example.org }, { a007 = x@example.net } }", "hash:/nonexistent/aliases"
	s := &forwards.Site{
		Dovecots: []*doveadm.Doveadm{away}, Postmap: []string{"/usr/sbin/postmap", "-c", postfix}, AliasMaps: []string{good, bad}, LocalDomain: "example.org",
		Managed: func(domain string) bool { return domain == "example.org" },
	}
	var accounts, got, unread []string
	for i := range 250 {
		accounts = append(accounts, fmt.Sprintf("a%03d@example.org", i))
	}
	var last *api.Forwards
	err = s.Each(t.Context(), "example.org", accounts, func(f *api.Forwards) {
		last = f
		for _, item := range f.Items {
			got = append(got, fmt.Sprint(f.Account, " ", item.Target, " ", item.Outside, " ", item.Copy))
		}
		if f.Account != "" && len(f.Unread) > 0 {
			unread = append(unread, f.Account)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a003@example.org eve@example.com true true", "a007@example.org x@example.net true false"}; !slices.Equal(got, want) {
		t.Errorf("found %q", got)
	}
	if !slices.Equal(unread, accounts[:3]) {
		t.Errorf("could not be read: %v", unread)
	}
	if last.Account != "" || !slices.Equal(last.Unread, []string{bad, away.String()}) ||
		!strings.Contains(last.Problems[0], "of 250 accounts") || !strings.Contains(last.Problems[1], "of 247 accounts") {
		t.Errorf("what was left out: %+v", last)
	}
	for _, problem := range last.Problems {
		if strings.Contains(problem, "\n") {
			t.Errorf("%q", problem)
		}
	}
}
