package rest

import (
	"sync"

	"github.com/drawbridge/drawbridge/internal/api"
)

// Limiter limits how many requests of a kind run at the same time: they occupy memory and a
// processor that logins need.
type Limiter struct {
	most int // at the same time
	each int // of these for one tenant

	mu      sync.Mutex
	running int
	by      map[string]int // tenant
}

// NewLimiter returns a limiter of most requests at the same time, of which each are for one tenant.
func NewLimiter(most, each int) *Limiter {
	return &Limiter{most: most, each: each, by: map[string]int{}}
}

// Take starts a request of a tenant, "" for the site, or refuses it. The caller calls done once.
func (l *Limiter) Take(tenant string) (done func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running >= l.most || tenant != "" && l.by[tenant] >= l.each {
		return nil, api.TooMany("busy", "too many requests of this kind are running: try again in a moment")
	}
	l.running++
	l.by[tenant]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.running--
		if l.by[tenant]--; l.by[tenant] == 0 {
			delete(l.by, tenant)
		}
	}, nil
}
