package redistest

import (
	"context"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

// Options are how the server is reached.
func (s *Server) Options() redisstore.Options {
	return redisstore.Options{Addrs: []string{s.Socket}}
}

// NewStore returns a store that does not run yet, with a [Marker] of its own and without a log, and
// what it keeps its changes in, open until the test ends.
func NewStore(t testing.TB, opt redisstore.Options) (*store.Store, *redisstore.Redis) {
	t.Helper()
	r := redisstore.Open(opt)
	t.Cleanup(func() { _ = r.Close() })
	return &store.Store{
		Log: r, Upkeep: r, State: store.NewState(), Logger: hclog.NewNullLogger(), Marker: &Marker{}, PutBack: opt.Cluster || opt.Master != "",
	}, r
}

// Run runs a store as a daemon does, until the test ends.
func Run(t testing.TB, s *store.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// Ready waits until a store is loaded and accepted.
func Ready(t testing.TB, s *store.Store) {
	t.Helper()
	Eventually(t, "the store is loaded", func() bool { ok, _ := s.State.Ready(); return ok && s.Trouble() == nil })
}

// Marker remembers a store in memory. The zero value knows none yet.
type Marker struct {
	mu sync.Mutex
	ID string
}

// StoreID implements [store.Marker].
func (m *Marker) StoreID() (string, error) { m.mu.Lock(); defer m.mu.Unlock(); return m.ID, nil }

// SetStoreID implements [store.Marker].
func (m *Marker) SetStoreID(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ID = id
	return nil
}
