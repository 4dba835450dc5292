package adminapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

const preview = policies + "/preview"

// recorded puts n logins of an account on record, one a minute up to two minutes ago.
func (d *daemon) recorded(n int, account, ip string, more ...func(*store.LoginRecord)) {
	d.t.Helper()
	last := time.Now().Truncate(time.Second).Add(-2 * time.Minute)
	records := make([]store.LoginRecord, n)
	for i := range records {
		records[i] = login(last.Add(-time.Duration(n-1-i)*time.Minute), account, ip, more...)
	}
	d.on(records...)
}

// parts words a breakdown as "value logins".
func (a *answer) parts(path string) string {
	a.t.Helper()
	var b strings.Builder
	values, logins := a.each(path+".items", "value"), a.each(path+".items", "logins")
	for i := range values {
		fmt.Fprintf(&b, "%s %s; ", values[i], logins[i])
	}
	return b.String()
}

func TestPreview(t *testing.T) {
	d := start(t, true).site()
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	d.recorded(3, "ann@example.org", "203.0.113.9", func(r *store.LoginRecord) { r.CredentialID, r.Credential = "c1", "My iPhone" })
	d.recorded(2, "ann@example.org", "198.51.100.7")
	d.recorded(1, "bob@alias.example", "2001:db8::1", func(r *store.LoginRecord) { r.Protocol, r.Region, r.Outcome = "pop3", "DE", access.Next })
	d.recorded(1, "bob@example.org", "198.51.100.8", func(r *store.LoginRecord) { r.Client = access.ClientWeb })
	d.recorded(1, "bob@example.org", "198.51.100.8", func(r *store.LoginRecord) { r.MasterUser = "admin" })
	d.recorded(4, "bob@example.org", "198.51.100.9", func(r *store.LoginRecord) { r.Outcome, r.Reason = access.Deny, access.ReasonBadSecret })
	ask := func(body string) *answer { d.t.Helper(); return d.admin.post(preview, body).want(200) }

	const draft = `"type":"whitelist","scope":{"all":true},"ips":["203.0.113.0/24"],"clients":["third-party"]`
	a := ask(`{"policy":{`+draft+`}}`).has("examined", `12`).has("came_in", `8`).has("refused.logins", `4`).has("admitted.logins", `0`).has("admitted.accounts.items", `[]`)
	for path, want := range map[string]string{
		"accounts":  "ann@example.org 2; bob@example.org 2; ",
		"devices":   "mailbox 3; master 1; ",
		"addresses": "198.51.100.7 2; 198.51.100.8 1; 2001:db8::1 1; ",
		"regions":   " 3; DE 1; ",
		"clients":   "third-party 4; ",
		"protocols": "imap 3; pop3 1; ",
	} {
		if got := a.parts("refused." + path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
		a.has("refused."+path+".distinct", fmt.Sprint(strings.Count(want, ";"))).has("refused."+path+".others", `0`)
	}
	since, err := time.Parse(time.RFC3339, a.text("since"))
	if age := time.Since(since); err != nil || age < 30*24*time.Hour || age > 31*24*time.Hour {
		t.Errorf("since %v, %v", since, err)
	}
	if a.text("oldest") == "" || a.text("refused.first") >= a.text("refused.last") {
		t.Errorf("%s", a.body)
	}

	// As if enabled and enforced, whatever it says; a scope counts the departments of today.
	ask(`{"policy":{`+draft+`,"enabled":false,"mode":"report"},"days":3650}`).has("refused.logins", `4`)
	d.admin.put("/v1/accounts/ann@example.org", `{"departments":["board"]}`).want(200)
	ask(`{"policy":{"type":"blacklist","scope":{"departments":[{"path":"board"}]}}}`).has("refused.logins", `5`).has("refused.devices.items.0.label", `"My iPhone"`).
		has("refused.devices.items.0.account", `"ann@example.org"`)

	// A stored one changed, and removed.
	d.admin.put(office, `{"name":"Office",`+draft+`}`).want(201)
	ask(`{"policy":{"id":"office",`+draft+`}}`).has("refused.logins", `4`) // they came in before it was there
	if got := ask(`{"policy":{"id":"office","type":"whitelist","scope":{"all":true},"ips":["198.51.100.0/24"],"clients":["third-party"]}}`); got.parts("refused.accounts") != "ann@example.org 3; bob@example.org 1; " ||
		got.parts("admitted.addresses") != "198.51.100.7 2; 198.51.100.8 1; " {
		t.Errorf("a change: %s", got.body)
	}
	d.recorded(5, "ann@example.org", "198.51.100.9", func(r *store.LoginRecord) { r.Outcome, r.Reason = access.Deny, access.ReasonPolicy })
	ask(`{"remove":"office"}`).has("refused.logins", `0`).has("admitted.logins", `9`)
	d.admin.patch(office, `{"enabled":false}`).want(200)
	ask(`{"remove":"office"}`).has("admitted.logins", `0`)
	ask(`{"policy":{"name":"Office",`+draft+`}}`).has("refused.logins", `4`) // found by its name

	d.recorded(1, "ann@example.org", "192.0.2.1")
	old := func(r *store.LoginRecord) { r.Time = r.Time.AddDate(0, 0, -2) }
	d.recorded(1, "ann@example.org", "192.0.2.1", old)
	const there = `"policy":{"type":"blacklist","scope":{"all":true},"ips":["192.0.2.1"]}`
	ask(`{`+there+`,"days":1}`).has("refused.logins", `1`)
	ask(`{`+there+`,"days":3}`).has("refused.logins", `2`)
}

// A preview changes nothing, and leaves no record.
func TestPreviewChangesNothing(t *testing.T) {
	d := start(t, true).site()
	d.recorded(1, "ann@example.org", "203.0.113.9")
	heads, before := d.api.Store.State.Heads(), string(d.admin.get(dom+"/logins").want(200).body)
	d.admin.post(preview, `{"policy":{"id":"third-party-access","type":"blacklist","scope":{"all":true}}}`).want(200).has("admitted.logins", `0`)
	d.admin.post(preview, `{"remove":"third-party-access"}`).want(200).has("admitted.logins", `1`)
	if d.api.Store.State.Heads() != heads {
		t.Error("the store changed")
	}
	if got := string(d.admin.get(dom + "/logins").want(200).body); got != before {
		t.Errorf("records changed: %s", got)
	}
}

func TestPreviewFaults(t *testing.T) {
	d := start(t, true).site()
	for body, faults := range map[string][]string{
		`{}`:                         {"/policy required"},
		`{"policy":7}`:               {"/policy wrong_type"},
		`{"remove":"none"}`:          {"/remove unknown_policy"},
		`{"remove":"none","days":0}`: {"/days out_of_range", "/remove unknown_policy"},
		`{"remove":"third-party-access","days":3651}`:                                        {"/days out_of_range"},
		`{"remove":"third-party-access","day":3}`:                                            {"/day unknown_field"},
		`{"remove":"third-party-access","policy":{"type":"blacklist","scope":{"all":true}}}`: {"/remove conflict"},
		`{"remove":"none","days":"x","policy":{"id":"a b","type":"whitelist","ips":["x"],"n":1}}`: {
			"/remove conflict", "/days wrong_type", "/policy/id invalid_name", "/policy/scope required", "/policy/ips/0 invalid_network", "/policy/n unknown_field",
		},
		`{"policy":{"id":"x","name":"Third-party Client Access Policy","type":"blacklist","scope":{"members":["x@example.net"]}}}`: {"/policy/name duplicate", "/policy/scope/members/0 outside_domain"},
	} {
		d.admin.post(preview, body).faults(faults...)
		d.admin.post(preview, body, "Accept", "application/x-ndjson").faults(faults...)
	}
}

func TestPreviewReachesItsDomainOnly(t *testing.T) {
	d := start(t, true).site()
	d.recorded(2, "ann@example.org", "203.0.113.9")
	const remove = `{"remove":"third-party-access"}`
	own := d.key(`"role":"domain","domain":"example.org"`)
	own.post(preview, remove).want(200).has("examined", `2`)
	own.post("/v1/domains/example.net/policies/preview", remove).want(404, "not_found")
	other := d.key(`"role":"domain","domain":"example.net"`)
	other.post(preview, remove).want(404, "not_found")
	other.post("/v1/domains/example.net/policies/preview", remove).want(200).has("examined", `0`)
	d.key(`"role":"read"`).post(preview, remove).want(200).has("examined", `2`)
	d.key(`"role":"self","account":"ann@example.org"`).post(preview, remove).want(403, "forbidden")
}

// lines reads an answer of lines.
func (a *answer) lines() (progress []string, last *answer) {
	a.t.Helper()
	if got := a.header.Get("Content-Type"); got != "application/x-ndjson" {
		a.t.Fatalf("%s: type %q: %s", a.what, got, a.body)
	}
	s := bufio.NewScanner(strings.NewReader(string(a.body)))
	for s.Scan() {
		last = &answer{t: a.t, what: a.what, body: slices.Clone(s.Bytes())}
		if last.value("progress") != nil {
			progress = append(progress, s.Text())
		}
	}
	return progress, last
}

func TestPreviewTellsHowFarItIs(t *testing.T) {
	d := start(t, true).site()
	d.recorded(1500, "ann@example.org", "203.0.113.9")
	const body = `{"remove":"third-party-access","days":2}`
	progress, last := d.admin.post(preview, body, "Accept", "application/json;q=0.1, application/x-ndjson").want(200).lines()
	if len(progress) == 0 || !strings.HasPrefix(progress[0], `{"progress":{"examined":1000,"at":"`) {
		t.Errorf("progress %q", progress)
	}
	var plain, lined any
	if json.Unmarshal(d.admin.post(preview, body).want(200).body, &plain) != nil || plain == nil {
		t.Fatal("no plain answer")
	}
	last.has("result.examined", `1500`).has("result.admitted.logins", `1500`)
	lined = last.value("result")
	if a, b := len(plain.(map[string]any)), len(lined.(map[string]any)); a != b {
		t.Errorf("%d fields, and %d in lines", a, b)
	}

	// What goes wrong on the way is told in the last line, and as a status to others.
	d.redis.Kill()
	_, last = d.admin.post(preview, body, "Accept", "application/x-ndjson").want(200).lines()
	last.has("problem.status", `503`).has("problem.code", `"store_unavailable"`)
	d.admin.post(preview, body).want(503, "store_unavailable")
}

// slow is a journal that answers when it is let.
type slow struct {
	admin.Journal
	asked chan struct{}
	ended chan error // how the question ended
	let   chan struct{}
}

func (s *slow) Records(ctx context.Context, _ store.RecordQuery) ([]store.LoginRecord, string, error) {
	s.asked <- struct{}{}
	select {
	case <-ctx.Done():
		s.ended <- ctx.Err()
		return nil, "", ctx.Err()
	case <-s.let:
		return nil, "", nil
	}
}

// slowly has the daemon's records come when they are let, at a server with limits.
func (d *daemon) slowly(limit time.Duration) (*slow, *client) {
	d.t.Helper()
	j := &slow{Journal: d.api.Journal, asked: make(chan struct{}), ended: make(chan error, 10), let: make(chan struct{})}
	return j, d.limited(limit, j)
}

// A long preview outlasts the time limits of the server.
func TestPreviewOutlastsTheServersLimits(t *testing.T) {
	d := start(t, true).site()
	const limit = 100 * time.Millisecond
	j, c := d.slowly(limit)
	for _, accept := range []string{"application/json", "application/x-ndjson"} {
		go func() {
			<-j.asked
			select {
			case err := <-j.ended:
				t.Errorf("%s: ended early: %v", accept, err)
			case <-time.After(3 * limit): // nothing is to happen meanwhile
				j.let <- struct{}{}
			}
		}()
		a := c.post(preview, `{"remove":"third-party-access"}`, "Accept", accept).want(200)
		if accept != "application/json" {
			_, a = a.lines()
			a.has("result.examined", `0`)
		} else {
			a.has("examined", `0`)
		}
	}
}

// It ends when the caller goes away, and no more than a few run at a time.
func TestPreviewEndsWithItsCaller(t *testing.T) {
	d := start(t, true).site()
	j, c := d.slowly(time.Minute)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	done := make(chan struct{})
	const most = 4
	for i := range most {
		go func() {
			defer func() { done <- struct{}{} }()
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+preview, strings.NewReader(`{"remove":"third-party-access"}`))
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Content-Type", "application/json")
			if i%2 == 0 {
				r.Header.Set("Accept", "application/x-ndjson")
			}
			if resp, err := c.http.Do(r); err == nil {
				_ = resp.Body.Close()
			}
		}()
		<-j.asked
	}
	if a := c.post(preview, `{"remove":"third-party-access"}`).want(429, "busy"); a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	leave()
	for range most {
		<-done
		<-j.ended
	}
	close(j.let)
	redistest.Eventually(t, "there is room again", func() bool {
		answered := make(chan int)
		go func() { answered <- c.post(preview, `{"remove":"third-party-access"}`).status }()
		select {
		case <-j.asked:
		case status := <-answered:
			return status == 200
		}
		return <-answered == 200
	})
}

// Who administers one domain leaves room for the others: of previews, and of bodies that take a lot
// of memory.
func TestOneDomainTakesNotEveryTurn(t *testing.T) {
	d := start(t, true).site()
	j, site := d.slowly(time.Minute)
	keyOf := func(domain string) *client {
		c := d.key(`"role":"domain","domain":"` + domain + `"`)
		c.base, c.http = site.base, site.http
		return c
	}
	one, other := keyOf("example.org"), keyOf("example.net")
	var answered sync.WaitGroup
	ask := func(c *client, path, body string) {
		answered.Go(func() { c.post(path, body).want(200) })
		<-j.asked
	}
	const elsewhere = "/v1/domains/example.net"
	const remove = `{"remove":"third-party-access"}`
	ask(one, preview, remove)
	ask(one, preview, remove)
	one.post(preview, remove).want(429, "busy")
	ask(other, elsewhere+"/policies/preview", remove)
	ask(site, preview, remove)
	site.post(preview, remove).want(429, "busy")

	large := `{"ip_blocks":[]` + strings.Repeat(" ", 1<<20) + `}`
	ask(one, dom+"/apply", large)
	one.post(dom+"/apply", large).want(429, "busy")
	ask(one, dom+"/apply", `{"ip_blocks":[]}`)
	ask(other, elsewhere+"/apply", large)
	d.admin.post(dom+"/apply", large).want(200) // by the other server

	for range 12 { // beside the four that one is about
		ask(one, dom+"/apply", `{"ip_blocks":[]}`)
	}
	one.get(dom).want(429, "busy")
	other.get(elsewhere).want(200)
	close(j.let)
	answered.Wait()
	ask(one, dom+"/apply", large)
	answered.Wait()
	ask(one, preview, remove)
	answered.Wait()
}
