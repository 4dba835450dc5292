package throttle

import (
	"hash/maphash"
	"math"
	"math/bits"
	"strings"
	"time"
)

// Distributed is guessing at a domain from many sources that each stay below the limits.
type Distributed struct {
	Domain   string
	Sources  int // estimated within about 3 %, as are the accounts
	Accounts int
	Since    time.Time
}

const (
	// manyAccounts is how many accounts of a domain guesses must concern to count as distributed:
	// guesses at one account are limited by its own counter.
	manyAccounts = 10
	// maxDomains bounds the domains whose guesses are estimated, at 4 KB each.
	maxDomains = 4096
)

// spread estimates from how many sources, and at how many accounts of a domain, wrong secrets came
// within a window. Guesses from an address that the account is used from do not count: people
// mistype, and a directory that is down refuses everybody.
type spread struct {
	sources, accounts [2]sketch // of this half of the window, and of the one before
	began             time.Time // of this half
	newest            time.Time
	length            time.Duration
	since             time.Time // when the limit was reached; zero while it is not
}

// Expired implements [expiring.Value].
func (s *spread) Expired(now time.Time) bool { return now.Sub(s.newest) >= s.length }

// turn begins another half of the window when its time has come.
func (s *spread) turn(now time.Time) {
	switch half := s.length / 2; {
	case now.Sub(s.began) < half:
		return
	case now.Sub(s.began) < 2*half:
		s.sources[1], s.accounts[1] = s.sources[0], s.accounts[0]
	default:
		s.sources[1], s.accounts[1] = sketch{}, sketch{}
	}
	s.sources[0], s.accounts[0], s.began = sketch{}, sketch{}, now
}

// judge notes whether the limit is reached, and reports whether it was not before. Once it is, half
// of it keeps it so.
func (s *spread) judge(limit int, now time.Time) (began bool) {
	sources, accounts := s.sources[0].count(&s.sources[1]), s.accounts[0].count(&s.accounts[1])
	switch was := !s.since.IsZero(); {
	case !was && sources >= limit && accounts >= manyAccounts:
		s.since, began = now, true
	case was && sources < limit/2:
		s.since = time.Time{}
	}
	return began
}

// spreads counts a wrong secret for its domain, and reports whether distributed guessing begins with
// it.
func (t *Throttle) spreads(p pair, at time.Time) bool {
	_, domain, _ := strings.Cut(p.account, "@")
	if _, known := t.known.Get(p, at); t.limits.Distributed <= 0 || known || domain == "" || !p.source.IsValid() {
		return false
	}
	s, ok := t.domains.Get(domain, at)
	if !ok {
		s = &spread{began: at, length: t.limits.Window}
		t.domains.Put(domain, s)
	}
	if at.After(s.newest) {
		s.newest = at
	}
	s.turn(at)
	s.sources[0].add(maphash.Comparable(t.seed, p.source))
	s.accounts[0].add(maphash.String(t.seed, p.account))
	if !s.judge(t.limits.Distributed, at) {
		return false
	}
	t.attacked[domain] = s
	return true
}

// underAttack reports whether distributed guessing at the domain of an account is going on.
func (t *Throttle) underAttack(account string, now time.Time) bool {
	_, domain, _ := strings.Cut(account, "@")
	s, ok := t.attacked[domain]
	return ok && !s.Expired(now)
}

// calm ends distributed guessing that has stopped and returns its domains.
func (t *Throttle) calm(now time.Time) (ended []string) {
	for domain, s := range t.attacked {
		if !s.Expired(now) {
			s.turn(now)
			s.judge(t.limits.Distributed, now)
		} else {
			s.since = time.Time{}
		}
		if s.since.IsZero() {
			ended = append(ended, domain)
			delete(t.attacked, domain)
		}
	}
	t.domains.Sweep(now)
	return ended
}

// Distributed returns the domains at which distributed guessing is going on, in no order.
func (t *Throttle) Distributed(now time.Time) (list []Distributed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for domain, s := range t.attacked {
		if !s.Expired(now) {
			list = append(list, Distributed{
				Domain: domain, Sources: s.sources[0].count(&s.sources[1]), Accounts: s.accounts[0].count(&s.accounts[1]), Since: s.since,
			})
		}
	}
	return list
}

// sketch estimates how many different values were added, by linear counting (Whang et al., 1990):
// the share of bits that no value has set. It is exact within a few percent up to about 30 000.
type sketch [sketchBits / 64]uint64

const sketchBits = 8192

func (s *sketch) add(hash uint64) {
	bit := hash % sketchBits
	s[bit/64] |= 1 << (bit % 64)
}

// count estimates the number of values in either sketch.
func (s *sketch) count(other *sketch) int {
	unset := sketchBits
	for i := range s {
		unset -= bits.OnesCount64(s[i] | other[i])
	}
	return int(math.Round(sketchBits * math.Log(sketchBits/math.Max(1, float64(unset)))))
}
