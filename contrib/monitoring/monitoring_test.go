//go:build monitoring

// Package monitoring_test runs the files for fail2ban, CrowdSec, logcheck and logwatch within these
// programs, on Debian 12 and 13 with the package of Drawbridge, which "make test-monitoring" has built.
package monitoring_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/machine"
	"github.com/drawbridge/drawbridge/internal/redistest"
)

func TestDebian12(t *testing.T) { watched(t, "bookworm", "2.3") }

func TestDebian13(t *testing.T) { watched(t, "trixie", "2.4") }

// Addresses of clients. The machine's loopback device has all of their networks.
const (
	guesser  = "203.0.113." // and a number
	refused  = "192.0.2.21" // right secrets that a rule refuses
	outage   = "192.0.2.22" // logins while Drawbridge cannot decide
	down     = "192.0.2.23" // logins while drawbridged is stopped
	revoked  = "192.0.2.24" // a device whose secure password was revoked
	maxretry = 15           // of the jail
)

// A site is a machine with Drawbridge.
type site struct {
	*machine.Machine
	t      *testing.T
	secret string // ann's secure password
	wrong  string // carol's, which no passdb is asked about for others
}

func watched(t *testing.T, suite, dovecot string) {
	s := &site{Machine: machine.Boot(t, suite), t: t}
	for _, network := range []string{"192.0.2.254/24", "203.0.113.254/24"} {
		if out, err := exec.CommandContext(t.Context(), "ip", "address", "add", network, "dev", "lo").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	s.Site()
	s.Run("useradd --create-home bob && echo bob:bob-mailbox | chpasswd")
	s.Install("current")
	s.Join(dovecot)
	s.Run("drawbridge domain create example.org --third-party allow")
	create := func(account string) string {
		return strings.TrimSpace(s.Run("drawbridge secure-password create " + account + " --label phone 2>/dev/null"))
	}
	create("bob@example.org")
	s.secret, s.wrong = create(machine.Ann), create("carol@example.org")
	s.fail2ban()
	s.crowdsec()
	s.logcheck()
	s.logwatch()
}

// tries logs in some times and checks each answer.
func (s *site) tries(n int, from, user, secret, answer string) {
	s.t.Helper()
	for range n {
		if got := s.IMAP(from, user, secret); !strings.HasPrefix(got, answer) {
			s.t.Fatalf("%s from %s: %q, want %q\n%s", user, from, got, answer, s.Run("journalctl --no-pager -n 60 -u drawbridge -u dovecot -o cat; tail -5 /var/log/drawbridge.log || true"))
		}
	}
}

// guesses tries wrong secrets of two accounts, so that the throttle holds back neither.
func (s *site) guesses(n int, from string) {
	s.t.Helper()
	s.tries(n/2, from, "ann", s.wrong, "NO [AUTHENTICATIONFAILED]")
	s.tries(n-n/2, from, "bob", s.wrong, "NO [AUTHENTICATIONFAILED]")
}

// innocents are logins that fail and are nobody's guess, more of each than the jail permits.
func (s *site) innocents() {
	s.t.Helper()
	const n = maxretry + 2
	device := strings.TrimSpace(s.Run("drawbridge secure-password create " + machine.Ann + " --label lost 2>/dev/null"))
	s.Run("drawbridge secure-password revoke " + machine.Ann + " lost")
	s.tries(n, revoked, "ann", device, "NO ")

	s.Run("drawbridge third-party block example.org")
	s.tries(n, refused, "ann", s.secret, "NO ")
	s.Run("drawbridge third-party allow example.org")

	// A daemon without Redis and without a snapshot cannot decide.
	const settings = "/etc/drawbridge/drawbridge.toml"
	before := s.Read(settings)
	s.Write(settings, before+"\n[store]\nurl = \"unix:///run/drawbridge/no-redis\"\n")
	s.Run("systemctl stop drawbridge && systemctl start --no-block drawbridge")
	redistest.Eventually(s.t, "the outage", func() bool { return strings.HasPrefix(s.IMAP(outage, "ann", s.secret), "NO [UNAVAILABLE]") })
	s.tries(n, outage, "ann", s.secret, "NO [UNAVAILABLE]")
	s.Run("systemctl stop drawbridge")
	s.tries(2, down, "ann", s.secret, "NO [UNAVAILABLE]") // Dovecot 2.4 waits longer each time
	s.Write(settings, before)
	s.Run("systemctl start drawbridge")
	// Dovecot 2.3 does not ask again at once after it was refused connections.
	redistest.Eventually(s.t, "logins after the outage", func() bool { return strings.HasPrefix(s.IMAP(outage, "ann", s.secret), "OK ") })
}

// fail2ban's jail reads the journal, a file, and a file of JSON lines. Its action writes the banned
// addresses to a file.
func (s *site) fail2ban() {
	s.t.Helper()
	s.InstallDebian("fail2ban python3-systemd")
	s.Run("systemctl stop fail2ban || true")
	s.Bring("../fail2ban/drawbridge.conf", "/etc/fail2ban/filter.d")
	s.Bring("../fail2ban/jail.conf", "/root")
	s.Run("cp /root/jail.conf /etc/fail2ban/jail.d/drawbridge.conf")
	s.Write("/etc/fail2ban/action.d/write.conf", "[Definition]\nactionban = echo '<ip>' >> /root/banned\nactionunban = true\n")
	const local = "/etc/fail2ban/jail.d/local.local"
	const common = "[DEFAULT]\nbanaction = write\n[sshd]\nenabled = false\n"
	s.Write(local, common)
	s.Run("touch /root/banned && systemctl start fail2ban && until fail2ban-client status drawbridge; do sleep 0.2; done")
	s.t.Logf("fail2ban %s", s.Run("dpkg-query -W -f '${Version}' fail2ban"))
	s.banned("by journal", guesser+"1")
	s.innocents()
	s.banned("by journal, after an outage", guesser+"2")

	// systemd opens the file, so that the daemon's sandbox need not.
	s.Write("/etc/systemd/system/drawbridge.service.d/log.conf", "[Service]\nStandardError=append:/var/log/drawbridge.log\n")
	s.Write(local, common+"[drawbridge]\nbackend = auto\nlogpath = /var/log/drawbridge.log\njournalmatch =\n")
	s.Run("systemctl daemon-reload && systemctl restart drawbridge && systemctl restart fail2ban && until fail2ban-client status drawbridge; do sleep 0.2; done")
	s.banned("by file", guesser+"3")
	s.innocents()
	const settings = "/etc/drawbridge/drawbridge.toml"
	before := s.Read(settings)
	s.Write(settings, before+"\n[log]\njson = true\n")
	s.Run("systemctl restart drawbridge")
	s.banned("by JSON", guesser+"4")
	s.Write(settings, before)
	s.Run("rm -r /etc/systemd/system/drawbridge.service.d && systemctl daemon-reload && systemctl restart drawbridge && systemctl disable --now fail2ban")
	// A jail that starts bans again whom it had banned.
	if got, want := s.Run("sort -u /root/banned"), guesser+"1\n"+guesser+"2\n"+guesser+"3\n"+guesser+"4\n"; got != want {
		s.t.Errorf("banned:\n%swant\n%s", got, want)
	}
}

// banned guesses until the jail bans, which it does at the last guess only. Then nobody else is
// banned either, since fail2ban has read all that was logged before.
func (s *site) banned(how, from string) {
	s.t.Helper()
	status := func() string { return s.Run("fail2ban-client status drawbridge") }
	failed := func(n int) bool { return strings.Contains(status(), fmt.Sprintf("Total failed:\t%d\n", n)) }
	before := 0
	if _, err := fmt.Sscanf(s.Run(`fail2ban-client status drawbridge | sed -n 's/.*Total failed:\t//p'`), "%d", &before); err != nil {
		s.t.Fatal(err)
	}
	s.guesses(maxretry-1, from)
	defer func() {
		if s.t.Failed() {
			s.t.Logf("%s\n%s", status(), s.Run("tail -n 30 /var/log/fail2ban.log"))
		}
	}()
	redistest.Eventually(s.t, how+": the failures are read", func() bool { return failed(before + maxretry - 1) })
	if strings.Contains(s.Read("/root/banned"), from+"\n") {
		s.t.Errorf("%s: %s was banned after %d guesses", how, from, maxretry-1)
	}
	s.guesses(1, from)
	redistest.Eventually(s.t, how+": "+from+" is banned", func() bool { return strings.Contains(s.Read("/root/banned"), from+"\n") })
	// Each account's wrong secrets are forgotten, for those who guess next.
	s.Run("drawbridge throttle unblock ann@example.org; drawbridge throttle unblock bob@example.org; drawbridge throttle unblock " + from + " || true")
}

// CrowdSec reads the journal, and its own API has the decision. It is not connected to its makers.
func (s *site) crowdsec() {
	s.t.Helper()
	s.Write("/etc/crowdsec/online_api_credentials.yaml", "# not connected\n")
	s.InstallDebian("crowdsec")
	s.t.Logf("crowdsec %s", s.Run("dpkg-query -W -f '${Version}' crowdsec"))
	s.Bring("../crowdsec/drawbridge.yaml", "/etc/crowdsec/parsers/s01-parse")
	s.Bring("../crowdsec/drawbridge-bf.yaml", "/etc/crowdsec/scenarios")
	s.Write("/etc/crowdsec/acquis.yaml", "source: journalctl\njournalctl_filter: [\"_SYSTEMD_UNIT=drawbridge.service\"]\nlabels:\n  type: syslog\n")
	s.Run("systemctl restart crowdsec")

	// Line by line: those of a wrong password, but for the one with a syslog header without its time.
	s.Bring("../fail2ban/sample.log", "/root")
	s.Run(`sed "s/DATE/$(date -u +%Y-%m-%dT%H:%M:%S.043Z)/" /root/sample.log >/root/lines.log`)
	explained := s.Run("cscli explain --file /root/lines.log --type drawbridged 2>&1 | grep -v level=info")
	for line := range strings.SplitSeq(explained, "line: ") {
		wants := strings.Contains(line, "reason=bad_secret") && !strings.HasPrefix(line, "mx1 ") && !strings.Contains(line, `secret" ip=`)
		if got := strings.Contains(line, "drawbridge/bf"); got != wants || strings.Contains(line, "without timestamp") {
			s.t.Errorf("crowdsec parses it: %t, want %t: %s", got, wants, line)
		}
	}

	s.innocents()
	s.guesses(14, guesser+"5")
	decided := func() string { return s.Run("cscli decisions list -o json") }
	redistest.Eventually(s.t, "crowdsec bans", func() bool { return strings.Contains(decided(), guesser+"5") })
	if list := decided(); strings.Contains(list, "192.0.2.") {
		s.t.Errorf("crowdsec bans innocents: %s", list)
	}
	s.Run("systemctl disable --now crowdsec")
}

// logcheck is silent about logins, and reports other lines.
func (s *site) logcheck() {
	s.t.Helper()
	s.InstallDebian("logcheck")
	s.Bring("../logcheck/drawbridge", "/etc/logcheck/ignore.d.server")
	s.Run("chown root:logcheck /etc/logcheck/ignore.d.server/drawbridge && usermod -aG systemd-journal logcheck")
	report := s.Run("runuser -u logcheck -- /usr/sbin/logcheck -o -t 2>&1")
	logged := s.Run("journalctl --no-pager -u drawbridge -o cat")
	for _, login := range []string{"drawbridged: login deny:", "drawbridged: login allow:"} {
		if !strings.Contains(logged, login) || strings.Contains(report, login) {
			s.t.Errorf("logcheck reports logins, or there are none: %q", login)
		}
	}
	for _, fault := range []string{"drawbridged: login tempfail:", "drawbridged.store: store: error"} {
		if !strings.Contains(report, fault) {
			s.t.Errorf("logcheck is silent about %q:\n%s", fault, report)
		}
	}
}

// logwatch sums logins up, from the journal.
func (s *site) logwatch() {
	s.t.Helper()
	s.InstallDebian("logwatch")
	s.Bring("../logwatch/drawbridge", "/etc/logwatch/scripts/services")
	s.Bring("../logwatch/drawbridge.conf", "/etc/logwatch/conf/services")
	report := s.Run("logwatch --service drawbridge --range today --output stdout --detail med 2>&1")
	for _, line := range []string{"Drawbridge Begin", "login deny (bad_secret)", "login deny (revoked_secret)", "login allow (ok)", "14  " + guesser + "5\n"} {
		if !strings.Contains(report, line) {
			s.t.Errorf("logwatch does not print %q:\n%s", line, report)
		}
	}
}
