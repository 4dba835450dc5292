package e2e

import (
	"fmt"
	"strings"
	"sync"

	"github.com/drawbridge/drawbridge/internal/mailclient"
)

// hashing observes by the daemon's metrics which logins compute a slow hash: a wrong secret once,
// of many guesses at once no more than the throttle permits, and for an unknown account the hashes
// that the accounts of its domain take. Ann's password must be "a long enough phrase".
func (s *site) hashing() {
	s.t.Helper()
	hashes := func(labels ...string) float64 {
		return s.metric("drawbridge_hash_duration_seconds_count", labels...)
	}
	// growth returns by how much a metric grows while f runs.
	growth := func(metric func() float64, f func()) float64 {
		before := metric()
		f()
		return metric() - before
	}
	decided := func(reason string) func() float64 {
		return func() float64 { return s.metric("drawbridge_decisions_total", `reason="`+reason+`"`) }
	}
	all := func() float64 { return hashes() }

	// A phone that repeats its old password costs one hash.
	repeat := func() { s.refuse("a wrong secret", s.imap("127.0.8.20", ann, "last year's"), "OK ") }
	if n := growth(all, repeat); n != 1 {
		s.t.Errorf("a wrong secret took %v hashes, want 1", n)
	}
	if n := growth(decided("bad_secret"), func() {
		if n := growth(all, func() { repeat(); repeat(); repeat() }); n != 0 {
			s.t.Errorf("the same wrong secret again took %v hashes", n)
		}
	}); n != 3 {
		s.t.Errorf("%v logins were decided, want 3", n)
	}

	// Many guesses at once wait for each other, at one account as from one address, and nobody else
	// waits for them.
	s.api("PUT", "/v1/accounts/carl@example.org", object{})
	s.api("PUT", "/v1/accounts/carl@example.org/mailbox-password", object{"password": "one more long phrase"})
	for _, c := range []struct {
		what, reason string
		limit        float64
		from, user   func(i int) string
	}{
		{
			"at one account", "bad_secret", 10,
			func(i int) string { return fmt.Sprintf("127.0.8.%d", 100+i) },
			func(int) string { return "carl@example.org" },
		},
		{
			"from one address", "unknown_account", 12,
			func(int) string { return "127.0.8.21" },
			func(i int) string { return fmt.Sprintf("nobody%d@example.org", i) },
		},
	} {
		const guesses = 16
		var wg sync.WaitGroup
		var wrong []string
		var mu sync.Mutex
		throttled := 0.0
		verified := growth(decided(c.reason), func() {
			throttled = growth(decided("throttled"), func() {
				n := growth(all, func() {
					for i := range guesses {
						wg.Go(func() {
							r := s.guess(c.from(i), c.user(i), fmt.Sprint("guess", i))
							mu.Lock()
							defer mu.Unlock()
							if !strings.HasPrefix(r, "NO ") {
								wrong = append(wrong, r)
							}
						})
					}
					s.want("ann, beside guesses "+c.what, s.imap(outside, ann, "a long enough phrase"), "OK ")
					wg.Wait()
				})
				if n != c.limit+1 { // and ann's
					s.t.Errorf("%d guesses %s took %v hashes, want %v", guesses, c.what, n-1, c.limit)
				}
			})
		})
		if verified != c.limit || throttled != guesses-c.limit || len(wrong) > 0 {
			s.t.Errorf("of %d guesses %s %v were verified and %v throttled: %q", guesses, c.what, verified, throttled, wrong)
		}
	}

	// An unknown account takes the hashes that the accounts of its domain take.
	s.api("POST", "/v1/domains", object{"name": "example.net", "third_party_access": object{"allow": true}})
	for i := range 3 {
		account := fmt.Sprintf("/v1/accounts/user%d@example.net", i)
		s.api("PUT", account, object{})
		s.api("PUT", account+"/mailbox-password", object{"hash": "{BLF-CRYPT}$2y$10$O6gmaX0nvqonALn6wDpSMuKZrabubmHQ4arX7QZiNpuLQHyuf4uF6"})
	}
	for user, bcrypts := range map[string]float64{
		"user1@example.net": 1, "nobody@example.net": 1, "nobody@example.org": 0,
	} {
		of := func(scheme string) func() float64 {
			return func() float64 { return hashes(`scheme="` + scheme + `"`) }
		}
		argon2 := growth(of("argon2id"), func() {
			if n := growth(of("bcrypt"), func() { s.refuse(user, s.imap("127.0.8.22", user, "wrong"), "OK ") }); n != bcrypts {
				s.t.Errorf("%s: %v hashes by bcrypt, want %v", user, n, bcrypts)
			}
		})
		if argon2 != 1 { // of today's cost, which the old scheme does not reach
			s.t.Errorf("%s: %v hashes by argon2id, want 1", user, argon2)
		}
	}
}

// guess logs in by IMAP and returns the server's words, or the error. Goroutines may call it.
func (s *site) guess(from, user, password string) string {
	c, err := mailclient.Client{From: from}.IMAP(s.ctx, s.IMAP())
	if err != nil {
		return err.Error()
	}
	defer func() { _ = c.Close() }()
	if _, err := c.StartTLS(); err != nil {
		return err.Error()
	}
	r, err := c.Login(user, password)
	if err != nil {
		return err.Error()
	}
	return r.Status
}
