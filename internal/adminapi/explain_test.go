package adminapi_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/store"
)

// records writes login records of Ann by IMAP from a third-party client, and returns their ids. By
// default it is a login by mailbox password that the next passdb decides.
func (d *daemon) records(f ...func(*store.LoginRecord)) (ids []string) {
	d.t.Helper()
	var list []store.LoginRecord
	open := func(r *store.LoginRecord) { r.Service, r.Outcome = "imap", access.Next }
	for _, set := range f {
		r := login(time.Now().Truncate(time.Millisecond), "ann@example.org", "203.0.113.9", open, set)
		list, ids = append(list, r), append(ids, r.ID)
	}
	d.on(list...)
	return ids
}

func refusedBy(policy string) func(*store.LoginRecord) {
	return func(r *store.LoginRecord) {
		r.Outcome, r.Reason, r.PolicyID = access.Deny, access.ReasonPolicy, policy
	}
}

func ended(o access.Outcome, reason access.Reason) func(*store.LoginRecord) {
	return func(r *store.LoginRecord) { r.Outcome, r.Reason = o, reason }
}

// closed is a login whose result the next passdb reported.
func closed(o access.Outcome, reason access.Reason) func(*store.LoginRecord) {
	return func(r *store.LoginRecord) { r.Outcome, r.Reason, r.ClosedAt = o, reason, r.Time }
}

func (d *daemon) explained(id string) *answer {
	d.t.Helper()
	return d.admin.get(dom + "/logins/" + id + "/explain").want(200)
}

// F23: a record is evaluated by the present rules, with what it says about the secret.
func TestExplainLogin(t *testing.T) {
	d := start(t, true).site()
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	d.admin.put(office, `{"name":"Office","type":"whitelist","scope":{"all":true},"ips":["198.51.100.0/24"]}`).want(201)
	device := d.admin.post("/v1/accounts/ann@example.org/secure-passwords", `{"label":"My iPhone"}`).want(201).text("id")
	phone := func(o access.Outcome, reason access.Reason) func(*store.LoginRecord) {
		return func(r *store.LoginRecord) {
			r.Outcome, r.Reason, r.CredentialID, r.Credential = o, reason, device, "My iPhone"
		}
	}
	ids := d.records(refusedBy("office"), closed(access.Deny, access.ReasonBadSecret), closed(access.Allow, access.ReasonOK), ended(access.Next, access.ReasonOK),
		phone(access.Allow, access.ReasonOK), ended(access.Deny, access.ReasonThrottled), ended(access.Deny, access.ReasonBadSecret),
		func(r *store.LoginRecord) {
			r.Outcome, r.Reason, r.SecretHidden = access.Deny, access.ReasonSecureRequired, true
		})
	d.admin.get(dom+"/logins/"+ids[0]).want(200).has("id", `"`+ids[0]+`"`).has("policy_id", `"office"`)

	// Under unchanged rules the result is that of the record.
	a := d.explained(ids[0]).has("record.id", `"`+ids[0]+`"`).has("differs", `false`).has("why_differs", `null`).
		has("decision.outcome", `"deny"`).has("decision.reason", `"policy"`).has("decision.policy_id", `"office"`)
	if !strings.Contains(string(a.body), `{"step":"policy","result":"no_match","policy":"office","detail":"Office: applies to all members; 203.0.113.9 is not in its addresses; the whitelist does not permit"}`) {
		t.Errorf("the trace does not say why: %s", a.body)
	}
	d.admin.patch(office, `{"enabled":false}`).want(200)
	d.explained(ids[0]).has("differs", `true`).has("decision.outcome", `"next"`).
		has("why_differs", `"then the policy refused it (office, which is disabled); now it passes; the record does not say whether its secret was correct; it is assumed to be"`)
	for i, want := range map[int]string{1: "deny bad_secret", 2: "allow ok", 3: "next ok", 4: "allow ok", 5: "deny throttled", 6: "deny bad_secret"} {
		a := d.explained(ids[i]).has("differs", `false`)
		if got := a.text("decision.outcome") + " " + a.text("decision.reason"); got != want {
			t.Errorf("%d: %s, want %s: %s", i, got, want, a.body)
		}
		if !strings.Contains(string(a.body), `"result":"not_evaluated","policy":"office"`) {
			t.Errorf("%d: the trace leaves out a disabled policy: %s", i, a.body)
		}
	}
	d.explained(ids[7]).has("decision.outcome", `"next"`).has("why_differs", `"then a secure password was required; now it passes; the record does not say whether its secret was correct; it is assumed to be"`)

	// A new rule refuses a right secret; a wrong secret never passes.
	d.admin.put(dom+"/secure-password-policy", `{"enforced":true}`).want(200)
	d.explained(ids[2]).has("decision.reason", `"secure_password_required"`).has("why_differs", `"then it passed; now a secure password is required"`)
	d.explained(ids[4]).has("differs", `false`).has("decision.credential_id", `"`+device+`"`)
	d.explained(ids[6]).has("differs", `false`)
	d.explained(ids[7]).has("differs", `false`)
	d.admin.del("/v1/accounts/ann@example.org/secure-passwords/" + device).want(204)
	d.explained(ids[4]).has("decision.reason", `"revoked_secret"`).has("decision.note", `"revoked secure password 'My iPhone' still in use"`).
		has("why_differs", `"then it passed; now its secure password is revoked"`)
	d.admin.put(dom+"/secure-password-policy", `{"enforced":false}`).want(200)
	d.admin.put(policies+"/nobody?confirm=true", `{"name":"Nobody","type":"blacklist","scope":{"all":true}}`).want(201)
	d.admin.del(office).want(204)
	d.explained(ids[0]).has("why_differs", `"then the policy refused it (office, which was deleted); now the policy refuses it (nobody)"`)
	d.admin.patch("/v1/accounts/ann@example.org", `{"suspended":true}`).want(200)
	d.explained(ids[1]).has("why_differs", `"then its secret was wrong; now the account is suspended"`)
}

// Where mailbox passwords are kept here, a wrong one stays wrong.
func TestExplainLoginKeptHere(t *testing.T) {
	d := start(t, false).site()
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	master := func(r *store.LoginRecord) { r.Outcome, r.MasterUser = access.Allow, "admin" }
	unknown := func(r *store.LoginRecord) {
		r.Account, r.Outcome, r.Reason = "new@example.org", access.Deny, access.ReasonUnknownAccount
	}
	ids := d.records(ended(access.Deny, access.ReasonBadSecret), ended(access.Allow, access.ReasonOK), master, unknown)
	for i, want := range []string{"bad_secret", "ok", "ok", "unknown_account"} {
		d.explained(ids[i]).has("differs", `false`).has("decision.reason", `"`+want+`"`)
	}
	d.admin.patch("/v1/accounts/new@example.org?create=true", `{"suspended":false}`).want(201)
	d.explained(ids[3]).has("decision.outcome", `"allow"`).
		has("why_differs", `"then the account had no record; now it passes; the record does not say whether its secret was correct; it is assumed to be"`)
}

func TestExplainLoginIsNotForOthers(t *testing.T) {
	d := start(t, true).site()
	ids := d.records(refusedBy("x"), func(r *store.LoginRecord) { r.Account = "bob@example.org" })
	own, other := d.key(`"role":"domain","domain":"example.org"`), d.key(`"role":"domain","domain":"example.net"`)
	self := d.key(`"role":"self","account":"ann@example.org"`)
	for _, path := range []string{"", "/explain"} {
		own.get(dom + "/logins/" + ids[0] + path).want(200)
		d.key(`"role":"read"`).get(dom + "/logins/" + ids[0] + path).want(200)
		other.get(dom + "/logins/" + ids[0] + path).want(404)
		other.get("/v1/domains/example.net/logins/" + ids[0] + path).want(404)
		for _, id := range []string{"x", ids[0] + "00", ids[0][:12], ids[0][:11], strings.Repeat("f", 28), strings.Repeat("0", 12), "%22", "-", strings.Repeat("7", 5000)} {
			d.admin.get(dom+"/logins/"+id+path).want(404, "not_found")
		}
	}
	self.get(dom+"/logins/"+ids[0]).want(200).has("account", `"ann@example.org"`)
	self.get(dom+"/logins/"+ids[1]).want(404, "not_found")
	self.get(dom+"/logins/"+ids[0]+"/explain").want(403, "forbidden") // names policies, which outsiders are not told
}

// F11 under attack: a test reveals nothing about other domains, and is bounded.
func TestPolicyTestIsNotForOthers(t *testing.T) {
	d := start(t, true).site()
	carls := d.admin.post("/v1/accounts/carl@example.net/secure-passwords", `{"label":"phone"}`).want(201).text("id")
	bobs := d.admin.post("/v1/accounts/bob@example.org/secure-passwords", `{"label":"phone"}`).want(201).text("id")
	own := d.key(`"role":"domain","domain":"example.org"`)
	own.post("/v1/domains/example.net/policies/test", `{"login":{"account":"carl@example.net","protocol":"imap"}}`).want(404)
	own.post(policies+"/test", `{"login":{"account":"carl@example.net","protocol":"imap"}}`).faults("/login/account outside_domain")
	for _, id := range []string{carls, bobs} {
		own.post(policies+"/test", `{"login":{"account":"ann@example.org","protocol":"imap","credential_id":"`+id+`"}}`).faults("/login/credential_id unknown_credential")
	}
	own.post(policies+"/test", `{"policy":{"type":"blacklist","scope":{"all":true,"members":["carl@example.net"]}},"login":{"account":"ann","protocol":"imap"}}`).faults("/policy/scope/members/0 outside_domain")
	d.key(`"role":"self","account":"ann@example.org"`).post(policies+"/test", `{"login":{"account":"ann","protocol":"imap"}}`).want(403)
	d.key(`"role":"login"`).post(policies+"/test", `{"login":{"account":"ann","protocol":"imap"}}`).want(403)

	// The largest draft is accepted, a larger one is not.
	ips := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf(`"10.%d.%d.%d"`, i>>16, i>>8&255, i&255)
		}
		return `{"policy":{"type":"blacklist","scope":{"all":true},"ips":[` + strings.Join(list, ",") + `]},"login":{"account":"ann","protocol":"imap","ip":"10.0.39.15"}}`
	}
	d.admin.post(policies+"/test", ips(100_000)).want(413, "too_large")
	d.admin.post(policies+"/test", ips(10_000)).want(200).has("verdict", `"match"`).has("outcome", `"deny"`)

	// Hypothetical logins by master users, and look-ups.
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	d.admin.put(dom+"/secure-password-policy", `{"enforced":true}`).want(200)
	for more, want := range map[string]string{
		`"master_user":"admin"`: "next ok", `"lookup":"credentials","mechanism":"SCRAM-SHA-256"`: "deny secure_password_required", `"lookup":"user"`: "next ok", `"lookup":"none"`: "deny secure_password_required",
	} {
		a := own.post(policies+"/test", `{"login":{"account":"ann","protocol":"imap",`+more+`}}`).want(200)
		if got := a.text("outcome") + " " + a.text("reason"); got != want {
			t.Errorf("%s: %s, want %s", more, got, want)
		}
	}
	// Nothing was recorded or counted.
	d.admin.post(policies+"/test", `{"login":{"account":"bob@example.org","protocol":"imap","ip":"203.0.113.9","credential_id":"`+bobs+`"}}`).want(200).has("outcome", `"allow"`)
	d.admin.get("/v1/accounts/bob@example.org/secure-passwords/"+bobs).want(200).has("last_used_at", `null`)
	d.admin.get(dom+"/logins").want(200).has("items", `[]`)
}
