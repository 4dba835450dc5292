package throttle

import (
	"sync"
	"time"

	"github.com/drawbridge/drawbridge/internal/expiring"
)

// Rate is a bound: a bucket of so many, which refills evenly over a period. The zero Rate is no
// bound.
type Rate struct {
	N   int
	Per time.Duration
}

// None reports whether the rate is no bound.
func (r Rate) None() bool { return r.N <= 0 || r.Per <= 0 }

// each is the time in which one refills.
func (r Rate) each() time.Duration { return r.Per / time.Duration(r.N) }

// Meter counts what is taken from buckets, by the generic cell rate algorithm: of each bucket it
// knows the time at which it will be full again. Times are compared by their monotonic clock, so
// that a step of the wall clock changes nothing.
type Meter struct {
	mu   sync.Mutex
	full *expiring.Map[string, fullAt]
}

type fullAt time.Time

// Expired implements [expiring.Value]: a full bucket needs no entry.
func (f fullAt) Expired(now time.Time) bool { return !now.Before(time.Time(f)) }

// NewMeter returns a meter of full buckets: each key may at once take its whole rate. It keeps only
// buckets that are not full.
func NewMeter() *Meter { return &Meter{full: expiring.New[string, fullAt](maxEntries)} }

// Take takes n from the bucket of a key, if it has as many. used is what is missing from the bucket
// afterwards.
func (m *Meter) Take(key string, r Rate, n int, now time.Time) (ok bool, used int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	full := m.at(key, now)
	next := full.Add(time.Duration(n) * r.each())
	if next.Sub(now) > r.Per {
		return false, r.used(full, now)
	}
	m.full.Put(key, fullAt(next))
	return true, r.used(next, now)
}

// Spend takes n from a bucket that need not have as many: what was taken elsewhere, at a time. A
// negative n gives back.
func (m *Meter) Spend(key string, r Rate, n int, at, now time.Time) {
	if r.None() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	full := m.at(key, at).Add(time.Duration(n) * r.each())
	if most := now.Add(2 * r.Per); full.After(most) { // a flood elsewhere does not close the bucket for days
		full = most
	}
	if full.After(now) {
		m.full.Put(key, fullAt(full))
	} else {
		m.full.Delete(key)
	}
}

// Set sets what is missing from a bucket.
func (m *Meter) Set(key string, r Rate, used int, now time.Time) {
	if r.None() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if used <= 0 {
		m.full.Delete(key)
	} else {
		m.full.Put(key, fullAt(now.Add(time.Duration(min(used, 2*r.N))*r.each())))
	}
}

// Used returns what is missing from the bucket of a key now, rounded up: 0 for a full one, at most
// the rate's number.
func (m *Meter) Used(key string, r Rate, now time.Time) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.used(m.at(key, now), now)
}

// at returns when the bucket of a key is full, not before now.
func (m *Meter) at(key string, now time.Time) time.Time {
	if f, ok := m.full.Get(key, now); ok {
		return time.Time(f)
	}
	return now
}

func (r Rate) used(full, now time.Time) int {
	each := r.each()
	return int((full.Sub(now) + each - 1) / each)
}

// Sweep removes the entries of buckets that are full by now, which are as good as none. It looks at
// every entry, under the lock.
func (m *Meter) Sweep(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full.Sweep(now)
}
