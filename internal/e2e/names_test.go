package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// DESIGN's step 0 and the look-ups of FACTS: names, masters, and what is no login.
func TestNames(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{
		Settings:    map[string]any{"login.default_domain": "example.org"},
		DovecotConf: "auth_mechanisms = plain login cram-md5\nauth_username_chars =\n",
		MainCF:      "smtputf8_enable = yes\n",
		Accounts: append(trialstack.DemoAccounts(), trialstack.Account{Address: "ann", Password: "ann-mailbox"},
			trialstack.Account{Address: "zoe@xn--bcher-kva.example", Password: "zoe-mailbox"}),
	})
	s.domain(nil)
	s.api("PATCH", "/v1/domains/example.org", object{"alias_domains": []string{"example.net"}})
	pw := s.passwords[ann]
	_, secret := s.device(ann, "phone")

	t.Run("bare, in capitals, in an alias domain", func(t *testing.T) {
		s := s.in(t)
		// The site's own passdb knows the bare name, as PAM does, and is asked for it bare.
		for _, name := range []string{"ann", "Ann", "ann+lists", "ANN@EXAMPLE.ORG", "ann@example.net"} {
			s.want(name+" with the mailbox password", s.imap(outside, name, pw), "OK ")
			s.want(name+" with a secure password", s.imap(outside, name, secret), "OK ")
		}
	})
	t.Run("a bare name submits as its account", func(t *testing.T) {
		s := s.in(t)
		for _, password := range []string{pw, secret} {
			c, r := s.submit(outside, "ann", password)
			s.want("auth", r, "235 ")
			s.want("her own address", s.send(c, ann, bob, "From: "+ann+"\nSubject: x\n\nx\n"), "250 ")
			s.want("another's", s.send(c, bob, bob, "From: "+bob+"\nSubject: x\n\nx\n"), "550 5.7.1 ")
		}
		s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{"imap": false}})
		s.refuse("a bare name whose IMAP is off", s.imap(outside, "ann", pw), "OK ")
		s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{"imap": nil}})
	})
	t.Run("a secure password as word processors paste it", func(t *testing.T) {
		s := s.in(t)
		for _, d := range doors {
			for _, space := range []string{"\u00a0", "\u2011", "\u2013", "\u200b"} {
				pasted := secret[:4] + space + secret[4:8] + space + secret[8:12] + space + secret[12:]
				s.want(fmt.Sprintf("%s, with %+q", d.name, space), d.login(s, outside, ann, pasted), d.yes)
			}
		}
	})
	t.Run("an internationalised domain", func(t *testing.T) {
		s := s.in(t)
		const zoe, typed = "zoe@xn--bcher-kva.example", "zoe@B\u00fccher.example"
		s.command("domain", "create", "b\u00fccher.example", "--third-party", "allow")
		_, secret := s.device(typed, "phone")
		for _, d := range doors {
			for _, name := range []string{zoe, typed} {
				s.want(d.name+" as "+name, d.login(s, outside, name, "zoe-mailbox"), d.yes)
				s.want(d.name+" as "+name+" with a secure password", d.login(s, outside, name, secret), d.yes)
			}
		}
		c, r := s.submit(outside, typed, "zoe-mailbox")
		s.want("auth", r, "235 ")
		s.want("From in U-labels", s.send(c, zoe, bob, "From: "+typed+"\nSubject: x\n\nx\n"), "250 ")
		other, r := s.submit(outside, ann, pw)
		s.want("auth", r, "235 ")
		s.want("another's From in U-labels", s.send(other, ann, bob, "From: "+typed+"\nSubject: x\n\nx\n"), "550 5.7.1 ")
		for client, want := range map[*mailclient.SMTP]string{c: "250 ", other: "550 5.7.1 "} {
			r, err := client.Command("MAIL FROM:<" + typed + "> SMTPUTF8")
			s.must(err)
			s.want("MAIL FROM in U-labels", r, want)
		}
		r, err := c.Recipient(bob)
		s.must(err)
		s.want("RCPT TO after it", r, "250 ")
		s.command("account", "set", typed, "--suspended", "on")
		for _, d := range doors {
			s.refuse(d.name+", suspended", d.login(s, outside, typed, "zoe-mailbox"), d.yes)
		}
	})
	t.Run("an unmanaged domain is refused", func(t *testing.T) {
		s := s.in(t)
		s.refuse("eve", s.imap(outside, "eve@example.net.invalid", "eve-mailbox"), "OK ")
	})
	t.Run("nobody", func(t *testing.T) {
		s := s.in(t)
		s.want("an unknown account", s.imap(outside, "nobody@example.org", "x"), "NO [AUTHENTICATIONFAILED]")
	})
	t.Run("masters", func(t *testing.T) {
		s := s.in(t)
		as := ann + "*" + trialstack.MasterUser
		s.want("a master", s.imap(outside, as, trialstack.MasterPassword), "OK ")
		s.refuse("a master with a wrong secret", s.imap(outside, as, "wrong"), "OK ")
		s.refuse("a master with the user's secret", s.imap(outside, as, pw), "OK ")
		s.api("PATCH", "/v1/accounts/"+ann, object{"suspended": true})
		s.refuse("a master at a suspended account", s.imap(outside, as, trialstack.MasterPassword), "OK ")
		s.api("PATCH", "/v1/accounts/"+ann, object{"suspended": false})
		s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false})
		s.want("a master, whom a policy without a place does not concern", s.imap(outside, as, trialstack.MasterPassword), "OK ")
		s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false, "secure_login_ips": []string{office}})
		s.refuse("a master from outside", s.imap(outside, as, trialstack.MasterPassword), "OK ")
		s.want("a master from the office", s.imap(office, as, trialstack.MasterPassword), "OK ")
	})
	t.Run("mail for whoever may not log in is delivered", func(t *testing.T) {
		s := s.in(t)
		s.api("PATCH", "/v1/accounts/"+ann, object{"suspended": true})
		c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.SMTP())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Hello(); err != nil {
			t.Fatal(err)
		}
		s.want("inbound", s.send(c, "a@elsewhere.example", ann, "From: a@elsewhere.example\nSubject: suspended\n\nHello\n"), "250 ")
		s.received(ann, "suspended")
		out, err := s.Doveadm(s.ctx, "auth", "lookup", "-x", "service=lmtp", ann)
		if err != nil || !strings.Contains(out, ann) {
			t.Errorf("a passdb look-up of LMTP: %q, %v", out, err)
		}
		s.api("PATCH", "/v1/accounts/"+ann, object{"suspended": false})
	})
	t.Run("mechanisms that hide the secret", func(t *testing.T) {
		s := s.in(t)
		s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": true})
		look := func() (string, error) {
			return s.Doveadm(s.ctx, "auth", "lookup", "-x", "service=imap", "-x", "rip="+outside, ann)
		}
		if out, err := look(); err != nil || !strings.Contains(out, ann) {
			t.Errorf("where rules permit, the next passdb is asked: %q, %v", out, err)
		}
		s.api("PUT", "/v1/domains/example.org/secure-password-policy", object{"enforced": true, "scope": object{"all": true}})
		if out, err := look(); err == nil {
			t.Errorf("where the secret must be seen: %q", out)
		}
	})
}

// Mailbox passwords kept here: no next passdb at all.
func TestMailboxPasswordsKeptHere(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{Settings: map[string]any{
		"login.next_passdb": false, "throttle.wrong_secrets_per_address": 12, "throttle.exempt": []string{"127.0.8.5"},
	}})
	s.domain(nil)
	s.api("PUT", "/v1/accounts/"+ann, object{})
	s.refuse("before one is set", s.imap(outside, ann, s.passwords[ann]), "OK ")
	s.api("PUT", "/v1/accounts/"+ann+"/mailbox-password", object{"password": "a long enough phrase"})
	for _, d := range doors {
		s.want(d.name, d.login(s, outside, ann, "a long enough phrase"), d.yes)
		s.refuse(d.name+" with the old one", d.login(s, outside, ann, s.passwords[ann]), d.yes)
	}
	// One password, however it is composed.
	s.api("PUT", "/v1/accounts/"+ann+"/mailbox-password", object{"password": "gr\u00fc\u00dfe an alle"})
	for _, d := range doors {
		s.want(d.name+" with combining characters", d.login(s, outside, ann, "gru\u0308\u00dfe an alle"), d.yes)
	}
	s.api("PUT", "/v1/accounts/"+ann+"/mailbox-password", object{"password": "a long enough phrase"})
	s.hashing()
	// Dovecot passes no name and password of more than 509 bytes to a checkpassword program: it
	// refuses them itself, and nothing is recorded. Lua receives them. The API records the length.
	long := strings.Repeat("x", 600)
	s.refuse("600 bytes", s.imap("127.0.8.9", ann, long), "OK ")
	s.want("right after that", s.imap(outside, ann, "a long enough phrase"), "OK ")
	s.api("POST", "/v1/login", object{"account": ann, "secret": long, "protocol": "imap", "ip": "127.0.8.10"})
	s.record("account="+ann+"&ip=127.0.8.10", func(r object) bool {
		return r["reason"] == "bad_secret" && strings.HasPrefix(r["note"].(string), "the secret has 600 bytes")
	})
	records := s.api("GET", "/v1/domains/example.org/logins?ip=127.0.8.9", nil)["items"].([]any)
	if want := bySeries(t, "0", "1"); strconv.Itoa(len(records)) != want {
		t.Errorf("%d records of a login with a long secret, want %s", len(records), want)
	}
	// Whoever's secret was verified is told the reason.
	s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false, "secure_login_ips": []string{office}})
	s.want("the reason", s.imap(outside, ann, "a long enough phrase"), "NO [CONTACTADMIN] The administrator has enabled IP login restrictions.")
	s.want("to a guesser", s.imap(outside, ann, "wrong"), "NO [AUTHENTICATIONFAILED]")
	s.want("pop3", s.pop3(outside, ann, "a long enough phrase"), "-ERR [AUTH] The administrator")
	s.want("sieve", s.sieve(outside, ann, "a long enough phrase"), `NO "The administrator`)
	s.want("smtp, which cannot carry one", s.smtp(outside, ann, "a long enough phrase"), "535 5.7.8 ")
	s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": true})
	// An expired password opens nothing, whoever shows it is told, and the devices go on.
	_, tablet := s.device(ann, "tablet")
	s.api("PUT", "/v1/accounts/"+ann+"/mailbox-password", object{"must_change": true})
	s.want("expired", s.imap(outside, ann, "a long enough phrase"), "NO [CONTACTADMIN] Your password has expired. Set a new one to log in again.")
	s.want("expired, pop3", s.pop3(outside, ann, "a long enough phrase"), "-ERR [AUTH] Your password has expired.")
	s.want("expired, smtp", s.smtp(outside, ann, "a long enough phrase"), "535 5.7.8 ")
	s.want("to a guesser", s.imap(outside, ann, "wrong again"), "NO [AUTHENTICATIONFAILED]")
	s.want("the tablet", s.imap(outside, ann, tablet), "OK ")
	s.record("account="+ann+"&reason=password_expired", func(object) bool { return true })
	s.api("PATCH", "/v1/domains/example.org", object{"password_policy": object{"min_length": 12, "max_age": "1d"}})
	s.api("PUT", "/v1/accounts/"+ann+"/mailbox-password", object{"password": "a long enough phrase"})
	s.want("a new one", s.imap(outside, ann, "a long enough phrase"), "OK ")
	// Too many different wrong secrets: the right one is refused too, a secure password never.
	_, secret := s.device(ann, "phone")
	for _, wrong := range strings.Fields("w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11") {
		s.refuse(wrong, s.imap("127.0.8.8", ann, wrong), "OK ")
	}
	s.refuse("throttled", s.imap("127.0.8.8", ann, "a long enough phrase"), "OK ")
	s.want("a secure password", s.imap("127.0.8.8", ann, secret), "OK ")
	s.want("from where the account came in before", s.imap(outside, ann, "a long enough phrase"), "OK ")
	s.record("account="+ann+"&reason=throttled", func(object) bool { return true })
	// An address from which many accounts are guessed is throttled, the site's own webmail never.
	s.api("PUT", "/v1/accounts/"+bob, object{})
	s.api("PUT", "/v1/accounts/"+bob+"/mailbox-password", object{"password": "another long phrase"})
	// So is a user of the webmail, by the address that it forwards, and no other user of it.
	guess := func(ip, realIP string) {
		t.Helper()
		for i := range 12 {
			s.api("POST", "/v1/login", object{
				"account": fmt.Sprintf("nobody%d@example.org", i), "secret": "Summer2026", "protocol": "imap", "ip": ip, "real_ip": realIP,
			})
		}
	}
	guess(webmail, webmail)
	guess("127.0.8.7", "127.0.8.7")
	guess("127.0.8.5", "127.0.8.5")
	guess("203.0.113.7", webmail)
	s.want("by webmail", s.imap(webmail, bob, "another long phrase"), "OK ")
	s.refuse("from a throttled address", s.imap("127.0.8.7", bob, "another long phrase"), "OK ")
	s.want("from a network of throttle.exempt", s.imap("127.0.8.5", bob, "another long phrase"), "OK ")
	s.refuse("a throttled user of webmail", s.forwarded("203.0.113.7", bob, "another long phrase"), "OK ")
	s.want("another user of webmail", s.forwarded("203.0.113.8", bob, "another long phrase"), "OK ")

	// Hashes that cost too much are refused, by the API and by the command.
	const costly = "{BLF-CRYPT}$2y$13$O6gmaX0nvqonALn6wDpSMuKZrabubmHQ4arX7QZiNpuLQHyuf4uF6"
	refusal := s.refused(422, "invalid", "PUT", "/v1/accounts/"+bob+"/mailbox-password", object{"hash": costly})
	if text := fmt.Sprint(refusal["errors"]); !strings.Contains(text, "cost=13 costs too much to verify") {
		t.Errorf("the refusal of a costly hash: %s", text)
	}
	if status, _, errs := s.status("mailbox-password", "set", bob, "--hash-file", writeFile(t, costly+"\n")); status != 65 || !strings.Contains(errs, "cost of at most 12") {
		t.Errorf("a costly hash by the command: %d %s", status, errs)
	}
	s.want("the password is as it was", s.imap(outside, bob, "another long phrase"), "OK ")
	s.command("mailbox-password", "set", bob, "--hash-file", writeFile(t, "{SHA512-CRYPT}$6$lAmgP6OzuzwHLd//$uoFkDAeZbf9hyGHqzrSuj/mUPH/.aCEfJASDwQqs15vgx.mKnaUxpLtK6ASfGqWzIERGTB29Pn3WK/SFmCTjN0"))
	s.want("a hash of usual cost", s.imap(outside, bob, s.passwords[bob]), "OK ")

	// Tables as spreadsheets of many languages save them: semicolons, or tabs in UTF-16 with its mark.
	table := "address;suspended;pop3;\r\n" + ann + ";;off;\r\n" + bob + ";on;;\r\n"
	s.command("account", "import", writeFile(t, table))
	s.refuse("a suspended account", s.imap(outside, bob, s.passwords[bob]), "OK ")
	s.refuse("a protocol that is off", s.pop3(outside, ann, "a long enough phrase"), "+OK ")
	wide := []byte{0xff, 0xfe}
	for _, unit := range utf16.Encode([]rune(strings.NewReplacer("on", "off", ";", "\t").Replace(table))) {
		wide = binary.LittleEndian.AppendUint16(wide, unit)
	}
	s.command("account", "import", writeFile(t, string(wide)))
	s.want("no longer suspended", s.imap(outside, bob, s.passwords[bob]), "OK ")
	if status, _, errs := s.status("account", "import", writeFile(t, table+"carl@example.org;maybe;;\r\n")); status != 65 || !strings.Contains(errs, "line 4") {
		t.Errorf("a wrong cell in line 4: %d %s", status, errs)
	}
}

// writeFile writes a file of a test and returns its path.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A name that the next passdb maps is judged again under its final name, through every door.
func TestMappedNames(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{
		Settings: map[string]any{"login.unmanaged": "next", "login.unmanaged_domains": []string{"nowhere.invalid"}},
		Accounts: []trialstack.Account{
			{Address: ann, Password: "ann-mailbox"},
			{Address: bob, Password: "bob-mailbox"},
			{Address: "ann@nowhere.invalid", Password: "ann-mailbox", Fields: "user=" + ann},
			{Address: "nick@example.org", Password: "bob-mailbox", Fields: "user=" + bob},
		},
	})
	s.domain(nil)
	for _, d := range doors {
		s.want(d.name+" by a mapped name", d.login(s, outside, "ann@nowhere.invalid", "ann-mailbox"), d.yes)
		s.want(d.name+" by a nickname", d.login(s, outside, "nick@example.org", "bob-mailbox"), d.yes)
	}
	s.api("PATCH", "/v1/accounts/"+ann, object{"suspended": true})
	s.api("PATCH", "/v1/accounts/"+bob, object{"protocols": object{"imap": false, "pop3": false, "smtp": false, "sieve": false}})
	for _, d := range doors {
		s.refuse(d.name+" by a mapped name", d.login(s, outside, "ann@nowhere.invalid", "ann-mailbox"), d.yes)
		s.refuse(d.name+" by a nickname", d.login(s, outside, "nick@example.org", "bob-mailbox"), d.yes)
	}
	s.record("account="+ann+"&reason=suspended", func(object) bool { return true })
	s.record("account=nick@example.org&outcome=deny&reason=protocol_disabled", func(object) bool { return true })
	// The refusal's text reaches every protocol.
	s.want("imap", s.imap(outside, "ann@nowhere.invalid", "ann-mailbox"), "NO [ALERT] This account is suspended.")
	s.want("smtp", s.smtp(outside, "ann@nowhere.invalid", "ann-mailbox"), "535 5.7.8 Error: authentication failed: This account is suspended.")
	s.api("PATCH", "/v1/accounts/"+ann, object{"suspended": false})
	// A right password that the rules refused was no guess.
	s.want("imap again", s.imap(outside, "ann@nowhere.invalid", "ann-mailbox"), "OK ")

	// A client type that only the local port proves is known for a mapped name, too. Postfix has no
	// port to send.
	_, port, err := net.SplitHostPort(s.IMAP())
	s.must(err)
	number, err := strconv.Atoi(port)
	s.must(err)
	s.api("PUT", "/v1/client-types/web", object{"evidence": []object{{"networks": []string{outside}, "local_ports": []int{number}}}})
	s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false})
	s.want("webmail's port", s.imap(outside, "ann@nowhere.invalid", "ann-mailbox"), "OK ")
	s.want("another port", s.pop3(outside, "ann@nowhere.invalid", "ann-mailbox"), "-ERR [AUTH] The administrator does not allow this type of client.")
	s.refuse("no port", s.smtp(outside, "ann@nowhere.invalid", "ann-mailbox"), "235 ")
}

// The same at the SASL door, with and without Dovecot's own check: one record of the typed name and
// one of the final name, both refused.
func TestMappedNamesAtTheSASLDoor(t *testing.T) {
	t.Parallel()
	for name, alone := range map[string]bool{"checked by Dovecot": false, "checked by the door": true} {
		t.Run(name, func(t *testing.T) {
			s := start(t, trialstack.Options{
				SASLDoor: true, MainCF: "smtpd_milters =\n", DoorAlone: alone,
				Accounts: []trialstack.Account{
					{Address: bob, Password: "bob-mailbox"},
					{Address: "nick@example.org", Password: "bob-mailbox", Fields: "user=" + bob},
				},
			})
			s.domain(nil)
			c, r := s.submit(outside, "nick@example.org", "bob-mailbox")
			s.want("a nickname", r, "235 ")
			s.want("as bob", s.send(c, bob, bob, "From: "+bob+"\nSubject: x\n\nx\n"), "250 ")
			s.record("account=nick@example.org", func(r object) bool { return r["outcome"] == "allow" })
			s.api("PATCH", "/v1/accounts/"+bob, object{"suspended": true})
			s.want("suspended", s.smtp(outside, "nick@example.org", "bob-mailbox"), "535 5.7.8 Error: authentication failed: This account is suspended.")
			for _, account := range []string{"nick@example.org", bob} {
				s.record("account="+account+"&reason=suspended", func(r object) bool { return r["outcome"] == "deny" })
			}
			if items := s.api("GET", "/v1/domains/example.org/logins?outcome=next", nil)["items"].([]any); len(items) != 0 {
				t.Errorf("records without an end: %v", items)
			}
			if items := s.api("GET", "/v1/domains/example.org/logins?outcome=deny", nil)["items"].([]any); len(items) != 2 {
				t.Errorf("%d refusals on record, want 2: %v", len(items), items)
			}
		})
	}
}

// Whoever is suspended is not let in, nor sends, by another domain's name or an extension.
func TestNoWayAround(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{
		Settings:    map[string]any{"login.unmanaged": "next", "login.unmanaged_domains": []string{"*"}},
		DovecotConf: "auth_username_chars =\n", // by default Dovecot refuses "+"
		Accounts: []trialstack.Account{
			{Address: ann, Password: "ann-mailbox"},
			{Address: bob, Password: "bob-mailbox"},
			{Address: "bob+x@example.org", Password: "bob-mailbox"},
			{Address: "robert@example.org", Password: "bob-mailbox"},
			{Address: "bob@nowhere.invalid", Password: "bob-mailbox"}, // as a passdb by local part has it
			{Address: "\u00fcnn@nowhere.invalid", Password: "odd-mailbox"},
			{Address: "\u00fcnn@example.org", Password: "odd-mailbox"},
		},
	})
	s.domain(nil)
	s.api("PATCH", "/v1/accounts/"+bob, object{"aliases": []string{"robert@example.org"}})
	names := []string{bob, "bob+x@example.org", "robert@example.org", "BOB+x@Example.ORG."}
	none := func(why string) {
		t.Helper()
		for _, d := range doors {
			for _, name := range names {
				s.refuse(why+": "+d.name+" as "+name, d.login(s, outside, name, "bob-mailbox"), d.yes)
			}
		}
	}
	// A rule that names him by another name binds him, too.
	for _, member := range names {
		const policy = "/v1/domains/example.org/policies/him"
		got := s.api("PUT", policy, object{"name": "Him", "type": "blacklist", "scope": object{"members": []string{member}}})
		if scope := fmt.Sprint(got["scope"]); scope != "map[members:[bob@example.org]]" {
			t.Errorf("a policy for %s is for %s", member, scope)
		}
		none("a policy for " + member)
		s.api("DELETE", policy, nil)
	}
	s.api("PUT", "/v1/groups/"+ann, object{"who_may_send": "listed", "senders": []string{"robert@example.org"}})
	as, r := s.submit(outside, "robert@example.org", "bob-mailbox")
	s.want("auth", r, "235 ")
	s.want("a listed sender", s.send(as, bob, ann, "From: "+bob+"\nSubject: x\n\nx\n"), "250 ")
	s.api("DELETE", "/v1/groups/"+ann, nil)
	s.api("PATCH", "/v1/accounts/"+bob, object{"suspended": true})
	none("suspended")
	// A name that does not parse is the next passdb's where the domain is.
	s.want("an odd name elsewhere", s.imap(outside, "\u00fcnn@nowhere.invalid", "odd-mailbox"), "OK ")
	s.refuse("an odd name here", s.imap(outside, "\u00fcnn@example.org", "odd-mailbox"), "OK ")
	c, r := s.submit(outside, "bob@nowhere.invalid", "bob-mailbox")
	s.want("a domain that is left to the next passdb", r, "235 ")
	s.want("an address of a managed domain", s.send(c, ann, bob, "From: "+ann+"\nSubject: x\n\nx\n"), "550 5.7.1 ")
	s.want("the same in the header", s.send(c, "bob@nowhere.invalid", ann, "From: "+ann+"\nSubject: x\n\nx\n"), "550 5.7.1 ")
}

// A domain that is not managed, where the settings leave it to the next passdb.
func TestUnmanagedNext(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{Settings: map[string]any{"login.unmanaged": "next", "login.unmanaged_domains": []string{"*"}}})
	for _, d := range doors {
		s.want(d.name, d.login(s, outside, ann, s.passwords[ann]), d.yes)
		s.refuse(d.name+" with a wrong password", d.login(s, outside, ann, "wrong"), d.yes)
	}
	c, r := s.submit(outside, ann, s.passwords[ann])
	s.want("auth", r, "235 ")
	s.want("message", s.send(c, ann, bob, "From: "+ann+"\nSubject: x\n\nx\n"), "250 ")
}
