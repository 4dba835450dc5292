package adminapi_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

func TestDepartments(t *testing.T) {
	d := start(t, true).site()
	made := d.admin.put(dom+"/departments/it/ops/night%20shift", `{"name":"Nachtschicht"}`).want(201).has("path", `"it/ops/night shift"`)
	if made.header.Get("Location") != dom+"/departments/it/ops/night%20shift" {
		t.Errorf("Location %s", made.header.Get("Location"))
	}
	d.admin.get(made.header.Get("Location")).want(200).has("name", `"Nachtschicht"`)
	d.admin.get(dom+"/departments/it/ops").want(200).has("name", `"ops"`) // a missing parent was made
	d.admin.put(dom+"/departments/it", `{"path":"it","name":"IT"}`).want(200).has("name", `"IT"`)
	d.admin.put(dom+"/departments/it", `{"path":"ti"}`).faults("/path conflict")
	d.admin.put(dom+"/departments/it", `{}`, "If-None-Match", "*").want(412)
	d.admin.put(dom+"/departments/new", `{}`, "If-None-Match", "*").want(201)
	d.admin.del(dom + "/departments/new").want(204)
	d.admin.get(dom + "/departments/new").want(404)
	d.admin.patch(dom+"/departments/new", `{"name":"x"}`).want(404)
	for _, path := range []string{"%20x", "x%3By", "a/%2E%2E/b", "x%00", strings.Repeat("x", 101), strings.Repeat("x/", 128) + "x"} {
		d.admin.put(dom+"/departments/"+path, `{}`).faults("/path invalid_path")
	}
	d.admin.put(dom+"/departments/x", `{"name":"a\u0007"}`).faults("/name unprintable")

	got := d.admin.get(dom + "/departments?limit=3").want(200)
	all := got.each("items", "path")
	rest := d.admin.get(dom + "/departments?limit=100&cursor=" + got.text("next")).want(200)
	all = append(all, rest.each("items", "path")...)
	if !slices.Equal(all, []string{"board", "it", "it/ops", "it/ops/night shift", "sales", "sales/emea"}) || rest.value("next") != nil {
		t.Errorf("departments %q", all)
	}
}

func TestDepartmentInUse(t *testing.T) {
	d := start(t, true).site()
	d.admin.put(dom+"/secure-password-policy", `{"enforced":true,"scope":{"all":true,"except":{"departments":[{"path":"sales"}]}}}`).want(200)
	d.editPolicy(func(p *store.Policy) {
		p.Scope = access.Scope{Departments: []access.ScopeDepartment{{Path: "sales", Sub: true}}}
	})
	d.admin.del(dom+"/departments/sales").want(409, "in_use").
		has("referrers", `{"accounts":1,"departments":1,"policies":1,"secure_password_policy":1}`).
		says("the department is in use by 1 account, 1 subdepartment, 1 policy, 1 enforcement of secure passwords: remove it there first")
	d.admin.del(dom+"/departments/sales/emea").want(409, "in_use").has("referrers", `{"accounts":1}`)
	d.admin.del(dom + "/departments/board").want(204)

	// A requirement that named a department which is gone would bind nobody.
	d.admin.put(dom+"/departments/finance", `{}`).want(201)
	d.admin.patch(dom, `{"second_factor":{"required":true,"scope":{"departments":[{"path":"finance"}]}}}`).want(200)
	d.admin.del(dom+"/departments/finance").want(409, "in_use").has("referrers", `{"second_factor":1}`)
	d.admin.post(dom+"/apply", `{"departments":[{"path":"sales"},{"path":"sales/emea"}]}`).faults("/departments in_use")
	d.admin.patch(dom, `{"second_factor":null}`).want(200)
	d.admin.del(dom + "/departments/finance").want(204)
}

func TestRenameDepartment(t *testing.T) {
	d := start(t, true).site()
	d.admin.put("/v1/accounts/zoe@example.org", `{"departments":["board"]}`).want(201)
	d.admin.put(dom+"/secure-password-policy", `{"enforced":true,"scope":{"departments":[{"path":"sales","sub":true}],"except":{"departments":[{"path":"sales/emea"}]}}}`).want(200)
	d.admin.patch(dom, `{"second_factor":{"required":true,"scope":{"departments":[{"path":"sales"}],"except":{"departments":[{"path":"sales/emea"}]}}}}`).want(200)
	d.editPolicy(func(p *store.Policy) {
		p.Scope = access.Scope{Departments: []access.ScopeDepartment{{Path: "sales/emea"}}}
	})
	d.admin.patch(dom+"/departments/sales", `{"path":"board"}`).want(409, "exists")
	d.admin.patch(dom+"/departments/sales", `{"path":"sales/new"}`).faults("/path conflict")
	d.admin.patch(dom+"/departments/sales", `{"path":""}`).faults("/path invalid_path")
	head := d.api.Store.State.Head(store.ShardOf("example.org")).N
	d.admin.patch(dom+"/departments/sales", `{"path":"trade/people","name":"Trade"}`).want(200).has("path", `"trade/people"`).has("name", `"Trade"`)
	if n := d.api.Store.State.Head(store.ShardOf("example.org")).N; n != head+1 {
		t.Errorf("renaming took %d changes, want one", n-head)
	}
	got := d.admin.get(dom+"/departments").each("items", "path")
	if !slices.Equal(got, []string{"board", "trade", "trade/people", "trade/people/emea"}) {
		t.Errorf("departments %q", got)
	}
	d.admin.get(dom+"/departments/trade/people/emea").has("name", `"Sales EMEA"`)
	d.admin.patch(dom+"/departments/trade/people/emea", `{"path":"trade/asia"}`).want(200).has("name", `"Sales EMEA"`)
	d.admin.patch(dom+"/departments/trade/asia", `{"path":"trade/people/emea"}`).want(200)
	d.admin.patch(dom+"/departments/board", `{"path":"council"}`).want(200).has("name", `"council"`) // a name that followed the path
	d.admin.patch(dom+"/departments/council", `{"path":"board"}`).want(200)
	d.admin.get("/v1/accounts/ann@example.org").has("departments", `["trade/people/emea"]`)
	d.admin.get("/v1/accounts/bob@example.org").has("departments", `["trade/people"]`)
	d.admin.get("/v1/accounts/zoe@example.org").has("departments", `["board"]`)
	d.admin.get(dom+"/secure-password-policy").has("scope", `{"departments":[{"path":"trade/people","sub":true}],"except":{"departments":[{"path":"trade/people/emea"}]}}`)
	d.admin.get(dom).has("second_factor", `{"required":true,"scope":{"departments":[{"path":"trade/people"}],"except":{"departments":[{"path":"trade/people/emea"}]}}}`)
	d.admin.get("/v1/accounts/bob@example.org/effective").has("secure_passwords.set_by", `"domain"`)
	p, _ := d.api.Store.State.Policy("example.org", store.ManagedThirdParty)
	if p.Doc.Scope.Departments[0].Path != "trade/people/emea" {
		t.Errorf("the policy names %v", p.Doc.Scope.Departments)
	}
}

func TestAccounts(t *testing.T) {
	d := start(t, true).site()
	const ann, new = "/v1/accounts/ann@example.org", "/v1/accounts/New.One@Alias.example"
	d.admin.get(new).want(404)
	made := d.admin.put(new, `{"address":"new.one@example.org","departments":["sales"],"aliases":["info@alias.example","carl@example.net"],"protocols":{"pop3":false},"secure_passwords":"required"}`).want(201)
	made.has("address", `"new.one@example.org"`).has("departments", `["sales"]`).has("aliases", `["info@example.org","carl@example.net"]`).
		has("protocols", `{"pop3":false}`).has("preset", `null`).has("suspended", `false`).has("secure_passwords", `"required"`)
	if made.header.Get("Location") != "/v1/accounts/new.one@example.org" {
		t.Errorf("Location %s", made.header.Get("Location"))
	}
	// PUT replaces: missing fields get the defaults of a new account.
	d.admin.put(new, `{"suspended":true}`).want(200).has("departments", `[]`).has("aliases", `[]`).has("protocols", `{}`).has("secure_passwords", `"optional"`)
	// PATCH keeps missing fields, and creates accounts too.
	d.admin.patch(ann, `{"protocols":{"imap":true,"smtp":false}}`).want(200).has("departments", `["sales/emea"]`)
	d.admin.patch(ann, `{"protocols":{"smtp":null},"departments":null}`).want(200).has("protocols", `{"imap":true}`).has("departments", `[]`)
	d.admin.patch("/v1/accounts/fresh@example.org", `{"suspended":true}`).want(201).has("suspended", `true`).has("warnings.0.code", `"unknown_address"`)
	d.admin.patch("/v1/accounts/fresh@example.org", `{"suspended":true}`).want(200).has("warnings", `null`)
	d.admin.patch(ann, `{"unknown":null}`).faults("/unknown unknown_field")
	d.admin.patch(ann, `{"address":"other@example.org"}`).faults("/address conflict")
	d.admin.put("/v1/accounts/x@nowhere.example", `{}`).want(404, "not_found")

	got := d.admin.get(dom + "/accounts?limit=2").want(200)
	rest := d.admin.get(dom + "/accounts?cursor=" + got.text("next")).want(200)
	if all := append(got.each("items", "address"), rest.each("items", "address")...); !slices.Equal(all, []string{"ann@example.org", "bob@example.org", "fresh@example.org", "new.one@example.org"}) {
		t.Errorf("accounts %q", all)
	}
	self := d.key(`"role":"self","account":"ann@example.org"`)
	self.get(ann).want(200)
	d.admin.del(ann + "?dry_run=true").want(200)
	d.admin.del(ann).want(409, "confirm_required").says("deleting the account also deletes its settings, 1 API key").has("repeat_with", `["confirm=true"]`)
	d.admin.patch(ann, `{"suspended":true}`).want(200)
	d.admin.del(ann+"?confirm=true").want(409, "suspended") // it could log in again by the domain's rules
	d.admin.put(ann, `{}`).want(409, "confirm_required")
	d.admin.put(ann, `{"suspended":true,"departments":[]}`).want(200)
	d.admin.put(ann+"?confirm=true", `{}`).want(200).has("suspended", `false`)
	d.admin.del(ann + "?confirm=true").want(204)
	d.admin.get(ann).want(404)
	d.admin.del(ann + "?confirm=true").want(404)
	self.get(ann).want(401) // it would open the next of that name
}

// Whoever is named by another name is the account. What an alias of another domain means is not told.
func TestOtherNames(t *testing.T) {
	d := start(t, true).site()
	d.api.Store.State.Delimiters = "+"
	d.admin.patch("/v1/accounts/ann@example.org", `{"aliases":["info@example.org","ann@example.net"]}`).want(200)
	d.admin.put(dom+"/policies/p", `{"name":"P","type":"blacklist","scope":{"all":true,"members":["info@example.org","ann+x@example.org","INFO+y","ann@alias.example"],"except":{"members":["info"]}}}`).want(201).
		has("scope", `{"all":true,"except":{"members":["ann@example.org"]},"members":["ann@example.org"]}`)
	d.admin.put("/v1/groups/team@example.org", `{"members":["info@example.org","ann@example.net"],"who_may_send":"listed","senders":["info@example.org","*@example.org"],"approvers":["info"]}`).want(201).
		has("members", `["ann@example.org","ann@example.net"]`).has("senders", `["ann@example.org","*@example.org"]`).has("approvers", `["ann@example.org"]`)
	d.admin.post("/v1/keys", `{"name":"Ann","role":"self","account":"info@example.org"}`).want(201).has("account", `"ann@example.org"`)
	d.admin.post("/v1/keys", `{"name":"Ann","role":"self","account":"ann@example.net"}`).want(201).has("account", `"ann@example.net"`)
	// A record makes another name an account of its own, which the answer says.
	d.admin.patch("/v1/accounts/info@example.org", `{}`).want(201).has("warnings.0.code", `"separate_account"`)
	d.admin.patch("/v1/accounts/bob+x@example.org", `{}`).want(201).has("warnings.0.code", `"separate_account"`)
	// An account does not become another name of one.
	d.admin.patch("/v1/accounts/bob@example.org", `{"aliases":["info@example.org","robert@example.org"]}`).want(200).
		has("warnings.0.code", `"alias_is_account"`).has("warnings.1", `null`)
	d.admin.patch("/v1/accounts/bob@example.org", `{"suspended":true}`).want(200).has("warnings", `null`)
	d.admin.put(dom+"/policies/p", `{"name":"P","type":"blacklist","scope":{"members":["info@example.org"]}}`).want(200).has("scope", `{"members":["info@example.org"]}`)
}

func TestPresets(t *testing.T) {
	d := start(t, true).site()
	const ann = "/v1/accounts/ann@example.org"
	for preset, want := range map[string]string{
		"imap-smtp": `{"imap":true,"pop3":false,"smtp":true}`,
		"pop3-smtp": `{"imap":false,"pop3":true,"smtp":true}`,
		"all":       `{"imap":true,"pop3":true,"smtp":true}`,
		"none":      `{"imap":false,"pop3":false,"smtp":false}`,
	} {
		d.admin.put(ann, `{}`).want(200)
		d.admin.patch(ann, `{"preset":"`+preset+`"}`).want(200).has("protocols", want).has("preset", `"`+preset+`"`)
		d.admin.put(ann, `{"preset":"`+preset+`","protocols":{"sieve":false}}`).want(200).has("protocols.sieve", `false`).has("preset", `"`+preset+`"`)
	}
	d.admin.patch(ann, `{"preset":"imap-smtp"}`).want(200)
	d.admin.patch(ann, `{"protocols":{"pop3":true}}`).want(200).has("preset", `"all"`)
	d.admin.patch(ann, `{"protocols":{"pop3":null}}`).want(200).has("preset", `null`)
	d.admin.patch(ann, `{"preset":"imap-smtp","protocols":{"pop3":true}}`).faults("/preset conflict")
	d.admin.patch(ann, `{"preset":"imap-smtp","protocols":{"pop3":false,"sieve":true}}`).want(200).has("preset", `"imap-smtp"`)
	// An account can be written back as it was read.
	read := d.admin.get(ann)
	d.admin.put(ann, string(read.body)).want(200).has("preset", `"imap-smtp"`)
}

func TestEffective(t *testing.T) {
	d := start(t, true).site()
	d.admin.patch(dom, `{"protocols":{"pop3":false},"max_secure_passwords":3}`).want(200)
	d.admin.patch("/v1/accounts/ann@example.org", `{"protocols":{"imap":false},"secure_passwords":"off"}`).want(200)
	d.admin.put(dom+"/third-party-access", `{"allow":false,"secure_login_ips":["192.0.2.1"]}`).want(200)
	d.admin.get("/v1/accounts/ann@example.org/effective").want(200).
		has("record", `true`).
		has("protocols.imap", `{"set_by":"account","value":false}`).
		has("protocols.pop3", `{"set_by":"domain","value":false}`).
		has("protocols.smtp", `{"set_by":"default","value":true}`).
		has("suspended", `{"set_by":"default","value":false}`).
		has("departments", `{"set_by":"account","value":["sales/emea"]}`).
		has("secure_passwords", `{"set_by":"account","value":"off"}`).
		has("max_secure_passwords", `{"set_by":"domain","value":3}`).
		has("sender_check", `{"set_by":"default","value":"both"}`).
		has("third_party_access", `{"set_by":"third-party-access","value":"block"}`).
		has("secure_login_ips", `{"set_by":"third-party-access","value":["192.0.2.1"]}`)
	d.admin.put(dom+"/third-party-access", `{"allow":false,"mode":"report"}`).want(200)
	d.admin.get("/v1/accounts/nobody@example.org/effective").want(200).has("record", `false`).
		has("third_party_access", `{"set_by":"third-party-access","value":"report"}`).
		has("protocols.imap", `{"set_by":"default","value":true}`)
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	d.admin.get("/v1/accounts/nobody@example.org/effective").want(200).has("third_party_access", `{"set_by":"third-party-access","value":"allow"}`)
	d.admin.get("/v1/accounts/x@nowhere.example/effective").want(404)
}

func TestBatch(t *testing.T) {
	d := start(t, true).site()
	path := dom + "/accounts/batch"
	d.admin.put("/v1/accounts/zoe@example.org", `{"protocols":{"pop3":false}}`).want(201)
	body := `{"select":{"departments":[{"path":"sales","sub":true}],"members":["zoe@example.org","newcomer@alias.example"],"except":{"members":["bob@example.org"]}},"set":{"protocols":{"pop3":false}}}`
	before := d.api.Store.State.Heads()
	d.admin.post(path+"?dry_run=true", body).want(200).has("selected", `3`).has("changed", `2`).has("accounts", `["ann@example.org","newcomer@example.org"]`)
	if d.api.Store.State.Heads() != before {
		t.Fatal("a dry run changed the store")
	}
	d.admin.post(path, body).want(200).has("changed", `2`).has("accounts", `["ann@example.org","newcomer@example.org"]`)
	if n := d.api.Store.State.Head(store.ShardOf("example.org")).N - before[store.ShardOf("example.org")].N; n != 1 {
		t.Errorf("a batch took %d changes, want one", n)
	}
	d.admin.get("/v1/audit?domain=example.org&limit=1").has("items.0.action", `"account.batch"`).has("items.0.note", `"2 accounts"`)
	if a := d.admin.get("/v1/audit?domain=example.org&limit=1"); !strings.Contains(string(a.body), `"ann@example.org":{"protocols":[{},{"pop3":false}]}`) {
		t.Errorf("the audit does not say what changed: %s", a.body)
	}
	d.admin.get("/v1/accounts/ann@example.org").has("protocols", `{"pop3":false}`).has("departments", `["sales/emea"]`)
	d.admin.get("/v1/accounts/bob@example.org").has("protocols", `{}`)
	d.admin.post(path, body).want(200).has("changed", `0`) // again changes nothing
	d.admin.post(path, `{"select":{"all":true},"set":{"preset":"imap-smtp","suspended":true,"departments":["board"],"secure_passwords":"required"}}`).want(200).has("changed", `4`)
	d.admin.get("/v1/accounts/bob@example.org").has("preset", `"imap-smtp"`).has("suspended", `true`).has("departments", `["board"]`).has("secure_passwords", `"required"`)
	d.admin.post(path, `{"select":{"members":["bob@example.org"]},"set":{"protocols":null,"suspended":null,"departments":[]}}`).want(200).has("changed", `1`)
	d.admin.get("/v1/accounts/bob@example.org").has("protocols", `{}`).has("suspended", `false`).has("departments", `[]`)
	d.admin.get("/v1/accounts/carl@example.net").has("suspended", `false`)

	d.admin.post(path, `{"set":{}}`).faults("/select required", "/set required")
	d.admin.post(path, `{"select":{},"set":{"aliases":[],"departments":["nowhere"],"preset":"none","protocols":{"smtp":true}}}`).faults(
		"/select required", "/set/aliases unknown_field", "/set/departments/0 unknown_department", "/set/preset conflict")
	d.admin.post(path, `{"select":{"members":["carl@example.net"],"departments":[{"path":"nowhere"}]},"set":{"suspended":1}}`).faults(
		"/select/members/0 outside_domain", "/select/departments/0/path unknown_department", "/set/suspended wrong_type")
}

// More accounts than one transaction takes.
func TestBatchInChunks(t *testing.T) {
	t.Parallel()
	d := start(t, true).site()
	var file strings.Builder
	file.WriteString("address,departments\n")
	const many = 5100
	for i := range many {
		fmt.Fprintf(&file, "u%04d@example.org,mass\n", i)
	}
	d.csv(dom+"/accounts/import?create_departments=true", file.String()).want(200).
		has("lines", `5100`).has("created", `5100`).has("departments", `["mass"]`)
	d.admin.post(dom+"/accounts/batch", `{"select":{"departments":[{"path":"mass"}]},"set":{"suspended":true}}`).want(200).has("changed", `5100`)
	if a, ok := d.api.Store.State.Account("u5099@example.org"); !ok || !a.Doc.Suspended {
		t.Error("the last account was left out")
	}
	d.admin.del(dom + "?confirm=true").want(204)
	if _, accounts := d.api.Store.State.Counts(); accounts != 1 {
		t.Errorf("%d accounts are left, want example.net's", accounts)
	}
}

func (d *daemon) csv(path, file string) *answer {
	d.t.Helper()
	return d.admin.post(path, file, "Content-Type", "text/csv; charset=utf-8")
}

func TestImport(t *testing.T) {
	d := start(t, true).site()
	path := dom + "/accounts/import"
	file := "\ufeffAddress, departments,IMAP,pop3,suspended,aliases,secure_passwords,preset\r\n" +
		"ann@example.org,sales;board,,,,,,imap-smtp\r\n" +
		"\"New.Person\",,on,off,no,info@example.org; x@alias.example,required,\r\n" +
		"bob@alias.example,sales,,,,,,\r\n"
	before := d.api.Store.State.Heads()
	d.csv(path+"?dry_run=true", file).want(200).has("lines", `3`).has("created", `1`).has("changed", `1`).has("unchanged", `1`)
	if d.api.Store.State.Heads() != before {
		t.Fatal("a dry run changed the store")
	}
	d.csv(path, file).want(200).has("created", `1`).has("changed", `1`).has("unchanged", `1`).has("departments", `[]`)
	d.admin.get("/v1/accounts/ann@example.org").has("departments", `["sales","board"]`).has("preset", `"imap-smtp"`)
	d.admin.get("/v1/accounts/new.person@example.org").has("protocols", `{"imap":true,"pop3":false}`).has("aliases", `["info@example.org","x@example.org"]`).has("secure_passwords", `"required"`)
	again := d.api.Store.State.Heads()
	d.csv(path, file).want(200).has("unchanged", `3`)
	if d.api.Store.State.Heads() != again {
		t.Error("an import of what is there changed the store")
	}
	// A missing column changes nothing; an empty cell clears.
	d.csv(path, "address,imap\nnew.person@example.org,\n").want(200).has("changed", `1`)
	d.admin.get("/v1/accounts/new.person@example.org").has("protocols", `{"pop3":false}`).has("secure_passwords", `"required"`)
	// Missing departments are created on request only.
	d.csv(path, "address,departments\nzoe@example.org,a/b/c;a\n").faults("2/departments/0 unknown_department", "2/departments/1 unknown_department")
	d.csv(path+"?create_departments=true", "address,departments\nzoe@example.org,a/b/c;a\n").want(200).has("departments", `["a","a/b","a/b/c"]`)
	d.admin.get(dom + "/departments/a/b").want(200)
}

func TestImportTellsAllFaults(t *testing.T) {
	t.Parallel()
	d := start(t, true).site()
	path := dom + "/accounts/import"
	before := d.api.Store.State.Heads()
	d.csv(path, "address,departments,imap,preset,aliases,secure_passwords\n"+
		"ok@example.org,sales,on,,,\n"+
		"no at all@,nowhere,maybe,both,x@nowhere.example,never\n"+
		"x@example.net,,,,,\n"+
		"ok@alias.example,,off,imap-smtp,,\n"+
		"too,few\n"+
		"\n"+
		"bad@example.org,a//b,,,,\n").faults(
		"3/address invalid_address", "3/departments/0 unknown_department", "3/imap not_in_list", "3/preset not_in_list", "3/aliases/0 unmanaged_domain", "3/secure_passwords not_in_list",
		"4/address outside_domain", "5/address duplicate", "5/preset conflict", "6 malformed", "8/departments/0 unknown_department")
	places := d.csv(path, "address,departments,imap\nok@example.org,sales;nowhere,maybe\nok@example.org\n").want(422, "invalid").each("errors", "detail")
	for i, want := range []string{"line 2, imap: must be", "line 2, departments, entry 2: there is no such department", "line 3: has 1 cells"} {
		if len(places) != 3 || !strings.HasPrefix(places[i], want) {
			t.Errorf("fault %d of %q does not begin with %q", i, places, want)
		}
	}
	d.csv(path+"?create_departments=true", "address,departments\nbad@example.org,a//b\n").faults("2/departments/0 unknown_department")
	d.csv(path, "addresses,imap,imap,web\n").faults("1/addresses unknown_field", "1/imap duplicate", "1/web unknown_field", "1/address required")
	d.csv(path, "address\n\"ann@example.org\n").faults("2 malformed")
	d.csv(path, "address\nann@\xff\n").faults("1 malformed")
	d.csv(path, "\n").faults("1 malformed")
	long := d.csv(path, "address\n"+strings.Repeat("x\n", 600)).want(422, "invalid")
	if n := len(long.value("errors").([]any)); n != 500 || !strings.Contains(long.text("detail"), "599 faults") {
		t.Errorf("%d faults listed: %s", n, long.text("detail"))
	}
	d.csv(path, strings.Repeat("x", 16<<20+1)).want(413, "too_large")
	var many strings.Builder
	many.WriteString("address\n")
	for i := range 100_002 {
		fmt.Fprintf(&many, "u%d\n", i)
	}
	d.csv(path, many.String()).faults("100002 too_many")
	if d.api.Store.State.Heads() != before {
		t.Error("a faulty file changed the store")
	}
}

func TestSecurePasswords(t *testing.T) {
	d := start(t, true).site()
	const path = "/v1/accounts/ann@alias.example/secure-passwords"
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	made := d.admin.post(path, `{"label":"My iPhone"}`).want(201).has("label", `"My iPhone"`).has("warnings", `[]`)
	secret, id := made.text("secret"), made.text("id")
	if _, ok := credential.Normalise([]byte(secret)); !ok || len(secret) != 16 {
		t.Errorf("%q is no secure password", secret)
	}
	if made.header.Get("Location") != "/v1/accounts/ann@example.org/secure-passwords/"+id {
		t.Errorf("Location %s", made.header.Get("Location"))
	}
	a, _ := d.api.Store.State.Account("ann@example.org")
	if p := a.Doc.Secrets[0]; !p.Hash.Equal(d.api.Pepper.Hash("ann@example.org", []byte(secret))) || p.PepperID != d.api.Pepper.ID() || p.ID != id {
		t.Errorf("what is kept: %+v", p)
	}
	use := store.LastUse{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), IP: "203.0.113.9", Protocol: "imap"}
	if err := d.journal.Touch(context.Background(), "ann@example.org", map[string]store.LastUse{id: use}); err != nil {
		t.Fatal(err)
	}
	read := d.admin.get(path+"/"+id).want(200).has("label", `"My iPhone"`).has("secret", `null`).
		has("last_used_at", `"2026-01-02T03:04:05Z"`).has("last_used_ip", `"203.0.113.9"`).has("last_used_protocol", `"imap"`)
	d.admin.patch(path+"/"+id, `{"label":"Old iPhone"}`, "If-Match", `"1"`).want(412)
	d.admin.patch(path+"/"+id, `{"label":"Old iPhone"}`, "If-Match", read.header.Get("ETag")).want(200).has("label", `"Old iPhone"`).has("last_used_ip", `"203.0.113.9"`)
	d.admin.patch(path+"/"+id, `{"label":null}`).faults("/label required")
	d.admin.post(path, `{"label":""}`).faults("/label too_short")
	d.admin.post(path, `{"label":"`+strings.Repeat("ö", 65)+`"}`).faults("/label too_long")
	d.admin.post(path, `{"label":"a\tb"}`).faults("/label unprintable")
	d.admin.get("/v1/accounts/ann@example.org").has("secure_password_count", `1`)

	second := d.admin.post(path, `{"label":"Tablet"}`).want(201)
	d.admin.patch(dom, `{"max_secure_passwords":1}`).want(200)
	if got := d.admin.get(path).want(200).each("items", "label"); !slices.Equal(got, []string{"Old iPhone", "Tablet"}) {
		t.Errorf("lowering the limit left %q", got)
	}
	d.admin.post(path, `{"label":"One too many"}`).want(409, "secure_password_limit")
	page := d.admin.get(path + "?limit=1").want(200)
	if got := d.admin.get(path+"?cursor="+page.text("next")).want(200).each("items", "label"); !slices.Equal(got, []string{"Tablet"}) {
		t.Errorf("second page %q", got)
	}
	d.admin.del(path + "/" + id).want(204)
	d.admin.get(path + "/" + id).want(404)
	d.admin.del(path + "/" + id).want(404)
	a, _ = d.api.Store.State.Account("ann@example.org")
	if len(a.Doc.Live(time.Now())) != 1 || len(a.Doc.Secrets) != 2 || a.Doc.Live(time.Now())[0].ID != second.text("id") {
		t.Errorf("a revoked one is recognised no more, or the other went too: %+v", a.Doc.Secrets)
	}
	// PUT and PATCH of the account keep its secrets.
	d.admin.put("/v1/accounts/ann@example.org", `{}`).want(200).has("secure_password_count", `1`)

	// Without a record, one is created where accounts are in the next passdb.
	d.admin.post("/v1/accounts/stranger@example.org/secure-passwords", `{"label":"x"}`).want(201)
	d.admin.get("/v1/accounts/stranger@example.org").want(200).has("secure_password_count", `1`)
	d.admin.get("/v1/accounts/nobody@example.org/secure-passwords").want(200).has("items", `[]`)
	other := start(t, false).site()
	other.admin.post("/v1/accounts/stranger@example.org/secure-passwords", `{"label":"x"}`).want(409, "unknown_account")
	other.admin.get("/v1/accounts/stranger@example.org/secure-passwords").want(404)
	self := other.key(`"role":"self","account":"stranger@example.org"`)
	self.patch("/v1/accounts/stranger@example.org", `{"secure_passwords":"off"}`).want(404)
	self.post("/v1/accounts/stranger@example.org/secure-passwords?create=true", `{"label":"x"}`).want(409, "unknown_account")
}

// An address that nothing knows is probably misspelled: where accounts are listed, it gets neither
// settings nor secrets without create.
func TestListedAccounts(t *testing.T) {
	const stranger = "/v1/accounts/stranger@example.org"
	for name, d := range map[string]*daemon{"mailbox passwords kept here": start(t, false).site(), "a listed domain": start(t, true).site()} {
		t.Run(name, func(t *testing.T) {
			if name == "a listed domain" {
				d.admin.patch(dom, `{"accounts":"listed"}`).want(200).has("accounts", `"listed"`)
			}
			d.admin.patch(stranger, `{"suspended":true}`).want(409, "unknown_account").says("there is no account stranger@example.org")
			d.admin.post(stranger+"/secure-passwords?dry_run=true", `{"label":"x"}`).want(409, "unknown_account")
			d.admin.post(dom+"/accounts/batch", `{"select":{"members":["stranger@example.org"]},"set":{"suspended":true}}`).want(200).
				has("failed", `1`).has("results.0.errors.0.code", `"unknown_account"`)
			d.admin.get(stranger).want(404)
			d.admin.post(stranger+"/secure-passwords?create=true", `{"label":"x"}`).want(201)
			d.admin.patch(stranger, `{"suspended":true}`).want(200)
			d.admin.put("/v1/accounts/new@example.org", `{}`).want(201) // says what it does
			d.admin.patch("/v1/accounts/newer@example.org?create=true", `{}`).want(201)
		})
	}
	d := start(t, true).site()
	d.admin.get(dom).has("accounts", `"open"`)
	d.admin.patch(stranger, `{"suspended":true}`).want(201)
	d.admin.patch(dom, `{"accounts":"closed"}`).faults("/accounts not_in_list")
}

// A pattern is no alias: nobody could log in by it.
func TestAliasIsOneAddress(t *testing.T) {
	d := start(t, true).site()
	d.admin.patch(annPath, `{"aliases":["*@example.org"]}`).faults("/aliases/0 invalid_address")
	d.admin.patch(annPath, `{"send_as":["*@example.org"]}`).want(200)
}

// The U-labels and A-labels of a domain name are one domain.
func TestInternationalisedDomains(t *testing.T) {
	d := start(t, true).site()
	const a, u = "xn--bcher-kva.example", "b%C3%BCcher.example"
	d.admin.post("/v1/domains", `{"name":"B\u00fccher.example"}`).want(201).has("name", `"`+a+`"`)
	d.admin.post("/v1/domains", `{"name":"`+a+`"}`).want(409, "exists")
	d.admin.patch("/v1/domains/"+u, `{"protocols":{"pop3":false}}`).want(200)
	d.admin.get("/v1/domains/"+a).want(200).has("protocols.pop3", `false`)
	d.admin.put("/v1/accounts/zoe@"+u, `{"aliases":["z@b\u00fccher.example"],"send_as":["*@b\u00fccher.example"]}`).want(201).has("address", `"zoe@`+a+`"`)
	d.admin.get("/v1/accounts/zoe@"+a).want(200).has("aliases", `["z@`+a+`"]`).has("send_as", `["*@`+a+`"]`)
	d.admin.put("/v1/domains/"+u+"/policies/p", `{"name":"P","type":"blacklist","scope":{"members":["zoe@b\u00fccher.example"]},"ips":["192.0.2.1"]}`).want(201).
		has("scope.members", `["zoe@`+a+`"]`)
	d.admin.get("/v1/domains/" + u + "/logins?account=zoe@" + u).want(200)
}

// Lists and GET show the effective settings of an account beside its own.
func TestAccountsShowWhatApplies(t *testing.T) {
	d := start(t, true).site()
	d.admin.patch(annPath, `{"protocols":{"imap":true}}`).want(200)
	d.admin.patch(dom, `{"protocols":{"imap":false,"pop3":false}}`).want(200)
	d.admin.put(dom+"/secure-password-policy", `{"enforced":true,"scope":{"members":["ann@example.org"]}}`).want(200)
	want := `{"imap":true,"pop3":false,"secure_passwords":"required","sieve":true,"smtp":true,"third_party_access":"block"}`
	d.admin.get(annPath).want(200).has("effective", want).has("secure_passwords", `"optional"`)
	d.admin.get(dom+"/accounts").want(200).has("items.0.effective", want).has("items.1.effective.imap", `false`)
}

func TestWarnings(t *testing.T) {
	d := start(t, true).site()
	const ann = "/v1/accounts/ann@example.org"
	codes := func() []string {
		t.Helper()
		return d.admin.post(ann+"/secure-passwords?dry_run=true", `{"label":"x"}`).want(200).each("warnings", "code")
	}
	for _, c := range []struct {
		path, body string
		want       []string
	}{
		{ann, `{}`, []string{"third_party_blocked"}}, // as a new domain is
		{dom + "/third-party-access", `{"allow":false,"secure_login_ips":["192.0.2.1"]}`, []string{"third_party_restricted"}},
		{dom + "/third-party-access", `{"allow":false,"mode":"report"}`, nil},
		{dom + "/third-party-access", `{"allow":true}`, nil},
		{ann, `{"suspended":true}`, []string{"suspended"}},
		{ann, `{"suspended":false,"protocols":{"pop3":false}}`, []string{"protocol_off"}},
		{ann, `{"protocols":{"pop3":false,"imap":false,"smtp":false,"sieve":false}}`, []string{"protocols_off"}},
		{ann, `{"secure_passwords":"off"}`, []string{"secure_passwords_off"}},
		{dom + "/secure-password-policy", `{"enforced":true}`, nil}, // which goes before the account's choice
	} {
		d.admin.put(c.path, c.body).want(200)
		if got := codes(); !slices.Equal(got, c.want) {
			t.Errorf("after PUT %s %s: %q, want %q", c.path, c.body, got, c.want)
		}
	}
}

func TestMailboxPassword(t *testing.T) {
	d := start(t, false).site()
	const path = "/v1/accounts/ann@example.org/mailbox-password"
	a := d.admin.put(path, `{"password":"corrêct \"horse\" battery"}`).want(200).has("scheme", `"ARGON2ID"`)
	if strings.Contains(string(a.body), "horse") {
		t.Errorf("the answer shows it: %s", a.body)
	}
	kept := func() string {
		a, _ := d.api.Store.State.Account("ann@example.org")
		return a.Doc.MailboxHash
	}
	if ok, _, err := d.api.Hasher.Verify(context.Background(), kept(), []byte(`corrêct "horse" battery`)); err != nil || !ok {
		t.Errorf("what is kept does not verify: %v", err)
	}
	d.admin.get("/v1/accounts/ann@example.org").has("mailbox_password_set", `true`)
	const hash = "{ssha256}3PiGdq7PyVN3TtNUZxC6MFXQd4ATyXmFlvjjHXX5pYfbNiRr"
	d.admin.put(path, `{"hash":"`+hash+`"}`).want(200).has("scheme", `"SSHA256"`)
	if kept() != hash {
		t.Errorf("kept %s", kept())
	}
	d.admin.put(path+"?dry_run=true", `{"password":"another one"}`).want(200)
	if kept() != hash {
		t.Error("a dry run set it")
	}
	d.admin.put(path, `{}`).faults("/password required")
	d.admin.put(path, `{"password":"x y z","hash":"{PLAIN}x"}`).faults("/password required")
	d.admin.put(path, `{"hash":"{PLAIN}x"}`).faults("/hash invalid_hash")
	d.admin.put(path, `{"password":5}`).faults("/password wrong_type")
	bad := d.admin.put(path, `{"password":"\u0007k\u0000"}`).want(422)
	if bad.text("errors.0.pointer") != "/password" {
		t.Errorf("%s", bad.body)
	}
	d.admin.put("/v1/accounts/nobody@example.org/mailbox-password", `{"password":"long enough"}`).want(404)
	start(t, true).site().admin.put(path, `{"password":"long enough"}`).want(409, "next_passdb")
}

func TestPasswordPolicy(t *testing.T) {
	d := start(t, false).site()
	const path, domain = "/v1/accounts/ann@example.org/mailbox-password", "/v1/domains/example.org"
	for policy, fault := range map[string]string{
		`{"min_length":101}`:                "/password_policy/min_length out_of_range",
		`{"min_strength":5}`:                "/password_policy/min_strength out_of_range",
		`{"history":25}`:                    "/password_policy/history out_of_range",
		`{"forbidden_keywords":["ok"," "]}`: "/password_policy/forbidden_keywords/1 empty",
		`{"max_age":"90"}`:                  "/password_policy/max_age invalid_duration",
		`{"max_age":"200000d"}`:             "/password_policy/max_age invalid_duration",
		`{"minimum":8}`:                     "/password_policy/minimum unknown_field",
	} {
		d.admin.patch(domain, `{"password_policy":`+policy+`}`).faults(fault)
	}
	d.admin.patch(domain, `{"password_policy":{"min_length":12,"min_strength":3,"forbidden_keywords":["Example"],"history":2,"max_age":"4320h"}}`).want(200).
		has("password_policy", `{"forbidden_keywords":["Example"],"history":2,"max_age":"180d","min_length":12,"min_strength":3}`)
	d.admin.put(path, `{"password":"short"}`).faults("/password too_short")
	d.admin.put(path, `{"password":"kettle example violin"}`).faults("/password forbidden_keyword")
	d.admin.put(path, `{"password":"kettle moss violin"}`).want(200)
	d.admin.put(path, `{"password":"kettle moss violin"}`).faults("/password used_before")
	d.admin.put(path, `{"password":"anvil otter brick"}`).want(200)
	d.admin.put(path, `{"password":"kettle moss violin"}`).faults("/password used_before")
	d.admin.put(path, `{"password":"copper lamp falcon"}`).want(200)
	d.admin.put(path, `{"password":"kettle moss violin"}`).want(200) // two others since
	// A generated password need not meet the policy, and is shown once.
	generated := d.admin.put(path, `{"generate":true,"must_change":true}`).want(200).has("must_change", `true`).text("password")
	acc, _ := d.api.Store.State.Account("ann@example.org")
	if ok, _, err := d.api.Hasher.Verify(t.Context(), acc.Doc.MailboxHash, []byte(generated)); err != nil || !ok {
		t.Errorf("the generated password %q does not verify: %v", generated, err)
	}
	d.admin.get("/v1/accounts/ann@example.org").has("must_change_password", `true`)
	d.admin.put(path, `{"generate":true,"hash":"{PLAIN}x"}`).want(422)
	d.admin.put(path+"?dry_run=true", `{"generate":true}`).want(200).has("password", `null`)
	// What else changes the account keeps all this.
	d.admin.patch("/v1/accounts/ann@example.org", `{"protocols":{"pop3":false}}`).want(200).has("must_change_password", `true`)
	d.admin.put("/v1/accounts/ann@example.org", `{"departments":["sales"]}`).want(200).has("must_change_password", `true`)
	d.admin.put(path, `{"password":"violin otter copper"}`).want(200).has("must_change", `null`)
	d.admin.put(path, `{"must_change":true}`).want(200).has("scheme", `"ARGON2ID"`)
	d.admin.put("/v1/accounts/bob@example.org/mailbox-password", `{"must_change":true}`).want(409, "no_mailbox_password")
	// A lower age says what it refuses.
	redistest.Eventually(t, "the password to be old", func() bool {
		return d.api.Store.State.MailboxPasswordsBefore("example.org", time.Now().Add(-time.Second)) == 1
	})
	d.admin.patch(domain, `{"password_policy":{"max_age":"1s"}}`).want(409, "confirm_required").says("the new max_age refuses 1 mailbox password at once").has("repeat_with", `["confirm=true"]`)
	d.admin.patch(domain+"?dry_run=true", `{"password_policy":{"max_age":"1s"}}`).want(200).has("expired_passwords", `1`)
	d.admin.patch(domain+"?confirm=true", `{"password_policy":{"max_age":"1s"}}`).want(200).has("expired_passwords", `null`)
	// Neither hashes nor passwords are in the audit.
	audit := d.admin.get("/v1/audit?domain=example.org").want(200)
	for _, secret := range []string{"kettle", generated, "$argon2id"} {
		if strings.Contains(string(audit.body), secret) {
			t.Errorf("the audit contains %q: %s", secret, audit.body)
		}
	}
	d.admin.patch(domain, `{"password_policy":null}`).want(200).has("password_policy", `null`)
}

func TestIfMatchSettlesRaces(t *testing.T) {
	d := start(t, true).site()
	other := join(t, d.redis, true) // a second daemon on the same store
	const ann = "/v1/accounts/ann@example.org"
	etag := d.admin.get(ann).want(200).header.Get("ETag")
	var wg sync.WaitGroup
	got := make([]*answer, 8)
	for i := range got {
		admin := []*client{d.admin, other.admin}[i%2]
		wg.Go(func() {
			got[i] = admin.patch(ann, fmt.Sprintf(`{"aliases":["a%d@example.org"]}`, i), "If-Match", etag)
		})
	}
	wg.Wait()
	won := 0
	for _, a := range got {
		switch a.status {
		case 200:
			won++
		case 412:
		default:
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if won != 1 {
		t.Errorf("%d changes passed the same If-Match, want one", won)
	}
	d.admin.patch(ann, `{}`, "If-Match", `"7", *`).want(200)
	d.admin.patch(ann, `{}`, "If-Match", `W/`+etag).want(412)
	d.admin.patch("/v1/accounts/none@example.org", `{}`, "If-Match", "*").want(412)
	d.admin.put(ann, `{}`, "If-None-Match", "*").want(412)
	d.admin.put("/v1/accounts/none@example.org", `{}`, "If-None-Match", "*").want(201)
}

// Two domains on two daemons cannot both get one name.
func TestNamesAreClaimedOnce(t *testing.T) {
	d := start(t, true)
	const each = 6
	var wg sync.WaitGroup
	got := make([]*answer, each)
	for i := range got {
		wg.Go(func() {
			got[i] = d.admin.post("/v1/domains", fmt.Sprintf(`{"name":"d%d.example","alias_domains":["shared.example"]}`, i))
		})
	}
	wg.Wait()
	won := 0
	for _, a := range got {
		if a.status == 201 {
			won++
		} else {
			a.want(409, "exists")
		}
	}
	if won != 1 {
		t.Errorf("%d domains have the alias", won)
	}
}

// A claim reserves a name for a minute, whether its holder exists or not.
func TestClaimsOfOthers(t *testing.T) {
	d := start(t, true)
	claim := func(name string, age time.Duration) {
		t.Helper()
		err := d.api.Store.Update(t.Context(), store.Global, store.Actor{Name: "another daemon"}, false, func(ch *store.Change) error {
			ch.PutClaim(name, store.Claim{Domain: "other.example", Time: ch.Now.Add(-age)})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	claim("fresh.example", 0)
	claim("orphan.example", time.Minute)
	before := d.api.Store.State.Heads()
	d.admin.post("/v1/domains", `{"name":"example.org","alias_domains":["orphan.example","fresh.example"]}`).want(409, "exists")
	d.admin.post("/v1/domains", `{"name":"fresh.example"}`).want(409, "exists")
	if d.api.Store.State.Heads() != before {
		t.Error("some of the names were claimed")
	}
	d.admin.post("/v1/domains", `{"name":"example.org","alias_domains":["orphan.example"]}`).want(201)
	d.admin.patch(dom, `{"alias_domains":["fresh.example"]}`).want(409, "exists")
	d.admin.post("/v1/domains", `{"name":"other.example","alias_domains":["fresh.example"]}`).want(201) // the holder
	// A domain can claim again a name that it claimed long ago and does not have.
	claim("late.example", time.Hour)
	d.admin.patch("/v1/domains/other.example", `{"alias_domains":["fresh.example","late.example"]}`).want(200)
	if got, ok := d.api.Store.State.Claim("late.example"); !ok || time.Since(got.Time) > time.Minute {
		t.Errorf("the claim is of %v", got.Time)
	}
	// A released name is free at once.
	d.admin.patch("/v1/domains/other.example", `{"alias_domains":[]}`).want(200)
	d.admin.patch(dom, `{"alias_domains":["fresh.example"]}`).want(200)
}

// Secrets are shown once, and hashes never.
func TestSecretsAreShownOnce(t *testing.T) {
	d := start(t, false).site()
	const ann = "/v1/accounts/ann@example.org"
	var secrets []string
	secrets = append(secrets, d.admin.post(ann+"/secure-passwords", `{"label":"My iPhone"}`).want(201).text("secret"))
	d.admin.put(ann+"/mailbox-password", `{"password":"correct horse battery"}`).want(200)
	key := d.admin.post("/v1/keys", `{"name":"k","role":"self","account":"ann@example.org"}`).want(201)
	secrets = append(secrets, key.text("key"), "correct horse battery")
	a, _ := d.api.Store.State.Account("ann@example.org")
	hash, err := a.Doc.Secrets[0].Hash.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	k, ok := d.api.Store.State.KeyByHash(d.api.Store.State.Keys()[0].Doc.Hash)
	if !ok {
		t.Fatal("no key")
	}
	secrets = append(secrets, string(hash), a.Doc.MailboxHash, k.Hash)
	d.admin.patch(ann, `{"suspended":true}`).want(200)
	d.admin.del("/v1/keys/" + k.ID).want(204)
	id := d.admin.get(ann + "/secure-passwords").text("items.0.id")
	for _, path := range []string{
		"/v1/domains", dom, dom + "/accounts", ann, ann + "/effective", ann + "/secure-passwords", ann + "/secure-passwords/" + id,
		dom + "/logins", "/v1/audit", "/v1/keys", "/v1/store", "/metrics", "/openapi.json",
	} {
		got := d.admin.get(path).want(200)
		for _, s := range secrets {
			if bytes.Contains(got.body, []byte(s)) {
				t.Errorf("GET %s shows a secret: %s", path, got.body)
			}
		}
	}
	d.admin.patch(ann, `{"suspended":false}`).want(200)
	d.admin.del(ann + "?confirm=true").want(204)
	audit := d.admin.get("/v1/audit").want(200)
	if later := d.admin.get("/v1/audit?since=2100-01-01T00:00:00Z").want(200).each("items", "id"); len(later) != 0 {
		t.Errorf("audit entries of the future: %v", later)
	}
	for _, s := range secrets {
		if strings.Contains(d.log.String(), s) || bytes.Contains(audit.body, []byte(s)) {
			t.Error("the log or the audit holds a secret")
		}
	}
	if !slices.Contains(audit.each("items", "action"), "secure_password.create") || !slices.Contains(audit.each("items", "action"), "mailbox_password.set") {
		t.Errorf("credential events are missing in the audit: %s", audit.body)
	}
}
