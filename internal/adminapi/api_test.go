package adminapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/factors"
	"github.com/drawbridge/drawbridge/internal/admin/mail"
	"github.com/drawbridge/drawbridge/internal/adminapi"
	"github.com/drawbridge/drawbridge/internal/admintest"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/listen"
	"github.com/drawbridge/drawbridge/internal/loginapi"
	"github.com/drawbridge/drawbridge/internal/metrics"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/secondfactor"
	"github.com/drawbridge/drawbridge/internal/store"
)

// daemon is the API over a real store, on TCP and on a unix socket.
type daemon struct {
	t       *testing.T
	api     *adminapi.API
	redis   *redistest.Server
	journal gate.Journal // the same Redis, as a gate writes to it
	metrics *metrics.Metrics
	log     *redistest.Lines
	// stranger gives the peer on the unix socket another user id.
	stranger atomic.Bool
	tcp      *httptest.Server
	unix     *httptest.Server
	// admin is an administrator without a key, on the unix socket.
	admin *client
}

// start starts a daemon that ends with the test. With next, mailbox passwords belong to the next
// passdb.
func start(t *testing.T, next bool, set ...func(*adminapi.API)) *daemon {
	t.Helper()
	return join(t, redistest.Start(t), next, set...)
}

// join starts a daemon on a store that other daemons may share.
func join(t *testing.T, r *redistest.Server, next bool, set ...func(*adminapi.API)) *daemon {
	t.Helper()
	d := run(t, r, next, set...)
	redistest.Ready(t, d.api.Store)
	return d
}

// run starts a daemon without waiting for its store.
func run(t *testing.T, r *redistest.Server, next bool, set ...func(*adminapi.API)) *daemon {
	t.Helper()
	d := &daemon{t: t, redis: r, log: &redistest.Lines{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the daemon:\n%s", d.log)
		}
	})
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: d.log})
	a, red := admintest.Join(t, r, log)
	a.Site.NextPassdb, a.Version = next, "1.2.3"
	st := a.Store
	d.journal, d.metrics = red, metrics.New()
	if err := d.metrics.Watch("1.2.3", st, admin.Trouble, nil); err != nil {
		t.Fatal(err)
	}
	d.api = &adminapi.API{
		Admin:     a,
		Factors:   factors.Site{Verifier: &secondfactor.Verifier{Store: st, Memory: red, Pepper: a.Pepper}},
		Metrics:   d.metrics,
		Available: func() bool { loaded, _ := st.State.Ready(); return loaded }, MilterNeeded: func() bool { return true },
		Distributed: func() int { return 0 },
		Login: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"outcome":"deny"}`)
		}),
		PeerUID: func(c net.Conn) (uint32, bool) {
			peer, err := listen.PeerCred(c)
			if d.stranger.Load() {
				peer.UID += 4711
			}
			return peer.UID, err == nil
		},
	}
	for _, f := range set {
		f(d.api)
	}
	g := gate.New(gate.Options{
		Store: st, Journal: red, Pepper: a.Pepper, Hasher: a.Hasher, Log: log, Site: d.api.Site, Region: d.api.Regions.Lookup,
	})
	d.api.Explain, d.api.ReadMessages = g.Explain, red.Messages
	d.api.TestPolicy = func(d *admin.Domain, id string, in *api.PolicyTest, f *api.Faults) (*api.PolicyTested, error) {
		return d.TestPolicy(id, in, loginapi.Hypothetical(in.Login, f), f)
	}
	d.api.Throttled, d.api.Lift = func(time.Time) api.Throttle { return api.Throttle{} }, g.Lift
	d.api.ExportLogins = func(context.Context, store.RecordQuery, string, func(string, int64), func([]byte) error) error {
		return nil
	}
	d.api.Withdraw = func(context.Context, *admin.Domain, *api.Withdrawal, *api.Faults) (*api.Withdrawn, error) {
		return &api.Withdrawn{}, nil
	}
	d.api.Learn = func(context.Context, *store.LoginRecord) error { return nil }
	d.api.VerifyAudit, d.api.AuditEntries, d.api.AuditEntry = red.VerifyAudit, red.AuditEntries, red.AuditEntry
	d.api.Mail = mail.Site{Explain: g.ExplainMail, PreviewLimit: g.PreviewLimit}
	handler, err := d.api.Handler()
	if err != nil {
		t.Fatal(err)
	}
	d.tcp = httptest.NewUnstartedServer(handler)
	d.tcp.Config.ConnContext = d.api.ConnContext
	d.tcp.Start()
	t.Cleanup(d.tcp.Close)
	d.unix, d.admin = d.socket(handler, 0)
	return d
}

// socket serves on a unix socket, where the client is an administrator. The limit is the server's
// for each request, 0 for none.
func (d *daemon) socket(handler http.Handler, limit time.Duration) (*httptest.Server, *client) {
	d.t.Helper()
	path := filepath.Join(d.t.TempDir(), "api")
	l, err := net.Listen("unix", path)
	if err != nil {
		d.t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{
		Handler: handler, ConnContext: d.api.ConnContext, ReadTimeout: limit, WriteTimeout: limit,
	}}
	server.Start()
	d.t.Cleanup(server.Close)
	c := &client{t: d.t, base: "http://drawbridge", http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}}
	d.t.Cleanup(c.http.CloseIdleConnections)
	return server, c
}

// limited is a client of the same daemon behind a server with a limit. The journal is the daemon's
// own when it is nil.
func (d *daemon) limited(limit time.Duration, journal admin.Journal) *client {
	d.t.Helper()
	api := *d.api
	if journal != nil {
		a := d.api.Admin
		api.Admin = &admin.Admin{
			Store: a.Store, Journal: journal, Forget: a.Forget, Pepper: a.Pepper, Hasher: a.Hasher, Log: a.Log,
			Site: a.Site, Version: a.Version, Explain: a.Explain, ReadMessages: a.ReadMessages, Guard: a.Guard, Regions: a.Regions,
		}
	}
	h, err := api.Handler()
	if err != nil {
		d.t.Fatal(err)
	}
	_, c := d.socket(h, limit)
	return c
}

// anybody is a client on TCP without a key.
func (d *daemon) anybody() *client {
	return &client{t: d.t, base: d.tcp.URL, http: d.tcp.Client()}
}

// key is a client on TCP with a key of its own; fields are those of the key beside its name.
func (d *daemon) key(fields string) *client {
	d.t.Helper()
	k := d.admin.post("/v1/keys", `{"name":"test",`+fields+`}`).want(201)
	c := d.anybody()
	c.key, c.id = k.text("key"), k.text("id")
	return c
}

type client struct {
	t    *testing.T
	base string
	http *http.Client
	key  string
	id   string // of the key
}

type answer struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	body   []byte
}

// do sends a request. headers are names and values in turn; a body gets the Content-Type that suits
// the method unless they name one.
func (c *client) do(method, path, body string, headers ...string) *answer {
	c.t.Helper()
	r, err := http.NewRequest(method, c.base+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		r.Header.Set("Authorization", "Bearer "+c.key)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return &answer{c.t, method + " " + path, resp.StatusCode, resp.Header, text}
}

func (c *client) get(path string, headers ...string) *answer {
	c.t.Helper()
	return c.do("GET", path, "", headers...)
}

func (c *client) post(path, body string, headers ...string) *answer {
	c.t.Helper()
	return c.do("POST", path, body, headers...)
}

func (c *client) put(path, body string, headers ...string) *answer {
	c.t.Helper()
	return c.do("PUT", path, body, headers...)
}

func (c *client) patch(path, body string, headers ...string) *answer {
	c.t.Helper()
	return c.do("PATCH", path, body, headers...)
}

func (c *client) del(path string, headers ...string) *answer {
	c.t.Helper()
	return c.do("DELETE", path, "", headers...)
}

// want compares the answer's status, and the code of a refusal.
func (a *answer) want(status int, code ...string) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: status %d, want %d: %s", a.what, a.status, status, a.body)
	}
	if status < 400 {
		return a
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		a.t.Fatalf("%s: a refusal of type %q: %s", a.what, got, a.body)
	}
	if a.text("type") != "about:blank" || a.text("title") == "" || a.value("status") != json.Number(strconv.Itoa(status)) {
		a.t.Fatalf("%s: not a problem document of RFC 9457: %s", a.what, a.body)
	}
	if len(code) > 0 && a.text("code") != code[0] {
		a.t.Fatalf("%s: code %q, want %q: %s", a.what, a.text("code"), code[0], a.body)
	}
	return a
}

// value returns the value at a path such as "items.0.label"; nil for none.
func (a *answer) value(path string) any {
	a.t.Helper()
	dec := json.NewDecoder(bytes.NewReader(a.body))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		a.t.Fatalf("%s: %v: %s", a.what, err, a.body)
	}
	for part := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

func (a *answer) text(path string) string {
	a.t.Helper()
	s, _ := a.value(path).(string)
	return s
}

// has compares a part of the answer, as JSON.
func (a *answer) has(path, want string) *answer {
	a.t.Helper()
	got, err := json.Marshal(a.value(path))
	if err != nil {
		a.t.Fatal(err)
	}
	if string(got) != want {
		a.t.Fatalf("%s: %s is %s, want %s: %s", a.what, path, got, want, a.body)
	}
	return a
}

// each returns a field of all items of a list.
func (a *answer) each(list, field string) []string {
	a.t.Helper()
	items, _ := a.value(list).([]any)
	got := make([]string, len(items))
	for i := range items {
		got[i] = fmt.Sprint(a.value(fmt.Sprintf("%s.%d.%s", list, i, field)))
	}
	return got
}

// faults compares all faults, as "pointer code".
func (a *answer) faults(want ...string) *answer {
	a.t.Helper()
	a.want(422, "invalid")
	items, _ := a.value("errors").([]any)
	var got []string
	for i := range items {
		at := fmt.Sprintf("errors.%d.", i)
		where := a.text(at + "pointer")
		if p := a.text(at + "parameter"); p != "" {
			where = "?" + p
		}
		if line := a.value(at + "line"); line != nil {
			where = fmt.Sprint(line) + where
		}
		got = append(got, where+" "+a.text(at+"code"))
		if a.text(at+"detail") == "" {
			a.t.Errorf("%s: fault %s says nothing", a.what, where)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		a.t.Fatalf("%s: faults\n%s\nwant\n%s\n%s", a.what, strings.Join(got, "\n"), strings.Join(want, "\n"), a.body)
	}
	return a
}

const dom = "/v1/domains/example.org"

// site makes example.org, with departments and two accounts, and example.net.
func (d *daemon) site() *daemon {
	d.t.Helper()
	d.admin.post("/v1/domains", `{"name":"example.org","alias_domains":["alias.example"]}`).want(201)
	d.admin.post("/v1/domains", `{"name":"example.net"}`).want(201)
	d.admin.put(dom+"/departments/sales/emea", `{"name":"Sales EMEA"}`).want(201)
	d.admin.put(dom+"/departments/board", `{}`).want(201)
	d.admin.put("/v1/accounts/ann@example.org", `{"departments":["sales/emea"]}`).want(201)
	d.admin.put("/v1/accounts/bob@example.org", `{"departments":["sales"]}`).want(201)
	d.admin.put("/v1/accounts/carl@example.net", `{}`).want(201)
	return d
}

// login is the record of an accepted login by IMAP with a third-party client.
func login(at time.Time, account, ip string, more ...func(*store.LoginRecord)) store.LoginRecord {
	r := store.LoginRecord{
		ID: fmt.Sprintf("%012x%s", at.UnixMilli(), store.NewID()), Time: at.UTC(), Domain: "example.org", Account: account, IP: ip,
		Protocol: "imap", Client: access.ClientThirdParty, Outcome: access.Allow, Reason: access.ReasonOK,
	}
	for _, set := range more {
		set(&r)
	}
	return r
}

// on records logins.
func (d *daemon) on(records ...store.LoginRecord) {
	d.t.Helper()
	if err := d.journal.AppendRecords(context.Background(), store.BatchID{}, &store.Batch{Records: records}); err != nil {
		d.t.Fatal(err)
	}
}

func TestCreateDomain(t *testing.T) {
	d := start(t, true)
	made := d.admin.post("/v1/domains", `{"name":"Example.ORG.","alias_domains":["Alias.example"],"protocols":{"pop3":false}}`).want(201)
	made.has("name", `"example.org"`).has("alias_domains", `["alias.example"]`).has("protocols", `{"imap":true,"pop3":false,"sieve":true,"smtp":true}`).
		has("max_secure_passwords", `10`).has("sender_check", `"both"`).has("trace_header", `false`)
	if made.header.Get("Location") != dom {
		t.Errorf("Location %q", made.header.Get("Location"))
	}
	read := d.admin.get(dom).want(200)
	if !bytes.Equal(read.body, made.body) || read.header.Get("ETag") != made.header.Get("ETag") || made.header.Get("ETag") == "" {
		t.Errorf("GET answers %s with ETag %s, POST answered %s with %s", read.body, read.header.Get("ETag"), made.body, made.header.Get("ETag"))
	}
	created, err := time.Parse(time.RFC3339, read.text("created_at"))
	if err != nil || !strings.HasSuffix(read.text("created_at"), "Z") || time.Since(created).Abs() > time.Minute {
		t.Errorf("created_at %q is not now in UTC", read.text("created_at"))
	}
	// A new domain blocks third-party clients (F1).
	d.admin.get(dom+"/third-party-access").want(200).has("allow", `false`).has("mode", `"enforce"`).has("secure_login_ips", `[]`)
	p, ok := d.api.Store.State.Policy("example.org", store.ManagedThirdParty)
	if !ok || p.Doc.Name != store.ManagedThirdPartyName || !p.Doc.Enabled || p.Doc.Type != access.Blacklist || !p.Doc.Scope.All ||
		p.Doc.Managed != store.ManagedThirdParty || !slices.Equal(p.Doc.Clients, []access.ClientType{access.ClientThirdParty, access.ClientCloudFetcher}) {
		t.Errorf("the managed policy: %+v", p.Doc)
	}

	// Its creator can allow them.
	d.admin.post("/v1/domains", `{"name":"open.example","third_party_access":{"allow":true,"mode":"report","secure_login_ips":["192.0.2.1-192.0.2.9"]}}`).want(201)
	d.admin.get("/v1/domains/open.example/third-party-access").want(200).
		has("allow", `true`).has("mode", `"report"`).has("secure_login_ips", `["192.0.2.1-192.0.2.9"]`)

	d.admin.post("/v1/domains", `{"name":"example.org"}`).want(409, "exists")
	d.admin.post("/v1/domains", `{"name":"alias.example"}`).want(409, "exists")
	d.admin.post("/v1/domains", `{"name":"other.example","alias_domains":["example.org"]}`).want(409, "exists")
	d.admin.post("/v1/domains", `{"name":"other.example","alias_domains":["alias.example"]}`).want(409, "exists")
	d.admin.get("/v1/domains/other.example").want(404, "not_found")
	d.admin.get("/v1/domains/alias.example").want(404, "not_found")
}

func TestAllFaultsAtOnce(t *testing.T) {
	d := start(t, true).site()
	d.admin.post("/v1/domains", `{"name":"bad_-.","alias_domains":["x..y",7,"ok.example","ok.example"],"protocols":{"imaps":true,"pop3":"no"},
		"max_secure_passwords":0,"sender_check":"maybe","trace_headers":true,"third_party_access":{"mode":"soft","secure_login_ips":["192.0.2.0/33","192.0.2.1","::1-192.0.2.1"]}}`).faults(
		"/name invalid_domain", "/alias_domains/0 invalid_domain", "/alias_domains/1 wrong_type", "/alias_domains/3 duplicate",
		"/protocols/imaps unknown_field", "/protocols/pop3 wrong_type", "/max_secure_passwords out_of_range", "/sender_check not_in_list",
		"/trace_headers unknown_field", "/third_party_access/allow required", "/third_party_access/mode not_in_list",
		"/third_party_access/secure_login_ips/0 invalid_network", "/third_party_access/secure_login_ips/2 invalid_network")
	a := d.admin.patch(dom, `{"trace_headers":true}`).faults("/trace_headers unknown_field")
	if !strings.Contains(a.text("errors.0.detail"), "trace_header?") {
		t.Errorf("no suggestion: %s", a.body)
	}
	d.admin.put("/v1/accounts/ann@example.org", `{"address":"bob@example.org","departments":["sales","nowhere","sales"],"suspended":"yes",
		"aliases":["no at","ann@alias.example","x@elsewhere.example","x@example.org","x@example.org"],"preset":"imap-smtp","protocols":{"smtp":false},"secure_passwords":"on"}`).faults(
		"/address conflict", "/departments/1 unknown_department", "/departments/2 duplicate", "/suspended wrong_type",
		"/aliases/0 invalid_address", "/aliases/1 conflict", "/aliases/2 unmanaged_domain", "/aliases/4 duplicate", "/preset conflict", "/secure_passwords not_in_list")
	d.admin.put(dom+"/secure-password-policy", `{"enforced":true,"scope":{"departments":[{"path":"nowhere","sub":1},{"sub":true}],"members":["x","y@example.net"],"except":{"members":["@"]}}}`).faults(
		"/scope/departments/0/path unknown_department", "/scope/departments/0/sub wrong_type", "/scope/departments/1/path required",
		"/scope/members/1 outside_domain", "/scope/except/members/0 invalid_address")
	d.admin.put(dom+"/secure-password-policy", `{"enforced":true,"scope":{"except":{"members":["ann@example.org"]}}}`).faults("/scope required")
	d.admin.put(dom+"/secure-password-policy", `{"scope":{"all":true}}`).faults("/enforced required")
	d.admin.put("/v1/client-types/web", `{"evidence":[{"networks":["x"],"server_names":["a b"],"local_ports":[0,143],"services":[""]},{},{"server_names":["mail.example.org"]}]}`).faults(
		"/evidence/0/networks/0 invalid_network", "/evidence/0/server_names/0 invalid_domain", "/evidence/0/local_ports/0 out_of_range",
		"/evidence/0/services/0 unprintable", "/evidence/1 required", "/evidence/2 proves_nothing")
	d.admin.post("/v1/keys", `{"name":" x","role":"self","domain":"example.org","expires_at":"2001-01-01T00:00:00Z"}`).faults(
		"/name unprintable", "/domain conflict", "/account required", "/expires_at in_the_past")
	d.admin.post("/v1/accounts/ann@example.org/secure-passwords", `{"secret":"k7fm2xq9hbtz4w3e","name":"phone"}`).faults(
		"/secret unknown_field", "/name unknown_field", "/label required")
	d.admin.get(dom+"/logins?limit=0&outcome=perhaps&ip=x&since=today&dryrun=true&until=2026-01-01T00:00:00Z&account=x@example.net&reason=ok&reason=policy").faults(
		"?limit out_of_range", "?outcome not_in_list", "?ip invalid_network", "?since invalid_time", "?dryrun unknown_parameter", "?reason duplicate")
	d.admin.get(dom+"/logins?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z&account=x@example.net&client=webb").faults("?until conflict", "?account outside_domain", "?client unknown_client_type")
	d.admin.get(dom + "/logins?reason=bad_pasword").faults("?reason not_in_list")
	d.admin.put("/v1/accounts/ann%20b@example.org", `{}`).faults("?address invalid_address")
}

// An operation without fields takes an empty object, which some clients always send, and nothing else.
func TestEmptyBody(t *testing.T) {
	d := start(t, true).site()
	const codes = "/v1/accounts/ann@example.org/second-factors/recovery-codes"
	for _, body := range []string{``, ` `, `{}`, " {\n} "} {
		d.admin.post(codes, body).want(409, "no_second_factor")
	}
	d.admin.post(codes, `{"count":3}`).faults("/count unknown_field")
	for _, body := range []string{`null`, `[]`, `""`, `{`, `x`, `{}{}`} {
		d.admin.post(codes, body).want(400, "malformed").says("this request takes no body")
	}
	d.admin.post(codes, strings.Repeat(" ", 1<<20+1)).want(413, "too_large")
	d.admin.patch(dom, `{"protocols":{"imap":true,"pop3":true,"imap":false}}`).want(400, "malformed").says(`an object in the body has the member "imap" twice`)
}

// Refusals never repeat a value: it may be a secret in the wrong field.
func TestRefusalsRepeatNoValue(t *testing.T) {
	d := start(t, false).site()
	const secret = "hunter2hunter2"
	for _, a := range []*answer{
		d.admin.put("/v1/accounts/ann@example.org", `{"suspended":"`+secret+`","departments":["`+secret+`"],"preset":"`+secret+`","aliases":["`+secret+`@`+secret+`.example"]}`),
		d.admin.put("/v1/accounts/ann@example.org/mailbox-password", `{"hash":"`+secret+`"}`),
		d.admin.put("/v1/accounts/ann@example.org/mailbox-password", `{"hash":"{`+secret+`}x"}`),
		d.admin.put("/v1/accounts/ann@example.org/mailbox-password", `{"password":"`+secret+`\u0007"}`),
		d.admin.put("/v1/accounts/ann@example.org/mailbox-password", `{"password":"`+secret+`"`),
		d.admin.put("/v1/accounts/ann@example.org/mailbox-password", `{"password":`+secret+`}`),
		d.admin.get("/v1/domains", "Authorization", "Bearer "+secret),
		d.admin.get("/v1/audit?cursor=" + secret),
		d.admin.post("/v1/domains", `{"name":"`+secret+`!"}`),
	} {
		if a.status < 400 || strings.Contains(string(a.body), secret) {
			t.Errorf("%s: %d %s", a.what, a.status, a.body)
		}
	}
	if strings.Contains(d.log.String(), secret) {
		t.Errorf("the log holds it: %s", d.log)
	}
}

func TestBodies(t *testing.T) {
	d := start(t, true).site()
	long := `{"name":"` + strings.Repeat("x", 1<<20) + `"}`
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		code                     string
	}{
		{"empty", "PUT", "/v1/accounts/x@example.org", " ", nil, 400, "malformed"},
		{"cut off", "PUT", "/v1/accounts/x@example.org", `{"suspended":`, nil, 400, "malformed"},
		{"two values", "PUT", "/v1/accounts/x@example.org", `{} {}`, nil, 400, "malformed"},
		{"garbage behind", "PUT", "/v1/accounts/x@example.org", `{}x`, nil, 400, "malformed"},
		{"duplicate member", "PUT", "/v1/accounts/x@example.org", `{"suspended":true,"suspended":false}`, nil, 400, "malformed"},
		{"duplicate member, escaped", "PUT", "/v1/accounts/x@example.org", `{"suspended":true,"suspende\u0064":false}`, nil, 400, "malformed"},
		{"duplicate member, nested", "PUT", "/v1/accounts/x@example.org", `{"protocols":{"imap":true,"imap":false}}`, nil, 400, "malformed"},
		{"not UTF-8", "PUT", "/v1/accounts/x@example.org", "{\"address\":\"\xff\"}", nil, 400, "malformed"},
		{"too deep", "PUT", "/v1/accounts/x@example.org", deep, nil, 400, "malformed"},
		{"too long", "PUT", "/v1/accounts/x@example.org", long, nil, 413, "too_large"},
		{"an array", "PUT", "/v1/accounts/x@example.org", `[]`, nil, 422, "invalid"},
		{"a string", "PATCH", "/v1/accounts/x@example.org", `"x"`, nil, 422, "invalid"},
		{"null, which is no empty object", "PATCH", "/v1/accounts/x@example.org", ` null `, nil, 422, "invalid"},
		{"null for a whole record", "PUT", "/v1/accounts/x@example.org", `null`, nil, 422, "invalid"},
		{"null for a key", "POST", "/v1/keys", `null`, nil, 422, "invalid"},
		{"no type", "PUT", "/v1/accounts/x@example.org", `{}`, []string{"Content-Type", ""}, 415, "unsupported_media_type"},
		{"a form", "PUT", "/v1/accounts/x@example.org", `{}`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"},
		{"another charset", "PUT", "/v1/accounts/x@example.org", `{}`, []string{"Content-Type", "application/json; charset=latin1"}, 415, "unsupported_media_type"},
		{"a merge patch by PUT", "PUT", "/v1/accounts/x@example.org", `{}`, []string{"Content-Type", "application/merge-patch+json"}, 415, "unsupported_media_type"},
		{"a body where none belongs", "DELETE", "/v1/accounts/ann@example.org", `{}`, nil, 400, "malformed"},
		{"JSON to the import", "POST", dom + "/accounts/import", `{}`, nil, 415, "unsupported_media_type"},
		{"a query that is none", "GET", "/v1/domains?a=%zz", "", nil, 400, "malformed"},
		{"a made-up cursor", "GET", "/v1/domains?cursor=*", "", nil, 400, "bad_cursor"},
		{"a made-up cursor of records", "GET", dom + "/logins?cursor=x", "", nil, 400, "bad_cursor"},
		{"a misspelt dry run", "DELETE", "/v1/accounts/ann@example.org?dryrun=true", "", nil, 422, "invalid"},
		{"a dry run of a login, which is none", "POST", "/v1/login?dry_run=true", `{}`, nil, 422, "invalid"},
		{"half a flag", "DELETE", "/v1/accounts/ann@example.org?dry_run=1", "", nil, 422, "invalid"},
		{"a key in the URL", "GET", "/v1/domains?key=dbk_x", "", nil, 422, "invalid"},
		{"nothing there", "GET", "/v1/nothing", "", nil, 404, "not_found"},
		{"nor there", "GET", "/", "", nil, 404, "not_found"},
		{"a slash too many", "GET", "/v1/domains/", "", nil, 404, "not_found"},
		{"two slashes", "GET", "/v1//domains", "", nil, 404, "not_found"},
		{"a way around", "GET", "/v1/x/../domains", "", nil, 404, "not_found"},
		{"another method", "PUT", "/v1/domains", `{}`, nil, 405, "method_not_allowed"},
		{"a method of its own", "BREW", "/v1/domains", "", nil, 405, "method_not_allowed"},
		{"PUT of all departments", "PUT", dom + "/departments", `{}`, nil, 405, "method_not_allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := *d.admin
			a.t = t
			got := a.do(c.method, c.path, c.body, c.headers...).want(c.status, c.code)
			if c.status == 405 && got.header.Get("Allow") == "" {
				t.Error("no Allow")
			}
		})
	}
	if a := d.admin.do("PUT", "/v1/domains", `{}`); a.header.Get("Allow") != "GET, POST" {
		t.Errorf("Allow: %s", a.header.Get("Allow"))
	}
	if _, ok := d.api.Store.State.Account("x@example.org"); ok {
		t.Error("one of them was taken")
	}
	// A body without Content-Length is limited too.
	r, err := http.NewRequest(http.MethodPut, d.tcp.URL+"/v1/accounts/x@example.org", io.MultiReader(strings.NewReader(long)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+d.key(`"role":"domain","domain":"example.org"`).key)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a long body in pieces: %s", resp.Status)
	}
}

func TestPatchDomain(t *testing.T) {
	d := start(t, true).site()
	first := d.admin.get(dom)
	a := d.admin.patch(dom, `{"protocols":{"imap":false,"smtp":true},"max_secure_passwords":3,"sender_check":"envelope","trace_header":true}`,
		"Content-Type", "application/merge-patch+json").want(200)
	a.has("protocols", `{"imap":false,"pop3":true,"sieve":true,"smtp":true}`).has("max_secure_passwords", `3`).has("alias_domains", `["alias.example"]`).has("sender_check", `"envelope"`).has("trace_header", `true`)
	if a.header.Get("ETag") == first.header.Get("ETag") {
		t.Error("a change with the ETag of before")
	}
	// null means inherit; arrays are replaced.
	d.admin.patch(dom, `{"protocols":{"imap":null},"max_secure_passwords":null,"sender_check":null,"alias_domains":["new.example"]}`).want(200).
		has("protocols", `{"imap":true,"pop3":true,"sieve":true,"smtp":true}`).has("max_secure_passwords", `10`).has("sender_check", `"both"`).has("alias_domains", `["new.example"]`)
	d.admin.patch(dom, `{"protocols":null}`).want(200).has("protocols", `{"imap":true,"pop3":true,"sieve":true,"smtp":true}`)
	if st := d.api.Store.State; st.Canonical("ann@new.example") != "ann@example.org" || st.Canonical("ann@alias.example") != "ann@alias.example" {
		t.Error("alias domains do not resolve as they were set")
	}
	// The released name is free, the new one is not.
	d.admin.post("/v1/domains", `{"name":"new.example"}`).want(409, "exists")
	d.admin.post("/v1/domains", `{"name":"alias.example"}`).want(201)
	d.admin.patch(dom, `{"alias_domains":["alias.example"]}`).want(409, "exists")
	d.admin.patch(dom, `{"name":"renamed.example"}`).faults("/name conflict")
	// Sending back what was read changes nothing, and keeps the ETag.
	same := d.admin.get(dom)
	again := d.admin.patch(dom, string(same.body), "If-Match", same.header.Get("ETag")).want(200)
	if again.header.Get("ETag") != same.header.Get("ETag") || !bytes.Equal(again.body, same.body) {
		t.Errorf("sending back what was read: %s %s, then %s %s", same.header.Get("ETag"), same.body, again.header.Get("ETag"), again.body)
	}
}

func TestDeleteDomain(t *testing.T) {
	d := start(t, true).site()
	self := d.key(`"role":"self","account":"ann@example.org"`)
	own := d.key(`"role":"domain","domain":"example.org"`)
	d.admin.patch("/v1/accounts/carl@example.net", `{"aliases":["boss@example.org","x@example.net"]}`).want(200)
	d.admin.put(dom+"/mail-rules/inside", `{"kind":"internal_only","name":"Inside","scope":{"all":true}}`).want(201)
	d.admin.put("/v1/groups/all@example.org", `{"members":["ann"]}`).want(201)
	d.suspend("example.org")
	held := d.held("example.org")
	if refused := d.admin.del(dom).want(409, "confirm_required"); !strings.Contains(string(refused.body), "1 mail rule, 1 group, 1 held message") {
		t.Errorf("the refusal does not name the rules and messages of mail: %s", refused.body)
	}
	d.admin.del(dom+"?confirm=true", "If-Match", `"0"`).want(412, "precondition_failed")
	self.get("/v1/accounts/ann@example.org/effective").want(200)
	d.admin.del(dom + "?confirm=true").want(204)
	d.admin.get(dom).want(404)
	d.admin.get("/v1/accounts/ann@example.org").want(404)
	self.get("/v1/accounts/ann@example.org/effective").want(401)
	own.get(dom).want(401)
	// Nothing of it becomes valid again, and its names are free.
	d.admin.get("/v1/accounts/carl@example.net").want(200).has("aliases", `["x@example.net"]`)
	d.admin.post("/v1/domains", `{"name":"alias.example"}`).want(201)
	d.admin.post("/v1/domains", `{"name":"example.org"}`).want(201)
	d.admin.get(dom+"/accounts").want(200).has("items", `[]`)
	for _, list := range []string{"departments", "mail-rules", "groups", "suspensions", "held"} {
		d.admin.get(dom+"/"+list).want(200).has("items", `[]`)
	}
	d.admin.get("/v1/held/" + held).want(404)
	own.get(dom).want(401)
}

// Nothing that an interrupted deletion left is used again.
func TestCreateDomainOverLeftovers(t *testing.T) {
	d := start(t, true)
	err := d.api.Store.Update(context.Background(), store.ShardOf("example.org"), store.Actor{Name: "test"}, false, func(c *store.Change) error {
		c.PutAccount(&store.Account{Address: "ghost@example.org", Aliases: []string{"boss@example.org"}})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = d.api.Store.Update(context.Background(), store.Global, store.Actor{Name: "test"}, false, func(c *store.Change) error {
		c.PutKey(&store.Key{ID: "1", Role: store.RoleSelf, Domain: "example.org", Account: "ghost@example.org", Hash: "x"})
		c.PutKey(&store.Key{ID: "2", Role: store.RoleDomain, Domain: "example.net", Hash: "y"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.admin.post("/v1/domains?dry_run=true", `{"name":"example.org"}`).want(200)
	if got := d.admin.get("/v1/keys").want(200).each("items", "id"); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("a dry run left the keys %q", got)
	}
	d.admin.post("/v1/domains", `{"name":"example.org"}`).want(201)
	d.admin.get("/v1/accounts/ghost@example.org").want(404)
	if got := d.admin.get("/v1/keys").want(200).each("items", "id"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("the keys %q are left", got)
	}
}

func TestThirdPartyAccess(t *testing.T) {
	d := start(t, true).site()
	path := dom + "/third-party-access"
	before := d.admin.get(path).want(200)
	a := d.admin.put(path, `{"allow":false,"secure_login_ips":["203.0.113.0/24","2001:db8::1","192.0.2.1-192.0.2.100"]}`, "If-Match", before.header.Get("ETag")).want(200)
	a.has("secure_login_ips", `["203.0.113.0/24","2001:db8::1","192.0.2.1-192.0.2.100"]`)
	if read := d.admin.get(path); !bytes.Equal(read.body, a.body) || read.header.Get("ETag") != a.header.Get("ETag") {
		t.Errorf("GET %s, PUT %s", read.body, a.body)
	}
	d.admin.put(path, `{"allow":false}`, "If-Match", before.header.Get("ETag")).want(412)
	// Allowing keeps the list, which has no effect meanwhile.
	d.admin.put(path, `{"allow":true}`).want(200).has("allow", `true`).has("secure_login_ips", `["203.0.113.0/24","2001:db8::1","192.0.2.1-192.0.2.100"]`)
	d.admin.put(path, `{"allow":false,"mode":"report","secure_login_ips":[]}`).want(200).has("mode", `"report"`).has("secure_login_ips", `[]`)
	d.admin.put(path, `{}`).faults("/allow required")

	// Changes that the view cannot show are reported as customised; PUT resets them.
	d.editPolicy(func(p *store.Policy) { p.Protocols = []string{"imap"} })
	d.admin.get(path).want(200).has("customised", `true`)
	d.admin.put(path, `{"allow":false}`).want(200).has("customised", `null`)
	d.admin.get(path).want(200).has("customised", `null`)
	p, _ := d.api.Store.State.Policy("example.org", store.ManagedThirdParty)
	if len(p.Doc.Protocols) != 0 || p.Doc.CreatedAt.IsZero() {
		t.Errorf("restored: %+v", p.Doc)
	}
	// A deleted policy blocks nobody; PUT creates it again.
	err := d.api.Store.Update(context.Background(), store.ShardOf("example.org"), store.Actor{}, false, func(c *store.Change) error {
		c.DeletePolicy("example.org", store.ManagedThirdParty)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	gone := d.admin.get(path).want(200).has("allow", `true`)
	d.admin.put(path, `{"allow":false}`, "If-Match", gone.header.Get("ETag")).want(200).has("allow", `false`)
}

func (d *daemon) editPolicy(f func(*store.Policy)) {
	d.t.Helper()
	err := d.api.Store.Update(context.Background(), store.ShardOf("example.org"), store.Actor{}, false, func(c *store.Change) error {
		p, ok := d.api.Store.State.Policy("example.org", store.ManagedThirdParty)
		if !ok {
			return fmt.Errorf("no managed policy")
		}
		next := *p.Doc
		f(&next)
		c.PutPolicy("example.org", &next)
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

func TestSecurePasswordPolicy(t *testing.T) {
	d := start(t, true).site()
	path := dom + "/secure-password-policy"
	d.admin.get(path).want(200).has("enforced", `false`)
	d.admin.put(path, `{"enforced":true}`).want(200).has("scope", `{"all":true}`)
	scope := `{"departments":[{"path":"sales","sub":true}],"except":{"members":["bob@example.org"]},"members":["zoe@example.org"]}`
	d.admin.put(path, `{"enforced":true,"scope":`+scope+`}`).want(200).has("scope", scope)
	d.admin.get(path).want(200).has("enforced", `true`).has("scope", scope)
	for who, want := range map[string]string{
		"ann@example.org":      `{"set_by":"domain","value":"required"}`,  // below sales
		"ann@alias.example":    `{"set_by":"domain","value":"required"}`,  // the same account
		"bob@example.org":      `{"set_by":"default","value":"optional"}`, // excepted
		"zoe@example.org":      `{"set_by":"domain","value":"required"}`,  // a member without a record
		"stranger@example.org": `{"set_by":"default","value":"optional"}`,
	} {
		d.admin.get("/v1/accounts/"+who+"/effective").want(200).has("secure_passwords", want)
	}
	// A member given with an alias domain is stored with its own address.
	d.admin.put(path, `{"enforced":true,"scope":{"members":["ANN@alias.example","ann@example.org"]}}`).want(200).has("scope.members", `["ann@example.org"]`)
	d.admin.put(path, `{"enforced":false,"scope":{}}`).want(200).has("scope", `{}`)
}
