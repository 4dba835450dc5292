package e2e

import (
	"html"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// browser is somebody's browser without scripts.
type browser struct {
	*site
	client *http.Client
	base   string
	header http.Header // sent with each request
}

// browse returns a new browser at an address.
func (s *site) browse(from string) *browser {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	s.must(err)
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return &browser{
		site: s, base: "http://" + s.Daemons[0].ConsoleAddr, header: http.Header{},
		client: &http.Client{Jar: jar, Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}},
	}
}

// answered is an answer, after redirects.
type answered struct {
	status int
	path   string
	text   string
	header http.Header
}

func (b *browser) do(method, path string, form url.Values) answered {
	b.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	if !strings.HasPrefix(path, "http") {
		path = b.base + path
	}
	req, err := http.NewRequestWithContext(b.ctx, method, path, body)
	b.must(err)
	for name, values := range b.header {
		req.Header[name] = values
	}
	if host := b.header.Get("Host"); host != "" {
		req.Host = host
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := b.client.Do(req)
	b.must(err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	b.must(err)
	if m := shownCommand.FindSubmatch(text); m != nil && b.shown != nil {
		b.shown[html.UnescapeString(string(m[1]))] = true
	}
	return answered{resp.StatusCode, resp.Request.URL.RequestURI(), string(text), resp.Header}
}

func (b *browser) get(path string) answered { b.t.Helper(); return b.do("GET", path, nil) }

// post sends a form: names and values in turn.
func (b *browser) post(path string, fields ...string) answered {
	b.t.Helper()
	form := url.Values{}
	for i := 0; i+1 < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	return b.do("POST", path, form)
}

// shows ends the test unless a page has a status and a text.
func (b *browser) shows(what string, p answered, status int, text string) answered {
	b.t.Helper()
	if p.status != status || !strings.Contains(html.UnescapeString(p.text), text) {
		_, body, _ := strings.Cut(p.text, "<main")
		b.t.Fatalf("%s: %d at %s, want %d with %q:\n%.3000s", what, p.status, p.path, status, text, body)
	}
	return p
}

// field returns the value of a hidden field of a page's form.
func (b *browser) field(p answered, name string) string {
	b.t.Helper()
	m := regexp.MustCompile(`name="` + name + `" value="([^"]*)"`).FindStringSubmatch(p.text)
	if m == nil {
		b.t.Fatalf("no field %s in %s", name, p.text)
	}
	return html.UnescapeString(m[1])
}

var (
	shownSecret = regexp.MustCompile(`id="secret">([^<]+)<`)
	phoneLink   = regexp.MustCompile(`id="link">([^<]+)<`)
	deviceID    = regexp.MustCompile(`/account/devices/([^/"]+)/state`)
)

// The users' page and the console, without scripts and in a browser, on one site.
func TestPages(t *testing.T) {
	t.Parallel()
	gateway := newHook(t)
	provider := newSignOns(t)
	settings := map[string]any{
		"guard.locked_out_percent": 1, "throttle.wrong_secrets_per_account": 5,
		"notify.sms_webhook_url": gateway.URL, "notify.sms_webhook_key_file": gateway.keyFile,
	}
	maps.Copy(settings, provider.settings)
	s := start(t, trialstack.Options{Daemons: 2, SharedRedis: true, Settings: settings})
	s.shown = map[string]bool{}
	s.domain(nil)
	s.api("PUT", "/v1/accounts/"+carol, object{}) // what is inspected must be older than a second
	for _, part := range []struct {
		name string
		test func(*site)
	}{
		{"self-service", (*site).selfService},
		{"console", (*site).console},
		{"mail", (*site).consoleMail},
		{"watch", (*site).consoleWatch},
		{"roles", (*site).consoleRoles},
		{"attacks", (*site).pageAttacks},
		{"other tenants", (*site).otherTenants},
		{"markup", (*site).markup},
		{"factors", (*site).pageFactors},
		{"sign-on", provider.test},
		{"sent codes", func(s *site) { s.sentCodes(gateway) }},
		{"commands", (*site).shownCommands},
		{"password places", func(s *site) { // resetOnConsole tries the same on another site
			if allPages {
				s.passwordPlaces()
			}
		}},
		{"browser", (*site).inBrowser},
		{"store away", (*site).pagesAway},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(s.in(t)) })
	}
}

// While Redis is away every page says so, nothing is changed and nobody logs in or out; mail programs go
// on. Once it is back, whoever was logged in still is.
func (s *site) pagesAway() {
	const at = "/domains/example.org"
	const away = "The store cannot be reached"
	a, u := s.administrator("admin", ""), s.browse(outside)
	u.shows("log-in", u.post("/account/login", "account", ann, "password", s.passwords[ann]), 200, "My devices")
	s.must(s.Redis.Kill())
	for _, path := range []string{
		"/", at, at + "/logins", at + "/logins/chart", at + "/logins/x", at + "/policies", at + "/policies/new", at + "/policies/x", at + "/third-party", at + "/secure-passwords",
		at + "/secure-passwords/progress", at + "/accounts", "/accounts/" + ann, "/accounts/" + ann + "/forwards", at + "/batch", at + "/departments", at + "/ip-blocks", at + "/held",
		at + "/mail-rules", at + "/mail-rules/new", at + "/groups", at + "/groups/new", "/groups/team@example.org", at + "/messages", at + "/messages/explain?queue_id=x", at + "/inspection",
		at + "/withdraw", at + "/sessions", at + "/document", "/keys", "/audit", "/throttle", "/store",
	} {
		a.shows(path, a.get(path), 503, away)
	}
	for _, path := range []string{"/policies", "/third-party", "/batch", "/departments", "/document", "/ip-blocks", "/mail-rules/new"} {
		a.shows("POST "+path, a.post(at+path, "name", "x", "path", "away"), 503, away)
	}
	for _, path := range []string{"/account", "/account/devices/new", "/account/devices/x/state", "/account/devices/x/delete", "/account/factors", "/account/logins", "/account/logins/x/not-mine", "/account/sessions", "/account/password"} {
		u.shows(path, u.get(path), 503, away)
	}
	u.header.Set("Accept-Language", "de")
	u.shows("in German", u.get("/account"), 503, "Der Speicher ist nicht erreichbar")
	u.header = http.Header{}
	u.shows("a new device", u.post("/account/devices", "label", "x", "as", "show"), 503, away)
	u.shows("a log-out", u.post("/account/logout"), 503, away)
	for what, p := range map[string]answered{
		"a log-in":                s.browse(outside).post("/account/login", "account", ann, "password", s.passwords[ann]),
		"a log-in to the console": s.browse(outside).post("/login", "key", "dbk_x"),
		"a link for a phone":      s.browse(outside).get("/account/phone/x"),
	} {
		if p.status != 503 && p.status != 401 || strings.Contains(p.text, "My devices") {
			s.t.Errorf("%s: %d %s", what, p.status, p.text)
		}
	}
	s.want("a mail program", s.imap(outside, ann, s.passwords[ann]), "OK ")
	s.must(s.Redis.Restart(s.ctx))
	s.eventually("the pages are back", func() bool { return a.get("/").status == 200 && u.get("/account").status == 200 })
	a.shows("still logged in", a.get(at+"/departments"), 200, "Departments")
	u.shows("still logged in", u.get("/account"), 200, "My devices")
}

// A user logs in with the mailbox password of the site's own passdb, sets up a device, sees its
// first login, ends its session and deletes it.
func (s *site) selfService() {
	t := s.t
	u := s.browse(outside)
	u.shows("not logged in", u.get("/account"), 200, "Mailbox password")
	unknown := u.shows("an unknown account", u.post("/account/login", "account", "nobody@example.org", "password", "x"), 401, "The address or the password is wrong.")
	wrong := u.shows("a wrong password", u.post("/account/login", "account", "nobody@example.org", "password", "y"), 401, "The address or the password is wrong.")
	if unknown.text != wrong.text {
		t.Error("an unknown account has another answer")
	}
	u.shows("a domain that is not managed", u.post("/account/login", "account", "eve@example.net", "password", "eve-mailbox"), 401, "The address or the password is wrong.")
	u.shows("logged in", u.post("/account/login", "account", ann, "password", s.passwords[ann]), 200, "You have no devices yet")
	s.record("account="+ann+"&client=console", func(r object) bool { return r["outcome"] == "allow" && r["protocol"] == "web" && r["ip"] == outside })

	form := u.get("/account/devices/new")
	once := u.field(form, "once")
	created := u.shows("a new device", u.post("/account/devices", "once", once, "label", `<b>"My' phone`, "as", "show"), 200, "shown only now")
	secret := html.UnescapeString(shownSecret.FindStringSubmatch(created.text)[1])
	id := deviceID.FindStringSubmatch(created.text)[1]
	if strings.Contains(created.text, "<b>") {
		t.Error("the label is not escaped")
	}
	u.shows("the form sent again", u.post("/account/devices", "once", once, "label", "again", "as", "show"), 200, "This form was sent before")
	u.shows("no login yet", u.get("/account/devices/"+id+"/state"), 200, "Waiting for the first login")
	u.header.Set("HX-Request", "true")
	u.shows("a script asks again", u.get("/account/devices/"+id+"/state"), 204, "")
	u.header = http.Header{}
	device := s.idle("the device", outside, ann, secret)
	s.eventually("the page shows the first login", func() bool {
		return strings.Contains(u.get("/account/devices/"+id+"/state").text, "Done: the device has logged in")
	})
	u.header.Set("HX-Request", "true")
	u.shows("a script asks no more", u.get("/account/devices/"+id+"/state"), 286, "Done: the device has logged in")
	u.header = http.Header{}
	u.shows("its session", u.get("/account/sessions"), 200, `<b>"My' phone`)
	u.shows("its login", u.get("/account/logins"), 200, `<b>"My' phone`)
	u.shows("deleted", u.post("/account/devices/"+id+"/delete"), 200, "The device was deleted") // by either daemon
	s.eventually("the session has ended", func() bool { return device.alive() != nil })
	s.refuse("the deleted device", s.imap(outside, ann, secret), "OK ")

	// A one-time link, on another browser that is not logged in.
	link := phoneLink.FindStringSubmatch(u.post("/account/devices", "once", u.field(u.get("/account/devices/new"), "once"), "label", "Phone", "as", "link").text)[1]
	phone := s.browse(outside)
	phone.shows("a scanner's look", phone.get(link), 200, "sets up mail on this device, once")
	profile := phone.do("POST", link, url.Values{"as": {"profile"}})
	if profile.header.Get("Content-Type") != "application/x-apple-aspen-config" || !strings.Contains(profile.text, "com.apple.mail.managed") {
		t.Errorf("no profile: %v %s", profile.header, profile.text)
	}
	if profile.text[0] != 0x30 { // the beginning of a PKCS #7 message, which contains the profile
		t.Error("the profile is not signed")
	}
	secret = regexp.MustCompile(`<key>IncomingPassword</key><string>([^<]+)<`).FindStringSubmatch(profile.text)[1]
	s.want("the phone", s.imap(outside, ann, secret), "OK ")
	phone.shows("used twice", phone.do("POST", link, url.Values{"as": {"show"}}), 200, "This link was used")
	phone.shows("guessed", phone.do("POST", link[:len(link)-3]+"AAA", url.Values{"as": {"show"}}), 200, "This link was used")

	// A device with limits, which its page and the list show.
	limited := func(fields ...string) answered {
		return u.post("/account/devices", append(fields, "once", u.field(u.get("/account/devices/new"), "once"), "label", "Scanner", "as", "show")...)
	}
	u.shows("a wrong limit", limited("networks", "office", "expires", "tomorrow"), 422, "Networks that it may log in from")
	u.shows("a day that has passed", limited("expires", "2020-01-01"), 422, "is not in the future")
	created = u.shows("for sending", limited("protocols", "smtp", "networks", office, "expires", "2099-12-31"), 200, "for sending only")
	secret = html.UnescapeString(shownSecret.FindStringSubmatch(created.text)[1])
	u.shows("the list", u.get("/account"), 200, "until <time datetime=\"2099-12-31T23:59:59Z\">")
	s.refuse("reading", s.imap(office, ann, secret), "OK ")
	_, reply := s.submit(outside, ann, secret)
	s.refuse("from elsewhere", reply, "235 ")
	_, reply = s.submit(office, ann, secret)
	s.want("sending", reply, "235 ")

	// The user's own choice, with its confirmation.
	u.shows("asked", u.post("/account/secure-passwords", "choice", "required"), 200, "Mail programs that use your mailbox password stop working")
	s.want("nothing has changed", s.imap(office, ann, s.passwords[ann]), "OK ")
	u.shows("confirmed", u.post("/account/secure-passwords", "choice", "required", "confirm", "1"), 200, "Your choice was saved.")
	s.refuse("the mailbox password", s.imap(office, ann, s.passwords[ann]), "OK ")
	u.shows("switched off", u.post("/account/secure-passwords", "choice", "optional", "confirm", "1"), 200, "Your choice was saved.")
	s.want("the mailbox password again", s.imap(office, ann, s.passwords[ann]), "OK ")

	// An open session ends at its button.
	_, second := s.device(ann, "second")
	idle := s.idle("the second device", "127.0.9.41", ann, second)
	endButton := regexp.MustCompile(`/account/sessions/[^"]+/end`)
	s.eventually("the session is listed", func() bool { return endButton.MatchString(u.get("/account/sessions").text) })
	u.shows("ended", u.post(endButton.FindString(u.get("/account/sessions").text)), 200, "The session was ended.")
	s.eventually("the session has ended", func() bool { return idle.alive() != nil })

	// "It was me" and "it was not me".
	s.want("from another place", s.imap("127.0.9.42", ann, second), "OK ")
	unusual := s.record("account="+ann+"&ip=127.0.9.42", func(r object) bool { return r["outcome"] == "allow" && toJSON(r["abnormal"]) != "[]" })
	id = unusual["id"].(string)
	u.shows("marked", u.get("/account/logins"), 200, "another network")
	u.shows("it was me", u.post("/account/logins/"+id+"/mine"), 200, "Such logins are usual from now on")
	u.shows("somebody else's login", u.get("/account/logins/nobody/not-mine"), 404, "")
	u.shows("it was not me", u.get("/account/logins/"+id+"/not-mine"), 200, "127.0.9.42")
	other := s.browse(outside)
	other.shows("a second browser", other.post("/account/login", "account", ann, "password", s.passwords[ann]), 200, "Phone")
	idle = s.idle("the second device", "127.0.9.41", ann, second)
	u.shows("secured", u.post("/account/secure"), 200, "The passwords of all devices were deleted. Open sessions that were ended: ")
	s.eventually("the session has ended", func() bool { return idle.alive() != nil })
	s.refuse("a device", s.imap(outside, ann, second), "OK ")
	for _, b := range []*browser{u, other} {
		b.shows("logged out", b.get("/account"), 200, "Mailbox password")
	}

	// Sessions end everywhere at once.
	u.shows("logged in", u.post("/account/login", "account", ann, "password", s.passwords[ann]), 200, "You have no devices yet")
	other.shows("a second browser", other.post("/account/login", "account", ann, "password", s.passwords[ann]), 200, "My devices")
	u.shows("logged out", u.post("/account/logout-everywhere"), 200, "Mailbox password")
	other.shows("logged out elsewhere", other.get("/account"), 200, "Mailbox password")
}
