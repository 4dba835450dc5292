package gate_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// inSession is a login by IMAP in a session of Dovecot's.
func inSession(session, account, secret string) *access.Login {
	l := imap(account, secret, home)
	l.Session = session
	return l
}

func ending(session, account, service string, success bool) *access.Ending {
	return &access.Ending{Account: account, IP: ip(home), Service: service, Session: session, Success: success}
}

func TestReportsCloseRecords(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	secret := d.device("ann@example.org", "phone")

	// By session, in whatever order the reports come.
	d.want(inSession("s1", "ann@example.org", "right"), "next ok")
	d.want(inSession("s2", "bob@example.org", "wrong"), "next ok")
	d.Report(ending("s2", "bob@example.org", "imap", false))
	d.Report(ending("s1", "Ann@example.org", "imap", true))
	records := d.wantRecords("allow ok", "deny bad_secret")
	for _, r := range records {
		if r.ClosedAt.IsZero() || r.ClosedAt.Before(r.Time) {
			t.Errorf("closed at %v: %+v", r.ClosedAt, r)
		}
	}
	log := d.log.decisions()
	want := []string{
		"login next: user=ann@example.org ip=203.0.113.9 proto=imap client=third-party reason=ok session=s1",
		"login next: user=bob@example.org ip=203.0.113.9 proto=imap client=third-party reason=ok session=s2",
		"login deny: user=bob@example.org ip=203.0.113.9 proto=imap client=third-party reason=bad_secret session=s2",
		"login allow: user=ann@example.org ip=203.0.113.9 proto=imap client=third-party reason=ok session=s1",
	}
	if !slices.Equal(log, want) {
		t.Errorf("logged\n%s\nwant\n%s", strings.Join(log, "\n"), strings.Join(want, "\n"))
	}

	// Each report closes one login, and only one.
	d.Report(ending("s1", "ann@example.org", "imap", false))
	d.Report(ending("s2", "bob@example.org", "imap", true))

	// Without a session, as from Postfix: the oldest of account, address and service.
	d.want(smtpAt("submission", "ann@example.org", "right", home), "next ok")
	d.want(smtp("ann@example.org", "wrong", home), "next ok")
	d.want(smtp("ann@example.org", "right", office), "next ok")
	d.want(imap("ann@example.org", "right", home), "next ok")
	d.Report(ending("", "ann@example.net", "submission", true)) // submission is smtp, and example.net an alias
	d.Report(ending("", "ann@example.org", "smtp", false))
	d.wantRecords("allow ok", "deny bad_secret", "allow ok", "deny bad_secret", "next ok", "next ok")

	// Reports of what nobody asked, or of what was decided here, change nothing.
	before := len(d.log.decisions())
	d.want(smtp("eve@example.org", "right", home), "next ok")
	d.want(imap("joe@example.org", "right", home), "next ok")
	d.Report(ending("s9", "ann@example.org", "imap", false))
	d.Report(ending("", "ann@example.org", "pop3", false))
	d.Report(ending("", "bob@example.org", "imap", false))
	d.Report(ending("", "eve@example.org", "lmtp", false))
	d.Report(ending("", "no address", "imap", true))
	d.Report(&access.Ending{Account: "ann@example.org", IP: ip(cafe), Service: "imap", Success: true})
	d.Report(&access.Ending{Account: "eve@example.org", IP: ip(home), Service: "smtp", Rejected: true})
	d.want(inSession("s3", "ann@example.org", secret), "allow ok")
	d.Report(ending("s3", "ann@example.org", "imap", true))
	d.wantRecords("allow ok", "deny bad_secret", "allow ok", "deny bad_secret", "next ok", "next ok", "next ok", "next ok", "allow ok")
	if got := len(d.log.decisions()) - before; got != 3 {
		t.Errorf("%d lines for 3 logins", got)
	}
}

// A session whose first login was never reported goes on to another one: its report is not the
// first one's.
func TestReportOfALaterLoginOfTheSession(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	secret := d.device("ann@example.org", "phone")
	d.want(inSession("s1", "bob@example.org", "wrong"), "next ok")
	d.want(inSession("s1", "ann@example.org", secret), "allow ok")
	d.Report(ending("s1", "ann@example.org", "imap", true))
	d.want(inSession("s2", "bob@example.org", "wrong"), "next ok")
	d.want(inSession("s2", "bob@example.org", "right"), "next ok")
	d.Report(ending("s2", "bob@example.org", "imap", true))
	// The userdb look-up behind a login is none.
	d.want(inSession("s3", "bob@example.org", "right"), "next ok")
	look := inSession("s3", "bob@example.org", "")
	look.Lookup = access.LookupUser
	d.want(look, "next ok")
	d.Report(ending("s3", "bob@example.org", "imap", true))
	d.wantRecords("next ok", "allow ok", "next ok", "allow ok", "allow ok")
}

// An unmanaged domain has no records, and its reports close nothing.
func TestUnmanagedDomainHasNoRecords(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := s.daemon(t, next)
	d.domain(nil)
	d.want(inSession("s1", "eve@other.example", "x"), "deny unmanaged_domain")
	d.Unmanaged.All = true
	d.want(inSession("s1", "eve@other.example", "x"), "next unmanaged_domain")
	d.Report(ending("s1", "eve@other.example", "imap", false))
	d.want(imap("ann@example.org", "x", home), "next ok")
	d.wantRecords("next ok")
	items, _, err := d.redis.Records(context.Background(), store.RecordQuery{Domain: "other.example", Limit: 10})
	if err != nil || len(items) != 0 {
		t.Errorf("%+v, %v", items, err)
	}
	if log := d.log.decisions(); len(log) != 3 {
		t.Errorf("logged %q", log)
	}
}

// F26: what has the shape of a secure password stays away from the next passdb for an account that
// has one, or had one.
func TestDirectoryShield(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	d.account("bob@example.org", nil)
	mine := d.device("ann@example.org", "phone")
	others := d.device("eve@example.org", "phone")
	d.revoke("ann@example.org", "phone")
	d.want(imap("ann@example.org", mine, home), "deny revoked_secret")
	d.want(imap("ann@example.org", others, home), "deny bad_secret")
	d.want(imap("ann@example.org", strings.ToUpper(others), home), "deny bad_secret")
	d.want(imap("ann@example.org", others+"x", home), "next ok") // not of that shape
	d.want(imap("bob@example.org", others, home), "next ok")     // never had one
	d.account("ann@example.org", func(a *store.Account) { a.Secrets = nil })
	d.want(imap("ann@example.org", others, home), "next ok") // long forgotten
	d.domain(func(dom *store.Domain) {
		dom.SecurePasswords = store.SecurePasswordPolicy{Enforced: true, Scope: access.Scope{All: true}}
	})
	d.want(imap("bob@example.org", others, home), "deny bad_secret")
	d.want(imap("bob@example.org", "right", home), "deny secure_password_required")
}

func TestLastUse(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, nil)
	d.domain(nil)
	d.mailbox("ann@example.org")
	phone, tablet := d.device("ann@example.org", "phone"), d.device("ann@example.org", "tablet")
	d.device("ann@example.org", "unused")
	d.want(imap("ann@example.org", phone, home), "allow ok")
	d.want(smtp("ann@example.org", tablet, cafe), "allow ok")
	d.want(imap("ann@example.org", "right", office), "allow ok")
	var uses map[string]store.LastUse
	redistest.Eventually(t, "both uses are noted", func() bool {
		uses, _ = d.redis.LastUses(context.Background(), "ann@example.org")
		return len(uses) == 2
	})
	for name, want := range map[string]store.LastUse{"phone": {IP: home, Protocol: "imap"}, "tablet": {IP: cafe, Protocol: "smtp"}} {
		if got := uses[name]; got.IP != want.IP || got.Protocol != want.Protocol || got.Time.IsZero() {
			t.Errorf("%s was last used %+v, want %+v", name, got, want)
		}
	}
	// What is refused is no use, and a use is as exact as a minute.
	d.suspend("ann@example.org")
	d.want(imap("ann@example.org", phone, office), "deny suspended")
	d.account("ann@example.org", func(a *store.Account) { a.Suspended = false })
	d.want(imap("ann@example.org", phone, office), "allow ok")
	later := imap("ann@example.org", tablet, office)
	later.Time = uses["tablet"].Time.Add(2 * 60e9)
	d.want(later, "allow ok")
	redistest.Eventually(t, "the later use is noted", func() bool {
		uses, _ = d.redis.LastUses(context.Background(), "ann@example.org")
		return uses["tablet"].IP == office
	})
	if uses["phone"].IP != home {
		t.Errorf("phone was last used %+v", uses["phone"])
	}
}

// A record holds what is known of a login, bounded.
func TestRecord(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, nil)
	d.domain(nil)
	d.clients(access.ClientWeb, webmail)
	d.mailbox("ann@example.org")
	d.policy(access.Policy{ID: "soft", Type: access.Blacklist, Enabled: true, Mode: access.Report, Scope: access.Scope{All: true}})
	l := imap("Ann@example.net", "right", home)
	l.RealIP, l.TLS, l.Session, l.ClientID = ip(webmail), true, "s1", strings.Repeat("ä", 1000)
	d.want(l, "allow ok")
	r := d.wantRecords("allow ok")[0]
	if r.Account != "ann@example.org" || r.IP != home || r.RealIP != webmail || r.Protocol != "imap" || r.Service != "imap" || r.Mechanism != "PLAIN" ||
		!r.TLS || r.Client != access.ClientWeb || r.Session != "s1" || !slices.Equal(r.WouldRefuse, []string{"soft"}) || !r.Time.Equal(r.Time.UTC()) {
		t.Errorf("%+v", r)
	}
	if len(r.ClientID) > 300 || !strings.HasPrefix(r.ClientID, "ää") {
		t.Errorf("a client's own words take %d bytes: %q", len(r.ClientID), r.ClientID)
	}
	want := "login allow: user=ann@example.org ip=203.0.113.9 proto=imap client=web reason=ok real_ip=127.0.0.1 would_refuse=soft session=s1"
	if log := d.log.decisions(); !slices.Equal(log, []string{want}) {
		t.Errorf("logged %q, want %q", log, want)
	}
}
