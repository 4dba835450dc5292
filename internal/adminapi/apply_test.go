package adminapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/redistest"
)

const (
	export  = dom + "/export"
	apply   = dom + "/apply"
	annPath = "/v1/accounts/ann@example.org"
)

// exported is the domain as a document, for a test to edit.
func (c *client) exported(query string) *api.DomainDocument {
	c.t.Helper()
	d := new(api.DomainDocument)
	if err := json.Unmarshal(c.get(export+query).want(200).body, d); err != nil {
		c.t.Fatal(err)
	}
	return d
}

func (c *client) apply(query string, d *api.DomainDocument, headers ...string) *answer {
	c.t.Helper()
	text, err := json.Marshal(d)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.post(apply+query, string(text), headers...)
}

// planned compares the steps of a plan, as "+ kind id".
func (a *answer) planned(want ...string) *answer {
	a.t.Helper()
	a.want(200)
	got := []string{}
	for list, sign := range map[string]string{"additions": "+", "changes": "~", "removals": "-"} {
		kinds, ids := a.each(list, "kind"), a.each(list, "id")
		for i := range ids {
			got = append(got, sign+" "+kinds[i]+" "+ids[i])
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		a.t.Fatalf("%s: the plan is %q, want %q: %s", a.what, got, want, a.body)
	}
	return a
}

func blacklist(id string) api.Policy {
	return api.Policy{ID: id, Name: "Policy " + id, Type: "blacklist", Mode: "enforce", Scope: &api.Scope{All: true}, IPs: []string{"192.0.2.1"}}
}

// rich creates a site with something in every section, and with secrets.
func rich(t *testing.T) (d *daemon, secrets []string) {
	t.Helper()
	d = start(t, false).site()
	d.admin.post(policies, `{"id":"office","name":"Only from the office","type":"whitelist","scope":{"departments":[{"path":"sales","sub":true}]},"ips":["203.0.113.0/24"]}`).want(201)
	d.admin.post(dom+"/ip-blocks", `{"network":"198.51.100.0/24","note":"guesses","expires_at":"2099-01-01T00:00:00Z"}`).want(201)
	d.admin.put(dom+"/secure-password-policy", `{"enforced":true,"scope":{"departments":[{"path":"board"}]}}`).want(200)
	d.admin.patch(annPath, `{"preset":"imap-smtp","aliases":["a@example.org"]}`).want(200)
	d.admin.put(annPath+"/mailbox-password", `{"password":"correct horse battery"}`).want(200)
	secrets = append(secrets, "correct horse battery", d.admin.post(annPath+"/secure-passwords", `{"label":"My iPhone"}`).want(201).text("secret"))
	key := d.key(`"role":"self","account":"ann@example.org"`)
	a, _ := d.api.Store.State.Account("ann@example.org")
	for _, s := range a.Doc.Secrets {
		hash, err := json.Marshal(s.Hash)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, strings.Trim(string(hash), `"`), s.ID, s.PepperID)
	}
	secrets = append(secrets, a.Doc.MailboxHash, key.key, key.id, "My iPhone")
	return d, secrets
}

func TestExport(t *testing.T) {
	d, secrets := rich(t)
	a := d.admin.get(export).want(200)
	a.has("format", `1`).has("domain.name", `"example.org"`).has("domain.alias_domains", `["alias.example"]`).has("domain.created_at", `null`).
		has("secure_password_policy", `{"enforced":true,"mode":"enforce","scope":{"departments":[{"path":"board"}]}}`).
		has("ip_blocks", `[{"expires_at":"2099-01-01T00:00:00Z","network":"198.51.100.0/24","note":"guesses"}]`).
		has("accounts.0", `{"address":"ann@example.org","aliases":["a@example.org"],"departments":["sales/emea"],"protocols":{"imap":true,"pop3":false,"smtp":true},"secure_passwords":"optional","send_as":[],"suspended":false}`)
	if got := a.each("departments", "path"); !slices.Equal(got, []string{"board", "sales", "sales/emea"}) {
		t.Errorf("departments %q", got)
	}
	if got := a.each("policies", "id"); !slices.Equal(got, []string{"office", "third-party-access"}) {
		t.Errorf("policies %q", got)
	}
	if got := a.header.Get("ETag"); got != `"`+a.text("revision")+`"` || a.text("revision") == "" {
		t.Errorf("ETag %s of %s", got, a.body)
	}
	for _, secret := range append(secrets, "hash", "secret\"", "secrets", `"mailbox_password"`, "secure_password_count", "created_at", "pepper", "label") {
		if secret == "" || strings.Contains(string(a.body), secret) {
			t.Errorf("the export holds %q", secret)
		}
	}
	if again := d.admin.get(export).want(200); !bytes.Equal(again.body, a.body) {
		t.Error("two exports of one state differ")
	}
	d.admin.get(export+"?accounts=false").want(200).has("accounts", `null`)
	// A changed secret does not change the revision; a switch does.
	d.admin.post(annPath+"/secure-passwords", `{"label":"Tablet"}`).want(201)
	if again := d.admin.get(export).want(200); again.text("revision") != a.text("revision") {
		t.Error("a secure password changed the revision")
	}
	d.admin.patch(annPath, `{"suspended":true}`).want(200)
	if again := d.admin.get(export).want(200); again.text("revision") == a.text("revision") {
		t.Error("a suspension did not change the revision")
	}
	d.admin.get("/v1/domains/nobody.example/export").want(404)
}

func TestApply(t *testing.T) {
	d, _ := rich(t)
	doc := d.admin.exported("")
	d.admin.apply("", doc).planned().has("applied", `true`)
	before := d.api.Store.State.Heads()

	doc.Domain.TraceHeader = true
	doc.SecurePasswordPolicy.Scope = &api.Scope{Departments: []api.ScopeDepartment{{Path: "new/team"}}}
	doc.Departments = slices.DeleteFunc(doc.Departments, func(v api.Department) bool { return v.Path == "board" })
	doc.Departments = append(doc.Departments, api.Department{Path: "new/team"})
	doc.Policies[0].IPs = []string{"203.0.113.0/25"}
	doc.Policies = append(doc.Policies, api.Policy{
		ID: "team", Name: "Team", Type: "blacklist", Mode: "enforce",
		Scope: &api.Scope{Departments: []api.ScopeDepartment{{Path: "new", Sub: true}}}, Clients: []string{"third-party"},
	}, blacklist("everybody"))
	doc.IPBlocks = append(doc.IPBlocks, api.IPBlock{Network: "192.0.2.7"}, api.IPBlock{Network: "192.0.2.8", ExpiresAt: time.Now().Add(-time.Hour)})
	doc.IPBlocks[0].Note = "more guesses"
	doc.Accounts[1].Departments = []string{"new/team"}
	doc.Accounts = append(doc.Accounts, api.AccountSettings{Address: "Carl@alias.example", Preset: "all", SecurePasswords: "optional"})
	want := []string{
		"~ domain example.org", "- department board", "+ department new", "+ department new/team", "~ policy office", "+ policy team", "+ policy everybody",
		"~ ip_block 198.51.100.0/24", "+ ip_block 192.0.2.7", "~ account bob@example.org", "+ account carl@example.org",
	}
	plan := d.admin.apply("?dry_run=true", doc).planned(want...).has("applied", `false`).has("revision", `"`+doc.Revision+`"`).
		has("changes.1.changes", `{"ips":[["203.0.113.0/24"],["203.0.113.0/25"]]}`)
	if w := plan.each("warnings", "code"); !slices.Equal(w, []string{"postmaster_included"}) {
		t.Errorf("warnings %q", w)
	}
	if plan.header.Get("ETag") != `"`+doc.Revision+`"` || plan.header.Get("Dry-Run") != "true" {
		t.Errorf("headers of a plan: %v", plan.header)
	}
	if d.api.Store.State.Heads() != before {
		t.Fatal("a plan changed the store")
	}
	done := d.admin.apply("", doc, "If-Match", plan.header.Get("ETag")).planned(want...).has("applied", `true`)
	if now := d.admin.exported(""); now.Revision != done.text("revision") || done.header.Get("ETag") != `"`+now.Revision+`"` {
		t.Errorf("the revision is %s, told was %s", now.Revision, done.body)
	}
	d.admin.apply("", doc).planned() // by its old revision, and with what is implied and ended in it
	audit := d.admin.get("/v1/audit?domain=example.org&limit=1").want(200)
	if audit.text("items.0.action") != "domain.apply" || audit.text("items.0.note") != "6 added, 4 changed, 1 removed" ||
		!strings.Contains(string(audit.body), `"policy/office":{"ips":[["203.0.113.0/24"],["203.0.113.0/25"]]}`) {
		t.Errorf("audit: %s", audit.body)
	}
	d.admin.get(annPath).want(200).has("mailbox_password_set", `true`).has("secure_password_count", `1`)
	if ids := d.admin.get(dom+"/ip-blocks").want(200).each("items", "note"); !slices.Equal(ids, []string{"more guesses", ""}) {
		t.Errorf("blocks: %q", ids)
	}

	// A missing section is kept; an empty one removes everything in it.
	d.admin.post(apply, `{"ip_blocks":[]}`).planned("- ip_block 192.0.2.7", "- ip_block 198.51.100.0/24")
	d.admin.post(apply, `{}`).planned()
	d.admin.post(apply, `{"departments":[]}`).faults("/departments in_use")
	d.admin.post(apply, `{"secure_password_policy":{"enforced":false}}`).planned("~ domain example.org").has("changes.0.changes.trace_header", `null`)
	d.admin.get(dom).want(200).has("trace_header", `true`)
	// Parents of a department are implied, as they are.
	d.admin.patch(dom+"/departments/new", `{"name":"The new ones"}`).want(200)
	d.admin.post(apply, `{"departments":[{"path":"new/team"},{"path":"sales/emea","name":"Sales EMEA"}]}`).planned()
	// Two policies swap their names.
	swap := d.admin.exported("?accounts=false")
	swap.Policies[0].Name, swap.Policies[1].Name = swap.Policies[1].Name, swap.Policies[0].Name
	d.admin.apply("", swap).planned("~ policy everybody", "~ policy office")
	// Alias domains are changed as by PATCH.
	swap = d.admin.exported("?accounts=false")
	swap.Domain.AliasDomains = []string{"other.example"}
	d.admin.apply("", swap).planned("~ domain example.org")
	d.admin.post("/v1/domains", `{"name":"other.example"}`).want(409, "exists")
	d.admin.post("/v1/domains", `{"name":"alias.example"}`).want(201)
	swap.Domain.AliasDomains, swap.Revision = []string{"example.net"}, ""
	d.admin.apply("", swap).want(409, "exists")
	d.admin.get(dom).want(200).has("alias_domains", `["other.example"]`)
}

func TestApplyRemovesAccounts(t *testing.T) {
	d, _ := rich(t)
	key := d.key(`"role":"self","account":"ann@example.org"`)
	doc := d.admin.exported("")
	doc.Accounts = []api.AccountSettings{}
	plan := d.admin.apply("?dry_run=true", doc).planned("- account ann@example.org", "- account bob@example.org")
	if got := plan.each("warnings", "code"); !slices.Equal(got, []string{"secrets_lost"}) {
		t.Errorf("warnings %q", got)
	}
	refused := d.admin.apply("", doc).want(409, "confirm_required")
	if !strings.Contains(refused.text("detail"), ", 1 have secure passwords") {
		t.Errorf("it does not say how many: %s", refused.body)
	}
	key.get(annPath).want(200)
	d.admin.apply("?confirm=true", doc).planned("- account ann@example.org", "- account bob@example.org")
	d.admin.get(annPath).want(404)
	key.get(annPath).want(401)
}

// A document moves the verification of mailbox passwords with a confirmation only, and not with a
// domain's key.
func TestApplyMovesPasswords(t *testing.T) {
	d, _ := rich(t)
	d.admin.patch("/v1/domains/example.org?confirm=true", `{"mailbox_passwords":"next"}`).want(200)
	doc := d.admin.exported("")
	doc.Revision, doc.Domain.MailboxPasswords = "", "site"
	d.admin.apply("", doc).want(409, "confirm_required").says("Other mailbox passwords are valid at once")
	d.key(`"role":"domain","domain":"example.org"`).apply("?confirm=true", doc).want(403, "forbidden")
	d.admin.get("/v1/domains/example.org").want(200).has("mailbox_passwords", `"next"`)
	d.admin.apply("?confirm=true", doc).planned("~ domain example.org")
	d.admin.get("/v1/domains/example.org").want(200).has("mailbox_passwords", `"site"`)
}

// A document does not lift a suspension by leaving it out, nor by leaving the account out.
func TestApplyKeepsSuspensions(t *testing.T) {
	d, _ := rich(t)
	d.admin.patch(annPath, `{"suspended":true}`).want(200)
	doc := d.admin.exported("")
	doc.Revision = ""
	for i := range doc.Accounts {
		doc.Accounts[i].Suspended = false
	}
	d.admin.apply("", doc).want(409, "confirm_required").says("The suspension is lifted of ann@example.org.")
	doc.Accounts = []api.AccountSettings{}
	d.admin.apply("?confirm=true", doc).want(409, "suspended")
	d.admin.get(annPath).want(200).has("suspended", `true`)
}

func TestApplyFaults(t *testing.T) {
	d, _ := rich(t)
	before := d.api.Store.State.Heads()
	d.admin.post(apply, `{"format":2,"revision":"x","domain":{"name":"example.net","sender_check":"maybe","alias_domains":["x..y"]},
		"secure_password_policy":{"enforced":true,"scope":{"departments":[{"path":"nowhere"}]}},
		"departments":[{"path":"sales"},{"path":"a//b"},{"path":"sales"}],
		"policies":[{"id":"a","name":"One","type":"blacklist","scope":{"departments":[{"path":"board"}]}},{"name":"oNE","type":"whitelist","scope":{"all":true},"ips":["192.0.2.300"]},
			{"id":"a","name":"Three","type":"greylist","scope":{"members":["x@example.net"]}},{"id":"a b","name":"Four","type":"blacklist","scope":{"all":true},"colour":1}],
		"ip_blocks":[{"network":"192.0.2.1"},{"network":"192.0.2.1/32"},{"network":"x"}],
		"accounts":[{"address":"ann@example.org","departments":["board"],"secrets":[]},{"address":"ANN@alias.example"},{"address":"x@example.net","secure_passwords":"on"},{"address":"@"},{}],
		"keys":[]}`).faults("/format out_of_range", "/revision malformed", "/domain/name conflict", "/domain/sender_check not_in_list", "/domain/alias_domains/0 invalid_domain",
		"/secure_password_policy/scope/departments/0/path unknown_department", "/departments/1/path invalid_path", "/departments/2/path duplicate",
		"/policies/0/scope/departments/0/path unknown_department", "/policies/1/id required", "/policies/1/name duplicate", "/policies/1/ips/0 invalid_network", "/policies/2/id duplicate",
		"/policies/2/type not_in_list", "/policies/2/scope/members/0 outside_domain", "/policies/3/id invalid_name", "/policies/3/colour unknown_field",
		"/ip_blocks/1/network duplicate", "/ip_blocks/2/network invalid_network", "/accounts/0/departments/0 unknown_department", "/accounts/0/secrets unknown_field",
		"/accounts/1/address duplicate", "/accounts/2/address outside_domain", "/accounts/2/secure_passwords not_in_list", "/accounts/3/address invalid_address",
		"/accounts/4/address required", "/keys unknown_field")
	d.admin.post(apply, `[]`).faults(" wrong_type")
	d.admin.post(apply, `{"policies":null,"policies":[]}`).want(400, "malformed")
	d.admin.post(apply+"?revision=x", `{}`).faults("?revision unknown_parameter")
	d.admin.get(export + "?accounts=no").faults("?accounts not_in_list")
	d.admin.post(apply, `{"policies":[`+strings.Repeat(`0,`, 2_000_000)+`0]}`).want(400, "malformed")
	d.admin.post(apply, `{"policies":[`+strings.Repeat(`0,`, 200_000)+`0]}`).want(400, "malformed")
	d.admin.post(apply, `{"x":"`+strings.Repeat("x", 16<<20)+`"}`).want(413, "too_large")
	if d.api.Store.State.Heads() != before {
		t.Error("what was refused changed the store")
	}
}

// A key of role domain changes its domain by a document, and nothing else.
func TestApplyByDomainKey(t *testing.T) {
	d, _ := rich(t)
	key, foreign := d.key(`"role":"domain","domain":"example.org"`), d.key(`"role":"domain","domain":"example.net"`)
	foreign.get(export).want(404)
	foreign.post(apply, `{}`).want(404)
	doc := key.exported("")
	key.apply("", doc).planned()
	doc.Policies = append(doc.Policies, blacklist("mine"))
	key.apply("", doc).planned("+ policy mine")
	doc = key.exported("")
	doc.Accounts[0].Aliases = append(doc.Accounts[0].Aliases, "carl@example.net")
	doc.Policies[0].Scope = &api.Scope{Members: []string{"carl@example.net"}}
	key.apply("", doc).faults("/accounts/0/aliases/1 outside_domain", "/policies/0/scope/members/0 outside_domain")
	doc = key.exported("?accounts=false")
	doc.Domain.AliasDomains = nil
	key.apply("", doc).want(403, "forbidden")
	key.post("/v1/domains/example.net/apply", `{}`).want(404)
	doc.Domain.Name = "example.net"
	foreign.apply("", doc).want(404)
	d.key(`"role":"read"`).post(apply, `{}`).want(403)
}

// Of two people who exported the same state, the second is refused and overwrites nothing.
func TestApplyTwoPeople(t *testing.T) {
	d, _ := rich(t)
	anns, bobs := d.admin.exported(""), d.admin.exported("")
	anns.Policies = append(anns.Policies, blacklist("anns"))
	bobs.Policies = append(bobs.Policies, blacklist("bobs"))
	plan := d.admin.apply("?dry_run=true", bobs).planned("+ policy bobs")
	d.admin.apply("", anns).planned("+ policy anns")
	d.admin.apply("", bobs, "If-Match", plan.header.Get("ETag")).want(412, "precondition_failed")
	for _, query := range []string{"", "?dry_run=true", "?confirm=true"} {
		stale := d.admin.apply(query, bobs).want(409, "stale")
		if got := stale.each("errors", "pointer"); !slices.Equal(got, []string{"/policies"}) {
			t.Errorf("stale are %q", got)
		}
	}
	d.admin.get(policies + "/anns").want(200)
	d.admin.get(policies + "/bobs").want(404)
	// Ann's own document, applied again, changes nothing; it does not revert the changes of others.
	d.admin.apply("", anns).planned()
	d.admin.patch(annPath, `{"suspended":true}`).want(200)
	d.admin.apply("", anns).want(409, "stale").has("errors.0.pointer", `"/accounts"`)
	// A change of a section that the document does not have is no conflict.
	anns.Accounts = nil
	d.admin.apply("", anns).planned()
	bobs = d.admin.exported("?accounts=false")
	d.admin.patch(annPath, `{"suspended":false}`).want(200)
	bobs.Policies = append(bobs.Policies, blacklist("bobs"))
	d.admin.apply("", bobs).planned("+ policy bobs")
	// A deletion is a change too, although nothing is left of it.
	d.admin.del(policies + "/anns").want(204)
	bobs.Revision = d.admin.exported("?accounts=false").Revision
	anns = d.admin.exported("?accounts=false")
	d.admin.del(policies + "/bobs").want(204)
	d.admin.apply("", anns).want(409, "stale")
	// Without a revision a document overwrites any change.
	anns.Revision = ""
	d.admin.apply("", anns).planned("+ policy bobs")
}

// The lock-out guard checks a document like any change, and it can be reverted like any other.
func TestApplyLocksNobodyOut(t *testing.T) {
	d := start(t, true).site()
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	d.came("ann@example.org", "198.51.100.1", third, time.Hour)
	doc := d.admin.exported("")
	office := blacklist("abroad")
	office.IPs = []string{"198.51.100.0/24"}
	doc.Policies = append(doc.Policies, office)
	before := d.api.Store.State.Heads()
	d.admin.apply("", doc).want(409, "lockout").has("lockout.who.0.account", `"ann@example.org"`)
	d.admin.apply("?dry_run=true", doc).want(409, "lockout")
	if d.api.Store.State.Heads() != before {
		t.Error("what was refused changed the store")
	}
	doc.Domain.TraceHeader = true
	d.admin.apply("?revert_after=1s", doc).faults("?revert_after conflict")
	doc.Domain.TraceHeader = false
	undone := d.admin.apply("?revert_after=1s", doc).planned("+ policy abroad")
	if undone.text("pending.id") == "" || undone.header.Get("Revert") == "" {
		t.Errorf("it does not say that it undoes itself: %s", undone.body)
	}
	redistest.Eventually(t, "it is undone", func() bool { return d.admin.get(policies+"/abroad").status == 404 })
	d.admin.apply("?confirm=true", doc).planned("+ policy abroad").has("pending", `null`)
	blocks := d.admin.exported("")
	blocks.Policies = nil
	blocks.IPBlocks = []api.IPBlock{{Network: "192.0.2.0/24"}}
	d.admin.apply("", blocks).planned("+ ip_block 192.0.2.0/24")
}

// People who export, edit and apply at the same time on two daemons lose no change of each other.
func TestApplyAtOnce(t *testing.T) {
	d := start(t, true).site()
	daemons := []*daemon{d, join(t, d.redis, true)}
	const people, each, devices = 4, 3, 10
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range devices {
			if a := d.admin.post("/v1/accounts/bob@example.org/secure-passwords", fmt.Sprintf(`{"label":"device %d"}`, n)); a.status != http.StatusCreated {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
	})
	for person := range people {
		wg.Go(func() {
			c := daemons[person%2].admin
			for n := range each {
				for {
					doc := c.exported("")
					id := fmt.Sprintf("p%d-%d", person, n)
					doc.Policies = append(doc.Policies, blacklist(id))
					doc.Accounts[1].Aliases = append(doc.Accounts[1].Aliases, id+"@example.org")
					a := c.apply("", doc)
					if a.status == http.StatusOK {
						break
					}
					if a.status != http.StatusConflict {
						t.Errorf("%d %s", a.status, a.body)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	for _, other := range daemons[1:] { // the last change may be another daemon's, which this one learns a moment later
		redistest.Eventually(t, "all have all changes", func() bool { return d.api.Store.State.Heads() == other.api.Store.State.Heads() })
	}
	if got := len(d.admin.get(policies).want(200).each("items", "id")); got != 1+people*each {
		t.Errorf("there are %d policies, want %d", got, 1+people*each)
	}
	bob := d.admin.get("/v1/accounts/bob@example.org").want(200).has("secure_password_count", fmt.Sprint(devices))
	if aliases, _ := bob.value("aliases").([]any); len(aliases) != people*each {
		t.Errorf("bob has %d aliases, want %d", len(aliases), people*each)
	}
}

// In a plan of several transactions, departments are removed after the accounts in them.
func TestApplyManyAccounts(t *testing.T) {
	t.Parallel()
	d := start(t, true).site()
	doc := d.admin.exported("")
	doc.Departments = append(doc.Departments, api.Department{Path: "many", Name: "many"})
	for i := range 5100 {
		doc.Accounts = append(doc.Accounts, api.AccountSettings{Address: fmt.Sprintf("u%05d@example.org", i), Departments: []string{"many"}, SecurePasswords: "optional"})
	}
	if got, _ := d.admin.apply("", doc).want(200).value("additions").([]any); len(got) != 5101 {
		t.Errorf("%d additions", len(got))
	}
	after := d.admin.exported("")
	d.admin.apply("", doc).planned()
	after.Departments = slices.DeleteFunc(after.Departments, func(v api.Department) bool { return v.Path == "many" })
	for i := range after.Accounts {
		after.Accounts[i].Departments = []string{}
	}
	d.admin.apply("", after).want(200)
	d.admin.apply("", after).planned()
	d.admin.get(dom + "/departments/many").want(404)
	entries := d.admin.get("/v1/audit?domain=example.org&limit=3").want(200)
	if got := entries.each("items", "note"); !slices.Equal(got, []string{"0 added, 0 changed, 1 removed", "0 added, 102 changed, 0 removed", "0 added, 5000 changed, 0 removed"}) {
		t.Errorf("audit: %q", got)
	}
}

// A department that a long document takes away stays when somebody puts an account into it before
// its turn comes: nobody is in a department that is not there.
func TestApplyLeavesNobodyInADepartmentThatIsGone(t *testing.T) {
	t.Parallel()
	d := start(t, true).site()
	doc := d.admin.exported("")
	doc.Departments = append(doc.Departments, api.Department{Path: "many", Name: "many"})
	for i := range 10_000 {
		doc.Accounts = append(doc.Accounts, api.AccountSettings{Address: fmt.Sprintf("u%05d@example.org", i), Departments: []string{"many"}, SecurePasswords: "optional"})
	}
	d.admin.apply("", doc).want(200)
	doc = d.admin.exported("")
	doc.Departments = slices.DeleteFunc(doc.Departments, func(v api.Department) bool { return v.Path == "many" })
	for i := range doc.Accounts {
		doc.Accounts[i].Departments = []string{}
	}
	applied := make(chan *answer, 1)
	go func() { applied <- d.admin.apply("", doc) }()
	const first = "/v1/accounts/u00000@example.org"
	redistest.Eventually(t, "the first part is made", func() bool { return len(d.admin.get(first).value("departments").([]any)) == 0 })
	joined := d.admin.put("/v1/accounts/new@example.org", `{"departments":["many"]}`)
	if a := <-applied; joined.status == 201 {
		a.want(409, "interrupted")
		d.admin.get(dom + "/departments/many").want(200)
	} else { // the last part was first
		joined.faults("/departments/0 unknown_department")
		a.want(200)
	}
}

// Any document is what the domain is after it was applied, whatever it was before; the plan says
// all of what is done, and applying twice is applying once.
func TestApplyAnyDocument(t *testing.T) {
	d := start(t, true).site()
	rapid.Check(t, func(rt *rapid.T) {
		doc := anyDocument(rt)
		want := shown(rt, doc)
		for _, a := range d.admin.exported("").Accounts { // a suspended account cannot be removed
			if !slices.ContainsFunc(doc.Accounts, func(b api.AccountSettings) bool { return b.Address == a.Address }) {
				d.admin.patch("/v1/accounts/"+a.Address, `{"suspended":false}`).want(200)
			}
		}
		before := d.admin.exported("")
		plan := d.admin.apply("?dry_run=true", doc).want(200)
		done := d.admin.apply("?confirm=true", doc).want(200)
		for _, list := range []string{"additions", "changes", "removals"} {
			if p, q := shown(rt, plan.value(list)), shown(rt, done.value(list)); p != q {
				rt.Fatalf("%s planned: %s, done: %s", list, p, q)
			}
		}
		after := d.admin.exported("")
		if again := d.admin.apply("", doc); again.status != 200 || len(again.each("additions", "id"))+len(again.each("changes", "id"))+len(again.each("removals", "id")) > 0 {
			rt.Fatalf("applied again: %s", again.body)
		}
		if after.Revision != done.text("revision") {
			rt.Fatalf("revision %s, told was %s", after.Revision, done.text("revision"))
		}
		if same := after.Revision == before.Revision; same != (len(done.each("additions", "id"))+len(done.each("changes", "id"))+len(done.each("removals", "id")) == 0) {
			rt.Fatalf("the revision changed: %v, the plan: %s", !same, done.body)
		}
		after.Revision = ""
		if got := shown(rt, after); got != want {
			rt.Fatalf("the domain is\n%s\nwant\n%s", got, want)
		}
	})
}

func shown(t *rapid.T, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// anyDocument is one in the form of an export: sorted, with nothing left out.
func anyDocument(t *rapid.T) *api.DomainDocument {
	some := func(label string, from ...string) []string {
		picked := map[string]bool{}
		for _, v := range from {
			if rapid.Bool().Draw(t, label+" "+v) {
				picked[v] = true
			}
		}
		return slices.AppendSeq([]string{}, slices.Values(slices.Sorted(maps.Keys(picked))))
	}
	yes := func(label string) bool { return rapid.Bool().Draw(t, label) }
	one := func(label string, from ...string) string { return rapid.SampledFrom(from).Draw(t, label) }
	onOff := func(label string) *bool { v := yes(label); return &v }
	doc := &api.DomainDocument{Format: 1, Departments: []api.Department{}, Policies: []api.Policy{}, IPBlocks: []api.IPBlock{}, Accounts: []api.AccountSettings{}, MailRules: []api.MailRule{}, Groups: []api.Group{}}
	doc.Domain = &api.Domain{
		Name: "example.org", Administrators: some("administrator", "ann@example.org"), AliasDomains: some("alias", "one.example", "two.example"), MaxSecurePasswords: rapid.IntRange(1, 100).Draw(t, "max"),
		Accounts: one("accounts", "open", "listed"), SenderCheck: one("sender", "both", "envelope", "off"), TraceHeader: yes("trace"),
		MailboxPasswords: one("passwords", "site", "here", "next", "stored"),
		Protocols:        api.Protocols{IMAP: onOff("imap"), POP3: onOff("pop3"), SMTP: onOff("smtp"), Sieve: onOff("sieve")},
	}
	departments := some("department", "a", "b", "c d", "ü")
	if slices.Contains(departments, "a") {
		departments = append([]string{}, append([]string{"a", "a/x"}, departments[1:]...)...)
	}
	for _, path := range departments {
		doc.Departments = append(doc.Departments, api.Department{Path: path, Name: one("name of "+path, path, "Some Name", "true"), SendAs: some("department sends as", "*@example.org")})
	}
	scope := func(label string) *api.Scope {
		s := &api.Scope{All: yes(label + " all"), Members: []string{"ann@example.org"}}
		for _, path := range some(label, departments...) {
			s.Departments = append(s.Departments, api.ScopeDepartment{Path: path, Sub: yes(label + " sub " + path)})
		}
		if yes(label + " except") {
			s.Except = &api.Exceptions{Members: []string{"zoe@example.org"}}
		}
		return s
	}
	doc.SecurePasswordPolicy = &api.SecurePasswordPolicy{Mode: "enforce", Enforced: yes("enforced"), Scope: scope("enforcement")}
	for _, id := range some("policy", "p1", "p2", "third-party-access", "null") {
		doc.Policies = append(doc.Policies, api.Policy{
			ID: id, Name: id + one("name of "+id, "", " later", ": # quoted"), Type: one("type", "whitelist", "blacklist"), Enabled: onOff("enabled"), Mode: one("mode", "enforce", "report"),
			Scope: scope(id), IPs: append([]string{"192.0.2.0/24"}, some("ips", "2001:db8::/32")...), Regions: []string{}, ExceptIPs: some("except", "192.0.2.9"),
			Clients: some("clients", "third-party", "web"), Protocols: some("protocols", "imap", "web"),
		})
	}
	for _, network := range some("block", "198.51.100.0/24", "198.51.200.1", "203.0.113.7-203.0.113.9") {
		b := api.IPBlock{Network: network, Note: one("note", "", "yes", "multiple words")}
		if yes("expires") {
			b.ExpiresAt = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
		}
		doc.IPBlocks = append(doc.IPBlocks, b)
	}
	for _, id := range some("mail rule", "m1", "m2") {
		doc.MailRules = append(doc.MailRules, api.MailRule{
			ID: id, Name: one("name of "+id, "a rule", "外部"), Kind: "filter", Enabled: onOff("rule enabled"), Mode: one("rule mode", "enforce", "report"), Scope: scope(id),
			Direction: one("direction", "sent", "received", "both"), Match: &api.MailMatch{Subject: []string{"lottery"}, MinSize: int64(rapid.IntRange(0, 5).Draw(t, "size"))},
			ExceptDomains: some("except domain", "*.partner.example"), OnFault: one("fault", "tempfail", "ignore"), Action: api.MailAction{Do: one("do", "spam", "delete")},
		})
	}
	for _, who := range some("group", "all", "team") {
		doc.Groups = append(doc.Groups, api.Group{
			Address: who + "@example.org", Aliases: some("group alias", "alias-of-"+who+"@example.org"), Members: some("member", "ann@example.org", "team@example.org"),
			WhoMaySend: one("who", "anyone", "domain", "members"), Senders: []string{}, Departments: []string{}, Approvers: some("approver", "ann@example.org"),
		})
	}
	for _, who := range some("account", "ann", "bob", "eve") {
		doc.Accounts = append(doc.Accounts, api.AccountSettings{
			Address: who + "@example.org", Suspended: yes("suspended"), Departments: some("in", departments...), Aliases: some("aliases", "x@example.org"), SendAs: some("sends as", "sales@example.org", "*@elsewhere.example"),
			Protocols: api.Protocols{IMAP: onOff("imap"), Sieve: onOff("sieve")}, SecurePasswords: one("mode", "optional", "required", "off"),
		})
	}
	return doc
}

// Mail rules and groups are sections of a document: exported, compared, and applied to a domain
// that has none.
func TestApplyMailRulesAndGroups(t *testing.T) {
	d := start(t, false).site()
	d.admin.post(dom+"/mail-rules", `{"id":"outside","name":"Approval","kind":"audit","scope":{"departments":[{"path":"board"}]},"direction":"sent",
		"match":{"recipient_domains":["*.example.net"],"headers":[{"name":"X-Class","regex":"^secret$"}],"subject":["offer"],"text":["price"],
		"attachments":{"names":["*.pdf"],"types":["application/*"]},"min_size":1000},"except_domains":["partner.example"],
		"from":"2026-12-01T00:00:00Z","until":"2099-12-01T00:00:00Z","on_fault":"ignore","mode":"report",
		"action":{"approvers":["department:board"],"need":"all","expires":"24h","then":"release"}}`).want(201)
	d.admin.put("/v1/groups/team@example.org", `{"members":["ann@example.org"],"aliases":["crew@example.org"],"who_may_send":"listed","departments":["board"],"approvers":["ann@example.org"]}`).want(201)
	doc := d.admin.exported("")
	if len(doc.MailRules) != 1 || len(doc.Groups) != 1 || doc.MailRules[0].Match.Headers[0].Regex != "^secret$" || !doc.MailRules[0].CreatedAt.IsZero() {
		t.Fatalf("exported: %+v %+v", doc.MailRules, doc.Groups)
	}
	d.admin.apply("", doc).planned()

	before := *doc.MailRules[0].Until
	doc.MailRules[0].Until = nil
	doc.MailRules = append(doc.MailRules, api.MailRule{ID: "few", Name: "Few", Kind: "limit", Mode: "enforce", Direction: "both", OnFault: "tempfail", Scope: &api.Scope{All: true}, Action: api.MailAction{MessagesPerHour: 5}})
	doc.Groups[0].Members = []string{"bob@example.org"}
	doc.Groups = append(doc.Groups, api.Group{Address: "all@alias.example", WhoMaySend: "anyone", Members: []string{"team@example.org"}})
	plan := d.admin.apply("?dry_run=true", doc).planned("~ mail_rule outside", "+ mail_rule few", "~ group team@example.org", "+ group all@example.org").
		has("changes.0.changes", `{"until":["`+before.Format(time.RFC3339)+`",null]}`)
	d.admin.apply("", doc).planned("~ mail_rule outside", "+ mail_rule few", "~ group team@example.org", "+ group all@example.org")
	d.admin.get(dom+"/mail-rules/few").want(200).has("action", `{"messages_per_hour":5,"per":"account","then":"refuse"}`)
	d.admin.apply("", doc, "If-Match", plan.header.Get("ETag")).want(412)

	// Departments that rules and groups of the same document name must be in it.
	whole := d.admin.exported("")
	without := *whole
	without.Departments = slices.DeleteFunc(slices.Clone(whole.Departments), func(v api.Department) bool { return v.Path == "board" })
	if a := d.admin.apply("", &without).want(422); !strings.Contains(string(a.body), "/mail_rules/1/scope/departments/0") || !strings.Contains(string(a.body), "/groups/1/departments/0") {
		t.Errorf("departments that are missing: %s", a.body)
	}
	d.admin.post(apply, `{"mail_rules":[{"name":"x","kind":"filter","scope":{"all":true},"action":{"do":"spam"}}],"groups":[{"address":"a@example.org","aliases":["b@example.org"]},{"address":"b@example.org"},{"address":"c@elsewhere.example"}]}`).
		faults("/mail_rules/0/id required", "/groups/0/aliases/0 duplicate", "/groups/1/address duplicate", "/groups/2/address outside_domain")

	// The document of one domain, with another name, makes the same domain.
	d.admin.post("/v1/domains", `{"name":"copy.example"}`).want(201)
	text, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	copied := strings.NewReplacer("example.org", "copy.example", `"alias.example"`, ``, whole.Revision, "").Replace(string(text))
	d.admin.post("/v1/domains/copy.example/apply", copied).want(200)
	if got := d.admin.get("/v1/domains/copy.example/mail-rules/outside").want(200).text("match.headers.0.regex"); got != "^secret$" {
		t.Errorf("copied: %s", got)
	}
	// A section that is missing stays, also by a document from before there were mail rules.
	old := *whole
	old.MailRules, old.Groups, old.Revision = nil, nil, strings.Join(strings.Split(whole.Revision, ".")[:5], ".")
	d.admin.apply("", &old).planned()
	d.admin.post(apply, `{"mail_rules":[],"groups":[]}`).planned("- mail_rule few", "- mail_rule outside", "- group all@example.org", "- group team@example.org")

	// A domain whose addresses others' rules and groups name stays until they do not.
	d.admin.put("/v1/groups/team@example.org", `{"members":["ann@copy.example"]}`).want(201)
	d.admin.put(dom+"/mail-rules/watch", `{"name":"x","kind":"monitor","scope":{"all":true},"action":{"to":["boss@copy.example"]}}`).want(201)
	if a := d.admin.del("/v1/domains/copy.example?confirm=true").want(409, "in_use"); !strings.Contains(string(a.body), "mail rule watch of example.org, group team@example.org") {
		t.Errorf("named: %s", a.body)
	}
	d.admin.post(apply, `{"mail_rules":[],"groups":[]}`).want(200)
	d.admin.del("/v1/domains/copy.example?confirm=true").want(204)
}
