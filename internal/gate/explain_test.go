package gate_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
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
