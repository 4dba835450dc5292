package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

func (s *site) send(c *mailclient.SMTP, from, to, message string) string {
	s.t.Helper()
	r, err := c.Send(from, to, message)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// received waits for a message with a subject in an account's inbox.
func (s *site) received(account, subject string) string {
	s.t.Helper()
	var found string
	s.eventually("a message "+subject+" for "+account, func() bool {
		messages, err := s.Inbox(account)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, m := range messages {
			if strings.Contains(m, "\nSubject: "+subject+"\n") {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

// M1: MAIL FROM and every From mailbox belong to whoever logged in.
func TestSenderBelongsToTheLogin(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	s.api("PATCH", "/v1/domains/example.org", object{"alias_domains": []string{"example.net"}})
	s.api("PATCH", "/v1/accounts/"+ann, object{"aliases": []string{"info@example.org"}})
	const refusal = "550 5.7.1 "
	cases := []struct{ name, from, header, want string }{
		{"own", ann, "From: Ann <" + ann + ">", "250 "},
		{"own, in capitals", "Ann@Example.ORG", "From: ANN@example.org", "250 "},
		{"alias", "info@example.org", "From: info@example.org", "250 "},
		{"alias domain", "ann@example.net", "From: ann@example.net", "250 "},
		{"extension", "ann+lists@example.org", "From: ann+lists@example.org", "250 "},
		{"null sender", "", "From: " + ann, "250 "},
		{"foreign envelope", bob, "From: " + ann, refusal},
		{"foreign header", ann, "From: " + bob, refusal},
		{"foreign among several", ann, "From: " + ann + ", " + bob, refusal},
		{"second From field", ann, "From: " + ann + "\nFrom: " + bob, refusal},
		{"foreign behind a name that looks own", ann, "From: \"" + ann + "\" <" + bob + ">", refusal},
		{"in a group", ann, "From: team: " + bob + ";", refusal},
		{"folded", ann, "From:\n Bob\n <" + bob + ">", refusal},
		{"unreadable", ann, "From: <<>>", refusal},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			conn, r := s.submit(outside, ann, s.passwords[ann])
			s.want("auth", r, "235 ")
			s.want("answer", s.send(conn, c.from, bob, c.header+"\nTo: "+bob+"\nSubject: test\n\nHello\n"), c.want)
		})
	}
	t.Run("the same session goes on after a refusal", func(t *testing.T) {
		s := s.in(t)
		conn, r := s.submit(outside, ann, s.passwords[ann])
		s.want("auth", r, "235 ")
		s.want("foreign header", s.send(conn, ann, bob, "From: "+bob+"\nSubject: a\n\nx\n"), refusal)
		s.want("own header", s.send(conn, ann, bob, "From: "+ann+"\nSubject: after-a-refusal\n\nx\n"), "250 ")
		s.want("foreign again", s.send(conn, ann, bob, "From: "+bob+"\nSubject: c\n\nx\n"), refusal)
		s.received(bob, "after-a-refusal")
	})
	t.Run("inbound mail passes untouched", func(t *testing.T) {
		s := s.in(t)
		c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.SMTP())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Hello(); err != nil {
			t.Fatal(err)
		}
		s.want("inbound", s.send(c, "someone@elsewhere.example", ann, "From: "+bob+"\nSubject: inbound\n\nHello\n"), "250 ")
		s.received(ann, "inbound")
	})
	t.Run("mail of local programs passes", func(t *testing.T) {
		s := s.in(t)
		if err := s.Sendmail(s.ctx, "root@mail.example.org", ann, "From: root@mail.example.org\nTo: "+ann+"\nSubject: from-cron\n\nHello\n"); err != nil {
			t.Fatal(err)
		}
		s.received(ann, "from-cron")
	})
	t.Run("envelope only, and off", func(t *testing.T) {
		s := s.in(t)
		for check, want := range map[string][2]string{"envelope": {refusal, "250 "}, "off": {"250 ", "250 "}} {
			s.api("PATCH", "/v1/domains/example.org", object{"sender_check": check})
			conn, r := s.submit(outside, ann, s.passwords[ann])
			s.want("auth", r, "235 ")
			s.want(check+": foreign envelope", s.send(conn, bob, bob, "From: "+ann+"\nSubject: x\n\nx\n"), want[0])
			s.want(check+": foreign header", s.send(conn, ann, bob, "From: "+bob+"\nSubject: x\n\nx\n"), want[1])
		}
		// No rule needs a header field now: the Message-ID is recorded all the same, and nobody else
		// writes fields of ours.
		s.api("PATCH", "/v1/domains/example.org", object{"trace_header": false})
		conn, r := s.submit(outside, ann, s.passwords[ann])
		s.want("auth", r, "235 ")
		s.want("without rules", s.send(conn, ann, bob, "Message-ID:\n <unruled@example.org>\nX-Drawbridge-Folder: spam\nFrom: "+ann+"\nSubject: unruled\n\nx\n"), "250 ")
		if m := s.received(bob, "unruled"); strings.Contains(m, "X-Drawbridge") {
			t.Errorf("a field of ours: %s", m)
		}
		if rec := s.messageRecord("message_id=%3Cunruled@example.org%3E"); rec["account"] != ann || rec["queue_id"] == nil {
			t.Errorf("record: %v", rec)
		}
	})
}

// M12: the domain of an address decides who sends from it, and grants widen that.
func TestSendAs(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(object{"sender_check": "off"})
	s.api("POST", "/v1/domains", object{"name": "example.com"})
	key := s.api("POST", "/v1/keys", object{"name": "tenant", "role": "domain", "domain": "example.org"})["key"].(string)
	const ceo, refusal = "ceo@example.com", "550 5.7.1 "
	message := func(from string) string {
		conn, r := s.submit(outside, ann, s.passwords[ann])
		s.want("auth", r, "235 ")
		return s.send(conn, from, bob, "From: CEO <"+from+">\nSubject: x\n\nx\n")
	}
	s.want("another tenant's address, own check off", message(ceo), refusal)
	conn, r := s.submit(outside, ann, s.passwords[ann])
	s.want("auth", r, "235 ")
	s.want("in the header only", s.send(conn, ann, bob, "From: CEO <"+ceo+">\nSubject: x\n\nx\n"), refusal)
	s.want("in Sender", s.send(conn, ann, bob, "From: "+ann+"\nSender: "+ceo+"\nSubject: x\n\nx\n"), refusal)

	for _, from := range []string{"ceo%example.com", "example.com!ceo", "@relay.example:" + ceo} { // Postfix rewrites these
		s.want("MAIL FROM:<"+from+">", s.send(conn, from, bob, "From: "+ann+"\nSubject: x\n\nx\n"), refusal)
	}

	s.with(key).refused(422, "invalid", "PATCH", "/v1/accounts/"+ann, object{"send_as": []string{ceo}})
	s.want("still", message(ceo), refusal)
	s.command("account", "set", ann, "--add-send-as", ceo)
	s.want("granted", message(ceo), "250 ")
	s.command("account", "set", ann, "--remove-send-as", ceo)
	if status, _, errs := s.status("account", "set", ann, "--alias", "*@example.org"); status != 65 || !strings.Contains(errs, "send_as") {
		t.Errorf("a pattern as alias: %d %s", status, errs)
	}
	s.want("withdrawn", message(ceo), refusal)
	s.command("department", "create", "example.org", "board")
	s.with(key).refused(422, "invalid", "PUT", "/v1/domains/example.org/departments/board", object{"name": "board", "send_as": []string{"*@example.com"}})
	s.command("department", "set", "example.org", "board", "--send-as", "*@example.com")
	s.command("account", "set", ann, "--add-department", "board")
	s.want("granted to a department", message(ceo), "250 ")

	s.api("PATCH", "/v1/domains/example.org", object{"sender_check": "both"})
	conn, r = s.submit(outside, ann, s.passwords[ann])
	s.want("auth", r, "235 ")
	s.want("no From", s.send(conn, ann, bob, "Subject: x\n\nx\n"), refusal+"The message has no From header")
	s.want("two From", s.send(conn, ann, bob, "From: "+ann+"\nFrom: "+ann+"\nSubject: x\n\nx\n"), refusal+"The message has 2 From headers")
	s.want("unreadable", s.send(conn, ann, bob, "From: Ann\nSubject: x\n\nx\n"), refusal+"The From header cannot be read (octet 4: ")
	const foreign = "ann@elsewhere.example"
	s.want("foreign", s.send(conn, foreign, bob, "From: "+foreign+"\nSubject: x\n\nx\n"), refusal)
	s.with(key).refused(422, "invalid", "PATCH", "/v1/accounts/"+ann, object{"send_as": []string{foreign}})
	s.command("account", "set", ann, "--add-send-as", foreign)
	s.want("foreign, granted", s.send(conn, foreign, bob, "From: "+foreign+"\nSubject: x\n\nx\n"), "250 ")
	s.want("Resent-From", s.send(conn, ann, bob, "From: "+ann+"\nResent-From: "+bob+"\nSubject: x\n\nx\n"), refusal+"The address "+bob+" in the Resent-From header")
	for name, from := range map[string]string{
		"comma": "Smith, Ann <" + ann + ">", "Latin-1": "B\xfcro <" + ann + ">", "brackets": "Ann [Sales] <" + ann + ">",
		"an @ in the name": "Ann @ Sales <" + ann + ">",
		"quoted address":   `<"ann"@example.org>`, "careless base64": "=?utf-8?b?TcO8bGxlcg?= <" + ann + ">",
		"spaced base64": "=?utf-8?b?TcO8 bGxlcg==?= <" + ann + ">", "source route": "<@relay.example:" + ann + ">",
	} {
		s.want(name, s.send(conn, ann, bob, "From: "+from+"\nSubject: x\n\nx\n"), "250 ")
	}
	for _, from := range []string{`"ann"@example.org`, "@relay.example:" + ann} { // as in the header
		s.want("MAIL FROM:<"+from+">", s.send(conn, from, bob, "From: "+ann+"\nSubject: x\n\nx\n"), "250 ")
	}
	s.want("ISO-2022", s.send(conn, ann, bob, "From: =?ISO-2022-JP?B?GyRCJDwkQCQ+JD8bKEI=?= <"+ann+">\nSubject: x\n\nx\n"), "250 ")
	for name, from := range map[string]string{
		"ISO-2022 with an address": "=?iso-2022-jp?B?GyRCJDwbKEI8Ym9zc0BleGFtcGxlLm5ldD4=?=",
		"base64 with a space":      "=?utf-8?b?Qm9zcyA8Ym9zY0BleGFtcGxl Lm9yZz4=?=",
		"opaque and suspicious":    "=?utf-7?q?+ADw-boss+AEA-example.net+AD4-?=",
	} {
		s.want(name, s.send(conn, ann, bob, "From: "+from+" <"+ann+">\nSubject: x\n\nx\n"), refusal)
	}
}

// Accounts of the next passdb whose domains are not managed use no address of one that is.
func TestUnmanagedSenders(t *testing.T) {
	t.Parallel()
	const eve = "eve@example.net"
	s := start(t, trialstack.Options{
		Settings:    map[string]any{"login.unmanaged": "next", "login.unmanaged_domains": []string{"example.net"}, "login.subaddress": "-"},
		DovecotConf: "auth_username_chars =\n", // by default Dovecot refuses "+"
		Accounts: []trialstack.Account{
			{Address: ann, Password: "ann-mailbox"},
			{Address: bob, Password: "bob-mailbox"},
			{Address: eve, Password: "eve-mailbox"},
			{Address: "ann-x@example.org", Password: "ann-mailbox"},
			{Address: "ann+x@example.org", Password: "other-mailbox"},
			{Address: "ann@nowhere.invalid", Password: "ann-mailbox"}, // as a passdb by local part has it
		},
	})
	s.domain(nil)
	for _, d := range doors {
		s.refuse(d.name+" by a domain that no setting names", d.login(s, outside, "ann@nowhere.invalid", "ann-mailbox"), d.yes)
	}
	conn, r := s.submit(outside, eve, s.passwords[eve])
	s.want("auth", r, "235 ")
	s.want("own", s.send(conn, eve, bob, "From: "+eve+"\nSubject: x\n\nx\n"), "250 ")
	s.want("managed, in the envelope", s.send(conn, ann, bob, "From: "+eve+"\nSubject: x\n\nx\n"), "550 5.7.1 The sender address "+ann)
	s.want("managed, in the header", s.send(conn, eve, bob, "From: "+ann+"\nSubject: x\n\nx\n"), "550 5.7.1 The address "+ann)

	// Extensions begin with the delimiters of login.subaddress, here "-" instead of "+".
	s.want("an extension", s.imap(outside, "ann-x@example.org", "ann-mailbox"), "OK ")
	s.api("PATCH", "/v1/accounts/"+ann, object{"suspended": true})
	s.refuse("an extension of a suspended account", s.imap(outside, "ann-x@example.org", "ann-mailbox"), "OK ")
	s.want("a name that has none", s.imap(outside, "ann+x@example.org", "other-mailbox"), "OK ")
}

// A site whose rules need no header needs no milter: policyd judges MAIL FROM, and says why.
func TestSenderCheckWithoutMilter(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{MainCF: "smtpd_milters =\nnon_smtpd_milters =\n"})
	s.domain(object{"sender_check": "envelope"})
	message := func(from string) string {
		conn, r := s.submit(outside, ann, s.passwords[ann])
		s.want("auth", r, "235 ")
		return s.send(conn, from, bob, "From: "+ann+"\nSubject: x\n\nx\n")
	}
	s.want("own", message(ann), "250 ")
	reply := message(bob)
	s.want("another's", reply, "554 5.7.1 ")
	if !strings.Contains(reply, "The sender address "+bob+" does not belong to your account: send as "+ann) {
		t.Errorf("the reply does not name the cause: %s", reply)
	}
	s.want("own again", message(ann), "250 ")
}

// An outsider's odd MAIL FROM is none of the policy service's business.
func TestOddSenders(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{
		Settings: map[string]any{"milter.max_connections": 1, "login.subaddress": ""}, DovecotConf: "auth_username_chars =\n",
		Accounts: append(trialstack.DemoAccounts(), trialstack.Account{Address: "bob+x@example.org", Password: "other-mailbox"}),
	})
	s.domain(nil)
	s.api("PATCH", "/v1/accounts/"+bob, object{"suspended": true})
	s.want("without delimiters, an account of its own", s.imap(outside, "bob+x@example.org", "other-mailbox"), "OK ")
	s.refuse("the suspended account", s.imap(outside, bob, s.passwords[bob]), "OK ")
	for _, from := range []string{"\"a b\"@elsewhere.example", "x\x7fy@elsewhere.example", strings.Repeat("a", 300) + "@elsewhere.example"} {
		c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.SMTP())
		s.must(err)
		_, err = c.Hello()
		s.must(err)
		reply := s.send(c, from, ann, "From: x@elsewhere.example\nSubject: odd\n\nx\n")
		if strings.HasPrefix(reply, "451 ") {
			t.Errorf("MAIL FROM:<%q>: %s", from, reply)
		}
		s.must(c.Close())
	}

	// A second session waits for the milter's only connection, which the metrics and the log show.
	first, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.SMTP())
	s.must(err)
	s.eventually("the first session has the connection", func() bool {
		_, err := first.Hello()
		return err == nil
	})
	second, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.SMTP())
	s.must(err)
	defer func() { _ = second.Close() }()
	s.eventually("the limit is in the metrics", func() bool {
		return s.metric("drawbridge_connections_limit_reached_total", `service="milter"`) > 0
	})
	s.logged(s.Daemons[0].Service, "connection limit reached")
	s.must(first.Close())
	reply, err := second.Hello()
	s.must(err)
	s.want("the second session", reply, "250")
	s.must(second.Close())

	// A peer that never speaks gets the only connection, and is dropped: mail goes on.
	silent, err := net.Dial("unix", s.Daemons[0].MilterSocket)
	s.must(err)
	defer func() { _ = silent.Close() }()
	third, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.SMTP())
	s.must(err)
	defer func() { _ = third.Close() }()
	reply, err = third.Hello()
	s.must(err)
	s.want("the third session", reply, "250")
	s.want("its message", s.send(third, "x@elsewhere.example", ann, "From: x@elsewhere.example\nSubject: after silence\n\nx\n"), "250 ")
	s.received(ann, "after silence")
	s.must(silent.SetReadDeadline(time.Now().Add(20 * time.Second)))
	if n, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the silent peer read %d octets, %v, want the end", n, err)
	}
}

// M10: submitted mail names the device; a forged header of that name does not last.
func TestTraceHeader(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(object{"trace_header": true})
	_, secret := s.device(ann, `Büro "Laptop"`)
	conn, r := s.submit(outside, ann, secret)
	s.want("auth", r, "235 ")
	s.want("message", s.send(conn, ann, bob, "X-Drawbridge-Client: client=web\nFrom: "+ann+"\nx-drawbridge-client: forged\nSubject: traced\n\nHello\n"), "250 ")
	m := s.received(bob, "traced")
	if n := strings.Count(strings.ToLower(m), "x-drawbridge-client:"); n != 1 || strings.Contains(m, "forged") {
		t.Errorf("%d headers:\n%s", n, m)
	}
	if !strings.Contains(m, "client=third-party") || !strings.Contains(m, "id=") {
		t.Errorf("the header does not name client and credential:\n%s", m)
	}
}

// Dovecot's own submission service passes the login on to Postfix (XCLIENT LOGIN): the sender check,
// the trace header and revocation hold as for a client of Postfix.
func TestDovecotSubmissionService(t *testing.T) {
	t.Parallel()
	relay, listener := freePort(t), freePort(t)
	conf := fmt.Sprintf(`
submission_relay_host = 127.0.0.1
submission_relay_port = %d
submission_relay_trusted = yes
service submission-login {
  inet_listener submission {
    port = %d
  }
}
`, relay, listener)
	s := start(t, trialstack.Options{
		Ports: trialstack.Ports{SMTP: relay}, MainCF: "smtpd_authorized_xclient_hosts = 127.0.0.1\n",
		DovecotConf: bySeries(t, "protocols = imap pop3 lmtp sieve submission\n", "protocols {\n  submission = yes\n}\n") + conf,
	})
	s.domain(object{"trace_header": true})
	login := func(from, password, want string) *mailclient.SMTP {
		t.Helper()
		c, r, err := mailclient.Client{From: from}.Login(s.ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(listener)), ann, password)
		s.must(err)
		t.Cleanup(func() { _ = c.Close() })
		s.want("auth", r, want)
		return c
	}
	message := func(from, header, subject string) (envelope, recipient, text string) {
		return from, bob, "From: " + header + "\nSubject: " + subject + "\n\nx\n"
	}
	refused := func(what string, c *mailclient.SMTP, from, header, subject string) {
		t.Helper()
		if r, err := c.Send(message(from, header, subject)); err == nil { // else Dovecot ended the session
			s.refuse(what, r, "250 ")
		}
	}
	id, secret := s.device(ann, "phone")
	c := login(outside, secret, "235 ")
	s.want("her own address", s.send(c, ann, bob, "From: "+ann+"\nSubject: relayed\n\nx\n"), "250 ")
	if m := s.received(bob, "relayed"); !strings.Contains(m, "X-Drawbridge-Client: client=third-party") || !strings.Contains(m, id) {
		t.Errorf("the message does not name the device:\n%s", m)
	}
	s.want("another's From", s.send(c, ann, bob, "From: "+bob+"\nSubject: header\n\nx\n"), "550 5.7.1 ")
	s.eventually("the message is on record", func() bool {
		for _, item := range s.api("GET", "/v1/domains/example.org/messages?credential="+id, nil)["items"].([]any) {
			if r := item.(object); r["account"] == ann && r["ip"] == outside && r["verdict"] == "accepted" {
				return true
			}
		}
		return false
	})
	// Dovecot 2.3.19 crashes when the relay refuses MAIL, and the client reads no answer.
	refused("another's address", login(outside, secret, "235 "), bob, ann, "envelope")

	// Secure passwords stay enough where they are enforced: the session is known by its login.
	s.api("PUT", "/v1/domains/example.org/secure-password-policy", object{"enforced": true, "scope": object{"all": true}})
	enforced := login(office, secret, "235 ")
	s.want("enforced", s.send(enforced, ann, bob, "From: "+ann+"\nSubject: enforced\n\nx\n"), "250 ")
	s.api("PUT", "/v1/domains/example.org/secure-password-policy", object{"enforced": false})

	tablet := login("127.0.1.8", s.passwords[ann], "235 ")
	s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+id, nil)
	refused("the revoked device, in its open session", c, ann, ann, "revoked")
	refused("the revoked device, in another one", enforced, ann, ann, "revoked")
	login(outside, secret, "535 ")
	s.want("another device", s.send(tablet, ann, bob, "From: "+ann+"\nSubject: tablet\n\nx\n"), "250 ")
	s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{"smtp": false}})
	refused("switched off, in its open session", tablet, ann, ann, "off")
	s.refuse("switched off", s.smtp(outside, ann, s.passwords[ann]), "235 ")
	s.received(bob, "tablet")
	for _, subject := range []string{"envelope", "header", "revoked", "off"} {
		if s.count(bob, subject) > 0 {
			t.Errorf("a message %s was delivered", subject)
		}
	}
}

// A session whose credential is revoked after RCPT sends nothing, whether the message has begun or
// not, and whatever the milter is asked about.
func TestRevokedDuringMessage(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	command := func(c *mailclient.SMTP, line, want string) {
		t.Helper()
		r, err := c.Command(line)
		s.must(err)
		s.want(line, r, want)
	}
	for _, check := range []string{"both", "envelope", "off"} {
		s.api("PATCH", "/v1/domains/example.org", object{"sender_check": check})
		for _, revokeBefore := range []string{"DATA", "."} {
			id, secret := s.device(ann, "phone "+check+" "+revokeBefore)
			c, r := s.submit(outside, ann, secret)
			s.want("auth", r, "235 ")
			command(c, "MAIL FROM:<"+ann+">", "250 ")
			command(c, "RCPT TO:<"+bob+">", "250 ")
			if revokeBefore == "DATA" {
				s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+id, nil)
				command(c, "DATA", "421 4.7.0 ")
				continue
			}
			command(c, "DATA", "354 ")
			s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+id, nil)
			command(c, "From: "+ann+"\r\nSubject: late\r\n\r\nHello\r\n.", "421 4.7.0 ")
		}
	}
	// A device that is not revoked sends as before.
	_, secret := s.device(ann, "tablet")
	c, _ := s.submit(outside, ann, secret)
	s.want("the tablet", s.send(c, ann, bob, "From: "+ann+"\nSubject: tablet\n\nHello\n"), "250 ")
	s.received(bob, "tablet")
	messages, err := s.Inbox(bob)
	s.must(err)
	for _, m := range messages {
		if strings.Contains(m, "\nSubject: late\n") {
			t.Error("a message of a revoked device was delivered")
		}
	}
}
