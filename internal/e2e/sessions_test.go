package e2e

import (
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// open is a session that waits for news.
type open struct {
	name string
	*mailclient.Session
	alive func() error // asks for something harmless
}

// idle logs in by IMAP and waits.
func (s *site) idle(name, from, user, password string) open {
	s.t.Helper()
	c, err := mailclient.Client{From: from}.IMAP(s.ctx, s.IMAP())
	s.must(err)
	_, err = c.StartTLS()
	s.must(err)
	return s.idling(name, c, user, password)
}

func (s *site) idling(name string, c *mailclient.IMAP, user, password string) open {
	s.t.Helper()
	r, err := c.Login(user, password)
	s.must(err)
	s.want(name, r.Status, "OK ")
	s.t.Cleanup(func() { _ = c.Close() })
	return open{name, c.Session, func() error {
		r, err := c.Command("NOOP")
		if err == nil && !r.OK() {
			err = errors.New(r.Status)
		}
		return err
	}}
}

// popping logs in by POP3.
func (s *site) popping(name, from, user, password string) open {
	s.t.Helper()
	c, err := mailclient.Client{From: from}.POP3(s.ctx, s.POP3())
	s.must(err)
	_, err = c.StartTLS()
	s.must(err)
	r, err := c.Login(user, password)
	s.must(err)
	s.want(name, r, "+OK ")
	s.t.Cleanup(func() { _ = c.Close() })
	return open{name, c.Session, func() error { _, err := c.Command("NOOP"); return err }}
}

// sieving logs in by ManageSieve.
func (s *site) sieving(name, from, user, password string) open {
	s.t.Helper()
	c, err := mailclient.Client{From: from}.Sieve(s.ctx, s.Sieve())
	s.must(err)
	_, err = c.StartTLS()
	s.must(err)
	r, err := c.Authenticate(user, password)
	s.must(err)
	s.want(name, r, "OK ")
	s.t.Cleanup(func() { _ = c.Close() })
	return open{name, c.Session, func() error { _, _, err := c.Command("NOOP"); return err }}
}

// ends wants a session to be closed by the server.
func (s *site) ends(o open) {
	s.t.Helper()
	began := time.Now()
	last, err := o.Ended(20 * time.Second)
	if err != nil {
		who, err := s.Doveadm(s.ctx, "who", "-1")
		s.t.Errorf("%s is still open; doveadm who: %v\n%s", o.name, err, who)
		return
	}
	s.t.Logf("%s ended after %v: %q", o.name, time.Since(began).Round(time.Millisecond), last)
}

// stays wants a session to go on.
func (s *site) stays(o open) {
	s.t.Helper()
	if err := o.alive(); err != nil {
		s.t.Errorf("%s has ended: %v", o.name, err)
	}
}

// ended is how many sessions an answer says that a change ended and could not end.
func ended(answer object) (ended, failed float64) {
	sessions, _ := answer["sessions"].(object)
	ended, _ = sessions["ended"].(float64)
	failed, _ = sessions["failed"].(float64)
	return ended, failed
}

// sessions lists the open sessions of an account.
func (s *site) sessions(account string) []any {
	s.t.Helper()
	items, _ := s.api("GET", "/v1/accounts/"+account+"/sessions", nil)["items"].([]any)
	return items
}

// A change ends the open sessions that the rules of now refuse, and no other. Dovecot 2.3 tells
// sessions apart by user and address.
func TestOpenSessionsEnd(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	const home = "127.0.1.9"
	phone, secret := s.device(ann, "phone")
	_, laptop := s.device(ann, "laptop")

	t.Run("a secure password is revoked", func(t *testing.T) {
		s := s.in(t)
		lost := []open{s.idle("the lost phone", outside, ann, secret), s.popping("its pop3", outside, ann, secret), s.sieving("its sieve", outside, ann, secret)}
		others := []open{
			s.idle("the laptop", home, ann, laptop), s.idle("bob", outside, bob, s.passwords[bob]),
			s.idle("the mailbox password elsewhere", office, ann, s.passwords[ann]),
		}
		s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+phone, nil)
		for _, o := range lost {
			s.ends(o)
		}
		for _, o := range others {
			s.stays(o)
		}
	})
	t.Run("a protocol is switched off", func(t *testing.T) {
		s := s.in(t)
		pop, imap := s.popping("pop3", outside, bob, s.passwords[bob]), s.idle("imap elsewhere", home, bob, s.passwords[bob])
		web := s.popping("the webmail's pop3", webmail, bob, s.passwords[bob])
		s.api("PATCH", "/v1/domains/example.org", object{"protocols": object{"pop3": false}})
		s.ends(pop)
		s.stays(imap)
		s.stays(web)
		s.api("PATCH", "/v1/domains/example.org", object{"protocols": object{"pop3": true}})
	})
	t.Run("an address is blocked", func(t *testing.T) {
		s := s.in(t)
		there, here := s.idle("from there", outside, bob, s.passwords[bob]), s.idle("from here", home, bob, s.passwords[bob])
		id := s.api("POST", "/v1/domains/example.org/ip-blocks?confirm=true", object{"network": outside})["id"].(string)
		s.ends(there)
		s.stays(here)
		s.api("DELETE", "/v1/domains/example.org/ip-blocks/"+id, nil)
	})
	t.Run("a policy is made", func(t *testing.T) {
		s := s.in(t)
		there, here := s.idle("outside", outside, bob, s.passwords[bob]), s.idle("the office", office, bob, s.passwords[bob])
		s.api("POST", "/v1/domains/example.org/policies?confirm=true", object{
			"id": "office", "name": "office", "type": "whitelist", "enabled": true, "mode": "enforce", "scope": object{"all": true}, "ips": []string{office},
			"clients": []string{"third-party"},
		})
		s.ends(there)
		s.stays(here)
		s.api("DELETE", "/v1/domains/example.org/policies/office", nil)
	})
	t.Run("secure passwords are enforced", func(t *testing.T) {
		s := s.in(t)
		old, good := s.idle("the mailbox password", outside, ann, s.passwords[ann]), s.idle("the laptop", home, ann, laptop)
		web := s.idle("the webmail", webmail, ann, s.passwords[ann])
		s.api("PUT", "/v1/domains/example.org/secure-password-policy", object{"enforced": true, "scope": object{"all": true}})
		s.ends(old)
		s.stays(good)
		s.stays(web)
		s.api("PUT", "/v1/domains/example.org/secure-password-policy", object{"enforced": false, "scope": object{"all": true}})
	})
	t.Run("an account is suspended", func(t *testing.T) {
		s := s.in(t)
		all := []open{s.idle("outside", outside, bob, s.passwords[bob]), s.idle("the webmail", webmail, bob, s.passwords[bob])}
		other := s.idle("ann", office, ann, s.passwords[ann])
		answer := s.api("PATCH", "/v1/accounts/"+bob, object{"suspended": true})
		if n, failed := ended(answer); n != 2 || failed != 0 {
			t.Errorf("the answer says that %v ended, and not %v: %v", n, failed, answer)
		}
		for _, o := range all {
			s.ends(o)
		}
		s.stays(other)
		s.api("PATCH", "/v1/accounts/"+bob, object{"suspended": false})
	})
	t.Run("an account is deleted", func(t *testing.T) {
		s := s.in(t)
		device, other := s.idle("the laptop", home, ann, laptop), s.idle("bob", home, bob, s.passwords[bob])
		s.api("DELETE", "/v1/accounts/"+ann+"?confirm=true", nil)
		s.ends(device)
		s.stays(other)
	})
}

// Open sessions are listed and ended by administrators; a domain's key sees its own.
func TestSessionsCommand(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	s.api("POST", "/v1/domains", object{"name": "example.net"})
	key := func(domain string) string {
		return s.api("POST", "/v1/keys", object{"name": domain, "role": "domain", "domain": domain})["key"].(string)
	}
	own, other := key("example.org"), key("example.net")
	_, secret := s.device(ann, "phone")
	phone, web := s.idle("the phone", outside, ann, secret), s.idle("the webmail", webmail, ann, s.passwords[ann])
	var id string
	s.eventually("both are listed", func() bool {
		for _, item := range s.with(own).sessions(ann) {
			if o := item.(object); o["ip"] == outside && o["label"] == "phone" && o["client"] == "third-party" && o["protocol"] == "imap" {
				id = o["id"].(string)
			}
		}
		return id != "" && len(s.sessions(ann)) == 2
	})
	table := s.command("sessions", "example.org", "--account", ann, "--wide")
	if !strings.Contains(table, "phone") || !strings.Contains(table, webmail) || !strings.Contains(table, "web") {
		t.Errorf("the table: %s", table)
	}
	s.with(other).refused(404, "not_found", "GET", "/v1/domains/example.org/sessions", nil)
	s.with(other).refused(404, "not_found", "DELETE", "/v1/sessions/"+id, nil)
	s.with(own).refused(404, "not_found", "DELETE", "/v1/sessions/0000", nil)
	if dry := s.with(own).api("DELETE", "/v1/sessions/"+id+"?dry_run=true", nil); dry["id"] != id {
		t.Errorf("a dry run: %v", dry)
	}
	s.stays(phone)
	s.with(own).api("DELETE", "/v1/sessions/"+id, nil)
	s.ends(phone)
	s.stays(web)
	if out := s.command("sessions", "end", "example.org", "--account", ann); !strings.Contains(out, "open sessions ended: 1") {
		t.Errorf("the command says: %q", out)
	}
	s.ends(web)
	audit := fmt.Sprint(s.api("GET", "/v1/audit?domain=example.org", nil))
	if strings.Count(audit, "session.end") != 2 {
		t.Errorf("the audit: %s", audit)
	}
}

// A dry run of enforcement, and of a protocol switch, tells who would be kept out and how many
// sessions would end.
func TestCutOffPreview(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	_, secret := s.device(ann, "phone")
	phone, old, web := s.idle("the phone", outside, ann, secret), s.idle("bob", outside, bob, s.passwords[bob]), s.idle("webmail", webmail, bob, s.passwords[bob])
	s.record("account="+bob+"&outcome=allow", func(r object) bool { return r["client"] == "web" })
	s.record("account="+bob+"&outcome=allow", func(r object) bool { return r["client"] == "third-party" })
	s.record("account="+ann+"&outcome=allow", func(object) bool { return true })
	answer := s.api("PUT", "/v1/domains/example.org/secure-password-policy?dry_run=true", object{"enforced": true, "scope": object{"all": true}})
	cut, _ := answer["cut_off"].(object)
	accounts, _ := cut["accounts"].([]any)
	if len(accounts) != 1 || accounts[0].(object)["address"] != bob || accounts[0].(object)["secure_passwords"] != 0.0 || cut["sessions"] != 1.0 {
		t.Errorf("enforcement: %v", answer)
	}
	answer = s.api("PATCH", "/v1/accounts/"+bob+"?dry_run=true", object{"protocols": object{"imap": false}})
	if cut, _ = answer["cut_off"].(object); cut["sessions"] != 1.0 {
		t.Errorf("the account's switch: %v", answer)
	}
	answer = s.api("PATCH", "/v1/domains/example.org?dry_run=true", object{"protocols": object{"imap": false}})
	cut, _ = answer["cut_off"].(object)
	if accounts, _ := cut["accounts"].([]any); len(accounts) != 2 || cut["sessions"] != 2.0 {
		t.Errorf("the domain's switch: %v", answer)
	}
	_, _, said := s.status("domain", "set", "example.org", "--imap", "off", "--dry-run")
	if !strings.Contains(said, "keep out 2 accounts, 1 of them without a secure password, and end 2 open sessions") || !strings.Contains(said, bob+": 1 logins") {
		t.Errorf("the command says: %s", said)
	}
	for _, o := range []open{phone, old, web} {
		s.stays(o)
	}
}

// While Dovecot cannot be reached, the answer says so; the session ends once it can.
func TestDoveadmAway(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	id, secret := s.device(ann, "phone")
	phone := s.idle("the phone", outside, ann, secret)
	socket := filepath.Join(s.Dir, "dovecot", "run", "doveadm-server")
	s.must(os.Rename(socket, socket+".away"))
	r, err := s.request(0, "DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+id, nil)
	s.must(err)
	_ = r.Body.Close()
	if got := r.Header.Get("Sessions"); r.StatusCode != http.StatusNoContent || got != "ended=0, failed=1, unreachable=1" {
		t.Errorf("the answer: %d, %q", r.StatusCode, got)
	}
	s.stays(phone)
	// A login is not held up meanwhile.
	s.want("a login", s.imap(outside, bob, s.passwords[bob]), "OK ")
	s.must(os.Rename(socket+".away", socket))
	s.ends(phone)
}

// secondDovecot starts another Dovecot of the site, with the same mailboxes and the same daemon, and
// returns the site as reached there, and the socket of its doveadm.
func (s *site) secondDovecot() (there *site, doveadm string) {
	s.t.Helper()
	stack := *s.Stack
	conf, err := os.ReadFile(s.DovecotConf())
	s.must(err)
	dir := filepath.Join(s.Dir, "dovecot-b")
	s.must(os.Mkdir(dir, 0o755))
	edits := []string{
		filepath.Join(s.Dir, "dovecot") + "/", dir + "/", "dovecot.log", "dovecot-b.log",
		filepath.Join(s.Dir, "postfix", "queue", "private") + "/", dir + "/",
	}
	for _, port := range []*int{&stack.Ports.IMAP, &stack.Ports.IMAPS, &stack.Ports.BalancedIMAP, &stack.Ports.POP3, &stack.Ports.POP3S, &stack.Ports.Sieve} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		s.must(err)
		was := *port
		*port = l.Addr().(*net.TCPAddr).Port
		s.must(l.Close())
		edits = append(edits, fmt.Sprintf("port = %d\n", was), fmt.Sprintf("port = %d\n", *port))
	}
	file := filepath.Join(filepath.Dir(s.DovecotConf()), "dovecot-b.conf")
	s.must(os.WriteFile(file, []byte(strings.NewReplacer(edits...).Replace(string(conf))), 0o600))
	cmd := exec.Command("/usr/sbin/dovecot", "-F", "-c", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	s.must(cmd.Start())
	s.t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	s.eventually("the second Dovecot is ready", func() bool {
		_, err := os.Stat(filepath.Join(dir, "run", "master.pid"))
		return err == nil
	})
	c := *s
	c.Stack = &stack
	return &c, filepath.Join(dir, "run", "doveadm-server")
}

// A change ends the sessions at every Dovecot. One that cannot be reached is counted and named, and
// its sessions end once it can.
func TestTwoDovecots(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	there, socket := s.secondDovecot()
	d := s.Daemons[0]
	settings, err := os.ReadFile(d.Config)
	s.must(err)
	first := "unix:" + filepath.Join(s.Dir, "dovecot", "run", "doveadm-server")
	both := strings.Replace(string(settings), `doveadm = "`+first+`"`, `doveadm = ["`+first+`", "unix:`+socket+`"]`, 1)
	if both == string(settings) {
		t.Fatalf("no doveadm in %s", settings)
	}
	s.must(os.WriteFile(d.Config, []byte(both), 0o600))
	s.must(d.Restart(s.ctx))
	s.domain(nil)
	revoke := func(id string) string {
		t.Helper()
		r, err := s.request(0, "DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+id, nil)
		s.must(err)
		_ = r.Body.Close()
		return r.Header.Get("Sessions")
	}
	id, secret := s.device(ann, "phone")
	here, far := s.idle("at the first", outside, ann, secret), there.idle("at the second", outside, ann, secret)
	bobs := there.idle("bob at the second", outside, bob, s.passwords[bob])
	if n := len(s.sessions(ann)); n != 2 {
		t.Errorf("%d sessions are listed", n)
	}
	if got := revoke(id); got != "ended=2, failed=0, unreachable=0" {
		t.Errorf("the answer: %q", got)
	}
	s.ends(here)
	s.ends(far)

	id, secret = s.device(ann, "tablet")
	// With Dovecot 2.3, from the phone's address it could not be told from the phone, which has just logged in.
	const elsewhere = "127.0.9.10"
	here, far = s.idle("the tablet at the first", elsewhere, ann, secret), there.idle("the tablet at the second", elsewhere, ann, secret)
	s.must(os.Rename(socket, socket+".away"))
	if got := revoke(id); got != "ended=1, failed=1, unreachable=1" {
		t.Errorf("the answer without the second: %q", got)
	}
	s.ends(here)
	s.stays(far)
	if n := s.api("GET", "/v1/accounts/"+ann+"/sessions", nil)["unreachable"]; n != 1.0 {
		t.Errorf("the list: %v Dovecots are unreachable", n)
	}
	s.logged(d.Service, socket) // names the second Dovecot
	s.must(os.Rename(socket+".away", socket))
	s.ends(far)
	s.stays(bobs)
}

// A daemon that decided none of the logins ends the sessions as well: by the login records.
func TestSessionsOfAnotherDaemon(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{Daemons: 2, SharedRedis: true})
	s.domain(nil)
	id, secret := s.device(ann, "phone")
	phone, bobs := s.idle("the phone", outside, ann, secret), s.idle("bob", outside, bob, s.passwords[bob])
	s.record("account="+ann+"&outcome=allow", func(r object) bool { return r["credential_id"] == id })
	s.replicated()
	s.must(s.Daemons[0].Stop())
	status, _ := s.call(1, "DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+id, nil)
	if status != 204 {
		t.Errorf("status %d", status)
	}
	s.ends(phone)
	s.stays(bobs)
}

// Dovecot 2.4 names each session, so that sessions of one account from one address are told apart.
func TestOpenSessionsOfOneAddress(t *testing.T) {
	t.Parallel()
	only(t, "2.4", "names of sessions")
	s := start(t, trialstack.Options{})
	s.domain(nil)
	phone, secret := s.device(ann, "phone")
	_, laptop := s.device(ann, "laptop")
	lost := []open{s.idle("the lost phone", outside, ann, secret), s.popping("its pop3", outside, ann, secret)}
	others := []open{s.idle("the laptop", outside, ann, laptop), s.idle("the mailbox password", outside, ann, s.passwords[ann])}
	pop := s.popping("the laptop's pop3", outside, ann, laptop)
	s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+phone, nil)
	for _, o := range lost {
		s.ends(o)
	}
	for _, o := range append(others, pop) {
		s.stays(o)
	}
	s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{"pop3": false}})
	s.ends(pop)
	for _, o := range others {
		s.stays(o)
	}
}

// A new mailbox password ends the sessions of the old one; a rehash of the same password ends none.
func TestMailboxPasswordEndsSessions(t *testing.T) {
	t.Parallel()
	hook := newHook(t)
	s := start(t, trialstack.Options{Settings: map[string]any{"login.next_passdb": false, "notify.webhook_url": hook.URL, "notify.webhook_key_file": hook.keyFile}})
	s.domain(nil)
	s.api("PUT", "/v1/accounts/"+ann, object{})
	// Of a scheme that a login replaces.
	s.api("PUT", "/v1/accounts/"+ann+"/mailbox-password", object{"hash": "{SSHA512}" + ssha512("old-mailbox", "salt")})
	_, secret := s.device(ann, "phone")
	old := s.idle("the mailbox password", outside, ann, "old-mailbox")
	phone := s.idle("the phone", office, ann, secret)
	s.eventually("the hash is replaced", func() bool {
		return strings.Contains(fmt.Sprint(s.api("GET", "/v1/audit?domain=example.org", nil)), "mailbox_password.rehash")
	})
	s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{"pop3": false}}) // which has the sessions judged
	s.stays(old)
	const letter = "From: " + ann + "\nSubject: x\n\nx\n"
	submits := func(password string) *mailclient.SMTP {
		c, r := s.submit(outside, ann, password)
		s.want("submission", r, "235 ")
		s.want("a message", s.send(c, ann, bob, letter), "250 ")
		return c
	}
	sending, device := submits("old-mailbox"), submits(secret)
	s.refused(422, "invalid", "PUT", "/v1/accounts/"+ann+"/mailbox-password", object{"password": "new-mailbox-2026", "revoke": []string{"x"}})
	answer := s.api("PUT", "/v1/accounts/"+ann+"/mailbox-password", object{"password": "new-mailbox-2026"})
	if n, failed := ended(answer); n != 1 || failed != 0 {
		t.Errorf("the answer: %v", answer)
	}
	s.ends(old)
	s.stays(phone)
	s.want("the new password", s.imap(outside, ann, "new-mailbox-2026"), "OK ")
	s.want("a message of the former password's session", s.send(sending, ann, bob, letter), "421 4.7.0 ")
	s.want("a message of the phone's session", s.send(device, ann, bob, letter), "250 ")
	s.want("a message after logging in again", s.send(submits("new-mailbox-2026"), ann, bob, letter), "250 ")
	answer = s.api("PUT", "/v1/accounts/"+ann+"/mailbox-password", object{"password": "newer-mailbox-2026", "revoke": []string{"all"}})
	if toJSON(answer["revoked"]) != `["phone"]` || answer["secure_passwords"] != float64(0) {
		t.Errorf("the answer: %v", answer)
	}
	s.ends(phone)
	s.refuse("the phone", s.imap(office, ann, secret), "OK ")

	t.Run("on the users' page", func(t *testing.T) { s.in(t).passwordPage("newer-mailbox-2026") })
	t.Run("on the console", func(t *testing.T) { s.in(t).resetOnConsole() })
	t.Run("reminded ahead", func(t *testing.T) { s.in(t).remindedAhead(hook) })
}

// ssha512 is a hash of Dovecot's scheme SSHA512.
func ssha512(password, salt string) string {
	sum := sha512.Sum512([]byte(password + salt))
	return base64.StdEncoding.EncodeToString(append(sum[:], salt...))
}
