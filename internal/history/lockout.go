package history

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/store"
)

// The limits of [History.Recent], newest first: admitted logins (about 300 ms of work) and records
// in total, so that a flood of guesses does not displace admitted logins.
const (
	maxRecent     = 20_000
	maxRecentRead = 100_000
)

// Recent is the recent logins of a domain's accounts.
type Recent struct {
	members map[string][]*Login // by account, newest first; one of several that the rules cannot distinguish
}

// kind is the part of an account's login that rules depend on.
type kind struct {
	account  string
	ip       netip.Addr
	client   access.ClientType
	protocol access.Protocol
}

// Recent reads the admitted logins since a time: the newest 20 000, or those among the newest 100
// 000 records. Logins of masters do not count for the account.
func (h *History) Recent(ctx context.Context, domain string, since time.Time) (*Recent, error) {
	r := &Recent{members: map[string][]*Login{}}
	seen := map[kind]bool{}
	read, came := 0, 0
	l := new(Login)
	err := h.each(ctx, domain, since, func(rec *store.LoginRecord) bool {
		read++
		if cameIn(rec) && rec.MasterUser == "" && h.Recall(rec, l) {
			came++
			k := kind{l.Address, l.login.IP, l.Client, l.login.Protocol}
			if !seen[k] {
				seen[k] = true
				r.members[l.Address] = append(r.members[l.Address], l)
				l = new(Login)
			}
		}
		return came < maxRecent && read < maxRecentRead
	})
	return r, err
}

// Locked is an account that a change of rules would lock out: none of its recent ways to log in
// would remain open.
type Locked struct {
	Account  string
	IP       netip.Addr // of their last login, as the following
	Client   access.ClientType
	Protocol access.Protocol
	Time     time.Time
	PolicyID string // that would refuse it, when one would
}

// LockedOut compares the present rules with changed ones. active are the accounts with a recent
// login that the present rules permit, locked those of them with none that the changed rules
// permit; both sorted by account.
func (r *Recent) LockedOut(before, after *access.Rules) (active []string, locked []Locked) {
	for account, logins := range r.members {
		refused := func(rules *access.Rules) bool {
			return !slices.ContainsFunc(logins, func(l *Login) bool { reason, _ := l.judge(rules); return reason == "" })
		}
		if refused(before) {
			continue
		}
		active = append(active, account)
		if !refused(after) {
			continue
		}
		last := logins[0]
		_, policyID := last.judge(after)
		locked = append(locked, Locked{account, last.login.IP, last.Client, last.login.Protocol, last.login.Time, policyID})
	}
	slices.Sort(active)
	slices.SortFunc(locked, func(a, b Locked) int { return strings.Compare(a.Account, b.Account) })
	return active, locked
}
