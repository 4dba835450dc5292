package gate

import (
	"net/netip"
	"sync"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Throttle bounds guessing (setting [throttle]).
type Throttle struct {
	PerAddress int           // different wrong (account, secret) pairs from an IPv4 address or IPv6 /64
	PerAccount int           // different wrong secrets of an account
	Window     time.Duration // for how long one counts
}

// known is for how long an address that succeeded for an account is not shut out by others'
// guesses.
const known = 7 * 24 * time.Hour

// maxWindows bounds the addresses, the accounts and the known pairs counted at once.
const maxWindows = 100_000

// guesses counts wrong secrets, as tokens of (account, secret): the same stale secret again counts
// once, one secret tried on many accounts counts each time.
type guesses struct {
	limit    Throttle
	mu       sync.Mutex
	accounts map[string]window
	sources  map[netip.Prefix]window
	known    map[source]time.Time
}

type source struct {
	account string
	prefix  netip.Prefix
}

// window holds the tokens that count, and when each was last seen.
type window map[uint64]guess

type guess struct {
	account string
	at      time.Time
}

func newGuesses(t Throttle) *guesses {
	return &guesses{limit: t, accounts: map[string]window{}, sources: map[netip.Prefix]window{}, known: map[source]time.Time{}}
}

// prefix is what counts as one source; invalid for a missing address.
func prefix(ip netip.Addr) netip.Prefix {
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // the zero Prefix for an invalid address
	return p
}

// throttled reports whether guessing has to stop. A secret that already counts is throttled like
// any other: it must not be told apart.
func (g *guesses) throttled(account string, ip netip.Addr, now time.Time) bool {
	p := prefix(ip)
	g.mu.Lock()
	defer g.mu.Unlock()
	if at, ok := g.known[source{account, p}]; ok && now.Sub(at) < known {
		// Others' guesses do not count here; its own for this account do.
		return g.sources[p].count(now, g.limit.Window, account) >= g.limit.PerAccount
	}
	return g.sources[p].count(now, g.limit.Window, "") >= g.limit.PerAddress ||
		g.accounts[account].count(now, g.limit.Window, "") >= g.limit.PerAccount
}

func (w window) count(now time.Time, within time.Duration, account string) int {
	n := 0
	for _, g := range w {
		if now.Sub(g.at) < within && (account == "" || g.account == account) {
			n++
		}
	}
	return n
}

func (g *guesses) add(account string, ip netip.Addr, token uint64, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	note(g.accounts, account, token, guess{account, at}, g.limit.PerAccount)
	note(g.sources, prefix(ip), token, guess{account, at}, max(g.limit.PerAddress, g.limit.PerAccount))
}

// note keeps no more tokens than are needed to refuse, and no more windows than memory allows: a
// flood from everywhere cannot exhaust it.
func note[K comparable](m map[K]window, key K, token uint64, seen guess, enough int) {
	w := m[key]
	if w == nil {
		makeRoom(m, maxWindows)
		w = window{}
		m[key] = w
	}
	if _, ok := w[token]; !ok && len(w) > 2*enough {
		var oldest uint64
		for t, old := range w {
			if o, ok := w[oldest]; !ok || old.at.Before(o.at) {
				oldest = t
			}
		}
		delete(w, oldest)
	}
	w[token] = seen
}

func (g *guesses) succeeded(account string, ip netip.Addr, at time.Time) (news bool) {
	key := source{account, prefix(ip)}
	g.mu.Lock()
	defer g.mu.Unlock()
	before, ok := g.known[key]
	if !ok {
		makeRoom(g.known, maxWindows)
	}
	g.known[key] = at
	return !ok || at.Sub(before) > time.Hour
}

func (g *guesses) sweep(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	expire(g.accounts, now, g.limit.Window)
	expire(g.sources, now, g.limit.Window)
	for k, at := range g.known {
		if now.Sub(at) >= known {
			delete(g.known, k)
		}
	}
}

func expire[K comparable](m map[K]window, now time.Time, within time.Duration) {
	for k, w := range m {
		for t, g := range w {
			if now.Sub(g.at) >= within {
				delete(w, t)
			}
		}
		if len(w) == 0 {
			delete(m, k)
		}
	}
}

// guess counts a wrong secret here and on all daemons.
func (g *Gate) guess(account string, ip netip.Addr, token uint64, at time.Time) {
	g.guesses.add(account, ip, token, at)
	g.behind.event(store.Event{Origin: g.origin, Time: at, Kind: store.EventGuess, Token: token, Account: account, IP: address.IPText(ip)})
}

// success notes that an address came in, here and on all daemons.
func (g *Gate) success(account string, ip netip.Addr, at time.Time) {
	if g.guesses.succeeded(account, ip, at) {
		g.behind.event(store.Event{Origin: g.origin, Time: at, Kind: store.EventSuccess, Account: account, IP: address.IPText(ip)})
	}
}
