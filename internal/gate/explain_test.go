package gate_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/store"
)

// What is explained is what happens, and leaves nothing behind.
func TestExplain(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	d.account("ann@example.org", nil)
	d.clients(access.ClientWeb, "127.0.0.1")
	phone := d.device("ann@example.org", "phone")
	d.policy(access.Policy{
		ID: "office", Name: "Office", Type: access.Whitelist, Enabled: true, Mode: access.Enforce, Scope: access.Scope{All: true},
		IPs: []string{"203.0.113.0/24"}, Clients: []access.ClientType{access.ClientThirdParty},
	})
	var ends []string // of the real logins
	for _, from := range []string{"203.0.113.9", "198.51.100.1", "127.0.0.1"} {
		for credential, secret := range map[string]string{"": "the mailbox password", "phone": phone} {
			explained := d.Explain(imap("ann@example.net", "", from), credential, nil)
			if len(explained.Trace) == 0 {
				t.Errorf("%s with %q: no trace", from, credential)
			}
			if len(d.log.decisions()) != len(ends) {
				t.Fatalf("%s with %q: explaining was logged", from, credential)
			}
			d.want(imap("ann@example.net", secret, from), end(explained))
			ends = append(ends, end(explained))
		}
	}
	d.wantRecords(ends...) // and no others

	// Rules in place of the domain's, and a service that a setting maps to no protocol.
	disable := func(set *access.Settings) { set.PutPolicy(&access.Policy{ID: "office", Enabled: false}) }
	rules := d.Store.State.Rules("example.org", time.Now(), disable)
	if got := end(d.Explain(imap("ann@example.org", "", "198.51.100.1"), "", rules)); got != "next ok" {
		t.Errorf("without the policy: %s", got)
	}
	if got := end(d.Explain(&access.Login{Account: "ann@example.org", Service: "xmpp", IP: netip.MustParseAddr("203.0.113.9")}, "", nil)); got != "deny protocol_disabled" {
		t.Errorf("an unknown service: %s", got)
	}
	if rules := d.Store.State.Rules("example.com", time.Now(), disable); rules != nil {
		t.Error("a domain that is not managed has rules")
	}
}

// A record, decided again by the rules that decided it, comes out as it did: whoever's passwords
// are where, under enforcement or not, by every kind of secret.
func TestRecordsExplained(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*gate.Options){"kept here": nil, "of the next passdb": next} {
		for _, enforced := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, enforced %v", name, enforced), func(t *testing.T) {
				t.Parallel()
				d := newSite(t).daemon(t, func(o *gate.Options) {
					o.Throttle.PerAccount = 100 // of one login only
					if set != nil {
						set(o)
					}
				})
				d.domain(func(doc *store.Domain) {
					doc.SecurePasswords = store.SecurePasswordPolicy{Enforced: enforced, Scope: access.Scope{All: true}}
				})
				d.clients(access.ClientWeb, webmail)
				phone, old := d.device("ann@example.org", "phone"), d.device("ann@example.org", "old")
				strange := d.device("bob@example.org", "other") // looks like a secure password, and is none of Ann's
				d.revoke("ann@example.org", "old")
				d.mailbox("ann@example.org", "bob@example.org", "eve@example.org")
				d.suspend("eve@example.org")
				d.policy(access.Policy{ID: "no-cafe", Name: "No café", Type: access.Blacklist, Enabled: true, Scope: access.Scope{All: true}, IPs: []string{cafe}})
				d.policy(access.Policy{ID: "not-home", Name: "Not from home", Type: access.Whitelist, Mode: access.Report, Enabled: true, Scope: access.Scope{All: true}, IPs: []string{office}})

				var ends []string
				login := func(l *access.Login, report bool, right bool) {
					l.Session = fmt.Sprint("s", len(ends))
					got := d.login(l)
					if got.Outcome == access.Next && report {
						d.Report(&access.Ending{Account: l.Account, IP: l.IP, Service: l.Service, Session: l.Session, Success: right})
						got.Outcome, got.Reason = access.Deny, access.ReasonBadSecret
						if right {
							got.Outcome, got.Reason = access.Allow, access.ReasonOK
						}
					}
					ends = append(ends, end(got))
				}
				for _, from := range []string{home, cafe, webmail} {
					for _, account := range []string{"ann@example.org", "eve@example.org", "new@example.org"} {
						for _, secret := range []string{"right", "wrong", "", phone, old, strange} {
							login(imap(account, secret, from), true, secret == "right")
						}
						login(imap(account, "right", from), false, false)
						master := imap(account, "the master's", from)
						master.MasterUser = "admin"
						login(master, true, true)
						hidden := imap(account, "", from)
						hidden.Lookup, hidden.Mechanism = access.LookupCredentials, "SCRAM-SHA-256"
						login(hidden, true, true)
					}
				}
				for i := range 6 {
					login(imap("bob@example.org", fmt.Sprint("guess", i), office), true, false)
				}

				h := history.History{State: d.Store.State}
				_, v := d.Store.State.View("ann@example.org")
				for i, rec := range d.wantRecords(ends...) {
					var l history.Login
					if !h.Recall(&rec, &l) {
						t.Fatalf("not recalled: %+v", rec)
					}
					got := l.Explain(d.Site, v.Rules)
					if rec.Outcome == access.Allow && slices.ContainsFunc(got.Trace, func(s access.Step) bool { return strings.Contains(s.Detail, "assumed to be") }) {
						t.Errorf("what was verified is called an assumption: %+v", got.Trace)
					}
					if end(got) != ends[i] || got.PolicyID != rec.PolicyID || !slices.Equal(got.WouldRefuse, rec.WouldRefuse) {
						t.Errorf("%s by %s would refuse %v, and explained %s by %s would refuse %v\n%+v\n%+v",
							ends[i], rec.PolicyID, rec.WouldRefuse, end(got), got.PolicyID, got.WouldRefuse, rec, got.Trace)
					}
				}
			})
		}
	}
}
