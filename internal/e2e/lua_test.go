package e2e

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// The Lua passdb: odd passwords, mechanisms that hide the secret, reasons, one device's sessions,
// and a daemon that is away or does not answer in its protocol. Dovecot 2.3 uses checkpassword.
func TestLuaPassdb(t *testing.T) {
	t.Parallel()
	only(t, "2.4", "the Lua passdb")
	accounts := []trialstack.Account{
		{Address: ann, Password: "ann-mailbox", Hash: "{PLAIN}ann-mailbox"}, // CRAM-MD5 needs it in clear
		{Address: bob, Password: "bob-mailbox"},
	}
	s := start(t, trialstack.Options{
		SASLDoor: true, MainCF: "smtpd_milters =\n", Accounts: accounts,
		DovecotConf: "auth_mechanisms = plain login cram-md5\nauth_cache_size = 10M\n",
	})
	s.domain(nil)
	s.api("PATCH", "/v1/domains/example.org", object{"alias_domains": []string{"example.net"}})
	id, secret := s.device(ann, "phone")
	proxies := []struct {
		name               string
		login              func(s *site, from, user, password string) string
		yes, no, why, away string
	}{
		{"imap", (*site).imap, "OK ", "NO [AUTHENTICATIONFAILED]", "NO [CONTACTADMIN] The administrator has enabled IP login restrictions.", "NO [UNAVAILABLE]"},
		{"pop3", (*site).pop3, "+OK ", "-ERR [AUTH]", "-ERR [AUTH] The administrator has enabled", "-ERR [SYS/TEMP]"},
		{"sieve", (*site).sieve, "OK ", `NO "Authentication failed."`, `NO "The administrator has enabled`, "NO (TRYLATER)"},
	}
	for _, p := range proxies {
		s.want(p.name+", secure password", p.login(s, outside, ann, secret), p.yes)
		s.want(p.name+", mailbox password", p.login(s, outside, ann, s.passwords[ann]), p.yes)
		s.want(p.name+", again, not from the cache", p.login(s, outside, ann, secret), p.yes)
		s.want(p.name+", wrong", p.login(s, outside, ann, "wrong"), p.no)
		s.want(p.name+", alias domain, mailbox password", p.login(s, outside, "ann@example.net", s.passwords[ann]), p.yes)
		s.want(p.name+", alias domain, wrong", p.login(s, outside, "ann@example.net", "wrong"), p.no)
		for _, odd := range []string{`a"b\c`, "ü€", "\xff\xfe", strings.Repeat("x", 700)} {
			s.refuse(p.name+", an odd password", p.login(s, outside, bob, odd), p.yes)
		}
	}
	s.record("account="+ann+"&outcome=allow", func(r object) bool { return r["protocol"] == "sieve" && r["ip"] == outside })
	s.record("account="+ann+"&reason=bad_secret", func(r object) bool { return r["protocol"] == "pop3" })

	// Dovecot's own passdb verifies CRAM-MD5, if the rules permit it.
	s.want("CRAM-MD5", s.cramMD5(ann, s.passwords[ann]), "235 ")
	s.want("CRAM-MD5, wrong", s.cramMD5(ann, "wrong"), "535 ")
	s.want("CRAM-MD5 with a secure password, which Dovecot does not know", s.cramMD5(ann, secret), "535 ")
	s.want("CRAM-MD5, alias domain", s.cramMD5("ann@example.net", s.passwords[ann]), "235 ")
	s.want("CRAM-MD5, alias domain, wrong", s.cramMD5("ann@example.net", "wrong"), "535 ")
	s.record("account="+ann+"&outcome=allow", func(r object) bool { return r["mechanism"] == "CRAM-MD5" && r["secret_hidden"] == true })
	s.api("PATCH", "/v1/accounts/"+ann, object{"secure_passwords": "required"})
	s.want("CRAM-MD5 where a secure password is required", s.cramMD5(ann, s.passwords[ann]), "535 ")
	s.want("the secure password there", s.smtp(outside, ann, secret), "235 ")
	s.api("PATCH", "/v1/accounts/"+ann, object{"secure_passwords": "optional"})

	// A refusal states its reason where the protocol has room for one, to those who know a secret.
	s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false, "secure_login_ips": []string{office}})
	for _, p := range proxies {
		s.want(p.name+", the reason", p.login(s, outside, ann, secret), p.why)
		s.want(p.name+", to a guesser", p.login(s, outside, ann, "wrong"), p.no)
		s.want(p.name+", from the office", p.login(s, office, ann, secret), p.yes)
	}
	s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": true})

	// The session carries the credential's id.
	c, err := mailclient.Client{From: outside}.IMAP(s.ctx, s.IMAP())
	s.must(err)
	defer func() { _ = c.Close() }()
	_, err = c.StartTLS()
	s.must(err)
	r, err := c.Login(ann, secret)
	s.must(err)
	s.want("a session", r.Status, "OK ")
	if out, err := s.Doveadm(s.ctx, "kick", "-f", "user_credential", id); err != nil || !strings.Contains(out, "1 connections kicked") {
		t.Errorf("doveadm kick: %s %v", out, err)
	}
	s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+id, nil)
	for _, p := range proxies {
		s.want(p.name+", revoked", p.login(s, outside, ann, secret), p.no)
	}

	// Without a next passdb, a login that Drawbridge passes on is refused.
	conf, err := os.ReadFile(s.DovecotConf())
	s.must(err)
	before, rest, _ := strings.Cut(string(conf), "passdb masters {")
	_, after, found := strings.Cut(rest, "userdb users {")
	if !found {
		t.Fatalf("the configuration has changed:\n%s", conf)
	}
	s.must(os.WriteFile(s.DovecotConf(), []byte(before+"userdb users {"+after), 0o600))
	s.must(s.Dovecot.Restart(s.ctx))
	for _, p := range proxies {
		for _, name := range []string{ann, "ann@example.net"} {
			for _, password := range []string{s.passwords[ann], "wrong"} {
				s.refuse(p.name+", no next passdb, "+name, p.login(s, outside, name, password), p.yes)
			}
		}
	}
	s.must(os.WriteFile(s.DovecotConf(), conf, 0o600))
	s.must(s.Dovecot.Restart(s.ctx))
	s.want("with the next passdb", s.imap(outside, "ann@example.net", s.passwords[ann]), "OK ")

	// A daemon that is away, answers nonsense or nothing is a temporary failure.
	s.must(s.Daemons[0].Kill())
	for _, p := range proxies {
		s.want(p.name+", without the daemon", p.login(s, outside, ann, s.passwords[ann]), p.away)
	}
	s.refuseNonsense()
	log, err := os.ReadFile(s.Dovecot.LogPath)
	s.must(err)
	for _, password := range []string{s.passwords[ann], secret} {
		if bytes.Contains(log, []byte(password)) {
			t.Error("Dovecot's log contains a password")
		}
	}
}

// refuseNonsense plays daemons that answer nonsense, or nothing, in place of the one that was
// killed. Each login is a temporary failure.
func (s *site) refuseNonsense() {
	s.t.Helper()
	answer := func(status, body string) string {
		return fmt.Sprintf("HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
	}
	for _, nonsense := range []string{
		answer("200 OK", `{"outcome":"tomorrow"}`),
		answer("200 OK", `{"outcome":"allow",,`),
		answer("200 OK", `{"outcome":"deny","outcome":"allow"}`),
		answer("200 OK", `{"outcome":["allow"]}`),
		answer("200 OK", `[1,2,3]`),
		answer("200 OK", ``),
		answer("401 Unauthorized", `{"outcome":"allow"}`),
		strings.TrimSuffix(answer("200 OK", `{"outcome":"allow"} `), " "), // cut off
		"nothing of HTTP\r\n\r\n",
		"", // silence
	} {
		stop := speak(s.t, s.Daemons[0].LoginAddr, nonsense)
		s.want(fmt.Sprintf("%q", nonsense), s.imap(outside, ann, s.passwords[ann]), "NO [UNAVAILABLE]")
		stop()
	}
}

// cramMD5 logs in by CRAM-MD5 (RFC 2195) at the submission service.
func (s *site) cramMD5(user, password string) string {
	s.t.Helper()
	c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.Submission())
	s.must(err)
	defer func() { _ = c.Close() }()
	_, err = c.Encrypt()
	s.must(err)
	reply, err := c.Command("AUTH CRAM-MD5")
	s.must(err)
	challenge, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(reply, "334 "))
	s.must(err)
	mac := hmac.New(md5.New, []byte(password))
	mac.Write(challenge)
	reply, err = c.Command(base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s %x", user, mac.Sum(nil))))
	s.must(err)
	return reply
}

// speak answers every connection with the same text.
func speak(t *testing.T, address, text string) (stop func()) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				buf := make([]byte, 64<<10)
				_, _ = c.Read(buf)
				if text == "" {
					_, _ = c.Read(buf) // until the other end gives up
					return
				}
				_, _ = c.Write([]byte(text))
			}()
		}
	}()
	return func() { _ = l.Close() }
}

// Dovecot 2.3 can ask by the same script, in place of checkpassword.
func TestLuaPassdbOn23(t *testing.T) {
	t.Parallel()
	only(t, "2.3", "the Lua script in place of checkpassword")
	s := start(t, trialstack.Options{Lua: true, SASLDoor: true, DoorAlone: true, MainCF: "smtpd_milters =\n", DovecotConf: trialstack.QuickFailures})
	s.domain(nil)
	id, secret := s.device(ann, "phone")
	proxies := []struct {
		name          string
		login         func(s *site, from, user, password string) string
		yes, no, away string
	}{
		{"imap", (*site).imap, "OK ", "NO [AUTHENTICATIONFAILED]", "NO [UNAVAILABLE]"},
		{"pop3", (*site).pop3, "+OK ", "-ERR [AUTH]", "-ERR [SYS/TEMP]"},
		{"sieve", (*site).sieve, "OK ", `NO "Authentication failed."`, `NO (TRYLATER)`},
	}
	for _, p := range proxies {
		s.want(p.name+", secure password", p.login(s, outside, ann, secret), p.yes)
		s.want(p.name+", mailbox password", p.login(s, outside, ann, s.passwords[ann]), p.yes)
		s.want(p.name+", wrong", p.login(s, outside, ann, "wrong"), p.no)
		for _, odd := range []string{`a"b\c`, "ü€", "\xff\xfe", strings.Repeat("x", 700)} {
			s.refuse(p.name+", an odd password", p.login(s, outside, bob, odd), p.yes)
		}
	}
	s.want("submission", s.smtp(outside, ann, secret), "235 ")
	s.want("submission, mailbox password", s.smtp(outside, ann, s.passwords[ann]), "235 ")
	s.record("account="+ann+"&outcome=allow", func(r object) bool { return r["protocol"] == "sieve" && r["ip"] == outside })
	s.record("account="+ann+"&reason=bad_secret", func(r object) bool { return r["protocol"] == "pop3" })

	s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false, "secure_login_ips": []string{office}})
	for _, p := range proxies {
		s.refuse(p.name+", blocked", p.login(s, outside, ann, secret), p.yes)
		s.want(p.name+", from the office", p.login(s, office, ann, secret), p.yes)
	}
	s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": true})
	s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+id, nil)
	for _, p := range proxies {
		s.refuse(p.name+", revoked", p.login(s, outside, ann, secret), p.yes)
	}
	s.must(s.Daemons[0].Kill())
	for _, p := range proxies {
		s.want(p.name+", without the daemon", p.login(s, outside, ann, s.passwords[ann]), p.away)
	}
	s.refuseNonsense()
}
