package redisstore_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

// Of any number of calls at once exactly as many succeed as the bucket has; a call that lacks one
// bucket takes from none, a repeated one takes nothing more, and what is given back can be taken
// again.
func TestBuckets(t *testing.T) {
	r := begin(t)
	j := redisstore.Open(r.Options())
	t.Cleanup(func() { _ = j.Close() })
	take := func(key string, n int) store.Take { return store.Take{Key: key, N: n, Rate: 10, Per: 24 * time.Hour} }
	try := func(takes ...store.Take) int {
		t.Helper()
		short, err := j.Take(t.Context(), "example.org", store.NewID(), takes)
		if err != nil {
			t.Fatal(err)
		}
		return short
	}
	var all sync.WaitGroup
	var taken atomic.Int64
	for range 20 {
		all.Go(func() {
			if short, err := j.Take(t.Context(), "example.org", store.NewID(), []store.Take{take("a", 1)}); err == nil && short < 0 {
				taken.Add(1)
			}
		})
	}
	all.Wait()
	if n := taken.Load(); n != 10 {
		t.Errorf("%d of 10 were taken", n)
	}
	if short := try(take("b", 1), take("a", 1)); short != 1 {
		t.Errorf("the second is empty: %d", short)
	}
	if short := try(take("b", 10)); short >= 0 {
		t.Error("a refused call took from the other bucket")
	}
	id := store.NewID()
	back := &store.Spend{ID: id, Domain: "example.org", Takes: []store.Take{take("a", -3)}}
	for range 3 {
		if _, err := j.Spend(t.Context(), back); err != nil {
			t.Fatal(err)
		}
	}
	if short := try(take("a", 4)); short != 0 {
		t.Error("given back more than once")
	}
	if short := try(take("a", 3)); short >= 0 {
		t.Error("not given back")
	}
	if _, err := j.Spend(t.Context(), &store.Spend{ID: store.NewID(), Domain: "example.org", Takes: []store.Take{take("c", 10)}, Time: time.Now().Add(-13 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if short := try(take("c", 5)); short >= 0 {
		t.Error("what was taken half a day ago has refilled by half")
	}
	if short := try(take("c", 1)); short != 0 {
		t.Error("more than half has refilled")
	}
}
