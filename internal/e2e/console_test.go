package e2e

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// key creates an API key.
func (s *site) createKey(body object) string {
	s.t.Helper()
	return s.api("POST", "/v1/keys", body)["key"].(string)
}

// administrator returns a browser that is logged in to the console.
func (s *site) administrator(role, domain string) *browser {
	s.t.Helper()
	body := object{"name": role + " of the console", "role": role}
	if domain != "" {
		body["domain"] = domain
	}
	b := s.browse(office)
	b.shows("log-in of "+role, b.post("/login", "key", s.createKey(body)), 200, "Logged in with the key")
	return b
}

// consoleDepartments arranges departments in a tree, whose names may have spaces, and selects some in
// the wizard and in a batch.
func (s *site) consoleDepartments(a *browser) {
	const at = "/domains/example.org"
	for path, name := range map[string]string{"sales/emea": "EMEA", "Human Resources": ""} {
		a.shows("a department", a.post(at+"/departments", "path", path, "name", name), 200, "The department was saved")
	}
	page := a.shows("the tree", a.get(at+"/departments"), 200, "EMEA")
	if !regexp.MustCompile(`(?s)<strong>sales</strong>.*?<ul><li><div><strong>emea</strong> EMEA`).MatchString(page.text) {
		s.t.Errorf("emea is not below sales:\n%s", page.text)
	}
	a.shows("moved", a.post(at+"/departments", "path", "sales/emea", "to", "sales/europe", "name", "Europe", "do", "rename"), 200, "The department was changed")
	a.shows("below itself", a.post(at+"/departments", "path", "sales", "to", "sales/x", "do", "rename"), 422, "below the department itself")
	a.shows("with a space", a.post("/accounts/"+bob, "departments", "Human Resources\r\nsales/europe", "secure_passwords", "optional"), 200, "The account was changed")
	a.shows("its members", a.post(at+"/batch", "tree", "in:sales", "tree", "out:Human Resources", "imap", "off", "do", "plan"), 200, "Would change: 0 of 0 accounts")
	a.shows("its members", a.post(at+"/batch", "tree", "in:sales", "imap", "off", "do", "plan"), 200, "Would change: 1 of 1 accounts")
	check := a.shows("in the wizard", a.post(at+"/policies/check", "name", "Tree", "type", "blacklist", "tree", "", "tree", "in-only:sales", "tree", "out:Human Resources", "ips", "192.0.2.1", "mode", "report"), 200, "admitted logins")
	a.shows("saved", a.post(at+"/policies", "policy", a.field(check, "policy")), 200, "Tree")
	id := regexp.MustCompile(at + `/policies/([^"]+)">Tree`).FindStringSubmatch(a.get(at + "/policies").text)[1]
	form := a.get(at + "/policies/" + id).text
	for _, want := range []string{`value="in-only:sales" selected`, `value="out:Human Resources" selected`} {
		if !strings.Contains(form, want) {
			s.t.Errorf("the form has no %s", want)
		}
	}
	a.shows("deleted", a.post(at+"/policies/"+id, "do", "delete"), 200, "The policy was changed")
	a.shows("no department any more", a.post("/accounts/"+bob, "departments", "", "secure_passwords", "optional"), 200, "The account was changed")
}

// An administrator tests and previews a policy before saving it, is stopped by the lock-out guard,
// keeps the change for ten minutes, and undoes it.
func (s *site) console() {
	const at = "/domains/example.org"
	s.want("a login on record", s.imap(outside, bob, s.passwords[bob]), "OK ")
	s.record("account="+bob+"&outcome=allow", func(object) bool { return true })
	a := s.administrator("admin", "")
	a.shows("the overview", a.get("/"), 200, "What needs attention")
	logins := a.shows("logins", a.get(at+"/logins?account="+bob), 200, "drawbridge logins example.org --account "+bob)
	explain := loginLink.FindString(logins.text)
	a.shows("explained in one click", a.get(explain), 200, "By the current rules")

	policy := []string{
		"name", "Not <i>outside</i>", "type", "blacklist", "all", "true", "ips", outside, "clients", "third-party", "mode", "enforce",
		"account", bob, "ip", outside, "protocol", "imap",
	}
	check := a.shows("the wizard's check", a.post(at+"/policies/check", policy...), 200, "admitted logins")
	a.shows("the test login", check, 200, "The test login: deny, policy; the policy: match")
	a.shows("before and after", check, 200, "<strong>policy</strong>")
	if n := len(s.api("GET", "/v1"+at+"/policies", nil)["items"].([]any)); n != 1 {
		s.t.Errorf("the check saved something: %d policies", n)
	}
	draft := a.field(check, "policy")
	lockout := a.shows("locked out", a.post(at+"/policies", "policy", draft), 409, bob)
	a.shows("the guard's buttons", lockout, 409, "revert it after ten minutes unless I confirm it")
	saved := a.shows("saved for ten minutes", a.post(at+"/policies", "policy", a.field(lockout, "policy"), "revert_after", "10m"), 200, "is reverted at")
	s.refuse("while it is in effect", s.imap(outside, bob, s.passwords[bob]), "OK ")
	if strings.Contains(saved.text, "<i>outside") {
		s.t.Error("a policy's name is not escaped")
	}
	revert := revertForm.FindString(saved.text)
	a.shows("undone", a.post(revert, "do", "undo"), 200, "is being reverted")
	s.eventually("the policy is gone", func() bool { return strings.HasPrefix(s.imap(outside, bob, s.passwords[bob]), "OK ") })

	a.shows("third-party clients are blocked", a.post(at+"/third-party", "allow", "false", "mode", "enforce", "secure_login_ips", trialstack.Office), 200, "The switch was set")
	s.refuse("outside", s.imap(outside, bob, s.passwords[bob]), "OK ")
	s.want("the office", s.imap(office, bob, s.passwords[bob]), "OK ")
	a.shows("a wrong network", a.post(at+"/third-party", "allow", "false", "mode", "enforce", "secure_login_ips", "x"), 422, "/secure_login_ips/0")
	a.shows("allowed again", a.post(at+"/third-party", "allow", "true", "mode", "enforce"), 200, "The switch was set")

	a.shows("who would be kept out", a.post(at+"/secure-passwords", "enforced", "true", "all", "true", "do", "plan"), 200, "Accounts whose logins of the last 30 days would be refused")
	s.want("a plan changes nothing", s.imap(outside, bob, s.passwords[bob]), "OK ")

	a.shows("an account", a.post("/accounts/"+bob, "pop3", "off", "secure_passwords", "optional"), 200, "The account was changed")
	s.refuse("pop3 is off", s.pop3(outside, bob, s.passwords[bob]), "+OK ")
	a.shows("a batch's dry run", a.post(at+"/batch", "members", bob+"\n"+ann, "pop3", "on", "do", "plan"), 200, "Would change: 2 of 2 accounts")
	a.shows("a batch", a.post(at+"/batch", "members", bob+"\n"+ann, "pop3", "on"), 200, "Changed: 2 of 2 accounts")
	s.want("pop3 is on", s.pop3(outside, bob, s.passwords[bob]), "+OK ")
	s.consoleDepartments(a)
	chart := a.shows("a chart", a.get(at+"/logins/chart?days=1"), 200, "Logins of the last 24 hours")
	a.shows("by region", chart, 200, "no region")

	page := a.get(at + "/document")
	text := strings.Replace(textarea(page, "document"), `"max_secure_passwords": 10`, `"max_secure_passwords": 7`, 1)
	a.shows("a document's diff", a.post(at+"/document", "document", text, "do", "plan"), 200, "max_secure_passwords [10,7]")
	a.shows("applied", a.post(at+"/document", "document", text), 200, "Applied")
	if n := s.api("GET", "/v1"+at, nil)["max_secure_passwords"]; n != 7.0 {
		s.t.Errorf("max_secure_passwords %v", n)
	}
	a.shows("a mail rule", a.post(at+"/mail-rules/new", "rule", `{"name":"Interns","kind":"internal_only","mode":"report","scope":{"members":["`+bob+`"]},"action":{}}`), 200, "Interns")
	a.shows("a bad mail rule", a.post(at+"/mail-rules/new", "rule", `{"kind":"nonsense"}`), 422, "/kind")
	a.shows("a blocked address", a.post(at+"/ip-blocks", "network", "198.51.100.7", "note", "abuse"), 200, "198.51.100.7")
	key := a.shows("a key", a.post("/keys", "name", "backup", "role", "read"), 200, "It is shown only now")
	a.shows("the audit", a.get("/audit"), 200, "key.create")
	a.shows("the store", a.get("/store"), 200, "takes changes")
	a.shows("sessions", a.get(at+"/sessions"), 200, "No session is open.")
	a.shows("held messages", a.get(at+"/held"), 200, "No message waits")

	// A session ends with its key.
	reader := s.browse(office)
	reader.shows("the new key", reader.post("/login", "key", shownSecret.FindStringSubmatch(key.text)[1]), 200, "role read")
	for _, k := range s.api("GET", "/v1/keys", nil)["items"].([]any) {
		if k := k.(object); k["name"] == "backup" {
			a.shows("revoked", a.post("/keys/"+k["id"].(string)+"/revoke"), 200, "The key was revoked")
		}
	}
	reader.shows("its session has ended", reader.get("/"), 200, "API key of role")
}

// Every page by every role: a domain's key sees its domain only, a reader changes nothing, and keys
// of role login and self open nothing.
func (s *site) consoleRoles() {
	s.api("POST", "/v1/domains", object{"name": "other.example"})
	for _, role := range []object{{"name": "l", "role": "login"}, {"name": "s", "role": "self", "account": ann}} {
		b := s.browse(office)
		b.shows("log-in", b.post("/login", "key", s.createKey(role)), 401, "opens no console")
		b.shows("the console", b.get("/audit"), 200, "API key of role")
	}
	own, other := "/domains/example.org", "/domains/other.example"
	reads := []string{"", "/logins", "/policies", "/policies/third-party-access", "/third-party", "/secure-passwords", "/accounts", "/departments", "/ip-blocks", "/held", "/mail-rules", "/groups", "/messages", "/inspection", "/secure-passwords/progress", "/sessions", "/document"}
	changes := []string{"/policies", "/policies/third-party-access", "/third-party", "/secure-passwords", "/batch", "/departments", "/ip-blocks", "/mail-rules/new", "/document", "/sessions/x/end", "/reverts/x", "/groups", "/inspection", "/withdraw", "/secure-passwords/progress", "/logins/x/confirm", "/logins/x/secure", "/suspensions/x"}
	domain, reader := s.administrator("domain", "example.org"), s.administrator("read", "")
	get := func(b *browser, path string, status int) {
		s.t.Helper()
		if p := b.get(path); p.status != status || status == 200 && strings.HasPrefix(p.path, "/login") {
			s.t.Errorf("GET %s: %d at %s, want %d", path, p.status, p.path, status)
		}
	}
	post := func(b *browser, path string, status int) {
		s.t.Helper()
		if p := b.do(http.MethodPost, path, url.Values{}); p.status != status {
			s.t.Errorf("POST %s: %d, want %d", path, p.status, status)
		}
	}
	for _, path := range reads {
		get(domain, own+path, 200)
		get(domain, other+path, 404)
		get(reader, own+path, 200)
		get(reader, other+path, 200)
	}
	for _, path := range changes {
		post(domain, other+path, 404)
		post(reader, own+path, 403)
	}
	for _, path := range []string{"/accounts/eve@other.example", "/accounts/eve@other.example/delete", "/accounts/eve@other.example/factors/reset", "/groups/team@other.example"} {
		post(domain, path, 404)
		post(reader, path, 403)
	}
	get(domain, "/accounts/eve@other.example", 404)
	get(domain, "/accounts/"+ann, 200)
	get(domain, "/store", 403)
	get(domain, "/keys", 200)
	get(domain, "/", 200)
	post(reader, "/keys", 403)
	post(reader, "/throttle", 403)
	get(reader, "/throttle", 200)
	get(domain, "/groups/team@other.example", 404)
	for _, path := range []string{"/withdraw", "/groups/new", "/policies/new", "/batch"} { // forms of changes
		get(domain, own+path, 200)
		get(domain, other+path, 404)
		get(reader, own+path, 403)
	}
	domain.shows("a stronger key", domain.post("/keys", "name", "x", "role", "admin"), 403, "Not allowed")
	if text := domain.get("/audit?domain=other.example").text; strings.Contains(text, "other.example") {
		s.t.Error("a domain's key reads another domain's audit")
	}
	if text := domain.get("/keys").text; strings.Contains(text, "read of the console") {
		s.t.Error("a domain's key sees the site's keys")
	}
	s.api("DELETE", "/v1/domains/other.example?confirm=true", nil)
}

// What other sites, guessers and forgers try.
func (s *site) pageAttacks() {
	u := s.browse(outside)
	u.shows("log-in", u.post("/account/login", "account", ann, "password", s.passwords[ann]), 200, "My devices")
	p := u.get("/account")
	for name, want := range map[string]string{
		"Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
		"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
	} {
		if !strings.Contains(p.header.Get(name), want) {
			s.t.Errorf("%s: %q", name, p.header.Get(name))
		}
	}
	if csp := p.header.Get("Content-Security-Policy"); strings.Contains(csp, "unsafe") {
		s.t.Errorf("the policy allows something inline: %s", csp)
	}
	// Another site's page sends a form, by a browser that says so, or that only sends Origin.
	for _, header := range []http.Header{{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}}, {"Origin": {"https://evil.example"}}, {"Origin": {"null"}}} {
		u.header = header
		u.shows("cross-site", u.post("/account/logout"), 403, "Another site sent this request")
	}
	// A name that resolves to this machine.
	u.header = http.Header{"Host": {"evil.example:8482"}}
	u.shows("DNS rebinding", u.get("/account"), 421, "another host")
	// A proxy that is not trusted names a client.
	u.header = http.Header{"X-Forwarded-For": {"203.0.113.77"}}
	u.shows("forged address", u.post("/account/login", "account", ann, "password", s.passwords[ann]), 200, "My devices")
	s.record("account="+ann+"&client=console", func(r object) bool {
		if r["ip"] == "203.0.113.77" {
			s.t.Error("X-Forwarded-For of an untrusted client was believed")
		}
		return true
	})
	u.header = http.Header{}
	// Open redirects.
	for _, next := range []string{"https://evil.example/", "//evil.example/", "/\\evil.example/", "javascript:alert(1)", "/account\r\nX: y"} {
		b := s.browse(outside)
		if p := b.post("/account/login", "account", ann, "password", s.passwords[ann], "next", next); p.path != "/account" {
			s.t.Errorf("next=%q leads to %s", next, p.path)
		}
	}
	// Session fixation: the token that a browser had before the log-in opens nothing.
	b := s.browse(outside)
	b.post("/account/login", "account", ann, "password", s.passwords[ann])
	base, err := url.Parse(b.base)
	s.must(err)
	before := b.client.Jar.Cookies(base)
	b.post("/account/login", "account", ann, "password", s.passwords[ann])
	fixed := s.browse(outside)
	fixed.client.Jar.SetCookies(base, before)
	fixed.shows("the former token", fixed.get("/account"), 200, "Mailbox password")
	// A secure password opens no page, and a label is shown as it is.
	_, secret := s.device(ann, `"><script>alert(1)</script>`)
	b = s.browse(outside)
	b.shows("a secure password", b.post("/account/login", "account", ann, "password", secret), 401, "The address or the password is wrong")
	if strings.Contains(u.get("/account").text, "<script>alert") {
		s.t.Error("a label is not escaped")
	}
	// A one-time link and a form, sent by two browsers at once, are used once.
	link := phoneLink.FindStringSubmatch(u.post("/account/devices", "once", u.field(u.get("/account/devices/new"), "once"), "label", "Twice", "as", "link").text)[1]
	_, path, _ := strings.Cut(strings.TrimPrefix(link, "http://"), "/")
	used := 0
	for _, text := range s.atOnce("/"+path, url.Values{"as": {"show"}}, s.browse(outside), s.browse(office), s.browse(outside), s.browse(office)) {
		used += strings.Count(text, `id="secret"`)
	}
	form := url.Values{"once": {u.field(u.get("/account/devices/new"), "once")}, "label": {"Twice"}, "as": {"show"}}
	for _, text := range s.atOnce("/account/devices", form, u, u, u, u) {
		used += strings.Count(text, `id="secret"`)
	}
	if used != 2 {
		s.t.Errorf("a link and a form made %d passwords", used)
	}
	// A suspended account is refused like a wrong password, and whoever began a log-in with a second
	// factor does not finish it as the next account of the name, which has none.
	s.api("PUT", "/v1/accounts/dave@example.org", object{"suspended": true})
	u.header = http.Header{}
	b = s.browse(outside)
	refused := b.shows("a suspended account", b.post("/account/login", "account", "dave@example.org", "password", "x"), 401, "The address or the password is wrong")
	if unknown := b.post("/account/login", "account", "nobody@example.org", "password", "x"); strings.ReplaceAll(unknown.text, "nobody", "dave") != refused.text {
		s.t.Errorf("a suspended account has another answer:\n%s\n%s", refused.text, unknown.text)
	}
	s.api("PATCH", "/v1/accounts/dave@example.org", object{"suspended": false})
	made := s.api("POST", "/v1/accounts/dave@example.org/second-factors/totp", object{"label": "phone"})
	s.api("POST", "/v1/accounts/dave@example.org/second-factors/"+made["id"].(string)+"/confirm", object{"code": s.otp(made["secret"].(string), -1)})
	step := b.shows("his password", b.post("/account/login", "account", "dave@example.org", "password", s.passwords["dave@example.org"]), 200, "Your password was accepted")
	s.api("DELETE", "/v1/accounts/dave@example.org?confirm=true", nil)
	s.api("PUT", "/v1/accounts/dave@example.org", object{})
	if n := len(s.api("GET", "/v1/accounts/dave@example.org/second-factors", nil)["items"].([]any)); n != 0 {
		s.t.Errorf("the next account of the name has %d factors", n)
	}
	b.shows("as the next account of the name", b.post("/account/login/factor", "token", b.field(step, "token"), "code", s.otp(made["secret"].(string), 0)), 401, "The login has expired")
	b.shows("not logged in", b.get("/account"), 200, "Mailbox password")
	// Another account's device.
	id, _ := s.device(bob, "Bob's")
	u.shows("another's device", u.get("/account/devices/"+id+"/state"), 404, "Not found")
	u.shows("another's device", u.post("/account/devices/"+id+"/delete"), 404, "Not found")
	if n := len(s.api("GET", "/v1/accounts/"+bob+"/secure-passwords", nil)["items"].([]any)); n != 1 {
		s.t.Errorf("%d devices of bob", n)
	}
	// A user who is suspended is logged out.
	s.api("PATCH", "/v1/accounts/"+ann, object{"suspended": true})
	u.shows("suspended", u.get("/account"), 200, "Mailbox password")
	s.api("PATCH", "/v1/accounts/"+ann, object{"suspended": false})
	// Whoever is logged in is not logged in as the next account of the same name.
	u.shows("logged in", u.get("/account"), 200, "My devices")
	s.api("DELETE", "/v1/accounts/"+ann+"?confirm=true", nil)
	s.api("PUT", "/v1/accounts/"+ann, object{})
	u.shows("the next of the name", u.get("/account"), 200, "Mailbox password")
	// Guesses at keys.
	guesser := s.browse("127.0.9.77")
	s.eventually("guesses are refused", func() bool {
		return guesser.post("/login", "key", "dbk_"+randomWord()).status == 429
	})
}

// atOnce sends a form from two browsers at once, and returns what they are answered.
func (s *site) atOnce(path string, form url.Values, browsers ...*browser) (answers []string) {
	s.t.Helper()
	texts := make([]string, len(browsers))
	errs := make([]error, len(browsers))
	var wait sync.WaitGroup
	for i, b := range browsers {
		wait.Go(func() {
			resp, err := b.client.PostForm(b.base+path, form)
			if err != nil {
				errs[i] = err
				return
			}
			defer func() { _ = resp.Body.Close() }()
			text, err := io.ReadAll(resp.Body)
			texts[i], errs[i] = string(text), err
		})
	}
	wait.Wait()
	s.must(errors.Join(errs...))
	return texts
}

// What a domain's administrator names of another tenant (records, devices, sessions, keys, messages,
// by id or by filter) is not there.
func (s *site) otherTenants() {
	const at, theirs = "/domains/example.org", "/domains/example.net"
	s.api("POST", "/v1/domains", object{"name": "example.net", "third_party_access": object{"allow": true, "mode": "enforce"}})
	defer s.api("DELETE", "/v1/domains/example.net?confirm=true", nil)
	s.api("PUT", "/v1/accounts/"+eve, object{})
	s.api("PUT", "/v1/accounts/"+bob, object{})
	device, secret := s.device(eve, "Eve's secret laptop")
	open := s.idle("eve", "127.0.9.91", eve, secret)
	record := s.api("GET", "/v1"+theirs+"/logins", nil)["items"].([]any)
	s.eventually("the login is on record", func() bool {
		record = s.api("GET", "/v1"+theirs+"/logins", nil)["items"].([]any)
		return len(record) > 0
	})
	login := record[0].(object)["id"].(string)
	policy := s.api("POST", "/v1"+theirs+"/policies?revert_after=10m", object{"name": "Eve's", "type": "blacklist", "mode": "report", "scope": object{"all": true}, "ips": []string{"192.0.2.1"}})["id"].(string)
	revert := s.api("GET", "/v1"+theirs+"/reverts", nil)["items"].([]any)[0].(object)["id"].(string)
	var session string
	s.eventually("the session is listed", func() bool {
		items := s.api("GET", "/v1"+theirs+"/sessions", nil)["items"].([]any)
		if len(items) > 0 {
			session = items[0].(object)["id"].(string)
		}
		return session != ""
	})
	key := s.api("POST", "/v1/keys", object{"name": "Eve's key", "role": "domain", "domain": "example.net"})["id"].(string)

	d := s.administrator("domain", "example.org")
	for _, path := range []string{
		"/logins/" + login, "/policies/" + policy, "/logins?account=" + eve, "/logins?device=" + device, "/logins?ip=127.0.9.91", "/messages?account=" + eve,
		"/messages/explain?queue_id=x&account=" + eve, "/inspection?days=0&account=" + eve, "/withdraw?credential=" + device + "&account=" + eve, "/sessions", "/policies", "/accounts?address=" + eve,
	} {
		if p := d.get(at + path); strings.Contains(p.text, "secret laptop") || strings.Contains(p.text, "127.0.9.91</td>") || strings.Contains(p.text, "Eve&#39;s") ||
			strings.Contains(path, login) && p.status != 404 || strings.Contains(path, policy) && p.status != 404 {
			s.t.Errorf("%s shows: %d %s", path, p.status, p.text)
		}
	}
	for path, form := range map[string][]string{
		at + "/logins/" + login + "/confirm":                           nil,
		at + "/logins/" + login + "/secure":                            {"do", "all"},
		at + "/policies/" + policy:                                     {"do", "delete"},
		at + "/reverts/" + revert:                                      {"do", "undo"},
		at + "/sessions/" + session + "/end":                           nil,
		"/accounts/" + bob + "/secure-passwords/" + device + "/revoke": nil,
		"/accounts/" + eve + "/secure-passwords/" + device + "/revoke": nil,
		"/keys/" + key + "/revoke":                                     nil,
		at + "/batch":                                                  {"members", eve, "imap", "off"},
		at + "/withdraw":                                               {"credential", device, "since", "2026-01-01T00:00"},
		at + "/policies":                                               {"name", "x", "type", "blacklist", "members", eve, "ips", "192.0.2.9", "mode", "enforce"},
		"/groups/team@example.net":                                     {"who_may_send", "anyone"},
		"/throttle":                                                    {"subject", eve},
	} {
		if p := d.post(path, form...); strings.Contains(p.text, "secret laptop") || p.status == 200 && !strings.Contains(path, "/sessions/") && !strings.Contains(path, "/withdraw") && !strings.Contains(path, "/batch") {
			s.t.Errorf("POST %s: %d %s", path, p.status, p.text)
		}
	}
	s.stays(open)
	s.want("her device", s.imap("127.0.9.91", eve, secret), "OK ")
	if n := len(s.api("GET", "/v1"+theirs+"/reverts", nil)["items"].([]any)); n != 1 {
		s.t.Errorf("%d reverts", n)
	}
	if r := s.api("GET", "/v1/accounts/"+eve, nil); toJSON(r["protocols"]) != "{}" {
		s.t.Errorf("a batch changed another tenant's account: %v", r)
	}
	found := false
	for _, k := range s.api("GET", "/v1/keys", nil)["items"].([]any) {
		found = found || k.(object)["id"] == key
	}
	if !found {
		s.t.Error("another tenant's key was revoked")
	}
	s.api("DELETE", "/v1/keys/"+key, nil)
}

// Names, labels and what clients and messages say of themselves are shown as text, on every page.
func (s *site) markup() {
	const at, mark = "/domains/example.org", `"'><zz onclick=x>`
	a := s.administrator("admin", "")
	s.api("POST", "/v1/keys", object{"name": mark, "role": "read"})
	s.api("PUT", "/v1/domains/example.org/departments/x%22'%3E%3Czz", object{"name": mark})
	policy := s.api("POST", "/v1"+at+"/policies?revert_after=10m", object{"name": mark, "type": "blacklist", "mode": "report", "scope": object{"all": true}, "ips": []string{"192.0.2.1"}})["id"].(string)
	block := s.api("POST", "/v1"+at+"/ip-blocks", object{"network": "198.51.100.99", "note": mark})["id"].(string)
	rule := s.api("POST", "/v1"+at+"/mail-rules", object{"name": mark, "kind": "audit", "mode": "enforce", "scope": object{"members": []string{carol}}, "direction": "sent", "match": object{"subject": []string{"zz"}}, "action": object{"approvers": []string{bob}}})["id"].(string)
	device, secret := s.device(carol, mark)
	c, err := mailclient.Client{From: "127.0.9.92"}.IMAP(s.ctx, s.IMAP())
	s.must(err)
	_, err = c.StartTLS()
	s.must(err)
	_, err = c.ID("name", "<zz client>")
	s.must(err)
	open := s.idling("the device", c, carol, secret)
	factor := s.api("POST", "/v1/accounts/"+carol+"/second-factors/totp", object{"label": mark})["id"].(string)
	smtp, r := s.submit(outside, carol, secret)
	s.want("submission", r, "235 ")
	s.want("held", s.send(smtp, carol, ann, "From: "+carol+"\r\nTo: "+ann+"\r\nSubject: <zz subject>\r\nMessage-ID: <<zz id>@client>\r\n\r\nx\r\n"), "250 ")
	s.held("<zz subject>")
	rec := s.record("account="+carol+"&ip=127.0.9.92", func(r object) bool { return r["outcome"] == "allow" })
	shown := 0
	for _, path := range []string{
		"/", at, at + "/logins", at + "/logins/" + rec["id"].(string), at + "/logins/chart", at + "/policies", at + "/policies/new", at + "/policies/" + policy, at + "/accounts", "/accounts/" + carol,
		at + "/departments", at + "/batch", at + "/ip-blocks", at + "/held", at + "/mail-rules", at + "/mail-rules/" + rule, at + "/mail-rules/" + rule + "?as=document", at + "/messages", at + "/sessions",
		at + "/inspection?days=0", at + "/secure-passwords", at + "/secure-passwords/progress", at + "/document", at + "/document?accounts=true", "/keys", "/audit", "/audit?domain=example.org",
		at + "/logins?account=%3Czz&reason=%22%3E%3Czz&region=%3Czz&device=%3Czz", at + "/messages?account=%3Czz&queue_id=%22%3E%3Czz", at + "/withdraw?credential=%22%3E%3Czz&account=%3Czz&since=%3Czz",
		at + "/inspection?account=%3Czz", "/login?next=%22%3E%3Czz", "/%3Czz", at + "/logins?cursor=%3Czz",
	} {
		p := a.get(path)
		if strings.Contains(p.text, "<zz") || strings.Contains(p.text, `"'>`) {
			at := max(strings.Index(p.text, "<zz"), strings.Index(p.text, `"'>`))
			s.t.Errorf("%s: %s", path, p.text[max(0, at-200):min(len(p.text), at+100)])
		}
		if strings.Contains(p.text, "&lt;zz") || strings.Contains(p.text, "&#34;&#39;&gt;") {
			shown++
		}
	}
	if shown < 20 {
		s.t.Errorf("only %d pages show something that was marked", shown)
	}
	u := s.browse(outside)
	u.shows("log-in", u.post("/account/login", "account", carol, "password", s.passwords[carol]), 200, "My devices")
	for _, path := range []string{"/account", "/account/logins", "/account/sessions", "/account/factors", "/account/devices/" + device + "/state", "/account/devices/" + device + "/delete", "/account/login?next=%22%3E%3Czz"} {
		if p := u.get(path); strings.Contains(p.text, "<zz") {
			s.t.Errorf("%s: %s", path, p.text)
		}
	}
	s.command("held", "reject", s.held("<zz subject>")["id"].(string))
	s.api("DELETE", "/v1"+at+"/mail-rules/"+rule, nil)
	s.api("DELETE", "/v1"+at+"/policies/"+policy+"?confirm=true", nil)
	s.api("DELETE", "/v1"+at+"/ip-blocks/"+block, nil)
	s.api("DELETE", "/v1/accounts/"+carol+"/second-factors/"+factor, nil)
	s.api("DELETE", "/v1/accounts/"+carol+"/secure-passwords/"+device, nil)
	s.ends(open)
}

// A user adds a second factor; the page asks for it from then on, whichever server verifies the
// password, and accepts a code once.
func (s *site) pageFactors() {
	t := s.t
	u := s.browse(outside)
	u.shows("log-in", u.post("/account/login", "account", bob, "password", s.passwords[bob]), 200, "My devices")
	made := u.shows("an app", u.post("/account/factors/totp", "label", "phone"), 200, "Code that the app shows")
	id := regexp.MustCompile(`/account/factors/([^/"]+)/confirm`).FindStringSubmatch(made.text)[1]
	secret := regexp.MustCompile(`id="totp">([^<]+)<`).FindStringSubmatch(made.text)[1]
	thief := s.browse(office)
	thief.shows("log-in by the password alone", thief.post("/account/login", "account", bob, "password", s.passwords[bob]), 200, "My devices")
	u.shows("a wrong code", u.post("/account/factors/"+id+"/confirm", "code", "000000"), 401, "The code is wrong")
	u.shows("confirmed", u.post("/account/factors/"+id+"/confirm", "code", s.otp(secret, -1)), 200, "logins to this page ask for it")
	codes := regexp.MustCompile(`<li><code>([^<]+)</code>`).FindStringSubmatch(u.shows("recovery codes", u.post("/account/factors/recovery-codes"), 200, "They are shown only now").text)
	thief.shows("the first factor ends what the password alone began", thief.get("/account"), 200, "Mailbox password")
	other := s.browse(outside)
	other.shows("a wrong password with a code", other.post("/account/login", "account", bob, "password", "x", "code", s.otp(secret, 0)), 401, "The address or the password is wrong")
	step := other.shows("the password", other.post("/account/login", "account", bob, "password", s.passwords[bob]), 200, "Your password was accepted")
	other.shows("nothing is open yet", other.get("/account"), 200, "Mailbox password")
	token := other.field(step, "token")
	other.shows("a wrong code", other.post("/account/login/factor", "token", token, "code", "000000"), 401, "The code is wrong, or was used before")
	other.shows("the token again", other.post("/account/login/factor", "token", token, "code", s.otp(secret, 0)), 401, "The login has expired")
	step = other.post("/account/login", "account", bob, "password", s.passwords[bob])
	other.shows("the code, which was not used up", other.post("/account/login/factor", "token", other.field(step, "token"), "code", s.otp(secret, 0)), 200, "My devices")
	s.record("account="+bob+"&client=console&outcome=allow", func(r object) bool { return r["protocol"] == "web" })
	other.shows("logged out", other.post("/account/logout"), 200, "Mailbox password")
	other.shows("the code again, with the password", other.post("/account/login", "account", bob, "password", s.passwords[bob], "code", s.otp(secret, 0)), 403, "A second factor is required to log in")
	s.record("account="+bob+"&reason=second_factor_required&client=console", func(r object) bool { return r["note"] == "the time-based code was used before" })
	other.shows("a recovery code", other.post("/account/login", "account", bob, "password", s.passwords[bob], "code", codes[1]), 200, "My devices")
	other.shows("a device", other.post("/account/devices", "once", other.field(other.get("/account/devices/new"), "once"), "label", "Laptop", "as", "show"), 200, "shown only now")
	other.shows("deleted", other.post("/account/factors/"+id+"/delete"), 200, "The second factor was deleted")

	// Where a factor is required, the password alone opens the page that adds the first one.
	s.command("domain", "set", "example.org", "--second-factor", "required")
	other.shows("without one", other.get("/account"), 200, "Your administrator requires a second factor")
	u.shows("log-in", u.post("/account/login", "account", bob, "password", s.passwords[bob]), 200, "Your administrator requires a second factor")
	for _, path := range []string{"/account", "/account/logins", "/account/sessions", "/account/devices/new"} {
		if p := u.get(path); p.path != "/account/factors" {
			t.Errorf("%s leads to %s", path, p.path)
		}
	}
	if p := u.post("/account/devices", "label", "x", "as", "show"); p.path != "/account/factors" {
		t.Errorf("a device leads to %s", p.path)
	}
	made = u.shows("an app", u.post("/account/factors/totp", "label", "phone"), 200, "Code that the app shows")
	id = regexp.MustCompile(`/account/factors/([^/"]+)/confirm`).FindStringSubmatch(made.text)[1]
	secret = regexp.MustCompile(`id="totp">([^<]+)<`).FindStringSubmatch(made.text)[1]
	u.shows("confirmed", u.post("/account/factors/"+id+"/confirm", "code", s.otp(secret, -1)), 200, "logins to this page ask for it")
	u.shows("logged in", u.get("/account"), 200, "My devices")
	other.shows("whoever had the password alone", other.get("/account"), 200, "Mailbox password")
	s.command("factor", "reset", bob)
	u.shows("after a reset it is asked for again", u.get("/account"), 200, "Your administrator requires a second factor")
	s.command("domain", "set", "example.org", "--second-factor", "off")
}
