package adminapi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/redistest"
)

const (
	policies = dom + "/policies"
	office   = policies + "/office"
)

func TestPolicies(t *testing.T) {
	d := start(t, true).site()
	made := d.admin.post(policies, `{"id":"office","name":"Only from the office","type":"whitelist",
		"scope":{"departments":[{"path":"sales","sub":true}],"members":["Zoe@alias.example"],"except":{"members":["bob@example.org"]}},
		"ips":["203.0.113.7","203.0.113.0/24","2001:db8::1-2001:db8::9"],"except_ips":["203.0.113.9"],"clients":["third-party","native-mobile","third-party"],"protocols":["imap","smtp"]}`).want(201)
	made.has("id", `"office"`).has("enabled", `true`).has("mode", `"enforce"`).has("regions", `[]`).has("clients", `["third-party","native-mobile"]`).
		has("protocols", `["imap","smtp"]`).has("scope.members", `["zoe@example.org"]`).has("managed", `null`).has("warnings", `null`)
	if made.header.Get("Location") != office || made.text("created_at") == "" {
		t.Errorf("Location %q, %s", made.header.Get("Location"), made.body)
	}
	read := d.admin.get(office).want(200)
	if string(read.body) != string(made.body) || read.header.Get("ETag") != made.header.Get("ETag") {
		t.Errorf("GET %s, POST %s", read.body, made.body)
	}
	d.admin.post(policies, string(read.body)).want(409, "exists")
	// Writing back what was read changes nothing.
	if same := d.admin.put(office, string(read.body)).want(200); same.header.Get("ETag") != read.header.Get("ETag") {
		t.Error("writing what was read changed the policy")
	}
	d.admin.patch(office, `{"enabled":false,"ips":["192.0.2.0/24"],"protocols":null}`, "If-Match", read.header.Get("ETag")).want(200).
		has("enabled", `false`).has("ips", `["192.0.2.0/24"]`).has("protocols", `[]`).has("name", `"Only from the office"`).has("created_at", `"`+made.text("created_at")+`"`)
	d.admin.patch(office, `{"enabled":true}`, "If-Match", read.header.Get("ETag")).want(412, "precondition_failed")
	d.admin.patch(office, `{"enabled":null,"mode":"report"}`).want(200).has("enabled", `true`).has("mode", `"report"`)
	d.admin.put(policies+"/-second", `{"name":"Second","type":"blacklist","scope":{"all":true},"clients":["social"]}`).want(201)
	d.admin.put(policies+"/-second", `{"name":"Second","type":"blacklist","scope":{"members":["ann@example.org"]}}`).want(200).has("clients", `[]`)
	generated := d.admin.post(policies, `{"id":"","name":"Third","type":"blacklist","scope":{"all":true},"ips":["192.0.2.1"]}`).want(201).text("id")

	// Those of one millisecond are in the order of their ids, and a generated one begins with a
	// digit or a letter.
	all := []string{"third-party-access", "office", "-second", generated}
	if got := d.admin.get(policies).want(200).each("items", "id"); !slices.Equal(got, all) {
		t.Errorf("listed are %q", got)
	}
	var paged []string
	for next := ""; ; {
		a := d.admin.get(policies + "?limit=1&cursor=" + next).want(200)
		paged = append(paged, a.each("items", "id")...)
		if next = a.text("next"); next == "" {
			break
		}
	}
	if !slices.Equal(paged, all) {
		t.Errorf("page by page they are %q", paged)
	}
	d.admin.del(office).want(204)
	d.admin.get(office).want(404)
	d.admin.del(office).want(404)
	d.admin.patch(office, `{"enabled":true}`).want(404)
	if got := d.admin.get("/v1/audit?domain=example.org&limit=1").want(200); got.text("items.0.action") != "policy.delete" || got.text("items.0.note") != "Only from the office" {
		t.Errorf("audit: %s", got.body)
	}
	// A department that a policy names cannot be deleted; renaming it changes the policy.
	d.admin.patch(policies+"/-second", `{"scope":{"departments":[{"path":"board"}],"members":null}}`).want(200)
	d.admin.del(dom+"/departments/board").want(409, "in_use").has("referrers", `{"policies":1}`)
	d.admin.patch(dom+"/departments/board", `{"path":"directors"}`).want(200)
	d.admin.get(policies+"/-second").want(200).has("scope.departments", `[{"path":"directors"}]`)
}

func TestPolicyFaults(t *testing.T) {
	d := start(t, true).site()
	d.admin.post(policies, `{"name":"Taken","type":"blacklist","scope":{"all":true}}`).want(201)
	d.admin.put("/v1/client-types/kiosk", `{"evidence":[{"networks":["192.0.2.1"]}]}`).want(201)
	before := d.api.Store.State.Heads()
	for _, c := range []struct {
		name, body string
		faults     []string
	}{
		{"nothing", `{}`, []string{"/name required", "/type required", "/scope required"}},
		{
			"addresses", `{"name":"x","type":"blacklist","scope":{"all":true},"ips":["192.0.2.300","192.0.2.9-192.0.2.1","192.0.2.1-2001:db8::1","192.0.2.0/33","192.0.2.1"],"except_ips":["nowhere"]}`,
			[]string{"/ips/0 invalid_network", "/ips/1 invalid_network", "/ips/2 invalid_network", "/ips/3 invalid_network", "/except_ips/0 invalid_network"},
		},
		{
			"names", `{"name":"tAKEN","type":"blacklist","scope":{"departments":[{"path":"sails"}],"members":["ann@example.net","nobody@","x@unmanaged.example"],"except":{"departments":[{"path":"y"}],"members":["carl@example.net"]}},
			"clients":["third-partie","kiosk","web"],"protocols":["imap","smpt"],"colour":"red"}`,
			[]string{
				"/name duplicate", "/scope/departments/0/path unknown_department", "/scope/members/0 outside_domain", "/scope/members/1 invalid_address", "/scope/members/2 outside_domain",
				"/scope/except/departments/0/path unknown_department", "/scope/except/members/0 outside_domain", "/clients/0 unknown_client_type", "/protocols/1 not_in_list", "/colour unknown_field",
			},
		},
		{"no place", `{"name":"x","type":"whitelist","scope":{"all":true}}`, []string{"/ips required"}},
		{"regions", `{"name":"x","type":"whitelist","scope":{"all":true},"regions":["DE"]}`, []string{"/regions/0 regions_unavailable"}},
		{"all excepted", `{"name":"x","type":"blacklist","scope":{"all":true},"ips":["192.0.2.0/25","192.0.2.200"],"except_ips":["192.0.2.0-192.0.2.255"]}`, []string{"/except_ips never_matches"}},
		{"the world excepted", `{"name":"x","type":"blacklist","scope":{"all":true},"except_ips":["0.0.0.0/0","::/1","8000::/1"]}`, []string{"/except_ips never_matches"}},
		{"nobody", `{"name":"x","type":"blacklist","scope":{"except":{"members":["ann@example.org"]}}}`, []string{"/scope never_matches"}},
		{
			"everybody excepted", `{"name":"x","type":"blacklist","scope":{"members":["ann@example.org"],"departments":[{"path":"sales/emea","sub":true}],
			"except":{"members":["ann@alias.example"],"departments":[{"path":"sales","sub":true}]}}}`,
			[]string{"/scope never_matches"},
		},
		{"kinds", `{"name":7,"type":"greylist","enabled":"yes","mode":"later","scope":[],"ips":"192.0.2.1"}`, []string{
			"/name wrong_type", "/type not_in_list", "/enabled wrong_type", "/mode not_in_list", "/scope wrong_type", "/ips wrong_type",
		}},
		{"a kind in a scope", `{"name":"x","type":"whitelist","scope":{"all":"yes","departments":["sales"]},"regions":"DE"}`, []string{"/scope/all wrong_type", "/scope/departments/0 wrong_type", "/regions wrong_type"}},
		{"somebody outside", `{"name":"x","type":"blacklist","scope":{"members":["ann@example.net"]}}`, []string{"/scope/members/0 outside_domain"}},
		{"its id", `{"id":"a b","name":"x","type":"blacklist","scope":{"all":true}}`, []string{"/id invalid_name"}},
		{"a word for an id", `{"id":"test","name":"x","type":"blacklist","scope":{"all":true}}`, []string{"/id reserved"}},
		{"text that does not print", `{"name":"a\u0007","type":"blacklist","scope":{"all":true}}`, []string{"/name unprintable"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			admin := *d.admin
			admin.t = t
			admin.post(policies, c.body).faults(c.faults...)
		})
	}
	if d.api.Store.State.Heads() != before {
		t.Error("what was refused changed the store")
	}
	// Exceptions that leave somebody, or some address, are valid.
	for i, body := range []string{
		`"scope":{"departments":[{"path":"sales","sub":true}],"except":{"departments":[{"path":"sales"}]}}`,
		`"scope":{"all":true,"except":{"departments":[{"path":"sales","sub":true}]}}`,
		`"scope":{"all":true},"ips":["192.0.2.0/24"],"except_ips":["192.0.2.0/25","2001:db8::/32"]`,
		`"scope":{"all":true},"except_ips":["0.0.0.0/0"]`,
	} {
		d.admin.post(policies, fmt.Sprintf(`{"name":"fine %d","type":"blacklist",%s}`, i, body)).want(201)
	}
	// A policy that names a deleted client type can still be disabled.
	d.admin.put(policies+"/kiosk", `{"name":"kiosk","type":"blacklist","scope":{"all":true},"clients":["kiosk"]}`).want(201)
	d.admin.del("/v1/client-types/kiosk").want(409, "in_use").has("referrers", `{"policies":1}`)
	d.admin.del("/v1/client-types/kiosk?confirm=true").want(204)
	d.admin.patch(policies+"/kiosk", `{"enabled":false}`).want(200)
	d.admin.put(policies+"/kiosk2", `{"name":"kiosk2","type":"blacklist","scope":{"all":true},"clients":["kiosk"]}`).faults("/clients/0 unknown_client_type")
}

func TestPolicyWarnings(t *testing.T) {
	d := start(t, true).site()
	body := func(scope string) string { return `{"name":"x","type":"blacklist","scope":` + scope + `}` }
	d.admin.put(policies+"/x", body(`{"all":true}`)).want(201).has("warnings.0.code", `"postmaster_included"`)
	d.admin.get(policies+"/x").want(200).has("warnings", `null`)
	d.admin.put(policies+"/x", body(`{"all":true,"except":{"members":["bob@example.org"]}}`)).want(200).has("warnings.0.code", `"postmaster_included"`)
	d.admin.put(policies+"/x", body(`{"all":true,"except":{"members":["postmaster@example.org"]}}`)).want(200).has("warnings", `null`)
	d.admin.put(policies+"/x", body(`{"departments":[{"path":"sales"}]}`)).want(200).has("warnings", `null`)
	d.admin.put("/v1/accounts/postmaster@example.org", `{"departments":["board"]}`).want(201)
	d.admin.put(policies+"/x", body(`{"all":true,"except":{"departments":[{"path":"board"}]}}`)).want(200).has("warnings", `null`)
}

// F1: the simple switch is a view of one policy, and a change of either shows in the other.
func TestManagedPolicy(t *testing.T) {
	d := start(t, true).site()
	managed, third := policies+"/third-party-access", dom+"/third-party-access"
	d.admin.get(managed).want(200).has("managed", `"third-party-access"`).has("enabled", `true`)
	d.admin.patch(managed, `{"except_ips":["203.0.113.0/24"],"enabled":false}`).want(200)
	d.admin.get(third).want(200).has("allow", `true`).has("secure_login_ips", `["203.0.113.0/24"]`).has("customised", `null`)
	d.admin.patch(managed, `{"enabled":true,"scope":{"all":true,"except":{"members":["bob@example.org"]}}}`).want(200).has("managed", `"third-party-access"`)
	d.admin.get(third).want(200).has("allow", `false`).has("customised", `true`)
	d.admin.put(third, `{"allow":false}`).want(200).has("customised", `null`).has("secure_login_ips", `["203.0.113.0/24"]`)
	d.admin.get(managed).want(200).has("scope", `{"all":true}`)
	d.admin.del(managed).want(204)
	d.admin.get(third).want(200).has("allow", `true`)
	d.admin.put(third, `{"allow":false}`).want(200)
	d.admin.get(managed).want(200).has("managed", `"third-party-access"`)
}

func TestIPBlocks(t *testing.T) {
	d := start(t, true).site()
	path := dom + "/ip-blocks"
	made := d.admin.post(path, `{"network":"198.51.100.0/24","note":"since Monday","expires_at":"2099-01-01T01:00:00+01:00"}`).want(201)
	made.has("network", `"198.51.100.0/24"`).has("note", `"since Monday"`).has("expires_at", `"2099-01-01T00:00:00Z"`)
	d.admin.post(path, `{"network":"198.51.100.0-198.51.100.255"}`).want(409, "exists")
	second := d.admin.post(path, `{"network":"192.0.2.1-192.0.2.9"}`).want(201).has("expires_at", `null`).text("id")
	d.admin.post(path, `{"note":"a\u0007","expires_at":"2001-01-01T00:00:00Z","until":1}`).faults("/network required", "/note unprintable", "/expires_at in_the_past", "/until unknown_field")
	d.admin.post(path, `{"network":"198.51.100.0/33"}`).faults("/network invalid_network")
	d.admin.post(path+"?dry_run=true", `{"network":"192.0.2.77"}`).want(200)
	// Two that were made within a millisecond come in the order of their ids.
	if got := d.admin.get(path).want(200).each("items", "id"); !slices.Equal(sorted(got), sorted([]string{made.text("id"), second})) {
		t.Errorf("listed are %q", got)
	}
	d.admin.post(policies+"/test", `{"login":{"account":"ann","protocol":"imap","ip":"192.0.2.5"}}`).want(200).has("reason", `"ip_blocked"`)
	d.admin.del(path+"/"+second, "If-Match", `"1"`).want(412)
	d.admin.del(path + "/" + second).want(204)
	d.admin.del(path + "/" + second).want(404)
	d.admin.post(policies+"/test", `{"login":{"account":"ann","protocol":"imap","ip":"192.0.2.5"}}`).want(200).has("reason", `"policy"`)

	// A block expires by itself, and is deleted when the next one is created.
	soon := time.Now().Add(1500 * time.Millisecond).UTC().Format(time.RFC3339Nano)
	short := d.admin.post(path, `{"network":"192.0.2.5","expires_at":"`+soon+`"}`).want(201).text("id")
	redistest.Eventually(t, "the block ends", func() bool {
		return d.admin.post(policies+"/test", `{"login":{"account":"ann","protocol":"imap","ip":"192.0.2.5"}}`).text("reason") == "policy"
	})
	if got := d.admin.get(path).want(200).each("items", "id"); slices.Contains(got, short) {
		t.Errorf("listed are %q", got)
	}
	d.admin.del(path + "/" + short).want(404)
	d.admin.post(path, `{"network":"192.0.2.5"}`).want(201)
	if _, kept := d.api.Store.State.Block("example.org", short); kept {
		t.Error("the expired block is kept")
	}
	// They are deleted with their domain.
	d.admin.del(dom + "?confirm=true").want(204)
	d.admin.post("/v1/domains", `{"name":"example.org"}`).want(201)
	d.admin.get(path).want(200).has("items", `[]`)
}

// The name of a policy that may return, by the simple switch or by a revert, stays reserved.
func TestNamesOfPoliciesThatComeBack(t *testing.T) {
	d := start(t, true).site()
	d.admin.del(policies + "/third-party-access").want(204)
	const managed = `{"name":"third-party client access policy","type":"blacklist","scope":{"all":true}}`
	d.admin.post(policies, managed).faults("/name duplicate")
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	d.admin.patch(policies+"/third-party-access", `{"name":"Ours"}`).want(200)
	d.admin.post(policies, managed).faults("/name duplicate")

	const named = `{"name":"Office","type":"blacklist","scope":{"members":["bob@example.org"]}}`
	d.admin.put(office, named).want(201)
	d.admin.del(office + "?revert_after=1h").want(204)
	d.admin.post(policies, named).faults("/name duplicate")
	d.admin.post(dom+"/apply", `{"policies":[{"id":"other",`+named[1:]+`]}`).faults("/policies/0/name duplicate")
	d.admin.put(office, named).want(201) // which ends that
	d.admin.del(office).want(204)
	d.admin.post(policies, named).want(201)
}

// F11, F23: a draft is tested as if active, a stored policy by its status, with a trace.
func TestPolicyTest(t *testing.T) {
	d := start(t, true).site()
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	d.admin.put(office, `{"name":"Office","type":"whitelist","scope":{"all":true},"ips":["203.0.113.0/24"],"clients":["third-party"],"enabled":false}`).want(201)
	device := d.admin.post("/v1/accounts/ann@example.org/secure-passwords", `{"label":"My iPhone"}`).want(201).text("id")
	before := d.api.Store.State.Heads()
	login := func(ip, more string) string {
		return `"login":{"account":"ann@alias.example","service":"imap","ip":"` + ip + `"` + more + `}`
	}
	test := func(path, fields string) *answer { return d.admin.post(path, `{`+fields+`}`).want(200) }

	// Disabled: not evaluated; as a draft it is, and refuses.
	a := test(office+"/test", login("198.51.100.1", "")).has("verdict", `"not_evaluated"`).has("outcome", `"next"`)
	if !strings.Contains(string(a.body), `"result":"not_evaluated","policy":"office"`) {
		t.Errorf("the trace leaves out a disabled policy: %s", a.body)
	}
	stored := string(d.admin.get(office).body)
	test(policies+"/test", `"policy":`+stored+`,`+login("198.51.100.1", "")).has("verdict", `"no_match"`).has("outcome", `"deny"`).has("reason", `"policy"`).has("policy_id", `"office"`)
	test(policies+"/test", `"policy":{"name":"office","type":"whitelist","scope":{"all":true},"ips":["203.0.113.0/24"],"enabled":false},`+login("198.51.100.1", "")).
		has("verdict", `"no_match"`).has("outcome", `"deny"`).has("policy_id", `"office"`) // found by its name
	test(office+"/test", `"policy":{"type":"whitelist","scope":{"all":true},"ips":["198.51.100.0/24"]},`+login("198.51.100.1", "")).has("verdict", `"match"`).has("outcome", `"next"`)
	if d.api.Store.State.Heads() != before {
		t.Fatal("a test changed the store")
	}

	d.admin.patch(office, `{"enabled":true}`).want(200)
	test(office+"/test", login("198.51.100.1", "")).has("verdict", `"no_match"`).has("outcome", `"deny"`).has("account", `"ann@example.org"`).has("client", `"third-party"`)
	test(office+"/test", login("203.0.113.1", "")).has("verdict", `"match"`).has("outcome", `"next"`)
	test(policies+"/test", login("203.0.113.1", "")).has("verdict", `null`).has("outcome", `"next"`)
	// A draft is evaluated with all others: whitelists add up, and refusal wins.
	test(policies+"/test", `"policy":{"type":"whitelist","scope":{"all":true},"ips":["198.51.100.1"]},`+login("198.51.100.1", "")).has("verdict", `"match"`).has("outcome", `"next"`)
	test(policies+"/test", `"policy":{"type":"blacklist","scope":{"all":true}},`+login("203.0.113.1", "")).has("verdict", `"match"`).has("outcome", `"deny"`).has("policy_id", `"draft"`)
	test(policies+"/test", `"policy":{"type":"blacklist","mode":"report","scope":{"all":true}},`+login("203.0.113.1", "")).has("verdict", `"match"`).has("outcome", `"next"`).has("would_refuse", `["draft"]`)
	for _, other := range []string{`"scope":{"members":["bob@example.org"]}`, `"scope":{"all":true},"clients":["web"]`, `"scope":{"all":true},"protocols":["pop3"]`} {
		test(policies+"/test", `"policy":{"type":"blacklist",`+other+`},`+login("203.0.113.1", "")).has("verdict", `"not_applicable"`).has("outcome", `"next"`)
	}
	// A secure password by its id, live and revoked; the mailbox password under enforcement.
	test(office+"/test", login("203.0.113.1", `,"credential_id":"`+device+`"`)).has("outcome", `"allow"`).has("credential_id", `"`+device+`"`)
	d.admin.put(dom+"/secure-password-policy", `{"enforced":true}`).want(200)
	test(office+"/test", login("203.0.113.1", "")).has("verdict", `"match"`).has("reason", `"secure_password_required"`)
	d.admin.del("/v1/accounts/ann@example.org/secure-passwords/" + device).want(204)
	test(office+"/test", login("203.0.113.1", `,"credential_id":"`+device+`"`)).has("reason", `"revoked_secret"`).has("note", `"revoked secure password 'My iPhone' still in use"`)

	d.admin.post(policies+"/none/test", `{`+login("203.0.113.1", "")+`}`).want(404)
	for _, c := range []struct {
		body   string
		faults []string
	}{
		{`{}`, []string{"/login required"}},
		{`{"login":{"account":"ann@example.net","protocol":"imap","secret":"x","secret_b64":"eA=="}}`, []string{"/login/account outside_domain", "/login/secret unknown_field", "/login/secret_b64 unknown_field"}},
		{`{"login":{"ip":"here","protocol":"imapp","lookup":"x","credential_id":"none"},"policy":{"ips":["x"]}}`, []string{
			"/login/account required", "/login/ip invalid_network", "/login/protocol not_in_list", "/login/lookup not_in_list",
			"/policy/type required", "/policy/scope required", "/policy/ips/0 invalid_network",
		}},
		{`{"login":{"account":"ann","protocol":"imap","credential_id":"none"},"policy":{"id":"else","type":"blacklist","scope":{"all":true}}}`, []string{"/login/credential_id unknown_credential", "/policy/id conflict"}},
	} {
		d.admin.post(office+"/test", c.body).faults(c.faults...)
	}
	if got := d.admin.get(dom + "/logins").want(200); len(got.each("items", "id")) != 0 {
		t.Errorf("tests left records: %s", got.body)
	}
	if use := d.admin.get("/v1/accounts/bob@example.org/secure-passwords").want(200); strings.Contains(string(use.body), "last_used") {
		t.Errorf("tests left a last use: %s", use.body)
	}
}
