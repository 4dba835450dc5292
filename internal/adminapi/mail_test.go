package adminapi_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
)

// suspend suspends a credential of ann of a domain, with the id "s" and the domain.
func (d *daemon) suspend(domain string) {
	d.t.Helper()
	err := d.api.Store.Update(context.Background(), store.ShardOf(domain), store.Actor{Name: "daemon"}, false, func(c *store.Change) error {
		c.Audit.Action, c.Audit.Domain, c.Audit.Target = "credential.suspend", domain, "ann@"+domain
		c.PutSuspension(domain, &store.Suspension{ID: "s" + domain, Account: "ann@" + domain, Credential: "mailbox", At: c.Now})
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// messages writes records of messages.
func (d *daemon) messages(records ...*mailflow.Record) {
	d.t.Helper()
	var b store.Batch
	for _, r := range records {
		if r.Time.IsZero() {
			r.Time = time.Now()
		}
		b.Messages = append(b.Messages, *r)
	}
	if err := d.journal.AppendRecords(context.Background(), store.BatchID{}, &b); err != nil {
		d.t.Fatal(err)
	}
}

// Each field of a rule that is wrong is named, all at once, and nothing changes.
func TestMailRuleFaults(t *testing.T) {
	d := start(t, false)
	d.admin.post("/v1/domains", `{"name":"example.org"}`).want(201)
	const rules = "/v1/domains/example.org/mail-rules"
	for body, pointers := range map[string]string{
		`{}`:                       "/kind /name /scope",
		`{"kind":"internal_only"}`: "/name /scope",
		`{"kind":"internal_only","name":"x","scope":{"all":true},"except_domains":["a b"],"from":"2026-02-01T00:00:00Z","until":"2026-01-01T00:00:00Z"}`: "/until /except_domains/0",
		`{"kind":"internal_only","name":"x","scope":{"all":true},"match":{"senders":["x@y.example"]},"action":{"then":"refuse"}}`:                        "/match /action/then",
		`{"kind":"limit","name":"x","scope":{"all":true}}`:                                                                                                     "/action/messages_per_hour",
		`{"kind":"limit","name":"x","scope":{"members":["ann@example.net"]},"action":{"recipients_per_hour":5,"then":"reject"}}`:                               "/scope/members/0 /action/then",
		`{"kind":"filter","name":"x","scope":{"all":true},"match":{"headers":[{"name":"a b","regex":"("}],"attachments":{"names":["["]}},"action":{}}`:         "/match/headers/0/name /match/headers/0/regex /match/attachments/names/0 /action/do",
		`{"kind":"monitor","name":"x","scope":{"all":true},"action":{"to":["nonsense@"]}}`:                                                                     "/action/to/0",
		`{"kind":"audit","name":"x","scope":{"all":true},"action":{"approvers":["boss"],"expires":"soon"}}`:                                                    "/action/expires",
		`{"kind":"audit","name":"x","scope":{"all":true},"action":{"approvers":["boss"],"expires":"1ms"}}`:                                                     "/action/expires",
		`{"kind":"audit","name":"x","scope":{"all":true},"action":{"approvers":["boss"],"expires":"9000h"}}`:                                                   "/action/expires",
		`{"kind":"warning","name":"x","scope":{"all":true},"action":{"level":"advanced","texts":{"en/us":"x","de-":"x","en":" "},"advanced_texts":{"~":"x"}}}`: "/action/texts/en~1us /action/texts/de- /action/texts/en /action/advanced_texts/~0",
	} {
		a := d.admin.post(rules, body).want(422)
		for pointer := range strings.FieldsSeq(pointers) {
			if !strings.Contains(string(a.body), `"`+pointer+`"`) {
				t.Errorf("%s: %s is not named: %s", body, pointer, a.body)
			}
		}
	}
	// What follows from an unknown kind is not a fault of its own.
	d.admin.post(rules, `{"kind":"bogus","name":"x","scope":{"all":true},"match":{"senders":["x@y.example"]},"action":{"do":"spam"}}`).faults("/kind not_in_list")
	d.admin.post(rules+"?dry_run=true", `{"kind":"warning","name":"x","scope":{"all":true},"direction":"received","action":{"texts":{"en":"x","de-AT":"x","zh-Hant":"外部"}}}`).want(200)
	d.admin.get(rules).want(200).has("items", "[]")
}

// A rule's life: created, tested, changed under its ETag, tried dry, deleted, all of it audited.
func TestMailRules(t *testing.T) {
	d := start(t, false)
	d.admin.post("/v1/domains", `{"name":"example.org"}`).want(201)
	d.admin.put("/v1/accounts/ann@example.org", `{}`).want(201)
	const rule = "/v1/domains/example.org/mail-rules/inside"
	const body = `{"name":"Inside","kind":"internal_only","scope":{"members":["ann"]},"direction":"sent","except_domains":["*.partner.example"]}`
	d.admin.put(rule+"?dry_run=true", body).want(200)
	d.admin.get(rule).want(404)
	d.admin.put(rule, body).want(201)
	tag := d.admin.get(rule).want(200).header.Get("ETag")
	for to, refused := range map[string]string{"bob@example.org": "", "x@elsewhere.example": "internal_only", "x@mail.partner.example": ""} {
		got := d.admin.post(rule+"/test", `{"message":{"login":"ann@example.org","sender":"ann@example.org","recipients":["`+to+`"]}}`).want(200)
		if got.text("recipients.0.reason") != refused {
			t.Errorf("to %s: %s", to, got.body)
		}
	}
	d.admin.patch(rule, `{"mode":"report"}`, "If-Match", `"1"`).want(412)
	d.admin.patch(rule, `{"mode":"report"}`, "If-Match", tag).want(200)
	got := d.admin.post(rule+"/test", `{"message":{"login":"ann@example.org","recipients":["x@elsewhere.example"]}}`).want(200)
	if got.value("recipients.0.refused") != false || got.text("recipients.0.verdict") != "report" {
		t.Errorf("in report mode: %s", got.body)
	}
	d.admin.patch(rule, `{"kind":"limit"}`).want(422)
	d.admin.del(rule).want(204)
	audit := string(d.admin.get("/v1/audit?domain=example.org").want(200).body)
	for _, action := range []string{"mail_rule.create", "mail_rule.update", "mail_rule.delete"} {
		if !strings.Contains(audit, action) {
			t.Errorf("%s is not in the audit", action)
		}
	}
}

// Records of messages are found by each of the filters, and a preview says what a rule would have
// refused.
func TestMessageRecords(t *testing.T) {
	d := start(t, false)
	d.admin.post("/v1/domains", `{"name":"example.org"}`).want(201)
	var list []*mailflow.Record
	for i, domain := range []string{"example.org", "elsewhere.example", "partner.example"} {
		r := &mailflow.Record{
			ID: "id" + domain, Domain: "example.org", Direction: mailflow.Sent, Account: "ann@example.org", Sender: "ann@example.org", QueueID: "Q" + domain,
			MessageID: "<" + domain + ">", Recipients: i + 1, RecipientDomains: []string{domain}, Verdict: mailflow.Accepted, CredentialID: "c" + domain,
		}
		if domain == "example.org" {
			r.Accounts = []string{"bob@example.org"}
		}
		list = append(list, r)
	}
	list[2].Verdict, list[2].Rule = mailflow.Refused, "inside"
	d.messages(list...)
	const messages = "/v1/domains/example.org/messages"
	for query, want := range map[string]string{
		"": "idpartner.example idelsewhere.example idexample.org", "account=bob@example.org": "idexample.org", "credential=celsewhere.example": "idelsewhere.example",
		"queue_id=Qexample.org": "idexample.org", "message_id=%3Cpartner.example%3E": "idpartner.example", "verdict=refused": "idpartner.example",
		"rule=inside": "idpartner.example", "since=2099-01-01T00:00:00Z": "",
	} {
		var got []string
		for i := range 3 {
			if id := d.admin.get(messages + "?" + query).want(200).text("items." + string(rune('0'+i)) + ".id"); id != "" {
				got = append(got, id)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %s", query, got, want)
		}
	}
	preview := `{"rule":{"name":"x","kind":"internal_only","direction":"sent","scope":{"all":true},"except_domains":["partner.example"]}}`
	if got := d.admin.post("/v1/domains/example.org/mail-rules/preview", preview).want(200); fmt.Sprint(got.value("refused")) != "1" || got.text("messages.0") != "idelsewhere.example" {
		t.Errorf("preview: %s", got.body)
	}
	limit := `{"rule":{"name":"x","kind":"limit","scope":{"all":true},"action":{"messages_per_hour":1}}}`
	if got := d.admin.post("/v1/domains/example.org/mail-rules/preview", limit).want(200); fmt.Sprint(got.value("refused")) != "1" {
		t.Errorf("preview of a limit: %s", got.body)
	}
	d.admin.post("/v1/domains/example.org/mail-rules/preview", `{"rule":{"name":"x","kind":"filter","scope":{"all":true},"action":{"do":"spam"}}}`).want(422)
	got := d.admin.get(messages + "/explain?message_id=elsewhere.example").want(200)
	if got.text("items.0.record.queue_id") != "Qelsewhere.example" || got.text("items.0.recipients.0.recipient") != "*@elsewhere.example" {
		t.Errorf("explained: %s", got.body)
	}
	d.admin.get(messages + "/explain").want(422)
	d.admin.get(messages + "/explain?queue_id=none").want(404)
	self := d.key(`"role":"self","account":"bob@example.org"`)
	if got := self.get(messages).want(200); got.text("items.0.id") != "idexample.org" || got.text("items.1.id") != "" {
		t.Errorf("bob sees %s", got.body)
	}
}

// Groups name what is wrong with them; a suspended credential is listed and comes back.
func TestGroupsAndSuspensions(t *testing.T) {
	d := start(t, false)
	d.admin.post("/v1/domains", `{"name":"example.org","alias_domains":["alias.example"]}`).want(201)
	d.admin.put("/v1/groups/all@alias.example", `{"members":["ann","team"],"who_may_send":"domain","aliases":["everyone@alias.example"]}`).want(201)
	if got := d.admin.get("/v1/groups/all@example.org").want(200); got.text("members.0") != "ann@example.org" || got.text("aliases.0") != "everyone@example.org" {
		t.Errorf("group: %s", got.body)
	}
	for body, pointer := range map[string]string{
		`{"who_may_send":"listed"}`: "/senders", `{"senders":["x@y.example"]}`: "/who_may_send", `{"who_may_send":"listed","departments":["none"]}`: "/departments/0",
		`{"aliases":["everyone"]}`: "/aliases/0", `{"aliases":["x@elsewhere.example"]}`: "/aliases/0", `{"members":["a b"]}`: "/members/0", `{"who_may_send":"x"}`: "/who_may_send",
		`{"address":"other@example.org"}`: "/address",
	} {
		if a := d.admin.put("/v1/groups/team@example.org", body).want(422); !strings.Contains(string(a.body), `"`+pointer+`"`) {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	d.admin.del("/v1/groups/all@example.org").want(204)
	d.suspend("example.org")
	id := d.admin.get("/v1/domains/example.org/suspensions").want(200).text("items.0.id")
	d.admin.del("/v1/domains/example.org/suspensions/" + id).want(204)
	if got := d.admin.get("/v1/domains/example.org/suspensions").want(200); got.text("items.0.id") != "" {
		t.Errorf("still suspended: %s", got.body)
	}
}

// A department that mail rules and groups name cannot be deleted, nor left out of a document.
// Renaming it renames it in all of them, in one change.
func TestMailNamesDepartments(t *testing.T) {
	d := start(t, true).site()
	d.admin.put(dom+"/departments/legal/eu", `{}`).want(201)
	const rule, group = dom + "/mail-rules/audit", "/v1/groups/all@example.org"
	d.admin.put(rule, `{"kind":"audit","name":"Audit","scope":{"departments":[{"path":"legal","sub":true}],"except":{"departments":[{"path":"legal/eu"}]}},
		"action":{"approvers":["ann","department:legal"]}}`).want(201)
	d.admin.put(dom+"/mail-rules/inside", `{"kind":"internal_only","name":"Inside","scope":{"all":true}}`).want(201)
	d.admin.put(group, `{"who_may_send":"listed","departments":["legal/eu"],"approvers":["department:legal/eu"]}`).want(201)
	d.admin.put("/v1/groups/some@example.org", `{"approvers":["department:legal"]}`).want(201)
	d.admin.del(dom+"/departments/legal").want(409, "in_use").has("referrers", `{"departments":1,"groups":1,"mail_rules":1}`)
	d.admin.del(dom+"/departments/legal/eu").want(409, "in_use").has("referrers", `{"groups":1,"mail_rules":1}`)
	d.admin.post(dom+"/apply", `{"departments":[{"path":"sales"},{"path":"sales/emea"},{"path":"board"},{"path":"legal"}]}`).faults("/departments in_use")

	untouched := d.admin.get(dom + "/mail-rules/inside").want(200).header.Get("ETag")
	head := d.api.Store.State.Head(store.ShardOf("example.org")).N
	d.admin.patch(dom+"/departments/legal", `{"path":"law"}`).want(200)
	if n := d.api.Store.State.Head(store.ShardOf("example.org")).N; n != head+1 {
		t.Errorf("renaming took %d changes, want one", n-head)
	}
	d.admin.get(rule).want(200).has("action.approvers", `["ann@example.org","department:law"]`).
		has("scope", `{"departments":[{"path":"law","sub":true}],"except":{"departments":[{"path":"law/eu"}]}}`)
	d.admin.get(group).want(200).has("departments", `["law/eu"]`).has("approvers", `["department:law/eu"]`)
	d.admin.get("/v1/groups/some@example.org").want(200).has("approvers", `["department:law"]`)
	if now := d.admin.get(dom + "/mail-rules/inside").want(200).header.Get("ETag"); now != untouched {
		t.Errorf("a rule that names no department went from %s to %s", untouched, now)
	}

	d.admin.del(rule).want(204)
	d.admin.del(group).want(204)
	d.admin.del(dom + "/departments/law/eu").want(204)
	d.admin.del(dom+"/departments/law").want(409, "in_use").has("referrers", `{"groups":1}`)
	d.admin.del("/v1/groups/some@example.org").want(204)
	d.admin.del(dom + "/departments/law").want(204)
}
