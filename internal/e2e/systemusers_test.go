//go:build servers

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/contrib/dovecot"
	"github.com/drawbridge/drawbridge/contrib/postfix"
	"github.com/drawbridge/drawbridge/internal/mailclient"
)

// debianRoot is a copy of a root with Debian's own configuration of Dovecot: system users by PAM.
type debianRoot struct {
	t    *testing.T
	ctx  context.Context //nolint:containedctx // as long as its test
	root string
	imap string // address
	smtp string // address of the submission service
	mail int    // messages sent
	next bool   // Dovecot 2.4
}

func newDebian(t *testing.T) *debianRoot {
	t.Helper()
	from := os.Getenv("DRAWBRIDGE_ROOT")
	if _, err := os.Stat(filepath.Join(from, "usr/lib/dovecot/auth")); from == "" || err != nil {
		t.Fatal(`DRAWBRIDGE_ROOT names no root with Dovecot: run "make test-servers"`)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	copied, err := os.MkdirTemp("", "debian")
	if err != nil {
		t.Fatal(err)
	}
	d := &debianRoot{t: t, ctx: ctx, root: filepath.Join(copied, "root"), imap: fmt.Sprintf("127.0.0.1:%d", freePort(t)), smtp: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	t.Cleanup(func() { _ = os.RemoveAll(copied) })
	if out, err := exec.CommandContext(ctx, "cp", "-a", from, d.root).CombinedOutput(); err != nil {
		t.Fatalf("copying the root: %v: %s", err, out)
	}
	proc := filepath.Join(d.root, "proc")
	if err := syscall.Mount("proc", proc, "proc", 0, ""); err != nil {
		t.Fatalf("mounting %s: %v", proc, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(proc, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", proc, err)
		}
	})
	d.next = strings.HasPrefix(d.run("", "dovecot", "--version"), "2.4")
	return d
}

func (d *debianRoot) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(d.ctx, name, args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: d.root, Setsid: true}
	if strings.Contains(name, "/") {
		return cmd
	}
	for _, dir := range filepath.SplitList(strings.TrimPrefix(cmd.Env[0], "PATH=")) { // not as found outside
		if _, err := os.Stat(filepath.Join(d.root, dir, name)); err == nil {
			cmd.Path, cmd.Err = filepath.Join(dir, name), nil
			return cmd
		}
	}
	return cmd
}

// try runs a program in the root.
func (d *debianRoot) try(stdin, name string, args ...string) (string, error) {
	cmd := d.command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (d *debianRoot) run(stdin, name string, args ...string) string {
	d.t.Helper()
	out, err := d.try(stdin, name, args...)
	if err != nil {
		d.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// daemon starts a program in the root and stops it when the test ends.
func (d *debianRoot) daemon(name string, args ...string) (stop func()) {
	d.t.Helper()
	cmd := d.command(name, args...)
	log, err := os.OpenFile(d.root+logOf(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	_ = log.Close()
	if err != nil {
		d.t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
	}
	d.t.Cleanup(func() {
		stop()
		if d.t.Failed() {
			log := d.read(logOf(name))
			d.t.Logf("%s said:\n%s", name, log[max(0, len(log)-6000):])
		}
	})
	return stop
}

// logOf returns where a program's output goes.
func logOf(program string) string { return "/var/log/" + filepath.Base(program) + ".out" }

func (d *debianRoot) read(name string) string {
	d.t.Helper()
	b, err := os.ReadFile(filepath.Join(d.root, name))
	if err != nil {
		d.t.Fatal(err)
	}
	return string(b)
}

func (d *debianRoot) write(name, text string, mode os.FileMode) {
	d.t.Helper()
	name = filepath.Join(d.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		d.t.Fatal(err)
	}
}

// edit replaces a text that must be there.
func (d *debianRoot) edit(name, old, text string) {
	d.t.Helper()
	before := d.read(name)
	if !strings.Contains(before, old) {
		d.t.Fatalf("%s has no %q", name, old)
	}
	d.write(name, strings.Replace(before, old, text, 1), 0o644)
}

func (d *debianRoot) eventually(what string, f func() bool) {
	d.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(30 * time.Second); !f(); <-tick.C {
		if time.Now().After(limit) {
			d.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// login logs in by IMAP, and opens the mailbox if that succeeds.
func (d *debianRoot) login(from, user, password string) string {
	d.t.Helper()
	status, err := d.tryLogin(from, user, password)
	if err != nil {
		d.t.Fatal(err)
	}
	return status
}

// tryLogin returns an error if the connection is lost.
func (d *debianRoot) tryLogin(from, user, password string) (status string, err error) {
	d.t.Helper()
	c, err := mailclient.Client{From: from}.IMAP(d.ctx, d.imap)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.StartTLS(); err != nil {
		return "", err
	}
	r, err := c.Login(user, password)
	if err == nil && r.OK() {
		if r, err := c.Command("SELECT INBOX"); err != nil || !r.OK() {
			d.t.Errorf("%s has no mailbox: %v, %v", user, r, err)
		}
	}
	return r.Status, err
}

// want logs the system users in as they always did, and refuses what was always refused.
func (d *debianRoot) want(step string) {
	d.t.Helper()
	for i, c := range []struct {
		user, password string
		admitted       bool
	}{
		{"ann", "ann-system", true},
		{"bob", "bob-system", true},
		{"carol", "carol-file", true},
		{"ann", "wrong", false},
		{"nobody", "x", false},
		{"ann@example.org", "ann-system", false},
	} {
		from := fmt.Sprintf("127.0.9.%d", 10+i) // Dovecot delays who failed
		if got := d.login(from, c.user, c.password); strings.HasPrefix(got, "OK ") != c.admitted {
			d.t.Errorf("%s: %s with %q: %q", step, c.user, c.password, got)
		}
		if c.user != "ann" {
			continue // PAM delays every refusal by seconds
		}
		if got := d.submit(from, c.user, c.password); strings.HasPrefix(got, "250 ") != c.admitted {
			d.t.Errorf("%s: %s submits with %q: %q", step, c.user, c.password, got)
		}
	}
}

// submit sends a message to bob, whom Postfix delivers to as a system user, and waits for it. It
// returns the answer to the login, if that is a refusal, or to the message.
func (d *debianRoot) submit(from, user, password string) string {
	d.t.Helper()
	c, r, err := mailclient.Client{From: from}.Login(d.ctx, d.smtp, user, password)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if !strings.HasPrefix(r, "235 ") {
		return r
	}
	d.mail++
	subject := fmt.Sprintf("Subject: message %d.", d.mail)
	r, err = c.Send(user+"@example.org", "bob@example.org", "From: "+user+"@example.org\nTo: bob@example.org\n"+subject+"\n\nHello.\n.\n")
	if err != nil {
		d.t.Fatal(err)
	}
	if strings.HasPrefix(r, "250 ") {
		d.eventually("a message arrives", func() bool {
			b, err := os.ReadFile(filepath.Join(d.root, "/var/mail/bob"))
			return err == nil && strings.Contains(string(b), subject)
		})
	}
	return r
}

// submission puts an entry of the submission service at the end of master.cf.
func (d *debianRoot) submission(entry string) {
	d.t.Helper()
	master, _, _ := strings.Cut(d.read("/etc/postfix/master.cf"), "# The submission service\n")
	d.write("/etc/postfix/master.cf", master+"# The submission service\n"+strings.Replace(entry, "submission inet", d.smtp+" inet", 1)+"\n", 0o644)
}

// postfix configures Postfix as its package does for an "Internet Site", with Debian's own entry of
// the submission service, and starts it.
func (d *debianRoot) postfix() {
	d.t.Helper()
	d.run("postfix postfix/main_mailer_type select Internet Site\npostfix postfix/mailname string example.org\n", "debconf-set-selections")
	d.run("", "env", "DEBIAN_FRONTEND=noninteractive", "dpkg-reconfigure", "postfix")
	d.run("", "postconf", "-e", "myhostname=mail.example.org", "mydestination=example.org, localhost", "smtpd_sasl_type=dovecot", "smtpd_sasl_path=private/auth",
		"maillog_file=/var/log/mail.log", "inet_protocols=ipv4")
	d.run("", "postconf", "-MX", "smtp/inet") // port 25 belongs to this machine
	_, entry, found := strings.Cut(d.read("/etc/postfix/master.cf"), "\n#submission ")
	entry, _, more := strings.Cut(entry, "submissions ")
	if !found || !more {
		d.t.Fatal("master.cf has no entry of the submission service")
	}
	d.submission(strings.ReplaceAll("submission "+entry, "\n#  -o", "\n  -o"))
	_, _ = d.try("", "/usr/lib/postfix/configure-instance.sh", "-") // as the unit of Debian 12 does; later ones need it no more
	d.daemon("postfix", "start-fg")
	d.t.Cleanup(func() {
		if d.t.Failed() {
			log := d.read("/var/log/mail.log")
			d.t.Logf("Postfix' log:\n%s", log[max(0, len(log)-6000):])
		}
	})
}

// doctor returns what the doctor says of Dovecot and its sockets.
func (d *debianRoot) doctor() (failures string) {
	out, _ := d.try("", "drawbridge", "doctor")
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "FAIL  dovecot") || strings.HasPrefix(line, "FAIL  login_socket") || strings.HasPrefix(line, "FAIL  program") || strings.HasPrefix(line, "FAIL  script") {
			failures += line
		}
	}
	return failures
}

// Debian's Dovecot as it is installed: system users by PAM, with names without a domain, and a file
// with such names beside. The installation page is followed literally, and logins go on at each
// step.
func TestSystemUsers(t *testing.T) {
	d := newDebian(t)
	_, port, _ := strings.Cut(d.imap, ":")
	ports := "listen = 127.0.0.1\nlog_path = /var/log/dovecot.log\nprotocols = imap\nservice imap-login {\n  inet_listener imap {\n    port = " + port + "\n  }\n  inet_listener imaps {\n    port = 0\n  }\n}\n"
	files := "passdb {\n  driver = passwd-file\n  args = scheme=PLAIN /etc/dovecot/users\n}\n"
	userdb := "userdb {\n  driver = passwd-file\n  args = /etc/dovecot/users\n}\n"
	if d.next {
		ports = strings.Replace(ports, "protocols = imap\n", "protocols {\n  imap = yes\n  lmtp = no\n  sieve = no\n  pop3 = no\n  submission = no\n}\n", 1)
		files = "passdb passwd-file {\n  passwd_file_path = /etc/dovecot/users\n  default_password_scheme = PLAIN\n}\n"
		userdb = "userdb passwd-file {\n  passwd_file_path = /etc/dovecot/users\n}\n"
	}
	ports += "service auth {\n  unix_listener /var/spool/postfix/private/auth {\n    mode = 0660\n    user = postfix\n    group = postfix\n  }\n}\n"
	d.write("/etc/dovecot/local.conf", ports+"auth_failure_delay = 0\n"+files+userdb, 0o644)
	for _, user := range []string{"ann", "bob"} {
		d.run("", "useradd", "--create-home", "--groups", "mail", user)
		d.run(user+":"+user+"-system", "chpasswd")
	}
	d.run("", "useradd", "--create-home", "--groups", "mail", "keeper")
	uid, gid := strings.TrimSpace(d.run("", "id", "-u", "keeper")), strings.TrimSpace(d.run("", "id", "-g", "keeper"))
	d.write("/etc/dovecot/users", fmt.Sprintf("carol:carol-file:%s:%s::/home/keeper::\n", uid, gid), 0o644)
	if _, err := os.Stat(filepath.Join(d.root, "/etc/ssl/certs/ssl-cert-snakeoil.pem")); err != nil { // of a package that is only recommended
		d.run("", "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mail.example.org", "-days", "2",
			"-keyout", "/etc/ssl/private/ssl-cert-snakeoil.key", "-out", "/etc/ssl/certs/ssl-cert-snakeoil.pem")
	}
	d.postfix()
	d.eventually("Postfix has its queue", func() bool {
		_, err := os.Stat(filepath.Join(d.root, "/var/spool/postfix/private"))
		return err == nil
	})
	stopDovecot := d.daemon("dovecot", "-F")
	t.Cleanup(func() {
		if t.Failed() {
			log := d.read("/var/log/dovecot.log")
			t.Logf("Dovecot's log:\n%s", log[max(0, len(log)-6000):])
		}
	})
	ready := func() {
		d.eventually("Dovecot listens", func() bool {
			c, err := mailclient.Client{From: outside}.IMAP(d.ctx, d.imap)
			if err != nil {
				return false
			}
			_ = c.Close()
			return true
		})
	}
	ready()
	d.eventually("Postfix listens", func() bool {
		c, err := mailclient.Client{From: outside}.SMTP(d.ctx, d.smtp)
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	})
	d.want("before")

	// 1. and 2. The daemon.
	if out, err := exec.CommandContext(d.ctx, "make", "-C", root, "install", "DESTDIR="+d.root).CombinedOutput(); err != nil {
		t.Fatalf("make install: %v: %s", err, out)
	}
	d.run("", "sh", "-c", "install -d /etc/drawbridge && (umask 077; openssl rand -hex 32 >/etc/drawbridge/login.key)")
	login, api := freePort(t), freePort(t)
	replace := func(text string) string {
		return strings.ReplaceAll(text, "127.0.0.1:8481", fmt.Sprintf("127.0.0.1:%d", login))
	}
	const settings = "/etc/drawbridge/drawbridge.toml"
	d.write(settings, replace(block(t, install, "<!-- settings -->", "toml"))+
		fmt.Sprintf("\n[api]\nlisten = [\"unix:/run/drawbridge/api.sock\", \"inet:127.0.0.1:%d\"]\n", api), 0o644)
	d.write("/run/drawbridge/.keep", "", 0o644)
	startDaemon := func() (stop func()) {
		stop = d.daemon("/usr/local/sbin/drawbridged", "-c", settings)
		d.eventually("the daemon is ready", func() bool { _, err := d.try("", "drawbridge", "status"); return err == nil })
		return stop
	}
	stop := startDaemon()
	d.want("the daemon runs")

	// 3. The domain, in report mode.
	d.run("", "drawbridge", "domain", "create", "example.org", "--third-party", "report", "--sender-check", "off")
	d.run("", "drawbridge", "client-type", "set", "web", "--network", "192.0.2.10")
	d.want("a domain is managed")

	// 4. Dovecot, without the advice about names: nobody is locked out, and the doctor knows.
	key := strings.TrimSpace(d.read("/etc/drawbridge/login.key"))
	snippet := dovecot.Conf23()
	if d.next {
		snippet = dovecot.Conf24()
		d.write("/etc/dovecot/drawbridge.lua", replace(dovecot.Script()), 0o644)
		d.write("/etc/dovecot/drawbridge.key", key+"\n", 0o600)
	}
	d.write("/etc/dovecot/drawbridge.conf.ext", replace(snippet), 0o644)
	d.write("/etc/dovecot/drawbridge-key.conf.ext", fmt.Sprintf("auth_policy_server_api_header = Authorization: Bearer %s\nauth_policy_hash_nonce = %s\n", key, key), 0o600)
	d.edit("/etc/dovecot/conf.d/10-auth.conf", "!include auth-system.conf.ext", "!include ../drawbridge.conf.ext\n!include auth-system.conf.ext")
	if d.next { // as the page says: after a reload Dovecot 2.4.5 admits nobody
		stopDovecot()
		d.run("", "rm", "-f", "/run/dovecot/anvil-auth-penalty")
		d.daemon("dovecot", "-F")
	} else {
		d.run("", "doveadm", "reload")
	}
	d.run("", "postfix", "reload") // as the page says: an smtpd would ask the former auth process once more
	d.eventually("Dovecot asks Drawbridge", func() bool {
		_, err := d.tryLogin(outside, "ann", "ann-system")
		return err == nil && strings.Contains(d.read(logOf("drawbridged")), "login next: user=ann ")
	})
	d.want("Dovecot asks Drawbridge")
	if out := d.doctor(); !strings.Contains(out, "dovecot.passdb.domain") {
		t.Errorf("the doctor does not fail where names pass without rules:\n%s", out)
	}

	// The advice about names, taken late.
	stop()
	d.edit(settings, "# default_domain = \"example.org\"", "default_domain = \"example.org\"")
	stop = startDaemon()
	d.want("the names' domain is known")
	if out := d.doctor(); out != "" {
		t.Errorf("the doctor says\n%s", out)
	}

	// 5. Postfix.
	d.write("/etc/postfix/main.cf", d.read("/etc/postfix/main.cf")+postfix.MainCF(), 0o644)
	entry, _, _ := strings.Cut(postfix.MasterCF(), "\nsubmissions ")
	d.submission(entry[strings.Index(entry, "\nsubmission ")+1:])
	d.run("", "postfix", "reload")
	d.want("Postfix asks Drawbridge")
	if out, err := d.try("", "drawbridge", "doctor"); err != nil {
		t.Errorf("the doctor says\n%s", out)
	}

	// Postfix asks Drawbridge about logins, too.
	stop()
	d.write(settings, d.read(settings)+"\n[sasl]\nlisten = [\"unix:/var/spool/postfix/private/drawbridge-auth?mode=0660&group=postfix\"]\nnext = \"/var/spool/postfix/private/auth\"\n", 0o644)
	d.edit("/etc/postfix/main.cf", "smtpd_sasl_path = private/auth", "smtpd_sasl_path = private/drawbridge-auth")
	startDaemon()
	d.run("", "postfix", "reload")
	d.want("Postfix asks Drawbridge about logins")
	if out, err := d.try("", "drawbridge", "doctor"); err != nil {
		t.Errorf("the doctor says\n%s", out)
	}

	// 6. Rules hold for bare names, and a secure password opens the same mailbox.
	d.run("", "drawbridge", "third-party", "block", "example.org", "--secure-login-ip", office)
	if got := d.login(outside, "ann", "ann-system"); strings.HasPrefix(got, "OK ") {
		t.Errorf("blocked: %q", got)
	}
	for user, password := range map[string]string{"ann": "ann-system", "carol": "carol-file"} {
		if got := d.login(office, user, password); !strings.HasPrefix(got, "OK ") {
			t.Errorf("%s from the office: %q", user, got)
		}
	}
	var made struct{ Secret string }
	if err := json.Unmarshal([]byte(d.run("", "drawbridge", "-o", "json", "secure-password", "create", "ann@example.org", "--label", "phone")), &made); err != nil || made.Secret == "" {
		t.Fatalf("a secure password: %v", err)
	}
	if got := d.login(office, "ann", made.Secret); !strings.HasPrefix(got, "OK ") {
		t.Errorf("a secure password: %q", got)
	}
	d.run("", "drawbridge", "third-party", "allow", "example.org")
	d.want("allowed again")
}
