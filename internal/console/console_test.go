package console

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/web"
)

// Every change is a POST, is made by those only who may change something, and asks for the key again
// where it is dangerous.
func TestRoutes(t *testing.T) {
	for _, r := range routes() {
		method, path, _ := strings.Cut(r.pattern, " ")
		changes := method == "POST" && !strings.HasPrefix(path, "/logout") && !strings.HasSuffix(path, "/check") && !strings.HasSuffix(path, "/pick")
		if changes && r.roles != writers {
			t.Errorf("%s may be sent by %s", r.pattern, r.roles)
		}
		if method == "GET" && r.danger != harmless {
			t.Errorf("%s wants the key again", r.pattern)
		}
		if r.danger == unlessPlanned && !lasts(r.pattern) && path != "/domains/{domain}/secure-passwords" {
			t.Errorf("%s changes much, and any number may run", r.pattern)
		}
	}
	for _, path := range []string{"policies/check", "batch", "document"} { // renamed, they would not be limited
		if !slices.ContainsFunc(routes(), func(r route) bool { return r.pattern == "POST /domains/{domain}/"+path && lasts(r.pattern) }) {
			t.Errorf("any number of %s may run", path)
		}
	}
}

func TestChart(t *testing.T) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	c := newChart(at.Add(-47*time.Hour), at, 24)
	for i := range 48 {
		r := &api.LoginRecord{Time: at.Add(-time.Duration(i) * time.Hour), Outcome: access.Deny, Region: "FR"}
		if i == 0 {
			r.Outcome, r.Region = access.Allow, ""
		}
		c.add(r)
	}
	c.add(&api.LoginRecord{Time: at.Add(time.Hour)}) // later than the period
	c.add(&api.LoginRecord{Time: at.AddDate(0, 0, -9)})
	c.scale()
	sum := 0
	for _, b := range c.Bars {
		sum += b.Allow + b.Deny + b.Next
		if b.AllowAt < 0 || b.DenyAt < 0 || b.AllowHigh+b.DenyHigh+b.NextHigh > 100 {
			t.Errorf("%+v", b)
		}
	}
	if sum != 50 || c.Counted != 50 || c.Bars[23].Allow != 1 {
		t.Errorf("%d logins: %+v", sum, c.Bars)
	}
	want := []regionCount{{"FR", 47, 47, 0, 100}, {"", 3, 2, 2, 4}}
	if !slices.Equal(c.Regions, want) {
		t.Errorf("%+v, want %+v", c.Regions, want)
	}
	one := newChart(at, at, 24) // without a period
	one.add(&api.LoginRecord{Time: at})
	one.scale()
}

// Departments are arranged below their parents, whatever is between them in the list, with what a
// scope says of each.
func TestTree(t *testing.T) {
	var list []api.Department
	for _, path := range []string{"sales", "sales & more", "sales-x", "sales/emea", "sales/emea/south", "support/l2"} {
		list = append(list, api.Department{Path: path})
	}
	var show func([]*branch) string
	show = func(list []*branch) (text string) {
		for _, b := range list {
			text += b.Leaf + ":" + b.Mark + "(" + show(b.Sub) + ")"
		}
		return text
	}
	got := show(tree(list, []api.ScopeDepartment{{Path: "sales", Sub: true}, {Path: "sales-x"}}, []api.ScopeDepartment{{Path: "sales/emea/south", Sub: true}}))
	if want := "sales:in(emea:(south:out()))sales & more:()sales-x:in-only()l2:()"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Of thousands of departments a page shows one level, or what is found, without those that are marked.
func TestLevel(t *testing.T) {
	var list []api.Department
	for i := range 3000 {
		if i%10 == 0 {
			list = append(list, api.Department{Path: fmt.Sprintf("d%03d", i/10)})
		}
		list = append(list, api.Department{Path: fmt.Sprintf("d%03d/t%d", i/10, i%10), Name: "Team <" + strconv.Itoa(i) + ">"})
	}
	list = append(list, api.Department{Path: "lost/child"}) // above it is nothing
	in := []api.ScopeDepartment{{Path: "d007", Sub: true}}
	show := func(l *level) (text string) {
		for _, b := range l.Items {
			text += fmt.Sprintf("%s(%d) ", b.Leaf, b.Below)
		}
		return fmt.Sprintf("%s+%d %v", text, l.More, l.Above)
	}
	first := levelOf(list, "", "", in, nil)
	if len(first.Items) != 300 || first.More != 0 || first.Items[0].Leaf != "d000" || first.Items[0].Below != 10 || first.Items[299].Leaf != "lost/child" {
		t.Errorf("the first level: %s", show(first))
	}
	if m := first.Marked; len(m) != 1 || m[0].Leaf != "d007" || m[0].Mark != "in" || m[0].Below != 10 {
		t.Errorf("marked: %+v", m)
	}
	for _, l := range []struct{ under, find, want string }{
		{"d299", "", "d299/t0(0) d299/t1(0) d299/t2(0) d299/t3(0) d299/t4(0) d299/t5(0) d299/t6(0) d299/t7(0) d299/t8(0) d299/t9(0) +0 [d299]"},
		{"d299/t0", "", "+0 [d299 d299/t0]"},
		{"", "team <2994", "d299/t4(0) +0 []"},
		{"", "D29 t4 299", "d299/t4(0) +0 []"},
		{"", "none", "+0 []"},
	} {
		if got := show(levelOf(list, l.under, l.find, nil, nil)); got != l.want {
			t.Errorf("%q %q: %s", l.under, l.find, got)
		}
	}
	if l := levelOf(list, "", "team", nil, nil); len(l.Items) != maxFound || l.More != 3000-maxFound {
		t.Errorf("found %d and %d more", len(l.Items), l.More)
	}
}

// A page's command is copied into a shell: a link that somebody else made adds no word or command to it.
func TestWord(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "",
		"ann@example.org":         "ann@example.org",
		"2001:db8::1":             "2001:db8::1",
		"x; rm -rf ~":             "'x; rm -rf ~'",
		"$(id)`id`":               "'$(id)`id`'",
		"it's":                    `'it'\''s'`,
		"a\nreboot\u009b":         "'a reboot '",
		"--key-file=/dev/stdin x": "'--key-file=/dev/stdin x'",
	} {
		if got := word(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// The form of each kind of mail rule shows all that a rule of it can have, and sends it back as it was.
func TestRuleForm(t *testing.T) {
	match := `"match": {"recipient_domains": ["example.net"], "senders": ["*@example.net"], "recipients": ["ann@example.org"],
		"headers": [{"name": "List-Id", "contains": "a: b"}, {"name": "Subject", "regex": "^x: y ~ z"}], "subject": ["two words"], "text": ["x"],
		"attachments": {"names": ["*.exe"], "types": ["application/*"]}, "min_size": 7}`
	for kind, rest := range map[string]string{
		"internal_only": `"action": {}`,
		"limit": `"action": {"per": "credential", "messages_per_hour": 1, "messages_per_day": 2, "recipients_per_hour": 3, "recipients_per_day": 4,
			"warn_at": 80, "then": "suspend_credential"}`,
		"forwarding": `"action": {"allow": "none"}`,
		"filter":     `"action": {"do": "return", "text": "No."}, ` + match,
		"audit":      `"action": {"approvers": ["department:legal"], "need": "all", "expires": "1h", "then": "release"}, ` + match,
		"monitor":    `"action": {"to": ["ann@example.org"]}, ` + match,
		"warning": `"action": {"level": "advanced", "how": ["header", "banner"], "texts": {"de": "Von\naußen", "en": "a = b"},
			"advanced_texts": {"en": "Looks like {name}"}, "tag": "[X]", "whitelist": ["example.com"]}, ` + match,
	} {
		text := `{"name": "n", "kind": "` + kind + `", "enabled": false, "mode": "report", "direction": "sent", "on_fault": "ignore", "scope": {"members": ["bob@example.org"]},
			"except_domains": ["*.example.net"], "from": "2026-01-02T03:04:00Z", "until": "2027-01-02T03:04:00Z", ` + rest + `}`
		var want api.MailRule
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		k, ok := kindOf(kind)
		if !ok {
			t.Fatalf("no form for %s", kind)
		}
		fields := filled("action.", k.action, &want.Action)
		if k.matches {
			fields = append(append(fields, filled("match.", matchFields, want.Match)...), filled("match.attachments.", attachmentFields, want.Match.Attachments)...)
		}
		sent := url.Values{
			"name": {"n"}, "kind": {kind}, "enabled": {"false"}, "mode": {"report"}, "direction": {"sent"}, "on_fault": {"ignore"}, "members": {"bob@example.org"},
			"except_domains": {"*.example.net"}, "from": {"2026-01-02T03:04"}, "until": {"2027-01-02T03:04"},
		}
		for _, f := range fields {
			sent[f.Name] = []string{f.Text}
			if f.Choices() {
				sent[f.Name] = f.Chosen
			}
		}
		site := web.New(web.Options{Log: hclog.NewNullLogger(), ProblemOf: admin.ProblemOf})
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(sent.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		site.Page(func(c *web.Call) error {
			if err := c.Form(); err != nil {
				return err
			}
			var f api.Faults
			got := (&visit{Call: c}).draftRule(&f)
			if a, b := fmt.Sprint(asJSON(t, got)), fmt.Sprint(asJSON(t, &want)); f.Err() != nil || a != b {
				t.Errorf("%v\n got %s\nwant %s", f.Err(), a, b)
			}
			return nil
		}).ServeHTTP(httptest.NewRecorder(), r)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A dangerous change wants the key again once it was entered ten minutes ago, and the form asks for it.
func TestStepUp(t *testing.T) {
	var late time.Duration
	browser, base, key := newSite(t, 0, &late)
	send := func(path string, form url.Values) (int, string) {
		t.Helper()
		resp, err := browser.PostForm(base+path, form)
		if form == nil {
			resp, err = browser.Get(base + path)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	const asks = "API key, to confirm this change"
	named := func(name string, more ...string) url.Values {
		v := url.Values{"name": {name}, "role": {"read"}}
		if more != nil {
			v.Set("key", more[0])
		}
		return v
	}
	if _, page := send("/keys", nil); strings.Contains(page, asks) {
		t.Error("the form asks for the key at once")
	}
	if status, page := send("/keys", named("a")); status != 200 {
		t.Errorf("just after the log-in: %d %s", status, page)
	}
	late = 10 * time.Minute
	if _, page := send("/keys", nil); !strings.Contains(page, asks) {
		t.Error("the form does not ask for the key after ten minutes")
	}
	for _, form := range []url.Values{named("b"), named("b", ""), named("b", key+"x")} {
		if status, page := send("/keys", form); status != 403 || !strings.Contains(page, "needs your API key again") {
			t.Errorf("%v after ten minutes: %d %s", form, status, page)
		}
	}
	if status, _ := send("/domains/example.org/departments", url.Values{"path": {"sales"}}); status != 200 {
		t.Errorf("a harmless change: %d", status)
	}
	if status, page := send("/keys", named("c", key)); status != 200 {
		t.Errorf("with the key: %d %s", status, page)
	}
	if status, page := send("/keys", named("d")); status != 200 {
		t.Errorf("after that: %d %s", status, page)
	}
}
