package adminapi_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/redistest"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// documentedOp is one operation of /openapi.json.
type documentedOp struct {
	method, path string
	op           map[string]any
}

func documented(t *testing.T, d *daemon) []documentedOp {
	t.Helper()
	a := d.anybody().get("/openapi.json").want(200)
	var doc struct {
		OpenAPI string                               `json:"openapi"`
		Paths   map[string]map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(a.body, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Fatalf("openapi %q", doc.OpenAPI)
	}
	var list []documentedOp
	for path, item := range doc.Paths {
		for method, op := range item {
			list = append(list, documentedOp{strings.ToUpper(method), path, op})
		}
	}
	return list
}

// Every route is documented, and everything documented is a route.
func TestOpenAPI(t *testing.T) {
	d := start(t, true)
	ops := documented(t, d)
	paths := map[string][]string{}
	ids := map[string]bool{}
	for _, o := range ops {
		paths[o.path] = append(paths[o.path], o.method)
		id, _ := o.op["operationId"].(string)
		if id == "" || ids[id] {
			t.Errorf("%s %s: operationId %q is missing or not unique", o.method, o.path, id)
		}
		ids[id] = true
		if s, _ := o.op["summary"].(string); s == "" {
			t.Errorf("%s: no summary", id)
		}
		responses, _ := o.op["responses"].(map[string]any)
		if len(responses) < 2 || responses["default"] == nil {
			t.Errorf("%s: responses %v", id, responses)
		}
		var declared []string
		params, _ := o.op["parameters"].([]any)
		for _, p := range params {
			p, _ := p.(map[string]any)
			if text, _ := json.Marshal(responses); p["name"] == "revert_after" && !strings.Contains(string(text), `"headers":{"Revert":{"description":`) {
				t.Errorf("%s: the answer does not tell of the header Revert: %s", id, text)
			}
			if p["in"] == "path" {
				declared = append(declared, "{"+p["name"].(string)+"}")
			}
			if p["schema"] == nil {
				t.Errorf("%s: parameter %v has no schema", id, p["name"])
			}
		}
		if in := regexp.MustCompile(`\{\w+\}`).FindAllString(o.path, -1); !slices.Equal(in, declared) {
			t.Errorf("%s: path has %q, declared are %q", id, in, declared)
		}
	}
	if len(ops) < 40 {
		t.Errorf("only %d operations", len(ops))
	}
	const at = "/v1/domains/{domain}/policies/"
	for _, name := range []string{"test", "preview", "migrate"} { // where {id} may be that
		paths[at+name] = append(paths[at+name], paths[at+"{id}"]...)
	}
	const rules = "/v1/domains/{domain}/mail-rules/"
	for _, name := range []string{"test", "preview"} {
		paths[rules+name] = append(paths[rules+name], paths[rules+"{id}"]...)
	}
	const factors = "/v1/accounts/{address}/second-factors/"
	for _, name := range []string{"totp", "passkeys", "recovery-codes", "mail", "sms", "challenge"} {
		paths[factors+name] = append(paths[factors+name], paths[factors+"{id}"]...)
	}
	for path, methods := range paths {
		concrete := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "x")
		a := d.anybody().do("OPTIONS", concrete, "").want(405, "method_not_allowed")
		if got := strings.Split(a.header.Get("Allow"), ", "); !slices.Equal(sorted(got), sorted(methods)) {
			t.Errorf("%s: the router knows %q, the document %q", path, got, methods)
		}
	}
	// Lists in requests are bounded.
	lists := 0
	for _, o := range ops {
		body, _ := json.Marshal(o.op["requestBody"])
		for _, m := range regexp.MustCompile(`#/components/schemas/(\w+)`).FindAllSubmatch(body, -1) {
			lists += bounded(t, d, string(m[1]), map[string]bool{})
		}
	}
	if lists == 0 {
		t.Error("no list was looked at")
	}
	// References lead somewhere, and what they lead to is a schema of JSON Schema's types.
	a := d.anybody().get("/openapi.json")
	var doc map[string]any
	if err := json.Unmarshal(a.body, &doc); err != nil {
		t.Fatal(err)
	}
	schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
	types := []string{"object", "array", "string", "integer", "number", "boolean"}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch x := v.(type) {
		case []any:
			for _, e := range x {
				walk(at, e)
			}
		case map[string]any:
			if ref, ok := x["$ref"].(string); ok && schemas[strings.TrimPrefix(ref, "#/components/schemas/")] == nil {
				t.Errorf("%s: %s leads nowhere", at, ref)
			}
			if kind, ok := x["type"].(string); ok && strings.Contains(at, "/schemas") && !slices.Contains(types, kind) {
				t.Errorf("%s: type %q", at, kind)
			}
			for k, e := range x {
				walk(at+"/"+k, e)
			}
		}
	}
	walk("", doc)
	if strings.Contains(string(a.body), "$schema") {
		t.Error("bodies are documented to hold $schema")
	}
	if d.anybody().get("/docs").status != 404 {
		t.Error("there is a page")
	}
}

// bounded complains of lists that a schema takes without a bound, and returns how many lists there
// are.
func bounded(t *testing.T, d *daemon, name string, seen map[string]bool) (lists int) {
	t.Helper()
	if seen[name] {
		return 0
	}
	seen[name] = true
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct {
					Type     string `json:"type"`
					ReadOnly bool   `json:"readOnly"`
					MaxItems int    `json:"maxItems"`
					Ref      string `json:"$ref"`
					Items    struct {
						Ref string `json:"$ref"`
					} `json:"items"`
				} `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(d.anybody().get("/openapi.json").body, &doc); err != nil {
		t.Fatal(err)
	}
	for field, p := range doc.Components.Schemas[name].Properties {
		if p.Type == "array" && !p.ReadOnly {
			if lists++; p.MaxItems == 0 {
				t.Errorf("%s.%s has no bound", name, field)
			}
		}
		for _, ref := range []string{p.Ref, p.Items.Ref} {
			if _, inner, ok := strings.Cut(ref, "#/components/schemas/"); ok && !p.ReadOnly {
				lists += bounded(t, d, inner, seen)
			}
		}
	}
	return lists
}

// What is too much is refused, and as one fault.
func TestListsAreBounded(t *testing.T) {
	d := start(t, true).site()
	many := strings.Repeat(`"x",`, 10_000) + `"x"`
	departments := strings.Repeat(`{"path":"x"},`, 10_000) + `{"path":"x"}`
	d.admin.put(dom+"/secure-password-policy", `{"enforced":true,"scope":{"members":[`+many+`],"departments":[`+departments+`],"except":{"members":[`+many+`]}}}`).
		faults("/scope/members too_many", "/scope/departments too_many", "/scope/except/members too_many", "/scope required")
	d.admin.put(dom+"/third-party-access", `{"allow":false,"secure_login_ips":[`+many+`]}`).faults("/secure_login_ips too_many")
	d.admin.post(dom+"/policies", `{"name":"p","type":"blacklist","scope":{"all":true},"ips":[`+many+`],"except_ips":[`+many+`]}`).
		faults("/ips too_many", "/except_ips too_many")
}

func TestHealthAndMetrics(t *testing.T) {
	d := start(t, true).site()
	c := d.anybody()
	c.get("/livez").want(200).has("status", `"ok"`)
	c.get("/readyz").want(200).has("status", `"ok"`)
	d.metrics.Decision(access.IMAP, &access.Decision{Outcome: access.Deny, Reason: access.ReasonPolicy})
	got := string(c.get("/metrics").want(200).body)
	for _, line := range []string{
		`drawbridge_decisions_total{outcome="deny",protocol="imap",reason="policy"} 1`,
		`drawbridge_api_requests_total{code="201",operation="create-domain"} 2`,
		`drawbridge_store_up 1`, `drawbridge_domains 2`, `drawbridge_accounts 3`, `drawbridge_build_info{version="1.2.3"} 1`,
		`drawbridge_store_synced_timestamp_seconds `,
	} {
		if !strings.Contains(got, line) {
			t.Errorf("no %s in\n%s", line, got)
		}
	}
	s := d.admin.get("/v1/store").want(200).has("loaded", `true`).has("trouble", `null`).has("foreign", `false`).
		has("domains", `2`).has("accounts", `3`).has("version", `"1.2.3"`)
	if s.text("store_id") == "" || s.text("synced_at") == "" || s.value("changes") == json.Number("0") {
		t.Errorf("%s", s.body)
	}
}

// While Redis is away what is known is answered, and changes are refused.
func TestStoreAway(t *testing.T) {
	d := start(t, true).site()
	key := d.key(`"role":"domain","domain":"example.org"`)
	d.redis.Kill()
	redistest.Eventually(t, "the loss is noticed", func() bool { return d.api.Store.Trouble() != nil })
	d.anybody().get("/readyz").want(200).has("status", `"degraded"`)
	d.anybody().get("/livez").want(200)
	key.get("/v1/accounts/ann@example.org").want(200)
	key.get("/v1/accounts/ann@example.org/effective").want(200)
	d.admin.get("/v1/store").want(200).has("loaded", `true`)
	for _, a := range []*answer{
		key.patch("/v1/accounts/ann@example.org", `{"suspended":true}`),
		d.admin.post("/v1/domains", `{"name":"new.example"}`),
		key.post("/v1/accounts/ann@example.org/secure-passwords", `{"label":"x"}`),
		d.csvImport("address\nnew@example.org\n"),
		key.get(dom + "/logins"),
		key.get("/v1/audit"),
		key.get("/v1/accounts/ann@example.org/secure-passwords"),
	} {
		if a.want(503, "store_unavailable"); a.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", a.what)
		}
	}
	d.admin.post("/v1/store/adopt", "").want(409, "nothing_to_adopt")
	d.redis.Restart()
	redistest.Eventually(t, "the store is back", func() bool { return d.api.Store.Trouble() == nil })
	key.get("/v1/accounts/ann@example.org").want(200).has("suspended", `false`)
	key.patch("/v1/accounts/ann@example.org", `{"suspended":true}`).want(200)
	d.anybody().get("/readyz").want(200).has("status", `"ok"`)
}

func (d *daemon) csvImport(file string) *answer { return d.csv(dom+"/accounts/import", file) }

// While Redis answers and takes nothing, everybody who asks is told.
func TestStoreRefuses(t *testing.T) {
	d := start(t, true).site()
	up := func() bool {
		return strings.Contains(string(d.anybody().get("/metrics").body), "\ndrawbridge_store_up 1\n")
	}
	d.tell("CONFIG SET maxmemory 1")
	d.admin.patch(dom, `{"trace_header":true}`).want(503, "store_unavailable")
	d.anybody().get("/readyz").want(200).has("status", `"degraded"`)
	if got := d.admin.get("/v1/store").want(200).has("foreign", `false`).text("trouble"); !strings.Contains(got, "OOM") {
		t.Errorf("trouble %q", got)
	}
	if up() {
		t.Error("drawbridge_store_up is 1")
	}
	d.tell("CONFIG SET maxmemory 0")
	d.admin.patch(dom, `{"trace_header":true}`).want(200)
	d.anybody().get("/readyz").want(200).has("status", `"ok"`)
	d.admin.get("/v1/store").want(200).has("trouble", `null`)
	if !up() {
		t.Error("drawbridge_store_up is not 1")
	}
}

// empty empties Redis behind the daemon's back.
func (d *daemon) empty() { d.tell("FLUSHALL") }

// tell has Redis do something that it answers with OK.
func (d *daemon) tell(command string) {
	d.t.Helper()
	conn, err := net.Dial("unix", d.redis.Socket)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
		d.t.Fatal(err)
	}
	if answer, err := bufio.NewReader(conn).ReadString('\n'); err != nil || answer != "+OK\r\n" {
		d.t.Fatalf("%s: %q, %v", command, answer, err)
	}
}

func TestAdopt(t *testing.T) {
	d := start(t, true).site()
	key := d.key(`"role":"admin"`)
	before := d.admin.get("/v1/store").text("store_id")
	d.empty()
	redistest.Eventually(t, "the emptied store is noticed", func() bool { return d.api.Store.Trouble() != nil })
	d.admin.patch(dom, `{"trace_header":true}`).want(503, "store_unavailable")
	key.get(dom).want(200) // what was known goes on
	d.admin.get("/v1/store").want(200).has("foreign", `true`)
	d.admin.post("/v1/store/adopt?dry_run=true", "").want(200).has("foreign", `true`)
	after := d.admin.post("/v1/store/adopt", "").want(200).text("store_id")
	if after == before || after == "" {
		t.Errorf("adopted %q, was %q", after, before)
	}
	redistest.Eventually(t, "the adopted store is loaded", func() bool { return d.api.Store.Trouble() == nil })
	d.admin.get(dom).want(404)
	key.get(dom).want(401)
	d.admin.post("/v1/domains", `{"name":"example.org"}`).want(201)
}

// A daemon that has loaded nothing cannot tell whose key it is.
func TestNothingLoaded(t *testing.T) {
	r := redistest.Start(t)
	r.Kill()
	d := run(t, r, true)
	key := d.anybody()
	key.key = "dbk_" + strings.Repeat("a", 32)
	if a := key.get(dom).want(503, "store_unavailable"); a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	d.admin.get(dom).want(503, "store_unavailable")
	d.admin.get("/v1/store").want(200).has("loaded", `false`)
	d.anybody().get("/livez").want(200)
	if a := d.anybody().get("/readyz"); a.status != 503 || a.text("status") != "unavailable" {
		t.Errorf("readyz: %d %s", a.status, a.body)
	}
	r.Restart()
	redistest.Eventually(t, "the store is loaded", func() bool { ok, _ := d.api.Store.State.Ready(); return ok })
	key.get(dom).want(401)
	d.admin.get(dom).want(404)
	d.anybody().get("/readyz").want(200)
}

// A dry run answers like the real thing, and changes nothing.
func TestDryRunsChangeNothing(t *testing.T) {
	d := start(t, false).site()
	ann := "/v1/accounts/ann@example.org"
	id := d.admin.post(ann+"/secure-passwords", `{"label":"x"}`).want(201).text("id")
	d.admin.put("/v1/client-types/web", `{"evidence":[{"networks":["127.0.0.1"]}]}`).want(201)
	keyID := d.key(`"role":"read"`).id
	before := d.api.Store.State.Heads()
	for _, c := range []struct{ method, path, body, field, want string }{
		{"POST", "/v1/domains", `{"name":"new.example"}`, "name", `"new.example"`},
		{"PATCH", dom, `{"alias_domains":["more.example"]}`, "alias_domains", `["more.example"]`},
		{"DELETE", dom, "", "name", `"example.org"`},
		{"PUT", dom + "/third-party-access", `{"allow":true}`, "allow", `true`},
		{"PUT", dom + "/secure-password-policy", `{"enforced":true}`, "enforced", `true`},
		{"POST", dom + "/policies/migrate", `{"third_party_allowed":true,"native_clients":[{"client":"web","allowed":false}]}`, "created", `1`},
		{"PUT", dom + "/departments/a/b", `{}`, "path", `"a/b"`},
		{"PATCH", dom + "/departments/sales", `{"path":"trade"}`, "path", `"trade"`},
		{"DELETE", dom + "/departments/board", "", "path", `"board"`},
		{"POST", dom + "/accounts/batch", `{"select":{"all":true},"set":{"suspended":true}}`, "changed", `2`},
		{"PUT", "/v1/accounts/new@example.org", `{}`, "address", `"new@example.org"`},
		{"PATCH", ann, `{"suspended":true}`, "suspended", `true`},
		{"DELETE", ann, "", "address", `"ann@example.org"`},
		{"PUT", ann + "/mailbox-password", `{"password":"correct horse"}`, "scheme", `"ARGON2ID"`},
		{"POST", ann + "/secure-passwords", `{"label":"y"}`, "secret", `null`},
		{"PATCH", ann + "/secure-passwords/" + id, `{"label":"y"}`, "label", `"y"`},
		{"DELETE", ann + "/secure-passwords/" + id, "", "label", `"x"`},
		{"PUT", "/v1/client-types/console", `{"evidence":[{"client_cert":"x"}]}`, "type", `"console"`},
		{"DELETE", "/v1/client-types/web", "", "type", `"web"`},
		{"POST", "/v1/keys", `{"name":"k","role":"read"}`, "key", `null`},
		{"DELETE", "/v1/keys/" + keyID, "", "name", `"test"`},
	} {
		a := d.admin.do(c.method, c.path+"?dry_run=true", c.body).want(200).has(c.field, c.want)
		if a.header.Get("Dry-Run") != "true" || a.header.Get("ETag") != "" || a.header.Get("Location") != "" {
			t.Errorf("%s: headers %v", a.what, a.header)
		}
	}
	d.admin.del(dom+"/departments/sales?dry_run=true").want(409, "in_use")
	d.admin.put("/v1/accounts/x@example.org?dry_run=true", `{"suspended":1}`).faults("/suspended wrong_type")
	if d.api.Store.State.Heads() != before {
		t.Error("a dry run changed the store")
	}
}
