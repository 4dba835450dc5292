package adminapi

import (
	"net/http"
	"sync"

	"github.com/drawbridge/drawbridge/internal/store"
)

// turns bounds how many requests of a kind run at a time, which hold memory and
// a processor that logins want too.
type turns struct {
	most int // at a time
	each int // of them for those who administer one domain: others want some as well

	mu    sync.Mutex
	taken int
	by    map[string]int // domain
}

func newTurns(most, each int) *turns { return &turns{most: most, each: each, by: map[string]int{}} }

// take gives a caller a turn, to be given back once, or refuses when there is none.
func (t *turns) take(id *identity) (giveBack func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	domain := ""
	if id.role == store.RoleDomain {
		domain = id.domain
	}
	if t.taken >= t.most || domain != "" && t.by[domain] >= t.each {
		return nil, refuse(http.StatusTooManyRequests, "busy", "as many requests of this kind are being answered as there may be, %d at a time and %d of one domain's: try again in a moment", t.most, t.each)
	}
	t.taken++
	t.by[domain]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.taken--
		if t.by[domain]--; t.by[domain] == 0 {
			delete(t.by, domain)
		}
	}, nil
}
