package admin_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/document"
	"github.com/drawbridge/drawbridge/internal/admintest"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// newAdmin returns a site with two domains, each with the accounts ann and bob.
func newAdmin(t *testing.T) *admin.Admin {
	t.Helper()
	a, _ := admintest.New(t)
	a.Explain = func(l *access.Login, _ string, _ *access.Rules) access.Decision {
		return access.Decision{Account: l.Account}
	}
	admintest.Populate(t, a, "example.org", "example.net")
	return a
}

func domain(t *testing.T, r *admin.Request, name string) *admin.Domain {
	t.Helper()
	d, err := r.Domain(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func account(t *testing.T, r *admin.Request, address string) *admin.Account {
	t.Helper()
	a, err := r.Account(address)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// setting is an edit that replaces everything.
func setting[V any](v V) admin.Edit[V] {
	return func(*V, *api.Faults) (*V, error) { copied := v; return &copied, nil }
}

// keep is an edit that changes nothing.
func keep[V any](v *V, _ *api.Faults) (*V, error) { return v, nil }

// decoded is what was sent.
func decoded[V any](v V) func(*api.Faults) *V {
	return func(*api.Faults) *V { copied := v; return &copied }
}

func errorOf[V any](_ V, err error) error { return err }

// Whatever a caller without HTTP tries, its role decides: each method names who may.
func TestRoles(t *testing.T) {
	a := newAdmin(t)
	type try = func(ctx context.Context, r *admin.Request) error
	inDomain := func(f func(ctx context.Context, d *admin.Domain) error) try {
		return func(ctx context.Context, r *admin.Request) error {
			d, err := r.Domain("example.org")
			if err != nil {
				return err
			}
			return f(ctx, d)
		}
	}
	ofAccount := func(f func(ctx context.Context, a *admin.Account) error) try {
		return func(ctx context.Context, r *admin.Request) error {
			a, err := r.Account("ann@example.org")
			if err != nil {
				return err
			}
			return f(ctx, a)
		}
	}
	yes := true
	policy := api.Policy{ID: "p", Name: "p", Type: "blacklist", Scope: &api.Scope{All: true}, IPs: []string{"192.0.2.1"}}
	page, none := admin.Page{}, func() *api.Faults { return &api.Faults{} }
	const read, domains, self = "read", "domain", "self"
	for name, c := range map[string]struct {
		try try
		may []string // beside admin
	}{
		"Domains":      {func(_ context.Context, r *admin.Request) error { return errorOf(r.Domains(page)) }, []string{read, domains}},
		"Keys":         {func(ctx context.Context, r *admin.Request) error { return errorOf(r.Keys(ctx, page)) }, []string{read, domains}},
		"ClientTypes":  {func(_ context.Context, r *admin.Request) error { return errorOf(r.ClientTypes(page)) }, []string{read}},
		"RegionStatus": {func(_ context.Context, r *admin.Request) error { return errorOf(r.RegionStatus()) }, []string{read, domains}},
		"RegionCodes":  {func(_ context.Context, r *admin.Request) error { return errorOf(r.RegionCodes(page)) }, []string{read, domains}},
		"StoreStatus":  {func(_ context.Context, r *admin.Request) error { return errorOf(r.StoreStatus()) }, []string{read}},
		"AdoptStore":   {func(ctx context.Context, r *admin.Request) error { return errorOf(r.AdoptStore(ctx)) }, nil},
		"RepairStore":  {func(ctx context.Context, r *admin.Request) error { return errorOf(r.RepairStore(ctx)) }, nil},
		"Audit": {func(ctx context.Context, r *admin.Request) error {
			return errorOf(r.Audit(ctx, "example.org", r.Time, page))
		}, []string{read, domains}},
		"PutClientType": {func(ctx context.Context, r *admin.Request) error {
			return errorOf(r.PutClientType(ctx, "web", &api.ClientType{Evidence: []api.Evidence{{Networks: []string{"192.0.2.1"}}}}, none()))
		}, nil},
		"CreateDomain": {func(ctx context.Context, r *admin.Request) error {
			return errorOf(r.CreateDomain(ctx, &api.NewDomain{Domain: api.Domain{Name: "new.example"}}, none()))
		}, nil},
		"CreateKey": {func(ctx context.Context, r *admin.Request) error {
			return errorOf(r.CreateKey(ctx, &api.NewKey{Name: "k", Role: "self", Account: "ann@example.org"}, none()))
		}, []string{domains}},
		"Delete domain": {inDomain(func(ctx context.Context, d *admin.Domain) error { return errorOf(d.Delete(ctx)) }), nil},
		"Patch domain":  {inDomain(func(ctx context.Context, d *admin.Domain) error { return errorOf(d.Patch(ctx, keep[api.Domain])) }), []string{domains}},
		"Policies":      {inDomain(func(_ context.Context, d *admin.Domain) error { return errorOf(d.Policies(page)) }), []string{read, domains}},
		"Accounts":      {inDomain(func(_ context.Context, d *admin.Domain) error { return errorOf(d.Accounts(page)) }), []string{read, domains}},
		"CreatePolicy": {inDomain(func(ctx context.Context, d *admin.Domain) error {
			return errorOf(d.CreatePolicy(ctx, "p", decoded(policy)))
		}), []string{domains}},
		"PutPolicy": {inDomain(func(ctx context.Context, d *admin.Domain) error {
			return errorOf(d.PutPolicy(ctx, "p", decoded(policy)))
		}), []string{domains}},
		"DeletePolicy": {inDomain(func(ctx context.Context, d *admin.Domain) error {
			return errorOf(d.DeletePolicy(ctx, store.ManagedThirdParty))
		}), []string{domains}},
		"Migrate": {inDomain(func(ctx context.Context, d *admin.Domain) error {
			return errorOf(d.MigratePolicies(ctx, decoded(api.Migration{ThirdPartyAllowed: &yes})))
		}), []string{domains}},
		"CreateIPBlock": {inDomain(func(ctx context.Context, d *admin.Domain) error {
			return errorOf(d.CreateIPBlock(ctx, &api.IPBlock{Network: "192.0.2.1"}, none()))
		}), []string{domains}},
		"PutDepartment": {inDomain(func(ctx context.Context, d *admin.Domain) error {
			return errorOf(d.PutDepartment(ctx, "sales", &api.Department{}, none()))
		}), []string{domains}},
		"PutThirdParty": {inDomain(func(ctx context.Context, d *admin.Domain) error {
			return errorOf(d.PutThirdPartyAccess(ctx, &api.ThirdPartyAccess{Allow: true}, none()))
		}), []string{domains}},
		"PutEnforcement": {inDomain(func(ctx context.Context, d *admin.Domain) error {
			return errorOf(d.PutSecurePasswordPolicy(ctx, decoded(api.SecurePasswordPolicy{Enforced: true})))
		}), []string{domains}},
		"Import": {inDomain(func(ctx context.Context, d *admin.Domain) error {
			return errorOf(d.ImportAccounts(ctx, []admin.ImportedAccount{{Address: "new@example.org", Line: 2, Edit: keep[api.Account]}}, false, none()))
		}), []string{domains}},
		"Batch": {inDomain(func(ctx context.Context, d *admin.Domain) error {
			b, err := d.Batch(&api.Batch{Select: &api.Scope{All: true}, Set: &api.BatchSet{Suspended: true}}, []string{"suspended"}, "", none())
			if err != nil {
				return err
			}
			return b.Run(ctx, func([]api.BatchAccount) error { return nil })
		}), []string{domains}},
		"Export": {inDomain(func(_ context.Context, d *admin.Domain) error { return errorOf(document.Export(d, true)) }), []string{read, domains}},
		"Apply": {inDomain(func(ctx context.Context, d *admin.Domain) error {
			return errorOf(document.Apply(ctx, d, &api.DomainDocument{Policies: []api.Policy{}}, none()))
		}), []string{domains}},
		"Logins": {func(ctx context.Context, r *admin.Request) error {
			l, err := r.Logins("example.org")
			if err != nil {
				return err
			}
			return errorOf(l.List(ctx, store.RecordQuery{}))
		}, []string{read, domains, self}},
		"Record":    {ofAccount(func(_ context.Context, a *admin.Account) error { return errorOf(a.Record()) }), []string{read, domains, self}},
		"Effective": {ofAccount(func(_ context.Context, a *admin.Account) error { return errorOf(a.Effective()) }), []string{read, domains, self}},
		"Put":       {ofAccount(func(ctx context.Context, a *admin.Account) error { return errorOf(a.Put(ctx, setting(api.Account{}))) }), []string{domains}},
		"Patch": {ofAccount(func(ctx context.Context, a *admin.Account) error {
			return errorOf(a.Patch(ctx, func(v *api.Account, _ *api.Faults) (*api.Account, error) {
				v.SecurePasswords = "required"
				return v, nil
			}))
		}), []string{domains, self}},
		"Patch what self may not": {ofAccount(func(ctx context.Context, a *admin.Account) error {
			return errorOf(a.Patch(ctx, func(v *api.Account, _ *api.Faults) (*api.Account, error) { v.Suspended = true; return v, nil }))
		}), []string{domains}},
		"Delete account": {ofAccount(func(ctx context.Context, a *admin.Account) error { return errorOf(a.Delete(ctx)) }), []string{domains}},
		"Secure": {ofAccount(func(ctx context.Context, a *admin.Account) error {
			return errorOf(a.Secure(ctx, &api.Secure{RevokeSecurePasswords: true}, none()))
		}), []string{domains, self}},
		"Secure what self may not": {ofAccount(func(ctx context.Context, a *admin.Account) error {
			return errorOf(a.Secure(ctx, &api.Secure{SwitchOff: true}, none()))
		}), []string{domains}},
		"CreateSecurePassword": {ofAccount(func(ctx context.Context, a *admin.Account) error {
			return errorOf(a.CreateSecurePassword(ctx, &api.NewSecurePassword{Label: "x"}, none()))
		}), []string{domains, self}},
	} {
		callers := map[string]admin.Caller{
			"nobody": {}, "admin": {Role: store.RoleAdmin}, "login": {Role: store.RoleLogin}, read: {Role: store.RoleRead},
			domains: {Role: store.RoleDomain, Domain: "example.org"}, self: {Role: store.RoleSelf, Domain: "example.org", Account: "ann@example.org"},
			"other domain": {Role: store.RoleDomain, Domain: "example.net"}, "other self": {Role: store.RoleSelf, Domain: "example.org", Account: "bob@example.org"},
		}
		for who, caller := range callers {
			err := c.try(t.Context(), a.As(caller, admin.Options{DryRun: true}))
			may := who == "admin"
			for _, role := range c.may {
				may = may || role == who
			}
			var p *api.Problem
			refused := errors.As(err, &p) && (p.Status == 403 || p.Code == "not_found" || p.Code == "invalid" && who == "other domain")
			if anywhere := who == "other domain" || who == "other self"; may == refused && !anywhere || anywhere && len(c.may) == 0 && !refused {
				t.Errorf("%s as %s: %v, allowed is %v", name, who, err, may)
			}
		}
	}
}

// What is in another domain, or another's account, is not there.
func TestReach(t *testing.T) {
	a := newAdmin(t)
	tenant := a.As(admin.Caller{Role: store.RoleDomain, Domain: "example.org"}, admin.Options{})
	self := a.As(admin.Caller{Role: store.RoleSelf, Domain: "example.org", Account: "ann@example.org"}, admin.Options{})
	for what, err := range map[string]error{
		"another domain":               errorOf(tenant.Domain("example.net")),
		"another domain's logins":      errorOf(tenant.Logins("example.net")),
		"another domain's account":     errorOf(tenant.Account("ann@example.net")),
		"another domain's audit":       errorOf(tenant.Audit(t.Context(), "example.net", tenant.Time, admin.Page{})),
		"another's account":            errorOf(self.Account("bob@example.org")),
		"an account of another domain": errorOf(self.Account("ann@example.net")),
	} {
		var p *api.Problem
		if !errors.As(err, &p) || p.Status != 404 {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A dry run changes nothing, and a condition refuses before anything changes.
func TestOptions(t *testing.T) {
	a := newAdmin(t)
	caller := admin.Caller{Role: store.RoleAdmin, Actor: store.Actor{Name: "root"}}
	head := a.Store.State.Head(store.ShardOf("example.org"))
	res, err := account(t, a.As(caller, admin.Options{DryRun: true}), "new@example.org").Put(t.Context(), setting(api.Account{AccountSettings: api.AccountSettings{Suspended: true}}))
	if err != nil || !res.Created || !res.View.Suspended {
		t.Fatalf("%+v, %v", res, err)
	}
	moved := errors.New("moved")
	refuse := admin.Options{If: func(exists bool, tag string) error {
		if !exists || tag == "" || tag == "0" {
			t.Errorf("asked about %v, %q", exists, tag)
		}
		return moved
	}}
	if _, err := account(t, a.As(caller, refuse), "ann@example.org").Put(t.Context(), setting(api.Account{})); !errors.Is(err, moved) {
		t.Errorf("%v", err)
	}
	if now := a.Store.State.Head(store.ShardOf("example.org")); now != head {
		t.Errorf("the shard went from %+v to %+v", head, now)
	}
}

// A change that has begun is completed when its context ends: a caller that goes away does not leave
// it half done.
func TestGone(t *testing.T) {
	a := newAdmin(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := a.As(admin.Caller{Role: store.RoleAdmin}, admin.Options{Confirm: true})
	if _, err := domain(t, r, "example.net").Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Domain("example.net"); err == nil || len(a.Store.State.Accounts("example.net", "", 0)) > 0 {
		t.Error("the domain is still there")
	}
}

// A deleted account leaves nothing to the next one of its name, whichever way it was deleted.
func TestDeletedAccountsAreForgotten(t *testing.T) {
	a := newAdmin(t)
	var forgotten []string
	a.Forget = func(_ context.Context, domain string, accounts []string) error {
		forgotten = append(append(forgotten, domain), accounts...)
		return nil
	}
	caller := admin.Caller{Role: store.RoleAdmin, Actor: store.Actor{Name: "root"}}
	for _, dry := range []bool{true, false} {
		if _, err := account(t, a.As(caller, admin.Options{Confirm: true, DryRun: dry}), "ann@example.org").Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	d := domain(t, a.As(caller, admin.Options{Confirm: true}), "example.net")
	doc := &api.DomainDocument{Accounts: []api.AccountSettings{{Address: "ann@example.net"}}}
	if _, err := document.Apply(t.Context(), d, doc, &api.Faults{}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"", "ann@example.org", "", "bob@example.net"}; !slices.Equal(forgotten, want) {
		t.Errorf("forgotten: %q, want %q", forgotten, want)
	}
}

// A list is walked by its pages without a gap, and a foreign cursor is refused.
func TestPages(t *testing.T) {
	a := newAdmin(t)
	d := domain(t, a.As(admin.Caller{Role: store.RoleAdmin}, admin.Options{}), "example.org")
	first, err := d.Accounts(admin.Page{Limit: 1})
	if err != nil || len(first.Items) != 1 || first.Items[0].Address != "ann@example.org" || first.Next == "" {
		t.Fatalf("%+v, %v", first, err)
	}
	last, err := d.Accounts(admin.Page{Limit: 1, Cursor: first.Next})
	if err != nil || len(last.Items) != 1 || last.Items[0].Address != "bob@example.org" || last.Next != "" {
		t.Fatalf("%+v, %v", last, err)
	}
	if _, err := d.Accounts(admin.Page{Cursor: "%"}); !errors.Is(err, store.ErrBadCursor) {
		t.Errorf("%v", err)
	}
}

// The command, a console and the API show the texts of this package alike: parameters that would
// make a request acceptable go into OrRepeat, and none of HTTP's words into a text.
func TestTextsHaveNoHTTPWords(t *testing.T) {
	words := regexp.MustCompile(`\?[a-z_]+=|\b(GET|PUT|POST|PATCH|DELETE) /|(?i)\betag\b|If-Match|omit [a-z]+_[a-z]+`)
	texts := 0
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
				texts++
				if found := words.FindString(text.Value); found != "" {
					t.Errorf("%s: a text says %q", set.Position(text.Pos()), found)
				}
			}
			return true
		})
		return nil
	})
	if err != nil || texts < 100 {
		t.Errorf("%d texts, %v", texts, err)
	}
}
