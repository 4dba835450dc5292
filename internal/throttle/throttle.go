// Package throttle limits password guessing: it counts different wrong secrets per account and per
// source address, and decides when to stop verifying.
//
// A wrong secret is counted as a token of (account, secret). The same stale secret counts once,
// however often a device repeats it. One secret that is tried on many accounts counts each time.
//
// An address from which an account logged in successfully is known for that account for a week.
// Guesses from elsewhere, and guesses at other accounts, do not lock a known address out: only its
// own guesses at that account do.
//
// An exempt address, such as that of a webmail for many users, is never throttled as a source. Its
// guesses still count for their accounts.
//
// Distributed guessing, from many sources that each stay below the limits, is noticed per domain. It
// shuts nobody out, unless the limits say that only known addresses may then use mailbox passwords.
//
// The package is pure: it has no clock, no I/O and no log.
package throttle

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/drawbridge/drawbridge/internal/expiring"
)

// Limits are the settings of [throttle] in drawbridge.toml; config validates their bounds.
type Limits struct {
	PerAddress int           // different wrong (account, secret) pairs from one source
	PerAccount int           // different wrong secrets of one account; 0: accounts are not counted
	Window     time.Duration // how long a wrong secret counts
	// Distributed is the number of sources of wrong secrets in a domain that is reported; 0 for none.
	Distributed int
	// KnownOnly refuses logins from addresses that are not known for their account while guessing at
	// the domain is distributed.
	KnownOnly bool
}

const (
	// knownFor is how long an address is known for an account after a successful login.
	knownFor = 7 * 24 * time.Hour
	// maxEntries bounds each of the maps of accounts, sources, pairs and known pairs.
	maxEntries = 100_000
)

// Throttle counts different wrong secrets by account and by source in bounded memory. It is safe
// for concurrent use.
type Throttle struct {
	limits Limits

	mu       sync.Mutex
	accounts *expiring.Map[string, *window]
	sources  *expiring.Map[netip.Prefix, *window]
	pairs    *expiring.Map[pair, *window]
	known    *expiring.Map[pair, success]
	lifted   *expiring.Map[pair, lifting] // of an account or a source; the other is zero
	domains  *expiring.Map[string, *spread]
	attacked map[string]*spread // those that distributed guessing is going on at
	seed     maphash.Seed       // of the sketches, so that nobody can choose what collides
}

// pair is an account as it is used from one source.
type pair struct {
	account string
	source  netip.Prefix
}

// success is the time of the last successful login of a pair.
type success time.Time

// Expired implements [expiring.Value].
func (s success) Expired(now time.Time) bool { return now.Sub(time.Time(s)) >= knownFor }

// window holds the tokens of wrong secrets with the time when each was last seen.
type window struct {
	tokens map[uint64]time.Time
	newest time.Time
	length time.Duration
	enough int       // tokens that suffice to refuse
	since  time.Time // when there were enough; zero while there are not
}

// Expired implements [expiring.Value].
func (w *window) Expired(now time.Time) bool { return now.Sub(w.newest) >= w.length }

// New returns a throttle that has counted nothing. Its maps hold a fixed number of entries; an
// attacker cannot choose which one is dropped.
func New(l Limits) *Throttle {
	return &Throttle{
		limits:   l,
		accounts: expiring.New[string, *window](maxEntries),
		sources:  expiring.New[netip.Prefix, *window](maxEntries),
		pairs:    expiring.New[pair, *window](maxEntries),
		known:    expiring.New[pair, success](maxEntries),
		lifted:   expiring.New[pair, lifting](maxEntries),
		domains:  expiring.New[string, *spread](maxDomains),
		attacked: map[string]*spread{},
		seed:     maphash.MakeSeed(),
	}
}

// Source returns the network that counts as one source: an IPv4 address or an IPv6 /64. All logins
// without an address share the zero Prefix.
func Source(ip netip.Addr) netip.Prefix {
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // the zero Prefix for an invalid address
	return p
}

// Throttled reports whether a login must be refused without verifying its secret. It does not
// depend on the secret: a wrong one that was already counted gets the same answer as a new one.
func (t *Throttle) Throttled(account string, ip netip.Addr, exempt bool, now time.Time) bool {
	p := pair{account, Source(ip)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.known.Get(p, now); ok {
		return t.limits.PerAccount > 0 && count(t.pairs, p, now) >= t.limits.PerAccount
	}
	return !exempt && count(t.sources, p.source, now) >= t.limits.PerAddress ||
		!exempt && t.limits.KnownOnly && t.underAttack(account, now) ||
		t.limits.PerAccount > 0 && count(t.accounts, account, now) >= t.limits.PerAccount
}

// count returns the number of tokens that count now.
func count[K comparable](m *expiring.Map[K, *window], key K, now time.Time) int {
	w, ok := m.Get(key, now)
	if !ok {
		return 0
	}
	return w.count(now)
}

func (w *window) count(now time.Time) int {
	n := 0
	for _, at := range w.tokens {
		if now.Sub(at) < w.length {
			n++
		}
	}
	return n
}

// Wrong counts a wrong secret. It reports whether distributed guessing at the account's domain begins
// with it.
func (t *Throttle) Wrong(account string, ip netip.Addr, token uint64, at time.Time) (distributed bool) {
	p := pair{account, Source(ip)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wasLifted(p, at) {
		return false
	}
	if t.limits.PerAccount > 0 {
		add(t.accounts, account, token, at, t.limits.PerAccount, t.limits.Window)
		add(t.pairs, p, token, at, t.limits.PerAccount, t.limits.Window)
	}
	add(t.sources, p.source, token, at, t.limits.PerAddress, t.limits.Window)
	return t.spreads(p, at)
}

// add notes a token. A window keeps at most about twice the tokens that suffice to refuse, the
// newest ones.
func add[K comparable](m *expiring.Map[K, *window], key K, token uint64, at time.Time, enough int, length time.Duration) {
	w, ok := m.Get(key, at)
	if !ok {
		w = &window{tokens: map[uint64]time.Time{}, length: length, enough: enough}
		m.Put(key, w)
	}
	if _, ok := w.tokens[token]; !ok && len(w.tokens) > 2*enough {
		var oldest uint64
		for t, seen := range w.tokens {
			if o, ok := w.tokens[oldest]; !ok || seen.Before(o) {
				oldest = t
			}
		}
		delete(w.tokens, oldest)
	}
	w.tokens[token] = at
	if at.After(w.newest) {
		w.newest = at
	}
	switch n := w.count(at); {
	case n < w.enough:
		w.since = time.Time{}
	case w.since.IsZero():
		w.since = at
	}
}

// Succeeded notes a successful login: its address is known for the account from now on. News is
// true when other daemons have to be notified: at most once an hour for each pair.
func (t *Throttle) Succeeded(account string, ip netip.Addr, at time.Time) (news bool) {
	p := pair{account, Source(ip)}
	t.mu.Lock()
	defer t.mu.Unlock()
	before, ok := t.known.Get(p, at)
	t.known.Put(p, success(at))
	return !ok || at.Sub(time.Time(before)) > time.Hour
}

// Sweep removes expired entries, and returns the domains where distributed guessing has ended.
func (t *Throttle) Sweep(now time.Time) (calm []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.accounts.Sweep(now)
	t.sources.Sweep(now)
	t.pairs.Sweep(now)
	t.known.Sweep(now)
	t.lifted.Sweep(now)
	return t.calm(now)
}
