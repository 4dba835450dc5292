package gate_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/factor"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Rules hold for a person, however the name is typed; what Dovecot continues with reaches the same
// mailbox.
func TestNamesOfAPerson(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, func(o *gate.Options) {
		next(o)
		o.DefaultDomain = "example.org"
	})
	d.domain(nil)
	d.account("ann@example.org", func(a *store.Account) { a.Aliases = []string{"a.nn@example.org", "shared@example.org"} })
	d.account("bob@example.org", func(a *store.Account) { a.Aliases = []string{"shared@example.org"} })
	d.account("ann+own@example.org", nil)
	for typed, want := range map[string]struct{ account, user string }{
		"ann@example.org":       {"ann@example.org", "ann@example.org"},
		"ANN@Example.net":       {"ann@example.org", "ann@example.org"},
		"ann":                   {"ann@example.org", "ann"},
		"ann+lists":             {"ann@example.org", "ann"},
		"ann+lists@example.org": {"ann@example.org", "ann@example.org"},
		"a.nn@example.org":      {"ann@example.org", "ann@example.org"},
		"a.nn@example.net":      {"ann@example.org", "ann@example.org"},
		"a.nn+x@example.org":    {"ann@example.org", "ann@example.org"},
		"ann+own@example.org":   {"ann+own@example.org", "ann+own@example.org"}, // a record of its own
		"shared@example.org":    {"shared@example.org", "shared@example.org"},   // two accounts': a mailbox of its own
		"zoe+x@example.org":     {"zoe@example.org", "zoe@example.org"},         // no record
	} {
		got := d.want(imap(typed, "mailbox", home), "next ok")
		if got.Account != want.account || got.User != want.user {
			t.Errorf("%s is judged as %s and goes on as %q, want %+v", typed, got.Account, got.User, want)
		}
	}
	d.suspend("ann@example.org")
	for _, typed := range []string{"ann", "ann+lists@example.org", "a.nn@example.org", "a.nn+x@example.net"} {
		d.want(imap(typed, "mailbox", home), "deny suspended")
	}
	d.want(imap("shared@example.org", "mailbox", home), "next ok")

	// Mail is delivered where it always was: the look-up of a recipient is not rewritten.
	look := imap("a.nn@example.org", "", home)
	look.Service, look.Lookup, look.Mechanism = "lmtp", access.LookupUser, ""
	if got := d.want(look, "next ok"); got.User != "a.nn@example.org" {
		t.Errorf("a recipient is rewritten to %q", got.User)
	}
	d.account("ann@example.org", func(a *store.Account) { a.Aliases = nil })
	d.want(imap("a.nn@example.org", "mailbox", home), "next ok") // nobody's any more
}

// The delimiters of extensions are a setting; without any, each name is an account of its own.
func TestDelimiters(t *testing.T) {
	t.Parallel()
	for delimiters, ends := range map[string][2]string{
		"": {"next ok", "next ok"}, "-": {"next ok", "deny suspended"}, "+-": {"deny suspended", "deny suspended"},
	} {
		d := newSite(t).daemon(t, func(o *gate.Options) { next(o); o.Store.State.Delimiters = delimiters })
		d.domain(nil)
		d.suspend("ann@example.org")
		d.want(imap("ann+x@example.org", "mailbox", home), ends[0])
		d.want(imap("ann-x@example.org", "mailbox", home), ends[1])
	}
}

// Which unmanaged domains are left to the next passdb is said explicitly, and is no way around.
func TestUnmanagedDomains(t *testing.T) {
	t.Parallel()
	named := gate.Unmanaged{Domains: map[string]bool{"other.example": true}}
	for _, tt := range []struct {
		unmanaged gate.Unmanaged
		typed     string
		ends      string
	}{
		{gate.Unmanaged{}, "eve@other.example", "deny unmanaged_domain"},
		{named, "eve@other.example", "next unmanaged_domain"},
		{named, "Eve@OTHER.example.", "next unmanaged_domain"},
		{named, "bob@nowhere.invalid", "deny unmanaged_domain"},
		{named, `ünn@other.example`, "next unmanaged_domain"},
		{named, "ünn@nowhere.invalid", "deny unknown_account"},
		{named, "eve", "deny unknown_account"},
		{gate.Unmanaged{All: true}, "bob@nowhere.invalid", "next unmanaged_domain"},
		{gate.Unmanaged{All: true}, "ünn@nowhere.invalid", "next unmanaged_domain"},
		{gate.Unmanaged{All: true}, "eve", "next unmanaged_domain"},
		// What another program could read as a managed name is never passed on.
		{gate.Unmanaged{All: true}, "ünn@example.org", "deny unknown_account"},
		{gate.Unmanaged{All: true}, "bob@example.org@nowhere.invalid", "deny unknown_account"},
		{gate.Unmanaged{All: true}, "bob@nowhere.invalid@example.org", "deny unknown_account"},
		{gate.Unmanaged{All: true}, "bob@example.org ", "deny unknown_account"},
		{gate.Unmanaged{All: true}, "bob@", "deny unknown_account"},
	} {
		d := newSite(t).daemon(t, func(o *gate.Options) { next(o); o.Unmanaged = tt.unmanaged })
		d.domain(nil)
		got := d.want(imap(tt.typed, "x", home), tt.ends)
		if got.Outcome == access.Next && got.User != tt.typed {
			t.Errorf("%s goes on as %q", tt.typed, got.User)
		}
	}
}

// A name that the next passdb maps is judged again under its final name.
func TestRecheck(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, func(o *gate.Options) { next(o); o.Unmanaged.All = true })
	d.domain(nil)
	d.suspend("ann@example.org")
	d.account("bob@example.org", nil)
	final := func(name, session string) *access.Login {
		l := inSession(session, name, "")
		l.Secret = nil
		return l
	}
	check := func(typed, name, ends string) access.Decision {
		t.Helper()
		got := d.Recheck(final(name, "s1"), typed)
		if end(got) != ends {
			t.Errorf("%s as %s: %s, want %s", typed, name, end(got), ends)
		}
		return got
	}
	d.want(inSession("s1", "bob@example.org", "mailbox"), "next ok")
	if got := check("bob@example.org", "ann@example.org", "deny suspended"); got.Message == "" {
		t.Error("whose secret was verified is not told why")
	}
	d.Report(ending("s1", "ann@example.org", "imap", false)) // Dovecot reports it; it is no wrong secret
	d.wantRecords("deny suspended", "deny suspended")        // bob's is closed, ann's is made
	check("ann@example.org", "ann@example.org", "next ok")   // was judged when the passdb asked
	check("ann+x@example.org", "ann@example.net", "next ok") // the same account

	d.want(inSession("s1", "bob@nowhere.invalid", "mailbox"), "next unmanaged_domain")
	check("bob@nowhere.invalid", "ann@example.org", "deny suspended")
	check("bob@nowhere.invalid", "bob@example.org", "next ok")
	check("bob@example.org", "u1234", "next ok") // the next passdb's own name for him
	check("bob@example.org", "bob@example.org", "next ok")

	// Enforcement: the mailbox password of the final name is what was verified; a secure password,
	// which was verified here, keeps its name.
	d.domain(func(dom *store.Domain) {
		dom.SecurePasswords = store.SecurePasswordPolicy{Enforced: true, Scope: access.Scope{Members: []string{"bob@example.org"}}}
	})
	check("zoe@example.org", "bob@example.org", "deny secure_password_required")
	check("bob@example.org", "bob@example.org", "next ok")

	// What proves the site's own clients counts as it does for any login.
	d.evidence(access.ClientWeb, access.Evidence{Networks: []string{home}, LocalPorts: []uint16{10993}})
	l := final("bob@example.org", "s2")
	l.LocalPort = 10993
	if got := d.Recheck(l, "zoe@example.org"); end(got) != "next ok" {
		t.Errorf("webmail: %s", end(got))
	}
}

// Dovecot reports a login that the second passdb refuses like one with a wrong password: it is none.
func TestRefusedBySecondPassdb(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	d.suspend("ann@example.org")
	for _, session := range []string{"s1", ""} { // Postfix sends none
		d.want(inSession(session, "bob@example.org", "mailbox"), "next ok")
		l := inSession(session, "ann@example.org", "")
		l.Reported = true
		if got := d.Recheck(l, "bob@example.org"); end(got) != "deny suspended" {
			t.Fatalf("session %q: %s", session, end(got))
		}
		d.Report(ending(session, "bob@example.org", "imap", false))
		// The report on the next login is taken for that one.
		d.want(inSession(session, "bob@example.org", "mailbox"), "next ok")
		d.Report(ending(session, "bob@example.org", "imap", false))
	}
	d.wantRecords("deny suspended", "deny suspended", "deny bad_secret", "deny suspended", "deny suspended", "deny bad_secret")
}

// A secret that was pasted oddly, or mistyped, is still known for what it is.
func TestPastedSecrets(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	secret := d.device("ann@example.org", "phone")
	group := func(sep string) string {
		return secret[:4] + sep + secret[4:8] + sep + secret[8:12] + sep + secret[12:]
	}
	wide := ""
	for _, c := range secret {
		wide += string(c + 0xff01 - '!')
	}
	for what, s := range map[string]string{
		"no-break spaces": group("\u00a0"), "no-break hyphens": group("\u2011"), "en dashes": group("\u2013"),
		"zero-width spaces": group("\u200b"), "minus signs": group("\u2212"), "full-width": wide, "byte order mark": "\ufeff" + secret,
	} {
		if got := d.login(imap("ann@example.org", s, home)); end(got) != "allow ok" {
			t.Errorf("%s: %s", what, end(got))
		}
	}
	wrong := []byte(group("-"))
	wrong[0] = "ab"[(wrong[0]-'a'+1)%2]
	d.want(imap("ann@example.org", string(wrong), home), "deny bad_secret")
	d.want(imap("bob@example.org", string(wrong), home), "next ok") // has none: it may be a mailbox password
}

// A page asks for the second factor of the account whose name the next passdb has given the login,
// too: the account of the typed name may have none.
func TestRecheckAsksForTheFactor(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, func(o *gate.Options) {
		next(o)
		o.Factor = func(_ context.Context, account, otp string, _ netip.Addr) (string, error) {
			if account != "ann@example.org" || otp != "492039" {
				return "wrong", nil
			}
			return "", nil
		}
	})
	d.domain(nil)
	d.account("ann@example.org", func(a *store.Account) {
		a.Factors = []store.Factor{{ID: "app", Kind: factor.TOTP, CreatedAt: time.Now(), ConfirmedAt: time.Now(), Data: []byte("x")}}
	})
	for otp, want := range map[string]string{"": "deny second_factor_required", "000000": "deny second_factor_required", "492039": "next ok"} {
		l := imap("ann@example.org", "", home)
		l.Protocol, l.Service, l.Page, l.OTP = access.Web, "web", true, otp
		if got := d.Recheck(l, "nick@example.org"); end(got) != want {
			t.Errorf("with %q: %s, want %s", otp, end(got), want)
		}
	}
}
