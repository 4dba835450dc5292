package document_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/document"
	"github.com/drawbridge/drawbridge/internal/admintest"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

const name = "example.org"

// site is a domain with a department, a policy, a blocked address and two accounts.
type site struct {
	t     *testing.T
	admin *admin.Admin
}

func newSite(t *testing.T) *site {
	t.Helper()
	a, _ := admintest.New(t)
	s := &site{t, a}
	f := &api.Faults{}
	if _, err := s.as(admin.Options{}).CreateDomain(t.Context(), &api.NewDomain{Domain: api.Domain{Name: name}}, f); err != nil {
		t.Fatal(err)
	}
	doc := s.export()
	doc.Departments = []api.Department{{Path: "sales"}}
	doc.IPBlocks = []api.IPBlock{{Network: "192.0.2.1"}}
	doc.Accounts = []api.AccountSettings{{Address: "ann@example.org", Departments: []string{"sales"}}, {Address: "bob@example.org"}}
	if plan := s.apply(admin.Options{}, doc); !plan.Applied || len(plan.Additions) != 4 {
		t.Fatalf("plan %+v", plan)
	}
	return s
}

func (s *site) as(o admin.Options) *admin.Request {
	return s.admin.As(admin.Caller{Role: store.RoleAdmin, Actor: store.Actor{Name: "root"}}, o)
}

func (s *site) domain(o admin.Options) *admin.Domain {
	s.t.Helper()
	d, err := s.as(o).Domain(name)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *site) export() *api.DomainDocument {
	s.t.Helper()
	doc, err := document.Export(s.domain(admin.Options{}), true)
	if err != nil {
		s.t.Fatal(err)
	}
	return doc
}

func (s *site) apply(o admin.Options, doc *api.DomainDocument) *api.Plan {
	s.t.Helper()
	plan, err := document.Apply(s.t.Context(), s.domain(o), doc, &api.Faults{})
	if err != nil {
		s.t.Fatal(err)
	}
	return plan
}

// refused applies a document, and returns the code of its refusal.
func (s *site) refused(o admin.Options, doc *api.DomainDocument) string {
	s.t.Helper()
	_, err := document.Apply(s.t.Context(), s.domain(o), doc, &api.Faults{})
	p := new(api.Problem)
	if !errors.As(err, &p) {
		s.t.Fatalf("%v, want a refusal", err)
	}
	return p.Code
}

// An exported document changes nothing, and has the same revision as long as nothing is changed.
func TestExportApplied(t *testing.T) {
	s := newSite(t)
	doc := s.export()
	plan := s.apply(admin.Options{}, doc)
	if n := len(plan.Additions) + len(plan.Changes) + len(plan.Removals); n > 0 || plan.Revision != doc.Revision {
		t.Errorf("%d steps, revision %s after %s", n, plan.Revision, doc.Revision)
	}
	if again := s.export(); again.Revision != doc.Revision {
		t.Errorf("revision %s after %s", again.Revision, doc.Revision)
	}
}

// A dry run shows the plan of the change, which makes all of it in one change of the shard.
func TestApply(t *testing.T) {
	s := newSite(t)
	doc := s.export()
	doc.Departments, doc.Accounts = []api.Department{{Path: "staff"}}, []api.AccountSettings{{Address: "ann@example.org", Departments: []string{"staff"}}}
	dry, head := s.apply(admin.Options{DryRun: true}, doc), s.head()
	if dry.Applied || s.export().Revision != doc.Revision {
		t.Fatal("a dry run changed the domain")
	}
	plan := s.apply(admin.Options{}, doc)
	if got := s.head(); got != head+1 {
		t.Errorf("%d changes of the shard, want one", got-head)
	}
	steps := func(p *api.Plan) (ids []string) {
		for _, item := range slices.Concat(p.Additions, p.Changes, p.Removals) {
			ids = append(ids, item.Kind+" "+item.ID)
		}
		return ids
	}
	want := []string{"department staff", "account ann@example.org", "account bob@example.org", "department sales"}
	if !slices.Equal(steps(dry), want) || !slices.Equal(steps(plan), want) {
		t.Errorf("planned %q, made %q, want %q", steps(dry), steps(plan), want)
	}
	if now := s.export(); now.Revision != plan.Revision || len(now.Accounts) != 1 || len(now.Departments) != 1 {
		text, _ := json.Marshal(now)
		t.Errorf("%s: %s", plan.Revision, text)
	}
}

func (s *site) head() uint64 { return s.admin.Store.State.Head(store.ShardOf(name)).N }

// A document does not overwrite later changes, lift a suspension without confirmation, or delete a
// suspended account or a department that is in use.
func TestRefused(t *testing.T) {
	s := newSite(t)
	stale := s.export()
	account, err := s.as(admin.Options{}).Account("bob@example.org")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := account.Patch(t.Context(), func(v *api.Account, _ *api.Faults) (*api.Account, error) { v.Suspended = true; return v, nil }); err != nil {
		t.Fatal(err)
	}
	if code := s.refused(admin.Options{}, stale); code != "stale" {
		t.Errorf("a document that is older than a change: %s", code)
	}
	lifting := *stale
	lifting.Revision = ""
	if code := s.refused(admin.Options{}, &lifting); code != "confirm_required" {
		t.Errorf("a document that lifts a suspension: %s", code)
	}
	without := s.export()
	without.Accounts = []api.AccountSettings{}
	if code := s.refused(admin.Options{Confirm: true}, without); code != "suspended" {
		t.Errorf("a document that removes a suspended account: %s", code)
	}
	used := &api.DomainDocument{Departments: []api.Department{}}
	if code := s.refused(admin.Options{Confirm: true}, used); code != api.Invalid {
		t.Errorf("a document without a department that an account is in: %s", code)
	}
	moved := errors.New("moved")
	_, err = document.Apply(t.Context(), s.domain(admin.Options{If: func(_ bool, tag string) error {
		if tag != s.export().Revision {
			return moved
		}
		return nil
	}}), s.export(), &api.Faults{})
	if err != nil {
		t.Errorf("with the present revision: %v", err)
	}
}
