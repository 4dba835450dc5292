// Package history holds login records against rules: what a policy would have
// done to the logins of the last days, and whom a change would lock out.
//
// A record does not hold the secret, so that only the steps that do not depend
// on it are judged again ([access.Judge]): suspension, blocked addresses,
// protocol switches, access policies. The account is taken as it is now, with
// its departments and switches; client type and address are those of the record.
// A region that the record lacks is looked up now.
package history

import (
	"context"
	"net/netip"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/store"
)

// History reads login records.
type History struct {
	State   *store.State
	Journal store.Journal
	// Region tells the region of an address; nil when there is no database.
	Region func(netip.Addr) string
}

// Each gives f a domain's records from since on, newest first, until f reports
// false. The record is f's only during the call.
func (h *History) Each(ctx context.Context, domain string, since time.Time, f func(*store.LoginRecord) bool) error {
	q := store.RecordQuery{Domain: domain, Since: since, Limit: 1000}
	for {
		records, next, err := h.Journal.Records(ctx, q)
		if err != nil {
			return err
		}
		for i := range records {
			if !f(&records[i]) {
				return nil
			}
		}
		if next == "" {
			return nil
		}
		q.Cursor = next
	}
}

// Login is a recorded login, to be judged again.
type Login struct {
	access.Query // without Rules
	login        access.Login
	account      access.Account
}

// Recall fills l with what a record and the account as it is now tell of a
// login. It reports false for a record whose account is no address.
func (h *History) Recall(rec *store.LoginRecord, l *Login) bool {
	addr, err := address.Parse(rec.Account, "")
	if err != nil {
		return false
	}
	addr = h.State.Canonical(addr)
	l.login = access.Login{
		Account: addr, Service: rec.Service, Protocol: access.ParseProtocol(rec.Protocol),
		IP: parseAddr(rec.IP), RealIP: parseAddr(rec.RealIP), TLS: rec.TLS, Mechanism: rec.Mechanism,
		Session: rec.Session, MasterUser: rec.MasterUser, ClientID: rec.ClientID, Time: rec.Time,
	}
	if !l.login.RealIP.IsValid() {
		l.login.RealIP = l.login.IP
	}
	l.Query = access.Query{Login: &l.login, Address: addr, Client: rec.Client, Region: rec.Region}
	if l.Region == "" && h.Region != nil {
		l.Region = h.Region(l.login.IP)
	}
	a, _ := h.State.Account(addr)
	l.Account = a.Doc.Facts(&l.account)
	return true
}

// Judge tells whether rules refuse the login, why, and by which policy; reason
// "" is no refusal.
func (l *Login) Judge(rules *access.Rules) (reason access.Reason, policyID string) {
	l.Rules = rules
	return access.Judge(&l.Query)
}

// CameIn reports whether the login of a record was admitted, as far as is
// known: one that the next passdb decides and that was never reported counts.
func CameIn(rec *store.LoginRecord) bool {
	return rec.Outcome == access.Allow || rec.Outcome == access.Next
}

func parseAddr(s string) netip.Addr {
	ip, _ := netip.ParseAddr(s) // the zero Addr for none
	return ip
}
