package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/contrib/dovecot"
	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// A change made on one daemon holds on the other within a second; Redis stopped in mid-traffic:
// what was known goes on, changes get 503.
func TestTwoDaemonsAndAnAbsentRedis(t *testing.T) {
	s := start(t, trialstack.Options{Daemons: 2, SharedRedis: true})
	s.domain(nil)
	_, secret := s.device(ann, "phone")
	s.replicated()
	pw := s.passwords[ann]

	t.Run("a change holds everywhere", func(t *testing.T) {
		s := s.in(t)
		for i, on := range []bool{false, true, false, true} {
			begin := time.Now()
			if status, a := s.call(1, "PATCH", "/v1/accounts/"+ann, object{"protocols": object{"imap": on}}); status >= 300 {
				t.Fatalf("%d %v", status, a)
			}
			for strings.HasPrefix(s.imap(outside, ann, pw), "OK ") != on {
				if time.Since(begin) > time.Second {
					t.Fatalf("change %d does not hold on the first daemon after a second", i)
				}
			}
		}
	})
	t.Run("redis hangs, then is gone", func(t *testing.T) {
		s := s.in(t)
		pid := s.Redis.PID()
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		for _, d := range doors {
			s.want(d.name+" while redis hangs", d.login(s, outside, ann, secret), d.yes)
			s.want(d.name+" with the mailbox password", d.login(s, outside, ann, pw), d.yes)
			s.refuse(d.name+" with a wrong one", d.login(s, outside, ann, "wrong"), d.yes)
		}
		// Not acknowledged; Redis may still take it when it goes on.
		s.refused(503, "store_unavailable", "PATCH", "/v1/accounts/carol@example.org", object{"suspended": true})
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if err := s.Redis.Kill(); err != nil {
			t.Fatal(err)
		}
		s.want("while redis is gone", s.imap(outside, ann, secret), "OK ")
		s.refused(503, "store_unavailable", "PATCH", "/v1/accounts/"+bob, object{"suspended": true})
		if status, a := s.call(0, "GET", "/readyz", nil); status != 200 || !strings.Contains(toJSON(a), "degraded") {
			t.Errorf("readyz: %d %v", status, a)
		}
		if err := s.Redis.Restart(s.ctx); err != nil {
			t.Fatal(err)
		}
		s.eventually("changes are taken again, without a restart", func() bool {
			status, _ := s.call(0, "PATCH", "/v1/accounts/"+bob, object{"suspended": false})
			return status < 300
		})
		s.want("afterwards", s.imap(outside, ann, secret), "OK ")
		// What happened meanwhile is on record.
		s.record("account="+ann+"&outcome=deny", func(r object) bool { return r["reason"] == "bad_secret" })
	})
}

// kill -9 of the daemon and of its redis-server: back with every acknowledged change. A daemon that
// is away: temporary failures, never an admission.
func TestKills(t *testing.T) {
	// Without the milter, which would answer STARTTLS and AUTH with its own 4xx.
	s := start(t, trialstack.Options{MainCF: "smtpd_milters =\n"})
	s.domain(nil)
	d := s.Daemons[0]
	_, secret := s.device(ann, "phone")
	revoked, old := s.device(ann, "old phone")
	s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+revoked, nil)

	if err := syscall.Kill(d.RedisPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.want("with the embedded store just killed", s.imap(outside, ann, secret), "OK ")
	s.eventually("the embedded store is back", func() bool {
		status, _ := s.call(0, "PATCH", "/v1/accounts/"+ann, object{"departments": []string{}})
		return status < 300
	})

	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	s.want("imap without the daemon", s.imap(outside, ann, secret), "NO [UNAVAILABLE]")
	s.want("the mailbox password without the daemon", s.imap(outside, ann, s.passwords[ann]), "NO [UNAVAILABLE]")
	s.want("pop3", s.pop3(outside, ann, s.passwords[ann]), "-ERR [SYS/TEMP]")
	if passed := time.Since(begin); passed > 30*time.Second {
		t.Errorf("temporary failures took %s", passed)
	}
	// checkpassword withholds its answer until Postfix gives up. Lua cannot wait so long, and Postfix
	// makes every failure of Dovecot permanent.
	s.want("smtp through Dovecot", s.smtp(outside, ann, s.passwords[ann]), bySeries(t, "454 4.7.0 ", "535 5.7.8 "))
	c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.SMTP())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Hello(); err != nil {
		t.Fatal(err)
	}
	r, err := c.Mail("a@elsewhere.example")
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(r, "250 ") {
		if r, err = c.Recipient(ann); err != nil {
			t.Fatal(err)
		}
	}
	s.want("inbound mail waits, as configured", r, "451 ")

	if err := d.Start(s.ctx); err != nil {
		t.Fatal(err)
	}
	s.want("the live one, after the crash", s.imap(outside, ann, secret), "OK ")
	s.refuse("the revoked one, after the crash", s.imap(outside, ann, old), "OK ")
	s.want("the next passdb, after the crash", s.imap(outside, ann, s.passwords[ann]), "OK ")
}

// Nothing acknowledged is lost: changes go on while the embedded redis-server and the daemon are
// killed again and again.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	d := s.Daemons[0]
	acknowledged := map[string]bool{}
	n := 0
	change := func() bool {
		path := fmt.Sprintf("d%d", n)
		n++
		status, err := s.try("PUT", "/v1/domains/example.org/departments/"+path, object{"name": path})
		if err == nil && status < 300 {
			acknowledged[path] = true
			return true
		}
		return false
	}
	for round := range 6 {
		for range 20 {
			change()
		}
		begun := make(chan struct{})
		killed := make(chan error, 1)
		go func() { // in the middle of the changes below
			<-begun
			if round%3 == 2 {
				killed <- d.Kill()
			} else {
				killed <- syscall.Kill(d.RedisPID(), syscall.SIGKILL)
			}
		}()
		close(begun)
		for range 20 {
			change()
		}
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
		if round%3 == 2 {
			if err := d.Start(s.ctx); err != nil {
				t.Fatal(err)
			}
		}
		s.eventually("changes are taken again", change)
	}
	found := map[string]bool{}
	for _, item := range s.api("GET", "/v1/domains/example.org/departments?limit=1000", nil)["items"].([]any) {
		found[item.(object)["path"].(string)] = true
	}
	for path := range acknowledged {
		if !found[path] {
			t.Errorf("%s was acknowledged and is lost", path)
		}
	}
	if len(acknowledged) < 100 {
		t.Errorf("%d changes of %d were acknowledged: too few to tell", len(acknowledged), n)
	}
}

// The doctor finds nothing to mend in the site that the snippets make, and finds what makes it fail
// open.
func TestDoctor(t *testing.T) {
	t.Parallel()
	ipv4, err := filepath.Abs("testdata/ipv4.mmdb") // 198.51.100.0/24 is DE, nothing else is known
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, trialstack.Options{Settings: map[string]any{"regions.database": ipv4}})
	d := s.Daemons[0]
	examineAll := func(dovecotConf, postfixDir, settings string) (string, int) {
		cmd := d.Command(s.ctx, "doctor", "--dovecot-config", dovecotConf, "--postfix-config", postfixDir, "--config", settings)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	examine := func(dovecotConf string) (string, int) { return examineAll(dovecotConf, s.PostfixDir(), d.Config) }
	out, status := examine(s.DovecotConf())
	if status != 0 || !strings.Contains(out, "the milter can be left out") {
		t.Errorf("status %d:\n%s", status, out)
	}
	// The database of regions lacks a family, which everything that shows it says.
	s.logged(d.Service, "the database of regions has no IPv6 addresses")
	for text, want := range map[string]string{out: "it has no IPv6 addresses", s.command("region", "status"): "the database has no IPv6 addresses"} {
		if !strings.Contains(text, want) {
			t.Errorf("without %q:\n%s", want, text)
		}
	}
	s.domain(nil) // whose sender check reads headers
	if out, status = examine(s.DovecotConf()); status != 0 || !strings.Contains(out, "rules in force need the milter") {
		t.Errorf("with a domain, status %d:\n%s", status, out)
	}
	conf, err := os.ReadFile(s.DovecotConf())
	s.must(err)
	const include = "!include drawbridge.conf.ext"
	write := func(instead string) string {
		bad := s.DovecotConf() + ".bad"
		s.must(os.WriteFile(bad, []byte(strings.Replace(string(conf), include, instead, 1)), 0o600))
		return bad
	}
	for name, c := range map[string]struct{ instead, want string }{
		"a passdb before ours that admits everybody": {bySeries(t,
			"passdb {\n  driver = static\n  args = nopassword=y\n}\n",
			"passdb static {\n  fields {\n    nopassword = yes\n  }\n}\n") + include, "dovecot.passdb.first"},
		"the snippet for the other version": {bySeries(t, dovecot.Conf24(), dovecot.Conf23()), bySeries(t, "for 2.4", "for 2.3")},
		"a passdb of the other version":     {bySeries(t, "passdb lua {\n  lua_file = /x\n}\n", "passdb {\n  driver = checkpassword\n  args = /x\n}\n"), bySeries(t, "for 2.4", "for 2.3")},
		"no passdb of ours":                 {"", "dovecot.passdb.present"},
		"a checkpassword passdb by its 2.4 name": {
			"passdb checkpassword {\n" + bySeries(t, "  driver = checkpassword\n", "") + "}\n" + include,
			bySeries(t, "dovecot.passdb.first", "2.4"),
		},
		"a submission service that names no login": {include + bySeries(t,
			"\nprotocols = imap submission\nsubmission_relay_host = 127.0.0.1\n",
			"\nprotocols {\n  submission = yes\n}\nsubmission_relay_host = 127.0.0.1\n"), "without naming the login"},
	} {
		if out, status := examine(write(c.instead)); status != 1 || !strings.Contains(out, c.want) {
			t.Errorf("%s: status %d, without %q:\n%s", name, status, c.want, out)
		}
	}

	// Postfix asks another server for passwords, has another delimiter and runs more processes than
	// the daemon serves; Dovecot relays submissions to a port where nobody takes the login; a
	// directory looks accounts up by the local part alone, of every domain; the names that it gives
	// logins are not evaluated.
	postfix := t.TempDir()
	for _, name := range []string{"main.cf", "master.cf"} {
		text, err := os.ReadFile(filepath.Join(s.PostfixDir(), name))
		s.must(err)
		if name == "main.cf" {
			text = append(text, "recipient_delimiter = -\ndefault_process_limit = 500\nsmtpd_sasl_path = private/elsewhere\n"...)
		}
		s.must(os.WriteFile(filepath.Join(postfix, name), text, 0o600))
	}
	settings, err := os.ReadFile(d.Config)
	s.must(err)
	open := filepath.Join(t.TempDir(), "drawbridge.toml")
	s.must(os.WriteFile(open, bytes.Replace(settings, []byte("[login]\n"), []byte("[login]\nunmanaged = \"next\"\nunmanaged_domains = [\"*\"]\n"), 1), 0o600))
	ldap := writeFile(t, "hosts = localhost\npass_filter = (uid=%n)\n")
	sql := writeFile(t, "driver = sqlite\npassword_query = SELECT password FROM users WHERE local = '%n'\n")
	out, status = examineAll(write(include+"\nauth_policy_check_after_auth = no"+bySeries(t,
		"\nprotocols = imap submission\nsubmission_relay_trusted = yes\nsubmission_relay_host = 127.0.0.1\nsubmission_relay_port = 9\n"+
			"passdb {\n  driver = ldap\n  args = "+ldap+"\n}\npassdb {\n  driver = sql\n  args = "+sql+"\n}\n",
		"\nprotocols {\n  submission = yes\n}\nsubmission_relay_trusted = yes\nsubmission_relay_host = 127.0.0.1\nsubmission_relay_port = 9\n"+
			// Its settings of ldap are part of the module.
			"passdb passwd-file {\n  passwd_file_path = "+ldap+"\n  auth_username_format = %{user | username}\n}\n")), postfix, open)
	for _, want := range []string{
		"private/elsewhere", "ann-x@ is another account", "smtpd processes", "port 9, where no smtpd of this Postfix listens", "local part alone",
		"auth_policy_check_after_auth", bySeries(t, "password_query", "local part alone"),
	} {
		if status != 1 || !strings.Contains(out, want) {
			t.Errorf("status %d, without %q:\n%s", status, want, out)
		}
	}
}

// Documents vanish from Redis while its heads stay, as under eviction: what is known goes on,
// changes are refused, a daemon that starts believes nothing of it, and a repair brings all back.
func TestDamagedStore(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{Daemons: 2, SharedRedis: true})
	s.domain(nil)
	s.api("PATCH", "/v1/accounts/"+ann, object{"suspended": true})
	pw := s.passwords[ann]
	s.refuse("suspended", s.imap(outside, ann, pw), "OK ")

	redis := func(args ...string) string {
		out, err := exec.CommandContext(s.ctx, redistest.Client(t), append([]string{"-s", s.RedisSocket()}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("redis-cli %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	lost := 0
	for key := range strings.SplitSeq(redis("--raw", "KEYS", "drawbridge:*:docs"), "\n") {
		if redis("HDEL", key, "account/"+ann) == "1" {
			lost++
		}
	}
	if lost != 1 {
		t.Fatalf("%d documents of ann's were deleted", lost)
	}
	s.eventually("the loss is noticed", func() bool {
		_, a := s.call(0, "GET", "/readyz", nil)
		return a["status"] == "damaged"
	})
	if out := s.command("status"); !strings.Contains(out, "damaged") {
		t.Errorf("status: %s", out)
	}
	d := s.Daemons[0]
	out, err := d.Command(s.ctx, "doctor", "--dovecot-config", s.DovecotConf(), "--postfix-config", s.PostfixDir(), "--config", d.Config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the store is damaged") {
		t.Errorf("the doctor: %v\n%s", err, out)
	}
	s.refused(503, "damaged_store", "PATCH", "/v1/accounts/"+bob, object{"suspended": true})
	s.refuse("the suspension holds", s.imap(outside, ann, pw), "OK ")
	s.want("others log in", s.imap(outside, bob, s.passwords[bob]), "OK ")

	// A daemon that starts from its snapshot is as one that was there before.
	s.must(s.Daemons[0].Kill())
	s.must(s.Daemons[0].Start(s.ctx))
	s.refuse("the suspension holds after a restart", s.imap(outside, ann, pw), "OK ")
	s.want("others log in after a restart", s.imap(outside, bob, s.passwords[bob]), "OK ")

	// Without a snapshot it would let ann in if it believed what is there.
	s.must(s.Daemons[0].Kill())
	s.must(os.RemoveAll(filepath.Join(s.Daemons[0].StateDir, "snapshot")))
	started := make(chan error, 1)
	go func() { started <- s.Daemons[0].Start(s.ctx) }() // returns when it is ready, after the repair
	s.eventually("the daemon answers, and is not ready", func() bool {
		status, err := s.try("GET", "/readyz", nil)
		return err == nil && status == 503
	})
	for _, d := range doors {
		s.refuse(d.name+" at a daemon that believes nothing", d.login(s, outside, ann, pw), d.yes)
	}
	s.want("it is our fault, not a wrong password", s.imap(outside, bob, s.passwords[bob]), "NO [UNAVAILABLE]")

	// The other daemon was there before, and has all of it.
	if out, err := s.Daemons[1].Command(s.ctx, "store", "repair").CombinedOutput(); err != nil {
		t.Fatalf("store repair: %v: %s", err, out)
	}
	s.must(<-started)
	s.want("others log in again", s.imap(outside, bob, s.passwords[bob]), "OK ")
	s.refuse("the suspension is back", s.imap(outside, ann, pw), "OK ")
	s.api("PATCH", "/v1/accounts/"+ann, object{"suspended": false})
	s.want("and is lifted", s.imap(outside, ann, pw), "OK ")
}

// spooled returns the records and counters that a daemon keeps on disk.
func (s *site) spooled(d *trialstack.Daemon) string {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(d.StateDir, "spool", "0*"))
	s.must(err)
	var all strings.Builder
	for _, name := range files {
		if text, err := os.ReadFile(name); err == nil { // not yet delivered
			all.Write(text)
		}
	}
	return all.String()
}

// A daemon that starts without Redis decides from its snapshot: known credentials come in, revoked
// ones do not, changes are refused. When Redis is back it catches up by itself.
func TestStartWithoutRedis(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{Daemons: 2, SharedRedis: true})
	s.domain(nil)
	d := s.Daemons[0]
	_, secret := s.device(ann, "phone")
	revoked, old := s.device(ann, "old phone")
	seen, others := s.device(ann, "revoked on another daemon")
	s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+revoked, nil)
	s.eventually("the other daemon knows the device and revokes it", func() bool {
		status, _ := s.call(1, "DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+seen, nil)
		return status < 300
	})
	s.eventually("the other daemon's change holds", func() bool { return !strings.HasPrefix(s.imap(outside, ann, others), "OK ") })
	s.api("PATCH", "/v1/accounts/carol@example.org", object{"suspended": true})
	pw := s.passwords[ann]

	refused := 0  // logins of the suspended account
	for range 2 { // the second start is from the snapshot of the first
		s.must(d.Kill())
		if s.Redis.PID() != 0 {
			s.must(s.Redis.Kill())
		}
		s.must(d.Start(s.ctx))
		for _, door := range doors {
			s.want(door.name+" without redis", door.login(s, outside, ann, secret), door.yes)
			s.want(door.name+" without redis, with the mailbox password", door.login(s, outside, ann, pw), door.yes)
			s.refuse(door.name+" with a revoked one", door.login(s, outside, ann, old), door.yes)
			s.refuse(door.name+" with one that another daemon revoked", door.login(s, outside, ann, others), door.yes)
			s.refuse(door.name+" of a suspended account", door.login(s, outside, "carol@example.org", s.passwords["carol@example.org"]), door.yes)
		}
		s.refused(503, "store_unavailable", "PATCH", "/v1/accounts/"+bob, object{"suspended": true})
		if _, a := s.call(0, "GET", "/readyz", nil); a["status"] != "degraded" {
			t.Errorf("readyz: %v", a)
		}
		refused += len(doors)
		s.eventually("the records of these logins are on the disk", func() bool {
			return strings.Count(s.spooled(d), `"reason":"suspended"`) == refused
		})
	}
	for _, name := range []string{d.StateDir, filepath.Join(d.StateDir, "snapshot"), filepath.Join(d.StateDir, "spool")} {
		files, err := os.ReadDir(name)
		s.must(err)
		for _, f := range files {
			if f.IsDir() {
				continue
			}
			info, err := f.Info()
			text, reading := os.ReadFile(filepath.Join(name, f.Name()))
			err = errors.Join(err, reading)
			if errors.Is(err, fs.ErrNotExist) {
				continue // replaced since the listing
			}
			s.must(err)
			if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s/%s: %v", name, f.Name(), info.Mode())
			}
			for _, clear := range []string{secret, strings.ReplaceAll(secret, "-", ""), strings.ReplaceAll(secret, " ", ""), old, pw} {
				if strings.Contains(string(text), clear) {
					t.Errorf("%s/%s has a secret in clear", name, f.Name())
				}
			}
		}
	}

	s.must(s.Redis.Restart(s.ctx))
	s.eventually("changes are taken again, without a restart", func() bool {
		status, _ := s.call(0, "PATCH", "/v1/accounts/"+bob, object{"suspended": false})
		return status < 300
	})
	s.eventually("the spool is delivered", func() bool { return s.spooled(d) == "" })
	if n := len(s.api("GET", "/v1/domains/example.org/logins?account=carol@example.org&reason=suspended&limit=100", nil)["items"].([]any)); n != refused {
		t.Errorf("%d records of the suspended account, of %d logins before two kills", n, refused)
	}
	s.api("PATCH", "/v1/accounts/carol@example.org", object{"suspended": false})
	s.want("a change of today", s.imap(outside, "carol@example.org", s.passwords["carol@example.org"]), "OK ")
	s.refuse("a revoked one, afterwards", s.imap(outside, ann, old), "OK ")

	// A snapshot that is damaged, or of another store, is named and not used.
	s.must(d.Kill())
	s.must(s.Redis.Kill())
	file := filepath.Join(d.StateDir, "snapshot", "snapshot")
	good, err := os.ReadFile(file)
	s.must(err)
	marker := filepath.Join(d.StateDir, "store-id")
	id, err := os.ReadFile(marker)
	s.must(err)
	for what, c := range map[string]struct {
		snapshot, id []byte
		want         string
	}{
		"cut off":       {good[:len(good)-1], id, "snapshot: it is cut off"},
		"altered":       {append([]byte("x"), good[1:]...), id, "it is no file of a snapshot"},
		"another store": {good, []byte(strings.Repeat("0", 32) + "\n"), "known is 00000000"},
	} {
		s.must(os.WriteFile(file, c.snapshot, 0o600))
		s.must(os.WriteFile(marker, c.id, 0o600))
		log, err := trialstack.Follow(d.LogPath)
		s.must(err)
		ctx, cancel := context.WithCancel(s.ctx)
		started := make(chan error, 1)
		go func() { started <- d.Start(ctx) }() // it is not ready
		s.eventually(what+": the daemon answers, and is not ready", func() bool {
			status, err := s.try("GET", "/readyz", nil)
			return err == nil && status == 503
		})
		s.want(what+": a temporary failure", s.imap(outside, ann, secret), "NO [UNAVAILABLE]")
		_, err = log.Wait(s.ctx, regexp.MustCompile(regexp.QuoteMeta(c.want)))
		s.must(err)
		cancel()
		<-started
		_ = d.Kill()
	}
}

// A Redis that may delete rules raises an alarm on a running daemon, and is refused at the start
// unless a setting accepts it.
func TestEvictingRedis(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{SharedRedis: true})
	s.domain(nil)
	d := s.Daemons[0]
	policy := func(policy string) {
		t.Helper()
		out, err := exec.CommandContext(s.ctx, redistest.Client(t), "-s", s.RedisSocket(), "CONFIG", "SET", "maxmemory-policy", policy).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	readyz := func(status string) {
		t.Helper()
		s.eventually("readyz says "+status, func() bool {
			_, a := s.call(0, "GET", "/readyz", nil)
			return a["status"] == status
		})
	}
	doctor := func() (string, int) {
		t.Helper()
		cmd := d.Command(s.ctx, "doctor", "--dovecot-config", s.DovecotConf(), "--postfix-config", s.PostfixDir(), "--config", d.Config)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}

	policy("allkeys-lru")
	readyz("evicting")
	if out, status := doctor(); status != 1 || !strings.Contains(out, "store.eviction") || !strings.Contains(out, "redis-cli CONFIG SET maxmemory-policy noeviction") {
		t.Errorf("doctor: status %d:\n%s", status, out)
	}
	if out, err := d.Command(s.ctx, "status").CombinedOutput(); err != nil || !strings.Contains(string(out), "allkeys-lru") {
		t.Errorf("status: %v:\n%s", err, out)
	}
	metrics, err := s.request(0, "GET", "/metrics", nil)
	s.must(err)
	text, err := io.ReadAll(metrics.Body)
	s.must(errors.Join(err, metrics.Body.Close()))
	if !strings.Contains(string(text), "drawbridge_store_evicting 1\n") {
		t.Error("the metrics raise no alarm")
	}
	s.logged(d.Service, "Redis deletes rules when its memory is full")
	s.want("logins continue", s.imap(outside, ann, s.passwords[ann]), "OK ")
	s.api("PATCH", "/v1/accounts/"+bob, object{"suspended": false})
	policy("noeviction")
	readyz("ok")
	if out, status := doctor(); status != 0 {
		t.Errorf("doctor afterwards: status %d:\n%s", status, out)
	}

	policy("allkeys-lru")
	s.must(d.Kill())
	if err := d.Start(s.ctx); err == nil || !strings.Contains(err.Error(), "store.accept_eviction = true") || !strings.Contains(err.Error(), "allkeys-lru") {
		t.Errorf("it starts: %v", err)
	}
	settings, err := os.ReadFile(d.Config)
	s.must(err)
	accepting := strings.Replace(string(settings), "[store]\n", "[store]\naccept_eviction = true\n", 1)
	s.must(os.WriteFile(d.Config, []byte(accepting), 0o600))
	s.must(d.Start(s.ctx))
	readyz("ok")
	s.want("logins with an accepted policy", s.imap(outside, ann, s.passwords[ann]), "OK ")
	if out, status := doctor(); status != 0 || !strings.Contains(out, "store.accept_eviction accepts") {
		t.Errorf("doctor with an accepted policy: status %d:\n%s", status, out)
	}
}

// The maxmemory-policy of a Redis that is away at the start, or does not answer INFO, is checked as
// soon as that changes.
func TestUnknownEviction(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "maxmemory-policy allkeys-lru", "user default on nopass ~* &* +@all -info")
	redis.Kill()
	d := &lone{t: t, dir: t.TempDir()}
	d.settings(redis.Socket)
	const unknown = "the maxmemory-policy of Redis is not known"
	d.run()
	d.eventually("the log says that the policy is not known", func() bool { return strings.Contains(d.log.String(), unknown) })
	redis.Restart()
	d.eventually("the log says that INFO is refused", func() bool { return strings.Contains(d.log.String(), "NOPERM") })
	if out, err := exec.CommandContext(t.Context(), redistest.Client(t), "-s", redis.Socket, "ACL", "SETUSER", "default", "+info").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	d.eventually("the policy is an alarm", func() bool {
		_, m := d.call("GET", "/readyz", "")
		return m["status"] == "evicting"
	})
	if n := strings.Count(d.log.String(), unknown); n != 2 {
		t.Errorf("said %d times that the policy is not known", n)
	}
}
