package e2e

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var (
	loginLink  = regexp.MustCompile(`/domains/example\.org/logins/[0-9a-f]{20,}`)
	revertForm = regexp.MustCompile(`/domains/example\.org/reverts/[^"]+`)
)

func randomWord() string { return strings.ToLower(rand.Text()) }

// textarea returns the text of a page's field.
func textarea(p answered, name string) string {
	m := regexp.MustCompile(`(?s)<textarea name="` + name + `"[^>]*>(.*?)</textarea>`).FindStringSubmatch(p.text)
	if m == nil {
		return ""
	}
	return html.UnescapeString(m[1])
}

// axe is axe-core 4.14.1 (MPL-2.0), which finds faults of accessibility.
//
//go:embed testdata/axe.min.js
var axe string

// faults runs axe over the open page, by the rules of WCAG 2.2 AA.
const faults = `axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}).then(r =>
	JSON.stringify(r.violations.map(v => v.id + ": " + v.help + ": " + v.nodes.map(n => n.html).join(" | "))))`

// chromium starts Debian's chromium for the test, and returns its context.
func (s *site) chromium() context.Context {
	s.t.Helper()
	dir, err := os.MkdirTemp("", "chromium")
	s.must(err)
	s.t.Cleanup(func() { _ = os.RemoveAll(dir) }) // chromium may write to it a moment longer
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("/usr/bin/chromium"), chromedp.NoSandbox, chromedp.UserDataDir(dir),
		chromedp.WindowSize(390, 844)) // a phone
	ctx, stop := chromedp.NewExecAllocator(s.ctx, options...)
	s.t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(ctx)
	s.t.Cleanup(cancel)
	ctx, end := context.WithTimeout(ctx, 3*time.Minute) // all pages, on a busy machine
	s.t.Cleanup(end)
	return ctx
}

// inBrowser runs the main flow in Debian's chromium with scripts, and looks for faults of
// accessibility and for violations of the Content-Security-Policy on every kind of page.
func (s *site) inBrowser() {
	t, ctx := s.t, s.chromium()
	base := "http://" + s.Daemons[0].ConsoleAddr
	do := func(what string, actions ...chromedp.Action) {
		t.Helper()
		if err := chromedp.Run(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	inspect := func(what string) {
		t.Helper()
		var found string
		do(what, chromedp.Evaluate(axe+";0", nil), chromedp.Evaluate(faults, &found, awaitPromise))
		var list []string
		s.must(json.Unmarshal([]byte(found), &list))
		more, err := heard(ctx, "en")
		s.must(err)
		for _, fault := range append(list, more...) {
			t.Errorf("%s: %s", what, fault)
		}
	}
	chromedp.ListenTarget(ctx, func(event any) {
		switch e := event.(type) {
		case *log.EventEntryAdded: // violations of the Content-Security-Policy, files that are missing
			if e.Entry.Level == log.LevelError {
				t.Errorf("the browser reports: %s %s", e.Entry.Text, e.Entry.URL)
			}
		case *runtime.EventExceptionThrown:
			t.Errorf("a script fails: %s", e.ExceptionDetails.Error())
		}
	})
	do("log-in page", chromedp.Navigate(base+"/account/login"), chromedp.WaitVisible("#account"))
	do("log-in by keyboard", chromedp.SendKeys("#account", ann+"\t"+s.passwords[ann]+"\r"), chromedp.WaitVisible("#switch"))
	do("new device", chromedp.Navigate(base+"/account/devices/new"), chromedp.WaitVisible("#label"))
	var secret, state string
	do("create it", chromedp.SendKeys("#label", "Browser\r"), chromedp.WaitVisible("#secret"), chromedp.Text("#secret", &secret))
	inspect("created")
	do("waiting", chromedp.Text("#state", &state))
	if !strings.Contains(state, "Waiting for the first login") {
		t.Errorf("state %q", state)
	}
	s.want("the device", s.imap(outside, ann, strings.TrimSpace(secret)), "OK ")
	do("first login, without a reload", chromedp.Poll(`document.querySelector("#state").textContent.includes("Done: the device has logged in")`, nil, chromedp.WithPollingTimeout(20*time.Second)))
	s.passkeys(ctx, inspect)
	do("the console's log-in", chromedp.Navigate(base+"/login"), chromedp.WaitVisible("#key"),
		chromedp.SendKeys("#key", s.createKey(object{"name": "browser", "role": "admin"})+"\r"), chromedp.WaitVisible("#attention"))
	inspect("/")
	s.manyDepartments()
	do("a batch", chromedp.Navigate(base+"/domains/example.org/batch"), chromedp.WaitVisible("#found select"))
	inspect("many departments")
	// By one event each, so that the list is shown once.
	find := func(text string) chromedp.Action {
		return chromedp.Evaluate(`{ const f = document.querySelector('input[name="find"]'); f.value = `+strconv.Quote(text)+`; f.dispatchEvent(new Event("input")) }`, nil)
	}
	until := func(is string) chromedp.Action {
		return chromedp.Poll(is, nil, chromedp.WithPollingTimeout(30*time.Second))
	}
	choose := func(path string) chromedp.Action {
		return chromedp.Evaluate(`document.querySelector('select[aria-label="`+path+`"]').value = "in:`+path+`"`, nil)
	}
	do("nothing is found", find("team 299"), until(`document.querySelector("#found").textContent.includes("No other department is found.")`))
	do("a department by its name", find("T299"), until(`document.querySelectorAll("#found select").length == 1`), choose("many/t299"))
	do("another one, by its level", find("many"), until(`document.querySelector("#found").textContent.includes("Selected, or excepted:")`),
		chromedp.Click(`button[name="under"][value="many"]`), until(`document.querySelector('select[aria-label="many/t001"]') && document.querySelector("#found").textContent.includes("All departments")`), choose("many/t001"))
	var focus, count string
	do("what is found is read out, and has the focus", chromedp.Evaluate(`document.activeElement.id`, &focus), chromedp.Text("#found-count", &count))
	if focus != "found" || count != "Below many: 299 departments are shown." {
		t.Errorf("after the departments below one the focus is at %q, and read out is %q", focus, count)
	}
	var result string
	do("both are selected", chromedp.SetValue(`select[name="imap"]`, "off"), chromedp.Click(`button[value="plan"]`), chromedp.WaitVisible("#found select"), chromedp.Text("main", &result))
	inspect("the selected departments")
	if !strings.Contains(result, "Would change: 2 of 2 accounts") {
		t.Errorf("a batch of two of many departments: %s", result)
	}
	if !allPages {
		return
	}
	for _, path := range []string{"/account", "/account/devices/new", "/account/factors", "/account/logins", "/account/sessions"} {
		do(path, chromedp.Navigate(base+path), chromedp.WaitVisible("h1"))
		inspect(path)
	}
	for _, path := range []string{"", "/logins", "/logins/chart", "/policies", "/policies/new", "/third-party", "/secure-passwords", "/accounts", "/batch", "/departments", "/ip-blocks", "/held", "/mail-rules", "/mail-rules/new", "/mail-rules/new?kind=warning", "/mail-rules/new?kind=monitor", "/groups", "/groups/new", "/messages", "/inspection?days=0", "/withdraw", "/secure-passwords/progress", "/sessions", "/document"} {
		do(path, chromedp.Navigate(base+"/domains/example.org"+path), chromedp.WaitVisible("h1"))
		inspect(path)
	}
	for _, path := range []string{"/accounts/" + ann, "/keys", "/audit", "/throttle", "/store", "/login", "/account/login"} {
		do(path, chromedp.Navigate(base+path), chromedp.WaitVisible("h1"))
		inspect(path)
	}
}

func awaitPromise(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

// manyDepartments makes more of them than a page shows as a tree, with ann and bob in two of them.
func (s *site) manyDepartments() {
	s.t.Helper()
	for n := range 300 {
		s.api("PUT", fmt.Sprintf("/v1/domains/example.org/departments/many/t%03d", n), object{"name": fmt.Sprintf("T%03d", n)})
	}
	s.api("PATCH", "/v1/accounts/"+ann, object{"departments": []string{"many/t299"}})
	s.api("PATCH", "/v1/accounts/"+bob, object{"departments": []string{"many/t001"}})
}
