// Package expiring provides a map of bounded size whose entries expire.
//
// It has no clock and no lock: callers pass the time and synchronise.
package expiring

import (
	"iter"
	"time"
)

// Value is an entry that knows whether it has expired. It may be extended while it is in the map.
type Value interface{ Expired(now time.Time) bool }

// Map holds at most a fixed number of entries. It is not safe for concurrent use: callers lock it
// with what belongs to it.
type Map[K comparable, V Value] struct {
	limit   int
	entries map[K]V
}

// New returns an empty map that holds at most limit entries, which must be positive. Memory grows
// with the entries, not with the limit.
func New[K comparable, V Value](limit int) *Map[K, V] {
	return &Map[K, V]{limit, map[K]V{}}
}

// Get returns the entry of a key unless it has expired by now; an expired one stays until it is
// replaced or swept.
func (m *Map[K, V]) Get(k K, now time.Time) (V, bool) {
	v, ok := m.entries[k]
	if ok && !v.Expired(now) {
		return v, true
	}
	var none V
	return none, false
}

// Put sets the entry of a key. A full map first drops an arbitrary other entry: an attacker who
// fills the map cannot choose which.
func (m *Map[K, V]) Put(k K, v V) {
	if _, ok := m.entries[k]; !ok && len(m.entries) >= m.limit {
		for other := range m.entries {
			delete(m.entries, other)
			break
		}
	}
	m.entries[k] = v
}

// Delete removes the entry of a key, expired or not; it does nothing if there is no such entry.
func (m *Map[K, V]) Delete(k K) { delete(m.entries, k) }

// Len returns the number of entries, including expired ones that [Map.Sweep] has not removed yet:
// what the limit counts.
func (m *Map[K, V]) Len() int { return len(m.entries) }

// All goes through the entries that have not expired, in no order. Entries may be deleted by the
// caller meanwhile.
func (m *Map[K, V]) All(now time.Time) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for k, v := range m.entries {
			if !v.Expired(now) && !yield(k, v) {
				return
			}
		}
	}
}

// Sweep removes all entries that have expired by now. It looks at every entry, so its time grows
// with the map.
func (m *Map[K, V]) Sweep(now time.Time) {
	for k, v := range m.entries {
		if v.Expired(now) {
			delete(m.entries, k)
		}
	}
}

// Take removes the entries that f selects, expired or not, and returns them in no order. It looks
// at every entry.
func (m *Map[K, V]) Take(f func(V) bool) (taken []V) {
	for k, v := range m.entries {
		if f(v) {
			taken = append(taken, v)
			delete(m.entries, k)
		}
	}
	return taken
}
