package adminapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

const batchPath = dom + "/accounts/batch"

// many makes so many accounts of the department mass. Their names are long: what a batch tells of
// one chunk is more than the kernel keeps for a reader that rests, so that a batch gets no further
// than its reader lets it.
func (d *daemon) many(n int) *daemon {
	d.t.Helper()
	var file strings.Builder
	file.WriteString("address,departments\n")
	for i := range n {
		file.WriteString(massive(i) + ",mass\n")
	}
	d.csv(dom+"/accounts/import?create_departments=true", file.String()).want(200)
	return d
}

func massive(i int) string {
	return fmt.Sprintf("u%05d-%s@example.org", i, strings.Repeat("x", 50))
}

// lines is a streamed response that is read line by line.
type lines struct {
	t    *testing.T
	body io.ReadCloser
	r    *bufio.Reader
}

func (c *client) stream(path, body string) *lines {
	c.t.Helper()
	r, err := http.NewRequest(http.MethodPost, c.base+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/x-ndjson")
	resp, err := c.http.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = resp.Body.Close() })
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || kind != "application/x-ndjson" {
		c.t.Fatalf("status %d, type %q", resp.StatusCode, kind)
	}
	return &lines{c.t, resp.Body, bufio.NewReader(resp.Body)}
}

// next returns the next line, nil at the end.
func (l *lines) next() *answer {
	l.t.Helper()
	text, err := l.r.ReadBytes('\n')
	if err == io.EOF && len(text) == 0 {
		return nil
	}
	if err != nil {
		l.t.Fatalf("the answer ends with %q, %v", text, err)
	}
	return &answer{t: l.t, what: "a line", body: text}
}

// rest reads to the end, and returns the last progress and the last line.
func (l *lines) rest() (progress, last *answer, items int) {
	l.t.Helper()
	for a := l.next(); a != nil; a = l.next() {
		switch last = a; {
		case a.value("item") != nil:
			items++
		case a.value("progress") != nil:
			progress = a
		}
	}
	if last == nil {
		l.t.Fatal("no last line")
	}
	return progress, last, items
}

func (d *daemon) suspended() (n int) {
	for _, a := range d.api.Store.State.Accounts("example.org", "", 0) {
		if a.Doc.Suspended {
			n++
		}
	}
	return n
}

const suspendMass = `{"select":{"departments":[{"path":"mass"}]},"set":{"suspended":true}}`

func TestBatchResults(t *testing.T) {
	d := start(t, true).site()
	d.admin.put("/v1/accounts/zoe@example.org", `{"protocols":{"pop3":false}}`).want(201)
	err := d.api.Store.Update(context.Background(), store.ShardOf("example.org"), store.Actor{}, false, func(c *store.Change) error {
		c.PutAccount(&store.Account{Address: "eve@example.org", Aliases: []string{"eve@example.org"}}) // a name that became an alias domain's leaves such
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	body := `{"select":{"all":true},"set":{"protocols":{"pop3":false,"imap":null},"departments":["board"]}}`
	results := []string{
		`{"address":"ann@example.org","changes":{"departments":[["sales/emea"],["board"]],"protocols.pop3":[null,false]},"result":"changed"}`,
		`{"address":"bob@example.org","changes":{"departments":[["sales"],["board"]],"protocols.pop3":[null,false]},"result":"changed"}`,
		`{"address":"eve@example.org","errors":[{"code":"conflict","detail":"is the account's own address, by its own or an alias domain: leave it out","pointer":"/aliases/0"}],"result":"failed"}`,
		`{"address":"zoe@example.org","changes":{"departments":[[],["board"]]},"result":"changed"}`,
	}
	for _, query := range []string{"?dry_run=true", ""} {
		d.admin.post(batchPath+query, body).want(200).has("results", "["+strings.Join(results, ",")+"]").
			has("selected", `4`).has("changed", `3`).has("unchanged", `0`).has("failed", `1`).has("skipped", `0`).
			has("accounts", `["ann@example.org","bob@example.org","zoe@example.org"]`).has("more", `null`)
	}
	s := d.admin.stream(batchPath, body)
	for _, who := range []string{"ann", "bob", "eve", "zoe"} {
		result := "unchanged"
		if who == "eve" {
			result = "failed"
		}
		s.next().has("item.address", `"`+who+`@example.org"`).has("item.result", `"`+result+`"`)
	}
	s.next().has("progress.done", `4`).has("progress.selected", `4`)
	s.next().has("result", `{"changed":0,"failed":1,"selected":4,"skipped":0,"unchanged":3}`)
	if a := s.next(); a != nil {
		t.Errorf("behind the result comes %s", a.body)
	}
	if a := d.admin.post(batchPath+"?dry_run=true", `{"select":{"departments":[{"path":"board"}]},"set":{"suspended":false}}`, "Accept", "application/json, application/x-ndjson;q=0.9").want(200); a.header.Get("Dry-Run") != "true" {
		t.Error("a streamed dry run does not say that it is one")
	}
}

// Faults are reported before the stream begins.
func TestBatchStreamRefused(t *testing.T) {
	d := start(t, true).site()
	lines := []string{"Accept", "application/x-ndjson"}
	d.admin.post(batchPath, `{"select":{"members":["carl@example.net"]},"set":{"departments":["board","board","x"]}}`, lines...).
		faults("/select/members/0 outside_domain", "/set/departments/1 duplicate", "/set/departments/2 unknown_department")
	body := `{"select":{"all":true},"set":{"suspended":true}}`
	d.key(`"role":"domain","domain":"example.net"`).post(batchPath, body, lines...).want(404, "not_found")
	d.key(`"role":"read"`).post(batchPath, body, lines...).want(403, "forbidden")
	d.key(`"role":"self","account":"ann@example.org"`).post(batchPath, body, lines...).want(403, "forbidden")
	d.key(`"role":"domain","domain":"example.net"`).post("/v1/domains/example.net/accounts/batch", `{"select":{"members":["ann@example.org"]},"set":{"suspended":true}}`, lines...).
		faults("/select/members/0 outside_domain")
	if d.suspended() > 0 {
		t.Error("somebody was suspended")
	}
}

// A batch interrupted by a dead Redis reports its progress, and can be resumed.
func TestBatchResumes(t *testing.T) {
	t.Parallel()
	const all = 3 * 5000
	d := start(t, true).site().many(all)
	s := d.admin.stream(batchPath, suspendMass)
	s.next().has("item.address", `"`+massive(0)+`"`)
	d.redis.Kill()
	progress, last, items := s.rest()
	last.has("problem.status", `503`).has("problem.code", `"store_unavailable"`).has("problem.written", `1000`)
	cursor := last.text("problem.cursor")
	progress.has("progress.done", `1000`).has("progress.selected", `15000`).has("progress.cursor", `"`+cursor+`"`)
	if items != 999 || d.suspended() != 1000 {
		t.Fatalf("%d more items were told, %d accounts are suspended", items, d.suspended())
	}
	// Without Redis neither the cursor nor the problem changes.
	d.admin.post(batchPath+"?resume="+cursor, suspendMass).want(503, "store_unavailable").has("cursor", `"`+cursor+`"`).has("written", `null`)
	d.redis.Restart()
	redistest.Eventually(t, "the store is back", func() bool { return d.api.Store.Trouble() == nil })

	for what, c := range map[string]struct{ path, body string }{
		"another scope":   {batchPath, `{"select":{"all":true},"set":{"suspended":true}}`},
		"another setting": {batchPath, strings.Replace(suspendMass, "true", "null", 1)},
		"another domain":  {"/v1/domains/example.net/accounts/batch", `{"select":{"all":true},"set":{"suspended":true}}`},
		"a dry run":       {batchPath + "?dry_run=true", suspendMass},
	} {
		separator := "?"
		if strings.Contains(c.path, "?") {
			separator = "&"
		}
		if a := d.admin.post(c.path+separator+"resume="+cursor, c.body); a.status != 400 || a.text("code") != "bad_cursor" {
			t.Errorf("the cursor of %s: %d %s", what, a.status, a.body)
		}
	}
	d.admin.post(batchPath+"?resume=x", suspendMass).want(400, "bad_cursor")

	head := func() uint64 { return d.api.Store.State.Head(store.ShardOf("example.org")).N }
	before := head()
	same := `{ "set": {"suspended": true}, "select": {"departments": [ {"path": "mass"} ]} }` // written otherwise
	a := d.admin.post(batchPath+"?resume="+cursor, same).want(200).has("selected", `15000`).has("earlier", `1000`).has("changed", `14000`).
		has("results.0.address", `"`+massive(1000)+`"`).has("more", `4000`)
	if results, _ := a.value("results").([]any); len(results) != 10_000 {
		t.Errorf("%d results", len(results))
	}
	if d.suspended() != all || head() != before+14 {
		t.Errorf("%d are suspended, after %d changes", d.suspended(), head()-before)
	}
	// Starting over is safe too.
	d.admin.post(batchPath, suspendMass).want(200).has("changed", `0`).has("unchanged", `15000`).has("more", `5000`)
	if head() != before+14 {
		t.Error("a batch that changes nothing wrote something")
	}
}

// When the client goes away, the batch stops at a cursor that resumes it.
func TestBatchClientGone(t *testing.T) {
	t.Parallel()
	const all = 15_000
	d := start(t, true).site().many(all)
	s := d.admin.stream(batchPath, suspendMass)
	s.next()
	_ = s.body.Close()
	redistest.Eventually(t, "the batch stops", func() bool { return strings.Contains(d.log.String(), "its client is gone") })
	if n := d.suspended(); n == 0 || n == all || n%1000 != 0 {
		t.Errorf("%d accounts are suspended", n)
	}
}

// A batch may last longer than the server's time limits.
func TestBatchOutlastsLimits(t *testing.T) {
	t.Parallel()
	const limit = 300 * time.Millisecond
	d := start(t, true).site().many(10_000)
	c := d.limited(limit, nil)
	begin := time.Now()
	s := c.stream(batchPath, suspendMass)
	s.next()
	redistest.Eventually(t, "the limits are over", func() bool { return time.Since(begin) > 2*limit })
	_, last, _ := s.rest()
	last.has("result.changed", `10000`)
}

// Accounts that leave the scope while a batch runs are skipped.
func TestBatchSkips(t *testing.T) {
	t.Parallel()
	d := start(t, true).site().many(5001)
	s := d.admin.stream(batchPath, suspendMass)
	s.next()
	d.admin.patch("/v1/accounts/"+massive(5000), `{"departments":[]}`).want(200)
	_, last, _ := s.rest()
	last.has("result", `{"changed":5000,"failed":0,"selected":5001,"skipped":1,"unchanged":0}`)
	if d.suspended() != 5000 {
		t.Errorf("%d are suspended", d.suspended())
	}
}

// Each setting names the batch that set it, until it is changed again.
func TestEffectiveTellsTheBatch(t *testing.T) {
	d := start(t, true).site()
	const ann = "/v1/accounts/ann@example.org"
	key := d.key(`"role":"domain","domain":"example.org"`)
	setBy := func(setting, by, scope string) {
		t.Helper()
		a := d.admin.get(ann + "/effective").want(200)
		if got := a.text(setting + ".set_by"); got != by || a.text(setting+".batch.scope") != scope {
			t.Errorf("%s is set by %s, batch %v; want %s, %s", setting, got, a.value(setting+".batch"), by, scope)
		}
	}
	d.admin.patch(ann, `{"protocols":{"smtp":false}}`).want(200)
	d.admin.post(batchPath, `{"select":{"departments":[{"path":"sales","sub":true}],"except":{"members":["bob@example.org"]}},
		"set":{"protocols":{"pop3":false,"imap":false,"smtp":false},"suspended":true,"secure_passwords":"required"}}`).want(200).has("changed", `1`)
	const sales = "sales with subdepartments except bob@example.org"
	for _, setting := range []string{"protocols.pop3", "protocols.imap", "suspended", "secure_passwords"} {
		setBy(setting, "batch", sales)
	}
	setBy("protocols.smtp", "account", "") // it was so before
	setBy("departments", "account", "")
	setBy("protocols.sieve", "default", "")
	a := d.admin.get(ann+"/effective").has("protocols.pop3.batch.by", `"root"`).has("protocols.pop3.value", `false`)
	var at struct {
		Protocols struct {
			POP3 struct{ Batch struct{ At string } }
		}
	}
	if err := json.Unmarshal(a.body, &at); err != nil || at.Protocols.POP3.Batch.At == "" {
		t.Errorf("no time: %v", err)
	}

	d.admin.patch(ann, `{"suspended":true}`).want(200) // says nothing new
	setBy("suspended", "batch", sales)
	d.admin.patch(ann, `{"protocols":{"pop3":true}}`).want(200)
	setBy("protocols.pop3", "account", "")
	setBy("protocols.imap", "batch", sales)
	key.post(batchPath, `{"select":{"members":["ann@example.org"]},"set":{"protocols":{"pop3":false},"suspended":null,"departments":["board"]}}`).want(200).has("changed", `1`)
	setBy("protocols.pop3", "batch", "ann@example.org")
	setBy("departments", "batch", "ann@example.org")
	setBy("suspended", "default", "")
	setBy("protocols.imap", "batch", sales)
	d.admin.get(ann+"/effective").has("departments.batch.by", `"test"`)
	key.post(batchPath, `{"select":{"all":true},"set":{"protocols":null}}`).want(200)
	setBy("protocols.imap", "default", "")
	d.csv(dom+"/accounts/import", "address,departments,pop3\nann@example.org,board,off\n").want(200)
	setBy("departments", "batch", "ann@example.org")
	setBy("protocols.pop3", "account", "")
	d.admin.patch(dom+"/departments/board", `{"path":"directors"}`).want(200) // it is the same department
	setBy("departments", "batch", "ann@example.org")
	d.admin.put(dom+"/secure-password-policy", `{"enforced":true}`).want(200)
	setBy("secure_passwords", "domain", "")
	// The audit has the values, without the marks.
	if a := d.admin.get("/v1/audit?domain=example.org").want(200); strings.Contains(string(a.body), "batches") {
		t.Errorf("%s", a.body)
	}
	// The view of the record neither shows nor accepts marks.
	d.admin.get(ann).want(200).has("batches", `null`)

	var members []string
	for i := range 100 {
		members = append(members, fmt.Sprintf(`"u%d@example.org"`, i))
	}
	d.admin.post(batchPath, `{"select":{"members":[`+strings.Join(members, ",")+`],"departments":[{"path":"directors"}]},"set":{"suspended":true}}`).want(200)
	setBy("suspended", "batch", "directors, u0@example.org, u1@example.org, u2@example.org, 97 more")
}

func TestEffectivePolicies(t *testing.T) {
	d := start(t, true).site()
	for id, scope := range map[string]string{
		"all": `{"all":true}`, "sales": `{"departments":[{"path":"sales","sub":true}],"all":true}`, "ann": `{"members":["ann@example.org"],"departments":[{"path":"sales","sub":true}]}`,
		"bob": `{"departments":[{"path":"sales"}]}`, "not-ann": `{"all":true,"except":{"members":["ann@example.org"]}}`,
	} {
		d.admin.put(dom+"/policies/"+id, `{"name":"`+id+`","type":"blacklist","mode":"report","ips":["192.0.2.1"],"protocols":["imap"],"scope":`+scope+`}`).want(201)
	}
	d.admin.put(dom+"/policies/off", `{"name":"off","type":"blacklist","enabled":false,"scope":{"all":true}}`).want(201)
	got := map[string]string{}
	a := d.admin.get("/v1/accounts/ann@example.org/effective").want(200)
	for i, id := range a.each("policies", "id") {
		at := fmt.Sprintf("policies.%d.", i)
		got[id] = a.text(at+"named_by") + a.text(at+"department")
		if id == "all" {
			a.has("policies."+fmt.Sprint(i), `{"clients":[],"id":"all","mode":"report","name":"all","named_by":"all","protocols":["imap"],"type":"blacklist"}`)
		}
	}
	want := map[string]string{"third-party-access": "all", "all": "all", "sales": "departmentsales", "ann": "member"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("policies %v, want %v", got, want)
	}
	d.admin.get("/v1/accounts/nobody@example.org/effective").want(200).has("policies.0.id", `"third-party-access"`)
}
