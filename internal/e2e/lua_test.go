package e2e

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
		{Address: laptop},
	}
	mechanisms, certificate := hidingMechanisms(t)
	s := start(t, trialstack.Options{
		SASLDoor: true, MainCF: "smtpd_milters =\n", Accounts: accounts, DovecotConf: mechanisms + "auth_cache_size = 10M\n",
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

	s.hidden(certificate)

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

// luaWorkers is how many logins Dovecot has decided by Lua at once; more wait.
const luaWorkers = 30

// Each login that waits for the daemon blocks a worker of Dovecot's, and further ones wait for a
// worker. Postfix, which gives up after ten seconds, has an answer by then.
func TestLuaWorkers(t *testing.T) {
	t.Parallel()
	accounts := make([]trialstack.Account, luaWorkers+10)
	for i := range accounts {
		accounts[i] = trialstack.Account{Address: fmt.Sprintf("user%d@example.org", i), Password: "mailbox"}
	}
	s := start(t, trialstack.Options{Lua: true, MainCF: "smtpd_milters =\n", Accounts: accounts})
	s.must(s.Daemons[0].Kill())
	var asked atomic.Int64
	busy, silence := make(chan struct{}), make(chan struct{})
	l, err := net.Listen("tcp", s.Daemons[0].LoginAddr)
	s.must(err)
	slow := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		answer := `{"outcome":"allow","message":"","user":"","credential_id":""}`
		if r.URL.Path != "/v1/login" {
			answer = `{"status":0,"msg":""}`
		} else if n := asked.Add(1); n == luaWorkers {
			close(busy)
		} else if n > int64(len(accounts)) {
			<-silence
		}
		select {
		case <-busy:
		case <-s.ctx.Done():
		}
		_, _ = io.WriteString(w, answer)
	})}
	go func() { _ = slow.Serve(l) }()
	defer func() { _ = slow.Close() }()
	defer close(silence)
	var all sync.WaitGroup
	for _, a := range accounts {
		all.Go(func() { s.want("a login beside others", s.imap(outside, a.Address, a.Password), "OK ") })
	}
	all.Wait()
	s.want("Postfix, when the daemon does not answer", s.smtp(outside, accounts[0].Address, accounts[0].Password), "535 ")
}

// hidingMechanisms configures mechanisms that show no secret, and certificates of one authority.
func hidingMechanisms(t *testing.T) (conf string, certificate tls.Certificate) {
	certificate, authority := clientCertificate(t, laptop)
	ca := filepath.Join(t.TempDir(), "clients.pem")
	if err := os.WriteFile(ca, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	return "auth_mechanisms = plain login cram-md5 scram-sha-256 external\nauth_ssl_username_from_cert = yes\n" + bySeries(t,
		"ssl_ca = <"+ca+"\nssl_require_crl = no\nssl_verify_client_cert = yes\n",
		"ssl_server_ca_file = "+ca+"\nssl_server_require_crl = no\nssl_server_request_client_cert = yes\n"), certificate
}

// laptop logs in by certificate alone: the site's passdb has an empty password for it, which is what
// Dovecot verifies for EXTERNAL.
const laptop = "laptop@example.org"

// hidden logs in by mechanisms that show no secret: the rules decide, and the next passdb verifies.
func (s *site) hidden(certificate tls.Certificate) {
	s.t.Helper()
	s.want("SCRAM", s.scram(ann, s.passwords[ann]), "+OK")
	s.want("SCRAM, wrong", s.scram(ann, "wrong"), "-ERR [AUTH]")
	s.record("account="+ann+"&outcome=allow", func(r object) bool { return r["mechanism"] == "SCRAM-SHA-256" && r["secret_hidden"] == true })
	s.want("EXTERNAL", s.external(certificate), "+OK")
	s.refuse("EXTERNAL without a certificate", s.external(), "+OK")
	s.record("account="+laptop+"&outcome=allow", func(r object) bool { return r["mechanism"] == "EXTERNAL" && r["secret_hidden"] == true })
	s.api("PATCH", "/v1/domains/example.org", object{"protocols": object{"pop3": false}})
	s.want("SCRAM, switched off", s.scram(ann, s.passwords[ann]), "-ERR [AUTH]")
	s.want("EXTERNAL, switched off", s.external(certificate), "-ERR [AUTH]")
	s.api("PATCH", "/v1/domains/example.org", object{"protocols": object{"pop3": true}})
}

// external logs in by EXTERNAL (RFC 4422) at POP3.
func (s *site) external(certificates ...tls.Certificate) string {
	s.t.Helper()
	c, err := mailclient.Client{From: outside, Certificates: certificates}.POP3S(s.ctx, s.POP3S())
	s.must(err)
	defer func() { _ = c.Close() }()
	reply, err := c.Command("AUTH EXTERNAL =")
	s.must(err)
	return reply
}

// scram logs in by SCRAM-SHA-256 (RFC 5802, 7677) at POP3.
func (s *site) scram(user, password string) string {
	s.t.Helper()
	c, err := mailclient.Client{From: outside}.POP3S(s.ctx, s.POP3S())
	s.must(err)
	defer func() { _ = c.Close() }()
	b64 := base64.StdEncoding
	first := "n=" + user + ",r=" + rand.Text()
	reply, err := c.Command("AUTH SCRAM-SHA-256 " + b64.EncodeToString([]byte("n,,"+first)))
	s.must(err)
	encoded, challenged := strings.CutPrefix(reply, "+ ")
	if !challenged {
		return reply // Dovecot asks its passdb first
	}
	challenge, err := b64.DecodeString(encoded)
	s.must(err)
	given := map[string]string{}
	for field := range strings.SplitSeq(string(challenge), ",") {
		name, value, _ := strings.Cut(field, "=")
		given[name] = value
	}
	salt, err := b64.DecodeString(given["s"])
	s.must(err)
	rounds, err := strconv.Atoi(given["i"])
	s.must(err)
	salted, err := pbkdf2.Key(sha256.New, password, salt, rounds, sha256.Size)
	s.must(err)
	keyed := func(key, text []byte) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write(text)
		return mac.Sum(nil)
	}
	proof := keyed(salted, []byte("Client Key"))
	stored := sha256.Sum256(proof)
	last := "c=biws,r=" + given["r"]
	subtle.XORBytes(proof, proof, keyed(stored[:], []byte(first+","+string(challenge)+","+last)))
	reply, err = c.Command(b64.EncodeToString([]byte(last + ",p=" + b64.EncodeToString(proof))))
	s.must(err)
	if strings.HasPrefix(reply, "+ ") { // the server's own proof
		reply, err = c.Command("")
		s.must(err)
	}
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
	mechanisms, certificate := hidingMechanisms(t)
	accounts := []trialstack.Account{
		{Address: ann, Password: "ann-mailbox", Hash: "{PLAIN}ann-mailbox"}, {Address: bob, Password: "bob-mailbox"}, {Address: laptop},
	}
	s := start(t, trialstack.Options{
		Lua: true, SASLDoor: true, DoorAlone: true, MainCF: "smtpd_milters =\n", Accounts: accounts, DovecotConf: mechanisms + trialstack.QuickFailures,
	})
	s.domain(nil)
	s.hidden(certificate)
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
