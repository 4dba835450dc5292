package doctor

import (
	"strings"
	"testing"
)

const authListener = "  unix_listener /var/spool/postfix/private/auth {\n    mode = 0660\n    user = postfix\n    group = postfix\n  }\n"

func TestBoth(t *testing.T) {
	for name, c := range map[string]struct {
		auth, dovecot string // within service auth; at the end
		main, master  string // at the end
		severity      Severity
		check, where  string
		what, line    string
	}{
		"the listener of the guide":  {authListener, "", "", "", OK, "postfix.sasl.path", "for submission/inet", "reach this Dovecot", ""},
		"no such listener":           {"", "", "", "", Fail, "postfix.sasl.path", "smtpd_sasl_path", "/var/spool/postfix/private/auth, which is not a listener", "unix_listener /var/spool/postfix/private/auth {"},
		"another server's":           {authListener, "", "smtpd_sasl_path = /run/saslauthd/mux\n", "", Fail, "postfix.sasl.path", "smtpd_sasl_path", "which is not a listener", "smtpd_sasl_path = private/auth"},
		"another server's, one port": {authListener, "", "", "  -o smtpd_sasl_path=private/other\n", Fail, "postfix.sasl.path", "master.cf: last/inet: smtpd_sasl_path", "private/other", "  -o smtpd_sasl_path=private/auth"},
		"userdb lookups":             {authListener, "", "smtpd_sasl_path = /run/dovecot/auth-userdb\n", "", Fail, "postfix.sasl.path", "smtpd_sasl_path", "auth-userdb, which is not a listener", ""},
		"a port":                     {authListener + "  inet_listener {\n    port = 12345\n  }\n", "", "smtpd_sasl_path = inet:127.0.0.1:12345\n", "", OK, "postfix.sasl.path", "for submission/inet", "reach this Dovecot", ""},
		"submission, no XCLIENT":     {authListener, "submission_relay_host = 127.0.0.1\n", "", "", Fail, "postfix.submission_relay", "smtpd_authorized_xclient_hosts", "does not take the login", "smtpd_authorized_xclient_hosts = 127.0.0.1"},
		"submission, XCLIENT":        {authListener, "submission_relay_host = 127.0.0.1\n", "smtpd_authorized_xclient_hosts = 127.0.0.1\n", "", OK, "postfix.submission_relay", "smtpd_authorized_xclient_hosts", "takes the login", ""},
		"submission, no such port":   {authListener, "submission_relay_host = 127.0.0.1\nsubmission_relay_port = 26\n", "", "", Fail, "postfix.submission_relay", "submission_relay_port", "port 26", "submission_relay_port = 25"},
		"submission, another host":   {authListener, "submission_relay_host = mx.example.org\n", "", "", Warn, "postfix.submission_relay", "smtpd_authorized_xclient_hosts", "mx.example.org", "smtpd_authorized_xclient_hosts"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(goodDovecot(), "vsz_limit = 1G\n", "vsz_limit = 1G\n"+c.auth, 1) + c.dovecot
			if c.dovecot != "" {
				text = strings.Replace(text, "protocols = imap", "protocols = imap submission", 1) + "submission_relay_trusted = yes\n"
			}
			master := goodMaster()
			if c.master != "" {
				master += "last inet n - n - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n" + c.master
			}
			x := expect(t, Both(dovecotOf(t, text), postfixOf(t, goodMain()+c.main, master), site(t)), c.severity, c.check, c.where, c.what)
			if !strings.Contains(x.Fix, c.line) {
				t.Errorf("the fix lacks %q: %q", c.line, x.Fix)
			}
		})
	}
}

// A passdb that is not asked about Postfix' logins needs Postfix to ask Drawbridge itself.
func TestPassdbOfUsersAlone(t *testing.T) {
	apart := strings.NewReplacer("\npassdb {\n  driver = checkpassword\n", "\nprotocol !smtp {\npassdb {\n  driver = checkpassword\n",
		"  result_internalfail = return-fail\n}\n", "  result_internalfail = return-fail\n}\n}\nprotocol smtp {\n  auth_policy_check_after_auth = no\n}\n")
	shown := recorded(t, "doveconf24-n.txt")
	at := strings.Index(shown, "\npassdb lua {\n")
	end := at + strings.Index(shown[at:], "\n}\n") + 3
	confs := map[string]DovecotConf{
		"2.3": dovecotOf(t, apart.Replace(strings.Replace(goodDovecot(), "vsz_limit = 1G\n", "vsz_limit = 1G\n"+authListener, 1))),
		"2.4": parsed(t, shown[:at]+"\nprotocol !smtp {"+shown[at:end]+"}\n"+shown[end:]),
	}
	const sasl = "[sasl]\nlisten = [\"unix:/var/spool/postfix/private/drawbridge-auth\"]\nnext = \"/var/spool/postfix/private/auth\"\n"
	for name, conf := range confs {
		t.Run(name, func(t *testing.T) {
			settings := site(t)
			settings.SASL.Listen = settingsOf(t, sasl).SASL.Listen
			expectWell(t, Dovecot(conf, settings), 10)
			expectNone(t, Both(conf, postfixOf(t, goodMain()+"smtpd_sasl_path = private/drawbridge-auth\n", goodMaster()), settings), "postfix.sasl.path")
			settings.SASL.Listen = nil
			expect(t, Dovecot(conf, settings), Fail, "dovecot.passdb.smtp", "protocol !smtp", "[sasl] listen is empty")
			expect(t, Both(conf, postfixOf(t, goodMain(), goodMaster()), settings), Fail, "postfix.sasl.path", "smtpd_sasl_path", "")
		})
	}
}

// A Postfix that asks Drawbridge itself about logins asks where it listens, and Drawbridge asks this
// Dovecot.
func TestSASLDoor(t *testing.T) {
	const listen, next = "[sasl]\nlisten = [\"unix:/var/spool/postfix/private/drawbridge-auth?mode=0660&group=postfix\"]\n", "next = \"/var/spool/postfix/private/auth\"\n"
	for name, c := range map[string]struct {
		path, settings string
		severity       Severity
		check, what    string
		line           string // of the fix
	}{
		"where it listens":     {"private/drawbridge-auth", listen + next, OK, "postfix.sasl.path", "Drawbridge itself", ""},
		"it asks Dovecot":      {"private/drawbridge-auth", listen + next, OK, "daemon.sasl.next", "reach this Dovecot", ""},
		"another socket":       {"private/drawbridge", listen + next, Fail, "postfix.sasl.path", "sasl.listen has unix /var", "smtpd_sasl_path = private/drawbridge-auth"},
		"out of the chroot":    {"/var/spool/postfix/private/drawbridge-auth", listen + next, Fail, "postfix.sasl.path", "does not find", "smtpd_sasl_path = private/drawbridge-auth"},
		"it does not listen":   {"private/drawbridge-auth", "", Fail, "postfix.sasl.path", "sasl.listen is empty", "[sasl]"},
		"it asks no listener":  {"private/drawbridge-auth", listen + "next = \"/run/dovecot/other\"\n", Fail, "daemon.sasl.next", "/run/dovecot/other, which is not a listener", "unix_listener /run/dovecot/other {"},
		"Postfix asks Dovecot": {"private/auth", listen + next, OK, "postfix.sasl.path", "reach this Dovecot", ""},
		"masters":              {"private/drawbridge-auth", listen + next, Warn, "daemon.sasl.master_separator", "master logins to Postfix are refused", "master_separator = \"*\""},
	} {
		t.Run(name, func(t *testing.T) {
			conf := postfixOf(t, goodMain()+"smtpd_sasl_path = "+c.path+"\n", goodMaster())
			settings := settingsOf(t, c.settings)
			d := dovecotOf(t, strings.Replace(goodDovecot(), "vsz_limit = 1G\n", "vsz_limit = 1G\n"+authListener, 1)+"auth_master_user_separator = *\n")
			x := expect(t, append(Postfix(conf, settings), Both(d, conf, settings)...), c.severity, c.check, "", c.what)
			if !strings.Contains(x.Fix, c.line) {
				t.Errorf("the fix lacks %q: %q", c.line, x.Fix)
			}
		})
	}
}

// The processes of Postfix are compared with the connections that the daemon takes.
func TestPostfixConnections(t *testing.T) {
	for name, c := range map[string]struct {
		main, submission, settings string // in main.cf; maxproc of submission
		severity                   Severity
		check, where, what, line   string
	}{
		"the defaults":   {"", "-", "", OK, "postfix.policy.connections", "default_process_limit", "at most 300 smtpd", ""},
		"many processes": {"default_process_limit = 500\n", "-", "", Warn, "postfix.policy.connections", "default_process_limit", "may run 1500 smtpd", "max_connections = 1500"},
		"their milter":   {"default_process_limit = 500\n", "-", "", Warn, "postfix.milter.connections", "default_process_limit", "may run 1500 smtpd", "[milter]"},
		"one service":    {"", "900", "", Warn, "postfix.policy.connections", "default_process_limit", "may run 1100 smtpd", "max_connections = 1100"},
		"no limit":       {"", "0", "", Warn, "postfix.milter.connections", "submission/inet", "maxproc 0", "maxproc"},
		"a small daemon": {"", "-", "[policyd]\nmax_connections = 100\n", Warn, "postfix.policy.connections", "default_process_limit", "policyd.max_connections is 100", "[policyd]"},
	} {
		t.Run(name, func(t *testing.T) {
			master := strings.Replace(goodMaster(), "submission inet n       -       y       -       - ", "submission inet n - y - "+c.submission+" ", 1)
			x := expect(t, Postfix(postfixOf(t, goodMain()+c.main, master), settingsOf(t, c.settings)), c.severity, c.check, c.where, c.what)
			if !strings.Contains(x.Fix, c.line) {
				t.Errorf("the fix lacks %q: %q", c.line, x.Fix)
			}
		})
	}
}
