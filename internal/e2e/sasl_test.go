package e2e

import (
	"crypto/tls"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// saslDoor is a site whose Postfix asks Drawbridge itself. The milter, which would answer AUTH with
// its own 4xx while the daemon is away, is left out.
func saslDoor(t *testing.T, settings map[string]any) *site {
	return start(t, trialstack.Options{SASLDoor: true, DoorAlone: true, Settings: settings, MainCF: "smtpd_milters =\n"})
}

// auth speaks AUTH by hand, as a client that offers its response late or an odd one.
func (s *site) auth(lines ...string) string {
	s.t.Helper()
	c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.Submission())
	s.must(err)
	defer func() { _ = c.Close() }()
	_, err = c.Encrypt()
	s.must(err)
	var reply string
	for _, line := range lines {
		reply, err = c.Command(line)
		s.must(err)
	}
	return reply
}

// Submission through Postfix that asks the daemon: what is decided here, what Dovecot verifies, and
// that each login is on record once, also where Dovecot asks Drawbridge about it a second time.
func TestSASLDoor(t *testing.T) {
	t.Parallel()
	masters := map[string]any{"sasl.master_separator": "*"}
	t.Run("alone", func(t *testing.T) { saslDoorLogins(t, saslDoor(t, masters)) })
	t.Run("before checkpassword", func(t *testing.T) {
		saslDoorLogins(t, start(t, trialstack.Options{SASLDoor: true, Settings: masters, MainCF: "smtpd_milters =\n"}))
	})
}

func saslDoorLogins(t *testing.T, s *site) {
	s.domain(nil)
	id, secret := s.device(ann, "phone")
	s.want("a secure password", s.smtp(outside, ann, secret), "235 ")
	s.want("as typed otherwise", s.smtp(outside, "Ann@EXAMPLE.org", secret), "235 ")
	s.want("a mailbox password, which Dovecot verifies", s.smtp(outside, ann, s.passwords[ann]), "235 ")
	s.want("a wrong one", s.smtp(outside, bob, "wrong"), "535 5.7.8 ")
	s.want("IMAP, by checkpassword as before", s.imap(outside, ann, secret), "OK ")

	s.record("account="+ann+"&outcome=allow", func(r object) bool { return r["protocol"] == "imap" })
	s.record("account="+bob+"&reason=bad_secret", func(r object) bool { return r["mechanism"] == "PLAIN" && r["tls"] == true && r["ip"] == outside })
	items := s.api("GET", "/v1/domains/example.org/logins", nil)["items"].([]any)
	var ends []string
	for _, item := range items {
		r := item.(object)
		ends = append(ends, r["protocol"].(string)+" "+r["outcome"].(string)+" "+r["reason"].(string))
	}
	if want := "imap allow ok, smtp deny bad_secret, smtp allow ok, smtp allow ok, smtp allow ok"; strings.Join(ends, ", ") != want {
		t.Errorf("on record, newest first: %q, want %q", ends, want)
	}

	// Split responses, by LOGIN and PLAIN; a client that gives up; nonsense.
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	s.want("LOGIN", s.auth("AUTH LOGIN", b64(ann), b64(secret)), "235 ")
	s.want("LOGIN with its name in front", s.auth("AUTH LOGIN "+b64(ann), b64(s.passwords[ann])), "235 ")
	s.want("PLAIN, late", s.auth("AUTH PLAIN", b64("\x00"+ann+"\x00"+secret)), "235 ")
	s.want("given up, then right", s.auth("AUTH LOGIN", "*", "AUTH LOGIN", b64(ann), "*", "AUTH PLAIN "+b64("\x00"+ann+"\x00"+secret)), "235 ")
	s.want("its own authorization name", s.auth("AUTH PLAIN "+b64(ann+"\x00"+ann+"\x00"+secret)), "235 ")
	s.want("another's", s.auth("AUTH PLAIN "+b64(bob+"\x00"+ann+"\x00"+secret)), "535 ")
	s.want("a master's, whom Dovecot knows", s.auth("AUTH PLAIN "+b64(bob+"\x00"+trialstack.MasterUser+"\x00"+trialstack.MasterPassword)), "235 ")
	s.record("account="+bob+"&outcome=allow", func(r object) bool { return r["master_user"] == trialstack.MasterUser })
	as := ann + "*" + trialstack.MasterUser
	s.want("a master's, by the name", s.smtp(outside, as, trialstack.MasterPassword), "235 ")
	s.want("by LOGIN", s.auth("AUTH LOGIN", b64(as), b64(trialstack.MasterPassword)), "235 ")
	s.want("with a wrong password", s.smtp(outside, as, "wrong"), "535 ")
	s.want("with the user's", s.smtp(outside, as, s.passwords[ann]), "535 ")
	s.want("of no master", s.smtp(outside, ann+"*"+bob, s.passwords[bob]), "535 ")
	s.record("account="+ann+"&outcome=allow", func(r object) bool { return r["master_user"] == trialstack.MasterUser })
	if items := s.api("GET", "/v1/domains/example.org/logins?account="+bob+"&outcome=allow", nil)["items"].([]any); len(items) != 1 {
		t.Errorf("a master's login is on record %d times", len(items))
	}
	s.want("no PLAIN response", s.auth("AUTH PLAIN "+b64(ann)), "535 ")
	s.want("8 000 octets of password", s.auth("AUTH PLAIN", b64("\x00"+ann+"\x00"+strings.Repeat("x", 8_000))), "535 ")

	// A session that is open ends with the secret that opened it.
	c, r := s.submit(outside, ann, secret)
	s.want("before", r, "235 ")
	s.want("before", s.send(c, ann, bob, "Subject: x\r\n\r\nx\r\n"), "250 ")
	s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+id, nil)
	s.want("after", s.send(c, ann, bob, "Subject: x\r\n\r\nx\r\n"), "421 4.7.0 ")
	s.want("revoked", s.smtp(outside, ann, secret), "535 ")
	s.record("account="+ann+"&reason=revoked_secret", func(object) bool { return true })
	s.logged(s.Daemons[0].Service, "login deny: user="+ann+" ip="+outside+" proto=smtp client=third-party reason=revoked_secret")

	// Rules hold for what Dovecot would verify, and refuse before it is asked.
	s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{"smtp": false}})
	s.want("switched off", s.smtp(outside, ann, s.passwords[ann]), "535 ")
	s.record("account="+ann+"&reason=protocol_disabled", func(object) bool { return true })
}

// What cannot be decided is 454 at once, and neither Dovecot's end nor the daemon's outlasts
// itself.
func TestSASLDoorTemporaryFailures(t *testing.T) {
	t.Parallel()
	s := saslDoor(t, nil)
	s.domain(nil)
	_, secret := s.device(ann, "phone")
	s.want("before", s.smtp(outside, ann, s.passwords[ann]), "235 ")

	s.must(s.Dovecot.Stop())
	s.want("a secure password without Dovecot", s.smtp(outside, ann, secret), "235 ")
	s.want("a mailbox password without Dovecot", s.smtp(outside, ann, s.passwords[ann]), "454 ")
	s.must(s.Dovecot.Start(s.ctx))
	s.want("a mailbox password after Dovecot's restart", s.smtp(outside, ann, s.passwords[ann]), "235 ")

	// An smtpd that was connected to the daemon connects to its successor, whatever ended it.
	for what, restart := range map[string]func() error{
		"stopped": s.Daemons[0].Stop, "killed": s.Daemons[0].Kill,
	} {
		c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.Submission())
		s.must(err)
		_, err = c.Encrypt()
		s.must(err)
		s.must(restart())
		s.must(s.Daemons[0].Start(s.ctx))
		reply, err := c.Command("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+ann+"\x00"+secret)))
		s.must(err)
		s.want("after the daemon was "+what, reply, "235 ")
		_ = c.Close()
	}

	s.must(s.Daemons[0].Kill())
	s.refuse("without the daemon", s.smtpOnce(ann, secret), "235 ")
	s.must(s.Daemons[0].Start(s.ctx))
	s.eventually("the daemon is asked again", func() bool { return strings.HasPrefix(s.smtpOnce(ann, secret), "235 ") })
}

// smtpOnce logs in where Postfix may hang up before it has said anything.
func (s *site) smtpOnce(user, password string) string {
	s.t.Helper()
	c, r, err := mailclient.Client{From: outside}.Login(s.ctx, s.Submission(), user, password)
	if err != nil {
		return err.Error()
	}
	_ = c.Close()
	return r
}

// A site whose mailbox passwords are kept here needs no Dovecot for submission, and hears why.
func TestSASLDoorWithoutDovecot(t *testing.T) {
	t.Parallel()
	s := saslDoor(t, map[string]any{"login.next_passdb": false, "sasl.next": ""})
	s.domain(nil)
	s.api("PUT", "/v1/accounts/"+ann, object{})
	s.api("PUT", "/v1/accounts/"+ann+"/mailbox-password", object{"password": "a long enough phrase"})
	s.must(s.Dovecot.Stop())
	s.want("kept here", s.smtp(outside, ann, "a long enough phrase"), "235 ")
	s.want("wrong", s.smtp(outside, ann, "wrong"), "535 5.7.8 Error: authentication failed: ")
	s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false, "secure_login_ips": []string{office}})
	s.want("the reason", s.smtp(outside, ann, "a long enough phrase"),
		"535 5.7.8 Error: authentication failed: The administrator has enabled IP login restrictions.")
}

// Postfix does not pass a client's certificate on (3.7, 3.10), so EXTERNAL is refused, whatever the
// client shows, and other mechanisms work as without one.
func TestExternalAtTheSASLDoor(t *testing.T) {
	t.Parallel()
	certificate, authority := clientCertificate(t, "ann's laptop")
	ca := filepath.Join(t.TempDir(), "clients.pem")
	if err := os.WriteFile(ca, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, trialstack.Options{
		SASLDoor: true, DoorAlone: true, DovecotConf: "auth_mechanisms = plain login external\n",
		MainCF: "smtpd_milters =\nsmtpd_tls_ask_ccert = yes\nsmtpd_tls_loglevel = 1\nsmtpd_tls_CAfile = " + ca + "\n",
	})
	s.domain(nil)
	// The client type that the certificate proves elsewhere is not proven here.
	s.api("PUT", "/v1/client-types/native-desktop", object{"evidence": []object{{"client_cert": "valid"}}})
	c, err := mailclient.Client{From: outside, Certificates: []tls.Certificate{certificate}}.SMTP(s.ctx, s.Submission())
	s.must(err)
	defer func() { _ = c.Close() }()
	_, err = c.Encrypt()
	s.must(err)
	reply, err := c.Command("AUTH EXTERNAL " + base64.StdEncoding.EncodeToString([]byte(ann)))
	s.must(err)
	s.want("EXTERNAL", reply, "535 ")
	reply, err = c.Command("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+ann+"\x00"+s.passwords[ann])))
	s.must(err)
	s.want("PLAIN", reply, "235 ")
	s.record("account="+ann+"&outcome=allow", func(r object) bool { return r["client"] == "third-party" && r["mechanism"] == "PLAIN" })
	s.logged(s.Postfix, "Trusted TLS connection established", "SASL EXTERNAL authentication failed")
}
