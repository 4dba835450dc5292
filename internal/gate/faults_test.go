package gate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

// Where decisions are not possible every door says so, and no look-up bounces.
func wantUnavailable(t *testing.T, d *daemon, secret string, at time.Time) {
	t.Helper()
	for what, l := range map[string]*access.Login{
		"with a secure password":   imap("ann@example.org", secret, home),
		"with a wrong password":    imap("ann@example.org", "wrong", home),
		"of an unknown account":    imap("nobody@example.org", "wrong", home),
		"of a domain not managed":  imap("eve@other.example", "wrong", home),
		"of no address":            imap("no address", "wrong", home),
		"by submission":            smtp("ann@example.org", secret, home),
		"of a master":              {Account: "ann@example.org", Service: "imap", MasterUser: "admin", IP: ip(home)},
		"with a hidden secret":     {Account: "ann@example.org", Service: "imap", Lookup: access.LookupCredentials, Mechanism: "SCRAM-SHA-256"},
		"hidden, service unmapped": {Account: "ann@example.org", Service: "imap2", Lookup: access.LookupCredentials, Mechanism: "SCRAM-SHA-256"},
	} {
		l.Time = at
		before := len(d.log.decisions())
		if got := d.login(l); end(got) != "tempfail store_unavailable" || got.Message != "" {
			t.Errorf("a login %s: %s %q", what, end(got), got.Message)
		}
		if got := d.log.decisions()[before:]; len(got) != 1 || !strings.HasPrefix(got[0], "login tempfail: user=") || !strings.HasSuffix(got[0], " reason=store_unavailable") && !strings.Contains(got[0], " reason=store_unavailable master=") {
			t.Errorf("a login %s is logged as %q", what, got)
		}
	}
	for what, l := range map[string]*access.Login{
		"userdb":  {Account: "ann@example.org", Service: "imap", Lookup: access.LookupUser},
		"lmtp":    {Account: "ann@example.org", Service: "lmtp", Lookup: access.LookupCredentials},
		"doveadm": {Account: "ann@example.org", Service: "doveadm", Lookup: access.LookupCredentials},
	} {
		l.Time = at
		before := len(d.log.decisions())
		if got := d.login(l); end(got) != "next ok" {
			t.Errorf("a look-up of %s: %s", what, end(got))
		}
		if got := d.log.decisions()[before:]; len(got) != 0 {
			t.Errorf("a look-up of %s is logged: %q", what, got)
		}
	}
}

func TestStoreNeverLoaded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := s.open(t, next)
	wantUnavailable(t, d, "k7fm2xq9hbtz4w3e", time.Time{})
	if got := d.Submission(mail("ann@example.org", home, 1)); end(got) != "tempfail store_unavailable" {
		t.Errorf("submission: %s", end(got))
	}
	if got := d.Submitter(mail("ann@example.org", home, 1)); !got.Unavailable || got.Account != "" {
		t.Errorf("submitter: %+v", got)
	}
	d.Report(&access.Ending{Account: "ann@example.org", IP: ip(home), Service: "imap", Success: true}) // of whom nothing is known
}

func TestStoreAwayForTooLong(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := s.daemon(t, func(o *gate.Options) { next(o); o.MaxStaleness = 1500 * time.Millisecond })
	d.domain(nil)
	secret := d.device("ann@example.org", "phone")
	d.want(smtp("ann@example.org", secret, home), "allow ok")
	d.wantMail(mail("ann@example.org", home, 1), "allow ok")

	s.redis.Kill()
	redistest.Eventually(t, "the store is stale", func() bool { return !d.Available(time.Now()) })
	wantUnavailable(t, d, secret, time.Time{})
	if got := d.Submission(mail("ann@example.org", home, 1)); end(got) != "tempfail store_unavailable" {
		t.Errorf("an open session: %s", end(got))
	}
	if got := d.Submitter(mail("ann@example.org", home, 1)); !got.Unavailable {
		t.Errorf("an open session's messages: %+v", got)
	}

	s.redis.Restart()
	d.ready()
	d.want(imap("ann@example.org", secret, home), "allow ok")
}

// Time alone makes a state stale, whatever Redis does.
func TestStalenessIsOfTheLoginsTime(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	secret := d.device("ann@example.org", "phone")
	wantUnavailable(t, d, secret, time.Now().Add(time.Hour+time.Minute))
	d.want(imap("ann@example.org", secret, home), "allow ok")
}

// Redis stops in mid-traffic: what is known goes on, the rules hold, changes are refused, and
// records wait and arrive.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	for how, stop := range map[string]struct{ away, back func(*redistest.Server) }{
		"killed": {(*redistest.Server).Kill, (*redistest.Server).Restart},
		"hung":   {(*redistest.Server).Pause, (*redistest.Server).Resume},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			d := s.daemon(t, func(o *gate.Options) { next(o); o.Store.Timeout = time.Second })
			d.domain(nil)
			secret := d.device("ann@example.org", "phone")
			gone := d.device("ann@example.org", "tablet")
			d.revoke("ann@example.org", "tablet")
			d.suspend("sue@example.org")
			d.want(smtp("ann@example.org", secret, home), "allow ok")
			d.wantRecords("allow ok")

			stop.away(s.redis)
			began := time.Now()
			d.want(imap("ann@example.org", secret, home), "allow ok")
			d.want(imap("ann@example.org", gone, home), "deny revoked_secret")
			d.want(imap("sue@example.org", "wrong", home), "deny suspended")
			d.want(imap("ann@example.org", "right", home), "next ok")
			d.Report(&access.Ending{Account: "ann@example.org", IP: ip(home), Service: "imap", Success: true})
			d.wantMail(mail("ann@example.org", home, 1), "allow ok")
			if got := d.Submitter(mail("ann@example.org", home, 1)); got.Account != "ann@example.org" {
				t.Errorf("submitter: %+v", got)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("decisions waited for Redis: %v", took)
			}
			err := d.Store.Update(context.Background(), 0, store.Actor{}, false, func(c *store.Change) error { c.PutDomain(&store.Domain{Name: "x"}); return nil })
			if !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("a change: %v", err)
			}

			stop.back(s.redis)
			d.ready()
			d.want(imap("ann@example.org", secret, home), "allow ok") // the next login tries again at once
			d.wantRecords("allow ok", "allow ok", "deny revoked_secret", "deny suspended", "allow ok", "allow ok")
		})
	}
}

// Whoever has to wait too long for his turn to be hashed is told nothing.
func TestHasherOverloaded(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, nil)
	d.domain(nil)
	slow, err := d.Hasher.Hash(context.Background(), []byte("right"))
	if err != nil {
		t.Fatal(err)
	}
	d.account("ann@example.org", func(a *store.Account) { a.MailboxHash = slow })
	d.account("sue@example.org", func(a *store.Account) { a.MailboxHash, a.Suspended = slow, true })
	d.account("empty@example.org", nil)
	d.account("odd@example.org", func(a *store.Account) { a.MailboxHash = "{DES}xyz" })
	phone, shut := d.device("ann@example.org", "phone"), d.device("sue@example.org", "phone")

	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for _, tt := range []struct{ account, secret, ends string }{
		{"ann@example.org", "right", "tempfail store_unavailable"},
		{"ann@example.org", "wrong", "tempfail store_unavailable"},
		{"nobody@example.org", "wrong", "tempfail store_unavailable"},
		{"empty@example.org", "wrong", "tempfail store_unavailable"},
		{"sue@example.org", "right", "tempfail store_unavailable"}, // a rule refuses, and must not be told by that
		{"ann@example.org", phone, "allow ok"},                     // needs no slow hash
		{"sue@example.org", shut, "deny suspended"},
	} {
		got := d.Login(gone, imap(tt.account, tt.secret, home))
		if end(got) != tt.ends || got.Outcome == access.TempFail && (got.Message != "" || got.CredentialID != "") {
			t.Errorf("%s with %q: %s %q, want %s", tt.account, tt.secret, end(got), got.Message, tt.ends)
		}
	}
	// Nothing of it counted: there is room for as many guesses as before.
	for i := range 2 {
		d.want(imap("ann@example.org", fmt.Sprint("wrong", i), home), "deny bad_secret")
	}
	d.want(imap("ann@example.org", "right", home), "allow ok")
	// A hash that nobody can verify is no wrong password either.
	d.want(imap("odd@example.org", "right", home), "tempfail store_unavailable")
}

// With as many logins at once as can be, none is let in that should not be, and none waits beyond
// its time.
func TestHasherBusy(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, func(o *gate.Options) {
		o.Hasher, o.Throttle = credential.NewHasher(1), throttle.Limits{PerAddress: 1000, PerAccount: 1000, Window: time.Hour}
	})
	d.domain(nil)
	slow, err := d.Hasher.Hash(context.Background(), []byte("right"))
	if err != nil {
		t.Fatal(err)
	}
	d.account("ann@example.org", func(a *store.Account) { a.MailboxHash = slow })
	ends := make(chan string, 40)
	for i := range cap(ends) {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+i)*10*time.Millisecond)
			defer cancel()
			ends <- end(d.Login(ctx, imap("ann@example.org", fmt.Sprint("wrong", i), home)))
		}()
	}
	count := map[string]int{}
	for range cap(ends) {
		count[<-ends]++
	}
	if count["tempfail store_unavailable"] == 0 || count["tempfail store_unavailable"]+count["deny bad_secret"] != cap(ends) {
		t.Errorf("logins ended as %v", count)
	}
}

// What is left is written when the daemon stops.
func TestStopWritesWhatIsLeft(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, nil)
	d.domain(nil)
	secret := d.device("ann@example.org", "phone")
	ends := slices.Repeat([]string{"allow ok"}, 300)
	for range ends {
		d.want(imap("ann@example.org", secret, home), "allow ok")
	}
	d.stop()
	if got := d.records(); len(got) != len(ends) {
		t.Errorf("%d records when the daemon has stopped, want %d", len(got), len(ends))
	}
	if uses, err := d.redis.LastUses(context.Background(), "ann@example.org"); err != nil || uses["phone"].Protocol != "imap" {
		t.Errorf("last uses %+v, %v", uses, err)
	}
}

// A pepper that is not the one of the hashes knows no secure password, and lets none of them out to
// the next passdb.
func TestOtherPepper(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := s.daemon(t, next)
	d.domain(nil)
	secret := d.device("ann@example.org", "phone")
	other := &site{redis: s.redis, pepper: newSite(t).pepper}
	d2 := other.daemon(t, next)
	redistest.Eventually(t, "the account is known", func() bool { _, ok := d2.Store.State.Account("ann@example.org"); return ok })
	d2.want(imap("ann@example.org", secret, home), "deny bad_secret")
	d.want(imap("ann@example.org", secret, home), "allow ok")
	// Whose id only pretends to be the same is refused by the hash.
	d.account("ann@example.org", func(a *store.Account) {
		a.Secrets = slices.Clone(a.Secrets)
		a.Secrets[0].PepperID = d2.Pepper.ID()
	})
	redistest.Eventually(t, "the change arrives", func() bool {
		r, _ := d2.Store.State.Account("ann@example.org")
		return r.Doc.Secrets[0].PepperID == d2.Pepper.ID()
	})
	d2.want(imap("ann@example.org", secret, home), "deny bad_secret")
}

// A secure password's hash opens its own account only, even when it is copied.
func TestHashIsBoundToItsAccount(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	secret := d.device("ann@example.org", "phone")
	r, _ := d.Store.State.Account("ann@example.org")
	d.account("bob@example.org", func(a *store.Account) { a.Secrets = r.Doc.Secrets })
	d.want(imap("ann@example.org", secret, home), "allow ok")
	d.want(imap("bob@example.org", secret, home), "deny bad_secret")
	// The account is the canonical one, and the secret may be typed in groups.
	d.want(imap("ANN@example.NET.", strings.ToUpper(secret[:4]+"-"+secret[4:8]+" "+secret[8:]), home), "allow ok")
}

// An outdated hash of a mailbox password is replaced behind a login.
func TestRehash(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, nil)
	d.domain(nil)
	d.mailbox("ann@example.org")
	d.want(imap("ann@example.org", "wrong", home), "deny bad_secret")
	d.want(imap("ann@example.org", "right", home), "allow ok")
	redistest.Eventually(t, "the hash is of today's scheme", func() bool {
		r, _ := d.Store.State.Account("ann@example.org")
		return strings.HasPrefix(r.Doc.MailboxHash, "{ARGON2ID}")
	})
	d.want(imap("ann@example.org", "right", home), "allow ok")
	d.want(imap("ann@example.org", "wrong", home), "deny bad_secret")
}
