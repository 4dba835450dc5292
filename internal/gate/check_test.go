package gate_test

import (
	"testing"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Without a passdb of Drawbridge's, Dovecot's checks evaluate the rules that need no secret, and its
// report makes the record.
func TestCheck(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, func(o *gate.Options) { o.Unmanaged.Domains = map[string]bool{"other.example": true} })
	d.domain(nil)
	d.suspend("eve@example.org")
	d.account("bob@example.org", func(a *store.Account) { a.Protocols = access.Switches{"imap": false} })
	d.account("req@example.org", func(a *store.Account) { a.Secure = access.SecureRequired })
	d.evidence(access.ClientWeb, access.Evidence{Networks: []string{office}})
	for _, c := range []struct {
		typed, final, from string
		ends               string
	}{
		{"ann@example.org", "ann@example.org", home, "next ok"},
		{"", "ann@example.org", home, "next ok"},
		{"nobody@example.org", "nobody@example.org", home, "next ok"}, // the site's passdb knows
		{"eve@example.org", "eve@example.org", home, "deny suspended"},
		{"bob@example.org", "bob@example.org", home, "deny protocol_disabled"},
		{"bob@example.org", "bob@example.org", office, "next ok"}, // by the webmail
		{"req@example.org", "req@example.org", home, "deny secure_password_required"},
		{"req@example.org", "req@example.org", office, "next ok"},
		{"nick@example.org", "eve@example.org", home, "deny suspended"}, // mapped
		{"eve@example.org", "u1234", home, "deny suspended"},
		{"ann@example.org", "u1234", home, "next ok"},
		{"x@other.example", "eve@example.org", home, "deny suspended"},
		{"x@other.example", "x@other.example", home, "next unmanaged_domain"},
		{"x@elsewhere.example", "x@elsewhere.example", home, "deny unmanaged_domain"},
		{"ann", "ann", home, "deny unknown_account"},
	} {
		for _, verified := range []bool{false, true} {
			l := imap(c.final, "", c.from)
			l.Secret = nil
			got := d.Check(l, c.typed, verified)
			if end(got) != c.ends {
				t.Errorf("%s as %s from %s, verified %t: %s, want %s", c.typed, c.final, c.from, verified, end(got), c.ends)
			}
			told := got.Message != ""
			if want := got.Outcome == access.Deny && verified && got.Reason != access.ReasonUnmanagedDomain && got.Reason != access.ReasonUnknownAccount; told != want {
				t.Errorf("%s as %s, verified %t: the client reads %q", c.typed, c.final, verified, got.Message)
			}
		}
	}
	away := newSite(t).open(t, func(o *gate.Options) { o.MaxStaleness = 0 })
	if got := away.Check(imap("ann@example.org", "", home), "", true); got.Outcome != access.TempFail {
		t.Errorf("without a store: %s", end(got))
	}
}

func TestReportOfAnUnjudgedLogin(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	report := func(l *access.Login, success, rejected bool) {
		l.Secret = nil
		d.Report(&access.Ending{Account: l.Account, IP: l.IP, Service: l.Service, Success: success, Rejected: rejected, Unjudged: l})
	}
	report(imap("ann@example.org", "", home), true, false)
	report(imap("ann@example.org", "", home), false, false)
	report(imap("ann@example.org", "", home), false, true) // recorded when it was refused
	report(imap("x@elsewhere.example", "", home), true, false)
	report(smtp("ann@example.org", "", home), true, false)
	d.wantRecords("allow ok", "deny bad_secret", "allow ok")
	d.wantMail(mail("ann@example.org", home, 1), "next ok")
}
