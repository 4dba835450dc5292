//go:build roundcube

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// wwwData is the user of Debian's web servers, and its group.
const wwwData = 33

// roundcube is Debian's Roundcube with the plugin, served by PHP in a root of its own.
type roundcube struct {
	t      *testing.T
	dir    string // of its configuration and data, seen from outside
	inside string // the same, seen from Roundcube
	origin string
}

func newRoundcube(t *testing.T) *roundcube {
	t.Helper()
	root := os.Getenv("DRAWBRIDGE_ROOT")
	if _, err := os.Stat(filepath.Join(root, "usr/share/roundcube/index.php")); root == "" || err != nil {
		t.Fatal(`DRAWBRIDGE_ROOT names no root with Roundcube: run "make test-roundcube"`)
	}
	dir, err := os.MkdirTemp(filepath.Join(root, "tmp"), "roundcube")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, wwwData, wwwData); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"defaults.inc.php", "mimetypes.php"} {
		if err := os.Symlink("/etc/roundcube/"+name, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return &roundcube{t: t, dir: dir, inside: "/tmp/" + filepath.Base(dir), origin: fmt.Sprintf("http://127.0.0.1:%d", freePort(t))}
}

// write writes a file that Roundcube may read.
func (r *roundcube) write(name, text string) {
	r.t.Helper()
	file := filepath.Join(r.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chown(file, 0, wwwData); err != nil {
		r.t.Fatal(err)
	}
}

// configure connects Roundcube to a site as its webmail.
func (r *roundcube) configure(s *site, key string) {
	r.write("key", key+"\n")
	r.write("config.inc.php", fmt.Sprintf(`<?php
$config['db_dsnw'] = 'sqlite:///%[1]s/db?mode=0640';
$config['imap_host'] = 'ssl://%[2]s';
$config['imap_conn_options'] = ['ssl' => ['verify_peer' => false, 'verify_peer_name' => false], 'socket' => ['bindto' => '%[3]s:0']];
$config['log_dir'] = $config['temp_dir'] = '%[1]s';
$config['des_key'] = '%[4]s';
$config['username_domain'] = 'example.org';
$config['plugins'] = ['drawbridge'];
`, r.inside, s.IMAPS(), webmail, rand.Text()[:24]))
	r.write("drawbridge.inc.php", fmt.Sprintf(`<?php
$config['drawbridge_url'] = '%s/';
$config['drawbridge_key_file'] = '%s/key';
`, s.Daemons[0].PagesURL(), r.inside))
}

// serve starts PHP's own web server and waits for it. A change of user clears the signal by which
// in-root.sh ends its processes: setpriv sets it again.
func (r *roundcube) serve(s *site) {
	r.t.Helper()
	script := `ln -sfn /src/contrib/roundcube/drawbridge /var/lib/roundcube/plugins/drawbridge &&
		exec setpriv --reuid=www-data --regid=www-data --clear-groups --pdeathsig=KILL env ROUNDCUBE_CONFIG_DIR="$1" php -S "$2" -t /var/lib/roundcube/public_html`
	ctx, cancel := context.WithCancel(s.ctx)
	cmd := exec.CommandContext(ctx, "../../contrib/trial/in-root.sh", os.Getenv("DRAWBRIDGE_ROOT"), "sh", "-c", script, "sh", r.inside, strings.TrimPrefix(r.origin, "http://"))
	log, err := os.Create(filepath.Join(r.dir, "php.log"))
	s.must(err)
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	s.must(cmd.Start())
	r.t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if r.t.Failed() {
			r.t.Logf("%s\n%s", r.log("php.log"), r.log("errors.log"))
		}
	})
	s.eventually("Roundcube's log-in page", func() bool {
		req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, r.origin, nil)
		s.must(err)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	})
}

// log returns a log, "" while there is none.
func (r *roundcube) log(name string) string {
	b, _ := os.ReadFile(filepath.Join(r.dir, name))
	return string(b)
}

// submit logs a browser in to Roundcube, and ends the test unless the answer has a status and a text.
func (r *roundcube) submit(b *browser, user, password string, status int, text string) {
	r.t.Helper()
	page := b.shows("Roundcube", b.get("/?_task=login"), 200, "login-form")
	b.shows("log-in to Roundcube", b.post("/?_task=login", "_token", b.field(page, "_token"), "_task", "login", "_action", "login", "_user", user, "_pass", password), status, text)
}

const (
	devicesTab = "/?_task=settings&_action=plugin.drawbridge"
	handOver   = devicesTab + "-handover"
)

var handoverForm = regexp.MustCompile(`(?s)<form id="drawbridge-handover".*?</form>`)

// press presses the tab's button and returns the form that Roundcube answers with.
func (r *roundcube) press(b *browser) (form answered, token string) {
	page := b.shows("the tab", b.get(devicesTab), 200, "Open devices and passwords")
	form = b.post(handOver, "_token", b.field(page, "_token"))
	found := handoverForm.FindString(form.text)
	if found == "" {
		r.t.Fatalf("no form: %d: %s", form.status, form.text)
	}
	return answered{form.status, form.path, found, form.header}, b.field(answered{text: found}, "token")
}

// A user of Debian's Roundcube opens the page of devices by the plugin, in a browser with scripts and
// without.
func TestRoundcube(t *testing.T) {
	r := newRoundcube(t)
	key := rand.Text() + rand.Text()
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, trialstack.Options{Settings: map[string]any{"console.handover_origin": r.origin, "console.handover_key_file": keyFile}})
	s.domain(nil)
	s.api("PUT", "/v1/accounts/"+ann, object{})
	r.configure(s, key)
	r.serve(s)
	base := s.Daemons[0].PagesURL()

	// ann's name has no domain: Roundcube adds it.
	b := s.at(r.origin)
	r.submit(b, "ann", s.passwords[ann], 200, "_task=logout")
	s.record("account="+ann+"&client=web", func(r object) bool { return r["protocol"] == "imap" && r["outcome"] == "allow" })
	b.shows("the settings", b.get("/?_task=settings"), 200, "Devices and passwords")

	// Roundcube's page of such an error has status 200.
	for what, p := range map[string]answered{
		"a link": b.get(handOver), "no request token": b.post(handOver, "x", "y"), "an empty form": b.post(handOver), "a wrong request token": b.post(handOver, "_token", "x"),
	} {
		b.shows(what, p, 200, "REQUEST CHECK FAILED")
		if handoverForm.MatchString(p.text) {
			t.Errorf("%s makes a token", what)
		}
	}
	nobody := s.at(r.origin)
	if p := nobody.shows("not logged in", nobody.post(handOver, "_token", "x"), 200, "login-form"); handoverForm.MatchString(p.text) {
		t.Error("nobody gets a token")
	}

	form, once := r.press(b)
	if want := `formmethod="post" formaction="` + base + `/account/handover"`; !strings.Contains(form.text, want) || strings.Contains(form.text, "_token") {
		t.Errorf("the form: %s", form.text)
	}
	if form.header.Get("Referrer-Policy") != "strict-origin" {
		t.Errorf("Referrer-Policy %q", form.header["Referrer-Policy"])
	}
	var claims struct {
		Sub      string
		Iat, Exp int64
	}
	body, err := base64.RawURLEncoding.DecodeString(strings.Split(once, ".")[1])
	s.must(err)
	s.must(json.Unmarshal(body, &claims))
	if claims.Sub != ann || claims.Exp-claims.Iat > 60 {
		t.Errorf("claims: %s", body)
	}

	evil := s.at(base)
	evil.header = http.Header{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}}
	evil.shows("another origin", evil.post("/account/handover", "token", once), 401, "The login was refused")
	u := s.at(base)
	u.header = http.Header{"Origin": {r.origin}, "Sec-Fetch-Site": {"cross-site"}}
	u.shows("handed over", u.post("/account/handover", "token", once), 200, "Logged in")
	u.shows("used twice", u.post("/account/handover", "token", once), 401, "The login was refused")
	u.header = http.Header{}
	u.shows("logged in", u.get("/account"), 200, "My devices")
	s.record("account="+ann+"&client=console", func(r object) bool { return r["mechanism"] == "HANDOVER" && r["outcome"] == "allow" })

	// A device's password must not open the page that makes further ones: declared webmail refuses it.
	_, secret := s.device(ann, "Phone")
	stolen := s.at(r.origin)
	r.submit(stolen, ann, secret, 401, "login-form")
	stolen.shows("not logged in", stolen.get(devicesTab), 200, "login-form")

	t.Run("browser", func(t *testing.T) { r.inBrowser(s.in(t)) })

	// Keys that are no keys: the user sees an error, the log says which, and neither has the key.
	fault := func(what, logged string) {
		t.Helper()
		page := b.get(devicesTab)
		answer := b.shows(what, b.post(handOver, "_token", b.field(page, "_token")), 200, "cannot be opened at the moment")
		if handoverForm.MatchString(answer.text) || !strings.Contains(r.log("errors.log"), logged) {
			t.Errorf("%s: no %q in %s", what, logged, r.log("errors.log"))
		}
	}
	short := key[:31]
	r.write("key", short+"\n")
	fault("a short key", "must hold one line of 32 bytes or more")
	r.write("key", key+"\n"+key)
	fault("two lines", "must hold one line of 32 bytes or more")
	r.write("key", key)
	s.must(os.Chmod(filepath.Join(r.dir, "key"), 0o644))
	fault("open to everyone", "is open to everyone")
	s.must(os.Remove(filepath.Join(r.dir, "key")))
	fault("no key", "cannot be read")
	if log := r.log("errors.log") + r.log("php.log"); strings.Contains(log, short) {
		t.Errorf("the key is logged: %s", log)
	}
	r.write("key", key)
	r.press(b)
}

// at returns a browser at another site.
func (s *site) at(base string) *browser {
	b := s.browse("127.0.0.1")
	b.base = base
	return b
}

// inBrowser presses the tab's button in chromium: scripts send the form, and the browser names its
// origin.
func (r *roundcube) inBrowser(s *site) {
	ctx := s.chromium()
	do := func(what string, actions ...chromedp.Action) {
		s.t.Helper()
		if err := chromedp.Run(ctx, actions...); err != nil {
			var text string
			_ = chromedp.Run(ctx, chromedp.Text("body", &text))
			s.t.Fatalf("%s: %v: %s", what, err, strconv.Quote(text))
		}
	}
	do("Roundcube", chromedp.Navigate(r.origin), chromedp.WaitVisible("#rcmloginuser"),
		chromedp.SendKeys("#rcmloginuser", ann+"\t"+s.passwords[ann]+"\r"), chromedp.WaitReady("#messagelist"))
	do("the tab", chromedp.Navigate(r.origin+devicesTab), chromedp.WaitVisible("#drawbridge-ask button"))
	do("handed over", chromedp.Click("#drawbridge-ask button"), chromedp.WaitVisible("#switch"))
	var at string
	do("the page", chromedp.Location(&at))
	if want := s.Daemons[0].PagesURL() + "/account"; at != want {
		s.t.Errorf("at %s, want %s", at, want)
	}
}
