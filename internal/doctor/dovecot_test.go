package doctor

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/contrib/dovecot"
	"github.com/drawbridge/drawbridge/internal/doveconf"
)

func TestDovecotShipped(t *testing.T) {
	expectWell(t, Dovecot(dovecotOf(t, goodDovecot()), site(t)), 10)
}

// What doveconf -n leaves out are defaults, which the checks know: both forms are judged alike.
func TestDovecotBothForms(t *testing.T) {
	only23(t)
	for _, text := range []string{
		goodDovecot(), "protocols = imap\nssl = no\npassdb {\n driver = pam\n}\nuserdb {\n driver = passwd\n}\n",
		strings.ReplaceAll(goodDovecot(), "result_", "# result_"),
	} {
		file := write(t, filepath.Join(t.TempDir(), "dovecot.conf"), text)
		forms := make(map[string][]Finding)
		for _, form := range []string{"-n", "-a"} {
			needs(t, "doveconf", "dovecot-core dovecot-imapd")
			out, err := run(t.Context(), "doveconf", form, "-c", file)
			if err != nil {
				t.Fatal(err)
			}
			all, version, err := doveconf.Parse(strings.NewReader(string(out)))
			if err != nil {
				t.Fatal(err)
			}
			forms[form] = bad(Dovecot(DovecotConf{File: "dovecot.conf", Version: version, All: all}, site(t)))
		}
		if n, a := table(t, forms["-n"]), table(t, forms["-a"]); n != a {
			t.Errorf("doveconf -n:\n%s\ndoveconf -a:\n%s", n, a)
		}
	}
}

// Each trap, written as an administrator falls into it: old is replaced by new in the shipped
// configuration.
func TestDovecotTraps(t *testing.T) {
	const (
		driver = "  driver = checkpassword\n"
		pam    = "passdb {\n  driver = pam\n}\n"
	)
	program := "args = " + shippedPath
	for name, c := range map[string]struct {
		old, new, more string // more settings, at the end
		severity       Severity
		check          string
		where, what    string
	}{
		"not there":                    {driver, "  driver = shadow\n", "", Fail, "dovecot.passdb.present", "passdb", "no passdb runs Drawbridge"},
		"master users only":            {driver, driver + "  master = yes\n", "", Fail, "dovecot.passdb.present", "passdb", "master = yes"},
		"Lua of another":               {driver, "  driver = lua\n", "", Fail, "dovecot.passdb.present", "passdb", "no passdb runs Drawbridge"},
		"penalty":                      {"    mode = 0\n", "", "", Warn, "dovecot.penalty", "service anvil", "up to 15 s"},
		"certificates without lists":   {"", "", "ssl_verify_client_cert = yes\n", Warn, "dovecot.client_cert", "ssl_require_crl", "counts as none"},
		"too few auth clients":         {"vsz_limit = 1G", "vsz_limit = 1G\n  client_limit = 90", "", Warn, "dovecot.auth.client_limit", "service auth", "is 90, and up to 100 login"},
		"too many login processes":     {"", "", "service imap-login {\n process_limit = 1500\n}\n", Warn, "dovecot.auth.client_limit", "service auth", "is 1000, and up to 1500 login"},
		"submission":                   {"protocols = imap", "protocols = imap submission", "", Fail, "dovecot.submission", "protocols", "without naming the login"},
		"submission as one user":       {"protocols = imap", "protocols = imap submission\nsubmission_relay_user = relay", "", Fail, "dovecot.submission", "submission_relay_user", "no sender is checked"},
		"another first":                {"mail_location", pam + "mail_location", "", Fail, "dovecot.passdb.first", "passdb 1 (pam)", "opens the account"},
		"another first, goes on":       {"mail_location", "passdb {\n driver = pam\n result_success = continue-ok\n}\nmail_location", "", Warn, "dovecot.passdb.first", "passdb 1 (pam)", "sees every secret"},
		"another first for IMAP":       {"", "", "protocol imap {\n" + pam + "}\n", Fail, "dovecot.passdb.first", "protocol imap: passdb 1 (pam)", "opens the account"},
		"another first but for IMAP":   {"", "", "protocol !imap {\n" + pam + "}\n", Fail, "dovecot.passdb.first", "protocol smtp: passdb 1 (pam)", "opens the account"},
		"failure goes on":              {"result_failure = return-fail", "", "", Fail, "dovecot.passdb.results", "result_failure", "overrules"},
		"failure returns":              {"result_failure = return-fail", "result_failure = return", "", Fail, "dovecot.passdb.results", "result_failure", `"return"`},
		"daemon away goes on":          {"result_internalfail = return-fail", "result_internalfail = continue-fail", "", Fail, "dovecot.passdb.results", "result_internalfail", "daemon is away"},
		"success goes on":              {"result_success = return-ok", "result_success = continue", "", Fail, "dovecot.passdb.results", "result_success", "accepts are refused"},
		"skipped":                      {driver, driver + "  skip = authenticated\n", "", Fail, "dovecot.passdb.filters", "skip", "Drawbridge does not see"},
		"some mechanisms":              {driver, driver + "  mechanisms = login\n", "", Fail, "dovecot.passdb.filters", "mechanisms", "Drawbridge does not see"},
		"some names":                   {driver, driver + "  username_filter = *@example.org\n", "", Fail, "dovecot.passdb.filters", "username_filter", "Drawbridge does not see"},
		"deny":                         {driver, driver + "  deny = yes\n", "", Fail, "dovecot.passdb.filters", "deny", "refusal"},
		"pass":                         {driver, driver + "  pass = yes\n", "", Fail, "dovecot.passdb.filters", "pass", "accepts are refused"},
		"variable in args":             {program, program + " %u", "", Fail, "dovecot.passdb.args", "args", "% variable"},
		"relative program":             {program, "args = " + programName, "", Fail, "dovecot.passdb.args", "args", "absolute path"},
		"unknown option":               {program, program + " -x", "", Fail, "dovecot.passdb.args", "args", "takes only \"-s SOCKET\""},
		"option without value":         {program, program + " -s", "", Fail, "dovecot.passdb.args", "args", "takes only \"-s SOCKET\""},
		"other socket":                 {program, program + " -s /run/other.sock", "", Fail, "dovecot.passdb.args", "args", "connects to /run/other.sock"},
		"twice":                        {pam, "passdb {\n" + driver + program + "\n}\n" + pam, "", Warn, "dovecot.passdb.duplicate", "passdb 3", "a second time"},
		"no next":                      {pam, "", "", Fail, "dovecot.passdb.next", "passdb", "no passdb follows"},
		"next opens to all":            {"  driver = pam", "  driver = static\n  args = nopassword=y", "", Fail, "dovecot.passdb.next", "passdb 3 (static)", "any password"},
		"next has one password":        {"  driver = pam", "  driver = static\n  args = password=open", "", Fail, "dovecot.passdb.next", "passdb 3 (static)", "any password"},
		"next has nopassword":          {"  driver = pam", "  driver = pam\n  override_fields = nopassword=y", "", Fail, "dovecot.passdb.next", "passdb 3 (pam)", "any password"},
		"next is a proxy":              {"  driver = pam", "  driver = static\n  args = proxy=y host=192.0.2.1 nopassword=y", "", Warn, "dovecot.passdb.next", "passdb 3 (static)", "Postfix' logins"},
		"master users end early":       {"  result_success = continue\n", "", "", Fail, "dovecot.passdb.master", "passdb 2 (passwd-file)", "Drawbridge is not asked"},
		"limit too low":                {"vsz_limit = 1G", "vsz_limit = 512M", "", Fail, "dovecot.vsz_limit", "service auth", "is 512 M"},
		"limit left out":               {"vsz_limit = 1G", "", "", Fail, "dovecot.vsz_limit", "default_vsz_limit", "is 256 M"},
		"chroot":                       {"vsz_limit = 1G", "vsz_limit = 1G\n  chroot = login", "", Fail, "dovecot.chroot", "service auth", "login"},
		"hidden secrets":               {"", "", "auth_mechanisms = plain cram-md5 scram-sha-256\n", Warn, "dovecot.mechanisms", "auth_mechanisms", "CRAM-MD5, SCRAM-SHA-256"},
		"only hidden secrets":          {"", "", "auth_mechanisms = cram-md5\n", Fail, "dovecot.mechanisms", "auth_mechanisms", "neither PLAIN nor LOGIN"},
		"anonymous":                    {"", "", "auth_mechanisms = plain anonymous\n", Fail, "dovecot.mechanisms", "auth_mechanisms", "ANONYMOUS: these mechanisms"},
		"Kerberos":                     {"", "", "auth_mechanisms = plain gss-spnego\n", Fail, "dovecot.mechanisms", "auth_mechanisms", "GSS-SPNEGO: these mechanisms"},
		"no report":                    {"auth_policy_server_url =", "# ", "", Fail, "dovecot.auth_policy", "auth_policy_server_url", "is empty"},
		"report elsewhere":             {"http://127.0.0.1:8481", "http://127.0.0.1:4001", "", Fail, "dovecot.auth_policy", "auth_policy_server_url", "asks 127.0.0.1:4001"},
		"report to another path":       {"8481/v1/dovecot/policy", "8481/", "", Fail, "dovecot.auth_policy", "auth_policy_server_url", "does not serve"},
		"report without key":           {"\nauth_policy_server_api_header =", "\n# ", "", Fail, "dovecot.auth_policy", "api_header", "are refused"},
		"report off":                   {"report_after_auth = yes", "report_after_auth = no", "", Fail, "dovecot.auth_policy", "report_after_auth", "is off"},
		"asked before":                 {"check_before_auth = no", "check_before_auth = yes", "", Warn, "dovecot.auth_policy", "check_before_auth", "waits"},
		"not asked after":              {"check_after_auth = yes", "check_after_auth = no", "", Warn, "dovecot.auth_policy", "check_after_auth", "another name"},
		"open after":                   {"reject_on_fail = yes", "reject_on_fail = no", "", Fail, "dovecot.auth_policy", "reject_on_fail", "accepted"},
		"second judgement":             {" judged=yes", "", "", Fail, "dovecot.auth_policy", "request_attributes", "a second time"},
		"refusals only logged":         {"", "", "auth_policy_log_only = yes\n", Fail, "dovecot.auth_policy", "log_only", "the logins succeed"},
		"attributes of own clients":    {" local_port=%{lport}", "", "", Warn, "dovecot.auth_policy", "request_attributes", "lacks local_port"},
		"attributes":                   {"session_id=%{session}", "", "", Fail, "dovecot.auth_policy", "request_attributes", "lacks session_id"},
		"userdb":                       {"", "", "userdb {\n driver = checkpassword\n " + program + "\n}\n", Fail, "dovecot.userdb", "userdb 2", "returns no homes"},
		"prefetch alone":               {"userdb {\n  driver = passwd\n}", "userdb {\n  driver = prefetch\n}", "", Fail, "dovecot.userdb", "userdb", "prefetch alone"},
		"plaintext":                    {"", "", "disable_plaintext_auth = no\n", Warn, "dovecot.plaintext", "disable_plaintext_auth", "without encryption"},
		"everyone trusted":             {"", "", "login_trusted_networks = 127.0.0.1 0.0.0.0/0\n", Fail, "dovecot.trusted_networks", "login_trusted_networks", "0.0.0.0/0 is everyone"},
		"everyone trusted, IPv6":       {"", "", "login_trusted_networks = ::/0\n", Fail, "dovecot.trusted_networks", "login_trusted_networks", "::/0 is everyone"},
		"a public network trusted":     {"", "", "login_trusted_networks = 203.0.113.0/28\n", Warn, "dovecot.trusted_networks", "login_trusted_networks", "203.0.113.0/28"},
		"a wide network trusted":       {"", "", "login_trusted_networks = 10.0.0.0/8\n", Warn, "dovecot.trusted_networks", "login_trusted_networks", "10.0.0.0/8"},
		"HAProxy":                      {"", "", "haproxy_trusted_networks = 0.0.0.0/0\nservice imap-login {\n inet_listener x {\n port = 1143\n haproxy = yes\n}\n}\n", Fail, "dovecot.trusted_networks", "haproxy_trusted_networks", "everyone"},
		"auth socket open to everyone": {"vsz_limit = 1G", "vsz_limit = 1G\n  unix_listener /var/spool/postfix/private/auth {\n mode = 0666\n}", "", Warn, "dovecot.auth_listener", "private/auth", "every local user"},
		"auth port":                    {"vsz_limit = 1G", "vsz_limit = 1G\n  inet_listener {\n port = 12345\n}", "", Warn, "dovecot.auth_listener", "service auth", "port 12345"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(c.where, "protocol ") {
				only23(t)
			}
			text := goodDovecot()
			if !strings.Contains(text, c.old) {
				t.Fatalf("the shipped configuration has no %q", c.old)
			}
			f := Dovecot(dovecotOf(t, strings.Replace(text, c.old, c.new, 1)+c.more), site(t))
			x := expect(t, f, c.severity, c.check, c.where, c.what)
			if x.Fix == "" {
				t.Errorf("%s says nothing of what to do", x.Check)
			}
		})
	}
}

// The second passdb, as shipped and with each of its lines missing.
func TestDovecotSecondPassdb(t *testing.T) {
	only23(t)
	good := strings.Replace(goodDovecot(), "  driver = pam\n", "  driver = pam\n  result_success = continue-ok\n", 1) + dovecot.Verified23()
	expectWell(t, Dovecot(dovecotOf(t, good), site(t)), 10)
	for _, c := range []struct {
		old, new, where, what string
		severity              Severity
	}{
		{"  skip = unauthenticated\n", "", "skip", "to a guesser", Fail},
		{"  result_success = continue\n  result_failure", "  result_failure", "result_success", "a wrong one could be accepted", Fail},
		{"continue\n  result_failure = return-fail\n", "continue\n", "result_failure", "no effect", Fail},
		{"continue\n  result_failure = return-fail\n  result_internalfail = return-fail\n", "continue\n  result_failure = return-fail\n", "result_internalfail", "without their rules", Fail},
		{"pam\n  result_success = continue-ok\n", "pam\n", "passdb 3 (pam): result_success", "do not reach", Fail},
		{"auth_policy_check_after_auth = no\n", "auth_policy_check_after_auth = yes\n", "auth_policy_check_after_auth", "asks twice", Warn},
		{"auth_policy_check_after_auth = no\n", "auth_policy_check_after_auth = no\npassdb {\n driver = pam\n}\n", "passdb 5 (pam)", "is asked behind", Fail},
	} {
		at := strings.LastIndex(good, c.old)
		if at < 0 {
			t.Fatalf("the configuration has no %q", c.old)
		}
		f := Dovecot(dovecotOf(t, good[:at]+c.new+good[at+len(c.old):]), site(t))
		expect(t, f, c.severity, "dovecot.passdb.verified", c.where, c.what)
	}
}

// That of Dovecot 2.4 ends with "return".
func TestDovecotSecondPassdb24(t *testing.T) {
	second := "passdb pam {\n  result_success = continue-ok\n}\npassdb drawbridge-verified {\n  driver = lua\n  lua_file = /etc/dovecot/drawbridge-verified.lua\n" +
		"  skip = unauthenticated\n  result_success = return\n  result_failure = return-fail\n  result_internalfail = return-fail\n}\n"
	good := strings.NewReplacer("passdb pam {\n}\n", second, "check_after_auth = yes", "check_after_auth = no").Replace(recorded(t, "doveconf24-n.txt"))
	expectWell(t, Dovecot(parsed(t, good), site(t)), 10)
	f := Dovecot(parsed(t, strings.Replace(good, "result_success = return\n", "result_success = continue\n", 1)), site(t))
	expect(t, f, Fail, "dovecot.passdb.verified", "result_success", `is "continue"`)
}

// A line that a finding says to write is one that settles it.
func TestDovecotFixes(t *testing.T) {
	only23(t)
	broken := strings.NewReplacer(
		"vsz_limit = 1G", "vsz_limit = 256M",
		"report_after_auth = yes", "report_after_auth = no",
		"check_before_auth = no", "check_before_auth = yes",
		"protocol=%s session_id=%{session}", "",
		"127.0.0.1:8481", "127.0.0.1:4001",
		"\nauth_policy_server_api_header", "\n#",
	).Replace(goodDovecot()) + "auth_mechanisms = anonymous cram-md5\nlogin_trusted_networks = 0.0.0.0/0\ndisable_plaintext_auth = no\n"
	f := Dovecot(dovecotOf(t, broken), site(t))
	if n := len(bad(f)); n < 10 {
		t.Errorf("only %d faults found:\n%s", n, table(t, f))
	}
	fixed := broken
	for _, x := range bad(f) {
		fixed += x.Fix + "\n"
	}
	expectWell(t, Dovecot(dovecotOf(t, fixed), site(t)), 10)

	// Those of the passdb itself, in the place of it.
	f = Dovecot(dovecotOf(t, strings.Replace(dovecotSite, "%DRAWBRIDGE%", "", 1)), site(t))
	x := expect(t, f, Fail, "dovecot.passdb.present", "passdb", "")
	f = Dovecot(dovecotOf(t, strings.Replace(dovecotSite, "%DRAWBRIDGE%", x.Fix, 1)), site(t))
	for _, check := range []string{"dovecot.passdb.present", "dovecot.passdb.first", "dovecot.passdb.results", "dovecot.passdb.args"} {
		expectNone(t, f, check)
	}
}

// What is right depends on the daemon's settings too.
func TestDovecotSettings(t *testing.T) {
	const login = "[login]\ndefault_domain = \"example.org\"\nkey_file = \"/k\"\n"
	const unmanagedNext = "unmanaged = \"next\"\nunmanaged_domains = [\"*\"]\nlisten = [\"unix:/run/drawbridge/login.sock\", \"inet:127.0.0.1:8481\"]"
	alone := strings.Replace(goodDovecot(), "passdb {\n  driver = pam\n}\n", "", 1)
	unreported := strings.Replace(alone, "auth_policy_server_url =", "# ", 1)
	for name, c := range map[string]struct {
		text, settings string
		check, what    string // none: all is well
	}{
		"own mailbox passwords":            {unreported, login + "next_passdb = false", "", ""},
		"own mailbox passwords, next left": {goodDovecot(), login + "next_passdb = false\nlisten = [\"unix:/run/drawbridge/login.sock\", \"inet:127.0.0.1:8481\"]", "", ""},
		"unmanaged domains go on":          {alone, login + "next_passdb = false\nunmanaged = \"next\"\nunmanaged_domains = [\"*\"]\nlisten = [\"unix:/run/drawbridge/login.sock\", \"inet:127.0.0.1:8481\"]", "dovecot.passdb.next", "no passdb follows"},
		"unmanaged, whole names":           {strings.Replace(goodDovecot(), "driver = pam", "driver = passwd-file\n  args = username_format=%u /etc/users", 1), login + unmanagedNext, "", ""},
		"no inet listener":                 {goodDovecot(), "[login]\ndefault_domain = \"example.org\"\n", "dovecot.auth_policy", "no inet listener"},
		"inet listener with TLS":           {goodDovecot(), login + "listen = [\"unix:/run/drawbridge/login.sock\", \"inet:127.0.0.1:8481?tls_cert=/c&tls_key=/k\"]", "dovecot.auth_policy", "no inet listener"},
		"inet listener on all addresses":   {goodDovecot(), login + "listen = [\"unix:/run/drawbridge/login.sock\", \"inet:0.0.0.0:8481?allow_from=127.0.0.1\"]", "", ""},
		"no unix listener":                 {goodDovecot(), login + "listen = [\"inet:127.0.0.1:8481\"]", "dovecot.passdb.args", "no unix socket"},
		"another unix listener":            {goodDovecot(), login + "listen = [\"unix:/run/x.sock\", \"inet:127.0.0.1:8481\"]", "dovecot.passdb.args", "login.listen has /run/x.sock"},
		"names without domain are known":   {goodDovecot() + "auth_username_format = %Ln\n", login + "listen = [\"unix:/run/drawbridge/login.sock\", \"inet:127.0.0.1:8481\"]", "", ""},
		"hidden secrets without next":      {unreported + "auth_mechanisms = plain cram-md5\n", login + "next_passdb = false", "dovecot.mechanisms", "no login with it succeeds"},
	} {
		t.Run(name, func(t *testing.T) {
			f := Dovecot(dovecotOf(t, c.text), settingsOf(t, c.settings))
			if c.check == "" {
				expectWell(t, f, 10)
				return
			}
			if list := bad(f); len(list) != 1 || list[0].Check != c.check || !strings.Contains(list[0].What, c.what) {
				t.Errorf("want %s with %q alone, got\n%s", c.check, c.what, table(t, list))
			}
		})
	}
}

// What looks alike but is well.
func TestDovecotHarmless(t *testing.T) {
	for name, more := range map[string]string{
		"a cache":              "auth_cache_size = 10 M\n",
		"LOGIN":                "auth_mechanisms = plain login\n",
		"proxies by address":   "login_trusted_networks = 127.0.0.1 203.0.113.7 2001:db8::7 192.168.7.0/24\n",
		"HAProxy not in use":   "haproxy_trusted_networks = 0.0.0.0/0\n",
		"TLS is a must":        "disable_plaintext_auth = no\nssl = required\nssl_cert = </dev/null\nssl_key = </dev/null\n",
		"prefetch and another": "userdb {\n driver = prefetch\n}\n",
		"certificates":         "ssl_verify_client_cert = yes\nssl_require_crl = no\n",
		"another deny list":    "",
	} {
		t.Run(name, func(t *testing.T) {
			text := goodDovecot() + more
			if more == "" {
				text = "passdb {\n driver = passwd-file\n args = /etc/deny\n deny = yes\n}\n" + text
			}
			expectWell(t, Dovecot(dovecotOf(t, text), site(t)), 10)
		})
	}
}

// parsed is what doveconf printed.
func parsed(t *testing.T, text string) DovecotConf {
	t.Helper()
	all, version, err := doveconf.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return DovecotConf{File: "dovecot.conf", Version: version, All: all}
}

// The output of Dovecot 2.4.1, with and without the defaults, is judged like that of 2.3.
func TestDovecot24(t *testing.T) {
	expectWell(t, Dovecot(parsed(t, recorded(t, "doveconf24-n.txt")), site(t)), 10)
	expectWell(t, Dovecot(parsed(t, recorded(t, "doveconf24-a.txt")), site(t)), 10)
	const (
		ours = "passdb lua {\n"
		pam  = "passdb pam {\n}\n"
	)
	for name, c := range map[string]struct {
		old, new    string
		severity    Severity
		check       string
		where, what string
		line        string // part of the fix
	}{
		"checkpassword":           {ours, "passdb checkpassword {\n}\n" + ours, Fail, "dovecot.version", "passdb checkpassword", "2.4.1 has no checkpassword", "passdb lua {"},
		"checkpassword by driver": {ours, "passdb x {\n  driver = checkpassword\n}\n" + ours, Fail, "dovecot.version", "passdb x", "2.4.1 has no checkpassword", "lua_file"},
		"not there":               {"/etc/dovecot/drawbridge.lua", "/etc/dovecot/other.lua", Fail, "dovecot.passdb.present", "passdb", "not asked", "passdb lua {"},
		"relative script":         {"/etc/dovecot/drawbridge.lua", "drawbridge.lua", Fail, "dovecot.passdb.args", "passdb 1 (lua): lua_file", "absolute", "lua_file = /etc"},
		"another first":           {ours, pam + ours, Fail, "dovecot.passdb.first", "passdb 1 (pam)", "opens the account", "passdb lua {"},
		"for one protocol":        {"userdb passwd", "protocol imap {\n  passdb sql {\n  }\n}\nuserdb passwd", Fail, "dovecot.passdb.first", "protocol imap: passdb sql", "one protocol", "move"},
		"failure goes on":         {"  result_failure = return-fail\n", "", Fail, "dovecot.passdb.results", "result_failure", "overrules", "result_failure = return-fail"},
		"skipped by default":      {"ssl = no", "passdb_skip = authenticated", Fail, "dovecot.passdb.filters", "skip", "Drawbridge does not see", ""},
		"some mechanisms":         {ours, ours + "  mechanisms_filter = login\n", Fail, "dovecot.passdb.filters", "mechanisms", "Drawbridge does not see", ""},
		"next opens to all":       {pam, "passdb static {\n  fields {\n    nopassword = yes\n  }\n}\n", Fail, "dovecot.passdb.next", "passdb 3 (static)", "any password", ""},
		"next has one password":   {pam, "passdb static {\n  password = # hidden, use -P to show it\n}\n", Fail, "dovecot.passdb.next", "passdb 3 (static)", "any password", ""},
		"no report":               {"  server_url = http://127.0.0.1:8481/v1/dovecot/policy\n", "", Fail, "dovecot.auth_policy", "auth_policy_server_url", "is empty", "auth_policy_server_url"},
		"attributes":              {"    remote = %{remote_ip}\n", "", Fail, "dovecot.auth_policy", "request_attributes", "lacks remote", ""},
		"master ends early":       {"  result_success = continue\n", "", Fail, "dovecot.passdb.master", "passdb 2 (passwd-file)", "Drawbridge is not asked", ""},
		"tokens":                  {"plain login", "plain oauthbearer", Fail, "dovecot.mechanisms", "auth_mechanisms", "OAUTHBEARER: not supported", "plain login"},
		"anonymous":               {"plain login", "plain anonymous", Fail, "dovecot.mechanisms", "auth_mechanisms", "ANONYMOUS", ""},
		"cleartext":               {"ssl = no", "auth_allow_cleartext = yes", Warn, "dovecot.plaintext", "auth_allow_cleartext", "without encryption", "auth_allow_cleartext = no"},
		"penalty":                 {"mode = 0\n", "mode = 0600\n", Warn, "dovecot.penalty", "service anvil", "up to 15 s", "mode = 0"},
		"certificates":            {"service anvil", "ssl_server {\n  request_client_cert = yes\n}\nservice anvil", Warn, "dovecot.client_cert", "ssl_server_require_crl", "counts as none", "ssl_server_require_crl = no"},
		"workers":                 {"service anvil", "service auth-worker {\n  process_limit = 5\n}\nservice anvil", Warn, "dovecot.auth_worker", "process_limit", "is 5", "remove process_limit"},
		"submission":              {"  imap = yes\n", "  imap = yes\n  submission = yes\n", Fail, "dovecot.submission", "protocols", "without naming the login", "submission_relay_trusted = yes"},
	} {
		t.Run(name, func(t *testing.T) {
			text := recorded(t, "doveconf24-n.txt")
			if !strings.Contains(text, c.old) {
				t.Fatalf("the recorded configuration has no %q", c.old)
			}
			x := expect(t, Dovecot(parsed(t, strings.Replace(text, c.old, c.new, 1)), site(t)), c.severity, c.check, c.where, c.what)
			if x.Fix == "" || !strings.Contains(x.Fix, c.line) {
				t.Errorf("the fix lacks %q: %q", c.line, x.Fix)
			}
		})
	}
	// Dovecot's Lua reaches no unix socket.
	unix := settingsOf(t, "[login]\nlisten = [\"unix:/run/drawbridge/login.sock\"]\n")
	expect(t, Dovecot(parsed(t, recorded(t, "doveconf24-n.txt")), unix), Fail, "dovecot.passdb.args", "lua_file", "no inet listener")
}

// A Lua passdb of 2.3 is asked as checkpassword is, unless Dovecot answers from its cache.
func TestDovecotLua23(t *testing.T) {
	text := strings.NewReplacer("driver = checkpassword", "driver = lua", "args = "+shippedPath, "args = file=/etc/dovecot/drawbridge.lua blocking=yes",
		"vsz_limit = 1G", "vsz_limit = 256M").Replace(goodDovecot())
	expectWell(t, Dovecot(dovecotOf(t, text), site(t)), 10)
	f := Dovecot(dovecotOf(t, text+"auth_cache_size = 10M\n"), site(t))
	expect(t, f, Fail, "dovecot.auth_cache", "auth_cache_size", "a revoked secret still opens")
}

// The real doveconf 2.4 reads the shipped piece.
func TestDovecotShipped24(t *testing.T) {
	if !is24(t) {
		t.Skip("this is about doveconf 2.4; Dovecot 2.3 is installed")
	}
	text := `dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
protocols = imap
ssl = no
mail_driver = maildir
mail_path = ~/Maildir
` + dovecot.Conf24() + `
passdb masters {
  driver = passwd-file
  passwd_file_path = /etc/dovecot/masters
  master = yes
  result_success = continue
}
passdb pam {
}
userdb passwd {
}
auth_policy_server_api_header = Authorization: Bearer KEY
auth_policy_hash_nonce = nonce
`
	read := func(text string) DovecotConf {
		t.Helper()
		conf, err := readDovecot(t.Context(), write(t, filepath.Join(t.TempDir(), "dovecot.conf"), text))
		if err != nil {
			t.Fatal(err)
		}
		return conf
	}
	expectWell(t, Dovecot(read(text), site(t)), 10)
	open := strings.Replace(text, "  result_failure = return-fail\n", "", 1)
	expect(t, Dovecot(read(open), site(t)), Fail, "dovecot.passdb.results", "result_failure", "overrules")
}

// Versions that are too old, or newer than those that were tested.
func TestDovecotVersions(t *testing.T) {
	for version, c := range map[string]struct {
		severity Severity
		what     string
	}{
		"2.2.36 (1f10bfa63)":    {Fail, "2.2.36 is not supported"},
		"2.3.4.1":               {Fail, "2.3.4.1 is not supported"},
		"2.3.13":                {OK, "2.3.13 is supported"},
		"2.3.19.1 (9b53102964)": {OK, "2.3.19.1 is supported"},
		"2.4.5-1 (7d8c0e5759)":  {OK, "2.4.5 is supported"},
		"2.5.0":                 {Warn, "2.5.0 is newer"},
		"3.0.1":                 {Warn, "3.0.1 is newer"},
		"nightly":               {Warn, "not understood"},
	} {
		conf := parsed(t, recorded(t, "doveconf24-n.txt"))
		conf.Version = version
		expect(t, Dovecot(conf, site(t)), c.severity, "dovecot.version", conf.File, c.what)
	}
}

// What 2.4.1 and 2.3.19 say of a configuration for the other version.
func TestMixedVersions(t *testing.T) {
	for said, line := range map[string]string{
		"doveconf: Fatal: Error in configuration file /etc/dovecot/drawbridge.conf.ext line 14: passdb { } is missing section name":                        "passdb lua {",
		"doveconf: Fatal: Error in configuration file /etc/dovecot/dovecot.conf line 1: The first setting must be dovecot_config_version":                  "passdb lua {",
		"doveconf: Fatal: Error in configuration file /a line 4: args: Unknown setting: args (passdb_args or passdb_checkpassword_args not found either.)": "passdb lua {",
		"doveconf: Fatal: Error in configuration file /a line 1: Invalid dovecot_config_version: Currently supported versions are: 2.4.0 2.4.1 2.4.2":      "dovecot_config_version = 2.4.2",
		"doveconf: Fatal: Error in configuration file /a line 7: Unknown setting: passdb { lua_file":                                                       "driver = checkpassword",
		"doveconf: Fatal: Error in configuration file /a line 1: Unknown setting: dovecot_config_version":                                                  "driver = checkpassword",
	} {
		if got := mixedVersions(said); !strings.Contains(got, line) {
			t.Errorf("%s: %q lacks %q", said, got, line)
		}
	}
	if got := mixedVersions("doveconf: Fatal: Error in configuration file /a line 1: Unknown setting: nonsense"); got != "" {
		t.Errorf("another error: %q", got)
	}
}

// Args of other passdbs, and the key of the report, are secrets.
func TestDovecotSecrets(t *testing.T) {
	text := strings.NewReplacer("  driver = pam", "  driver = static\n  args = password=SECRET1", "Bearer KEY", "Basic SECRET2",
		"http://127.0.0.1:8481", "http://user:SECRET3@127.0.0.1:1").Replace(goodDovecot())
	out := table(t, Dovecot(dovecotOf(t, "passdb {\n driver = static\n args = password=SECRET4\n}\n"+text), site(t)))
	if strings.Contains(out, "SECRET") {
		t.Errorf("a secret is shown:\n%s", out)
	}
}
