package e2e

import (
	"html"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/mailclient"
)

var (
	shownCommand = regexp.MustCompile(`<pre class="command"[^>]*><code>([^<]*)</code>`)
	pausedForm   = regexp.MustCompile(`/domains/example\.org/sessions/[^"]+/end`)
	heldForm     = regexp.MustCompile(`/domains/example\.org/held/[^"]+`)
	undoField    = regexp.MustCompile(`name="undo" value="([^"]+)"`)
)

// A domain's administrator limits who writes to a group, finds the messages, and decides about one
// that is really held: through Postfix.
func (s *site) consoleMail() {
	const at = "/domains/example.org"
	const team = "team@example.org"
	a := s.administrator("domain", "example.org")
	text := func(subject, to string) string {
		return "From: " + carol + "\r\nTo: " + to + "\r\nSubject: " + subject + "\r\nMessage-ID: <" + strings.ReplaceAll(subject, " ", "-") + "@client>\r\n\r\nx\r\n"
	}
	send := func(subject, to string) string {
		c, r := s.submit(outside, carol, s.passwords[carol])
		s.want("submission", r, "235 ")
		defer func() { _ = c.Close() }()
		return s.send(c, carol, to, text(subject, to))
	}
	a.shows("no groups", a.get(at+"/groups"), 200, "There are no groups")
	a.shows("a group of another domain", a.post(at+"/groups", "address", "team@other.example", "who_may_send", "anyone"), 422, "/address")
	a.shows("a group that nobody may write to", a.post(at+"/groups", "address", team, "who_may_send", "listed"), 422, "/senders")
	a.shows("a group", a.post(at+"/groups", "address", team, "members", ann+"\n"+bob, "who_may_send", "members"), 200, "The group was saved")
	a.shows("the same again", a.post(at+"/groups", "address", team, "who_may_send", "anyone"), 409, "There is a group of this address already")
	// A refusal is on record once the same smtpd has another message.
	c, r := s.submit(outside, carol, s.passwords[carol])
	s.want("submission", r, "235 ")
	s.want("carol is no member", s.send(c, carol, team, text("to the team", team)), "550 ")
	_, err := c.Command("RSET")
	s.must(err)
	s.want("to a colleague", s.send(c, carol, ann, text("for the record", ann)), "250 ")
	_ = c.Close()
	a.shows("she is now", a.post("/groups/"+team, "members", ann+"\n"+carol, "who_may_send", "members"), 200, "The group was saved")
	a.shows("its form", a.get("/groups/"+team), 200, carol)
	s.received(ann, "for the record")

	var refused answered
	defer func() {
		if s.t.Failed() {
			s.t.Logf("the records: %d %v", refused.status, s.api("GET", "/v1"+at+"/messages", nil))
		}
	}()
	s.eventually("the records", func() bool {
		refused = a.get(at + "/messages?verdict=refused&account=" + carol)
		return strings.Contains(refused.text, team)
	})
	if strings.Contains(refused.text, ann) {
		s.t.Error("the filter by verdict shows an accepted message")
	}
	a.shows("a wrong date", a.get(at+"/messages?since=x"), 422, "is not a date")
	accepted := a.get(at + "/messages?verdict=accepted&account=" + carol)
	explain := html.UnescapeString(regexp.MustCompile(at + `/messages/explain\?[^"]+`).FindString(accepted.text))
	a.shows("explained", a.get(explain), 200, ann+": accepted")
	a.shows("no such message", a.get(at+"/messages/explain?queue_id=none"), 404, "There is no record of this message")
	a.shows("deleted", a.post("/groups/"+team, "do", "delete"), 200, "The group was deleted")

	// Held messages.
	a.shows("the kinds", a.get(at+"/mail-rules/new"), 200, "mail-rules/new?kind=audit")
	a.shows("the form of a kind", a.get(at+"/mail-rules/new?kind=audit"), 200, "action.approvers")
	rule := []string{
		"name", "Contracts <i>leave", "kind", "audit", "members", carol, "direction", "sent", "mode", "enforce", "on_fault", "tempfail",
		"match.recipient_domains", "example.net", "match.headers", "Subject ~ (?i)offer$", "action.approvers", bob, "action.expires", "72h",
		"login", carol, "sender", carol, "to", eve + " " + ann, "text", text("an offer", eve),
	}
	a.shows("what is wrong with it", a.post(at+"/mail-rules/new/check", append(rule[2:], "name", "")...), 422, "/name")
	check := a.shows("the test", a.post(at+"/mail-rules/new/check", rule...), 200, eve+": accepted")
	a.shows("its verdicts", check, 200, "<strong>match</strong>")
	a.shows("its verdicts", check, 200, "<strong>no_match</strong>")
	if p := a.get(at + "/mail-rules"); strings.Contains(p.text, "Contracts") {
		s.t.Error("the check saved something")
	}
	saved := a.shows("saved", a.post(at+"/mail-rules/new", "rule", a.field(check, "rule")), 200, "The rule was saved")
	if strings.Contains(saved.text, "<i>leave") {
		s.t.Error("a rule's name is not escaped")
	}
	contracts := regexp.MustCompile(at + `/mail-rules/([^"]+)">Contracts`).FindStringSubmatch(saved.text)[1]
	a.shows("its form", a.get(at+"/mail-rules/"+contracts), 200, "Subject ~ (?i)offer$")
	a.shows("its document", a.get(at+"/mail-rules/"+contracts+"?as=document"), 200, `"regex": "(?i)offer$"`)
	for subject, do := range map[string]string{"good offer": "approve", "bad offer": "reject"} {
		s.want(subject, send(subject, eve), "250 ")
		s.held(subject)
		list := a.shows("held", a.get(at+"/held"), 200, subject)
		a.shows(do, a.post(heldForm.FindString(list.text), "do", do, "text", "Not <b>like</b> this."), 200, "carries that out")
		s.noneHeld()
	}
	s.received(eve, "good offer")
	s.received(carol, "Not approved: bad offer")
	a.shows("the rule is deleted", a.post(at+"/mail-rules/"+contracts, "do", "delete"), 200, "The rule was deleted")

	// A device that reached its limit sends again once the page lets it.
	id, secret := s.device(carol, "copier <i>")
	limit := s.api("POST", "/v1"+at+"/mail-rules", object{
		"name": "few", "kind": "limit", "scope": object{"members": []string{carol}}, "action": object{"messages_per_hour": 1, "per": "credential", "then": "suspend_credential"},
	})["id"].(string)
	copier, r := s.submit(outside, carol, secret)
	s.want("submission", r, "235 ")
	s.want("one", s.send(copier, carol, ann, text("one", ann)), "250 ")
	s.refuse("another", s.send(copier, carol, ann, text("two", ann)), "250 ")
	_ = copier.Close()
	var suspended answered
	s.eventually("it is suspended", func() bool {
		suspended = a.get(at + "/mail-rules")
		return strings.Contains(html.UnescapeString(suspended.text), "copier <i>")
	})
	if strings.Contains(suspended.text, "copier <i>") {
		s.t.Error("a credential's label is not escaped")
	}
	_, r = s.submit(outside, carol, secret)
	s.refuse("while it is suspended", r, "235 ")
	a.shows("let it send again", a.post(regexp.MustCompile(at+`/suspensions/[^"]+`).FindString(suspended.text)), 200, "The credential may send again")
	_, r = s.submit(outside, carol, secret)
	s.want("afterwards", r, "235 ")
	s.api("DELETE", "/v1"+at+"/mail-rules/"+limit, nil)
	s.api("DELETE", "/v1/accounts/"+carol+"/secure-passwords/"+id, nil)
}

// What an administrator sees on the console of intruders and gaps, and does about them.
func (s *site) consoleWatch() {
	const at = "/domains/example.org"
	a, d := s.administrator("admin", ""), s.administrator("domain", "example.org")
	// An unusual login, and one button for each answer.
	const away = "127.0.9.78"
	stolen, phone := s.device(carol, "stolen")
	s.want("usual", s.imap(office, carol, phone), "OK ")
	s.record("account="+carol+"&ip="+office+"&device="+stolen, func(r object) bool { return r["outcome"] == "allow" })
	s.want("unusual", s.imap(away, carol, phone), "OK ")
	s.record("account="+carol+"&ip="+away, func(r object) bool { return r["outcome"] == "allow" })
	unusual := d.shows("unusual logins", d.get(at+"/logins?abnormal=true&account="+carol), 200, "new_network")
	login := loginLink.FindString(unusual.text)
	d.shows("it was her", d.post(login+"/confirm"), 200, "usual from now on")
	c, r := s.submit(office, carol, phone)
	s.want("submission", r, "235 ")
	s.want("a message", s.send(c, carol, ann, "From: "+carol+"\r\nSubject: stolen words\r\nMessage-ID: <stolen@client>\r\n\r\nx\r\n"), "250 ")
	s.received(ann, "stolen words")
	open := s.idle("the thief", away, carol, phone)
	for _, step := range []struct{ do, shows string }{
		{"block-ip", "The address " + away + " is blocked"},
		{"end-sessions", "page of devices have ended"},
		{"switch-off", "Switched off: imap, pop3, smtp, sieve"},
		{"revoke", "Secure passwords that were revoked: 1"},
		{"all", "secured like this already"},
	} {
		d.shows(step.do, d.post(login+"/secure", "do", step.do), 200, step.shows)
	}
	s.eventually("the thief's session has ended", func() bool { return open.alive() != nil })
	d.shows("not here", d.post(login+"/secure", "do", "reset-password"), 422, "/reset_mailbox_password")
	d.shows("nothing named", d.post(login+"/secure"), 422, "name what to do")

	// What the thief sent.
	form := "/withdraw?credential=" + stolen + "&account=" + carol
	since := d.field(d.get(at+form), "since")
	d.shows("nothing is deleted yet", d.post(at+"/withdraw", "credential", stolen, "since", since, "do", "plan"), 200, "1 copies in mailboxes")
	s.received(ann, "stolen words")
	d.shows("deleted", d.post(at+"/withdraw", "credential", stolen, "since", since), 200, "Removed: 1, left: 0")
	if s.count(ann, "stolen words") != 0 {
		s.t.Error("the message is still there")
	}
	d.shows("a wrong time", d.post(at+"/withdraw", "credential", stolen, "since", "x", "do", "plan"), 422, "/since")

	// Gaps: a preview, the change, and its undo.
	d.post("/accounts/"+carol, "secure_passwords", "optional")
	s.want("POP3", s.pop3(office, carol, s.passwords[carol]), "+OK ")
	finding := "unused_protocol:" + carol + ":sieve"
	d.shows("gaps", d.get(at+"/inspection?days=0&account="+carol), 200, finding)
	d.shows("a preview", d.post(at+"/inspection", "finding", finding, "days", "0", "account", carol, "do", "plan"), 200, "Would close: 1")
	d.shows("nothing is closed yet", d.get(at+"/inspection?days=0&account="+carol), 200, finding)
	closed := d.shows("closed", d.post(at+"/inspection", "finding", finding, "days", "0", "account", carol), 200, "Closed: 1")
	s.refuse("ManageSieve is off", s.sieve(office, carol, s.passwords[carol]), "OK ")
	d.shows("undone", d.post(at+"/inspection", "undo", undoField.FindStringSubmatch(closed.text)[1], "days", "0"), 200, "Reverted: 1")
	s.want("ManageSieve is on again", s.sieve(office, carol, s.passwords[carol]), "OK ")
	d.shows("nothing selected", d.post(at+"/inspection", "do", "plan"), 422, "/findings")
	d.shows("a schedule", d.post(at+"/inspection", "do", "schedule", "every", "7d"), 200, "The domain is inspected every 7d")
	d.shows("its form", d.get(at+"/inspection"), 200, `name="every" value="7d"`)
	d.shows("too often", d.post(at+"/inspection", "do", "schedule", "every", "5s"), 422, "/inspection/every")

	// How long records are kept.
	d.shows("records", d.post(at, "retention", "90d", "pseudonymise_after", "14d"), 200, "How long records are kept was set")
	d.shows("as it is now", d.get(at), 200, "deleted after 90d, addresses replaced after 14d")
	d.shows("no time", d.post(at, "retention", "ninety"), 422, "/records/retention")
	d.shows("as before", d.get(at), 200, "deleted after 90d, addresses replaced after 14d")
	d.shows("as the site says", d.post(at, "retention", "", "pseudonymise_after", ""), 200, "How long records are kept was set")

	// What an intruder left behind is a page of its own, to which that of the login leads.
	sieve, err := mailclient.Client{From: office}.Sieve(s.ctx, s.Sieve())
	s.must(err)
	defer func() { _ = sieve.Close() }()
	r, err = sieve.Authenticate(carol, s.passwords[carol])
	s.must(err)
	s.want("ManageSieve", r, "OK")
	r, err = sieve.Install("all <i>", "require \"copy\";\nredirect :copy \"mallory@example.com\";\n")
	s.must(err)
	s.want("a script", r, "OK")
	forwards := "/accounts/" + carol + "/forwards"
	d.shows("the login's page", d.get(login), 200, `href="`+forwards+`"`)
	if page := d.shows("forwards", d.get(forwards), 200, "mallory@example.com"); strings.Contains(page.text, "all <i>") || !strings.Contains(page.text, "<strong>outside</strong>") {
		s.t.Errorf("the list of forwards:\n%s", page.text)
	}

	// Guessers.
	const guesser = "127.0.9.79"
	for _, word := range []string{"a", "b", "c", "d", "e", "f"} {
		s.refuse("a wrong password", s.imap(guesser, "dave@example.org", word), "OK ")
	}
	held := d.shows("held back", d.get("/throttle"), 200, "wrong_secrets_per_account")
	if strings.Contains(held.text, "Unblock "+guesser) {
		s.t.Error("a domain's key may unblock an address")
	}
	s.refuse("held back", s.imap(office, "dave@example.org", s.passwords["dave@example.org"]), "OK ")
	d.shows("an address", d.post("/throttle", "subject", guesser), 404, "Not found")
	d.shows("unblocked", d.post("/throttle", "subject", "dave@example.org"), 200, "were forgotten")
	s.want("not held back", s.imap(office, "dave@example.org", s.passwords["dave@example.org"]), "OK ")
	a.shows("nonsense", a.post("/throttle", "subject", "x"), 422, "neither an account nor an IP address")

	// A user who has lost the second factor.
	s.api("POST", "/v1/accounts/"+carol+"/second-factors/totp", object{"label": "lost <i>phone"})
	account := d.shows("factors", d.get("/accounts/"+carol), 200, "lost <i>phone")
	if strings.Contains(account.text, "<i>phone") {
		s.t.Error("a factor's label is not escaped")
	}
	d.shows("reset", d.post("/accounts/"+carol+"/factors/reset"), 200, "were deleted")
	if n := len(s.api("GET", "/v1/accounts/"+carol+"/second-factors", nil)["items"].([]any)); n != 0 {
		s.t.Errorf("%d factors after the reset", n)
	}

	// A campaign: from the grace period to the pause.
	grace := []string{"enforced", "true", "members", carol, "grace_until", "2099-01-01T18:30", "mode", "enforce"}
	d.shows("a wrong day", d.post(at+"/secure-passwords", append(grace, "grace_until", "x", "do", "plan")[8:]...), 422, "is not a time")
	d.shows("with grace", d.post(at+"/secure-passwords", grace...), 200, "The requirement was set")
	d.shows("its time", d.get(at+"/secure-passwords"), 200, `value="2099-01-01T18:30"`)
	d.shows("its progress", d.get(at+"/secure-passwords/progress"), 200, "enforced at")
	d.shows("who is left", d.get(at+"/secure-passwords/progress"), 200, carol)
	d.shows("paused", d.post(at+"/secure-passwords/progress", "do", "pause"), 200, "The enforcement is paused")
	if p := s.api("GET", "/v1"+at+"/secure-password-policy", nil); p["state"] != "paused" || p["grace_until"] != "2099-01-01T18:30:00Z" {
		s.t.Errorf("after the pause: %v", p)
	}
	d.shows("resumed", d.post(at+"/secure-passwords/progress", "do", "resume"), 200, "The enforcement resumes")
	d.shows("lifted", d.post(at+"/secure-passwords", "enforced", "false", "all", "true"), 200, "The requirement was set")

	// An open session.
	idle := s.idle("ann", office, ann, s.passwords[ann])
	var end string
	s.eventually("the session is listed", func() bool {
		end = pausedForm.FindString(d.get(at + "/sessions").text)
		return end != ""
	})
	d.shows("ended", d.post(end), 200, "The session was ended")
	s.eventually("it is gone", func() bool { return idle.alive() != nil })

	// A change that is kept, and a session that both daemons know.
	saved := a.shows("for ten minutes", a.post(at+"/policies", "name", "Kept", "type", "blacklist", "members", carol, "ips", "192.0.2.9", "mode", "report", "revert_after", "10m"), 200, "is reverted at")
	a.shows("on both", saved, 200, "on 2 nodes")
	a.base = "http://" + s.Daemons[1].ConsoleAddr
	s.eventually("the other daemon has it", func() bool { return revertForm.MatchString(a.get(at + "/policies").text) })
	a.shows("kept, at the other daemon", a.post(revertForm.FindString(saved.text), "do", "keep"), 200, "The change is confirmed")
	s.eventually("no change is pending", func() bool { return len(s.api("GET", "/v1"+at+"/reverts", nil)["items"].([]any)) == 0 })
	a.shows("it stays", a.get(at+"/policies"), 200, "Kept")
}

// The commands that pages show do what they say, or at least are commands with these flags.
func (s *site) shownCommands() {
	if len(s.shown) < 20 {
		s.t.Errorf("only %d commands were shown", len(s.shown))
	}
	var script strings.Builder
	for _, command := range slices.Sorted(maps.Keys(s.shown)) {
		if regexp.MustCompile(` (create|set|group show|policy show|mail-rule show|apply|batch|explain|KIND|ID|FILE|\S*other\.example)( |$)`).MatchString(command) {
			command += " --help" // would change something, or is about something that is gone
		}
		script.WriteString(command + " >/dev/null || { echo " + "failed: '" + strings.ReplaceAll(command, "'", `'\''`) + "'; failed=1; }\n")
	}
	out, err := s.shell(script.String() + "test -z \"$failed\"\n").CombinedOutput()
	if err != nil {
		s.t.Errorf("%v\n%s", err, out)
	}
	a := s.administrator("read", "")
	hostile := a.get("/domains/example.org/logins?reason=" + "%24(touch+x)%27%3Bx%0Ay")
	if got := html.UnescapeString(shownCommand.FindStringSubmatch(hostile.text)[1]); got != `drawbridge logins example.org --reason '$(touch x)'\'';x y'` {
		s.t.Errorf("a hostile address makes the command %s", got)
	}
}
