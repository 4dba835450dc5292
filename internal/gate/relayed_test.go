package gate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/store"
)

// relayed is a login that the SASL door passes on under a session id of its own.
func relayed(session, account, secret string) *access.Login {
	l := smtp(account, secret, home)
	l.Session, l.Relayed = session, true
	return l
}

// behind is the same login as a passdb behind that server asks about it.
func behind(session, account, secret string) *access.Login {
	l := relayed(session, account, secret)
	l.Relayed = false
	return l
}

// A login that a door passes on and a passdb asks about once more is one login in records, in the
// log and in the throttle.
func TestRelayedLoginIsRecordedOnce(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	d.want(relayed("sasl-1", "ann@example.org", "right"), "next ok")
	d.want(behind("sasl-1", "ann@example.org", "right"), "next ok")
	d.Report(ending("sasl-1", "ann@example.org", "smtp", true)) // Dovecot's
	d.Report(ending("sasl-1", "ann@example.org", "smtp", true)) // the door's
	d.want(relayed("sasl-2", "ann@example.org", "wrong"), "next ok")
	d.want(behind("sasl-2", "ann@example.org", "wrong"), "next ok")
	d.Report(ending("sasl-2", "ann@example.org", "smtp", false))
	d.wantRecords("allow ok", "deny bad_secret")
	if log := d.log.decisions(); len(log) != 4 {
		t.Errorf("logged\n%s", strings.Join(log, "\n"))
	}

	// Mechanisms that hide the secret are decided here only when the name is known.
	hidden := func(session string, relayed bool) *access.Login {
		l := behind(session, "ann@example.org", "")
		l.Mechanism, l.Lookup, l.Relayed = "SCRAM-SHA-256", access.LookupCredentials, relayed
		return l
	}
	d.want(hidden("sasl-3", false), "next ok")
	d.want(hidden("sasl-3", true), "next ok")
	d.Report(ending("sasl-3", "ann@example.org", "smtp", true))
	// Dovecot may report before it answers the door.
	d.want(hidden("sasl-5", false), "next ok")
	d.Report(ending("sasl-5", "ann@example.org", "smtp", true))
	d.want(hidden("sasl-5", true), "next ok")
	d.Report(ending("sasl-5", "ann@example.org", "smtp", true))
	d.wantRecords("allow ok", "deny bad_secret", "allow ok", "allow ok")

	// Other logins that share a session are logins of their own.
	d.want(behind("sasl-4", "ann@example.org", "right"), "next ok")
	d.want(behind("sasl-4", "ann@example.org", "right"), "next ok")
	d.wantRecords("allow ok", "deny bad_secret", "allow ok", "allow ok", "next ok", "next ok")
}

// A rule that changes between the two questions refuses, and the record says so.
func TestRelayedLoginIsDecidedTwice(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	d.want(relayed("sasl-1", "ann@example.org", "right"), "next ok")
	d.suspend("ann@example.org")
	d.want(behind("sasl-1", "ann@example.org", "right"), "deny suspended")
	d.Report(ending("sasl-1", "ann@example.org", "smtp", false))
	d.wantRecords("deny suspended")

	// Also when Dovecot has reported it as a success already.
	d.want(relayed("sasl-2", "bob@example.org", "right"), "next ok")
	d.Report(ending("sasl-2", "bob@example.org", "smtp", true))
	d.suspend("bob@example.org")
	d.want(behind("sasl-2", "bob@example.org", "right"), "deny suspended")
	d.wantRecords("deny suspended", "deny suspended")
}

// The name that the server behind the SASL door has given a login is rechecked, and a refusal closes
// the record of the typed name.
func TestRelayedLoginIsRechecked(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	d.device("bob@example.org", "phone")
	d.account("bob@example.org", func(a *store.Account) { a.Secure = access.SecureRequired })
	d.suspend("eve@example.org")
	final := func(session, account string) *access.Login {
		l := relayed(session, account, "")
		l.Secret = nil
		return l
	}
	for i, c := range []struct {
		account, ends string
		reported      bool // Dovecot reports a success before it answers the door
	}{
		{"ann@example.org", "next ok", false},
		{"bob@example.org", "deny secure_password_required", false},
		{"eve@example.org", "deny suspended", true},
		{"joe@elsewhere.example", "next ok", false}, // the next passdb's own name
		{"u1234", "next ok", false},
	} {
		session := fmt.Sprint("sasl-", i)
		d.want(relayed(session, "nick@example.org", "right"), "next ok")
		if c.reported {
			d.Report(ending(session, "nick@example.org", "smtp", true))
		}
		got := d.Recheck(final(session, c.account), "nick@example.org")
		if end(got) != c.ends {
			t.Errorf("%s: %s, want %s", c.account, end(got), c.ends)
		}
		if got.Reason == access.ReasonSuspended && got.Message == "" {
			t.Error("whoever's secret was verified hears why")
		}
		d.Report(ending(session, "nick@example.org", "smtp", got.Outcome != access.Deny))
	}
	d.wantRecords("allow ok", "deny secure_password_required", "deny secure_password_required", "deny suspended", "deny suspended", "allow ok", "allow ok")
	d.wantMail(mail("ann@example.org", home, 1), "next ok")

	away := newSite(t).open(t, func(o *gate.Options) { o.MaxStaleness = 0 })
	if got := away.Recheck(final("sasl-1", "ann@example.org"), "nick@example.org"); got.Outcome != access.TempFail {
		t.Errorf("without a store: %s", end(got))
	}
	if log := away.log.decisions(); !slices.ContainsFunc(log, func(s string) bool { return strings.Contains(s, "store_unavailable") }) {
		t.Errorf("logged %q", log)
	}
}
