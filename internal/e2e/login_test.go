package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// F1, F2, F10, F13: third-party clients are refused, everywhere but from the company's addresses;
// the site's webmail goes on; each with its reason.
func TestThirdPartyClients(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.api("POST", "/v1/domains", object{"name": "example.org"})
	s.api("PUT", "/v1/client-types/web", object{"evidence": []object{{"networks": []string{webmail}}}})
	pw := s.passwords[ann]

	t.Run("a new domain blocks", func(t *testing.T) {
		s := s.in(t)
		for _, d := range doors {
			s.refuse(d.name, d.login(s, outside, ann, pw), d.yes)
		}
		s.want("webmail", s.imap(webmail, ann, pw), "OK ")
		s.want("webmail's submission", s.smtp(webmail, ann, pw), "235 ")
		r := s.record("account="+ann+"&outcome=deny&ip="+outside, func(r object) bool { return r["protocol"] == "imap" })
		if r["reason"] != "policy" || r["policy_id"] == "" || r["client"] != "third-party" {
			t.Errorf("record of the refusal: %v", r)
		}
		s.record("account="+ann+"&outcome=allow&ip="+webmail, func(r object) bool { return r["client"] == "web" && r["closed_at"] != nil })
	})
	t.Run("not from the company", func(t *testing.T) {
		s := s.in(t)
		s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false, "secure_login_ips": []string{"127.0.1.0/24", "2001:db8::1-2001:db8::9"}})
		for _, d := range doors {
			s.want(d.name+" from the office", d.login(s, office, ann, pw), d.yes)
			s.refuse(d.name+" from outside", d.login(s, outside, ann, pw), d.yes)
		}
		s.refuse("a wrong password from the office", s.imap(office, ann, "wrong"), "OK ")
	})
	t.Run("the list rests while clients are allowed", func(t *testing.T) {
		s := s.in(t)
		s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": true, "secure_login_ips": []string{"127.0.1.0/24"}})
		for _, d := range doors {
			s.want(d.name, d.login(s, outside, ann, pw), d.yes)
		}
		view := s.api("GET", "/v1/domains/example.org/third-party-access", nil)
		if view["allow"] != true || len(view["secure_login_ips"].([]any)) != 1 {
			t.Errorf("the view: %v", view)
		}
	})
	t.Run("report mode records and refuses nothing", func(t *testing.T) {
		s := s.in(t)
		s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false, "mode": "report", "secure_login_ips": []string{}})
		s.want("imap", s.imap("127.0.9.77", ann, pw), "OK ")
		r := s.record("account="+ann+"&ip=127.0.9.77", func(object) bool { return true })
		if w, _ := r["would_refuse"].([]any); len(w) != 1 {
			t.Errorf("the record does not say what would have been refused: %v", r)
		}
	})
	t.Run("an open submission session ends when its client becomes forbidden", func(t *testing.T) {
		s := s.in(t)
		c, r := s.submit(outside, ann, pw)
		s.want("auth", r, "235 ")
		s.want("before", s.send(c, ann, bob, "From: "+ann+"\nSubject: x\n\nHello\n"), "250 ")
		s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false, "mode": "enforce", "secure_login_ips": []string{}})
		s.want("after", s.send(c, ann, bob, "From: "+ann+"\nSubject: x\n\nHello\n"), "554 5.7.1 ")
	})
	t.Run("what the client says of itself proves nothing", func(t *testing.T) {
		s := s.in(t)
		s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false, "mode": "enforce", "secure_login_ips": []string{}})
		c, err := mailclient.Client{From: outside}.IMAP(s.ctx, s.IMAP())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := c.ID("name", "web", "x-originating-ip", webmail); err != nil {
			t.Fatal(err)
		}
		r, err := c.Login(ann, pw)
		if err != nil || r.OK() {
			t.Errorf("a client that calls itself webmail: %v, %v", r, err)
		}
		rec := s.record("account="+ann+"&outcome=deny", func(r object) bool { id, _ := r["client_id"].(string); return strings.Contains(id, `"web"`) })
		if rec["client"] != "third-party" || rec["ip"] != outside {
			t.Errorf("record: %v", rec)
		}
	})
	t.Run("webmail hands on its user's address and is told the reason", func(t *testing.T) {
		s := s.in(t)
		s.api("PATCH", "/v1/accounts/"+bob, object{"suspended": true})
		c, err := mailclient.Client{From: webmail}.IMAP(s.ctx, s.IMAP())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := c.ID("name", "webmail", "x-originating-ip", "198.51.100.4"); err != nil {
			t.Fatal(err)
		}
		r, err := c.Login(bob, s.passwords[bob])
		if err != nil {
			t.Fatal(err)
		}
		s.want("the suspended account at webmail", r.Status, "NO [CONTACTADMIN] This account is suspended.")
		rec := s.record("account="+bob+"&reason=suspended", func(object) bool { return true })
		if rec["ip"] != "198.51.100.4" || rec["real_ip"] != webmail || rec["client"] != "web" {
			t.Errorf("record: %v", rec)
		}
		s.refuse("the suspended account elsewhere", s.imap(outside, bob, s.passwords[bob]), "NO [CONTACTADMIN]")
		s.api("PATCH", "/v1/accounts/"+bob, object{"suspended": false})
	})
	t.Run("one log line per decision", func(t *testing.T) {
		s := s.in(t)
		log, err := trialstack.Follow(s.Daemons[0].LogPath)
		if err != nil {
			t.Fatal(err)
		}
		s.imap(outside, ann, pw)
		if _, err := log.Wait(s.ctx, regexp.MustCompile(`login deny: user=ann@example\.org ip=127\.0\.9\.9 proto=imap client=third-party reason=policy`)); err != nil {
			t.Error(err)
		}
	})
}

// F3: each protocol's switch closes its door at once, and no other.
func TestProtocolSwitches(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	pw := s.passwords[ann]
	for _, off := range doors {
		t.Run(off.name, func(t *testing.T) {
			s := s.in(t)
			s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{off.name: false}})
			for _, d := range doors {
				if d.name == off.name {
					s.refuse(d.name, d.login(s, outside, ann, pw), d.yes)
				} else {
					s.want(d.name, d.login(s, outside, ann, pw), d.yes)
				}
			}
			s.want("another account", off.login(s, outside, bob, s.passwords[bob]), off.yes)
			s.want("webmail", off.login(s, webmail, ann, pw), off.yes)
			s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{off.name: nil}})
			s.want("on again", off.login(s, outside, ann, pw), off.yes)
		})
	}
	t.Run("the domain's default, and the account's own word", func(t *testing.T) {
		s := s.in(t)
		s.api("PATCH", "/v1/domains/example.org", object{"protocols": object{"pop3": false}})
		s.api("PATCH", "/v1/accounts/"+bob, object{"protocols": object{"pop3": true}})
		s.refuse("ann", s.pop3(outside, ann, pw), "+OK ")
		s.want("bob", s.pop3(outside, bob, s.passwords[bob]), "+OK ")
		eff := s.api("GET", "/v1/accounts/"+ann+"/effective", nil)
		if !strings.Contains(strings.ReplaceAll(strings.ToLower(toJSON(eff)), " ", ""), `"pop3"`) {
			t.Errorf("effective does not name pop3: %v", eff)
		}
		s.api("PATCH", "/v1/domains/example.org", object{"protocols": object{"pop3": nil}})
	})
	t.Run("records know how the next passdb decided", func(t *testing.T) {
		s := s.in(t)
		for i, d := range doors {
			right, wrong := fmt.Sprintf("127.0.20.%d", i+1), fmt.Sprintf("127.0.21.%d", i+1)
			s.want(d.name, d.login(s, right, ann, pw), d.yes)
			s.refuse(d.name+" with a wrong password", d.login(s, wrong, ann, "wrong"), d.yes)
			closed := func(r object) bool { return r["closed_at"] != nil && r["protocol"] == d.name }
			if r := s.record("account="+ann+"&ip="+right, closed); r["outcome"] != "allow" || r["reason"] != "ok" {
				t.Errorf("%s, right: %v", d.name, r)
			}
			if r := s.record("account="+ann+"&ip="+wrong, closed); r["outcome"] != "deny" || r["reason"] != "bad_secret" {
				t.Errorf("%s, wrong: %v", d.name, r)
			}
		}
	})
	t.Run("an open submission session ends", func(t *testing.T) {
		s := s.in(t)
		c, r := s.submit(outside, ann, pw)
		s.want("auth", r, "235 ")
		if r, err := c.Send(ann, bob, "From: "+ann+"\nSubject: one\n\nHello\n"); err != nil || !strings.HasPrefix(r, "250 ") {
			t.Fatalf("before: %q, %v", r, err)
		}
		s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{"smtp": false}})
		r2, err := c.Send(ann, bob, "From: "+ann+"\nSubject: two\n\nHello\n")
		if err != nil {
			t.Fatal(err)
		}
		s.want("after", r2, "554 5.7.1 ")
		if !strings.Contains(r2, "switched off for your account") {
			t.Errorf("the text: %q", r2)
		}
		s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{"smtp": nil}})
	})
	t.Run("departments in one call, with a dry run", func(t *testing.T) {
		s := s.in(t)
		s.api("PUT", "/v1/domains/example.org/departments/sales/emea", object{"name": "EMEA"})
		s.api("PATCH", "/v1/accounts/"+ann, object{"departments": []string{"sales/emea"}})
		batch := object{"select": object{"departments": []object{{"path": "sales", "sub": true}}}, "set": object{"protocols": object{"imap": false}}}
		s.api("POST", "/v1/domains/example.org/accounts/batch?dry_run=true", batch)
		s.want("after the dry run", s.imap(outside, ann, pw), "OK ")
		s.api("POST", "/v1/domains/example.org/accounts/batch", batch)
		s.refuse("after the batch", s.imap(outside, ann, pw), "OK ")
		s.want("outside the department", s.imap(outside, bob, s.passwords[bob]), "OK ")
		s.refused(409, "in_use", "DELETE", "/v1/domains/example.org/departments/sales/emea", nil)
	})
}

// F5, F6: one revocable secret per device.
func TestSecurePasswords(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	pw := s.passwords[ann]
	phone, phoneSecret := s.device(ann, "My iPhone")
	_, laptopSecret := s.device(ann, "Laptop")
	if len(phoneSecret) != 16 {
		t.Fatalf("the secret has %d characters", len(phoneSecret))
	}
	typed := strings.ToUpper(phoneSecret[:4]) + " " + phoneSecret[4:8] + "-" + phoneSecret[8:12] + " " + phoneSecret[12:]

	t.Run("opens third-party clients, and nothing else", func(t *testing.T) {
		s := s.in(t)
		for _, d := range doors {
			s.want(d.name, d.login(s, outside, ann, phoneSecret), d.yes)
		}
		s.want("as people type it", s.imap(outside, ann, typed), "OK ")
		s.want("the mailbox password, while it is optional", s.imap(outside, ann, pw), "OK ")
		s.refuse("at webmail", s.imap(webmail, ann, phoneSecret), "OK ")
		s.refuse("another account", s.imap(outside, bob, phoneSecret), "OK ")
		s.eventually("last used", func() bool {
			u := s.api("GET", "/v1/accounts/"+ann+"/secure-passwords/"+phone, nil)
			return u["last_used_at"] != nil && u["last_used_ip"] == outside && u["last_used_protocol"] != ""
		})
		if strings.Contains(toJSON(s.api("GET", "/v1/accounts/"+ann+"/secure-passwords", nil)), phoneSecret) {
			t.Error("the secret is shown a second time")
		}
	})
	t.Run("a secret of that shape does not reach the next passdb", func(t *testing.T) {
		s := s.in(t)
		records := func() []any {
			items, _ := s.api("GET", "/v1/domains/example.org/logins?account="+ann+"&reason=bad_secret", nil)["items"].([]any)
			return items
		}
		before := len(records())
		mistyped := laptopSecret[:4] + " " + laptopSecret[4:8] + " " + laptopSecret[8:12] + " " + laptopSecret[13:] + laptopSecret[12:13]
		s.refuse("mistyped", s.imap(outside, ann, mistyped), "OK ")
		_, other := s.device(bob, "x")
		s.refuse("bob's at ann", s.imap(outside, ann, other), "OK ")
		s.eventually("both are on record", func() bool { return len(records()) >= before+2 })
		for _, r := range records()[:2] {
			if r.(object)["closed_at"] != nil {
				t.Errorf("the next passdb was asked: %v", r)
			}
		}
	})
	t.Run("enforced: the mailbox password stops, also in open sessions", func(t *testing.T) {
		s := s.in(t)
		open, r := s.submit(outside, ann, pw)
		s.want("auth", r, "235 ")
		s.api("PUT", "/v1/domains/example.org/secure-password-policy", object{"enforced": true, "scope": object{"all": true, "except": object{"members": []string{bob}}}})
		for _, d := range doors {
			s.refuse(d.name+" with the mailbox password", d.login(s, outside, ann, pw), d.yes)
			s.want(d.name+" with a secure password", d.login(s, outside, ann, phoneSecret), d.yes)
			s.want(d.name+" at webmail", d.login(s, webmail, ann, pw), d.yes)
		}
		s.want("the excepted account", s.imap(outside, bob, s.passwords[bob]), "OK ")
		r, err := open.Mail(ann)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(r, "250 ") {
			if r, err = open.Recipient(bob); err != nil {
				t.Fatal(err)
			}
		}
		s.want("the open session", r, "421 4.7.0 ")
	})
	t.Run("revoked at once, and only that one", func(t *testing.T) {
		s := s.in(t)
		onPhone, r := s.submit(outside, ann, phoneSecret)
		s.want("auth", r, "235 ")
		if r, err := onPhone.Send(ann, bob, "From: "+ann+"\nSubject: x\n\nHello\n"); err != nil || !strings.HasPrefix(r, "250 ") {
			t.Fatalf("before: %q, %v", r, err)
		}
		s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+phone, nil)
		for _, d := range doors {
			s.refuse(d.name+" on the phone", d.login(s, outside, ann, phoneSecret), d.yes)
			s.want(d.name+" on the laptop", d.login(s, outside, ann, laptopSecret), d.yes)
		}
		r, err := onPhone.Send(ann, bob, "From: "+ann+"\nSubject: x\n\nHello\n")
		if err != nil {
			t.Fatal(err)
		}
		s.want("the phone's open session", r, "421 4.7.0 ")
		if !strings.Contains(r, "please authenticate again") {
			t.Errorf("the text: %q", r)
		}
		onLaptop, r := s.submit(outside, ann, laptopSecret)
		s.want("auth", r, "235 ")
		if r, err := onLaptop.Send(ann, bob, "From: "+ann+"\nSubject: x\n\nHello\n"); err != nil || !strings.HasPrefix(r, "250 ") {
			t.Errorf("the laptop behind the same address: %q, %v", r, err)
		}
		rec := s.record("account="+ann+"&outcome=deny", func(r object) bool { n, _ := r["note"].(string); return strings.Contains(n, "My iPhone") })
		if rec["credential_id"] != phone {
			t.Errorf("record: %v", rec)
		}
	})
	t.Run("bound to protocols, networks and a time", func(t *testing.T) {
		s := s.in(t)
		path := "/v1/accounts/" + bob + "/secure-passwords"
		a := s.api("POST", path, object{"label": "Printer", "protocols": []string{"smtp"}, "networks": []string{"127.0.1.0/24"}})
		id, secret := a["id"].(string), a["secret"].(string)
		s.want("sending from the office", s.smtp(office, bob, secret), "235 ")
		for _, d := range doors {
			s.refuse(d.name+" from outside", d.login(s, outside, bob, secret), d.yes)
			if d.name != "smtp" {
				s.refuse(d.name+" from the office", d.login(s, office, bob, secret), d.yes)
			}
		}
		s.record("account="+bob+"&reason=secure_password_scope&ip="+office, func(r object) bool {
			note, _ := r["note"].(string)
			return r["protocol"] == "pop3" && r["credential_id"] == id && strings.HasSuffix(note, "bounds: protocol") && r["closed_at"] == nil
		})
		s.record("account="+bob+"&reason=secure_password_scope&ip="+outside, func(r object) bool { return r["protocol"] == "smtp" })
		tested := s.api("POST", "/v1/domains/example.org/policies/test", object{"login": object{"account": bob, "service": "imap", "ip": office, "credential_id": id}})
		if tested["outcome"] != "deny" || tested["reason"] != "secure_password_scope" {
			t.Errorf("tested: %v", tested)
		}

		open, r := s.submit(office, bob, secret)
		s.want("auth", r, "235 ")
		s.want("before", s.send(open, bob, ann, "From: "+bob+"\nSubject: x\n\nHello\n"), "250 ")
		s.command("secure-password", "set", bob, id, "--network", "192.0.2.0/28")
		s.want("after", s.send(open, bob, ann, "From: "+bob+"\nSubject: x\n\nHello\n"), "421 4.7.0 ")
		s.api("PATCH", path+"/"+id, object{"networks": nil, "protocols": nil})
		s.want("without bounds", s.imap(outside, bob, secret), "OK ")

		open, r = s.submit(outside, bob, secret)
		s.want("auth", r, "235 ")
		s.want("before", s.send(open, bob, ann, "From: "+bob+"\nSubject: x\n\nHello\n"), "250 ")
		expiry := time.Now().Add(1500 * time.Millisecond)
		view := s.api("PATCH", path+"/"+id, object{"expires_at": expiry.UTC().Format(time.RFC3339Nano)})
		if view["expires_at"] == nil {
			t.Errorf("changed: %v", view)
		}
		s.eventually("it has expired", func() bool { return status(s.call(0, "GET", path+"/"+id, nil)) == 404 })
		s.refuse("expired", s.imap(outside, bob, secret), "OK ")
		s.want("the open session", s.send(open, bob, ann, "From: "+bob+"\nSubject: x\n\nHello\n"), "421 4.7.0 ")
		s.record("account="+bob+"&reason=revoked_secret", func(r object) bool { return r["note"] == "expired secure password 'Printer' still in use" })
		if n := s.api("GET", "/v1/accounts/"+bob, nil)["secure_password_count"]; n != float64(0+1) {
			t.Errorf("the expired one is counted: %v", n)
		}
		for field, bad := range map[string]any{"protocols": []string{"web"}, "networks": []string{"192.0.2.1/24"}, "expires_at": "2020-01-01T00:00:00Z"} {
			s.refused(422, "invalid", "POST", path, object{"label": "x", field: bad})
		}
	})
	t.Run("at most ten", func(t *testing.T) {
		s := s.in(t)
		for range 9 {
			s.device(ann, "more")
		}
		s.refused(409, "secure_password_limit", "POST", "/v1/accounts/"+ann+"/secure-passwords", object{"label": "one too many"})
	})
	t.Run("a campaign enforces by itself, and can be paused", func(t *testing.T) {
		s := s.in(t)
		const policy = "/v1/domains/example.org/secure-password-policy"
		grace := time.Now().Add(4 * time.Second)
		view := s.api("PUT", policy, object{"enforced": true, "grace_until": grace.UTC().Format(time.RFC3339Nano)})
		if view["state"] != "grace" {
			t.Errorf("the policy: %v", view)
		}
		s.want("during the grace", s.imap(outside, ann, pw), "OK ")
		s.record("account="+ann+"&outcome=allow", func(r object) bool { return toJSON(r["would_refuse"]) == `["secure-password-policy"]` })
		progress := s.api("GET", policy+"/progress", nil)
		if accounts := toJSON(progress["accounts"]); !strings.Contains(accounts, `"address":"ann@example.org"`) || !strings.Contains(accounts, `"ip":"`+outside+`"`) {
			t.Errorf("the progress: %v", progress)
		}
		dry := s.api("PUT", policy+"?dry_run=true", object{"enforced": true})
		if dry["sessions"] == nil || !strings.Contains(toJSON(dry["accounts"]), `"secure_passwords":`) {
			t.Errorf("the dry run: %v", dry)
		}
		s.eventually("it is enforced", func() bool { return s.api("GET", policy, nil)["state"] == "enforced" })
		s.eventually("the mailbox password stops", func() bool { return !strings.HasPrefix(s.imap(outside, ann, pw), "OK ") })
		s.command("secure-password-policy", "pause", "example.org")
		s.want("while it is paused", s.imap(outside, ann, pw), "OK ")
		s.command("secure-password-policy", "resume", "example.org")
		s.refuse("after it", s.imap(outside, ann, pw), "OK ")
		if out := s.command("secure-password-policy", "progress", "example.org"); !strings.Contains(out, ann) {
			t.Errorf("the progress: %s", out)
		}
	})
	t.Run("nobody chooses one", func(t *testing.T) {
		s := s.in(t)
		if status, a := s.call(0, "POST", "/v1/accounts/"+bob+"/secure-passwords", object{"label": "x", "secret": "chosen"}); status != 422 {
			t.Errorf("%d %v", status, a)
		}
	})
	t.Run("warned when it could not log in now", func(t *testing.T) {
		s := s.in(t)
		s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false})
		a := s.api("POST", "/v1/accounts/"+bob+"/secure-passwords", object{"label": "x"})
		if w, _ := a["warnings"].([]any); len(w) == 0 {
			t.Errorf("no warning: %v", a)
		}
	})
}

// status is the first of what call returns.
func status(status int, _ object) int { return status }
