package admin_test

import (
	"slices"
	"testing"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admintest"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Accounts that must have a second factor and have none are found; those of which none is required are
// not.
func TestInspectionFindsMissingFactors(t *testing.T) {
	a, _ := admintest.New(t)
	admintest.Populate(t, a, "example.org")
	d, err := admintest.As(a, store.RoleAdmin, "", "").Domain("example.org")
	if err != nil {
		t.Fatal(err)
	}
	missing := func() (accounts []string) {
		t.Helper()
		found, err := d.Inspect(t.Context(), "", 90, admin.Page{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found.Items {
			if f.Kind == "no_second_factor" {
				accounts = append(accounts, f.Account)
			}
		}
		return accounts
	}
	if list := missing(); len(list) > 0 {
		t.Errorf("none is required, and %v are found", list)
	}
	_, err = d.Patch(t.Context(), func(cur *api.Domain, _ *api.Faults) (*api.Domain, error) {
		next := *cur
		next.SecondFactor = &api.SecondFactorPolicy{Required: true, Scope: &api.Scope{All: true, Except: &api.Exceptions{Members: []string{"bob@example.org"}}}}
		return &next, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if list := missing(); !slices.Equal(list, []string{"ann@example.org"}) {
		t.Errorf("found %v", list)
	}
}
