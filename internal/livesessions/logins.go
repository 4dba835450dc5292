package livesessions

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	// maxLogins bounds the logins that are remembered; those beyond are read from the login records
	// when they are needed.
	maxLogins = 200_000
	// maxEach bounds the different logins of one place.
	maxEach = 32
	// inFlight is how long after its secret was verified a login may appear as a session, and
	// inFlightNext the same of a login that the next passdb has yet to verify. What appears even
	// later ends within pollEvery.
	inFlight     = 3 * time.Second
	inFlightNext = 30 * time.Second
)

// arriving reports whether the session of a login may still be about to appear.
func arriving(s *access.Session, now time.Time) bool {
	if s.Credential == store.CredentialUnverified && s.Verified.IsZero() {
		return now.Sub(s.Began) <= inFlightNext
	}
	return now.Sub(s.Verified) <= inFlight
}

// origin is an account at an address: what a kick of Dovecot 2.3 can name.
type origin struct {
	account string
	ip      netip.Addr
}

// place is what Dovecot lists of a session.
type place struct {
	origin
	protocol access.Protocol
}

func placeOf(s *access.Session) place {
	return place{origin{s.Account, s.IP}, s.Protocol}
}

// logins remembers how sessions logged in.
type logins struct {
	nodes int // number of Dovecots

	mu     sync.Mutex
	ids    map[string]*access.Session
	places map[place][]*access.Session // those that differ, oldest first
	recent []*access.Session           // by time
	ended  map[ending]time.Time        // when all sessions from there were ended last, or not among the open ones
}

// ending is an origin whose sessions were ended at one Dovecot. Others may still have some.
type ending struct {
	node int
	origin
}

func newLogins(nodes int) logins {
	return logins{nodes: nodes, ids: map[string]*access.Session{}, places: map[place][]*access.Session{}, ended: map[ending]time.Time{}}
}

// add remembers a login that is decided now.
func (l *logins) add(s *access.Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(s)
	old := 0
	for old < len(l.recent) && !arriving(l.recent[old], s.Began) {
		old++
	}
	l.recent = append(l.recent[old:], s)
}

// recall remembers a login that was read from the records.
func (l *logins) recall(s *access.Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.Began.After(l.over(origin{s.Account, s.IP})) {
		l.keep(s)
	}
}

// over returns when the sessions from an origin were ended at all Dovecots; the zero Time if some
// may have sessions from before.
func (l *logins) over(o origin) (first time.Time) {
	for i := range l.nodes {
		at := l.ended[ending{i, o}]
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.IsZero() {
			break
		}
	}
	return first
}

func (l *logins) keep(s *access.Session) {
	p := placeOf(s)
	list := l.places[p]
	i := slices.IndexFunc(list, func(o *access.Session) bool { return alike(o, s) })
	if len(l.ids)+len(l.places) >= maxLogins && i < 0 {
		return
	}
	if s.ID != "" {
		l.ids[s.ID] = s
	}
	switch {
	case i >= 0 && list[i].Began.After(s.Began):
	case i >= 0:
		list[i] = s
	case len(list) >= maxEach:
		l.places[p] = append(slices.Clone(list[1:]), s)
	default:
		l.places[p] = append(list, s)
	}
}

// alike reports whether any rule judges two logins of a place alike.
func alike(a, b *access.Session) bool {
	return a.Credential == b.Credential && a.Client == b.Client && a.Service == b.Service && a.Hidden == b.Hidden && a.PasswordSet.Equal(b.PasswordSet)
}

// closed notes how the login of a session ended that the next passdb decided. One that failed is
// forgotten.
func (l *logins) closed(id string, success bool, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.recent {
		if s.ID != id {
			continue
		}
		if !success {
			l.drop(s)
			return
		}
		verified := *s // the other is read without the lock
		verified.Verified = at
		l.recent[i] = &verified
		l.ids[id] = &verified
		if list := l.places[placeOf(s)]; slices.Contains(list, s) {
			list = slices.Clone(list)
			list[slices.Index(list, s)] = &verified
			l.places[placeOf(s)] = list
		}
		return
	}
}

// drop forgets one login. Others of its place that are alike stay if they were later.
func (l *logins) drop(s *access.Session) {
	delete(l.ids, s.ID)
	l.recent = slices.DeleteFunc(l.recent, func(o *access.Session) bool { return o == s })
	p := placeOf(s)
	list := slices.DeleteFunc(slices.Clone(l.places[p]), func(o *access.Session) bool { return o == s })
	if len(list) == 0 {
		delete(l.places, p)
	} else {
		l.places[p] = list
	}
}

// byID returns the login of a session, nil if it is not known.
func (l *logins) byID(id string) *access.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ids[id]
}

// at returns the logins that a session of a place at a Dovecot may be of: not those whose sessions
// there were all ended.
func (l *logins) at(node int, p place, now time.Time) []*access.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	ended := l.ended[ending{node, p.origin}]
	return slices.DeleteFunc(slices.Clone(l.places[p]), func(s *access.Session) bool {
		return s.Began.Before(ended) && !arriving(s, now)
	})
}

// arriving returns the logins of the last minutes that a scope covers.
func (l *logins) arriving(c *scope, now time.Time) []*access.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []*access.Session
	for _, s := range l.recent {
		if arriving(s, now) && c.covers(s.Account) {
			list = append(list, s)
		}
	}
	return list
}

// known returns the logins of accounts that a scope covers. Of several without an id that are judged
// alike it returns one.
func (l *logins) known(c *scope) []*access.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []*access.Session
	for _, s := range l.ids {
		if c.covers(s.Account) {
			list = append(list, s)
		}
	}
	for _, at := range l.places {
		for _, s := range at {
			if s.ID == "" && c.covers(s.Account) {
				list = append(list, s)
			}
		}
	}
	return list
}

// end notes that all sessions from an origin that began before a time are over at a Dovecot: they
// were kicked, or it has none.
func (l *logins) end(node int, o origin, before time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended[ending{node, o}] = before
}

// forgetOne forgets the login of a session that was ended.
func (l *logins) forgetOne(s *access.Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(s)
}

// forget forgets the logins that have no session any more: those from before since, and not in
// flight, whose place or id is not among the open ones.
func (l *logins) forget(open map[place]bool, ids map[string]bool, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := func(s *access.Session) bool { return s.Began.Before(since) && !arriving(s, since) }
	ended := func(s *access.Session) bool { return old(s) && s.Began.Before(l.over(origin{s.Account, s.IP})) }
	for p, list := range l.places {
		gone := old
		if open[p] {
			gone = ended
		}
		if list = slices.DeleteFunc(slices.Clone(list), gone); len(list) == 0 {
			delete(l.places, p)
		} else {
			l.places[p] = list
		}
	}
	for id, s := range l.ids {
		if !ids[id] && old(s) && !slices.Contains(l.places[placeOf(s)], s) {
			delete(l.ids, id)
		}
	}
	l.recent = slices.DeleteFunc(l.recent, old)
	for o, at := range l.ended {
		if since.Sub(at) > 24*time.Hour {
			delete(l.ended, o)
		}
	}
}
