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

// Where the next passdb verifies passwords, a page's log-in proves its second factor after the
// password: before, neither the answer nor the count of wrong codes shows that there is one.
func TestPageProvesFactorAfterPassword(t *testing.T) {
	t.Parallel()
	verified := 0
	d := newSite(t).daemon(t, func(o *gate.Options) {
		next(o)
		o.Factor = func(_ context.Context, _, otp string, _ netip.Addr) (string, error) {
			verified++
			if otp != "right" {
				return "wrong code", nil
			}
			return "", nil
		}
	})
	d.domain(nil)
	d.account("bob@example.org", func(a *store.Account) {
		a.Factors = []store.Factor{{ID: "f", Kind: factor.TOTP, ConfirmedAt: time.Now()}}
	})
	page := func(session, otp string) *access.Login {
		l := relayed(session, "bob@example.org", "secret")
		l.Protocol, l.Service, l.Page, l.OTP = access.Web, "web", true, otp
		return l
	}
	passdb := func(session string) *access.Login {
		l := page(session, "")
		l.Page, l.Relayed = false, false
		return l
	}

	for _, otp := range []string{"", "bad", "right"} { // the password is wrong
		session := "sasl-wrong" + otp
		d.want(page(session, otp), "next ok")
		d.want(passdb(session), "next ok")
		d.Report(ending(session, "bob@example.org", "web", false))
	}
	if verified > 0 {
		t.Errorf("%d codes were verified with wrong passwords", verified)
	}
	d.wantRecords("deny bad_secret", "deny bad_secret", "deny bad_secret")

	ends := []string{"deny bad_secret", "deny bad_secret", "deny bad_secret"}
	for _, c := range []struct{ otp, ends, record string }{
		{"", "deny second_factor_required", "deny second_factor_required"},
		{"bad", "deny second_factor_required", "deny second_factor_required"},
		{"right", "next ok", "allow ok"},
	} {
		session := "sasl-right" + c.otp
		d.want(page(session, c.otp), "next ok")
		d.want(passdb(session), "next ok")
		d.Report(ending(session, "bob@example.org", "web", true)) // Dovecot's
		got := d.Recheck(page(session, c.otp), "bob@example.org")
		if end(got) != c.ends {
			t.Errorf("code %q: %s, want %s", c.otp, end(got), c.ends)
		}
		if denied := got.Outcome == access.Deny; denied && (len(got.SecondFactors) != 1 || got.Message == "") {
			t.Errorf("code %q: %+v", c.otp, got)
		}
		ends = append(ends, c.record)
	}
	list := d.wantRecords(ends...)
	if list[4].Note != "wrong code" {
		t.Errorf("the record of a wrong code has the note %q", list[4].Note)
	}
	if verified != 2 {
		t.Errorf("%d codes were verified, want 2", verified)
	}

	// The page asks for the factor that was missing.
	resume := func(account, otp, want string) {
		t.Helper()
		l := page("", otp)
		l.Account, l.Secret = account, nil
		if got := d.Resume(t.Context(), l); end(got) != want {
			t.Errorf("resumed by %s with code %q: %s, want %s", account, otp, end(got), want)
		}
	}
	resume("bob@example.org", "bad", "deny second_factor_required")
	resume("bob@example.org", "right", "allow ok")
	resume("eve@elsewhere.example", "right", "deny unmanaged_domain")
	d.suspend("bob@example.org")
	resume("bob@example.org", "right", "deny suspended")
	d.wantRecords(append(ends, "deny second_factor_required", "allow ok", "deny suspended")...)
	d.account("bob@example.org", func(a *store.Account) { a.Suspended = false })

	// A webmail does not come back after its password, so it is asked first.
	l := passdb("")
	d.want(l, "deny second_factor_required")
}
