package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// Passwords of the demo accounts at the site's own passdb.
const (
	ann     = "ann@example.org"
	bob     = "bob@example.org"
	office  = "127.0.1.7"
	outside = trialstack.Outside
	webmail = trialstack.Webmail
)

var bin string

func TestMain(m *testing.M) {
	dir, err := trialstack.TempDir()
	if err == nil {
		bin, err = trialstack.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// A site waits more than it computes: "-parallel" overrides this.
	_ = flag.Set("test.parallel", "4")
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// site is a running mail site and its administrator.
type site struct {
	*trialstack.Stack
	t         *testing.T
	ctx       context.Context //nolint:containedctx // as long as its test
	passwords map[string]string
	key       string          // of the API; empty for root
	proof     string          // a second factor that requests carry
	shown     map[string]bool // commands that pages have shown; nil if nobody asks
}

type object = map[string]any

func start(t *testing.T, opts trialstack.Options) *site {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	dir, err := trialstack.TempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if opts.Bin == "" {
		opts.Bin = bin
	}
	if _, set := opts.Settings["notify.abnormal_logins"]; !set { // most tests count the messages of a mailbox
		opts.Settings = maps.Clone(opts.Settings)
		if opts.Settings == nil {
			opts.Settings = map[string]any{}
		}
		opts.Settings["notify.abnormal_logins"] = "report"
	}
	opts.DovecotConf += trialstack.QuickFailures
	stack, err := trialstack.New(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stack.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			logs(t, stack)
		}
	})
	if err := stack.Start(ctx); err != nil {
		t.Fatal(err)
	}
	s := &site{Stack: stack, t: t, ctx: ctx, passwords: map[string]string{}}
	for _, a := range stack.Accounts {
		s.passwords[a.Address] = a.Password
	}
	return s
}

// series is the installed Dovecot's, "2.3" or "2.4".
func series(t *testing.T) string {
	t.Helper()
	series, err := trialstack.DovecotSeries()
	if err != nil {
		t.Fatal(err)
	}
	return series
}

// bySeries returns what differs between Dovecot 2.3 and 2.4, for the installed one.
func bySeries(t *testing.T, on23, on24 string) string {
	t.Helper()
	if series(t) == "2.3" {
		return on23
	}
	return on24
}

// only ends a test of what exists in one series of Dovecot alone.
func only(t *testing.T, want, what string) {
	t.Helper()
	if got := series(t); got != want {
		t.Skipf("%s is tested with Dovecot %s; this is %s", what, want, got)
	}
}

// logs prints the ends of the servers' logs.
func logs(t *testing.T, stack *trialstack.Stack) {
	services := []*trialstack.Service{stack.Dovecot, stack.Postfix}
	for _, d := range stack.Daemons {
		services = append(services, d.Service)
	}
	for _, service := range services {
		if b, err := os.ReadFile(service.LogPath); err == nil {
			t.Logf("%s:\n%s", service.LogPath, b[max(0, len(b)-6000):])
		}
	}
}

// in returns the site for a subtest.
func (s *site) in(t *testing.T) *site {
	c := *s
	c.t = t
	return &c
}

// with returns the site as asked with an API key.
func (s *site) with(key string) *site {
	c := *s
	c.key = key
	return &c
}

// proving returns the site as asked with a second factor.
func (s *site) proving(otp string) *site {
	c := *s
	c.proof = otp
	return &c
}

// request sends a request to daemon n's API, as root or with the site's key.
func (s *site) request(n int, method, path string, body any) (*http.Response, error) {
	s.t.Helper()
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(s.ctx, method, "http://drawbridge"+path, r)
	if err != nil {
		s.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if s.proof != "" {
		req.Header.Set("Second-Factor", s.proof)
	}
	if s.key != "" {
		req.Header.Set("Authorization", "Bearer "+s.key)
	}
	return s.Daemons[n].HTTP().Do(req)
}

// try asks the first daemon, which may be away.
func (s *site) try(method, path string, body any) (status int, err error) {
	s.t.Helper()
	resp, err := s.request(0, method, path, body)
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	return resp.StatusCode, nil
}

// call asks daemon n's API as root and returns status and answer.
func (s *site) call(n int, method, path string, body any) (int, object) {
	s.t.Helper()
	resp, err := s.request(n, method, path, body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	answer := object{}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &answer); err != nil {
			s.t.Fatalf("%s %s: %d, and not JSON: %q", method, path, resp.StatusCode, b)
		}
	}
	return resp.StatusCode, answer
}

// api asks the first daemon and fails the test unless it succeeds.
func (s *site) api(method, path string, body any) object {
	s.t.Helper()
	status, answer := s.call(0, method, path, body)
	if status >= 300 {
		s.t.Fatalf("%s %s: %d %v", method, path, status, answer)
	}
	return answer
}

// metrics returns what the first daemon measures, in Prometheus' text format.
func (s *site) metrics() string {
	s.t.Helper()
	resp, err := s.request(0, "GET", "/metrics", nil)
	s.must(err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	s.must(err)
	return string(b)
}

// metric returns the sum of the series of a metric that have all the labels, such as `kind="known"`.
func (s *site) metric(name string, labels ...string) (sum float64) {
	s.t.Helper()
series:
	for line := range strings.Lines(s.metrics()) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, set, _ := strings.Cut(series, "{"); n == name {
			for _, label := range labels {
				if !strings.Contains(set, label) {
					continue series
				}
			}
			v, err := strconv.ParseFloat(value, 64)
			s.must(err)
			sum += v
		}
	}
	return sum
}

// refused asks the first daemon and fails the test unless it refuses so.
func (s *site) refused(status int, code, method, path string, body any) object {
	s.t.Helper()
	got, answer := s.call(0, method, path, body)
	if got != status || answer["code"] != code {
		s.t.Fatalf("%s %s: %d %v, want %d %s", method, path, got, answer, status, code)
	}
	return answer
}

// domain manages example.org with third-party clients allowed, and the demo's webmail known by its
// address.
func (s *site) domain(more object) {
	s.t.Helper()
	body := object{"name": "example.org", "third_party_access": object{"allow": true}}
	for k, v := range more {
		body[k] = v
	}
	s.api("POST", "/v1/domains", body)
	s.api("PUT", "/v1/client-types/web", object{"evidence": []object{{"networks": []string{webmail}}}})
}

func (s *site) device(account, label string) (id, secret string) {
	s.t.Helper()
	a := s.api("POST", "/v1/accounts/"+account+"/secure-passwords", object{"label": label})
	return a["id"].(string), a["secret"].(string)
}

// must ends the test when something went wrong that no test is about.
func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// answer logs in under TLS, hangs up and returns what the server said to the login.
func answer[R any](s *site, c io.Closer, startTLS func() (R, error), login func(user, password string) (R, error), user, password string) R {
	s.t.Helper()
	defer func() { _ = c.Close() }()
	_, err := startTLS()
	s.must(err)
	r, err := login(user, password)
	s.must(err)
	return r
}

// imap logs in and returns the server's words.
func (s *site) imap(from, user, password string) string {
	s.t.Helper()
	c, err := mailclient.Client{From: from}.IMAP(s.ctx, s.IMAP())
	s.must(err)
	return answer(s, c, c.StartTLS, c.Login, user, password).Status
}

func (s *site) pop3(from, user, password string) string {
	s.t.Helper()
	c, err := mailclient.Client{From: from}.POP3(s.ctx, s.POP3())
	s.must(err)
	return answer(s, c, c.StartTLS, c.Login, user, password)
}

func (s *site) sieve(from, user, password string) string {
	s.t.Helper()
	c, err := mailclient.Client{From: from}.Sieve(s.ctx, s.Sieve())
	s.must(err)
	return answer(s, c, c.StartTLS, c.Authenticate, user, password)
}

func (s *site) smtp(from, user, password string) string {
	s.t.Helper()
	c, r := s.submit(from, user, password)
	_ = c.Close()
	return r
}

// submit logs in at the submission service and keeps the session.
func (s *site) submit(from, user, password string) (*mailclient.SMTP, string) {
	s.t.Helper()
	c, r, err := mailclient.Client{From: from}.Login(s.ctx, s.Submission(), user, password)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c, r
}

// every protocol that a third-party client speaks, and how it says yes.
var doors = []struct {
	name  string
	login func(s *site, from, user, password string) string
	yes   string
}{
	{"imap", (*site).imap, "OK "},
	{"pop3", (*site).pop3, "+OK "},
	{"sieve", (*site).sieve, "OK "},
	{"smtp", (*site).smtp, "235 "},
}

func (s *site) want(what, got, prefix string) {
	s.t.Helper()
	if !strings.HasPrefix(got, prefix) {
		s.t.Errorf("%s: %q, want %q", what, got, prefix)
	}
}

func (s *site) refuse(what, got, yes string) {
	s.t.Helper()
	if strings.HasPrefix(got, yes) {
		s.t.Errorf("%s: admitted: %q", what, got)
	}
}

// eventually waits until a condition holds.
func (s *site) eventually(what string, f func() bool) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(20 * time.Second); !f(); <-tick.C {
		if time.Now().After(limit) {
			s.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// replicated waits until all daemons know the changes that the first one knows.
func (s *site) replicated() {
	s.t.Helper()
	want := s.api("GET", "/v1/store", nil)["changes"].(float64)
	for n := range s.Daemons {
		s.eventually(fmt.Sprintf("daemon %d knows %v changes", n, want), func() bool {
			_, a := s.call(n, "GET", "/v1/store", nil)
			known, _ := a["changes"].(float64)
			return known >= want
		})
	}
}

// logged waits until a server's log has all the texts.
func (s *site) logged(of *trialstack.Service, texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		s.eventually("the log has "+strconv.Quote(text), func() bool {
			log, err := os.ReadFile(of.LogPath)
			s.must(err)
			return bytes.Contains(log, []byte(text))
		})
	}
}

// record waits for the newest login record that a query selects and f accepts.
func (s *site) record(query string, f func(object) bool) object {
	s.t.Helper()
	var found object
	s.eventually("a login record of "+query, func() bool {
		for _, r := range s.api("GET", "/v1/domains/example.org/logins?"+query, nil)["items"].([]any) {
			if f(r.(object)) {
				found = r.(object)
				return true
			}
		}
		return false
	})
	return found
}
