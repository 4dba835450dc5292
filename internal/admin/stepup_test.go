package admin_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/factor"
	"github.com/drawbridge/drawbridge/internal/store"
)

// A second factor that was proven counts for ten minutes, and not if the account had none then. One
// that is required of a department is required of its members only.
func TestStepUpExpires(t *testing.T) {
	const ann = "ann@example.org"
	a := newAdmin(t)
	since := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	change := func(edit func(*store.Account, *store.Domain)) {
		t.Helper()
		err := a.Store.Update(t.Context(), store.ShardOf("example.org"), store.Actor{Name: "test"}, false, func(c *store.Change) error {
			rec, _ := a.Store.State.Account(ann)
			dom, _ := a.Store.State.Domain("example.org")
			next, d := *rec.Doc, *dom.Doc
			edit(&next, &d)
			for _, path := range []string{"sales", "sales/emea", "salesmen", "legal"} {
				c.PutDepartment("example.org", &store.Department{Path: path})
			}
			c.PutDomain(&d)
			c.PutAccount(&next)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	proven := func(ago time.Duration) *admin.Account {
		t.Helper()
		r := a.As(admin.Owner(ann, netip.Addr{}, time.Time{}), admin.Options{})
		r.Caller.Proven = r.Time.Add(-ago)
		return account(t, r, ann)
	}
	if err := proven(24 * time.Hour).StepUp(); err != nil {
		t.Errorf("without a factor: %v", err)
	}
	change(func(acc *store.Account, _ *store.Domain) {
		acc.Factors = []store.Factor{{ID: "f", Kind: factor.TOTP, CreatedAt: since, ConfirmedAt: since}}
	})
	for _, c := range []struct {
		ago time.Duration
		may bool
	}{{0, true}, {admin.ProvenFor - time.Second, true}, {admin.ProvenFor, false}, {2 * time.Hour, false}} {
		if err := proven(c.ago).StepUp(); (err == nil) != c.may {
			t.Errorf("proven %s ago: %v", c.ago, err)
		}
	}
	since = time.Now().UTC().Truncate(time.Millisecond)
	change(func(acc *store.Account, _ *store.Domain) {
		acc.Factors = []store.Factor{{ID: "f", Kind: factor.TOTP, CreatedAt: since, ConfirmedAt: since}}
	})
	if err := proven(time.Minute).StepUp(); err == nil {
		t.Error("what was proven before the account had a factor counts")
	}

	change(func(acc *store.Account, d *store.Domain) {
		acc.Factors, acc.Departments = nil, []string{"sales/emea"}
		d.SecondFactor = &store.SecondFactorPolicy{Required: true, Scope: access.Scope{Departments: []access.ScopeDepartment{{Path: "sales", Sub: true}}}}
	})
	for _, c := range []struct {
		department string
		required   bool
	}{{"sales/emea", true}, {"sales", true}, {"salesmen", false}, {"legal", false}} {
		change(func(acc *store.Account, _ *store.Domain) { acc.Departments = []string{c.department} })
		if required, has := proven(0).NeedsFactor(); required != c.required || has {
			t.Errorf("in %s: required %t, has %t", c.department, required, has)
		}
	}
}
