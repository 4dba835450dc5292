package doctor

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestNameUsed(t *testing.T) {
	for text, want := range map[string]nameUse{
		"": usesNothing, "users": usesNothing, "%n": usesLocal, "%Ln": usesLocal, "%{username}": usesLocal, "%L{username}": usesLocal,
		"%{user | username | lower}": usesLocal, "%{username|lower}": usesLocal,
		"%u": usesWhole, "%Lu": usesWhole, "%{user}": usesWhole, "%{user | lower}": usesWhole, "%n-%d": usesWhole, "%{username}-%{domain}": usesWhole,
		"%{user | username}@%{user | domain}": usesWhole, "%{orig_user}": usesWhole,
		"%r": usesNothing, "%{rip} %s": usesNothing,
		"(&(objectClass=posixAccount)(uid=%n))":                              usesLocal,
		"SELECT password FROM users WHERE name = '%n'":                       usesLocal,
		"SELECT password FROM users WHERE name = '%n' AND domain = '%d'":     usesWhole,
		"SELECT password FROM users WHERE name = '%{user | username}' and 1": usesLocal,
	} {
		if got := nameUsed(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// Next passdbs that accept a name under other domains, or without one, open a way around the rules.
func TestNextPassdbNames(t *testing.T) {
	const (
		listen = "listen = [\"unix:/run/drawbridge/login.sock\", \"inet:127.0.0.1:8481\"]\nkey_file = \"/k\"\n"
		all    = "[login]\nunmanaged = \"next\"\nunmanaged_domains = [\"*\"]\n" + listen
		some   = "[login]\nunmanaged = \"next\"\nunmanaged_domains = [\"elsewhere.example\"]\n" + listen
		deny   = "[login]\n" + listen
		bare   = "default_domain = \"example.org\"\n"
	)
	file := func(driver string) string { return "driver = " + driver + "\n  args = FILE" }
	for name, c := range map[string]struct {
		passdb, file, settings string
		severity               Severity
		what                   string // "" if all is well
	}{
		"PAM, all pass":            {"driver = pam", "", all, Fail, "no rule of any domain applies"},
		"PAM, some pass":           {"driver = pam", "", some, Fail, "Drawbridge refuses such logins"},
		"PAM, none pass":           {"driver = pam", "", deny, Fail, "Drawbridge refuses such logins"},
		"PAM, their domain known":  {"driver = pam", "", all + bare, OK, ""},
		"shadow":                   {"driver = shadow", "", all, Fail, "system users, shadow"},
		"passwd-file, bare":        {file("passwd-file"), "# users\nann@example.org:{PLAIN}x\nbob:{PLAIN}y\n", all, Fail, "has some"},
		"passwd-file, addresses":   {file("passwd-file"), "# users\nann@example.org:{PLAIN}x\n", all, OK, ""},
		"passwd-file by local":     {"driver = passwd-file\n  args = username_format=%Ln FILE", "ann:x\n", all + bare, Fail, "local part alone (%Ln)"},
		"passwd-file by whole":     {"driver = passwd-file\n  args = username_format=%u FILE", "ann@example.org:x\n", all, OK, ""},
		"ldap by local":            {file("ldap"), "hosts = x\ndnpass = hunter2\npass_filter = (&(objectClass=posixAccount)(uid=%n))\n", all + bare, Fail, "local part alone ((&(objectClass=posixAccount)(uid=%n)))"},
		"ldap by whole":            {file("ldap"), "pass_filter = (mail=%u)\n", all + bare, OK, ""},
		"ldap, bind by local":      {file("ldap"), "auth_bind_userdn = uid=%Ln,ou=people\npass_filter = (mail=%u)\n", all + bare, Fail, "uid=%Ln"},
		"ldap, Dovecot's default":  {file("ldap"), "hosts = x\n", all + bare, OK, ""},
		"ldap, only named domains": {file("ldap"), "pass_filter = (uid=%n)\n", some + bare, Fail, "any domain of login.unmanaged_domains"},
		"ldap, none pass":          {file("ldap"), "pass_filter = (uid=%n)\n", deny + bare, OK, ""},
		"ldap, a comment":          {file("ldap"), "#pass_filter = (uid=%n)\n", all + bare, OK, ""},
		"ldap, unreadable":         {"driver = ldap\n  args = /nonexistent", "", all + bare, Warn, "cannot be read"},
		"sql by local":             {file("sql"), "connect = host=x password=hunter2\npassword_query = SELECT password \\\n  FROM users WHERE name = '%n'\n", all + bare, Fail, "FROM users"},
		"sql by both":              {file("sql"), "password_query = SELECT password FROM users WHERE name = '%n' AND domain = '%d'\n", all + bare, OK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "file"), c.file)
			text := strings.Replace(goodDovecot(), "driver = pam", strings.ReplaceAll(c.passdb, "FILE", path), 1)
			conf := dovecotOf(t, text)
			f := Dovecot(conf, settingsOf(t, c.settings))
			if c.what == "" {
				expectWell(t, f, 10)
				return
			}
			expect(t, f, c.severity, "dovecot.passdb.domain", "passdb", c.what)
			if strings.Contains(table(t, f), "hunter2") {
				t.Errorf("a secret is shown:\n%s", table(t, f))
			}
			conf.Domains = map[string]string{}
			if list := bad(Dovecot(conf, settingsOf(t, c.settings))); len(list) != 1 || strings.Contains(c.settings, "unmanaged") && c.what != "Drawbridge refuses such logins" && list[0].Severity != Warn {
				t.Errorf("without a domain:\n%s", table(t, list))
			}
		})
	}
	lose := dovecotOf(t, goodDovecot()+"auth_username_format = %Ln\n")
	expect(t, Dovecot(lose, settingsOf(t, all)), Fail, "dovecot.username_format", "auth_username_format", "lose their domain")
	expectWell(t, Dovecot(lose, settingsOf(t, all+bare)), 10)

	// Dovecot 2.4 has the filter and the query in the passdb.
	for passdb, what := range map[string]string{
		"passdb ldap {\n  filter = (uid=%{user | username})\n}\n":                                         "(uid=%{user | username})",
		"passdb sql {\n  query = SELECT password FROM users WHERE n = '%{user|username}'\n}\n":            "local part alone",
		"passdb passwd-file {\n  passwd_file_path = /x\n  auth_username_format = %{user | username}\n}\n": "local part alone",
	} {
		text := strings.Replace(recorded(t, "doveconf24-n.txt"), "passdb pam {\n}\n", passdb, 1)
		expect(t, Dovecot(parsed(t, text), settingsOf(t, all+bare)), Fail, "dovecot.passdb.domain", "passdb", what)
	}
}
