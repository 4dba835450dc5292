// Package machine boots a Debian by its own systemd in namespaces, for tests of packages, services
// and configuration management:
//
//	m := machine.Boot(t, "trixie")           // DRAWBRIDGE_ROOTS/trixie, which stays as it is
//	m.Site()                                 // Debian's Dovecot and Postfix, with the system user ann
//	m.Install("current")                     // the .deb in DRAWBRIDGE_PACKAGES/current
//	m.Want("drawbridge doctor", "failed: 0")
//
// contrib/trial/make-root.sh makes the roots. A machine has the loopback device only: what it
// installs was downloaded into its root before, or is a file. It ends with the test, as do its
// changes. It needs root.
package machine

import (
	"context"
	_ "embed"
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

// Ann is the system user of [Machine.Site], who logs in as "ann".
const (
	Ann         = "ann@example.org"
	AnnPassword = "ann-mailbox"
)

// limit bounds one test's machine.
const limit = 30 * time.Minute

//go:embed boot.sh
var script string

// Machine is a Debian that runs in namespaces on a copy of its root.
type Machine struct {
	t     *testing.T
	ctx   context.Context //nolint:containedctx // as long as its test
	init  int             // its first process, as seen from outside
	files string          // its root, as seen from outside
}

// Boot starts a machine on the root of a release and waits until all its services run. The test's
// thread shares its network, which has the loopback device only.
func Boot(t *testing.T, suite string) *Machine {
	t.Helper()
	root := filepath.Join(os.Getenv("DRAWBRIDGE_ROOTS"), suite)
	if _, err := os.Stat(filepath.Join(root, "lib/systemd/systemd")); err != nil { //nolint:gosec // G703: the tests' own environment
		t.Fatalf(`DRAWBRIDGE_ROOTS has no root of %s with systemd: run "make machine-roots"`, suite)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
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
	cmd := exec.CommandContext(ctx, "sh", "-c", script, "boot.sh", root, dir) //nolint:gosec // G204: the script is ours
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
		if out, err := exec.Command("unshare", "-m", "sh", "-c", sweep, "sh", dir).CombinedOutput(); err != nil { //nolint:gosec // G204: a directory of ours
			t.Errorf("removing the control groups: %v: %s", err, out)
		}
		_ = os.RemoveAll(dir)
	})
	m := &Machine{t: t, ctx: ctx, init: cmd.Process.Pid, files: fmt.Sprintf("/proc/%d/root", cmd.Process.Pid)}
	state := ""
	redistest.Eventually(t, "the machine has booted", func() bool {
		if cmd.Process.Signal(syscall.Signal(0)) != nil {
			t.Fatalf("it ended: %s", log)
		}
		state, _ = m.Try("systemctl is-system-running") // degraded is an exit status, too
		return strings.Contains(state, "running") || strings.Contains(state, "degraded")
	})
	return m
}

// Enter moves the calling goroutine, for good, to the machine's network.
func (m *Machine) Enter() error {
	runtime.LockOSThread() // and the thread ends with the goroutine
	network, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.init))
	if err != nil {
		return err
	}
	defer func() { _ = network.Close() }()
	return unix.Setns(int(network.Fd()), unix.CLONE_NEWNET)
}

// Try runs shell commands in the machine, as root, and returns what they print.
func (m *Machine) Try(commands string) (string, error) {
	cmd := exec.CommandContext(m.ctx, "nsenter", "--target", fmt.Sprint(m.init), "--mount", "--uts", "--ipc", "--pid", "--cgroup", //nolint:gosec // G204: commands of tests
		"--root", "--wd", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"sh", "-ec", commands)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Run is [Machine.Try] for commands that must succeed.
func (m *Machine) Run(commands string) string {
	m.t.Helper()
	out, err := m.Try(commands)
	if err != nil {
		journal, _ := m.Try("journalctl --no-pager --lines 40 --output cat")
		m.t.Fatalf("%s: %v: %s\n%s", commands, err, out, journal)
	}
	return out
}

// Want runs commands whose output has a text.
func (m *Machine) Want(commands, text string) {
	m.t.Helper()
	if out := m.Run(commands); !strings.Contains(out, text) {
		m.t.Errorf("%s: want %q:\n%s", commands, text, out)
	}
}

// Absent checks that there are no such files.
func (m *Machine) Absent(paths ...string) {
	m.t.Helper()
	for _, path := range paths {
		if _, err := os.Lstat(m.files + path); err == nil {
			m.t.Errorf("%s is there", path)
		}
	}
}

// Read returns the content of a file.
func (m *Machine) Read(path string) string {
	m.t.Helper()
	text, err := os.ReadFile(m.files + path)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

// Write writes a file, in a directory that it makes if need be.
func (m *Machine) Write(path, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.files+path), 0o755); err != nil { //nolint:gosec // G301: as Debian's
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.files+path, []byte(text), 0o644); err != nil { //nolint:gosec // G306: as Debian's
		m.t.Fatal(err)
	}
}

// Edit replaces a text that must be there.
func (m *Machine) Edit(path, old, text string) {
	m.t.Helper()
	before := m.Read(path)
	if !strings.Contains(before, old) {
		m.t.Fatalf("%s has no %q", path, old)
	}
	m.Write(path, strings.Replace(before, old, text, 1))
}

// Bring copies a file or directory of the repository into a directory of the machine.
func (m *Machine) Bring(from, into string) {
	m.t.Helper()
	if out, err := exec.Command("sh", "-c", `mkdir -p "$2" && cp -R "$1" "$2/"`, "sh", from, m.files+into).CombinedOutput(); err != nil { //nolint:gosec // G204: paths of tests
		m.t.Fatalf("copying %s: %v: %s", from, err, out)
	}
}

// Copy puts the package that was built into a directory of DRAWBRIDGE_PACKAGES at
// /root/drawbridge.KIND.
func (m *Machine) Copy(dir, kind string) {
	m.t.Helper()
	found, err := filepath.Glob(filepath.Join(os.Getenv("DRAWBRIDGE_PACKAGES"), dir, "*."+kind))
	if err != nil || len(found) != 1 {
		m.t.Fatalf("DRAWBRIDGE_PACKAGES has %d packages in %s: run the tests by make, as CONTRIBUTING.md says", len(found), dir)
	}
	text, err := os.ReadFile(found[0]) //nolint:gosec // G703: the tests' own environment
	if err != nil {
		m.t.Fatal(err)
	}
	m.Write("/root/drawbridge."+kind, string(text))
}

// Install installs the package that was built into a directory of DRAWBRIDGE_PACKAGES.
func (m *Machine) Install(dir string) {
	m.t.Helper()
	m.Copy(dir, "deb")
	// The files of the root were written without syncing; this is no time to begin.
	m.Run("apt-get install -y -o Dpkg::Options::=--force-unsafe-io --no-install-recommends /root/drawbridge.deb </dev/null")
	m.Want("systemctl is-active drawbridge", "active")
}

// InstallDebian installs packages of Debian that were downloaded into the root.
func (m *Machine) InstallDebian(packages string) {
	m.t.Helper()
	m.Run("apt-get install -qq -y -o Dpkg::Options::=--force-unsafe-io --no-download --no-install-recommends " + packages + " </dev/null")
}

// IMAP logs a user in from an address, of the kernel's choice if it is "", and returns the answer.
func (m *Machine) IMAP(from, user, password string) string {
	m.t.Helper()
	c, err := mailclient.Client{From: from}.IMAPS(m.ctx, "127.0.0.1:993")
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	r, err := c.Login(user, password)
	if err != nil {
		return err.Error()
	}
	return r.Status
}

// Submit logs ann in to the submission service, sends a message and returns the answers.
func (m *Machine) Submit(password, from, to, text string) (login, message string) {
	m.t.Helper()
	c, login, err := mailclient.Client{}.Login(m.ctx, "127.0.0.1:587", "ann", password)
	if err != nil {
		return err.Error(), ""
	}
	defer func() { _ = c.Close() }()
	if !strings.HasPrefix(login, "235 ") {
		return login, ""
	}
	message, err = c.Send(from, to, text)
	if err != nil {
		m.t.Fatal(err)
	}
	return login, message
}

// Site makes the machine a mail server that has no Drawbridge yet: Debian's Dovecot with system
// users, Postfix with a submission service that asks it.
func (m *Machine) Site() {
	m.t.Helper()
	m.Run("useradd --create-home ann && echo ann:" + AnnPassword + " | chpasswd")
	m.Write("/etc/postfix/main.cf", `compatibility_level = 3.6
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
	m.Write("/etc/dovecot/local.conf", `service auth {
  unix_listener /var/spool/postfix/private/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
}
auth_failure_delay = 0
`)
	m.Run("rm -f /usr/share/dovecot/protocols.d/submissiond.protocol") // the site has no such service
	m.Run("cp /etc/postfix/master.cf.proto /etc/postfix/master.cf && systemctl enable postfix dovecot && systemctl restart postfix && systemctl restart dovecot")
}

// Join does what the installation page says for the package on a [Machine.Site]: dovecot is "2.3"
// or "2.4".
func (m *Machine) Join(dovecot string) {
	m.t.Helper()
	m.Edit("/etc/drawbridge/drawbridge.toml", "# default_domain =", "default_domain =") // system users log in without one
	m.Run("drawbridged check && systemctl restart drawbridge")
	m.Edit("/etc/dovecot/conf.d/10-auth.conf", "!include auth-system.conf.ext", "!include /etc/drawbridge/dovecot-"+dovecot+".conf.ext\n!include auth-system.conf.ext")
	m.Edit("/etc/postfix/main.cf", "smtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/auth\n", "")
	m.Write("/etc/postfix/main.cf", m.Read("/etc/postfix/main.cf")+strings.Replace(m.Read("/usr/share/drawbridge/main.cf.drawbridge"),
		"smtpd_sasl_path = private/auth", "smtpd_sasl_path = drawbridge/auth", 1))
	m.Write("/etc/postfix/master.cf", m.Read("/etc/postfix/master.cf")+m.Read("/usr/share/drawbridge/master.cf.drawbridge"))
	m.Run("rm -f /run/dovecot/anvil-auth-penalty; systemctl restart dovecot postfix")
}
