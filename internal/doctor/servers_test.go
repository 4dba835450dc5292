package doctor

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/contrib/dovecot"
	"github.com/drawbridge/drawbridge/contrib/postfix"
	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/listen"
)

// settingsOf is a daemon's settings from the text of its file.
func settingsOf(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse(strings.NewReader(text), "drawbridge.toml")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// site is what the shipped pieces of configuration expect of the daemon.
func site(t *testing.T) *config.Config {
	return settingsOf(t, `[login]
listen = ["unix:/run/drawbridge/login.sock?mode=0660&group=dovecot", "inet:127.0.0.1:8481"]
key_file = "/etc/drawbridge/login.key"
default_domain = "example.org"
`)
}

func listeners(t *testing.T, texts ...string) (specs []listen.Spec) {
	t.Helper()
	for _, text := range texts {
		s, err := listen.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		specs = append(specs, s)
	}
	return specs
}

func needs(t *testing.T, program, install string) {
	t.Helper()
	if _, err := find(program); err != nil {
		t.Fatalf("%v: apt-get install --no-install-recommends %s", err, install)
	}
}

func write(t *testing.T, file, text string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	settle(t, file)
	return file
}

// settle makes a file look old: Postfix reads one that is younger than a second again and again
// until it is older.
func settle(t *testing.T, file string) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
}

// dovecotSite is a Dovecot as an administrator has it, with the shipped piece in the place of
// %DRAWBRIDGE%.
const dovecotSite = `protocols = imap
ssl = no
mail_location = maildir:~/Maildir
%DRAWBRIDGE%
passdb {
  driver = passwd-file
  args = /etc/dovecot/masters
  master = yes
  result_success = continue
}
passdb {
  driver = pam
}
userdb {
  driver = passwd
}
auth_policy_server_api_header = Authorization: Bearer KEY
auth_policy_hash_nonce = nonce
`

func goodDovecot() string {
	return strings.Replace(dovecotSite, "%DRAWBRIDGE%", dovecot.Conf23(), 1)
}

// is24 reports whether the installed Dovecot is 2.4, whose doveconf does not read texts for 2.3.
func is24(t *testing.T) bool {
	t.Helper()
	needs(t, "doveconf", "dovecot-core dovecot-imapd")
	out, err := run(t.Context(), "dovecot", "--version")
	if err != nil {
		t.Fatal(err)
	}
	return version(string(out)).is24()
}

// only23 ends a test of what doveconf 2.3 does.
func only23(t *testing.T) {
	t.Helper()
	if is24(t) {
		t.Skip("this is about doveconf 2.3; Dovecot 2.4 is installed")
	}
}

// dovecotOf has the real doveconf read a text for Dovecot 2.3. Where 2.4 is installed, the text is
// parsed as it is: without defaults, included files and what doveconf refuses.
func dovecotOf(t *testing.T, text string) DovecotConf {
	t.Helper()
	if is24(t) {
		text = regexp.MustCompile(`(?m)^\s*(#|!include).*\n`).ReplaceAllString(text, "")
		text = regexp.MustCompile(`(= \d+)([MG])\b`).ReplaceAllString(text, "$1 $2") // as doveconf prints sizes
		conf := parsed(t, "# 2.3.19.1\n"+text)
		conf.Files = readPassdbFiles(conf.All)
		return conf
	}
	conf, err := readDovecot(t.Context(), write(t, filepath.Join(t.TempDir(), "dovecot.conf"), text))
	if err != nil {
		t.Fatal(err)
	}
	conf.File = "dovecot.conf"
	return conf
}

func goodMain() string {
	return "compatibility_level = 3.6\nmyhostname = mail.example.org\n" + postfix.MainCF()
}

func goodMaster() string {
	return "smtp inet n - y - - smtpd\n" + postfix.MasterCF() + `pickup unix n - y 60 1 pickup
cleanup unix n - y - 0 cleanup
127.0.0.1:10025 inet n - n - - smtpd
  -o smtpd_recipient_restrictions=permit_mynetworks,reject
  -o smtpd_milters=
`
}

// runPostconf has the real postconf read both texts.
func postfixOf(t *testing.T, main, master string) PostfixConf {
	t.Helper()
	needs(t, "postconf", "postfix")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "main.cf"), main)
	write(t, filepath.Join(dir, "master.cf"), master)
	return postconfDir(t, dir)
}

func postconfDir(t *testing.T, dir string) PostfixConf {
	t.Helper()
	conf, err := readPostfix(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	conf.Dir = "postfix"
	return conf
}

func runPostconf(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t.Context(), "postconf", args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// bad returns the findings that are not well.
func bad(f []Finding) (list []Finding) {
	for _, x := range f {
		if x.Severity != OK {
			list = append(list, x)
		}
	}
	return list
}

func expectWell(t *testing.T, f []Finding, least int) {
	t.Helper()
	for _, x := range bad(f) {
		t.Errorf("%v %s: %s: %s", x.Severity, x.Check, x.Where, x.What)
	}
	if len(f) < least {
		t.Errorf("%d findings, fewer than %d checks: %+v", len(f), least, f)
	}
}

// expect looks for one finding that is not well, and returns it. The place and the text are parts.
func expect(t *testing.T, f []Finding, severity Severity, check, where, what string) Finding {
	t.Helper()
	for _, x := range f {
		if x.Severity == severity && x.Check == check && strings.Contains(x.Where, where) && strings.Contains(x.What, what) {
			return x
		}
	}
	t.Fatalf("no %v %s at %q with %q in\n%s", severity, check, where, what, table(t, bad(f)))
	return Finding{}
}

func expectNone(t *testing.T, f []Finding, check string) {
	t.Helper()
	for _, x := range bad(f) {
		if x.Check == check {
			t.Errorf("%v %s: %s: %s", x.Severity, x.Check, x.Where, x.What)
		}
	}
}

func table(t *testing.T, f findings) string {
	t.Helper()
	var b strings.Builder
	if err := f.writeTable(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
