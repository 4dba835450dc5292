//go:build servers

// Package packaging_test installs the packages that "make test-packages" has built on bare Debians,
// booted by their own systemd, with their own Dovecot and Postfix.
package packaging_test

import (
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/machine"
	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/redistest"
)

func hello(from string) string { return "From: " + from + "\r\nSubject: test\r\n\r\ntest\r\n" }

// introduce creates the domain and returns a secure password of ann's.
func introduce(m *machine.Machine) string {
	m.Run("drawbridge domain create example.org --third-party allow --sender-check both")
	return strings.TrimSpace(m.Run("drawbridge secure-password create " + machine.Ann + " --label phone 2>/dev/null"))
}

func TestDebian12(t *testing.T) { lifecycle(t, "bookworm", "2.3") }

func TestDebian13(t *testing.T) { lifecycle(t, "trixie", "2.4") }

// lifecycle installs an older build, does what the installation page says, and logs in; then it
// upgrades, removes and purges.
func lifecycle(t *testing.T, suite, dovecot string) {
	m := machine.Boot(t, suite)
	m.Site()
	m.Install("previous")
	m.Want("drawbridge --version", "0.0.1~previous")
	m.Want("ps -o user= -p $(systemctl show --property MainPID --value drawbridge) || stat -c %U /proc/$(systemctl show --property MainPID --value drawbridge)", "drawbridge")
	m.Want("stat -c '%U:%G %a' /run/drawbridge/login.sock /var/spool/postfix/drawbridge/policy /etc/drawbridge/login.key /etc/drawbridge/dovecot-key.conf.ext /var/lib/drawbridge/pepper",
		"drawbridge:dovecot 660\ndrawbridge:postfix 660\nroot:drawbridge 640\nroot:root 600\ndrawbridge:drawbridge 600\n")
	m.Want("man --version >/dev/null 2>&1 && man -w drawbridged drawbridge drawbridge.toml drawbridge-checkpassword || ls /usr/share/man/man8/drawbridged.8.gz", "drawbridged.8.gz")

	// systemd keeps the sockets through a restart and through a crash: those are the same files.
	const inodes = "stat -c %i /run/drawbridge/login.sock /var/spool/postfix/drawbridge/policy"
	before := m.Run(inodes)
	m.Run("systemctl restart drawbridge && systemctl reload drawbridge")
	m.Want(inodes, before)
	m.Run("systemctl kill --signal KILL --kill-whom main drawbridge; until systemctl is-active drawbridge; do sleep 0.2; done")
	m.Want(inodes, before)
	m.Join(dovecot) // the edited settings survive the upgrade below
	secret := introduce(m)

	logins := func(when string) {
		t.Helper()
		for what, answer := range map[string]struct{ got, want string }{
			"a secure password":  {m.IMAP("", "ann", secret), "OK "},
			"a mailbox password": {m.IMAP("", "ann", machine.AnnPassword), "OK "},
			"a wrong one":        {m.IMAP("", "ann", "wrong"), "NO [AUTHENTICATIONFAILED]"},
		} {
			if !strings.HasPrefix(answer.got, answer.want) {
				t.Errorf("%s: IMAP with %s: %q, want %q", when, what, answer.got, answer.want)
			}
		}
		for password, from := range map[string]string{secret: machine.Ann, machine.AnnPassword: machine.Ann} {
			if login, message := m.Submit(password, from, machine.Ann, hello(from)); !strings.HasPrefix(message, "250 ") {
				t.Errorf("%s: a submission: %q, %q", when, login, message)
			}
		}
		if login, message := m.Submit(secret, "ceo@example.org", machine.Ann, hello("ceo@example.org")); !strings.HasPrefix(message, "5") {
			t.Errorf("%s: a submission from another's address: %q, %q", when, login, message)
		}
		if login, _ := m.Submit("wrong", machine.Ann, machine.Ann, hello(machine.Ann)); !strings.HasPrefix(login, "535 ") {
			t.Errorf("%s: a submission with a wrong password: %q", when, login)
		}
	}
	logins("installed")
	m.Want("drawbridge doctor", "failed: 0, warnings: 0,")
	m.Want("drawbridge logins example.org --outcome allow -o json", `"protocol": "imap"`)
	key := m.Read("/etc/drawbridge/login.key")

	m.Install("current")
	if version := m.Run("drawbridge --version"); strings.Contains(version, "previous") {
		t.Errorf("after the upgrade: %s", version)
	}
	m.Want("cat /etc/drawbridge/drawbridge.toml", "\ndefault_domain =")
	logins("upgraded")
	if m.Read("/etc/drawbridge/login.key") != key {
		t.Error("the upgrade replaced the login key")
	}
	m.Want("drawbridge doctor", "failed: 0, warnings: 0,")

	profile(t, m)

	// A revoked device's session ends.
	tablet := strings.TrimSpace(m.Run("drawbridge secure-password create " + machine.Ann + " --label tablet 2>/dev/null"))
	c, err := mailclient.Client{}.IMAP(t.Context(), "127.0.0.1:143")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Login("ann", tablet); err != nil || !r.OK() {
		t.Fatalf("the tablet's login: %q, %v", r.Status, err)
	}
	m.Run("drawbridge secure-password revoke " + machine.Ann + " tablet")
	redistest.Eventually(t, "the tablet's session ends", func() bool {
		r, err := c.Command("NOOP")
		return err != nil || !r.OK()
	})
	_ = c.Close()

	m.Run("apt-get remove -y drawbridge")
	m.Absent("/run/drawbridge", "/var/spool/postfix/drawbridge", "/usr/sbin/drawbridged")
	if state, _ := m.Try("systemctl is-active drawbridge"); strings.HasPrefix(state, "active") {
		t.Errorf("after removal: %s", state)
	}
	m.Install("current")
	logins("removed and installed again")

	m.Run("apt-get purge -y drawbridge")
	m.Absent("/etc/drawbridge", "/var/lib/drawbridge", "/run/drawbridge", "/var/spool/postfix/drawbridge",
		"/etc/systemd/system/multi-user.target.wants/drawbridge.service", "/etc/systemd/system/drawbridge.service")
}

// The .rpm, by rpm itself. Its machine is a Debian all the same: rpm knows none of Debian's packages, and
// Debian's helpers, which the scripts would use, are hidden.
func TestRPM(t *testing.T) {
	m := machine.Boot(t, "trixie")
	m.Run("cd /usr/bin && mkdir /root/hidden && mv deb-systemd-helper deb-systemd-invoke /root/hidden/ && rpm --initdb")
	rpm := func(option, dir string) {
		t.Helper()
		m.Copy(dir, "rpm")
		m.Run("rpm --nodeps " + option + " /root/drawbridge.rpm")
	}
	rpm("-i", "previous")
	m.Want("drawbridge --version", "0.0.1~previous")
	m.Want("rpm -V --nodeps drawbridge && echo verified", "verified")
	m.Want("rpm -q --requires drawbridge", "systemd")
	m.Want("id -un drawbridge; stat -c '%U:%G %a' /run/drawbridge /etc/drawbridge/login.key /etc/drawbridge/dovecot-key.conf.ext",
		"drawbridge\ndrawbridge:dovecot 2755\nroot:drawbridge 640\nroot:root 600\n")
	m.Run("systemctl start drawbridge")
	m.Run("drawbridge domain create example.org --third-party allow")
	key := m.Read("/etc/drawbridge/login.key")

	m.Edit("/etc/drawbridge/drawbridge.toml", "# default_domain =", "default_domain =")
	rpm("-U", "current")
	if version := m.Run("drawbridge --version"); strings.Contains(version, "previous") {
		t.Errorf("after the upgrade: %s", version)
	}
	m.Want("systemctl is-active drawbridge", "active")
	m.Want("readlink /proc/$(systemctl show --property MainPID --value drawbridge)/exe", "/usr/sbin/drawbridged\n") // the new one: not "(deleted)"
	m.Want("cat /etc/drawbridge/drawbridge.toml", "\ndefault_domain =")
	m.Want("drawbridge domain list", "example.org")
	if m.Read("/etc/drawbridge/login.key") != key {
		t.Error("the upgrade replaced the login key")
	}
	if out, _ := m.Try("rpm -V --nodeps drawbridge"); !strings.Contains(out, "c /etc/drawbridge/drawbridge.toml") || strings.Count(out, "\n") != 1 {
		t.Errorf("changed, besides the settings that were edited:\n%s", out)
	}

	m.Run("rpm -e drawbridge")
	m.Absent("/usr/sbin/drawbridged", "/usr/lib/systemd/system/drawbridge.service", "/etc/systemd/system/multi-user.target.wants/drawbridge.service")
	if state, _ := m.Try("systemctl is-active drawbridge"); strings.HasPrefix(state, "active") {
		t.Errorf("after removal: %s", state)
	}
	m.Want("cat /etc/drawbridge/login.key", strings.TrimSpace(key))
	m.Run("test -e /var/lib/drawbridge/pepper")
}
