package throttle

import (
	"net/netip"
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/expiring"
)

// Held is an account, a source, or an account as used from one known source, whose logins are
// refused without verifying their secret.
type Held struct {
	Account string       // "" of a source
	Source  netip.Prefix // the zero Prefix of an account
	Wrong   int          // different wrong secrets that count now
	Since   time.Time    // when the limit was reached
	Last    time.Time    // the newest wrong secret
	Until   time.Time    // when it ends without further wrong secrets
	// From are the sources of the wrong secrets of an account, and Tried the accounts that a source
	// tried: some of them, maxNamed at most.
	From  []netip.Prefix
	Tried []string
}

// maxNamed bounds the sources and accounts that a [Held] names.
const maxNamed = 10

// Held returns who is held back now, in no order. Exempt sources are listed although their logins
// are not refused.
func (t *Throttle) Held(now time.Time) []Held {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []Held
	accounts, sources := map[string]int{}, map[netip.Prefix]int{}
	for account, w := range t.accounts.All(now) {
		if h, ok := w.held(now); ok {
			h.Account, accounts[account] = account, len(list)
			list = append(list, h)
		}
	}
	for source, w := range t.sources.All(now) {
		if h, ok := w.held(now); ok {
			h.Source, sources[source] = source, len(list)
			list = append(list, h)
		}
	}
	for p, w := range t.pairs.All(now) {
		if i, ok := accounts[p.account]; ok && len(list[i].From) < maxNamed {
			list[i].From = append(list[i].From, p.source)
		}
		if i, ok := sources[p.source]; ok && len(list[i].Tried) < maxNamed {
			list[i].Tried = append(list[i].Tried, p.account)
		}
		if _, known := t.known.Get(p, now); !known {
			continue
		}
		if h, ok := w.held(now); ok {
			h.Account, h.Source = p.account, p.source
			list = append(list, h)
		}
	}
	return list
}

// held returns the window as an entry of the list; false if it is below its limit.
func (w *window) held(now time.Time) (Held, bool) {
	var times []time.Time
	for _, at := range w.tokens {
		if now.Sub(at) < w.length {
			times = append(times, at)
		}
	}
	if len(times) < w.enough {
		return Held{}, false
	}
	slices.SortFunc(times, time.Time.Compare)
	return Held{Wrong: len(times), Since: w.since, Last: w.newest, Until: times[len(times)-w.enough].Add(w.length)}, true
}

// Lift forgets the wrong secrets of an account, unless that is "", and of a source, unless that is
// the zero Prefix. Wrong secrets until then that are reported later do not count either. It reports
// whether there were any.
func (t *Throttle) Lift(account string, source netip.Prefix, at time.Time) (found bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if account != "" {
		found = lift(t.accounts, account, at)
		t.lifted.Put(pair{account: account}, lifting{at, t.limits.Window})
	}
	if source.IsValid() {
		found = lift(t.sources, source, at) || found
		t.lifted.Put(pair{source: source}, lifting{at, t.limits.Window})
	}
	for p := range t.pairs.All(at) {
		if account != "" && p.account == account || source.IsValid() && p.source == source {
			found = lift(t.pairs, p, at) || found
		}
	}
	return found
}

// lift removes the tokens of a window until a time.
func lift[K comparable](m *expiring.Map[K, *window], key K, until time.Time) (found bool) {
	w, ok := m.Get(key, until)
	if !ok {
		return false
	}
	for token, at := range w.tokens {
		if !at.After(until) {
			delete(w.tokens, token)
			found = true
		}
	}
	if w.since = (time.Time{}); len(w.tokens) == 0 {
		m.Delete(key)
	}
	return found
}

// lifting is when an entry was lifted. It matters as long as a wrong secret counts.
type lifting struct {
	at     time.Time
	length time.Duration
}

// Expired implements [expiring.Value].
func (l lifting) Expired(now time.Time) bool { return now.Sub(l.at) >= l.length }

// wasLifted reports whether a wrong secret of a time was forgiven for the account and the source.
func (t *Throttle) wasLifted(p pair, at time.Time) bool {
	for _, key := range [...]pair{{account: p.account}, {source: p.source}} {
		if l, ok := t.lifted.Get(key, at); ok && !at.After(l.at) {
			return true
		}
	}
	return false
}

// Entries returns how many accounts, sources and known pairs of both have counters, including
// expired ones that are not swept yet.
func (t *Throttle) Entries() (accounts, sources, known int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.accounts.Len(), t.sources.Len(), t.known.Len()
}
