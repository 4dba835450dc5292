package gate

import (
	"net/netip"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

// wrong counts a wrong secret of any daemon.
func (g *Gate) wrong(account string, ip netip.Addr, token uint64, at time.Time) {
	if !g.throttle.Wrong(account, ip, token, at) || time.Since(at) > g.Throttle.Window {
		return
	}
	for _, d := range g.throttle.Distributed(at) {
		if d.Domain == address.Domain(account) {
			g.Log.Warn("distributed guessing: wrong passwords from many addresses at many accounts",
				"domain", d.Domain, "addresses", d.Sources, "accounts", d.Accounts)
			if g.GuessingBegan != nil {
				g.GuessingBegan(d)
			}
		}
	}
}

// HeldBack returns the accounts and addresses that the throttle holds back, and the domains at which
// distributed guessing is going on. Exempt addresses are left out.
func (g *Gate) HeldBack(now time.Time) (held []throttle.Held, distributed []throttle.Distributed) {
	for _, h := range g.throttle.Held(now) {
		if h.Account != "" || !g.Exempt.Contains(h.Source.Addr()) {
			held = append(held, h)
		}
	}
	return held, g.throttle.Distributed(now)
}

// Lift forgets the wrong secrets of an account, or of an address if the account is "", here and on
// all daemons. It reports whether there were any.
func (g *Gate) Lift(account string, ip netip.Addr, now time.Time) bool {
	g.writes.event(store.Event{Origin: g.origin, Time: now, Kind: store.EventLift, Account: account, IP: address.IPText(ip)})
	return g.throttle.Lift(account, throttle.Source(ip), now)
}

// ThrottleEntries returns how many accounts and addresses have counters, and how many addresses are
// known for an account.
func (g *Gate) ThrottleEntries() (accounts, addresses, known int) { return g.throttle.Entries() }

// DistributedGuessing returns the number of domains at which many addresses guess.
func (g *Gate) DistributedGuessing(now time.Time) int { return len(g.throttle.Distributed(now)) }

// Backlog returns how many entries wait in memory to be written, and how many batches in the spool.
func (g *Gate) Backlog() (queued, spooled int) {
	b := g.writes
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.records) + len(b.closings) + len(b.messages) + len(b.events), int(b.spooled.Load())
}

// Dropped returns how many records were lost since the start.
func (g *Gate) Dropped() uint64 { return g.writes.lost.Load() }

// OpenSubmissions returns the number of SMTP connections that are open, as the milter reports them.
func (g *Gate) OpenSubmissions() int { return g.sessions.Open() }
