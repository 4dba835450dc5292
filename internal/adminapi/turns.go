package adminapi

import (
	"net/http"
	"sync"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// turns bounds how many requests of a kind run at a time, which hold memory and a processor that
// logins want too.
type turns struct {
	most int // at a time
	each int // of them for the keys of one domain, or of one account: others want some as well

	mu    sync.Mutex
	taken int
	by    map[string]int // domain or account
}

func newTurns(most, each int) *turns { return &turns{most: most, each: each, by: map[string]int{}} }

// take gives a caller a turn, to be given back once, or refuses when there is none.
func (t *turns) take(id *identity) (giveBack func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var whose string // "" for the site's
	switch id.role {
	case store.RoleDomain:
		whose = id.domain
	case store.RoleSelf:
		whose = id.account
	case store.RoleAdmin, store.RoleRead, store.RoleLogin:
	}
	if t.taken >= t.most || whose != "" && t.by[whose] >= t.each {
		return nil, api.Refuse(http.StatusTooManyRequests, "busy", "as many requests of this kind are being answered as there may be at a time: try again in a moment")
	}
	t.taken++
	t.by[whose]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.taken--
		if t.by[whose]--; t.by[whose] == 0 {
			delete(t.by, whose)
		}
	}, nil
}
