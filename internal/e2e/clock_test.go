//go:build faults

package e2e

import (
	"encoding/base32"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/oauth2-proxy/mockoidc"
	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/factor"
	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// settable builds the commands so that the clock of drawbridged can be set: a Go program asks the
// kernel through its vDSO, which no library that is put in front of it sees, and a time namespace
// moves the monotonic clock alone. So time.Now of this build adds what a file says to the wall clock,
// and to it alone, as settimeofday does for all programs of a machine.
func settable(t *testing.T) (dir string, set func(d *trialstack.Daemon, ahead time.Duration)) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir = t.TempDir()
	must(os.Chmod(dir, 0o755))
	must(os.Chmod(filepath.Dir(dir), 0o755))
	for _, name := range []string{"drawbridge", "drawbridge-checkpassword"} {
		b, err := os.ReadFile(filepath.Join(bin, name))
		must(err)
		must(os.WriteFile(filepath.Join(dir, name), b, 0o755))
	}
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT", "GOMOD").Output()
	must(err)
	goroot, mod, _ := strings.Cut(strings.TrimSpace(string(root)), "\n")
	source := filepath.Join(goroot, "src", "time", "time.go")
	now, err := os.ReadFile(source)
	must(err)
	const reads = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(now), reads) != 1 {
		t.Fatalf("%s reads the clock in another way: adapt this test", source)
	}
	file := filepath.Join(dir, "ahead")
	overlay := map[string]string{}
	replace := func(path, text string) {
		at := filepath.Join(dir, fmt.Sprintf("overlay%d.go", len(overlay)))
		must(os.WriteFile(at, []byte(text), 0o600))
		overlay[path] = at
	}
	replace(source, strings.Replace(string(now), reads, reads+"\tsec += Ahead.Load()\n", 1))
	replace(filepath.Join(goroot, "src", "time", "ahead.go"), "package time\n\nimport \"sync/atomic\"\n\nvar Ahead atomic.Int64\n")
	replace(filepath.Join(filepath.Dir(mod), "cmd", "drawbridged", "ahead.go"), fmt.Sprintf(`package main

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func init() {
	set := func() {
		b, _ := os.ReadFile(%[1]q)
		n, _ := strconv.ParseInt(string(b), 10, 64)
		time.Ahead.Store(n)
		_ = os.WriteFile(%[2]q, b, 0o600)
	}
	set()
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR2)
	go func() {
		for range c {
			set()
		}
	}()
}
`, file, file+".done"))
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	must(err)
	must(os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-overlay", filepath.Join(dir, "overlay.json"),
		"-o", filepath.Join(dir, "drawbridged"), "./cmd/drawbridged")
	cmd.Dir = filepath.Dir(mod)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building drawbridged with another clock: %v: %s", err, out)
	}
	return dir, func(d *trialstack.Daemon, ahead time.Duration) {
		t.Helper()
		text := fmt.Sprint(int64(ahead / time.Second))
		must(os.WriteFile(file, []byte(text), 0o600))
		must(syscall.Kill(d.PID(), syscall.SIGUSR2))
		for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			if b, _ := os.ReadFile(file + ".done"); string(b) == text {
				return
			}
			if time.Since(begin) > 10*time.Second {
				t.Fatal("the clock is not set")
			}
		}
	}
}

// The wall clock of a running daemon is set ahead and back by more than every limit, with Redis and
// without: what is known goes on, what is refused or throttled stays so, and open sessions continue.
func TestFaultsOfAClock(t *testing.T) {
	dir, set := settable(t)
	s := start(t, trialstack.Options{Bin: dir, SharedRedis: true, SASLDoor: true, Settings: map[string]any{
		"throttle.wrong_secrets_per_account": 3, "login.next_passdb": false, "sasl.next": "",
	}})
	s.ctx = t.Context()
	d := s.Daemons[0]
	s.domain(nil)
	const carol, blocked, guesser = "carol@example.org", "127.0.9.50", "127.0.9.60"
	for _, a := range []string{ann, bob, carol} {
		s.api("PUT", "/v1/accounts/"+a, object{})
		s.api("PUT", "/v1/accounts/"+a+"/mailbox-password", object{"password": s.passwords[a]})
	}
	_, secret := s.device(ann, "phone")
	id, revoked := s.device(ann, "old phone")
	s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+id, nil)
	s.api("POST", "/v1/domains/example.org/ip-blocks?confirm=true", object{"network": blocked, "expires_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
	s.api("POST", "/v1/domains/example.org/mail-rules", object{
		"id": "few", "name": "few", "kind": "limit", "enabled": true, "mode": "enforce", "scope": object{"members": []string{bob}},
		"action": object{"messages_per_hour": 2, "then": "refuse"},
	})
	letter := func(from string) string { return "From: " + from + "\nSubject: x\n\nx\n" }
	submits := func(who, password string) *mailclient.SMTP {
		t.Helper()
		c, r := s.submit(outside, who, password)
		s.want("submission of "+who, r, "235 ")
		return c
	}
	phone, bobs := submits(ann, secret), submits(bob, s.passwords[bob])
	s.want("a message", s.send(phone, ann, carol, letter(ann)), "250 ")
	for range 2 {
		s.want("a message within the limit", s.send(bobs, bob, carol, letter(bob)), "250 ")
	}
	idle := s.idle("an open IMAP session", outside, ann, secret)
	for n := range 3 {
		s.refuse("a guess", s.imap(guesser, carol, fmt.Sprint("guess", n)), "OK ")
	}
	throttled := func() {
		t.Helper()
		s.refuse("the right password of a throttled account", s.imap(guesser, carol, s.passwords[carol]), "OK ")
	}
	throttled()

	holds := func(when string) {
		t.Helper()
		s.want(when+": imap", s.imap(outside, ann, secret), "OK ")
		s.want(when+": submission", s.smtp(outside, ann, secret), "235 ")
		s.refuse(when+": a revoked secret", s.imap(outside, ann, revoked), "OK ")
		s.refuse(when+": a revoked secret", s.smtp(outside, ann, revoked), "235 ")
		throttled()
		s.want(when+": a message of an open session", s.send(phone, ann, carol, letter(ann)), "250 ")
		if r := s.send(submits(bob, s.passwords[bob]), bob, carol, letter(bob)); strings.HasPrefix(r, "250 ") {
			t.Errorf("%s: a message beyond the limit: %s", when, r)
		}
		s.stays(idle)
	}
	inBlock := func() bool { return !strings.HasPrefix(s.imap(blocked, ann, secret), "OK ") }
	if !inBlock() {
		t.Error("the block is not in effect")
	}
	for _, away := range []bool{false, true} {
		if away {
			s.must(s.Redis.Kill())
			s.eventually("Redis is missed", func() bool { _, a := s.call(0, "GET", "/readyz", nil); return a["status"] == "degraded" })
		}
		for _, ahead := range []time.Duration{30 * time.Hour, -30 * time.Hour, 0} {
			set(d, ahead)
			holds(fmt.Sprintf("clock %s ahead, Redis away %t", ahead, away))
			s.eventually("the block is in effect until its time by the clock", func() bool { return inBlock() == (ahead <= 0) })
		}
	}
	set(d, -6*time.Hour)
	s.must(s.Redis.Restart(s.ctx))
	s.eventually("changes are accepted again", func() bool {
		status, _ := s.call(0, "PATCH", "/v1/accounts/"+bob, object{"suspended": false})
		return status < 300
	})

	// A password that was set while the clock was ahead opens submissions once it is set back.
	set(d, 6*time.Hour)
	s.eventually("changes are accepted", func() bool { // connections have deadlines by the clock of a moment ago
		status, _ := s.call(0, "PUT", "/v1/accounts/dave@example.org", object{})
		return status < 300
	})
	s.api("PUT", "/v1/accounts/dave@example.org/mailbox-password", object{"password": "of-the-future-2026"})
	set(d, 0)
	c := submits("dave@example.org", "of-the-future-2026")
	s.want("a message with a password of the future", s.send(c, "dave@example.org", bob, letter("dave@example.org")), "250 ")
	fmt.Printf("| %-34s | sessions, limits, throttles, blocks, staleness hold; 30 h ahead and back, with Redis and without |\n", "the clock is set")
}

// agesRedis makes all that expires in Redis expire so much earlier, as after Redis' own clock was set.
func (s *site) agesRedis(by time.Duration) {
	s.t.Helper()
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: s.RedisSocket()})
	defer func() { _ = client.Close() }()
	keys, err := client.Keys(s.ctx, "*").Result()
	s.must(err)
	for _, key := range keys {
		left, err := client.PTTL(s.ctx, key).Result()
		s.must(err)
		if left > 0 {
			s.must(client.PExpire(s.ctx, key, left-by).Err()) // what is not in the future is deleted
		}
	}
}

// ticking returns what sets the clocks of the daemon and of Redis later, and how far ahead they are.
func (s *site) ticking(set func(*trialstack.Daemon, time.Duration)) (later func(by time.Duration), ahead *time.Duration) {
	ahead = new(time.Duration)
	probe := s.browse(office)
	return func(by time.Duration) {
		s.t.Helper()
		*ahead += by
		set(s.Daemons[0], *ahead)
		s.agesRedis(by)
		s.eventually("connections to Redis have deadlines by the new clock", func() bool { return probe.get("/account/phone/x").status == 200 })
	}, ahead
}

// What is to end at a time ends then, on a running daemon whose clock and Redis' clock are set: it
// works a minute before, and not a second after. What is to be used once is refused the second time.
func TestFaultsOfExpiry(t *testing.T) {
	dir, set := settable(t)
	s := start(t, trialstack.Options{Bin: dir, SharedRedis: true, SASLDoor: true, Settings: map[string]any{"login.next_passdb": false, "sasl.next": ""}})
	s.ctx = t.Context()
	s.domain(nil)
	for _, a := range []string{ann, bob, carol} {
		s.api("PUT", "/v1/accounts/"+a, object{})
		s.api("PUT", "/v1/accounts/"+a+"/mailbox-password", object{"password": s.passwords[a]})
	}
	const soon, late = -time.Minute, time.Second // of a limit
	later, ahead := s.ticking(set)
	const out, in = "Mailbox password", "My devices"
	u := s.browse(outside)
	logIn := func(who string) answered {
		t.Helper()
		return u.post("/account/login", "account", who, "password", s.passwords[who])
	}
	device := func(as string, more ...string) answered {
		t.Helper()
		return u.post("/account/devices", append(more, "once", u.field(u.get("/account/devices/new"), "once"), "label", "phone", "as", as)...)
	}

	// Ten minutes: what asks for the password again.
	u.shows("log-in", logIn(ann), 200, in)
	later(10*time.Minute + soon)
	u.shows("a device", device("show"), 200, "shown only now")
	later(-soon + late)
	u.shows("after ten minutes", device("show"), 200, "Enter your password again")
	u.shows("with the password", device("show", "password", s.passwords[ann]), 200, "shown only now")
	later(10*time.Minute + soon)
	u.shows("it counts anew", device("show"), 200, "shown only now")

	// Half an hour without use, and twelve hours.
	later(30*time.Minute + soon)
	u.shows("used within half an hour", u.get("/account"), 200, in)
	later(30*time.Minute + late)
	u.shows("not used for half an hour", u.get("/account"), 200, out)
	u.shows("log-in", logIn(ann), 200, in)
	for range 24 {
		later(29 * time.Minute)
		u.shows("used all the time", u.get("/account"), 200, in)
	}
	later(12*time.Hour - 24*29*time.Minute + soon)
	u.shows("before twelve hours", u.get("/account"), 200, in)
	later(-soon + late)
	u.shows("after twelve hours", u.get("/account"), 200, out)

	// The console: the same, and the key again.
	a := s.administrator("admin", "")
	block := func() answered {
		return a.post("/domains/example.org/ip-blocks", "network", "198.51.100.7", "note", "abuse")
	}
	later(10*time.Minute + soon)
	a.shows("a change", block(), 200, "198.51.100.7")
	later(-soon + late)
	a.shows("after ten minutes", block(), 403, "needs your API key again")
	later(30*time.Minute + soon)
	a.shows("used within half an hour", a.get("/audit"), 200, "ip_block")
	later(30*time.Minute + late)
	a.shows("not used for half an hour", a.get("/audit"), 200, "API key of role")

	// A link for a phone: five minutes, once.
	u.shows("log-in", logIn(ann), 200, in)
	link := func() string {
		t.Helper()
		return phoneLink.FindStringSubmatch(device("link").text)[1]
	}
	const used = "This link was used, or it is older than five minutes"
	phone, late1, late2 := s.browse(outside), link(), link()
	later(5*time.Minute + soon)
	phone.shows("the link", phone.get(late1), 200, "sets up mail on this device, once")
	created := phone.shows("set up", phone.do("POST", late1, map[string][]string{"as": {"show"}}), 200, "shown only now")
	s.want("the phone", s.imap(outside, ann, shownSecret.FindStringSubmatch(created.text)[1]), "OK ")
	phone.shows("twice", phone.do("POST", late1, map[string][]string{"as": {"show"}}), 200, used)
	later(-soon + late)
	n := len(s.api("GET", "/v1/accounts/"+ann+"/secure-passwords", nil)["items"].([]any))
	phone.shows("after five minutes", phone.get(late2), 200, used)
	phone.shows("after five minutes", phone.do("POST", late2, map[string][]string{"as": {"show"}}), 200, used)
	if now := len(s.api("GET", "/v1/accounts/"+ann+"/secure-passwords", nil)["items"].([]any)); now != n {
		t.Errorf("a link that has expired made a device: %d, %d", n, now)
	}

	// A form that makes a device: an hour, if the session lasts.
	form := u.field(u.get("/account/devices/new"), "once")
	for range 3 {
		later(20 * time.Minute)
		u.shows("used", u.get("/account"), 200, in)
	}
	later(late)
	u.shows("the form", u.post("/account/devices", "once", form, "label", "late", "as", "show", "password", s.passwords[ann]), 200, "This form was sent before")

	// Codes: of an authenticator, sent ones, and the log-in that waits for them.
	u.shows("log-in", logIn(bob), 200, in)
	made := u.shows("an app", u.post("/account/factors/totp", "label", "phone"), 200, "Code that the app shows")
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(regexp.MustCompile(`id="totp">([^<]+)<`).FindStringSubmatch(made.text)[1])
	s.must(err)
	code := func() string { return factor.CodeAt(secret, factor.Step(time.Now().Add(*ahead))) }
	u.shows("confirmed", u.post(confirmPath.FindString(made.text), "code", code()), 200, "logins to this page ask for it")
	step := func() string {
		t.Helper()
		return u.field(u.shows("the password", logIn(bob), 200, "Your password was accepted"), "token")
	}
	waiting := step()
	later(5*time.Minute + soon)
	u.shows("within five minutes", u.post("/account/login/factor", "token", waiting, "code", code()), 200, in)
	u.shows("the token again", u.post("/account/login/factor", "token", waiting, "code", code()), 401, "The login has expired")
	waiting = step()
	later(5*time.Minute + late)
	u.shows("after five minutes", u.post("/account/login/factor", "token", waiting, "code", code()), 401, "The login has expired")
	old := code()
	later(time.Minute + late) // two steps, of which one is accepted
	u.shows("an old code", u.post("/account/login/factor", "token", step(), "code", old), 401, "The code is wrong, or was used before")
	right := code()
	u.shows("the code", u.post("/account/login/factor", "token", step(), "code", right), 200, in)
	u.shows("the code again", u.post("/account/login/factor", "token", step(), "code", right), 401, "The code is wrong, or was used before")
	later(time.Minute)
	u.shows("the next code", u.post("/account/login/factor", "token", step(), "code", code()), 200, in)
	seen := map[string]bool{}
	sent := func() (path, code string) {
		t.Helper()
		made := u.shows("an address", u.post("/account/factors/mail", "address", eve), 200, "A code was sent to e***@example.net")
		s.eventually("the code arrives", func() bool {
			messages, err := s.Inbox(eve)
			s.must(err)
			for _, m := range messages {
				if _, body, _ := strings.Cut(m, "\n\n"); strings.Contains(m, "\nSubject: Your code") && !seen[m] {
					seen[m], code = true, sentCode.FindString(body)
				}
			}
			return code != ""
		})
		return confirmPath.FindString(made.text), code
	}
	path, number := sent()
	later(10*time.Minute + late)
	u.shows("a code that was sent, after ten minutes", u.post(path, "code", number), 401, "The code is wrong, or was used before")
	u.shows("log-in", u.post("/account/login/factor", "token", step(), "code", code()), 200, in)
	path, number = sent()
	later(10*time.Minute + soon)
	u.shows("within ten minutes", u.post(path, "code", number), 200, "The second factor is in use")
}

// The same of log-ins that others verify, and of passkeys: what was begun, signed or asked for ends at
// its time, and is used once.
func TestFaultsOfExpiryElsewhere(t *testing.T) {
	dir, set := settable(t)
	provider := newSignOns(t)
	s := start(t, trialstack.Options{Bin: dir, SharedRedis: true, Settings: provider.settings})
	s.ctx = t.Context()
	s.domain(nil)
	for _, a := range []string{bob, carol} {
		s.api("PUT", "/v1/accounts/"+a, object{})
	}
	later, ahead := s.ticking(set)
	const late = time.Second // beyond a limit
	const out, in = "Mailbox password", "My devices"
	base := s.Daemons[0].PagesURL()
	at := func(from string) *browser {
		b := s.browse(from)
		b.base = base
		return b
	}

	// A token of the webmail: a minute, and five seconds of another clock.
	hand := at(outside)
	hand.header = http.Header{"Origin": {webmailOrigin}, "Sec-Fetch-Site": {"cross-site"}}
	token := func() string { return provider.token(s, base, carol, time.Now().Add(*ahead)) }
	used, soonOver, over := token(), token(), token()
	hand.shows("a token", hand.post("/account/handover", "token", used), 200, "Logged in")
	later(50 * time.Second) // the test needs some seconds itself
	hand.shows("within a minute", hand.post("/account/handover", "token", soonOver), 200, "Logged in")
	hand.shows("twice", hand.post("/account/handover", "token", used), 401, "The login was refused")
	later(15*time.Second + late)
	hand.shows("after a minute", hand.post("/account/handover", "token", over), 401, "The login was refused")
	hand.shows("a new one", hand.post("/account/handover", "token", token()), 200, "Logged in")

	// A log-in that was begun at the provider: ten minutes, once.
	begin := func() (b *browser, answer string) {
		t.Helper()
		provider.QueueUser(&mockoidc.MockUser{Subject: carol, Email: carol, EmailVerified: true})
		b = at(outside)
		follow := b.client.CheckRedirect
		b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		there := b.get("/account/oidc").header.Get("Location")
		answer = b.get(there).header.Get("Location")
		b.client.CheckRedirect = follow
		if !strings.HasPrefix(answer, base+"/account/oidc/callback?") {
			t.Fatalf("the provider sends the browser to %q", answer)
		}
		return b, answer
	}
	b, answer := begin()
	tooLate, answerTooLate := begin()
	waits := 10*time.Minute - 30*time.Second
	later(waits)
	provider.FastForward(*ahead)
	b.shows("within ten minutes", b.get(answer), 200, "Logged in")
	b.shows("logged in", b.get("/account"), 200, in)
	again := at(outside)
	again.shows("in another browser", again.get(answer), 401, "The login was refused")
	b.shows("twice", b.get(answer), 401, "The login was refused")
	later(10*time.Minute - waits + late)
	tooLate.shows("after ten minutes", tooLate.get(answerTooLate), 401, "The login was refused")
	tooLate.shows("not logged in", tooLate.get("/account"), 200, out)

	// A challenge of a passkey: five minutes, once; for a change and at a log-in.
	ctx := s.chromium()
	do := func(what string, actions ...chromedp.Action) {
		t.Helper()
		if err := chromedp.Run(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	do("a passkey", s.addsPasskey(bob)...)
	sign := func(c challenge) (response string) {
		t.Helper()
		do("the passkey", chromedp.Evaluate(asserts(c.Options), &response, awaitPromise))
		return response
	}
	u := at(outside)
	step := func() string {
		t.Helper()
		return u.field(u.shows("the password", u.post("/account/login", "account", bob, "password", s.passwords[bob]), 200, "Use a passkey"), "token")
	}
	waiting := step()
	c := u.challenge("/account/login/passkey", "token", waiting)
	response := sign(c)
	later(5*time.Minute - 30*time.Second)
	u.shows("within five minutes", u.post("/account/login/factor", "token", waiting, "challenge", c.ID, "credential", response), 200, in)
	u.shows("the response again", u.post("/account/login/factor", "token", step(), "challenge", c.ID, "credential", response), 401, "The code is wrong, or was used before")
	waiting = step()
	c = u.challenge("/account/login/passkey", "token", waiting)
	response = sign(c)
	later(5*time.Minute + late)
	u.shows("after five minutes", u.post("/account/login/factor", "token", waiting, "challenge", c.ID, "credential", response), 401, "The login has expired")
	u.shows("after five minutes, with a new log-in", u.post("/account/login/factor", "token", step(), "challenge", c.ID, "credential", response), 401, "The code is wrong, or was used before")

	waiting = step()
	c = u.challenge("/account/login/passkey", "token", waiting)
	u.shows("log-in", u.post("/account/login/factor", "token", waiting, "challenge", c.ID, "credential", sign(c)), 200, in)
	change := func(c challenge, response string) answered {
		t.Helper()
		return u.post("/account/devices", "once", u.field(u.get("/account/devices/new"), "once"), "label", "phone", "as", "show",
			"password", s.passwords[bob], "challenge", c.ID, "credential", response)
	}
	later(10*time.Minute + late)
	c = u.challenge("/account/passkey")
	response = sign(c)
	later(5*time.Minute - 30*time.Second)
	u.shows("a change within five minutes", change(c, response), 200, "shown only now")
	later(10*time.Minute + late)
	u.shows("with the response again", change(c, response), 401, "The passkey was not accepted")
	c = u.challenge("/account/passkey")
	response = sign(c)
	later(5*time.Minute + late)
	u.shows("after five minutes", change(c, response), 401, "The passkey was not accepted")
}

// A mailbox password that expires: its user is told 30, 14, 7 and 1 days before, by mail and by the
// webhook, and then refused with the reason, by a daemon whose clock is set and that starts again.
func TestFaultsOfPasswordAge(t *testing.T) {
	dir, set := settable(t)
	hook := newHook(t)
	s := start(t, trialstack.Options{Bin: dir, SharedRedis: true, Settings: map[string]any{
		"login.next_passdb": false, "notify.webhook_url": hook.URL, "notify.webhook_key_file": hook.keyFile,
	}})
	s.ctx = t.Context()
	d := s.Daemons[0]
	s.domain(object{"password_policy": object{"max_age": "60d"}})
	for _, a := range []string{ann, bob} {
		s.api("PUT", "/v1/accounts/"+a, object{})
		s.api("PUT", "/v1/accounts/"+a+"/mailbox-password", object{"password": s.passwords[a]})
	}
	const day = 24 * time.Hour
	posted := map[string]int{}
	for told, left := range []int{30, 14, 7, 1} {
		for _, soon := range []bool{true, false} { // the notices of a day are sent within the day before
			ahead := time.Duration(60-left) * day
			if soon {
				ahead -= day + time.Minute
			}
			set(d, ahead)
			s.must(d.Kill())
			s.must(d.Start(s.ctx))
			want := told
			if !soon {
				want++
			}
			for _, a := range []string{ann, bob} {
				s.eventually(fmt.Sprintf("%s is told by mail %d days before", a, left), func() bool {
					messages, err := s.Inbox(a)
					s.must(err)
					n := strings.Count(strings.Join(messages, "\n"), "\nSubject: Your password expires on ")
					if n > want {
						t.Fatalf("%s was told %d times by mail %v before: %d", a, n, ahead, left)
					}
					return n == want
				})
			}
		}
		for posted[ann] <= told || posted[bob] <= told {
			select {
			case n := <-hook.notices:
				if n["event"] != "password_expires" || n["signed"] != true || n["domain"] != "example.org" || n["data"].(object)["expires_at"] == nil {
					t.Errorf("posted: %v", n)
				}
				posted[n["account"].(string)]++
			case <-s.ctx.Done():
				t.Fatalf("the webhook was not told %d days before: %v", left, posted)
			}
		}
	}
	s.want("within its age", s.imap(outside, ann, s.passwords[ann]), "OK ")
	set(d, 60*day+time.Second)
	s.refuse("after it", s.imap(outside, ann, s.passwords[ann]), "OK ")
	s.record("account="+ann+"&reason=password_expired", func(r object) bool { return r["outcome"] == "deny" })
	u := s.browse(outside)
	u.shows("the page asks for a new one", u.post("/account/login", "account", ann, "password", s.passwords[ann]), 403, "Your mailbox password has expired. Choose a new one")
	if posted[ann] != 4 || posted[bob] != 4 || len(hook.notices) != 0 {
		t.Errorf("posted: %v, and %d more", posted, len(hook.notices))
	}
}

// A campaign enforces secure passwords by itself, on a running daemon whose clock passes its end: until
// then the mailbox password works, who uses it is seen and told; after it programs need a secure
// password, and sessions of the mailbox password end. A pause keeps that off until it is over.
func TestFaultsOfACampaign(t *testing.T) {
	dir, set := settable(t)
	hook := newHook(t)
	s := start(t, trialstack.Options{Bin: dir, SharedRedis: true, Settings: map[string]any{
		"notify.webhook_url": hook.URL, "notify.webhook_key_file": hook.keyFile,
	}})
	s.ctx = t.Context()
	d := s.Daemons[0]
	s.domain(nil)
	for _, a := range []string{ann, bob, carol} {
		s.api("PUT", "/v1/accounts/"+a, object{})
	}
	const day, policy, at = 24 * time.Hour, "/v1/domains/example.org/secure-password-policy", "/domains/example.org/secure-passwords"
	end := time.Now().Add(20 * day).UTC().Truncate(time.Minute)
	to := func(t time.Time) { set(d, time.Until(t)) }
	_, secret := s.device(bob, "phone")
	admin := s.administrator("admin", "")
	admin.shows("the campaign begins", admin.post(at, "enforced", "true", "all", "true", "mode", "enforce", "grace_until", end.Format("2006-01-02T15:04")), 200, "The requirement was set")
	state := func(want string) {
		t.Helper()
		s.eventually("the campaign is "+want, func() bool { return s.api("GET", policy, nil)["state"] == want })
	}
	state("grace")

	// Who uses the mailbox password, with which program and from where.
	c, err := mailclient.Client{From: outside}.IMAP(s.ctx, s.IMAP())
	s.must(err)
	_, err = c.StartTLS()
	s.must(err)
	_, err = c.ID("name", "Walnut", "version", "4.2")
	s.must(err)
	_ = s.idling("ann's program", c, ann, s.passwords[ann])
	s.record("account="+ann+"&outcome=allow", func(r object) bool { return toJSON(r["would_refuse"]) == `["secure-password-policy"]` })
	s.want("bob's phone", s.imap(outside, bob, secret), "OK ")
	s.want("carol's webmail", s.imap(webmail, carol, s.passwords[carol]), "OK ")
	s.record("account="+carol+"&outcome=allow", func(r object) bool { return r["client"] == "web" })
	progress := s.api("GET", policy+"/progress", nil)
	users, _ := progress["accounts"].([]any)
	if last := users[0].(object)["last_login"].(object); len(users) != 1 || users[0].(object)["address"] != ann || last["ip"] != outside || last["protocol"] != "imap" ||
		!strings.Contains(fmt.Sprint(last["client_id"]), "Walnut") || progress["in_scope"] != 3.0 || progress["ready"] != 1.0 {
		t.Errorf("the progress: %v", progress)
	}
	for _, text := range []string{ann, outside, "Walnut", "enforced at"} {
		admin.shows("its page", admin.get(at+"/progress"), 200, text)
	}
	if out := s.command("secure-password-policy", "progress", "example.org"); !strings.Contains(out, ann) || !strings.Contains(out, "Walnut") || !strings.Contains(out, outside) || strings.Contains(out, carol) {
		t.Errorf("the command: %s", out)
	}

	// Ann is told, and nobody else: 14, 7 and 1 days before.
	const subject = "\nSubject: Your mail program needs a secure password from "
	told := func(account string) int {
		t.Helper()
		messages, err := s.Inbox(account)
		s.must(err)
		return strings.Count(strings.Join(messages, "\n"), subject)
	}
	for n, left := range []int{14, 7, 1} {
		to(end.Add(-time.Duration(left) * day))
		s.must(d.Kill())
		s.must(d.Start(s.ctx))
		s.eventually(fmt.Sprintf("ann is told by mail %d days before", left), func() bool { return told(ann) == n+1 })
		for {
			notice := <-hook.notices
			if notice["event"] == "abnormal_login" {
				continue
			}
			data, _ := notice["data"].(object)
			last, _ := data["last_login"].(object)
			if notice["event"] != "secure_password_required" || notice["account"] != ann || notice["signed"] != true || data["from"] != end.Format(time.RFC3339) || last["ip"] != outside {
				t.Errorf("posted %d days before: %v", left, notice)
			}
			break
		}
	}
	if told(bob)+told(carol) != 0 {
		t.Errorf("told although they need not change anything: bob %d, carol %d", told(bob), told(carol))
	}

	letter := "From: " + ann + "\nSubject: x\n\nx\n"
	type opened struct {
		idle, phone, web open
		mail, mobile     *mailclient.SMTP
	}
	sends := func(what string, c *mailclient.SMTP, from, want string) {
		t.Helper()
		s.want(what, s.send(c, from, carol, strings.ReplaceAll(letter, ann, from)), want)
	}
	begins := func(when string) (o opened) {
		t.Helper()
		o.idle, o.phone, o.web = s.idle("ann's program", outside, ann, s.passwords[ann]), s.idle("bob's phone", office, bob, secret), s.idle("carol's webmail", webmail, carol, s.passwords[carol])
		var r string
		o.mail, r = s.submit(outside, ann, s.passwords[ann])
		s.want(when+": submission", r, "235 ")
		o.mobile, r = s.submit(office, bob, secret)
		s.want(when+": submission of bob's phone", r, "235 ")
		sends(when+": ann's message", o.mail, ann, "250 ")
		sends(when+": bob's message", o.mobile, bob, "250 ")
		return o
	}
	goesOn := func(when string, o opened) {
		t.Helper()
		s.stays(o.idle)
		sends(when+": ann's open submission", o.mail, ann, "250 ")
		_ = begins(when)
	}
	enforced := func(when string, o opened) {
		t.Helper()
		state("enforced")
		s.eventually(when+": imap is refused", func() bool { return !strings.HasPrefix(s.imap(outside, ann, s.passwords[ann]), "OK ") })
		s.record("account="+ann+"&reason=secure_password_required", func(r object) bool { return r["outcome"] == "deny" })
		s.refuse(when+": submission", s.smtp(outside, ann, s.passwords[ann]), "235 ")
		s.refuse(when+": bob's mailbox password", s.imap(outside, bob, s.passwords[bob]), "OK ")
		s.ends(o.idle)
		sends(when+": ann's open submission", o.mail, ann, "421 ")
		s.stays(o.phone)
		s.stays(o.web)
		sends(when+": bob's open submission", o.mobile, bob, "250 ")
		s.want(when+": bob's phone", s.imap(office, bob, secret), "OK ")
		s.want(when+": its submission", s.smtp(office, bob, secret), "235 ")
		s.want(when+": webmail", s.imap(webmail, carol, s.passwords[carol]), "OK ")
		u := s.browse(outside)
		u.shows(when+": the page on which ann makes a secure password", u.post("/account/login", "account", ann, "password", s.passwords[ann]), 200, "My devices")
	}

	before, after := end.Add(-5*time.Minute), end.Add(time.Second) // the clock goes on meanwhile
	to(before)
	o := begins("minutes before the end")
	s.command("secure-password-policy", "pause", "example.org")
	state("paused")
	to(after)
	goesOn("paused, after the end", o)
	state("paused")
	s.command("secure-password-policy", "resume", "example.org")
	enforced("resumed after the end", o)

	to(before) // as if it had not ended yet
	state("grace")
	s.eventually("the mailbox password works again", func() bool { return strings.HasPrefix(s.imap(outside, ann, s.passwords[ann]), "OK ") })
	s.command("secure-password-policy", "pause", "example.org")
	s.command("secure-password-policy", "resume", "example.org")
	o = begins("resumed before the end")
	to(after)
	enforced("by itself", o)
}
