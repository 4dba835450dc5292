package adminapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
)

const (
	migrate = policies + "/migrate"
	managed = policies + "/third-party-access"
)

func TestMigrate(t *testing.T) {
	d := start(t, true).site()
	const settings = `{"third_party_allowed":false,"secure_login_ips":["203.0.113.0/24"],"native_clients":[
		{"client":"native-mobile","allowed":false},{"client":"native-desktop","allowed":true},
		{"client":"native-desktop","allowed":false,"scope":{"departments":[{"path":"sales"},{"path":"board"}],"members":["bob","ann@alias.example"]}},
		{"client":"native-desktop","allowed":false,"scope":{"members":["ann","bob"],"departments":[{"path":"board"},{"path":"sales"},{"path":"board"}]}},
		{"client":"native-desktop","allowed":false,"scope":{"members":["zoe"]}}]}`
	before := d.api.Store.State.Heads()
	preview := d.admin.post(migrate+"?dry_run=true", settings).want(200).has("created", `3`).has("changed", `1`)
	if d.api.Store.State.Heads() != before {
		t.Fatal("the preview changed the store")
	}
	made := d.admin.post(migrate, settings).want(200).has("created", `3`).has("changed", `1`)
	ids := made.each("policies", "id")
	if !slices.Equal(ids, preview.each("policies", "id")) || len(ids) != 4 || ids[0] != "third-party-access" || ids[1] != "migrated-native-mobile" {
		t.Fatalf("made %q, the preview said %q", ids, preview.each("policies", "id"))
	}
	if got := made.each("policies", "result"); !slices.Equal(got, []string{"changed", "created", "created", "created"}) {
		t.Errorf("results %q", got)
	}
	if got := made.each("policies", "name"); !slices.Equal(got[1:], []string{
		"Migrated: native-mobile is not allowed", "Migrated: native-desktop is not allowed for some", "Migrated: native-desktop is not allowed for some (2)",
	}) {
		t.Errorf("names %q", got)
	}
	made.has("policies.1.warnings.0.code", `"postmaster_included"`).has("policies.1.warnings.1", `null`).
		has("policies.2.scope", `{"departments":[{"path":"board"},{"path":"sales"}],"members":["ann@example.org","bob@example.org"]}`).
		has("policies.2.warnings.0.code", `"refused_and_allowed"`)
	d.admin.get(managed).want(200).has("except_ips", `["203.0.113.0/24"]`).has("enabled", `true`)
	d.admin.get(policies+"/migrated-native-mobile").want(200).has("type", `"blacklist"`).has("scope", `{"all":true}`).has("clients", `["native-mobile"]`).has("ips", `[]`)
	if a := d.admin.get("/v1/audit?domain=example.org&limit=1").want(200); a.text("items.0.action") != "policy.migrate" || !strings.Contains(string(a.body), "migrated-native-mobile") {
		t.Errorf("audit: %s", a.body)
	}

	// Again, in another order: every policy exists.
	before = d.api.Store.State.Heads()
	again := d.admin.post(migrate, `{"native_clients":[{"client":"native-desktop","allowed":false,"scope":{"members":["zoe"]}},{"client":"native-mobile","allowed":false,"scope":{"all":true,"members":["ann"]}}],
		"third_party_allowed":false}`).want(200).has("created", `0`).has("changed", `0`)
	if got := again.each("policies", "id"); !slices.Equal(got, []string{ids[0], ids[3], ids[1]}) || d.api.Store.State.Heads() != before {
		t.Errorf("again %q of %q, or the store changed", got, ids)
	}
	// Later changes by the administrator are kept.
	d.admin.patch(policies+"/migrated-native-mobile", `{"enabled":false,"name":"Phones"}`).want(200)
	d.admin.post(migrate, settings).want(200).has("created", `0`).has("policies.1.enabled", `false`).has("policies.1.name", `"Phones"`).has("policies.1.warnings.1.code", `"changed_since"`)
	// A name that another policy has is not used twice.
	d.admin.put(office, `{"name":"migrated: WEB is not allowed","type":"blacklist","scope":{"all":true},"clients":["social"]}`).want(201)
	d.admin.post(migrate, `{"native_clients":[{"client":"web","allowed":false}]}`).want(200).has("created", `1`).has("policies.0.name", `"Migrated: web is not allowed (2)"`)
	// Allowing keeps the list; a missing switch is not changed.
	d.admin.post(migrate, `{"third_party_allowed":true}`).want(200).has("created", `0`).has("changed", `1`)
	d.admin.post(migrate, `{}`).want(200).has("policies", `[]`)
	d.admin.get(dom+"/third-party-access").want(200).has("allow", `true`).has("secure_login_ips", `["203.0.113.0/24"]`)
	d.admin.del(managed).want(204)
	d.admin.post(migrate, `{"third_party_allowed":false}`).want(200).has("created", `1`)
}

// F24 holds for a migration as for its policies one by one: the simple switch guards nobody.
func TestMigrationIsGuarded(t *testing.T) {
	d := start(t, true).site()
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	d.came("ann@example.org", "198.51.100.1", access.ClientThirdParty, time.Hour)
	d.came("bob@example.org", "198.51.100.2", "native-mobile", time.Hour)
	const settings = `{"third_party_allowed":false,"native_clients":[{"client":"native-mobile","allowed":false}]}`
	d.admin.post(migrate+"?dry_run=true", `{"third_party_allowed":false}`).want(200).has("changed", `1`)
	d.admin.post(migrate+"?dry_run=true", settings).want(409, "lockout").has("lockout.locked_out", `1`).has("lockout.who.0.account", `"bob@example.org"`)
	made := d.admin.post(migrate+"?revert_after=1h", settings).want(200).has("created", `1`).has("changed", `1`)
	id := made.text("policies.1.pending.id")
	if id == "" || made.text("policies.0.pending.id") != id {
		t.Fatalf("no undoing: %s", made.body)
	}
	d.admin.post(migrate, settings).want(200).has("created", `0`).has("policies.1.pending.id", `"`+id+`"`)
	d.admin.post(dom+"/reverts/"+id+"/confirm", "").want(200).has("action", `"policy.migrate"`)
	d.admin.post(migrate, settings).want(200).has("policies.1.pending", `null`)
}

func TestMigrateFaults(t *testing.T) {
	d := start(t, true).site()
	before := d.api.Store.State.Heads()
	d.admin.post(migrate, `{"secure_login_ips":[],"native_clients":[
		{"client":"native-mobil","allowed":false},{"client":"third-party","allowed":false},{"client":"cloud-fetcher","allowed":true},{"allowed":false},{"client":"web"},
		{"client":"social","allowed":false,"scope":{"members":["ann@example.net"],"departments":[{"path":"nowhere"}]}},
		{"client":"social","allowed":false,"scope":{"except":{"members":["ann"]}}},
		{"client":"outlook-addin","allowed":true,"scope":{"members":["ann","bob"]}},{"client":"outlook-addin","allowed":false,"scope":{"members":["bob","ann"]}}]}`).faults(
		"/third_party_allowed required", "/native_clients/0/client unknown_client_type", "/native_clients/1/client conflict", "/native_clients/2/client conflict",
		"/native_clients/3/client required", "/native_clients/4/allowed required", "/native_clients/5/scope/departments/0/path unknown_department",
		"/native_clients/5/scope/members/0 outside_domain", "/native_clients/6/scope never_matches", "/native_clients/8/allowed conflict")
	d.admin.post(migrate, `{"third_party_allowed":"no","secure_login_ips":["192.0.2.0/33"],"clients":[]}`).faults(
		"/third_party_allowed wrong_type", "/secure_login_ips/0 invalid_network", "/clients unknown_field")
	d.admin.post(migrate, `{"third_party_allowed":false,"secure_login_ips":["192.0.2.9-192.0.2.1","192.0.2.1-2001:db8::1"]}`).faults("/secure_login_ips/0 invalid_network", "/secure_login_ips/1 invalid_network")
	if d.api.Store.State.Heads() != before {
		t.Error("what was refused changed the store")
	}
}

// former evaluates the old settings without policies, independently of the migration.
type former struct {
	api.Migration
	departments map[string][]string
}

func (s *former) refuses(account string, client access.ClientType, ip netip.Addr) bool {
	if client == access.ClientThirdParty || client == access.ClientCloudFetcher {
		secure := slices.ContainsFunc(s.SecureLoginIPs, func(n string) bool { return netip.MustParsePrefix(n).Contains(ip) })
		return s.ThirdPartyAllowed != nil && !*s.ThirdPartyAllowed && !secure
	}
	return slices.ContainsFunc(s.NativeClients, func(n api.NativeClient) bool {
		return n.Client == string(client) && !n.Allowed && s.concerns(n.Scope, account)
	})
}

func (s *former) concerns(scope *api.Scope, account string) bool {
	in := func(list []api.ScopeDepartment) bool {
		return slices.ContainsFunc(list, func(d api.ScopeDepartment) bool {
			return slices.ContainsFunc(s.departments[account], func(path string) bool {
				return path == d.Path || d.Sub && strings.HasPrefix(path, d.Path+"/")
			})
		})
	}
	switch {
	case scope == nil:
		return true
	case scope.Except != nil && (slices.Contains(scope.Except.Members, account) || in(scope.Except.Departments)):
		return false
	default:
		return scope.All || slices.Contains(scope.Members, account) || in(scope.Departments)
	}
}

// F12: beside whatever policies there are, what was refused is refused, and nothing more.
func TestMigrationChangesNoDecision(t *testing.T) {
	d := start(t, true).site()
	departments := map[string][]string{"ann@example.org": {"sales/emea"}, "bob@example.org": {"sales"}, "zoe@example.org": nil}
	own := []access.ClientType{"native-mobile", "native-desktop", access.ClientWeb}
	clients := append([]access.ClientType{access.ClientThirdParty, access.ClientCloudFetcher}, own...)
	ips := []netip.Addr{{}, addr("192.0.2.1"), addr("192.0.2.200"), addr("198.51.100.1"), addr("2001:db8::1")}
	networks := []string{"192.0.2.0/25", "198.51.100.1/32", "2001:db8::/64", "0.0.0.0/0"}
	scopes := []*api.Scope{
		nil,
		{All: true, Except: &api.Exceptions{Members: []string{"bob@example.org"}}},
		{Departments: []api.ScopeDepartment{{Path: "sales"}}},
		{Departments: []api.ScopeDepartment{{Path: "sales", Sub: true}}},
		{Members: []string{"zoe@example.org", "bob@example.org"}},
		{Members: []string{"ann@example.org"}},
		{Departments: []api.ScopeDepartment{{Path: "sales", Sub: true}}, Except: &api.Exceptions{Departments: []api.ScopeDepartment{{Path: "sales/emea"}}}},
	}
	existing := []string{
		`{"name":"a","type":"whitelist","scope":{"all":true},"ips":["192.0.2.0/24"],"clients":["third-party","native-mobile"]}`,
		`{"name":"b","type":"blacklist","scope":{"departments":[{"path":"sales"}]},"ips":["192.0.2.1"]}`,
		`{"name":"c","type":"blacklist","scope":{"all":true},"protocols":["pop3"],"clients":["web"]}`,
		`{"name":"d","type":"whitelist","scope":{"members":["ann@example.org"]},"ips":["198.51.100.0/24"],"mode":"report"}`,
	}
	// decisions reports of each login whether the domain's rules refuse it.
	decisions := func(each func(what string, refused bool, account string, client access.ClientType, ip netip.Addr)) {
		for account, in := range departments {
			_, view := d.api.Store.State.View(account)
			for _, client := range clients {
				for _, ip := range ips {
					for _, protocol := range []access.Protocol{access.IMAP, access.POP3} {
						reason, _ := access.Judge(&access.Query{
							Login:   &access.Login{Protocol: protocol, IP: ip},
							Address: account, Rules: view.Rules, Account: &access.Account{Departments: in}, Client: client,
						})
						each(fmt.Sprintf("%s with %s from %v by %v", account, client, ip, protocol), reason != "", account, client, ip)
					}
				}
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		for _, id := range d.admin.get(policies).want(200).each("items", "id") {
			d.admin.del(policies + "/" + id).want(204)
		}
		for _, body := range existing {
			if rapid.Bool().Draw(t, "policy") {
				d.admin.post(policies, body).want(201)
			}
		}
		settings := former{departments: departments}
		if third := rapid.IntRange(0, 2).Draw(t, "third-party clients: left out, allowed, not"); third > 0 {
			allowed := third == 1
			settings.ThirdPartyAllowed = &allowed
			settings.SecureLoginIPs = rapid.SliceOfNDistinct(rapid.SampledFrom(networks), 0, 3, rapid.ID).Draw(t, "secure login addresses")
		}
		type key struct {
			client access.ClientType
			scope  int
		}
		keys := rapid.Custom(func(t *rapid.T) key {
			return key{rapid.SampledFrom(own).Draw(t, "client"), rapid.IntRange(0, len(scopes)-1).Draw(t, "scope")}
		})
		for _, k := range rapid.SliceOfNDistinct(keys, 0, 5, rapid.ID).Draw(t, "own clients") {
			settings.NativeClients = append(settings.NativeClients, api.NativeClient{Client: string(k.client), Allowed: rapid.Bool().Draw(t, "allowed"), Scope: scopes[k.scope]})
		}
		body, err := json.Marshal(&settings.Migration)
		if err != nil {
			t.Fatal(err)
		}
		if settings.ThirdPartyAllowed == nil {
			body = []byte(strings.Replace(string(body), `"secure_login_ips":null,`, "", 1))
		}

		before := map[string]bool{}
		decisions(func(what string, refused bool, _ string, _ access.ClientType, _ netip.Addr) { before[what] = refused })
		if a := d.admin.post(migrate, string(body)); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
		decisions(func(what string, refused bool, account string, client access.ClientType, ip netip.Addr) {
			if want := before[what] || settings.refuses(account, client, ip); refused != want {
				t.Fatalf("%s: refused %v, before and by the settings %v", what, refused, want)
			}
		})
		heads := d.api.Store.State.Heads()
		again := d.admin.post(migrate, string(body))
		if again.status != http.StatusOK || again.value("created") != json.Number("0") || again.value("changed") != json.Number("0") || d.api.Store.State.Heads() != heads {
			t.Fatalf("the second call: %s", again.body)
		}
	})
}
