//go:build servers

// Package packaging_test installs the packages that "make test-packages" has built on bare Debians,
// booted by their own systemd, with their own Dovecot and Postfix.
package packaging_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/redistest"
)

// A machine is a Debian that runs in namespaces on a copy of its root.
type machine struct {
	t     *testing.T
	ctx   context.Context //nolint:containedctx // as long as its test
	init  int             // its first process, as seen from outside
	files string          // its root, as seen from outside
}

// boot starts a machine and waits until all its services run. The test's thread shares its network,
// which has the loopback device only.
func boot(t *testing.T, suite string) *machine {
	t.Helper()
	root := filepath.Join(os.Getenv("DRAWBRIDGE_ROOTS"), suite)
	if _, err := os.Stat(filepath.Join(root, "lib/systemd/systemd")); err != nil {
		t.Fatalf(`DRAWBRIDGE_ROOTS has no root of %s with systemd: run "make test-packages"`, suite)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(ctx, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir, err := os.MkdirTemp("", "drawbridge-debian-")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "./boot.sh", root, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
	log := &redistest.Lines{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // and the kernel kills all that it started
		_ = cmd.Wait()
		sweep := `mount -t cgroup2 cgroup2 "$1/cgroup" && find "$1/cgroup/${1##*/}" -depth -type d -exec rmdir {} +`
		if out, err := exec.Command("unshare", "-m", "sh", "-c", sweep, "sh", dir).CombinedOutput(); err != nil {
			t.Errorf("removing the control groups: %v: %s", err, out)
		}
		_ = os.RemoveAll(dir)
	})
	m := &machine{t: t, ctx: ctx, init: cmd.Process.Pid, files: fmt.Sprintf("/proc/%d/root", cmd.Process.Pid)}
	state := ""
	redistest.Eventually(t, "the machine has booted", func() bool {
		if cmd.Process.Signal(syscall.Signal(0)) != nil {
			t.Fatalf("it ended: %s", log)
		}
		state, _ = m.try("systemctl is-system-running") // degraded is an exit status, too
		return strings.Contains(state, "running") || strings.Contains(state, "degraded")
	})
	return m
}

// try runs shell commands in the machine.
func (m *machine) try(commands string) (string, error) {
	cmd := exec.CommandContext(m.ctx, "nsenter", "--target", fmt.Sprint(m.init), "--mount", "--uts", "--ipc", "--pid", "--cgroup",
		"--root", "--wd", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"sh", "-ec", commands)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) run(commands string) string {
	m.t.Helper()
	out, err := m.try(commands)
	if err != nil {
		journal, _ := m.try("journalctl --no-pager --lines 40 --output cat")
		m.t.Fatalf("%s: %v: %s\n%s", commands, err, out, journal)
	}
	return out
}

// want runs commands whose output has a text.
func (m *machine) want(commands, text string) {
	m.t.Helper()
	if out := m.run(commands); !strings.Contains(out, text) {
		m.t.Errorf("%s: want %q:\n%s", commands, text, out)
	}
}

// absent checks that there are no such files.
func (m *machine) absent(paths ...string) {
	m.t.Helper()
	for _, path := range paths {
		if _, err := os.Lstat(m.files + path); err == nil {
			m.t.Errorf("%s is there", path)
		}
	}
}

func (m *machine) read(path string) string {
	m.t.Helper()
	text, err := os.ReadFile(m.files + path)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	if err := os.WriteFile(m.files+path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// edit replaces a text that must be there.
func (m *machine) edit(path, old, text string) {
	m.t.Helper()
	before := m.read(path)
	if !strings.Contains(before, old) {
		m.t.Fatalf("%s has no %q", path, old)
	}
	m.write(path, strings.Replace(before, old, text, 1))
}

// copy puts the package that was built into a directory at /root/drawbridge.KIND.
func (m *machine) copy(dir, kind string) {
	m.t.Helper()
	found, err := filepath.Glob(filepath.Join(os.Getenv("DRAWBRIDGE_PACKAGES"), dir, "*."+kind))
	if err != nil || len(found) != 1 {
		m.t.Fatalf("DRAWBRIDGE_PACKAGES has %d packages in %s: run \"make test-packages\"", len(found), dir)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		m.t.Fatal(err)
	}
	m.write("/root/drawbridge."+kind, string(text))
}

// install installs the package that was built into a directory.
func (m *machine) install(dir string) {
	m.t.Helper()
	m.copy(dir, "deb")
	// The files of the root were written without syncing; this is no time to begin.
	m.run("apt-get install -y -o Dpkg::Options::=--force-unsafe-io --no-install-recommends /root/drawbridge.deb </dev/null")
	m.want("systemctl is-active drawbridge", "active")
}

const ann = "ann@example.org" // who logs in as ann, as system users do

// imap logs in and returns the answer.
func (m *machine) imap(password string) string {
	m.t.Helper()
	c, err := mailclient.Client{}.IMAP(m.ctx, "127.0.0.1:143")
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	r, err := c.Login("ann", password)
	if err != nil {
		return err.Error()
	}
	return r.Status
}

// submit logs in to the submission service, sends a message and returns the answers.
func (m *machine) submit(password, from string) (login, message string) {
	m.t.Helper()
	c, login, err := mailclient.Client{}.Login(m.ctx, "127.0.0.1:587", "ann", password)
	if err != nil {
		return err.Error(), ""
	}
	defer func() { _ = c.Close() }()
	if !strings.HasPrefix(login, "235 ") {
		return login, ""
	}
	message, err = c.Send(from, "ann@example.org", "From: "+from+"\r\nSubject: test\r\n\r\ntest\r\n")
	if err != nil {
		m.t.Fatal(err)
	}
	return login, message
}

// site makes the machine a mail server that has no Drawbridge yet: Debian's Dovecot with system
// users, Postfix with a submission service that asks it.
func (m *machine) site() {
	m.t.Helper()
	m.run("useradd --create-home ann && echo ann:ann-mailbox | chpasswd")
	m.write("/etc/postfix/main.cf", `compatibility_level = 3.6
myhostname = mail.example.org
mydestination = example.org, localhost
inet_interfaces = loopback-only
inet_protocols = ipv4
biff = no
alias_maps =
smtpd_tls_cert_file = /etc/ssl/certs/ssl-cert-snakeoil.pem
smtpd_tls_key_file = /etc/ssl/private/ssl-cert-snakeoil.key
smtpd_tls_security_level = may
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination
`)
	// Dovecot delays answers after wrong passwords; that is not what is tested here.
	m.write("/etc/dovecot/local.conf", `service auth {
  unix_listener /var/spool/postfix/private/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
}
auth_failure_delay = 0
`)
	m.run("rm -f /usr/share/dovecot/protocols.d/submissiond.protocol") // the site has no such service
	m.run("cp /etc/postfix/master.cf.proto /etc/postfix/master.cf && systemctl enable postfix dovecot && systemctl restart postfix && systemctl restart dovecot")
}

// introduce does what the installation page says, for a series of Dovecot, and returns a secure
// password of ann's.
func (m *machine) introduce(dovecot string) (secret string) {
	m.t.Helper()
	m.run("drawbridge domain create example.org --third-party allow --sender-check both")
	m.edit("/etc/dovecot/conf.d/10-auth.conf", "!include auth-system.conf.ext", "!include /etc/drawbridge/dovecot-"+dovecot+".conf.ext\n!include auth-system.conf.ext")
	m.edit("/etc/postfix/main.cf", "smtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/auth\n", "")
	m.write("/etc/postfix/main.cf", m.read("/etc/postfix/main.cf")+strings.Replace(m.read("/usr/share/drawbridge/main.cf.drawbridge"),
		"smtpd_sasl_path = private/auth", "smtpd_sasl_path = drawbridge/auth", 1))
	m.write("/etc/postfix/master.cf", m.read("/etc/postfix/master.cf")+m.read("/usr/share/drawbridge/master.cf.drawbridge"))
	m.run("rm -f /run/dovecot/anvil-auth-penalty; systemctl restart dovecot postfix")
	return strings.TrimSpace(m.run("drawbridge secure-password create " + ann + " --label phone 2>/dev/null"))
}

func TestDebian12(t *testing.T) { lifecycle(t, "bookworm", "2.3") }

func TestDebian13(t *testing.T) { lifecycle(t, "trixie", "2.4") }

// lifecycle installs an older build, does what the installation page says, and logs in; then it
// upgrades, removes and purges.
func lifecycle(t *testing.T, suite, dovecot string) {
	m := boot(t, suite)
	m.site()
	m.install("previous")
	m.want("drawbridge --version", "0.0.1~previous")
	m.want("ps -o user= -p $(systemctl show --property MainPID --value drawbridge) || stat -c %U /proc/$(systemctl show --property MainPID --value drawbridge)", "drawbridge")
	m.want("stat -c '%U:%G %a' /run/drawbridge/login.sock /var/spool/postfix/drawbridge/policy /etc/drawbridge/login.key /etc/drawbridge/dovecot-key.conf.ext /var/lib/drawbridge/pepper",
		"drawbridge:dovecot 660\ndrawbridge:postfix 660\nroot:drawbridge 640\nroot:root 600\ndrawbridge:drawbridge 600\n")
	m.want("man --version >/dev/null 2>&1 && man -w drawbridged drawbridge drawbridge.toml drawbridge-checkpassword || ls /usr/share/man/man8/drawbridged.8.gz", "drawbridged.8.gz")

	// System users log in without a domain. The edited settings survive the upgrade below.
	m.edit("/etc/drawbridge/drawbridge.toml", "# default_domain =", "default_domain =")
	// systemd keeps the sockets through a restart and through a crash: those are the same files.
	const inodes = "stat -c %i /run/drawbridge/login.sock /var/spool/postfix/drawbridge/policy"
	before := m.run(inodes)
	m.run("drawbridged check && systemctl restart drawbridge && systemctl reload drawbridge")
	m.want(inodes, before)
	m.run("systemctl kill --signal KILL --kill-whom main drawbridge; until systemctl is-active drawbridge; do sleep 0.2; done")
	m.want(inodes, before)
	secret := m.introduce(dovecot)

	logins := func(when string) {
		t.Helper()
		for what, answer := range map[string]struct{ got, want string }{
			"a secure password":  {m.imap(secret), "OK "},
			"a mailbox password": {m.imap("ann-mailbox"), "OK "},
			"a wrong one":        {m.imap("wrong"), "NO [AUTHENTICATIONFAILED]"},
		} {
			if !strings.HasPrefix(answer.got, answer.want) {
				t.Errorf("%s: IMAP with %s: %q, want %q", when, what, answer.got, answer.want)
			}
		}
		for password, from := range map[string]string{secret: ann, "ann-mailbox": ann} {
			if login, message := m.submit(password, from); !strings.HasPrefix(message, "250 ") {
				t.Errorf("%s: a submission: %q, %q", when, login, message)
			}
		}
		if login, message := m.submit(secret, "ceo@example.org"); !strings.HasPrefix(message, "5") {
			t.Errorf("%s: a submission from another's address: %q, %q", when, login, message)
		}
		if login, _ := m.submit("wrong", ann); !strings.HasPrefix(login, "535 ") {
			t.Errorf("%s: a submission with a wrong password: %q", when, login)
		}
	}
	logins("installed")
	m.want("drawbridge doctor", "failed: 0, warnings: 0,")
	m.want("drawbridge logins example.org --outcome allow -o json", `"protocol": "imap"`)
	key := m.read("/etc/drawbridge/login.key")

	m.install("current")
	if version := m.run("drawbridge --version"); strings.Contains(version, "previous") {
		t.Errorf("after the upgrade: %s", version)
	}
	m.want("cat /etc/drawbridge/drawbridge.toml", "\ndefault_domain =")
	logins("upgraded")
	if m.read("/etc/drawbridge/login.key") != key {
		t.Error("the upgrade replaced the login key")
	}
	m.want("drawbridge doctor", "failed: 0, warnings: 0,")

	// A revoked device's session ends.
	tablet := strings.TrimSpace(m.run("drawbridge secure-password create " + ann + " --label tablet 2>/dev/null"))
	c, err := mailclient.Client{}.IMAP(m.ctx, "127.0.0.1:143")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Login("ann", tablet); err != nil || !r.OK() {
		t.Fatalf("the tablet's login: %q, %v", r.Status, err)
	}
	m.run("drawbridge secure-password revoke " + ann + " tablet")
	redistest.Eventually(t, "the tablet's session ends", func() bool {
		r, err := c.Command("NOOP")
		return err != nil || !r.OK()
	})
	_ = c.Close()

	m.run("apt-get remove -y drawbridge")
	m.absent("/run/drawbridge", "/var/spool/postfix/drawbridge", "/usr/sbin/drawbridged")
	if state, _ := m.try("systemctl is-active drawbridge"); strings.HasPrefix(state, "active") {
		t.Errorf("after removal: %s", state)
	}
	m.install("current")
	logins("removed and installed again")

	m.run("apt-get purge -y drawbridge")
	m.absent("/etc/drawbridge", "/var/lib/drawbridge", "/run/drawbridge", "/var/spool/postfix/drawbridge",
		"/etc/systemd/system/multi-user.target.wants/drawbridge.service", "/etc/systemd/system/drawbridge.service")
}

// The .rpm, by rpm itself. Its machine is a Debian all the same: rpm knows none of Debian's packages, and
// Debian's helpers, which the scripts would use, are hidden.
func TestRPM(t *testing.T) {
	m := boot(t, "trixie")
	m.run("cd /usr/bin && mkdir /root/hidden && mv deb-systemd-helper deb-systemd-invoke /root/hidden/ && rpm --initdb")
	rpm := func(option, dir string) {
		t.Helper()
		m.copy(dir, "rpm")
		m.run("rpm --nodeps " + option + " /root/drawbridge.rpm")
	}
	rpm("-i", "previous")
	m.want("drawbridge --version", "0.0.1~previous")
	m.want("rpm -V --nodeps drawbridge && echo verified", "verified")
	m.want("rpm -q --requires drawbridge", "systemd")
	m.want("id -un drawbridge; stat -c '%U:%G %a' /run/drawbridge /etc/drawbridge/login.key /etc/drawbridge/dovecot-key.conf.ext",
		"drawbridge\ndrawbridge:dovecot 2755\nroot:drawbridge 640\nroot:root 600\n")
	m.run("systemctl start drawbridge")
	m.run("drawbridge domain create example.org --third-party allow")
	key := m.read("/etc/drawbridge/login.key")

	m.edit("/etc/drawbridge/drawbridge.toml", "# default_domain =", "default_domain =")
	rpm("-U", "current")
	if version := m.run("drawbridge --version"); strings.Contains(version, "previous") {
		t.Errorf("after the upgrade: %s", version)
	}
	m.want("systemctl is-active drawbridge", "active")
	m.want("readlink /proc/$(systemctl show --property MainPID --value drawbridge)/exe", "/usr/sbin/drawbridged\n") // the new one: not "(deleted)"
	m.want("cat /etc/drawbridge/drawbridge.toml", "\ndefault_domain =")
	m.want("drawbridge domain list", "example.org")
	if m.read("/etc/drawbridge/login.key") != key {
		t.Error("the upgrade replaced the login key")
	}
	if out, _ := m.try("rpm -V --nodeps drawbridge"); !strings.Contains(out, "c /etc/drawbridge/drawbridge.toml") || strings.Count(out, "\n") != 1 {
		t.Errorf("changed, besides the settings that were edited:\n%s", out)
	}

	m.run("rpm -e drawbridge")
	m.absent("/usr/sbin/drawbridged", "/usr/lib/systemd/system/drawbridge.service", "/etc/systemd/system/multi-user.target.wants/drawbridge.service")
	if state, _ := m.try("systemctl is-active drawbridge"); strings.HasPrefix(state, "active") {
		t.Errorf("after removal: %s", state)
	}
	m.want("cat /etc/drawbridge/login.key", strings.TrimSpace(key))
	m.run("test -e /var/lib/drawbridge/pepper")
}
