package store

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Nothing is done before the state is loaded, then soon, then at the interval, and nothing after the end.
func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := NewState()
		ctx, end := context.WithCancel(t.Context())
		var passes atomic.Int64
		go st.Every(ctx, time.Minute, func(context.Context, time.Time) { passes.Add(1) })
		check := func(after time.Duration, want int64) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if n := passes.Load(); n != want {
				t.Errorf("%d passes, want %d", n, want)
			}
		}
		check(time.Hour, 0)
		st.loaded.Store(true)
		check(2*time.Second, 1)
		check(50*time.Second, 1)
		check(time.Minute, 2)
		end()
		check(time.Hour, 2)
	})
}
