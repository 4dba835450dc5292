//go:build faults

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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
	must(os.Chmod(dir, 0o755))               //nolint:gosec // G302: Dovecot runs what is here
	must(os.Chmod(filepath.Dir(dir), 0o755)) //nolint:gosec // G302: and passes here
	for _, name := range []string{"drawbridge", "drawbridge-checkpassword"} {
		b, err := os.ReadFile(filepath.Join(bin, name))
		must(err)
		must(os.WriteFile(filepath.Join(dir, name), b, 0o755)) //nolint:gosec // G306: a program
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
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-overlay", filepath.Join(dir, "overlay.json"), //nolint:gosec // G204: words above
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
