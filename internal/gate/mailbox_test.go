package gate_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

// slow keeps a mailbox password as a slow hash.
func (d *daemon) slow(addr, password string) {
	d.t.Helper()
	hash, err := d.Hasher.Hash(context.Background(), []byte(password))
	if err != nil {
		d.t.Fatal(err)
	}
	d.account(addr, func(a *store.Account) { a.MailboxHash = hash })
}

// A wrong secret is hashed once: repeated, it is refused although nothing can be hashed any more.
func TestSameWrongSecretIsHashedOnce(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, nil)
	d.domain(nil)
	d.slow("ann@example.org", "right")
	phone := d.device("ann@example.org", "phone")
	d.revoke("ann@example.org", "phone")
	busy, cancel := context.WithCancel(context.Background())
	cancel() // every slow hash fails
	for account, wrong := range map[string]string{"ann@example.org": "deny bad_secret", "nobody@example.org": "deny unknown_account"} {
		d.want(imap(account, "last year's", home), wrong)
		for range 100 {
			if got := d.Login(busy, imap(account, "last year's", cafe)); end(got) != wrong {
				t.Fatalf("the same secret again at %s: %s", account, end(got))
			}
		}
		if got := d.Login(busy, imap(account, "another", home)); end(got) != "tempfail store_unavailable" {
			t.Errorf("another secret at %s: %s", account, end(got))
		}
	}
	d.want(imap("ann@example.org", phone, home), "deny revoked_secret")
	if got := d.Login(busy, imap("ann@example.org", phone, home)); end(got) != "deny revoked_secret" {
		t.Errorf("the revoked secret again: %s", end(got))
	}

	// A change of the password counts at once, in both directions.
	d.slow("ann@example.org", "last year's")
	d.want(imap("ann@example.org", "last year's", home), "allow ok")
	d.slow("ann@example.org", "right")
	d.want(imap("ann@example.org", "last year's", home), "deny bad_secret")
	d.want(imap("ann@example.org", "right", home), "allow ok")

	// It is forgotten after an hour.
	later := imap("ann@example.org", "last year's", home)
	later.Time = time.Now().Add(time.Hour)
	d.MaxStaleness = 2 * time.Hour
	if got := d.Login(busy, later); end(got) != "tempfail store_unavailable" {
		t.Errorf("an hour later: %s", end(got))
	}
}

// Of any number of guesses at once no more are verified than the throttle allows, because each
// waits for the one before it to be counted.
func TestGuessesAtOnceAreThrottled(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, nil)
	d.domain(nil)
	d.slow("ann@example.org", "right")
	for name, login := range map[string]func(i int) *access.Login{
		"at one account": func(i int) *access.Login {
			return imap("ann@example.org", fmt.Sprint("wrong", i), fmt.Sprint("10.0.0.", i))
		},
		"from one address": func(i int) *access.Login {
			return imap(fmt.Sprint("nobody", i, "@example.org"), "Summer2026", cafe)
		},
	} {
		ends := make(chan string, 40)
		var all sync.WaitGroup
		for i := range cap(ends) {
			all.Go(func() { ends <- end(d.Login(context.Background(), login(i))) })
		}
		all.Wait()
		close(ends)
		count := map[string]int{}
		for e := range ends {
			count[e]++
		}
		verified := count["deny bad_secret"] + count["deny unknown_account"]
		if limit := map[bool]int{true: 3, false: 5}[name == "at one account"]; verified != limit || count["deny throttled"] != cap(ends)-limit {
			t.Errorf("guesses %s ended as %v", name, count)
		}
	}
}

// A login that waited for its turn is decided by the rules and passwords as they are then.
func TestChangeDuringTheWait(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, func(o *gate.Options) {
		o.Throttle = throttle.Limits{PerAddress: 1000, PerAccount: 1000, Window: time.Hour}
	})
	d.domain(nil)
	d.slow("ann@example.org", "right")
	var all sync.WaitGroup
	var mu sync.Mutex
	changed := false
	for i := range 20 {
		all.Go(func() { d.Login(context.Background(), imap("ann@example.org", fmt.Sprint("wrong", i), home)) })
		all.Go(func() {
			mu.Lock()
			before := changed
			mu.Unlock()
			if got := d.Login(context.Background(), imap("ann@example.org", "right", home)); before && got.Outcome == access.Allow {
				t.Error("the old password opens the account after the change")
			}
		})
	}
	d.slow("ann@example.org", "changed")
	mu.Lock()
	changed = true
	mu.Unlock()
	all.Wait()
	d.want(imap("ann@example.org", "right", home), "deny bad_secret")
	d.want(imap("ann@example.org", "changed", home), "allow ok")
}

// An unknown account takes the time of the accounts of its domain. Bytes are a better measure than
// time on a busy machine: argon2 allocates what it works on.
func TestUnknownAccountCostsLikeKnownOnes(t *testing.T) {
	d := newSite(t).daemon(t, nil)
	d.domain(nil)
	allocated := func(account, secret string) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d.login(imap(account, secret, home))
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if n := allocated("nobody@example.org", "wrong"); n < 19<<20 || n > 30<<20 {
		t.Errorf("without any account a login allocates %d bytes, want those of a new hash", n)
	}
	const dovecots = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$WX/Pjc73wtw94um2HaMtcQ$pcE7iVRziu2rAuZRbF9vvL0AvKxinzPyFh1Wa74qYvw"
	d = newSite(t).daemon(t, nil)
	d.domain(nil)
	for i := range 3 {
		d.account(fmt.Sprint("ann", i, "@example.org"), func(a *store.Account) { a.MailboxHash = dovecots })
	}
	d.slow("bob@example.org", "right")
	for _, account := range []string{"ann1@example.org", "nobody@example.org"} {
		if n := allocated(account, "wrong"); n < 64<<20 || n > 80<<20 {
			t.Errorf("a login of %s allocates %d bytes, want those of Dovecot's hash", account, n)
		}
	}
}

// A secret that is too long for a mailbox password is recorded as such, and is no guess.
func TestSecretTooLong(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, nil)
	d.domain(nil)
	d.slow("ann@example.org", "right")
	for i := range 6 {
		got := d.want(imap("ann@example.org", strings.Repeat("x", 600+i), home), "deny bad_secret")
		if want := fmt.Sprintf("the secret has %d bytes: mailbox passwords kept here have at most 512", 600+i); got.Note != want {
			t.Fatalf("note %q, want %q", got.Note, want)
		}
	}
	if got := d.want(imap("ann@example.org", strings.Repeat("x", 512), home), "deny bad_secret"); got.Note != "" {
		t.Errorf("note %q", got.Note)
	}
	d.want(imap("nobody@example.org", strings.Repeat("x", 600), home), "deny unknown_account")
	d.want(imap("ann@example.org", "right", home), "allow ok")
}
