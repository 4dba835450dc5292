//go:build ansible

// Package ansible_test runs the role by Debian's ansible-core on mail servers of Debian 12 and 13 that
// have no Drawbridge yet, with the package that "make test-ansible" has built.
package ansible_test

import (
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/machine"
	"github.com/drawbridge/drawbridge/internal/redistest"
)

func TestDebian12(t *testing.T) { role(t, "bookworm") }

func TestDebian13(t *testing.T) { role(t, "trixie") }

func role(t *testing.T, suite string) {
	m := machine.Boot(t, suite)
	m.Site()
	m.InstallDebian("ansible-core python3-apt")
	t.Log(strings.SplitN(m.Run("ansible --version"), "\n", 2)[0])
	m.Bring("roles", "/root/ansible")
	m.Bring("site.yml", "/root/ansible")
	m.Copy("current", "deb")
	const play = "cd /root/ansible && ansible-playbook -c local -i mail.example.org, -e drawbridge_package=/root/drawbridge.deb " +
		`-e '{"drawbridge_settings": {"login": {"default_domain": "example.org"}}, "drawbridge_withdraw_queue": true}' site.yml`
	recap := func(output, want string) {
		t.Helper()
		if _, counts, _ := strings.Cut(output, "PLAY RECAP"); !strings.Contains(counts, want) || !strings.Contains(counts, "failed=0") {
			t.Errorf("want %s:\n%s", want, output)
		}
	}
	m.Run(play)
	recap(m.Run(play+" --check --diff"), "changed=0 ")
	recap(m.Run(play), "changed=0 ")

	m.Want("stat -c '%U:%G %a' /etc/drawbridge/login.key /etc/drawbridge/dovecot-key.conf.ext /etc/drawbridge/drawbridge.toml /run/drawbridge-queue.sock",
		"root:drawbridge 640\nroot:root 600\nroot:drawbridge 640\ndrawbridge:drawbridge 600\n")
	m.Run("drawbridge domain create example.org --third-party allow --sender-check both")
	secret := strings.TrimSpace(m.Run("drawbridge secure-password create " + machine.Ann + " --label phone 2>/dev/null"))
	for _, password := range []string{secret, machine.AnnPassword} {
		if answer := m.IMAP("", "ann", password); !strings.HasPrefix(answer, "OK ") {
			t.Errorf("IMAP: %q", answer)
		}
		if login, message := m.Submit(password, machine.Ann, machine.Ann, "From: "+machine.Ann+"\r\nSubject: test\r\n\r\ntest\r\n"); !strings.HasPrefix(message, "250 ") {
			t.Errorf("a submission: %q, %q", login, message)
		}
	}
	if answer := m.IMAP("", "ann", "wrong"); !strings.HasPrefix(answer, "NO ") {
		t.Errorf("IMAP with a wrong password: %q", answer)
	}
	m.Want("drawbridge doctor", "failed: 0, warnings: 0,")

	// The daemon, in its sandbox, deletes from Postfix' queue by the socket.
	if login, message := m.Submit(secret, machine.Ann, "zoe@elsewhere.example", "From: "+machine.Ann+"\r\nSubject: stolen\r\n\r\ntest\r\n"); !strings.HasPrefix(message, "250 ") {
		t.Errorf("a submission to outside: %q, %q", login, message)
	}
	credential := strings.TrimSpace(m.Run(`drawbridge secure-password list ` + machine.Ann + ` -o json | sed -n 's/.*"id": "\(.*\)".*/\1/p'`))
	withdraw := "drawbridge withdraw example.org --since 1h --credential " + credential
	redistest.Eventually(t, "the queued message is found", func() bool { return strings.Contains(m.Run(withdraw+" --dry-run -o json"), `"queued": 1`) })
	m.Want(withdraw+" -o json", `"queued": 1`)
	if queue := m.Run("postqueue -j"); strings.Contains(queue, "zoe@") {
		t.Errorf("withdrawn, and still in the queue: %s", queue)
	}

	// The site's own values stay, behind Drawbridge's.
	m.Run("postconf -e 'smtpd_milters = inet:127.0.0.1:8891' 'smtpd_recipient_restrictions = reject_unlisted_recipient, permit_mynetworks, reject_unauth_destination'")
	recap(m.Run(play), "changed=2 ") // main.cf and its handler
	m.Want("postconf -h smtpd_milters smtpd_recipient_restrictions",
		"$drawbridge_milter, inet:127.0.0.1:8891\n$drawbridge_policy, reject_unlisted_recipient, permit_mynetworks, reject_unauth_destination\n")
	recap(m.Run(play), "changed=0 ")
}
