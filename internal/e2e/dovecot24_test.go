//go:build servers

package e2e

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/contrib/dovecot"
	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// next24 is a Dovecot 2.4 with the Lua passdb before the site's own, in the root that
// DRAWBRIDGE_ROOT names ("make test-servers" makes it). The daemon is the stack's.
type next24 struct {
	root, dir         string // dir as seen from within root
	imap, pop3, sieve int
	log, authSocket   string // as seen from outside
	process           *exec.Cmd
}

const conf24 = `dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
protocols = imap pop3 sieve
listen = 127.0.0.1
base_dir = DIR/run
state_dir = DIR/state
log_path = DIR/log
default_login_user = dovenull
default_internal_user = dovecot
first_valid_uid = 1
ssl = no
auth_allow_cleartext = yes
auth_mechanisms = plain login cram-md5
auth_verbose = yes
auth_cache_size = 10M
mail_driver = maildir
mail_path = ~/Maildir
service imap-login {
  inet_listener imap {
    port = IMAP
  }
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  inet_listener pop3 {
    port = POP3
  }
  inet_listener pop3s {
    port = 0
  }
}
service managesieve-login {
  inet_listener sieve {
    port = SIEVE
  }
}
service auth {
  unix_listener DIR/auth {
    mode = 0666
  }
}
auth_failure_delay = 0
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
!include drawbridge.conf.ext
passdb passwd-file {
  passwd_file_path = DIR/users
  default_password_scheme = PLAIN
}
userdb static {
  fields {
    uid = 8
    gid = 8
    home = DIR/mail/%{user}
  }
}
`

func newNext24(t *testing.T) *next24 {
	t.Helper()
	root := os.Getenv("DRAWBRIDGE_ROOT")
	if _, err := os.Stat(filepath.Join(root, "usr/lib/dovecot/auth")); root == "" || err != nil {
		t.Fatal(`DRAWBRIDGE_ROOT names no root with Dovecot 2.4: run "make test-servers"`)
	}
	outside, err := os.MkdirTemp(filepath.Join(root, "tmp"), "d24")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(outside) })
	n := &next24{
		dir: "/tmp/" + filepath.Base(outside), root: root, imap: freePort(t), pop3: freePort(t), sieve: freePort(t),
		log: filepath.Join(outside, "log"), authSocket: filepath.Join(outside, "auth"),
	}
	for _, dir := range []string{"", "run", "state", "mail"} {
		if err := os.MkdirAll(filepath.Join(outside, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(outside, "mail"), 8, 8); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *next24) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(n.root, n.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start puts the shipped snippet and script in place, with paths and ports of ours.
func (n *next24) start(s *site) {
	s.t.Helper()
	d := s.Daemons[0]
	key, err := os.ReadFile(d.LoginKey)
	s.must(err)
	replaced := func(text string, pairs ...string) string {
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(text, pairs[i]) {
				s.t.Fatalf("%q is not in the shipped text", pairs[i])
			}
		}
		return strings.NewReplacer(pairs...).Replace(text)
	}
	n.write(s.t, "dovecot.conf", replaced(conf24, "DIR", n.dir, "IMAP", fmt.Sprint(n.imap), "POP3", fmt.Sprint(n.pop3), "SIEVE", fmt.Sprint(n.sieve)))
	n.write(s.t, "drawbridge.conf.ext", replaced(dovecot.Conf24(), "/etc/dovecot/drawbridge.lua", n.dir+"/drawbridge.lua", "127.0.0.1:8481", d.LoginAddr))
	n.write(s.t, "drawbridge.lua", replaced(dovecot.Script(), "/etc/dovecot/drawbridge.key", n.dir+"/drawbridge.key", "127.0.0.1:8481", d.LoginAddr))
	n.write(s.t, "drawbridge.key", string(key))
	n.write(s.t, "drawbridge-key.conf.ext", fmt.Sprintf("auth_policy_server_api_header = Authorization: Bearer %s\nauth_policy_hash_nonce = x\n", strings.TrimSpace(string(key))))
	var users strings.Builder
	for _, a := range s.Accounts {
		fmt.Fprintf(&users, "%s:%s\n", a.Address, a.Password)
	}
	n.write(s.t, "users", users.String())
	n.process = exec.Command("dovecot", "-F", "-c", n.dir+"/dovecot.conf")
	n.process.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	n.process.Dir = "/"
	n.process.SysProcAttr = &syscall.SysProcAttr{Chroot: n.root, Setsid: true}
	var said strings.Builder
	n.process.Stdout, n.process.Stderr = &said, &said
	s.must(n.process.Start())
	s.t.Cleanup(func() {
		_ = n.process.Process.Signal(syscall.SIGTERM)
		_ = n.process.Wait()
		if s.t.Failed() {
			b, _ := os.ReadFile(n.log)
			s.t.Logf("%s\n%s", said.String(), b[max(0, len(b)-6000):])
		}
	})
	s.eventually("Dovecot 2.4 has started", func() bool {
		_, err := os.Stat(filepath.Join(n.root, n.dir, "run", "master.pid"))
		return err == nil
	})
}

func (n *next24) login(s *site, protocol, from, user, password string) string {
	s.t.Helper()
	client := mailclient.Client{From: from}
	switch protocol {
	case "imap":
		c, err := client.IMAP(s.ctx, fmt.Sprintf("127.0.0.1:%d", n.imap))
		s.must(err)
		defer func() { _ = c.Close() }()
		r, err := c.Login(user, password)
		s.must(err)
		return r.Status
	case "pop3":
		c, err := client.POP3(s.ctx, fmt.Sprintf("127.0.0.1:%d", n.pop3))
		s.must(err)
		defer func() { _ = c.Close() }()
		r, err := c.Login(user, password)
		s.must(err)
		return r
	}
	c, err := client.Sieve(s.ctx, fmt.Sprintf("127.0.0.1:%d", n.sieve))
	s.must(err)
	defer func() { _ = c.Close() }()
	r, err := c.Authenticate(user, password)
	s.must(err)
	return r
}

// The Lua passdb of Dovecot 2.4 answers as checkpassword does on 2.3, and Postfix' door passes on
// to it.
func TestDovecot24(t *testing.T) {
	n := newNext24(t)
	s := start(t, trialstack.Options{SASLDoor: true, Settings: map[string]any{"sasl.next": n.authSocket}, MainCF: "smtpd_milters =\n"})
	s.domain(nil)
	n.start(s)
	id, secret := s.device(ann, "phone")
	doors := []struct{ name, yes, no, reason string }{
		{"imap", "OK ", "NO [AUTHENTICATIONFAILED]", "NO [CONTACTADMIN] The administrator has enabled IP login restrictions."},
		{"pop3", "+OK ", "-ERR [AUTH]", "-ERR [AUTH] The administrator has enabled"},
		{"sieve", "OK ", `NO "Authentication failed."`, `NO "The administrator has enabled`},
	}
	for _, d := range doors {
		s.want(d.name+", secure password", n.login(s, d.name, outside, ann, secret), d.yes)
		s.want(d.name+", mailbox password", n.login(s, d.name, outside, ann, s.passwords[ann]), d.yes)
		s.want(d.name+", again, not from a cache", n.login(s, d.name, outside, ann, secret), d.yes)
		s.want(d.name+", wrong", n.login(s, d.name, outside, ann, "wrong"), d.no)
	}
	s.record("account="+ann+"&outcome=allow", func(r object) bool { return r["protocol"] == "sieve" && r["ip"] == outside })
	s.record("account="+ann+"&reason=bad_secret", func(r object) bool { return r["protocol"] == "pop3" })

	// Odd passwords arrive as they are.
	for _, odd := range []string{`a"b\c`, "ü€", "\xff\xfe", strings.Repeat("x", 700)} {
		s.want("an odd password", n.login(s, "sieve", outside, bob, odd), `NO "Authentication failed."`)
	}

	// Postfix by the SASL door, with Dovecot 2.4 behind it.
	s.want("smtp, secure password", s.smtp(outside, ann, secret), "235 ")
	s.want("smtp, mailbox password", s.smtp(outside, ann, s.passwords[ann]), "235 ")
	s.want("smtp, wrong", s.smtp(outside, ann, "wrong"), "535 ")
	s.record("account="+ann+"&outcome=deny", func(r object) bool { return r["protocol"] == "smtp" && r["reason"] == "bad_secret" })
	if items := s.api("GET", "/v1/domains/example.org/logins?account="+ann, nil)["items"].([]any); items != nil {
		count := 0
		for _, item := range items {
			if item.(object)["protocol"] == "smtp" {
				count++
			}
		}
		if count != 3 {
			t.Errorf("%d logins by smtp are on record, want 3", count)
		}
	}

	// A mechanism that hides the secret: Dovecot's own passdb verifies it, by the rules' leave.
	s.want("CRAM-MD5", s.cramMD5(ann, s.passwords[ann]), "235 ")
	s.want("CRAM-MD5, wrong", s.cramMD5(ann, "wrong"), "535 ")
	s.want("CRAM-MD5 with a secure password, which Dovecot does not know", s.cramMD5(ann, secret), "535 ")
	s.record("account="+ann+"&outcome=allow", func(r object) bool { return r["mechanism"] == "CRAM-MD5" && r["secret_hidden"] == true })
	s.api("PATCH", "/v1/accounts/"+ann, object{"secure_passwords": "required"})
	s.want("CRAM-MD5 where only a secure password will do", s.cramMD5(ann, s.passwords[ann]), "535 ")
	s.want("the secure password there", s.smtp(outside, ann, secret), "235 ")
	s.api("PATCH", "/v1/accounts/"+ann, object{"secure_passwords": "optional"})

	// A reason is shown where the protocol has one, and never as a success to Postfix.
	s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false, "secure_login_ips": []string{office}})
	for _, d := range doors {
		s.want(d.name+", told why", n.login(s, d.name, outside, ann, secret), d.reason)
		s.want(d.name+", a guesser", n.login(s, d.name, outside, ann, "wrong"), d.no)
		s.want(d.name+", from the office", n.login(s, d.name, office, ann, secret), d.yes)
	}
	s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": true})

	// A device's session ends by the credential's id.
	c, err := mailclient.Client{From: outside}.IMAP(s.ctx, fmt.Sprintf("127.0.0.1:%d", n.imap))
	s.must(err)
	defer func() { _ = c.Close() }()
	r, err := c.Login(ann, secret)
	s.must(err)
	s.want("a session", r.Status, "OK ")
	kick := exec.Command("doveadm", "-c", n.dir+"/dovecot.conf", "kick", "-f", "user_credential", id)
	kick.SysProcAttr = &syscall.SysProcAttr{Chroot: n.root}
	kick.Dir = "/"
	out, err := kick.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "1 connections kicked") {
		t.Errorf("doveadm kick: %s %v", out, err)
	}

	s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+id, nil)
	for _, d := range doors {
		s.want(d.name+", revoked", n.login(s, d.name, outside, ann, secret), d.no)
	}

	// Without the daemon, and with one that answers nonsense or nothing: temporary failures.
	away := []string{"NO [UNAVAILABLE]", "-ERR [SYS/TEMP]", "NO (TRYLATER)"}
	s.must(s.Daemons[0].Kill())
	for i, d := range doors {
		s.want(d.name+", without the daemon", n.login(s, d.name, outside, ann, s.passwords[ann]), away[i])
	}
	for _, nonsense := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{\"outcome\":\"tomorrow\"}",
		"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{\"outcome\":\"allow\",,",
		"HTTP/1.1 200 OK\r\nContent-Length: 37\r\n\r\n{\"outcome\":\"deny\",\"outcome\":\"allow\"}  ",
		"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n[1,2,3]",
		"HTTP/1.1 401 Unauthorized\r\nContent-Length: 19\r\n\r\n{\"outcome\":\"allow\"}",
		"nothing of HTTP\r\n\r\n",
		"", // silence
	} {
		stop := speak(t, s.Daemons[0].LoginAddr, nonsense)
		begin := time.Now()
		s.want(fmt.Sprintf("%q", nonsense), n.login(s, "imap", outside, ann, s.passwords[ann]), "NO [UNAVAILABLE]")
		if passed := time.Since(begin); passed > 15*time.Second {
			t.Errorf("%q takes %v", nonsense, passed)
		}
		stop()
	}
	if b, err := os.ReadFile(n.log); err != nil || strings.Contains(string(b), s.passwords[ann]) || strings.Contains(string(b), secret) {
		t.Errorf("Dovecot's log holds a password, or %v", err)
	}
}

// cramMD5 logs in by CRAM-MD5 (RFC 2195) at the submission service.
func (s *site) cramMD5(user, password string) string {
	s.t.Helper()
	c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.Submission())
	s.must(err)
	defer func() { _ = c.Close() }()
	_, err = c.Hello()
	s.must(err)
	_, err = c.StartTLS()
	s.must(err)
	_, err = c.Hello()
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
