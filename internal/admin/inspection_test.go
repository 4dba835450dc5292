package admin_test

import (
	"slices"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
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
		found, err := d.Inspect(t.Context(), "", 90, false, admin.Page{})
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

// Each kind of gap is found where it is, and only there; reclaim closes those that have a proposal, and undo
// opens them again.
func TestKindsOfFindings(t *testing.T) {
	a, red := admintest.New(t)
	a.AuditEntry = red.AuditEntry
	admintest.Populate(t, a, "example.org")
	now := time.Now().UTC()
	old, long := now.AddDate(-1, 0, -1), now.AddDate(0, 0, -200)
	secret := func(id string) []store.SecurePassword {
		return []store.SecurePassword{{ID: id, Label: id, CreatedAt: long}}
	}
	ip := []string{"198.51.100.0/24"}
	err := a.Store.Update(t.Context(), store.ShardOf("example.org"), store.Actor{Name: "test"}, false, func(ch *store.Change) error {
		for _, acc := range []store.Account{
			{Address: "carl@example.org", MailboxHash: "{X}y", MailboxSetAt: old},
			{Address: "dora@example.org", MailboxHash: "{X}y", MailboxSetAt: now, Secrets: secret("used")},
			{Address: "pam@example.org", Secrets: secret("idle")},
			{Address: "sue@example.org", Secrets: secret("kept"), Suspended: true},
			{Address: "tom@example.org", Departments: []string{"sales/emea"}},
		} {
			acc.CreatedAt = long
			ch.PutAccount(&acc)
		}
		ch.PutDepartment("example.org", &store.Department{Path: "sales/emea"})
		ch.PutDepartment("example.org", &store.Department{Path: "empty"})
		for id, scope := range map[string]access.Scope{
			"nobody":  {Departments: []access.ScopeDepartment{{Path: "empty", Sub: true}}},
			"sales":   {Departments: []access.ScopeDepartment{{Path: "sales", Sub: true}}},
			"refuses": {All: true, Except: access.Exceptions{Members: []string{"bob@example.org"}}},
			"off":     {Departments: []access.ScopeDepartment{{Path: "empty"}}},
		} {
			p := access.Policy{ID: id, Name: id, Enabled: id != "off", Type: access.Blacklist, Scope: scope, IPs: ip}
			if id == "sales" {
				p.IPs = []string{"192.0.2.0/24"}
			}
			ch.PutPolicy("example.org", &store.Policy{Policy: p, CreatedAt: long})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	login := func(account, credential string, outcome access.Outcome, policy string) store.LoginRecord {
		return store.LoginRecord{
			ID: store.NewID(), Domain: "example.org", Account: account, Time: now, IP: "198.51.100.9", Protocol: "imap", Client: access.ClientThirdParty,
			Outcome: outcome, Reason: access.ReasonOK, CredentialID: credential, PolicyID: policy,
		}
	}
	batch := store.Batch{Records: []store.LoginRecord{
		login("carl@example.org", store.CredentialMailbox, access.Allow, ""), login("dora@example.org", "used", access.Allow, ""),
		login("tom@example.org", store.CredentialMailbox, access.Deny, "refuses"),
	}}
	if err := red.AppendRecords(t.Context(), store.BatchID{Origin: "test", N: 1}, &batch); err != nil {
		t.Fatal(err)
	}
	d, err := admintest.As(a, store.RoleAdmin, "", "").Domain("example.org")
	if err != nil {
		t.Fatal(err)
	}
	found := func() (ids []string) {
		t.Helper()
		in, err := d.Inspect(t.Context(), "", 90, false, admin.Page{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range in.Items {
			if f.Kind != "unused_protocol" && f.Kind != "unused_sending" { // which are tested with Dovecot
				ids = append(ids, f.ID)
			}
		}
		return ids
	}
	want := []string{
		"exception_without_end::refuses", "no_secure_password:carl@example.org", "old_mailbox_password:carl@example.org",
		"policy_unused::sales", "policy_without_effect::nobody", "suspended_with_access:sue@example.org",
		"unused_secure_password:pam@example.org:idle", "unused_secure_password:sue@example.org:kept",
	}
	if got := found(); !slices.Equal(got, want) {
		t.Fatalf("found %q\n want %q", got, want)
	}
	done, err := d.Reclaim(t.Context(), &api.Reclaim{Kinds: []string{"policy_without_effect", "unused_secure_password", "policy_unused"}}, &api.Faults{})
	if err != nil || len(done.Items) != 3 {
		t.Fatalf("reclaimed %+v, %v", done, err)
	}
	if got := found(); slices.Contains(got, want[4]) || slices.Contains(got, want[6]) || !slices.Contains(got, want[3]) {
		t.Errorf("after the reclaim: %q", got)
	}
	if r, err := d.Reclaim(t.Context(), &api.Reclaim{Undo: done.ID}, &api.Faults{}); err != nil || r.Reverted != 3 {
		t.Errorf("undo: %+v, %v", r, err)
	}
	if got := found(); !slices.Equal(got, want) {
		t.Errorf("after the undo %q", got)
	}

	_, err = d.PutSecurePasswordPolicy(t.Context(), func(*api.Faults) *api.SecurePasswordPolicy {
		return &api.SecurePasswordPolicy{Enforced: true, Scope: &api.Scope{All: true, Except: &api.Exceptions{Members: []string{"ann@example.org"}}}}
	})
	if admin.ProblemOf(err).Code == "lockout" { // carl logs in with his mailbox password
		d.Confirm = true
		_, err = d.PutSecurePasswordPolicy(t.Context(), func(*api.Faults) *api.SecurePasswordPolicy {
			return &api.SecurePasswordPolicy{Enforced: true, Scope: &api.Scope{All: true, Except: &api.Exceptions{Members: []string{"ann@example.org"}}}}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	got := found()
	for _, id := range []string{"exception_without_end::secure-password-policy", "no_secure_password:bob@example.org", "no_secure_password:tom@example.org"} {
		if !slices.Contains(got, id) {
			t.Errorf("where secure passwords are required, %s is not found: %q", id, got)
		}
	}
	if slices.Contains(got, "no_secure_password:ann@example.org") || slices.Contains(got, "no_secure_password:pam@example.org") {
		t.Errorf("found %q", got)
	}
}

// An undo switches a policy on again only as it was, and not if that locks people out.
func TestUndoOfPolicies(t *testing.T) {
	a, red := admintest.New(t)
	a.AuditEntry = red.AuditEntry
	admintest.Populate(t, a, "example.org")
	d, err := admintest.As(a, store.RoleAdmin, "", "").Domain("example.org")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, err := d.PutThirdPartyAccess(ctx, &api.ThirdPartyAccess{Allow: true}, &api.Faults{}); err != nil {
		t.Fatal(err)
	}
	create := func(id string, protocols ...string) {
		t.Helper()
		_, err := d.CreatePolicy(ctx, id, func(*api.Faults) *api.Policy {
			return &api.Policy{Name: id, Type: "blacklist", Scope: &api.Scope{All: true}, Protocols: protocols, IPs: []string{"198.51.100.0/24"}}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	reclaim := func() string {
		t.Helper()
		r, err := d.Reclaim(ctx, &api.Reclaim{Kinds: []string{"policy_shadowed"}}, &api.Faults{})
		if err != nil || len(r.Items) != 1 || r.Items[0].Proposal.Disable != "narrow" {
			t.Fatalf("reclaim: %+v, %v", r, err)
		}
		return r.ID
	}
	undo := func(id string) (*api.Reclaimed, error) {
		return d.Reclaim(ctx, &api.Reclaim{Undo: id}, &api.Faults{})
	}
	create("wide")
	create("narrow", "imap")
	if r, err := undo(reclaim()); err != nil || r.Reverted != 1 {
		t.Fatalf("undo: %+v, %v", r, err)
	}
	if p, err := d.Policy("narrow"); err != nil || !*p.View.Enabled {
		t.Errorf("after the undo: %+v, %v", p, err)
	}

	id := reclaim()
	edit := func(enabled bool, ips ...string) {
		t.Helper()
		_, err := d.PatchPolicy(ctx, "narrow", func(cur *api.Policy, _ *api.Faults) (*api.Policy, error) {
			cur.IPs, cur.Enabled = ips, &enabled
			return cur, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	edit(false, "192.0.2.0/24")
	if r, err := undo(id); err != nil || r.Reverted != 0 || !slices.Equal(r.Kept, []string{"policy/narrow"}) {
		t.Errorf("undo of a policy that was changed: %+v, %v", r, err)
	}
	edit(true, "198.51.100.0/24")

	// Meanwhile ann and bob log in from where the policy refuses.
	id = reclaim()
	if _, err := d.DeletePolicy(ctx, "wide"); err != nil {
		t.Fatal(err)
	}
	batch := store.Batch{}
	for _, account := range []string{"ann@example.org", "bob@example.org"} {
		batch.Records = append(batch.Records, store.LoginRecord{
			ID: store.NewID(), Domain: "example.org", Account: account, Time: time.Now(), IP: "198.51.100.9", Protocol: "imap", Client: access.ClientThirdParty,
			Outcome: access.Allow, Reason: access.ReasonOK, CredentialID: store.CredentialMailbox,
		})
	}
	if err := red.AppendRecords(ctx, store.BatchID{Origin: "test", N: 1}, &batch); err != nil {
		t.Fatal(err)
	}
	if _, err := undo(id); admin.ProblemOf(err).Code != "lockout" {
		t.Errorf("undo that locks out: %v", err)
	}
	d.Confirm = true
	if r, err := undo(id); err != nil || r.Reverted != 1 {
		t.Errorf("confirmed undo: %+v, %v", r, err)
	}
}

// Keys that are not used are found once that is known, end with a reclaim, and get their end back by an
// undo unless somebody changed it.
func TestUnusedKeys(t *testing.T) {
	a, red := admintest.New(t)
	a.AuditEntry = red.AuditEntry
	admintest.Populate(t, a, "example.org")
	uses := red.KeyUses()
	a.KeyUses = uses
	root := admintest.As(a, store.RoleAdmin, "", "")
	d, err := root.Domain("example.org")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	key := func(name, role string) (id string, secret []byte) {
		t.Helper()
		in := api.NewKey{Name: name, Role: role}
		if role == "self" {
			in.Account = "ann@example.org"
		} else {
			in.Domain = "example.org"
		}
		k, err := root.CreateKey(ctx, &in, &api.Faults{})
		if err != nil {
			t.Fatal(err)
		}
		return k.View.ID, k.View.Secret
	}
	idle, _ := key("idle", "self")
	strong, _ := key("strong", "domain")
	busy, secret := key("busy", "domain")
	uses.Write(ctx) // uses are recorded from now on
	found := func(r *admin.Request) (list []string) {
		t.Helper()
		d, err := r.Domain("example.org")
		if err != nil {
			t.Fatal(err)
		}
		r.Time = r.Time.AddDate(0, 0, 2)
		in, err := d.Inspect(ctx, "", 1, false, admin.Page{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range in.Items {
			if f.Kind == "unused_key" {
				list = append(list, f.ID)
				if mine := f.ID == "unused_key:ann@example.org:"+idle || r.Caller.Role == store.RoleAdmin; (f.Proposal != nil) != mine {
					t.Errorf("%s for %s: proposal %+v", f.ID, r.Caller.Role, f.Proposal)
				}
			}
		}
		return list
	}
	if in, err := d.Inspect(ctx, "", 1, false, admin.Page{}); err != nil || slices.ContainsFunc(in.Items, func(f api.Finding) bool { return f.Kind == "unused_key" }) {
		t.Errorf("before it can be known: %+v, %v", in, err)
	}
	all := []string{"unused_key::" + busy, "unused_key::" + strong, "unused_key:ann@example.org:" + idle}
	slices.Sort(all)
	if list := found(admintest.As(a, store.RoleAdmin, "", "")); !slices.Equal(list, all) {
		t.Errorf("found %v, want %v", list, all)
	}
	found(admintest.As(a, store.RoleDomain, "example.org", ""))

	if _, ok := a.Holder(secret); !ok {
		t.Fatal("the key is not known")
	}
	uses.Write(ctx)
	list, err := root.Keys(ctx, admin.Page{})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range list.Items {
		if k.LastUsedAt.IsZero() == (k.ID == busy) {
			t.Errorf("%s was last used at %v", k.Name, k.LastUsedAt)
		}
	}

	later := admintest.As(a, store.RoleAdmin, "", "")
	later.Time = later.Time.AddDate(0, 0, 2)
	ld, err := later.Domain("example.org")
	if err != nil {
		t.Fatal(err)
	}
	days := 1
	done, err := ld.Reclaim(ctx, &api.Reclaim{Findings: []string{"unused_key:ann@example.org:" + idle, "unused_key::" + strong}, Days: &days}, &api.Faults{})
	if err != nil || len(done.Items) != 2 {
		t.Fatalf("reclaim: %+v, %v", done, err)
	}
	ended := func(id string) bool {
		for _, k := range a.Store.State.Keys() {
			if k.Doc.ID == id {
				return !k.Doc.ExpiresAt.IsZero()
			}
		}
		t.Fatalf("there is no key %s", id)
		return false
	}
	if !ended(idle) || !ended(strong) || ended(busy) {
		t.Errorf("ended: idle %t, strong %t, busy %t", ended(idle), ended(strong), ended(busy))
	}
	if r, err := d.Reclaim(ctx, &api.Reclaim{Undo: done.ID}, &api.Faults{}); err != nil || r.Reverted != 2 || ended(idle) || ended(strong) {
		t.Errorf("undo: %+v, %v", r, err)
	}
	if r, err := d.Reclaim(ctx, &api.Reclaim{Undo: done.ID}, &api.Faults{}); err != nil || r.Reverted != 0 || len(r.Kept) != 2 {
		t.Errorf("second undo: %+v, %v", r, err)
	}
}
