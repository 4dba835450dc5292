package gate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

const (
	// farBelow is the part of a bound, in per cent, up to which messages do not wait for Redis.
	farBelow = 50
	// maxAhead is the part of a bound, in per cent, that this daemon accepts before Redis knows of
	// it. Redis answers with what all daemons took, so that together they exceed a bound by no more
	// than this for each further daemon. Bounds below 20 have no such part.
	maxAhead = 5
	// mergeFor is how long what is taken is merged into one write.
	mergeFor = time.Second
	// maxMerged bounds the buckets of one such write.
	maxMerged = 64
)

// isAhead reports whether a message may take its charges now and have Redis learn of them later: they
// are far below the bounds, by all that is known here, and Redis lacks little of what this daemon
// took. The charges are already taken from this daemon's buckets.
func (l *limits) isAhead(charges []charge, now time.Time) bool {
	for _, c := range charges {
		unknown := l.unknown.Used(c.key, c.rate, now) + c.n
		used := max(l.meter.Used(c.key, c.rate, now), l.shared.Used(c.key, c.rate, now)+unknown)
		if used*100 > farBelow*c.rate.N || unknown*100 > maxAhead*c.rate.N {
			return false
		}
	}
	return true
}

// confirmed notes that Redis took a spend, and what is missing from its buckets now.
func (l *limits) confirmed(s *store.Spend, used []int, now time.Time) {
	for i, t := range s.Takes {
		r := throttle.Rate{N: t.Rate, Per: t.Per}
		if t.N > 0 {
			l.unknown.Spend(t.Key, r, -t.N, now, now)
		}
		if i < len(used) {
			l.shared.Set(t.Key, r, used[i], now)
		}
	}
}

// spendLater takes from the shared buckets behind the decision, or for sign -1 gives back what was
// taken so. What nobody has written yet is merged.
func (g *Gate) spendLater(domain string, charges []charge, sign int, now time.Time) {
	switch {
	case len(charges) == 0:
		return
	case g.Buckets == nil:
		g.announce(charges, sign, now)
		return
	}
	for _, c := range charges {
		g.limits.unknown.Spend(c.key, c.rate, sign*c.n, now, now)
	}
	g.writes.merge(domain, takes(charges, sign), now)
}

// merge adds to what is to be taken from the buckets of a domain.
func (b *writeBehind) merge(domain string, takes []store.Take, now time.Time) {
	b.mu.Lock()
	s := b.merged[domain]
	var old *store.Spend
	if s != nil && (now.Sub(s.Time) > mergeFor || len(s.Takes) >= maxMerged) {
		old, s = s, nil
	}
	if s == nil {
		s = &store.Spend{ID: store.NewID(), Domain: domain, Time: now}
		b.merged[domain] = s
	}
	for _, t := range takes {
		if i := slices.IndexFunc(s.Takes, func(o store.Take) bool { return o.Key == t.Key && o.Rate == t.Rate && o.Per == t.Per }); i >= 0 {
			s.Takes[i].N += t.N
		} else {
			s.Takes = append(s.Takes, t)
		}
	}
	b.mu.Unlock()
	if old != nil {
		b.event(announcement(b.daemon, old))
		b.spend(*old)
	}
	b.nudge()
}

// takeMerged moves what was merged to a batch, and announces it. The lock is held.
func (b *writeBehind) takeMerged(d *delivery) *delivery {
	for domain, s := range b.merged {
		d.Events = append(d.Events, announcement(b.daemon, s))
		d.Spends = append(d.Spends, *s)
		delete(b.merged, domain)
	}
	return d
}

// announcement is the event by which other daemons learn what the messages of this one took. It lists
// the buckets, one a line:
//
//	3 200/1h0m0s example.org/few/rh/ann@example.org
func announcement(daemon string, s *store.Spend) store.Event {
	var list []byte
	for _, t := range s.Takes {
		list = fmt.Appendf(list, "%d %d/%v %s\n", t.N, t.Rate, t.Per, t.Key)
	}
	return store.Event{Origin: daemon, Time: s.Time, Kind: store.EventSpends, Account: string(list)}
}

// announced returns the buckets that an announcement lists; none of a line that cannot be read.
func announced(list string) (takes []store.Take) {
	for line := range strings.Lines(list) {
		amount, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		rate, key, _ := strings.Cut(rest, " ")
		size, span, _ := strings.Cut(rate, "/")
		n, err := strconv.Atoi(amount)
		number, sizeErr := strconv.Atoi(size)
		per, spanErr := time.ParseDuration(span)
		if err == nil && sizeErr == nil && spanErr == nil && number > 0 && per > 0 {
			takes = append(takes, store.Take{Key: key, N: n, Rate: number, Per: per})
		}
	}
	return takes
}
