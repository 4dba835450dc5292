package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// guessed tries a wrong password of each of many accounts in turn, each from an address of its own.
func (s *site) guessed(addresses int) {
	s.t.Helper()
	var guesses sync.WaitGroup
	next := make(chan int)
	for range 4 {
		guesses.Go(func() {
			for i := range next {
				status, answer := s.call(0, "POST", "/v1/login", object{
					"account": fmt.Sprintf("user%d@example.org", i%500), "secret": fmt.Sprint("wrong ", i), "protocol": "imap", "ip": fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255),
				})
				if status != http.StatusOK || answer["outcome"] != "deny" {
					s.t.Errorf("guess %d: %d %v", i, status, answer)
				}
			}
		})
	}
	for i := range addresses {
		next <- i
	}
	close(next)
	guesses.Wait()
}

// told returns a notice of an event.
func (h *hook) told(ctx context.Context, t *testing.T, event string) object {
	t.Helper()
	for {
		select {
		case notice := <-h.notices:
			if notice["event"] == event {
				return notice
			}
		case <-ctx.Done():
			t.Fatalf("the hook did not receive %s", event)
		}
	}
}

// A botnet of hundreds of addresses with one guess each is noticed for its domain, and nobody is shut
// out of Dovecot. TestFaultsBotnet has ten thousand.
func TestBotnet(t *testing.T) {
	t.Parallel()
	h := newHook(t)
	s := start(t, trialstack.Options{Settings: map[string]any{
		"notify.webhook_url": h.URL, "notify.webhook_key_file": h.keyFile, "login.next_passdb": false, "throttle.wrong_secrets_per_account": 100,
	}})
	s.domain(nil)
	s.api("PUT", "/v1/accounts/"+ann, object{})
	s.api("PUT", "/v1/accounts/"+ann+"/mailbox-password", object{"password": s.passwords[ann]})
	s.guessed(400)
	notice := h.told(s.ctx, t, "distributed_guessing")
	data, _ := notice["data"].(object)
	if notice["signed"] != true || notice["domain"] != "example.org" || data["addresses"].(float64) < 100 {
		t.Errorf("the hook was told %v", notice)
	}
	list, _ := s.api("GET", "/v1/throttle", nil)["distributed"].([]any)
	if len(list) != 1 || list[0].(object)["addresses"].(float64) < 300 || list[0].(object)["accounts"].(float64) < 300 {
		t.Errorf("listed: %v", list)
	}
	if n := s.metric("drawbridge_distributed_guessing"); n != 1 {
		t.Errorf("%v domains are measured", n)
	}
	s.want("ann from an address that she never used", s.imap(outside, ann, s.passwords[ann]), "OK ")
}

// With throttle.distributed = "known", a mailbox password is accepted only from addresses that the
// account is used from, while it lasts. A secure password is accepted from everywhere, and other domains
// are as they were.
func TestBotnetKnownOnly(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{Settings: map[string]any{
		"login.next_passdb": false, "throttle.distributed_addresses": 20, "throttle.distributed": "known",
	}})
	s.domain(nil)
	for _, account := range []string{ann, bob} {
		s.api("PUT", "/v1/accounts/"+account, object{})
		s.api("PUT", "/v1/accounts/"+account+"/mailbox-password", object{"password": s.passwords[account]})
	}
	_, phone := s.device(ann, "phone")
	s.want("ann at the office", s.imap(office, ann, s.passwords[ann]), "OK ")
	s.guessed(40)
	s.eventually("the domain is under it", func() bool { return s.metric("drawbridge_distributed_guessing") == 1 })
	s.want("ann where she was", s.imap(office, ann, s.passwords[ann]), "OK ")
	s.refuse("ann elsewhere", s.imap(outside, ann, s.passwords[ann]), "OK ")
	s.refuse("bob, who was nowhere yet", s.imap(office, bob, s.passwords[bob]), "OK ")
	r := s.record("account="+ann+"&ip="+outside, func(object) bool { return true })
	if r["outcome"] != "deny" || r["reason"] != "throttled" {
		t.Errorf("ann elsewhere: %v", r)
	}
	s.want("ann's phone elsewhere", s.imap(outside, ann, phone), "OK ")
	if text := s.command("throttle"); !strings.Contains(text, "distributed guessing at example.org") {
		t.Errorf("the command does not say so:\n%s", text)
	}
}
