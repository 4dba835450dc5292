package e2e

import (
	"context"
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/redis/go-redis/v9"
)

// agePages makes the sessions of the pages forget that a password was entered lately, as ten minutes
// do.
func (s *site) agePages() {
	s.t.Helper()
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: s.RedisSocket()})
	defer func() { _ = client.Close() }()
	keys, err := client.Keys(s.ctx, "drawbridge:{g}:page:session:*").Result()
	s.must(err)
	for _, key := range keys {
		b, err := client.Get(s.ctx, key).Bytes()
		s.must(err)
		deadline, values, err := scs.GobCodec{}.Decode(b)
		s.must(err)
		for name := range values {
			if at, ok := values[name].(int64); ok && strings.HasSuffix(name, ".until") {
				values[name] = at - (10 * time.Minute).Milliseconds()
			}
		}
		b, err = scs.GobCodec{}.Encode(deadline, values)
		s.must(err)
		s.must(client.Set(s.ctx, key, b, redis.KeepTTL).Err())
	}
}

var (
	confirmPath = regexp.MustCompile(`/account/factors/([^/"]+)/confirm`)
	sendButton  = regexp.MustCompile(`name="send" value="([^"]+)"`)
	sentCode    = regexp.MustCompile(`\b[0-9]{6}\b`)
)

// Codes arrive by mail, through Postfix in a mailbox elsewhere, and by SMS, at the site's gateway in a
// signed request. One opens a log-in, and confirms a change once its log-in is ten minutes ago.
func (s *site) sentCodes(gateway *hook) {
	const elsewhere = "eve@example.net"
	u := s.browse(outside)
	u.shows("log-in", u.post("/account/login", "account", bob, "password", s.passwords[bob]), 200, "My devices")
	u.shows("his own domain", u.post("/account/factors/mail", "address", ann), 422, "is in the domain of the mailbox")
	made := u.shows("an address", u.post("/account/factors/mail", "address", elsewhere), 200, "A code was sent to e***@example.net")
	code := sentCode.FindString(s.received(elsewhere, "Your code"))
	u.shows("confirmed", u.post(confirmPath.FindString(made.text), "code", code), 200, "logins to this page ask for it")

	sms := func() string {
		s.t.Helper()
		for {
			select {
			case posted := <-gateway.notices:
				if posted["number"] == "+491701234567" {
					if posted["signed"] != true || posted["account"] != bob {
						s.t.Errorf("posted to the gateway: %v", posted)
					}
					return sentCode.FindString(posted["text"].(string))
				}
			case <-s.ctx.Done():
				s.t.Fatal("nothing was posted to the gateway")
			}
		}
	}
	u.shows("no number", u.post("/account/factors/sms", "number", "0170"), 422, "is not a telephone number")
	made = u.shows("a telephone", u.post("/account/factors/sms", "number", "+491701234567"), 200, "A code was sent to **********567")
	u.shows("a wrong code", u.post(confirmPath.FindString(made.text), "code", "000000"), 401, "The code is wrong")
	u.shows("confirmed", u.post(confirmPath.FindString(made.text), "code", sms()), 200, "logins to this page ask for it")

	other := s.browse(outside)
	step := other.shows("the password", other.post("/account/login", "account", bob, "password", s.passwords[bob]), 200, "Send a code to **********567")
	buttons := sendButton.FindAllStringSubmatch(step.text, -1)
	if len(buttons) != 2 {
		s.t.Fatalf("buttons that send codes: %q", buttons)
	}
	step = other.shows("sent", other.post("/account/login/factor", "token", other.field(step, "token"), "send", buttons[1][1]), 200, "A code was sent to **********567")
	other.shows("logged in", other.post("/account/login/factor", "token", other.field(step, "token"), "code", sms()), 200, "My devices")

	s.agePages()
	asked := u.shows("a change after ten minutes", u.post("/account/factors/recovery-codes", "x", "kept"), 200, "Enter your password again")
	if u.field(asked, "x") != "kept" {
		s.t.Error("the form is not sent again")
	}
	u.shows("a wrong password", u.post("/account/factors/recovery-codes", "password", "x"), 401, "The address or the password is wrong")
	u.shows("the password alone", u.post("/account/factors/recovery-codes", "password", s.passwords[bob]), 403, "A second factor is required to log in")
	u.shows("sent", u.post("/account/factors/recovery-codes", "send", buttons[1][1]), 200, "A code was sent to **********567")
	u.shows("confirmed", u.post("/account/factors/recovery-codes", "password", s.passwords[bob], "code", sms()), 200, "They are shown only now")
	s.command("factor", "reset", bob)
}

// logsIn opens the log-in of the users' page and sends its form.
func (s *site) logsIn(who string) []chromedp.Action {
	return []chromedp.Action{
		chromedp.Navigate(s.Daemons[0].PagesURL() + "/account/login"), chromedp.WaitVisible("#account"), chromedp.SendKeys("#account", who+"\t"+s.passwords[who]+"\r"),
	}
}

// addsPasskey gives the browser a virtual authenticator, and the account a passkey of it.
func (s *site) addsPasskey(who string) []chromedp.Action {
	run := func(f func(context.Context) error) chromedp.Action { return chromedp.ActionFunc(f) }
	device := []chromedp.Action{run(webauthn.Enable().Do), run(func(ctx context.Context) error {
		_, err := webauthn.AddVirtualAuthenticator(&webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
			HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
		}).Do(ctx)
		return err
	})}
	return slices.Concat(device, s.logsIn(who), []chromedp.Action{
		chromedp.WaitVisible("#switch"), chromedp.Navigate(s.Daemons[0].PagesURL() + "/account/factors"), chromedp.Click(`//summary[text()="Add a passkey"]`), chromedp.WaitVisible("#passkey-label"),
		chromedp.SendKeys("#passkey-label", "Laptop\r"), chromedp.WaitVisible("[data-create]"), chromedp.Click("[data-create]"), chromedp.WaitVisible(".note"),
	})
}

// asserts is a script that has the browser prove a passkey, by the options of a challenge. It returns
// the response, or the name of the error.
func asserts(options json.RawMessage) string {
	return `navigator.credentials.get({publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(` + string(options) + `.publicKey)}).then(c => JSON.stringify(c.toJSON()), e => e.name)`
}

type challenge struct {
	ID      string          `json:"id"`
	Options json.RawMessage `json:"options"`
}

// challenge asks a page for a challenge of passkeys.
func (b *browser) challenge(path string, fields ...string) (c challenge) {
	b.t.Helper()
	b.must(json.Unmarshal([]byte(b.post(path, fields...).text), &c))
	return c
}

// passkeys registers a passkey of chromium's virtual authenticator, and proves it at a log-in and for a
// change. What a page of another origin obtains from it is refused.
func (s *site) passkeys(ctx context.Context, inspect func(string)) {
	t, base := s.t, s.Daemons[0].PagesURL()
	do := func(what string, actions ...chromedp.Action) {
		t.Helper()
		if err := chromedp.Run(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	logIn := s.logsIn(bob)
	do("a passkey", s.addsPasskey(bob)...)
	do("log-out", chromedp.Click(`form[action="/account/logout"] button`), chromedp.WaitVisible("#account"))
	do("the password", append(logIn[1:], chromedp.WaitVisible("[data-passkey]"))...)
	if allPages {
		inspect("second factor")
	}
	do("the passkey", chromedp.Click("[data-passkey]"), chromedp.WaitVisible("#switch"))
	s.record("account="+bob+"&client=console&outcome=allow", func(r object) bool { return r["protocol"] == "web" && r["ip"] != outside })
	defer s.command("factor", "reset", bob)
	if !allPages {
		return
	}

	s.agePages()
	do("a change after ten minutes", chromedp.Navigate(base+"/account/devices/new"), chromedp.WaitVisible("#label"), chromedp.SendKeys("#label", "Tablet\r"),
		chromedp.WaitVisible("#password"))
	inspect("confirm")
	do("the password and the passkey", chromedp.SendKeys("#password", s.passwords[bob]), chromedp.Click("[data-passkey]"), chromedp.WaitVisible("#secret"))

	// Another origin of the same host gets an answer of the authenticator, as a page that was smuggled in
	// there would: the site refuses it. At another host the browser itself refuses.
	u := s.browse(outside)
	step := u.shows("the password", u.post("/account/login", "account", bob, "password", s.passwords[bob]), 200, "Use a passkey")
	token := u.field(step, "token")
	challenge := u.challenge("/account/login/passkey", "token", token)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<h1>Elsewhere</h1>")) }))
	defer elsewhere.Close()
	get := asserts(challenge.Options)
	var phished, failed string
	do("a page of another origin", chromedp.Navigate(strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)), chromedp.Evaluate(get, &phished, awaitPromise))
	if !strings.HasPrefix(phished, "{") {
		t.Fatalf("the page of another origin got %s", phished)
	}
	u.shows("its answer", u.post("/account/login/factor", "token", token, "challenge", challenge.ID, "credential", phished), 401, "The code is wrong, or was used before")
	do("a page of another host", chromedp.Navigate("http://"+s.Daemons[0].ConsoleAddr+"/account/login"), chromedp.Evaluate(get, &failed, awaitPromise))
	if failed != "SecurityError" {
		t.Errorf("at another host the browser says %s", failed)
	}
}

// A user logs in with a password that is kept here, and changes it: the devices that stay ticked are
// deleted, and sessions end, on the page too. An expired password opens the page that changes it.
func (s *site) passwordPage(password string) {
	t := s.t
	u, other := s.browse(outside), s.browse(office)
	for _, b := range []*browser{u, other} {
		b.shows("log-in", b.post("/account/login", "account", ann, "password", password), 200, "My devices")
	}
	s.api("PATCH", "/v1/domains/example.org", object{"password_policy": object{"min_length": 12, "history": 3}})
	lost, lostSecret := s.device(ann, "lost")
	_, keptSecret := s.device(ann, "kept")
	open, device := s.idle("the mailbox password", "127.0.9.31", ann, password), s.idle("the lost device", "127.0.9.32", ann, lostSecret)
	form := u.shows("the form", u.get("/account/password"), 200, "At least 12 characters.")
	if ticked := strings.Count(form.text, `name="revoke"`); ticked != 2 || strings.Count(form.text, ` checked> `) != 3 {
		t.Errorf("not all devices are ticked:\n%s", form.text)
	}
	u.shows("while it is entered", u.post("/account/password/strength", "new_password", "password"), 200, "Strength: 0 of 4.")
	u.shows("what is wrong with it", u.post("/account/password/strength", "new_password", "password"), 200, "New password: has 8 characters: use at least 12")
	u.shows("a stronger one", u.post("/account/password/strength", "new_password", "walnut plover quarry lantern"), 200, "Strength: 4 of 4.</p>")
	u.header.Set("Accept-Language", "de")
	u.shows("in German", u.post("/account/password/strength", "new_password", "password"), 200, "Stärke: 0 von 4.")
	u.header = http.Header{}
	change := func(present, fresh string) answered {
		return u.post("/account/password", "password", present, "how", "choose", "new_password", fresh, "revoke", lost)
	}
	const fresh = "plover-quarry-2026"
	u.shows("a wrong password", change("x", fresh), 401, "The address or the password is wrong")
	u.shows("none", change("", fresh), 200, "Present mailbox password")
	short := u.shows("too short", change(password, "short-1"), 422, "use at least 12")
	if !strings.Contains(short.text, "<code>New password</code>") || strings.Contains(short.text, "short-1") || strings.Count(short.text, ` checked> `) != 2 {
		t.Errorf("the form again:\n%s", short.text)
	}
	u.shows("the same", change(password, password), 422, "was used before")
	s.stays(open)
	u.shows("changed", change(password, fresh), 200, "Your mailbox password was changed. Devices that were deleted: 1. Open sessions that were ended: 2.")
	s.ends(open)
	s.ends(device)
	s.refuse("the old password", s.imap(outside, ann, password), "OK ")
	s.refuse("the lost device", s.imap(outside, ann, lostSecret), "OK ")
	s.want("the new password", s.imap(outside, ann, fresh), "OK ")
	s.want("the other device", s.imap(outside, ann, keptSecret), "OK ")
	u.shows("this browser", u.get("/account"), 200, "My devices")
	other.shows("another browser", other.get("/account"), 200, "Mailbox password")
	generated := u.shows("generated", u.post("/account/password", "password", fresh, "how", "generate"), 200, "is shown only now")
	secret := shownSecret.FindStringSubmatch(generated.text)[1]
	s.want("the generated password", s.imap(outside, ann, secret), "OK ")

	s.api("PUT", "/v1/accounts/"+ann+"/mailbox-password", object{"must_change": true})
	expired := other.shows("an expired password", other.post("/account/login", "account", ann, "password", secret), 403, "has expired. Choose a new one")
	other.shows("opens nothing else", other.get("/account"), 200, "E-mail address")
	other.shows("nor a second step", other.post("/account/login/factor", "token", other.field(expired, "token"), "code", "000000"), 401, "The login has expired")
	expired = other.post("/account/login", "account", ann, "password", secret)
	other.shows("while it is entered", other.post("/account/login/password/strength", "token", other.field(expired, "token"), "new_password", "password"), 200, "Strength: 0 of 4.")
	other.shows("without a log-in", other.post("/account/login/password/strength", "token", "x", "new_password", "password"), 404, "Not found")
	again := other.shows("the old one", other.post("/account/login/password", "token", other.field(expired, "token"), "how", "choose", "new_password", secret), 422, "was used before")
	other.shows("a new one", other.post("/account/login/password", "token", other.field(again, "token"), "how", "choose", "new_password", "walnut-"+fresh), 200, "Log in with it.")
	other.shows("log-in with it", other.post("/account/login", "account", ann, "password", "walnut-"+fresh), 200, "My devices")
	s.strengthInBrowser("walnut-" + fresh)
}

// strengthInBrowser enters a new password in chromium, whose scripts say how strong it is.
func (s *site) strengthInBrowser(password string) {
	ctx, base := s.chromium(), s.Daemons[0].PagesURL()
	score := func(text string) chromedp.Action {
		return chromedp.Poll(`document.querySelector("#strength").textContent.includes(`+strconv.Quote(text)+`)`, nil, chromedp.WithPollingTimeout(30*time.Second))
	}
	var found string
	s.must(chromedp.Run(ctx, chromedp.Navigate(base+"/account/login?next=/account/password"), chromedp.WaitVisible("#account"),
		chromedp.SendKeys("#account", ann+"\t"+password+"\r"), chromedp.WaitVisible("#new"),
		chromedp.SendKeys("#new", "password"), score("Strength: 0 of 4."), score("use at least 12"),
		chromedp.Evaluate(axe+";0", nil), chromedp.Evaluate(faults, &found, awaitPromise),
		chromedp.SendKeys("#new", " walnut plover quarry"), score("Strength: 4 of 4.")))
	if found != "[]" {
		s.t.Errorf("faults of accessibility: %s", found)
	}
}

// An administrator gives an account another mailbox password after a login that was not its owner's:
// generated, shown once, and of use. One domain leaves its passwords to the next passdb meanwhile.
func (s *site) resetOnConsole() {
	a := s.administrator("domain", "example.org")
	s.want("a login", s.imap("127.0.9.33", ann, "walnut-plover-quarry-2026"), "OK ")
	rec := s.record("account="+ann+"&ip=127.0.9.33", func(r object) bool { return r["outcome"] == "allow" })
	login := "/domains/example.org/logins/" + rec["id"].(string)
	a.shows("its button", a.get(login), 200, "Set a new mailbox password")
	reset := a.shows("reset", a.post(login+"/secure", "do", "reset-password"), 200, "It is shown only now")
	secret := html.UnescapeString(shownSecret.FindStringSubmatch(reset.text)[1])
	s.refuse("the old password", s.imap(outside, ann, "walnut-plover-quarry-2026"), "OK ")
	s.want("the new password", s.imap(outside, ann, secret), "OK ")

	s.refuse("a domain of the site", s.imap(outside, eve, s.passwords[eve]), "OK ")
	s.api("POST", "/v1/domains", object{"name": "example.net", "mailbox_passwords": "next", "third_party_access": object{"allow": true, "mode": "enforce"}})
	s.want("one that leaves them to the next passdb", s.imap(outside, eve, s.passwords[eve]), "OK ")
	s.refuse("a wrong password", s.imap(outside, eve, "x"), "OK ")
	_, phone := s.device(eve, "phone")
	s.want("its devices", s.imap(outside, eve, phone), "OK ")
	s.want("the site's way beside it", s.imap(outside, ann, secret), "OK ")
	_, reply := s.submit(outside, eve, s.passwords[eve])
	s.want("submission", reply, "235 ")
	s.refused(409, "next_passdb", "PUT", "/v1/accounts/"+eve+"/mailbox-password", object{"password": "a-new-one-2026"})
	d := s.Daemons[0]
	findings, _ := d.Command(s.ctx, "doctor", "--dovecot-config", s.DovecotConf(), "--postfix-config", s.PostfixDir(), "--config", d.Config).CombinedOutput() // its status counts all findings
	if text := string(findings); !strings.Contains(text, "the next passdb verifies the logins that Drawbridge passes to it") || strings.Contains(text, "FAIL  daemon.sasl.next") {
		s.t.Errorf("doctor:\n%s", text)
	}
	s.api("PATCH", "/v1/domains/example.net", object{"mailbox_passwords": "stored"})
	s.api("PUT", "/v1/accounts/"+eve+"/mailbox-password", object{"password": "a-new-one-2026"})
	s.want("stored here", s.imap(outside, eve, "a-new-one-2026"), "OK ")
	s.refuse("no longer elsewhere", s.imap(outside, eve, s.passwords[eve]), "OK ")
}

// remindedAhead: users whose password expires soon, and whose mail program will need a secure password
// soon, get one notice of each by mail, and the site's hook too, from a daemon that was restarted
// meanwhile. A new password obeys the domain's rules, a generated one need not.
func (s *site) remindedAhead(hook *hook) {
	const path = "/v1/accounts/" + ann + "/mailbox-password"
	s.api("PATCH", "/v1/domains/example.org", object{"password_policy": object{
		"min_length": 40, "min_strength": 3, "forbidden_keywords": []string{"quarry"}, "max_age": "25h",
	}})
	for password, code := range map[string]string{
		"short": "too_short", strings.Repeat("password", 6): "too_weak", "walnut plover quarry lantern copper anvil ninety": "forbidden_keyword",
	} {
		if status, p := s.call(0, "PUT", path, object{"password": password}); status != 422 || !strings.Contains(toJSON(p), `"`+code+`"`) {
			s.t.Errorf("%q: %d %v", password, status, p)
		}
	}
	secret := s.api("PUT", path, object{"generate": true})["password"].(string)
	s.want("the generated password", s.imap(outside, ann, secret), "OK ")
	s.record("account="+ann+"&outcome=allow&client=third-party", func(object) bool { return true })
	s.api("PUT", "/v1/domains/example.org/secure-password-policy", object{"enforced": true, "scope": object{"all": true}, "grace_until": time.Now().Add(25 * time.Hour).UTC().Format(time.RFC3339)})
	s.must(s.Daemons[0].Kill())
	s.must(s.Daemons[0].Start(s.ctx))
	for _, subject := range []string{"\nSubject: Your password expires on ", "\nSubject: Your mail program needs a secure password from "} {
		s.eventually("a notice"+subject, func() bool {
			messages, err := s.Inbox(ann)
			s.must(err)
			return slices.ContainsFunc(messages, func(m string) bool { return strings.Contains(m, subject) })
		})
	}
	posted := map[string]bool{}
	for !posted["password_expires"] || !posted["secure_password_required"] {
		select {
		case n := <-hook.notices:
			event := n["event"].(string)
			if event == "abnormal_login" { // of the tests before
				continue
			}
			if n["signed"] != true || n["account"] != ann || posted[event] {
				s.t.Errorf("posted to the hook: %v", n)
			}
			posted[event] = true
		case <-s.ctx.Done():
			s.t.Fatalf("posted to the hook: %v", posted)
		}
	}
	s.api("PUT", "/v1/domains/example.org/secure-password-policy", object{"enforced": false})
}

// A domain keeps mailbox passwords elsewhere than the site: with stored, each account that has one here
// uses it, and the others that of the next passdb; with here, they cannot log in.
func (s *site) passwordPlaces() {
	const domain, path, fresh = "/v1/domains/example.org", "/v1/accounts/" + carol + "/mailbox-password", "carols-quarry-2026"
	s.refused(409, "next_passdb", "PUT", path, object{"password": fresh})
	theirs := s.with(s.createKey(object{"name": "theirs", "role": "domain", "domain": "example.org"}))
	theirs.refused(403, "forbidden", "PATCH", domain, object{"mailbox_passwords": "stored"})
	s.command("domain", "set", "example.org", "--mailbox-passwords", "stored")
	s.want("the next passdb's", s.imap(office, carol, s.passwords[carol]), "OK ")
	s.api("PUT", path, object{"password": fresh})
	s.want("the one kept here", s.imap(office, carol, fresh), "OK ")
	s.refuse("the next passdb's", s.imap(office, carol, s.passwords[carol]), "OK ")
	s.want("an account without one here", s.imap(office, ann, s.passwords[ann]), "OK ")
	_, reply := s.submit(office, carol, fresh)
	s.want("submission", reply, "235 ")
	u := s.browse(outside)
	u.shows("the page", u.post("/account/login", "account", carol, "password", fresh), 200, "My devices")
	u.shows("can change it", u.get("/account/password"), 200, "Present mailbox password")
	u.shows("logged out", u.post("/account/logout"), 200, "Mailbox password")
	u.shows("of the next passdb", u.post("/account/login", "account", ann, "password", s.passwords[ann]), 200, "My devices")
	if text := u.get("/account").text; strings.Contains(text, `href="/account/password"`) {
		s.t.Error("the page offers to change a password that is not kept here")
	}

	s.refused(409, "confirm_required", "PATCH", domain, object{"mailbox_passwords": "here"})
	s.command("domain", "set", "example.org", "--mailbox-passwords", "here", "--confirm")
	s.refuse("an account without one here", s.imap(office, ann, s.passwords[ann]), "OK ")
	s.want("the one kept here", s.imap(office, carol, fresh), "OK ")
	s.command("domain", "set", "example.org", "--mailbox-passwords", "site", "--confirm")
	s.want("the next passdb's again", s.imap(office, ann, s.passwords[ann]), "OK ")
	s.want("of all", s.imap(office, carol, s.passwords[carol]), "OK ")
}
