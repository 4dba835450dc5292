package gate

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestQueueServesInOrderWithoutBlockingOthers(t *testing.T) {
	q := newQueue()
	enter := func(keys ...any) func() {
		t.Helper()
		leave, waited, err := q.enter(t.Context(), keys...)
		if err != nil || waited {
			t.Fatalf("keys %v: waited %t, %v", keys, waited, err)
		}
		return leave
	}
	ann := enter("ann", 1)
	// One who waits for ann does not keep source 2 busy.
	second := make(chan func())
	go func() {
		leave, waited, err := q.enter(context.Background(), "ann", 2)
		if err != nil || !waited {
			t.Errorf("waited %t, %v", waited, err)
		}
		second <- leave
	}()
	q.await(1)
	enter("bob", 2)()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if leave, waited, err := q.enter(gone, "ann", 3); leave != nil || !waited || !errors.Is(err, context.Canceled) {
		t.Errorf("after its context ended: waited %t, %v", waited, err)
	}
	ann()
	(<-second)()
	enter("ann", 1, 2, 3)()
	if len(q.busy)+len(q.waiting) != 0 {
		t.Errorf("%d keys busy, %d waiting after all left", len(q.busy), len(q.waiting))
	}
}

// await returns once n are waiting.
func (q *queue) await(n int) {
	for {
		q.mu.Lock()
		waiting := len(q.waiting)
		q.mu.Unlock()
		if waiting == n {
			return
		}
	}
}

// However many enter and give up, there is one holder for each key.
func TestQueueAdmitsOneHolder(t *testing.T) {
	q := newQueue()
	var held [3]sync.Mutex
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			if i%3 == 0 {
				go cancel()
			}
			defer cancel()
			a, b := i%3, (i+i/3)%3
			keys := []any{a}
			if a != b {
				keys = append(keys, b)
			}
			leave, _, err := q.enter(ctx, keys...)
			if err != nil {
				return
			}
			for _, k := range keys {
				if !held[k.(int)].TryLock() {
					t.Errorf("two holders of key %d", k)
				}
			}
			for _, k := range keys {
				held[k.(int)].Unlock()
			}
			leave()
		})
	}
	all.Wait()
	if len(q.busy)+len(q.waiting) != 0 {
		t.Errorf("%d keys busy, %d waiting after all left", len(q.busy), len(q.waiting))
	}
}
