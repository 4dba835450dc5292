package gate_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// The site of these tests allows 3 wrong secrets for an account and 5 from an address, within an
// hour; each account's mailbox password is "right".

func guessing(t *testing.T) *daemon {
	t.Helper()
	d := newSite(t).daemon(t, nil)
	d.domain(nil)
	d.mailbox("ann@example.org", "bob@example.org", "eve@example.org", "joe@example.org", "kim@example.org", "lee@example.org")
	return d
}

// wrong tries n different wrong secrets.
func (d *daemon) wrong(n int, account, from string) {
	d.t.Helper()
	for i := range n {
		d.want(imap(account, fmt.Sprintf("wrong %d", i), from), "deny bad_secret")
	}
}

func TestGuessesPerAccount(t *testing.T) {
	t.Parallel()
	d := guessing(t)
	d.wrong(3, "ann@example.org", cafe)
	d.want(imap("ann@example.org", "wrong 3", office), "deny throttled")
	d.want(imap("ann@example.org", "right", office), "deny throttled")
	d.want(imap("ann@example.net", "right", office), "deny throttled") // by the alias domain
	d.want(imap("ann@example.org", "wrong 0", office), "deny throttled")
	d.want(imap("bob@example.org", "right", cafe), "allow ok") // and nobody else
}

func TestSameSecretCountsOnce(t *testing.T) {
	t.Parallel()
	d := guessing(t)
	for range 20 {
		d.want(imap("ann@example.org", "last year's", home), "deny bad_secret")
	}
	d.wrong(1, "ann@example.org", home)
	d.want(imap("ann@example.org", "right", home), "allow ok")
}

func TestSprayedPasswordCountsForEachAccount(t *testing.T) {
	t.Parallel()
	d := guessing(t)
	for _, account := range []string{"ann", "bob", "eve", "joe", "nobody"} {
		if got := d.login(imap(account+"@example.org", "Summer2026", cafe)); got.Outcome != access.Deny || got.Reason == access.ReasonThrottled {
			t.Errorf("%s: %s", account, end(got))
		}
	}
	d.want(imap("kim@example.org", "Summer2026", cafe), "deny throttled")
	d.want(imap("kim@example.org", "right", cafe), "deny throttled")
	d.want(imap("nobody2@example.org", "Summer2026", cafe), "deny throttled")
	d.want(imap("kim@example.org", "right", office), "allow ok")
}

func TestIPv6CountsByNetwork(t *testing.T) {
	t.Parallel()
	d := guessing(t)
	for i, account := range []string{"ann", "bob", "eve", "joe", "kim"} {
		d.want(imap(account+"@example.org", "wrong", fmt.Sprintf("2001:db8:0:1::%d", i)), "deny bad_secret")
	}
	d.want(imap("lee@example.org", "right", "2001:db8:0:1:ffff::1"), "deny throttled")
	d.want(imap("lee@example.org", "right", "2001:db8:0:2::1"), "allow ok")
}

// IPv4 counts by the address, and logins without one count together.
func TestIPv4CountsByAddress(t *testing.T) {
	t.Parallel()
	d := guessing(t)
	for _, account := range []string{"ann", "bob", "eve", "joe", "kim"} {
		d.want(imap(account+"@example.org", "wrong", cafe), "deny bad_secret")
		d.want(imap(account+"@example.org", "wrong", ""), "deny bad_secret")
	}
	d.want(imap("lee@example.org", "right", "198.51.100.21"), "allow ok")
	d.want(imap("lee@example.org", "right", cafe), "deny throttled")
	d.want(imap("lee@example.org", "right", ""), "deny throttled")
}

func TestSecurePasswordIsNeverThrottled(t *testing.T) {
	t.Parallel()
	d := guessing(t)
	secret := d.device("ann@example.org", "phone")
	d.wrong(3, "ann@example.org", cafe)
	d.want(imap("bob@example.org", "wrong", cafe), "deny bad_secret")
	d.want(imap("eve@example.org", "wrong", cafe), "deny bad_secret")
	d.want(imap("ann@example.org", "right", cafe), "deny throttled")
	d.want(imap("ann@example.org", secret, cafe), "allow ok")
	d.want(imap("ann@example.org", secret, office), "allow ok")
}

// An address that came in is not shut out by what others guess elsewhere, and not in the same
// network by what they guess of others' accounts.
func TestKnownAddressIsNotShutOut(t *testing.T) {
	t.Parallel()
	d := guessing(t)
	d.want(imap("ann@example.org", "right", home), "allow ok")
	d.wrong(3, "ann@example.org", cafe)
	d.want(imap("ann@example.org", "right", cafe), "deny throttled")
	d.want(imap("ann@example.org", "right", home), "allow ok")
	for _, account := range []string{"bob", "eve", "joe", "kim", "lee"} {
		d.want(imap(account+"@example.org", "wrong", home), "deny bad_secret")
	}
	d.want(imap("ann@example.org", "right", home), "allow ok")
	d.want(imap("bob@example.org", "right", home), "deny throttled") // never came in from there
	// What is guessed there of the account itself counts.
	d.wrong(3, "ann@example.org", home)
	d.want(imap("ann@example.org", "right", home), "deny throttled")
}

// A secure password makes an address known; a master does not.
func TestWhoMakesAnAddressKnown(t *testing.T) {
	t.Parallel()
	d := guessing(t)
	secret := d.device("ann@example.org", "phone")
	d.want(imap("ann@example.org", secret, home), "allow ok")
	master := imap("ann@example.org", "the master's", office)
	master.MasterUser = "admin"
	d.want(master, "allow ok")
	d.wrong(3, "ann@example.org", cafe)
	d.want(imap("ann@example.org", "right", home), "allow ok")
	d.want(imap("ann@example.org", "right", office), "deny throttled")
}

func TestRevokedSecurePasswordNeverCounts(t *testing.T) {
	t.Parallel()
	d := guessing(t)
	secret := d.device("ann@example.org", "My iPhone")
	d.revoke("ann@example.org", "My iPhone")
	for range 10 {
		got := d.want(imap("ann@example.org", secret, home), "deny revoked_secret")
		if got.Note != "revoked secure password 'My iPhone' still in use" || got.CredentialID != "My iPhone" {
			t.Fatalf("%+v", got)
		}
	}
	d.wrong(2, "ann@example.org", home)
	d.want(imap("ann@example.org", "right", home), "allow ok")
	for _, line := range d.log.decisions()[:10] {
		// bad_secret is an attacker's mark: the office would be banned
		if want := `login deny: user=ann@example.org ip=203.0.113.9 proto=imap client=third-party reason=revoked_secret credential="My\x20iPhone"`; line != want {
			t.Fatalf("logged as\n%s\nwant\n%s", line, want)
		}
	}
	redistest.Eventually(t, "the records name the device", func() bool {
		r := d.records()
		return len(r) == 13 && r[0].Credential == "My iPhone" && r[0].Note != "" && r[0].Reason == access.ReasonRevokedSecret
	})
}

// What cannot be a guess at the mailbox password does not count as one.
func TestWhatIsNoGuess(t *testing.T) {
	t.Parallel()
	d := guessing(t)
	d.clients(access.ClientWeb, webmail)
	secret := d.device("ann@example.org", "phone")
	for i := range 6 {
		d.want(imap("ann@example.org", "", home), "deny bad_secret")
		d.want(imap("ann@example.org", secret, webmail), "deny bad_secret") // tried at webmail
		hidden := imap(fmt.Sprintf("nobody%d@example.org", i), "", home)
		hidden.Lookup, hidden.Mechanism = access.LookupCredentials, "SCRAM-SHA-256"
		d.want(hidden, "deny unknown_account")
		master := imap(fmt.Sprintf("nobody%d@example.org", i), "the master's", home)
		master.MasterUser = "admin"
		d.want(master, "deny unknown_account")
	}
	d.want(imap("ann@example.org", "right", home), "allow ok")
	d.want(imap("ann@example.org", "right", webmail), "allow ok")
}

func TestGuessesAreForgotten(t *testing.T) {
	t.Parallel()
	d := guessing(t)
	d.wrong(3, "ann@example.org", cafe)
	d.want(imap("ann@example.org", "right", office), "deny throttled")
	later := imap("ann@example.org", "right", office)
	later.Time = time.Now().Add(59 * time.Minute)
	d.want(later, "deny throttled")
	later = imap("ann@example.org", "right", office)
	later.Time = time.Now().Add(time.Hour) // the window
	if d.MaxStaleness = 2 * time.Hour; !d.Available(later.Time) {
		t.Fatal("stale")
	}
	d.want(later, "allow ok")
}

// Who is refused by a rule is guessing all the same.
func TestGuessesBehindRules(t *testing.T) {
	t.Parallel()
	d := guessing(t)
	d.account("ann@example.org", func(a *store.Account) { a.Protocols = access.Switches{"imap": false} })
	for i := range 3 {
		d.want(imap("ann@example.org", fmt.Sprint("wrong", i), cafe), "deny protocol_disabled")
	}
	pop := imap("ann@example.org", "right", office)
	pop.Service = "pop3"
	d.want(pop, "deny throttled")
}

func TestTwoDaemonsShareCounters(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.daemon(t, nil), s.daemon(t, nil)
	a.domain(nil)
	a.mailbox("ann@example.org", "bob@example.org")
	redistest.Eventually(t, "the accounts are known", func() bool { return a.Store.State.Heads() == b.Store.State.Heads() })
	a.want(imap("ann@example.org", "right", home), "allow ok")
	a.wrong(2, "ann@example.org", cafe)
	b.want(imap("ann@example.org", "wrong 2", cafe), "deny bad_secret")
	for _, d := range []*daemon{a, b} {
		redistest.Eventually(t, "the guesses are known", func() bool {
			return d.login(imap("ann@example.org", "wrong 0", office)).Reason == access.ReasonThrottled
		})
		redistest.Eventually(t, "the address is known", func() bool {
			return d.login(imap("ann@example.org", "right", home)).Outcome == access.Allow
		})
		d.want(imap("bob@example.org", "right", cafe), "allow ok")
	}
	// A daemon that starts later knows of them too.
	late := s.daemon(t, nil)
	redistest.Eventually(t, "the guesses are known", func() bool {
		return late.login(imap("ann@example.org", "wrong 0", cafe)).Reason == access.ReasonThrottled
	})
	late.want(imap("ann@example.org", "right", home), "allow ok")
}

// Where the next passdb decides, reports tell what was a guess.
func TestGuessesByReport(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	report := func(l *access.Login, success bool) {
		t.Helper()
		d.want(l, "next ok")
		d.Report(&access.Ending{Account: l.Account, IP: l.IP, Service: "imap", Success: success})
	}
	for range 10 {
		report(imap("ann@example.org", "last year's", cafe), false) // counts once
	}
	report(imap("ann@example.org", "right", home), true)
	report(imap("ann@example.org", "wrong 1", cafe), false)
	d.want(imap("ann@example.org", "never reported", cafe), "next ok")
	report(imap("ann@example.net", "wrong 2", cafe), false)
	d.want(imap("ann@example.org", "right", office), "deny throttled")
	report(imap("ann@example.org", "right", home), true)
	// A mechanism that does not show the secret is shut out with the others ...
	hidden := imap("ann@example.org", "", office)
	hidden.Lookup, hidden.Mechanism = access.LookupCredentials, "SCRAM-SHA-256"
	d.want(hidden, "deny throttled")
	// ... and a master's password is no guess at the account's.
	for i := range 5 {
		master := imap("bob@example.org", fmt.Sprint("wrong", i), office)
		master.MasterUser = "admin"
		report(master, false)
	}
	report(imap("bob@example.org", "right", office), true)
}

// The site's own webmail is never throttled as an address: its users are, by their own addresses if
// it passes them on, and by their accounts.
func TestWebmailIsNoSource(t *testing.T) {
	t.Parallel()
	d := guessing(t)
	for i := range 20 {
		d.want(imap(fmt.Sprint("nobody", i, "@example.org"), "wrong", webmail), "deny unknown_account")
		if i == 4 { // the fifth wrong secret
			d.want(imap("ann@example.org", "right", webmail), "deny throttled")
			d.clients(access.ClientWeb, webmail)
		}
		d.want(imap("bob@example.org", "right", office), "allow ok")
	}
	d.want(imap("ann@example.org", "right", webmail), "allow ok")
	d.wrong(3, "eve@example.org", webmail)
	d.want(imap("eve@example.org", "right", webmail), "deny throttled")

	forwarded := func(account, secret string) *access.Login {
		l := imap(account, secret, cafe)
		l.RealIP = ip(webmail)
		return l
	}
	for i := range 5 {
		d.want(forwarded(fmt.Sprint("nobody", i, "@example.org"), "wrong"), "deny unknown_account")
	}
	d.want(forwarded("joe@example.org", "right"), "deny throttled")
	d.want(imap("joe@example.org", "right", webmail), "allow ok")

	// What anybody can present exempts nobody.
	d.evidence(access.ClientWeb, access.Evidence{Services: []string{"imap"}})
	if got := d.want(imap("kim@example.org", "right", webmail), "deny throttled"); got.Client != access.ClientWeb {
		t.Errorf("client %s", got.Client)
	}
}

func TestExemptNetworks(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, func(o *gate.Options) { o.Exempt, _ = address.ParseNetworks([]string{cafe + "/31", "2001:db8:1::/48"}) })
	d.domain(nil)
	d.mailbox("ann@example.org", "bob@example.org")
	for _, from := range []string{cafe, "2001:db8:1::1", home} {
		for i := range 5 {
			d.want(imap(fmt.Sprint("nobody", i, "@example.org"), "wrong", from), "deny unknown_account")
		}
	}
	d.want(imap("ann@example.org", "right", cafe), "allow ok")
	d.want(imap("ann@example.org", "right", "2001:db8:1::1"), "allow ok")
	d.want(imap("ann@example.org", "right", home), "deny throttled")
	d.wrong(3, "bob@example.org", cafe) // the account counts all the same
	d.want(imap("bob@example.org", "right", cafe), "deny throttled")
}
