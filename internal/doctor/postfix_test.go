package doctor

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPostfixShipped(t *testing.T) {
	f := Postfix(postfixOf(t, goodMain(), goodMaster()), site(t))
	expectWell(t, f, 15)
	for _, service := range []string{"smtp/inet", "submission/inet", "submissions/inet"} {
		found := false
		for _, x := range f {
			found = found || x.Check == "postfix.policy" && strings.HasPrefix(x.What, service+" asks")
		}
		if !found {
			t.Errorf("nothing is said about the policy service of %s:\n%s", service, table(t, f))
		}
	}
}

// The trap of Debian's master.cf: its commented services, made active as they are.
func TestPostfixDebian(t *testing.T) {
	const master = `smtp inet n - y - - smtpd
submission inet n       -       y       -       -       smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_tls_auth_only=yes
  -o smtpd_reject_unlisted_recipient=no
  -o smtpd_client_restrictions=$mua_client_restrictions
  -o smtpd_recipient_restrictions=
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
  -o milter_macro_daemon_name=ORIGINATING
cleanup unix n - y - 0 cleanup
`
	f := Postfix(postfixOf(t, goodMain(), master), site(t))
	x := expect(t, f, Fail, "postfix.policy", "master.cf: submission/inet: smtpd_recipient_restrictions", "Drawbridge is not asked")
	if x.Fix != "  -o smtpd_recipient_restrictions=$drawbridge_policy" {
		t.Errorf("fix: %q", x.Fix)
	}
	if n := len(bad(f)); n != 1 {
		t.Errorf("%d findings:\n%s", n, table(t, bad(f)))
	}
}

// Each trap, written as an administrator falls into it: old is replaced by new in one of the
// shipped files.
func TestPostfixTraps(t *testing.T) {
	const (
		recipients = "    $drawbridge_policy,\n    permit_mynetworks,"
		submission = "$drawbridge_policy,permit_sasl_authenticated,reject\n  -o milter"
		daemon     = "  -o milter_macro_daemon_name=ORIGINATING\nsubmissions"
	)
	option := func(o string) string { return "  -o " + o + "\nsubmissions" }
	for name, c := range map[string]struct {
		old, new, main string // main: more lines of main.cf
		severity       Severity
		check          string
		where, what    string
	}{
		"submission permits first":      {submission, "permit_sasl_authenticated,$drawbridge_policy,reject\n  -o milter", "", Fail, "postfix.policy", "master.cf: submission/inet", "permit_sasl_authenticated comes before"},
		"submission does not ask":       {submission, "permit_sasl_authenticated,reject\n  -o milter", "", Fail, "postfix.policy", "master.cf: submission/inet", "can still send"},
		"submission rejects first":      {submission, "reject,$drawbridge_policy\n  -o milter", "", Fail, "postfix.policy", "master.cf: submission/inet", "not asked"},
		"only a warning":                {submission, "warn_if_reject,$drawbridge_policy,permit_sasl_authenticated,reject\n  -o milter", "", Fail, "postfix.policy", "master.cf: submission/inet", "warn_if_reject"},
		"a table first":                 {submission, "check_sender_access,hash:/etc/postfix/vip,$drawbridge_policy,permit_sasl_authenticated,reject\n  -o milter", "", Warn, "postfix.policy", "master.cf: submission/inet", "check_sender_access comes before"},
		"another policy service first":  {submission, "check_policy_service,inet:127.0.0.1:10023,$drawbridge_policy,permit_sasl_authenticated,reject\n  -o milter", "", Warn, "postfix.policy", "master.cf: submission/inet", "inet:127.0.0.1:10023 comes before"},
		"a class permits first":         {submission, "mine,$drawbridge_policy,reject\n  -o milter", "smtpd_restriction_classes = mine\nmine = reject_non_fqdn_sender, permit_sasl_authenticated\n", Fail, "postfix.policy", "master.cf: submission/inet", "permit_sasl_authenticated comes before"},
		"permits by a name":             {submission, "$mine,$drawbridge_policy,reject\n  -o milter", "mine = permit_mynetworks\n", Fail, "postfix.policy", "master.cf: submission/inet", "permit_mynetworks comes before"},
		"permits by another's name":     {daemon, option("mine=permit_mynetworks"), "mine =\nsmtpd_client_restrictions = $mine\nsmtpd_recipient_restrictions = $mine, $drawbridge_policy\n", OK, "postfix.policy", "master.cf: submission/inet", "submission/inet asks"},
		"port 25 permits first":         {recipients, "    permit_mynetworks,\n    $drawbridge_policy,", "", Warn, "postfix.policy", "main.cf: smtpd_recipient_restrictions, for smtp/inet", "permit_mynetworks comes before"},
		"port 25 with logins permits":   {recipients, "    permit_mynetworks,\n    $drawbridge_policy,", "smtpd_sasl_auth_enable = yes\n", Fail, "postfix.policy", "main.cf: smtpd_recipient_restrictions, for smtp/inet", "permit_mynetworks comes before"},
		"port 25 does not ask":          {recipients, "    permit_mynetworks,", "", Warn, "postfix.policy", "for smtp/inet", "from outside"},
		"local port with logins":        {"127.0.0.1:10025", "127.0.0.1:10025", "smtpd_sasl_auth_enable = yes\n", Warn, "postfix.policy", "127.0.0.1:10025/inet", "from this machine"},
		"another socket":                {"unix:private/drawbridge,", "unix:private/drawbridge-old,", "", Fail, "postfix.policy", "for smtp/inet", "asks unix:private/drawbridge-old, but policyd.listen has unix /var/spool/postfix/private/drawbridge"},
		"outside of the chroot":         {"unix:private/drawbridge,", "unix:/var/spool/postfix/private/drawbridge,", "", Fail, "postfix.policy", "for smtp/inet", "chroot /var/spool/postfix"},
		"open while the daemon is away": {"default_action=451 4.3.0 Access rules cannot be read at the moment, please try again later", "default_action=DUNNO", "", Warn, "postfix.policy.default_action", "for smtp/inet", "everybody may send"},
		"two entries":                   {daemon, daemon, "relayhost = a\nrelayhost = b\n", Warn, "postfix.repeated", "main.cf: relayhost", "Postfix uses the last"},
		"two entries and postlogd":      {daemon, daemon, "maillog_file = /var/log/mail.log\nrelayhost = a\nrelayhost = b\n", Warn, "postfix.repeated", "main.cf: relayhost", "can block"},
		"open by main.cf":               {"{ default_action=451 4.3.0 Access rules cannot be read at the moment, please try again later }", "timeout=5s", "smtpd_policy_service_default_action = OK\n", Warn, "postfix.policy.default_action", "for smtp/inet", `"OK"`},
		"not asked at DATA":             {"smtpd_data_restrictions = $drawbridge_policy\n", "", "", Warn, "postfix.policy.data", "smtpd_data_restrictions, for submission/inet", "revoked after RCPT is not refused at DATA"},
		"not asked at the end":          {"smtpd_end_of_data_restrictions = $drawbridge_policy\n", "smtpd_end_of_data_restrictions = reject_multi_recipient_bounce\n", "", Warn, "postfix.policy.data", "smtpd_end_of_data_restrictions, for submission/inet", "not refused at its end"},
		"permits at DATA":               {daemon, option("smtpd_data_restrictions=permit_mynetworks,$drawbridge_policy"), "", Warn, "postfix.policy.data", "master.cf: submission/inet: smtpd_data_restrictions", "not the first that decides"},
		"submission has no milter":      {daemon, option("smtpd_milters="), "", Fail, "postfix.milter", "master.cf: submission/inet: smtpd_milters", "is empty"},
		"submission has other milters":  {daemon, option("smtpd_milters=inet:127.0.0.1:8891"), "", Fail, "postfix.milter", "master.cf: submission/inet: smtpd_milters", "is not in it"},
		"milters switched off":          {daemon, option("receive_override_options=no_header_body_checks,no_milters"), "", Fail, "postfix.milter", "receive_override_options", "no_milters"},
		"port 25 has no milter":         {"smtpd_milters = $drawbridge_milter\nnon", "non", "", Warn, "postfix.milter", "main.cf: smtpd_milters, for smtp/inet", "is empty"},
		"another milter port":           {"unix:private/drawbridge-milter", "inet:127.0.0.1:10042", "", Fail, "postfix.milter", "smtpd_milters, for submission/inet", "is not in it"},
		"milters of some clients":       {"", "", "smtpd_milter_maps = cidr:/etc/postfix/milters\n", Warn, "postfix.milter", "smtpd_milter_maps", "other milters"},
		"local mail has no milter":      {"non_smtpd_milters = $drawbridge_milter", "", "", Warn, "postfix.milter.local", "non_smtpd_milters", "local programs"},
		"milter accepts":                {"default_action=tempfail", "default_action=accept", "", Warn, "postfix.milter.default_action", "for smtp/inet", "nothing is checked"},
		"milter quarantines":            {"    default_action=tempfail }", "    connect_timeout=5s }", "milter_default_action = quarantine\n", Warn, "postfix.milter.default_action", "for smtp/inet", "for good"},
		"milter does not see the login": {"{auth_type} {auth_authen} ", "", "", Fail, "postfix.milter.macros", "milter_mail_macros", "lacks {auth_authen}"},
		"milter does not see addresses": {"    {client_addr} {client_port} {daemon_port}\n", "", "", Warn, "postfix.milter.macros", "milter_mail_macros", "lacks {client_addr}"},
		"old milter protocol":           {"", "", "milter_protocol = 1\n", Fail, "postfix.milter.protocol", "milter_protocol", "is 1"},
		"Cyrus":                         {"smtpd_sasl_type = dovecot", "", "", Fail, "postfix.sasl", "smtpd_sasl_type, for submission/inet", "Dovecot is not asked"},
		"no path":                       {"smtpd_sasl_path = private/auth", "", "", Fail, "postfix.sasl", "smtpd_sasl_path, for submission/inet", "nobody can log in"},
		"unknown service":               {"# -o smtpd_sasl_service=submission587", "  -o smtpd_sasl_service=submission587", "", Fail, "postfix.sasl.service", "master.cf: submission/inet", "every login there is refused"},
		"secrets in clear":              {"", "", "smtpd_sasl_auth_enable = yes\n", Warn, "postfix.sasl.plaintext", "for smtp/inet", "without encryption"},
		"everyone is a proxy":           {"", "", "smtpd_authorized_xclient_hosts = 0.0.0.0/0\n", Fail, "postfix.client_address", "xclient", "everyone"},
		"many are proxies":              {"", "", "smtpd_authorized_xclient_hosts = 127.0.0.1, [2001:db8::]/32\n", Warn, "postfix.client_address", "xclient", "[2001:db8::]/32"},
		"HAProxy":                       {daemon, option("smtpd_upstream_proxy_protocol=haproxy"), "", Warn, "postfix.client_address", "submission/inet", "without the proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			main, master := goodMain(), goodMaster()
			if !strings.Contains(main+master, c.old) {
				t.Fatalf("the shipped configuration has no %q", c.old)
			}
			if c.old != "" {
				main, master = strings.Replace(main, c.old, c.new, 1), strings.Replace(master, c.old, c.new, 1)
			}
			f := Postfix(postfixOf(t, main+c.main, master), site(t))
			if c.severity == OK {
				expectNone(t, f, c.check)
				return
			}
			if x := expect(t, f, c.severity, c.check, c.where, c.what); x.Fix == "" {
				t.Errorf("%s says nothing of what to do", x.Check)
			}
		})
	}
}

// What looks alike but is well.
func TestPostfixHarmless(t *testing.T) {
	for name, c := range map[string]struct{ old, new, main string }{
		"absolute path without chroot":    {"    unix:private/drawbridge,", "    unix:/var/spool/postfix/private/drawbridge,", "CHROOT"},
		"checks that only refuse":         {"    $drawbridge_policy,\n", "    reject_non_fqdn_recipient, reject_rbl_client zen.example.org=127.0.0.[2..11], sleep 1, $drawbridge_policy,\n", ""},
		"a class of refusals":             {"    $drawbridge_policy,\n", "    mine, $drawbridge_policy,\n", "smtpd_restriction_classes = mine\nmine = reject_unknown_sender_domain\n"},
		"asked in a class":                {"    $drawbridge_policy,\n", "    mine,\n", "smtpd_restriction_classes = mine\nmine = $drawbridge_policy, permit_mynetworks\n"},
		"another milter before":           {"smtpd_milters = $drawbridge_milter\nnon", "smtpd_milters = inet:127.0.0.1:8891, $drawbridge_milter\nnon", ""},
		"action of the program, braces":   {"timeout=10s", "{ timeout = 10s }", ""},
		"asked in relay restrictions":     {"smtpd_recipient_restrictions =\n    $drawbridge_policy,", "smtpd_relay_restrictions = $drawbridge_policy, permit_mynetworks, reject_unauth_destination\nsmtpd_recipient_restrictions =", ""},
		"an upper case name":              {"drawbridge_policy = check_policy_service", "drawbridge_policy = CHECK_POLICY_SERVICE", ""},
		"XCLIENT for one":                 {"", "", "smtpd_authorized_xclient_hosts = 203.0.113.7, [::1]\n"},
		"services told apart":             {"# -o smtpd_sasl_service=submission587", "  -o smtpd_sasl_service=submission587", "SERVICES"},
		"permits after a conditional":     {"    $drawbridge_policy,\n", "    ${nothing?permit,} ${drawbridge_policy:permit,} $(drawbridge_policy),\n", ""},
		"delayed reject is off":           {"", "", "smtpd_delay_reject = no\n"},
		"sender_login_maps besides":       {"", "", "smtpd_sender_login_maps = hash:/etc/postfix/logins\nsmtpd_sender_restrictions = reject_sender_login_mismatch\n"},
		"behind postscreen":               {"smtp inet n - y - - smtpd", "smtp inet n - y - 1 postscreen\nsmtpd pass - - y - - smtpd", ""},
		"permits before, but of another ": {"", "", "smtpd_client_restrictions = permit_mynetworks, permit\n"},
	} {
		t.Run(name, func(t *testing.T) {
			main, master, settings := goodMain(), goodMaster(), site(t)
			if !strings.Contains(main+master, c.old) {
				t.Fatalf("the shipped configuration has no %q", c.old)
			}
			if c.old != "" {
				main, master = strings.Replace(main, c.old, c.new, 1), strings.Replace(master, c.old, c.new, 1)
			}
			switch c.main {
			case "CHROOT":
				master = strings.NewReplacer("n - y", "n - -", "n       -       y", "n - n", "inet n      -       y", "inet n - n").Replace(master)
			case "SERVICES":
				settings.Login.Services["submission587"] = "smtp"
			default:
				main += c.main
			}
			expectWell(t, Postfix(postfixOf(t, main, master), settings), 15)
		})
	}
}

// The lines that findings say to write settle them: they are written into the files, and postconf
// reads them again.
func TestPostfixFixes(t *testing.T) {
	plain := strings.NewReplacer("    $drawbridge_policy,\n", "", "$drawbridge_milter", "", "{auth_authen} ", "", "smtpd_sasl_type = dovecot", "", "smtpd_sasl_path = private/auth", "")
	for name, c := range map[string]struct{ main, master string }{
		"by name": {plain.Replace(goodMain()), strings.ReplaceAll(goodMaster(), "$drawbridge_policy,", "")},
		"without names": {
			"compatibility_level = 3.6\nsmtpd_recipient_restrictions = permit_mynetworks, check_recipient_access inline:{ {a@b = OK} }, reject_unauth_destination\n",
			strings.ReplaceAll(goodMaster(), "$drawbridge_policy,", "check_sender_access hash:/x,"),
		},
		"in the wrong place": {
			strings.Replace(goodMain(), "    $drawbridge_policy,\n    permit_mynetworks,", "    permit_mynetworks, warn_if_reject $drawbridge_policy,", 1),
			strings.ReplaceAll(goodMaster(), "$drawbridge_policy,permit_sasl_authenticated", "permit_sasl_authenticated,$drawbridge_policy"),
		},
		"braces in master.cf": {
			goodMain(),
			strings.ReplaceAll(goodMaster(), "-o smtpd_recipient_restrictions=$drawbridge_policy,permit_sasl_authenticated,reject",
				"-o { smtpd_recipient_restrictions = permit_sasl_authenticated, check_policy_service { unix:private/drawbridge, { default_action=451 later on } }, reject }"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			master := strings.ReplaceAll(c.master, "-o smtpd_recipient_restrictions=check_sender_access hash:/x,", "-o smtpd_recipient_restrictions=check_sender_access,hash:/x,")
			needs(t, "postconf", "postfix")
			dir := t.TempDir()
			write(t, filepath.Join(dir, "main.cf"), c.main)
			write(t, filepath.Join(dir, "master.cf"), master)
			before := Postfix(postconfDir(t, dir), site(t))
			if len(bad(before)) < 2 {
				t.Errorf("only %d faults found:\n%s", len(bad(before)), table(t, before))
			}
			for _, x := range bad(before) {
				apply(t, dir, x)
			}
			after := Postfix(postconfDir(t, dir), site(t))
			expectWell(t, after, 15)
			main, err := os.ReadFile(filepath.Join(dir, "main.cf"))
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range []string{"reject_unauth_destination", "permit_mynetworks"} {
				if strings.Contains(c.main, word) && !strings.Contains(string(main), word) {
					t.Errorf("the site's own %s is lost:\n%s", word, main)
				}
			}
			if t.Failed() {
				t.Log("\n", string(main), runPostconf(t, "-c", dir, "-P"))
			}
		})
	}
}

// apply writes the fix of a finding where the finding is.
func apply(t *testing.T, dir string, x Finding) {
	t.Helper()
	defer settle(t, filepath.Join(dir, "main.cf"))
	defer settle(t, filepath.Join(dir, "master.cf"))
	line, isOverride := strings.CutPrefix(x.Fix, "  -o ")
	if !isOverride {
		if x.Fix != "" && !strings.HasPrefix(x.Fix, "#") && strings.Contains(x.Fix, " = ") {
			runPostconf(t, "-c", dir, "-e", x.Fix)
		}
		return
	}
	if strings.HasPrefix(line, "{") {
		line = strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(line, "{"), "}"))
	}
	service := strings.Split(strings.TrimPrefix(x.Where, "postfix/master.cf: "), ":")[0]
	name, value, _ := strings.Cut(line, "=")
	runPostconf(t, "-c", dir, "-P", service+"/"+strings.TrimSpace(name)+"="+strings.TrimSpace(value))
}

func TestPostfixSettings(t *testing.T) {
	inet := settingsOf(t, "[policyd]\nlisten = [\"inet:127.0.0.1:10040\"]\n[milter]\nlisten = [\"inet:127.0.0.1:10041\"]\n")
	f := Postfix(postfixOf(t, goodMain(), goodMaster()), inet)
	expect(t, f, Fail, "postfix.policy", "for smtp/inet", "policyd.listen has tcp 127.0.0.1:10040")
	x := expect(t, f, Fail, "postfix.milter", "for submission/inet", "but milter.listen has tcp 127.0.0.1:10041")
	if want := "smtpd_milters = inet:127.0.0.1:10041"; x.Fix != want {
		t.Errorf("fix: %q, want %q", x.Fix, want)
	}

	main := strings.NewReplacer("unix:private/drawbridge,", "inet:localhost:10040,", "unix:private/drawbridge-milter", "inet:127.0.0.1:10041").Replace(goodMain())
	expectWell(t, Postfix(postfixOf(t, main, goodMaster()), inet), 15)

	off := settingsOf(t, "[policyd]\nlisten = []\n[milter]\nlisten = []\n")
	expectWell(t, Postfix(postfixOf(t, "compatibility_level = 3.6\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/auth\n",
		strings.ReplaceAll(goodMaster(), "$drawbridge_policy,", "")), off), 8)

	imap := site(t)
	imap.Login.Services["submission587"] = "imap"
	f = Postfix(postfixOf(t, goodMain(), strings.Replace(goodMaster(), "# -o smtpd_sasl_service=", "  -o smtpd_sasl_service=", 1)), imap)
	expect(t, f, Fail, "postfix.sasl.service", "submission/inet", "which is imap")
}

// Postfix and Drawbridge agree about extensions of names.
func TestPostfixDelimiter(t *testing.T) {
	for name, c := range map[string]struct {
		main, settings string
		severity       Severity
		what, fix      string
	}{
		"the same":            {"recipient_delimiter = +\n", "", OK, "hold for its extensions", ""},
		"another":             {"recipient_delimiter = -\n", "", Warn, "ann-x@ is another account", `subaddress = "+-"`},
		"one more":            {"recipient_delimiter = +-\n", "", Warn, "ann-x@ is another account", `subaddress = "+-"`},
		"not here":            {"recipient_delimiter = +\n", "[login]\nsubaddress = \"\"\n", Warn, "ann+x@ is another account", `subaddress = "+"`},
		"both, in that order": {"recipient_delimiter = +-\n", "[login]\nsubaddress = \"-+\"\n", OK, "hold for its extensions", ""},
	} {
		t.Run(name, func(t *testing.T) {
			x := expect(t, Postfix(postfixOf(t, goodMain()+c.main, goodMaster()), settingsOf(t, c.settings)), c.severity, "postfix.delimiter", "recipient_delimiter", c.what)
			if !strings.Contains(x.Fix, c.fix) {
				t.Errorf("the fix lacks %q: %q", c.fix, x.Fix)
			}
		})
	}
	expectNone(t, Postfix(postfixOf(t, goodMain(), goodMaster()), settingsOf(t, "[login]\nsubaddress = \"\"\n")), "postfix.delimiter")
}

func TestPostfixServices(t *testing.T) {
	conf := postfixOf(t, goodMain()+"inet_interfaces = loopback-only\n", goodMaster()+"[::1]:2525 inet n - - - - smtpd\nbacked unix - - n - - smtpd -o { smtpd_milters = a, b }\n")
	p := postfixChecks{conf: conf, config: site(t)}
	local, chroot := map[string]bool{}, map[string]bool{}
	for i := range conf.Services {
		if s := p.smtpd(i); s != nil {
			local[s.title], chroot[s.title] = s.local, s.chroot
		}
	}
	if want := map[string]bool{"smtp/inet": true, "submission/inet": true, "submissions/inet": true, "127.0.0.1:10025/inet": true, "[::1]:2525/inet": true, "backed/unix": true}; !maps.Equal(local, want) {
		t.Errorf("local: %v", local)
	}
	if want := map[string]bool{"smtp/inet": true, "submission/inet": true, "submissions/inet": true, "127.0.0.1:10025/inet": false, "[::1]:2525/inet": false, "backed/unix": false}; !maps.Equal(chroot, want) {
		t.Errorf("chroot: %v", chroot)
	}
	conf.Main["compatibility_level"] = "0"
	for i, m := range conf.Services {
		if s := p.smtpd(i); m.Name == "[::1]:2525" && !s.chroot {
			t.Error("chroot \"-\" means y at compatibility level 0")
		}
	}
}
