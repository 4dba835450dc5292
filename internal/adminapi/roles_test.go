package adminapi_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
)

// operation is one line of the matrix: who may, beside admin, and a request that would succeed. {D}
// and {A} stand for a domain and an account in it. Writes are dry runs, so that each request finds
// the same state.
type operation struct {
	method, path, body string
	roles              string
}

func matrix() []operation {
	const office = `{"name":"Office","type":"whitelist","scope":{"all":true},"ips":["203.0.113.0/24"]}`
	const login = `{"login":{"account":"ann@{D}","protocol":"imap","ip":"203.0.113.9"}}`
	const inside = `{"name":"Inside","kind":"internal_only","scope":{"all":true}}`
	const all = `{"select":{"all":true},"set":{"suspended":true}}`
	return []operation{
		{"GET", "/v1/domains", "", "read domain"},
		{"POST", "/v1/domains", `{"name":"new.example"}`, ""},
		{"GET", "/v1/domains/{D}", "", "read domain"},
		{"PATCH", "/v1/domains/{D}", `{"trace_header":true}`, "domain"},
		{"DELETE", "/v1/domains/{D}", "", ""},
		{"GET", "/v1/domains/{D}/export", "", "read domain"},
		{"POST", "/v1/domains/{D}/apply", `{"policies":[]}`, "domain"},
		{"GET", "/v1/domains/{D}/third-party-access", "", "read domain"},
		{"PUT", "/v1/domains/{D}/third-party-access", `{"allow":true}`, "domain"},
		{"GET", "/v1/domains/{D}/secure-password-policy", "", "read domain"},
		{"PUT", "/v1/domains/{D}/secure-password-policy", `{"enforced":true}`, "domain"},
		{"GET", "/v1/domains/{D}/policies", "", "read domain"},
		{"POST", "/v1/domains/{D}/policies", office, "domain"},
		{"POST", "/v1/domains/{D}/policies/test", login, "read domain"},
		{"POST", "/v1/domains/{D}/policies/preview", `{"remove":"third-party-access"}`, "read domain"},
		{"POST", "/v1/domains/{D}/policies/migrate", `{"third_party_allowed":true}`, "domain"},
		{"GET", "/v1/domains/{D}/policies/third-party-access", "", "read domain"},
		{"PUT", "/v1/domains/{D}/policies/third-party-access", office, "domain"},
		{"PATCH", "/v1/domains/{D}/policies/third-party-access", `{"enabled":false}`, "domain"},
		{"DELETE", "/v1/domains/{D}/policies/third-party-access", "", "domain"},
		{"POST", "/v1/domains/{D}/policies/third-party-access/test", login, "read domain"},
		{"GET", "/v1/domains/{D}/ip-blocks", "", "read domain"},
		{"POST", "/v1/domains/{D}/ip-blocks", `{"network":"198.51.100.7"}`, "domain"},
		{"DELETE", "/v1/domains/{D}/ip-blocks/{block}", "", "domain"},
		{"GET", "/v1/domains/{D}/reverts", "", "read domain"},
		{"GET", "/v1/domains/{D}/reverts/{revert}", "", "read domain"},
		{"POST", "/v1/domains/{D}/reverts/{revert}/confirm", "", "domain"},
		{"GET", "/v1/domains/{D}/secure-password-policy/progress", "", "read domain"},
		{"GET", "/v1/domains/{D}/departments", "", "read domain"},
		{"GET", "/v1/domains/{D}/departments/sales", "", "read domain"},
		{"PUT", "/v1/domains/{D}/departments/x/y", `{}`, "domain"},
		{"PATCH", "/v1/domains/{D}/departments/sales", `{"path":"z"}`, "domain"},
		{"DELETE", "/v1/domains/{D}/departments/sales", "", "domain"},
		{"GET", "/v1/domains/{D}/accounts", "", "read domain"},
		{"POST", "/v1/domains/{D}/accounts/batch", all, "domain"},
		{"POST", "/v1/domains/{D}/accounts/import", "address\nnew@{D}\n", "domain"},
		{"GET", "/v1/accounts/{A}", "", "read domain self"},
		{"PUT", "/v1/accounts/{A}", `{}`, "domain"},
		{"PATCH", "/v1/accounts/{A}", `{"secure_passwords":"required"}`, "domain self"},
		{"DELETE", "/v1/accounts/{A}", "", "domain"},
		{"GET", "/v1/accounts/{A}/effective", "", "read domain self"},
		{"GET", "/v1/accounts/{A}/forwards", "", "read domain"},
		{"PUT", "/v1/accounts/{A}/mailbox-password", `{"password":"correct horse"}`, "domain"},
		{"GET", "/v1/accounts/{A}/secure-passwords", "", "read domain self"},
		{"POST", "/v1/accounts/{A}/secure-passwords", `{"label":"x"}`, "domain self"},
		{"GET", "/v1/accounts/{A}/secure-passwords/{id}", "", "read domain self"},
		{"PATCH", "/v1/accounts/{A}/secure-passwords/{id}", `{"label":"y"}`, "domain self"},
		{"DELETE", "/v1/accounts/{A}/secure-passwords/{id}", "", "domain self"},
		{"GET", "/v1/accounts/{A}/second-factors", "", "read domain self"},
		{"POST", "/v1/accounts/{A}/second-factors/totp", `{"label":"x"}`, "domain self"},
		{"POST", "/v1/accounts/{A}/second-factors/passkeys", `{"label":"x"}`, "domain self"},
		{"POST", "/v1/accounts/{A}/second-factors/recovery-codes", "", "domain self"},
		{"POST", "/v1/accounts/{A}/second-factors/mail", `{"address":"x@elsewhere.example"}`, "domain self"},
		{"POST", "/v1/accounts/{A}/second-factors/sms", `{"number":"+491701234567"}`, "domain self"},
		{"POST", "/v1/accounts/{A}/second-factors/challenge", "", "domain self"},
		{"POST", "/v1/accounts/{A}/second-factors/challenge/answer", `{"id":"x","credential":{}}`, "domain self"},
		{"POST", "/v1/accounts/{A}/second-factors/{factor}/confirm", `{"code":"000000"}`, "domain self"},
		{"POST", "/v1/accounts/{A}/second-factors/{factor}/send", "", "domain self"},
		{"DELETE", "/v1/accounts/{A}/second-factors/{factor}", "", "domain self"},
		{"DELETE", "/v1/accounts/{A}/second-factors", "", "domain"},
		{"GET", "/v1/domains/{D}/logins", "", "read domain self"},
		{"GET", "/v1/domains/{D}/logins/{login}", "", "read domain self"},
		{"GET", "/v1/domains/{D}/logins/{login}/explain", "", "read domain"},
		{"GET", "/v1/domains/{D}/sessions", "", "read domain"},
		{"GET", "/v1/accounts/{A}/sessions", "", "read domain self"},
		{"DELETE", "/v1/sessions/x", "", "domain"},
		{"GET", "/v1/domains/{D}/held", "", "read domain"},
		{"GET", "/v1/held/{held}", "", "read domain"},
		{"POST", "/v1/held/{held}/approve", "", "domain"},
		{"POST", "/v1/held/{held}/reject", `{"text":"no"}`, "domain"},
		{"GET", "/v1/domains/{D}/mail-rules", "", "read domain"},
		{"POST", "/v1/domains/{D}/mail-rules", inside, "domain"},
		{"POST", "/v1/domains/{D}/mail-rules/test", `{"message":{"recipients":["ann@{D}"]}}`, "read domain"},
		{"POST", "/v1/domains/{D}/mail-rules/preview", `{"rule":` + inside + `}`, "read domain"},
		{"GET", "/v1/domains/{D}/mail-rules/inside", "", "read domain"},
		{"PUT", "/v1/domains/{D}/mail-rules/inside", inside, "domain"},
		{"PATCH", "/v1/domains/{D}/mail-rules/inside", `{"enabled":false}`, "domain"},
		{"DELETE", "/v1/domains/{D}/mail-rules/inside", "", "domain"},
		{"POST", "/v1/domains/{D}/mail-rules/inside/test", `{"message":{"recipients":["ann@{D}"]}}`, "read domain"},
		{"GET", "/v1/domains/{D}/groups", "", "read domain"},
		{"GET", "/v1/groups/{A}", "", "read domain"},
		{"PUT", "/v1/groups/{A}", `{}`, "domain"},
		{"DELETE", "/v1/groups/{A}", "", "domain"},
		{"GET", "/v1/domains/{D}/suspensions", "", "read domain"},
		{"DELETE", "/v1/domains/{D}/suspensions/s{D}", "", "domain"},
		{"GET", "/v1/domains/{D}/messages", "", "read domain self"},
		{"GET", "/v1/domains/{D}/messages/explain?queue_id=Q", "", "read domain"},
		{"GET", "/v1/audit", "", "read domain"},
		{"GET", "/v1/client-types", "", "read"},
		{"GET", "/v1/client-types/web", "", "read"},
		{"PUT", "/v1/client-types/social", `{"evidence":[{"client_cert":"x"}]}`, ""},
		{"DELETE", "/v1/client-types/web", "", ""},
		{"GET", "/v1/keys", "", "read domain"},
		{"POST", "/v1/keys", `{"name":"k","role":"self","account":"{A}"}`, "domain"},
		{"DELETE", "/v1/keys/{key}", "", "domain"},
		{"GET", "/v1/regions", "", "read domain"},
		{"GET", "/v1/regions/codes", "", "read domain"},
		{"GET", "/v1/regions/127.0.0.1", "", "read domain"},
		{"GET", "/v1/store", "", "read"},
		{"POST", "/v1/store/backup", "", ""},
		{"POST", "/v1/store/restore", `{"documents":[]}`, ""}, // refused with 409: through the socket only
		{"POST", "/v1/store/adopt", "", ""},                   // refused with 409: there is nothing to adopt
		{"POST", "/v1/store/repair", "", ""},                  // refused with 409: there is nothing to repair
		{"GET", "/v1/throttle", "", "read domain"},
		{"DELETE", "/v1/throttle/{A}", "", "domain"},
		{"POST", "/v1/accounts/{A}/secure", `{"switch_off":true}`, "domain"},
		{"POST", "/v1/domains/{D}/logins/{login}/it-was-me", "", "domain self"},
		{"GET", "/v1/domains/{D}/inspection", "", "read domain"},
		{"GET", "/v1/domains/{D}/inspection/report", "", "read domain"},
		{"POST", "/v1/domains/{D}/inspection/reclaim", `{"kinds":["unused_protocol"]}`, "domain"},
		{"GET", "/v1/domains/{D}/logins/export", "", "read domain self"},
		{"POST", "/v1/domains/{D}/withdraw", `{"credential_id":"x","since":"2026-01-01T00:00:00Z"}`, "domain"},
		{"GET", "/v1/audit/verify", "", "read"},
		{"GET", "/v1/audit/export", "", "read"},
		{"POST", "/v1/login", `{}`, "login"},
	}
}

func TestRoles(t *testing.T) {
	d := start(t, false)
	ids, keys, blocks, factors := map[string]string{}, map[string]string{}, map[string]string{}, map[string]string{}
	reverts, logins, held := map[string]string{}, map[string]string{}, map[string]string{}
	for _, dn := range []string{"example.org", "example.net"} {
		d.admin.post("/v1/domains", `{"name":"`+dn+`"}`).want(201)
		d.admin.put("/v1/domains/"+dn+"/departments/sales", `{}`).want(201)
		blocks[dn] = d.admin.post("/v1/domains/"+dn+"/ip-blocks", `{"network":"192.0.2.1"}`).want(201).text("id")
		reverts[dn] = d.admin.patch("/v1/domains/"+dn+"/policies/third-party-access?revert_after=1h", `{"mode":"report"}`).want(200).text("pending.id")
		d.admin.put("/v1/domains/"+dn+"/mail-rules/inside", `{"name":"Inside","kind":"internal_only","scope":{"all":true}}`).want(201)
		d.suspend(dn)
		d.messages(&mailflow.Record{Domain: dn, QueueID: "Q", Account: "ann@" + dn})
		for _, who := range []string{"ann@", "bob@"} {
			d.admin.put("/v1/accounts/"+who+dn, `{}`).want(201)
			d.admin.put("/v1/groups/"+who+dn, `{}`).want(201)
			ids[who+dn] = d.admin.post("/v1/accounts/"+who+dn+"/secure-passwords", `{"label":"x"}`).want(201).text("id")
			factors[who+dn] = d.admin.post("/v1/accounts/"+who+dn+"/second-factors/totp", `{"label":"x"}`).want(201).text("id")
			logins[who+dn] = d.records(func(r *store.LoginRecord) { r.Domain, r.Account = dn, who+dn })[0]
		}
		held[dn] = d.held(dn)
		keys[dn] = d.admin.post("/v1/keys", `{"name":"victim","role":"self","account":"bob@`+dn+`"}`).want(201).text("id")
	}
	d.admin.put("/v1/client-types/web", `{"evidence":[{"networks":["127.0.0.1"]}]}`).want(201)
	callers := map[string]*client{
		"nobody": d.anybody(),
		"admin":  d.key(`"role":"admin"`),
		"read":   d.key(`"role":"read"`),
		"login":  d.key(`"role":"login"`),
		"domain": d.key(`"role":"domain","domain":"example.org"`),
		"self":   d.key(`"role":"self","account":"ann@example.org"`),
	}
	before := d.api.Store.State.Heads()
	var covered []string
	for _, op := range matrix() {
		path, _, _ := strings.Cut(op.path, "?")
		covered = append(covered, op.method+" "+path)
		// The caller's own account, a colleague's, and a stranger's.
		for _, target := range []string{"ann@example.org", "bob@example.org", "ann@example.net"} {
			_, dn, _ := strings.Cut(target, "@")
			fill := strings.NewReplacer("{D}", dn, "{A}", target, "{id}", ids[target], "{factor}", factors[target], "{key}", keys[dn], "{block}", blocks[dn], "{revert}", reverts[dn], "{login}", logins[target], "{held}", held[dn])
			path, body := fill.Replace(op.path), fill.Replace(op.body)
			var headers []string
			if strings.HasPrefix(body, "address\n") {
				headers = []string{"Content-Type", "text/csv"}
			}
			if op.method != "GET" && path != "/v1/login" {
				path += "?dry_run=true"
			}
			for role, c := range callers {
				t.Run(op.method+" "+path+" by "+role, func(t *testing.T) {
					caller := *c
					caller.t = t
					got := caller.do(op.method, path, body, headers...)
					want := expect(&op, role, target)
					switch {
					case want != 0:
						got.want(want)
					case got.status >= 400 && got.status != 409:
						t.Errorf("%d %s", got.status, got.body)
					}
				})
			}
		}
	}
	if d.api.Store.State.Heads() != before {
		t.Error("dry runs, or what was refused, changed the store")
	}
	missing(t, d, covered)
}

// held stores a held message of a domain, and returns its id.
func (d *daemon) held(domain string) string {
	d.t.Helper()
	h := &store.Held{ID: store.NewID(), State: store.HeldWaiting, HeldAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour), Node: "mx1", Recipients: []string{"x@example.com"}}
	err := d.api.Store.Update(d.t.Context(), store.ShardOf(domain), store.Actor{}, false, func(c *store.Change) error {
		c.PutHeld(domain, h)
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return h.ID
}

// expect returns the status with which a request is refused, 0 for none.
func expect(op *operation, role, target string) int {
	allowed := role == "admin" || slices.Contains(strings.Fields(op.roles), role)
	foreign := strings.HasSuffix(target, "@example.net")
	reaches := true
	switch {
	case role == "nobody":
		return http.StatusUnauthorized
	case role == "domain" && foreign:
		reaches = !strings.Contains(op.path, "{D}") && !strings.Contains(op.path, "{A}") && (!allowed || !strings.Contains(op.path, "{key}") && !strings.Contains(op.path, "{held}"))
	case role == "self" && (strings.Contains(op.path, "{A}") || allowed && strings.Contains(op.path, "{login}")):
		reaches = target == "ann@example.org"
	case role == "self" && strings.Contains(op.path, "{D}"):
		reaches = !foreign
	}
	switch {
	case !reaches:
		return http.StatusNotFound
	case !allowed:
		return http.StatusForbidden
	case role == "domain" && foreign && strings.Contains(op.body, "{A}"):
		return http.StatusUnprocessableEntity // the path is its own, what the body names is not
	default:
		return 0
	}
}

// missing fails for operations of the API that the matrix leaves out.
func missing(t *testing.T, d *daemon, covered []string) {
	t.Helper()
	open := []string{"/livez", "/readyz", "/metrics", "/openapi.json"}
	normal := strings.NewReplacer("{domain}", "{D}", "{address}", "{A}", "departments/{path}", "departments/sales", "client-types/{type}", "client-types/web", "regions/{ip}", "regions/127.0.0.1", "keys/{id}", "keys/{key}", "policies/{id}", "policies/third-party-access", "ip-blocks/{id}", "ip-blocks/{block}", "reverts/{id}", "reverts/{revert}", "logins/{id}", "logins/{login}", "sessions/{id}", "sessions/x", "/v1/held/{id}", "/v1/held/{held}", "mail-rules/{id}", "mail-rules/inside", "suspensions/{id}", "suspensions/s{D}", "throttle/{subject}", "throttle/{A}", "second-factors/{id}", "second-factors/{factor}")
	for _, o := range documented(t, d) {
		at := o.method + " " + normal.Replace(o.path)
		if !slices.ContainsFunc(covered, func(c string) bool {
			return c == at || strings.Replace(c, "x/y", "sales", 1) == at || strings.Replace(c, "social", "web", 1) == at
		}) && !slices.Contains(open, o.path) {
			t.Errorf("%s has no line in the matrix", at)
		}
	}
}

func TestKeysOfADomainReachNowhereElse(t *testing.T) {
	d := start(t, true).site()
	own := d.key(`"role":"domain","domain":"example.org"`)
	d.admin.patch("/v1/accounts/bob@example.org", `{"aliases":["carl@example.net"]}`).want(200)

	own.patch(dom, `{"alias_domains":["more.example"]}`).want(403, "forbidden")
	own.patch(dom, `{"trace_header":true}`).want(200)
	own.put("/v1/accounts/ann@example.org", `{"aliases":["carl@example.net","x@unmanaged.example"]}`).faults("/aliases/0 outside_domain", "/aliases/1 outside_domain")
	own.patch("/v1/accounts/bob@example.org", `{"suspended":true}`).want(200).has("aliases", `["carl@example.net"]`) // an administrator's, kept
	own.put(dom+"/secure-password-policy", `{"enforced":true,"scope":{"members":["carl@example.net"]}}`).faults("/scope/members/0 outside_domain")
	own.csv(dom+"/accounts/import", "address\ncarl@example.net\n").faults("2/address outside_domain")
	if got := own.get("/v1/domains").want(200).each("items", "name"); !slices.Equal(got, []string{"example.org"}) {
		t.Errorf("sees domains %q", got)
	}
	own.get("/v1/audit?domain=example.net").want(404)
	for _, dn := range own.get("/v1/audit?limit=1000").want(200).each("items", "domain") {
		if dn != "example.org" {
			t.Errorf("sees the audit of %q", dn)
		}
	}
	own.get("/v1/accounts/carl@example.net").want(404)
	own.get("/v1/accounts/carl@unmanaged.example").want(404)
	own.get("/v1/accounts/ann@alias.example").want(200)
}

func (c *client) csv(path, file string) *answer {
	c.t.Helper()
	return c.post(path, file, "Content-Type", "text/csv")
}

func TestSelf(t *testing.T) {
	d := start(t, true).site()
	self := d.key(`"role":"self","account":"Ann@Alias.example"`)
	self.patch("/v1/accounts/ann@example.org", `{"secure_passwords":"required"}`).want(200).has("secure_passwords", `"required"`)
	self.patch("/v1/accounts/ann@alias.example", `{"secure_passwords":"off"}`).want(409, "confirm_required")
	d.admin.put(dom+"/secure-password-policy", `{"enforced":true}`).want(200)
	self.patch("/v1/accounts/ann@example.org?confirm=true", `{"secure_passwords":"off"}`).want(409, "enforced")
	d.admin.put(dom+"/secure-password-policy", `{"enforced":false}`).want(200)
	d.admin.get("/v1/accounts/ann@example.org").want(200).has("secure_passwords", `"required"`) // survives enforcement
	self.patch("/v1/accounts/ann@alias.example?confirm=true", `{"secure_passwords":null}`).want(200)
	for _, body := range []string{`{"suspended":false}`, `{"secure_passwords":"off","aliases":[]}`, `{"address":"ann@example.org"}`, `{"unknown":1}`} {
		self.patch("/v1/accounts/ann@example.org", body).want(403, "forbidden")
	}
	self.patch("/v1/accounts/ann@example.org", `{"secure_passwords":"never"}`).faults("/secure_passwords not_in_list")
	d.admin.patch("/v1/accounts/ann@example.org", `{"suspended":true}`).want(200)
	for _, body := range []string{`[]`, `null`} { // neither names a field, and neither must do what naming one would
		self.patch("/v1/accounts/ann@example.org", body).want(422)
	}
	d.admin.get("/v1/accounts/ann@example.org").want(200).has("suspended", `true`)

	d.on(login(time.Now(), "ann@example.org", "203.0.113.9"), login(time.Now(), "bob@example.org", "203.0.113.9"))
	if got := self.get(dom+"/logins").want(200).each("items", "account"); !slices.Equal(got, []string{"ann@example.org"}) {
		t.Errorf("sees the records of %q", got)
	}
	self.get(dom + "/logins?account=bob@example.org").want(404)
	self.get(dom + "/logins?account=ann@alias.example").want(200)
}

func TestKeys(t *testing.T) {
	d := start(t, true).site()
	made := d.admin.post("/v1/keys", `{"name":"backup","role":"read","expires_at":"2999-01-01T00:00:00+02:00"}`).want(201)
	made.has("role", `"read"`).has("name", `"backup"`).has("expires_at", `"2998-12-31T22:00:00Z"`)
	if k := made.text("key"); len(k) != 36 || !strings.HasPrefix(k, "dbk_") || strings.Trim(k[4:], "abcdefghijklmnopqrstuvwxyz234567") != "" {
		t.Errorf("key %q", k)
	}
	admin := d.key(`"role":"admin"`)
	// A key makes only weaker keys, and none that lasts longer.
	admin.post("/v1/keys", `{"name":"x","role":"admin"}`).want(403, "forbidden")
	admin.post("/v1/keys", `{"name":"x","role":"read"}`).want(201)
	short := d.key(`"role":"admin","expires_at":"2100-01-01T00:00:00Z"`)
	short.post("/v1/keys", `{"name":"x","role":"read"}`).want(403, "forbidden")
	short.post("/v1/keys", `{"name":"x","role":"read","expires_at":"2100-01-01T00:00:01Z"}`).want(403, "forbidden")
	short.post("/v1/keys", `{"name":"x","role":"read","expires_at":"2099-12-31T00:00:00Z"}`).want(201)
	own := d.key(`"role":"domain","domain":"Example.org"`)
	for role, more := range map[string]string{"admin": "", "read": "", "login": "", "domain": `,"domain":"example.org"`} {
		own.post("/v1/keys", `{"name":"x","role":"`+role+`"`+more+`}`).want(403, "forbidden")
	}
	own.post("/v1/keys", `{"name":"x","role":"domain","domain":"example.net"}`).faults("/domain unmanaged_domain")
	self := own.post("/v1/keys", `{"name":"x","role":"self","account":"ann@example.org"}`).want(201).has("domain", `"example.org"`)
	own.post("/v1/keys", `{"name":"x","role":"self","account":"carl@example.net"}`).faults("/account unmanaged_domain")

	d.admin.post("/v1/keys", `{"name":"x","role":"domain"}`).faults("/domain required")
	d.admin.post("/v1/keys", `{"name":"x","role":"domain","domain":"nowhere.example"}`).faults("/domain unmanaged_domain")
	d.admin.post("/v1/keys", `{"name":"x","role":"read","domain":"example.org","account":"ann@example.org"}`).faults("/domain conflict", "/account conflict")
	d.admin.post("/v1/keys", `{"role":"root"}`).faults("/name required", "/role not_in_list")

	// A domain's key sees its domain's keys, and revokes those that it might have made.
	if got := own.get("/v1/keys").want(200).each("items", "role"); !slices.Equal(sorted(got), []string{"domain", "self"}) {
		t.Errorf("sees keys of roles %q", got)
	}
	own.del("/v1/keys/" + admin.id).want(404)
	own.del("/v1/keys/" + own.id).want(403)
	own.del("/v1/keys/" + self.text("id")).want(204)
	d.admin.del("/v1/keys/" + own.id).want(204)
	own.get(dom).want(401, "unauthorized")
	d.admin.del("/v1/keys/nothing").want(404)

	page := d.admin.get("/v1/keys?limit=2").want(200)
	rest := d.admin.get("/v1/keys?cursor=" + page.text("next")).want(200)
	if n := len(page.each("items", "id")) + len(rest.each("items", "id")); n != 5 {
		t.Errorf("%d keys in all", n)
	}
}

func sorted(s []string) []string { slices.Sort(s); return s }

func TestExpiredKey(t *testing.T) {
	d := start(t, true).site()
	c := d.key(`"role":"read"`)
	c.get(dom).want(200)
	err := d.api.Store.Update(context.Background(), store.Global, store.Actor{}, false, func(ch *store.Change) error {
		for _, k := range d.api.Store.State.Keys() {
			next := *k.Doc
			next.ExpiresAt = ch.Now.Add(-time.Second)
			ch.PutKey(&next)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := c.get(dom).want(401, "key_expired"); a.header.Get("WWW-Authenticate") != "Bearer" {
		t.Error("no WWW-Authenticate")
	}
}

// The unix socket makes administrators of root and the daemon's user, but not of what may speak for
// somebody else.
func TestWhoSpeaksOnTheSocket(t *testing.T) {
	d := start(t, true).site()
	d.admin.get("/v1/keys").want(200)
	for _, h := range [][2]string{
		{"Authorization", ""},
		{"Authorization", "Bearer x"},
		{"Authorization", "Basic cm9vdDo="},
		{"Cookie", "a=b"},
		{"Origin", "null"},
		{"Forwarded", "for=192.0.2.1"},
		{"X-Forwarded-For", "192.0.2.1"},
		{"X-Forwarded-Host", "x"},
		{"x-forwarded-proto", "https"},
		{"X-Real-IP", "192.0.2.1"},
		{"Via", "1.1 proxy"},
		{"Referer", "http://127.0.0.1:8080/"},
		{"Sec-Fetch-Site", "same-origin"},
	} {
		d.admin.get("/v1/keys", h[0], h[1]).want(401, "unauthorized")
	}
	keyed := *d.admin
	keyed.key = d.key(`"role":"read"`).key
	keyed.get("/v1/keys").want(200)
	keyed.del(dom + "?dry_run=true").want(403) // the key counts, not the peer
	d.anybody().get("/v1/keys").want(401)
	d.anybody().get("/v1/keys", "Authorization", "bearer "+keyed.key).want(200)
	d.anybody().get("/v1/keys", "Authorization", keyed.key).want(401)

	name, uid := "daemon", fmt.Sprint(os.Geteuid())
	if os.Geteuid() == 0 {
		name = "root"
	}
	d.admin.get("/v1/audit?limit=1&domain=example.net").has("items.0.actor", fmt.Sprintf(`{"name":"%s","uid":"%s"}`, name, uid))

	// Somebody else's process is nobody.
	d.stranger.Store(true)
	d.admin.http.CloseIdleConnections()
	d.admin.get("/v1/keys").want(401)
	d.admin.get("/livez").want(200)
}

func TestClientTypes(t *testing.T) {
	d := start(t, true).site()
	const web = "/v1/client-types/web"
	d.admin.get(web).want(404)
	body := `{"type":"web","evidence":[{"networks":["127.0.0.1/32"],"client_cert":"","server_names":["mail.example.org"],"local_ports":[143],"services":["imap"]}]}`
	made := d.admin.put(web, body).want(201)
	made.has("evidence.0.local_ports", `[143]`).has("unproven", `false`)
	read := d.admin.get(web).want(200)
	if !bytes.Equal(read.body, made.body) || read.header.Get("ETag") != made.header.Get("ETag") {
		t.Errorf("GET %s, PUT %s", read.body, made.body)
	}
	d.admin.put(web, body, "If-Match", read.header.Get("ETag")).want(200)
	l := access.Login{RealIP: addr("127.0.0.1"), ServerName: "mail.example.org", LocalPort: 143, Service: "imap"}
	if _, v := d.api.Store.State.View("ann@example.org"); v.Clients.Classify(&l) != "web" {
		t.Error("the evidence does not prove the type")
	}
	d.admin.put("/v1/client-types/our-own-app", `{"evidence":[{"server_names":["app.example.org"]}]}`).faults("/evidence/0 proves_nothing")
	d.admin.put("/v1/client-types/our-own-app", `{"unproven":true,"evidence":[{"server_names":["app.example.org"]}]}`).want(201).has("unproven", `true`)
	d.admin.put("/v1/client-types/our-own-app", `{"unproven":true,"evidence":[{"client_cert":"ab:cd"}]}`).want(200).has("unproven", `false`)
	d.admin.put("/v1/client-types/web", `{"unproven":true,"evidence":[{}]}`).faults("/evidence/0 required")
	d.admin.put("/v1/client-types/web", `{"evidence":[]}`).faults("/evidence required")
	d.admin.put("/v1/client-types/web", `{"type":"console","evidence":[{"client_cert":"x"}]}`).faults("/type conflict")
	d.admin.put("/v1/client-types/third-party", `{"evidence":[{"client_cert":"x"}]}`).faults("?type conflict")
	for _, name := range []string{"Web", "a%20b", strings.Repeat("x", 41)} {
		d.admin.put("/v1/client-types/"+name, `{"evidence":[{"client_cert":"x"}]}`).faults("?type invalid_name")
	}
	if got := d.admin.get("/v1/client-types").want(200).each("items", "type"); !slices.Equal(got, []string{"our-own-app", "web"}) {
		t.Errorf("client types %q", got)
	}
	d.admin.del(web).want(204)
	d.admin.del(web).want(404)
}

func TestLogins(t *testing.T) {
	d := start(t, true).site()
	now := time.Now().UTC().Truncate(time.Second).Add(-10 * time.Minute)
	var records []store.LoginRecord
	for i := range 5 {
		r := login(now.Add(time.Duration(i)*time.Minute), "ann@example.org", "203.0.113.9", refusedBy("third-party-access"))
		if i == 2 {
			r = login(r.Time, "bob@example.org", "2001:db8::1")
		}
		records = append(records, r)
	}
	d.on(records...)
	for query, want := range map[string]int{
		"":                            5,
		"account=bob@alias.example":   1,
		"ip=2001:DB8:0::1":            1,
		"outcome=deny":                4,
		"reason=ok":                   1,
		"policy=third-party-access":   4,
		"outcome=allow&reason=policy": 0,
		"client=third-party":          5,
		"client=web":                  0,
		"since=" + now.Add(2*time.Minute).Format(time.RFC3339):               3,
		"until=" + now.Add(time.Hour).Format(time.RFC3339) + "&outcome=deny": 4,
		"until=" + now.Add(-time.Hour).Format(time.RFC3339):                  0,
	} {
		if got := d.admin.get(dom+"/logins?"+query).want(200).each("items", "id"); len(got) != want {
			t.Errorf("%s: %d records, want %d", query, len(got), want)
		}
	}
	first := d.admin.get(dom + "/logins?limit=2").want(200)
	first.has("items.0.time", `"`+now.Add(4*time.Minute).Format(time.RFC3339)+`"`).has("items.0.outcome", `"deny"`).has("items.0.reason", `"policy"`).has("items.0.client", `"third-party"`)
	second := d.admin.get(dom + "/logins?limit=2&cursor=" + first.text("next")).want(200)
	if second.text("items.0.account") != "bob@example.org" {
		t.Errorf("second page %s", second.body)
	}
	d.admin.get("/v1/domains/example.net/logins").want(200).has("items", `[]`)
}

func TestAudit(t *testing.T) {
	d := start(t, true).site()
	key := d.key(`"role":"domain","domain":"example.org"`)
	key.patch("/v1/accounts/ann@example.org", `{"protocols":{"pop3":false}}`).want(200)
	last := d.admin.get("/v1/audit?domain=example.org&limit=1").want(200) // changes of other shards may be as new, to the millisecond
	last.has("items.0.action", `"account.update"`).has("items.0.target", `"ann@example.org"`).has("items.0.domain", `"example.org"`).
		has("items.0.changes", `{"protocols":[{},{"pop3":false}]}`).has("items.0.actor.key", `"`+key.id+`"`)
	var all []string
	for cursor := ""; ; {
		page := d.admin.get("/v1/audit?limit=3&cursor=" + cursor).want(200)
		all = append(all, page.each("items", "action")...)
		if cursor = page.text("next"); cursor == "" {
			break
		}
	}
	for _, action := range []string{"domain.create", "domain.claim", "department.create", "account.create", "key.create", "account.update"} {
		if !slices.Contains(all, action) {
			t.Errorf("no %s in %q", action, all)
		}
	}
	d.admin.get("/v1/audit?domain=..").faults("?domain invalid_domain")
}
