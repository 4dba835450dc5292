package doctor

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// aSite lays out a whole site in a directory: both servers' configuration as shipped, a daemon, the
// program. It returns the options that name them, and the machine on which all belongs to whom it
// should.
func aSite(t *testing.T, a answers) (options, machine) {
	t.Helper()
	needs(t, "doveconf", "dovecot-core dovecot-imapd")
	needs(t, "postconf", "postfix")
	dir, settings := startDaemon(t, a)
	milter := settings[strings.Index(settings, "inet:127.0.0.1:"):]
	milter = milter[:strings.Index(milter, `"`)]
	program := filepath.Join(dir, programName)
	o := options{
		dovecot: filepath.Join(dir, "dovecot.conf"), postfix: filepath.Join(dir, "postfix"), settings: filepath.Join(dir, "drawbridge.toml"),
		api: "unix:" + filepath.Join(dir, "api.sock"),
	}
	if err := os.Mkdir(o.postfix, 0o700); err != nil {
		t.Fatal(err)
	}
	doveadm := filepath.Join(dir, "doveadm")
	write(t, doveadm, "#!/bin/sh\necho '[]'\n")
	if err := os.Chmod(doveadm, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, o.settings, settings+"\n[sessions]\ndoveadm = \"exec:"+doveadm+"\"\n")
	write(t, o.dovecot, strings.NewReplacer("args = "+shippedPath, "args = "+program+" -s "+filepath.Join(dir, "login.sock"),
		"auth_policy_server_url =", "# ", "passdb {\n  driver = pam\n}\n", "",
		"vsz_limit = 1G", "vsz_limit = 1G\n  unix_listener "+filepath.Join(dir, "auth.sock")+" {\n    mode = 0660\n  }").Replace(goodDovecot()))
	serve(t, "unix", filepath.Join(dir, "auth.sock"), func(net.Conn) {})
	write(t, filepath.Join(o.postfix, "main.cf"), strings.NewReplacer("unix:private/drawbridge,", "unix:"+filepath.Join(dir, "policy.sock")+",",
		"unix:private/drawbridge-milter", milter, "smtpd_sasl_path = private/auth", "smtpd_sasl_path = "+filepath.Join(dir, "auth.sock")).Replace(goodMain()))
	write(t, filepath.Join(o.postfix, "master.cf"), strings.NewReplacer("n - y", "n - n", "n       -       y", "n - n", "inet n      -       y", "inet n - n").Replace(goodMaster()))
	write(t, program, "")

	m := lonely(host(nil))
	m.stat = func(name string) (file, error) {
		f, err := statFile(name)
		f.uid, f.gid = 0, gidDovecot
		if strings.HasSuffix(name, ".sock") {
			f.uid, f.mode = uidDaemon, f.mode&^0o777|0o660
		} else {
			f.mode = f.mode&^0o777 | 0o755
		}
		if strings.HasSuffix(name, "policy.sock") || strings.HasSuffix(name, "auth.sock") {
			f.gid = gidPostfix
		}
		return f, err
	}
	return o, m
}

// privileged drops what is said to whoever runs the tests without being root.
func privileged(f findings) findings {
	if len(f) > 0 && f[0].Check == "doctor.privileges" {
		return f[1:]
	}
	return f
}

func TestExamine(t *testing.T) {
	only23(t)
	o, m := aSite(t, healthy)
	f, end := examine(t.Context(), o, m)
	if expectWell(t, privileged(f), 36); end != nil {
		t.Errorf("it ends with %d: %v", end.ExitStatus(), end)
	}
}

func TestExamineEnds(t *testing.T) {
	only23(t)
	for name, c := range map[string]struct {
		break_      func(*testing.T, *options)
		status      int
		severity    Severity
		check, what string
	}{
		"one check fails": {func(t *testing.T, o *options) {
			text, err := os.ReadFile(o.dovecot)
			if err != nil {
				t.Fatal(err)
			}
			write(t, o.dovecot, strings.Replace(string(text), "result_failure = return-fail", "", 1))
		}, exitFailed, Fail, "dovecot.passdb.results", "overrules"},
		"Dovecot elsewhere":       {func(_ *testing.T, o *options) { o.dovecot += ".none" }, 0, Warn, "doctor.dovecot", "not checked"},
		"Postfix elsewhere":       {func(_ *testing.T, o *options) { o.postfix += ".none" }, 0, Warn, "doctor.postfix", "not checked"},
		"no Dovecot as named":     {func(_ *testing.T, o *options) { o.dovecot, o.dovecotNamed = o.dovecot+".none", true }, exitFailed, Fail, "doctor.dovecot", "no such file"},
		"Dovecot cannot read it":  {func(t *testing.T, o *options) { write(t, o.dovecot, "nonsense = 1\n") }, exitFailed, Fail, "doctor.dovecot", "Unknown setting: nonsense"},
		"a configuration for 2.4": {func(t *testing.T, o *options) { write(t, o.dovecot, "dovecot_config_version = 2.4.0\n") }, exitFailed, Fail, "doctor.dovecot", "dovecot_config_version"},
		"no nonce":                {func(t *testing.T, o *options) { write(t, o.dovecot, "auth_policy_server_url = http://127.0.0.1/\n") }, exitFailed, Fail, "doctor.dovecot", "auth_policy_hash_nonce must be set"},
		"neither":                 {func(_ *testing.T, o *options) { o.dovecot += ".none"; o.postfix += ".none" }, exitUnreadable, Warn, "doctor.postfix", "not checked"},
		"no settings":             {func(_ *testing.T, o *options) { o.settings += ".none" }, exitFailed, Warn, "doctor.settings", "assume the default settings"}, // the sockets are others, then
		"no settings as named":    {func(_ *testing.T, o *options) { o.settings, o.settingsNamed = o.settings+".none", true }, exitFailed, Fail, "doctor.settings", "no such file"},
		"wrong settings":          {func(t *testing.T, o *options) { write(t, o.settings, "[login]\nunmanged = 1\n") }, exitFailed, Fail, "doctor.settings", "login.unmanged"},
		"no API":                  {func(_ *testing.T, o *options) { o.api += ".none" }, exitFailed, Fail, "daemon.ready", "api.sock.none"},
	} {
		t.Run(name, func(t *testing.T) {
			o, m := aSite(t, healthy)
			c.break_(t, &o)
			f, end := examine(t.Context(), o, m)
			expect(t, f, c.severity, c.check, "", c.what)
			switch {
			case end == nil && c.status != 0:
				t.Errorf("it ends well, not with %d:\n%s", c.status, table(t, f))
			case end != nil && end.ExitStatus() != c.status:
				t.Errorf("it ends with %d (%v), not with %d:\n%s", end.ExitStatus(), end, c.status, table(t, f))
			}
		})
	}
}

// execute runs the command below a root command like drawbridge's.
func execute(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	root := &cobra.Command{Use: "drawbridge", SilenceErrors: true, SilenceUsage: true}
	root.PersistentFlags().String("api", "unix:/nowhere/api.sock", "")
	root.PersistentFlags().StringP("output", "o", "table", "")
	root.AddCommand(Command())
	root.SetArgs(append([]string{"doctor"}, args...))
	var b bytes.Buffer
	root.SetOut(&b)
	err := root.ExecuteContext(t.Context())
	if end := new(Error); errors.As(err, &end) {
		return b.String(), end.ExitStatus()
	} else if err != nil {
		t.Fatal(err)
	}
	return b.String(), 0
}

func TestCommand(t *testing.T) {
	only23(t)
	o, _ := aSite(t, healthy)
	args := []string{"--dovecot-config", o.dovecot, "--postfix-config", o.postfix, "--config", o.settings, "--api", o.api}

	out, status := execute(t, append(args, "-o", "json")...)
	var report struct {
		Items              []Finding
		Failures, Warnings int
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	f := findings(report.Items)
	// The files of a test belong to whoever runs it and are not what Dovecot may use: these
	// findings are true.
	if status != exitFailed || report.Failures != f.count(Fail) || report.Warnings != f.count(Warn) || report.Failures == 0 {
		t.Errorf("status %d, %d failures, %d warnings in\n%s", status, report.Failures, report.Warnings, out)
	}
	for _, x := range f {
		if x.Severity == Fail && !strings.Contains("program login_socket.reach login_socket.mode policy_socket sasl_socket", x.Check) {
			t.Errorf("%+v", x)
		}
	}
	expect(t, f, OK, "daemon.ready", o.api, "is ready")

	out, _ = execute(t, args...)
	for _, part := range []string{"ok    dovecot.passdb.first ", "FAIL  program ", "\n          chmod 0755 ", "\nfailed: "} {
		if !strings.Contains(out, part) {
			t.Errorf("the table lacks %q:\n%s", part, out)
		}
	}

	for _, usage := range [][]string{{"more"}, {"-o", "yaml"}} {
		if out, status := execute(t, usage...); status != exitUsage || out != "" {
			t.Errorf("%v: status %d, %q", usage, status, out)
		}
	}
	gone := filepath.Join(t.TempDir(), "gone")
	if _, status := execute(t, "--dovecot-config", gone, "--postfix-config", gone, "--config", o.settings); status != exitUnreadable {
		t.Errorf("nothing can be read: status %d", status)
	}
}

func TestRun(t *testing.T) {
	if _, err := run(t.Context(), "sh", "-c", "echo first; echo 'x: Fatal: what is wrong' >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "run sh: x: Fatal: what is wrong") {
		t.Errorf("a failing program: %v", err)
	}
	if _, err := run(t.Context(), "no-such-program-here"); err == nil || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("a missing program: %v", err)
	}
	if _, err := run(t.Context(), "yes"); err == nil || !strings.Contains(err.Error(), "bytes of output") {
		t.Errorf("an endless program: %v", err)
	}
	t.Setenv("MAIL_CONFIG", "/nowhere")
	if out, err := run(t.Context(), "sh", "-c", "env"); err != nil || strings.Contains(string(out), "MAIL_CONFIG") {
		t.Errorf("the environment is handed on: %s%v", out, err)
	}
	t.Setenv("PATH", "/nowhere")
	if _, err := run(t.Context(), "sh", "-c", "exit 0"); err != nil {
		t.Errorf("a program outside of PATH: %v", err)
	}
}

func TestSeverityText(t *testing.T) {
	for _, s := range []Severity{Fail, Warn, OK} {
		text, err := s.MarshalText()
		var back Severity
		if err != nil || back.UnmarshalText(text) != nil || back != s {
			t.Errorf("%v is written as %q and read as %v", s, text, back)
		}
	}
	if new(Severity).UnmarshalText([]byte("fine")) == nil {
		t.Error("\"fine\" is a severity")
	}
}

// Where the package is installed, the lines to write have its paths.
func TestPackagePaths(t *testing.T) {
	f := findings{
		{Fix: passdbBlock(shippedPath)},
		{Fix: luaBlock24},
		{Fix: "[sasl]\nlisten = [\"unix:/var/spool/postfix/private/drawbridge-auth?mode=0660\"]\nnext = \"/var/spool/postfix/private/auth\""},
		{Fix: "unix:private/drawbridge, unix:private/drawbridge-milter"},
		{Fix: "smtpd_sasl_path = private/auth"},
	}
	f.usePackagePaths()
	for i, want := range []string{
		"args = /usr/lib/drawbridge/drawbridge-checkpassword\n", "lua_file = /usr/share/drawbridge/drawbridge.lua\n",
		"[sasl]\nlisten = [\"unix:/var/spool/postfix/drawbridge/auth?mode=0660\"]\nnext = \"/run/dovecot/auth-drawbridge\"",
		"unix:drawbridge/policy, unix:drawbridge/milter", "smtpd_sasl_path = private/auth",
	} {
		if !strings.Contains(f[i].Fix, want) {
			t.Errorf("%q has no %q", f[i].Fix, want)
		}
	}
}
