//go:build servers

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// Exim and chasquid speak Dovecot's protocol to the SASL door as Postfix does: what is decided here,
// what Dovecot verifies, refusals and temporary failures.
func TestOtherSubmissionServers(t *testing.T) {
	d := newDebian(t)
	d.run("", "sh", "-c", "apt-get update -qq && cd /tmp && apt-get download -qq chasquid && dpkg -x chasquid_*.deb /tmp/chasquid &&"+
		" DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends exim4-daemon-heavy >/dev/null")
	dir, err := os.MkdirTemp("/tmp", "door") // both sides reach it, and its path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // Exim's user passes through
		t.Fatal(err)
	}
	group := strings.TrimSpace(d.run("", "id", "-g", "Debian-exim"))
	s := start(t, trialstack.Options{SASLDoor: true, DoorAlone: true, Settings: map[string]any{
		"sasl.listen": []string{"unix:" + dir + "/auth?mode=0660&group=" + group},
	}, MainCF: "smtpd_milters =\n", DovecotConf: `
service auth {
  unix_listener ` + dir + `/userdb {
    mode = 0666
  }
}
`})
	s.domain(nil)
	const inside = "/run/site"
	for _, m := range []struct{ from, to string }{{dir, inside}, {filepath.Dir(s.Certificate()), "/run/tls"}} {
		to := filepath.Join(d.root, m.to)
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount(m.from, to, "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(to, syscall.MNT_DETACH) })
	}

	servers := map[string]func(address string){
		"exim": func(address string) {
			d.run("", "install", "-m", "0644", "/run/tls/cert.pem", "/etc/exim4/cert.pem")
			d.run("", "install", "-m", "0640", "-g", "Debian-exim", "/run/tls/key.pem", "/etc/exim4/key.pem")
			host, port, _ := strings.Cut(address, ":")
			d.write("/etc/exim4/test.conf", fmt.Sprintf(`primary_hostname = mail.example.org
local_interfaces = %s
daemon_smtp_ports = %s
tls_advertise_hosts = *
tls_certificate = /etc/exim4/cert.pem
tls_privatekey = /etc/exim4/key.pem
auth_advertise_hosts = ${if def:tls_in_cipher {*}}
log_file_path = /var/log/exim4/%%slog
acl_smtp_rcpt = accept
begin authenticators
drawbridge_plain:
  driver = dovecot
  public_name = PLAIN
  server_socket = /run/site/auth
  server_set_id = $auth1
drawbridge_login:
  driver = dovecot
  public_name = LOGIN
  server_socket = /run/site/auth
  server_set_id = $auth1
`, host, port), 0o644)
			d.daemon("/usr/sbin/exim4", "-C", "/etc/exim4/test.conf", "-bdf")
		},
		"chasquid": func(address string) {
			d.write("/etc/chasquid/chasquid.conf", fmt.Sprintf("hostname: \"mail.example.org\"\nsubmission_address: %q\nsmtp_address: \"127.0.0.1:%d\"\n"+
				"data_dir: \"/tmp/chasquid-data\"\nmail_log_path: \"<stderr>\"\ndovecot_auth: true\ndovecot_userdb_path: \"/run/site/userdb\"\ndovecot_client_path: \"/run/site/auth\"\n",
				address, freePort(t)), 0o644)
			d.run("", "sh", "-c", "mkdir -p /etc/chasquid/domains/example.org /etc/chasquid/certs/mail.example.org /tmp/chasquid-data &&"+
				" install -m 0600 /run/tls/cert.pem /etc/chasquid/certs/mail.example.org/fullchain.pem && install -m 0600 /run/tls/key.pem /etc/chasquid/certs/mail.example.org/privkey.pem")
			d.daemon("/tmp/chasquid/usr/bin/chasquid", "-config_dir=/etc/chasquid")
		},
	}
	for name, serve := range servers {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
			serve(address)
			login := func(user, password string) string {
				t.Helper()
				c, r, err := mailclient.Client{From: outside}.Login(s.ctx, address, user, password)
				if err != nil {
					return err.Error()
				}
				_ = c.Close()
				return r
			}
			s.eventually(name+" serves", func() bool { return strings.HasPrefix(login(bob, "wrong"), "535 ") })
			id, secret := s.device(ann, "phone of "+name)
			s.want("a secure password", login(ann, secret), "235 ")
			s.want("a mailbox password, which Dovecot verifies", login(ann, s.passwords[ann]), "235 ")
			s.want("a wrong one", login(bob, "wrong"), "535 ")
			s.record("account="+ann+"&outcome=allow", func(r object) bool { return r["protocol"] == "smtp" && r["ip"] == outside && r["tls"] == true })
			s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+id, nil)
			s.want("a revoked one", login(ann, secret), "535 ")
			s.api("PATCH", "/v1/accounts/"+bob, object{"protocols": object{"smtp": false}})
			s.want("submission switched off", login(bob, s.passwords[bob]), "535 ")
			s.api("PATCH", "/v1/accounts/"+bob, object{"protocols": object{"smtp": true}})
			s.must(s.Daemons[0].Stop())
			for what, r := range map[string]string{"without the daemon": login(ann, s.passwords[ann])} {
				if !strings.HasPrefix(r, "435 ") && !strings.HasPrefix(r, "454 ") {
					t.Errorf("%s: %q", what, r)
				}
			}
			s.must(s.Daemons[0].Start(s.ctx))
			s.eventually("the daemon is asked again", func() bool { return strings.HasPrefix(login(ann, s.passwords[ann]), "235 ") })
		})
	}
}
