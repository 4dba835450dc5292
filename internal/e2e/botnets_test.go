//go:build faults

package e2e

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// Ten thousand addresses guess once each, at five thousand accounts, through Dovecot behind a load balancer: that is
// noticed for their domain and not elsewhere, nobody is throttled, and users log in from addresses that they never
// used, meanwhile and afterwards.
func TestFaultsBotnet(t *testing.T) {
	const addresses, accounts = 10_000, 5000
	h := newHook(t)
	s := start(t, trialstack.Options{
		Lua: true, DovecotConf: "service imap-login {\n  service_count = 0\n}\n",
		Settings: map[string]any{"notify.webhook_url": h.URL, "notify.webhook_key_file": h.keyFile, "log.level": "warn"},
	})
	s.ctx = t.Context() // minutes, on a slow machine
	s.domain(nil)
	s.api("POST", "/v1/domains", object{"name": "example.net", "third_party_access": object{"allow": true}})
	login := func(ip, user, password string) string {
		c, err := trialstack.Balanced(netip.MustParseAddr(ip)).IMAP(s.ctx, s.BalancedIMAP())
		if err != nil {
			return err.Error()
		}
		defer func() { _ = c.Close() }()
		r, err := c.Login(user, password)
		if err != nil {
			return err.Error()
		}
		return r.Status
	}
	user := func(i int) string {
		if name := []string{ann, bob, carol, dave}; i%accounts < len(name) {
			return name[i%accounts]
		}
		return fmt.Sprintf("user%d@example.org", i%accounts)
	}
	began := time.Now() // without TLS, which is not what takes part
	var guesses sync.WaitGroup
	var next, odd atomic.Int64
	for range 128 { // Dovecot answers a failure after up to half a second
		guesses.Go(func() {
			for i := int(next.Add(1)); i <= addresses; i = int(next.Add(1)) {
				ip := fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)
				if r := login(ip, user(i), fmt.Sprint("wrong ", i)); len(r) < 3 || r[:3] != "NO " {
					if odd.Add(1) < 5 {
						t.Errorf("guess %d: %q", i, r)
					}
				}
			}
		})
	}
	for i := 0; next.Load() < addresses; i++ {
		name := []string{ann, bob, carol}[i%3]
		s.want(name+" meanwhile", login(fmt.Sprintf("198.51.100.%d", i%250+1), name, s.passwords[name]), "OK ")
		time.Sleep(time.Second) // as users do
	}
	guesses.Wait()
	t.Logf("%d guesses took %s", addresses, time.Since(began).Round(time.Second))

	data, _ := h.told(s.ctx, t, "distributed_guessing")["data"].(object)
	if data["addresses"].(float64) < 100 {
		t.Errorf("the hook was told %v", data)
	}
	list, _ := s.api("GET", "/v1/throttle", nil)["distributed"].([]any)
	if len(list) != 1 {
		t.Fatalf("listed: %v", list)
	}
	d := list[0].(object)
	t.Logf("estimated: %v addresses, %v accounts", d["addresses"], d["accounts"])
	if d["domain"] != "example.org" || d["addresses"].(float64) < 0.9*addresses || d["addresses"].(float64) > 1.1*addresses || d["accounts"].(float64) < 0.9*accounts {
		t.Errorf("listed: %v", d)
	}
	if n := s.metric("drawbridge_decisions_total", `reason="throttled"`); n != 0 {
		t.Errorf("%v logins were throttled", n)
	}
	if accounts, addresses := s.heldBack(0); len(accounts)+len(addresses) != 0 {
		t.Errorf("held back: %v, %v", accounts, addresses)
	}
	for name, ip := range map[string]string{ann: "203.0.113.5", bob: "203.0.113.6", dave: "203.0.113.7"} {
		s.want(name+" afterwards", login(ip, name, s.passwords[name]), "OK ")
	}
}
