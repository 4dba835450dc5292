package gate

import (
	"context"
	"slices"
	"sync"
)

// queue admits one holder at a time for each key. A caller that needs several keys gets all at
// once, so that waiting for one key never blocks another. Waiting callers are served in order.
type queue struct {
	mu      sync.Mutex
	busy    map[any]bool
	waiting []*waiter
}

type waiter struct {
	keys  []any
	ready chan struct{}
}

func newQueue() *queue { return &queue{busy: map[any]bool{}} }

// enter waits until all keys are free and takes them. It reports whether it had to wait, and
// returns the error of ctx if that ends first. The caller must call leave after success.
func (q *queue) enter(ctx context.Context, keys ...any) (leave func(), waited bool, err error) {
	leave = func() { q.leave(keys) }
	q.mu.Lock()
	if q.take(keys) {
		q.mu.Unlock()
		return leave, false, nil
	}
	w := &waiter{keys, make(chan struct{})}
	q.waiting = append(q.waiting, w)
	q.mu.Unlock()
	select {
	case <-w.ready:
		return leave, true, nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	i := slices.Index(q.waiting, w)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	q.mu.Unlock()
	if i < 0 { // admitted at the same moment
		leave()
	}
	return nil, true, ctx.Err()
}

// take marks all keys as busy, if all are free.
func (q *queue) take(keys []any) bool {
	for _, k := range keys {
		if q.busy[k] {
			return false
		}
	}
	for _, k := range keys {
		q.busy[k] = true
	}
	return true
}

func (q *queue) leave(keys []any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, k := range keys {
		delete(q.busy, k)
	}
	q.waiting = slices.DeleteFunc(q.waiting, func(w *waiter) bool {
		admitted := q.take(w.keys)
		if admitted {
			close(w.ready)
		}
		return admitted
	})
}
