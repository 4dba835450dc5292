package store

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Nothing is done before the state is loaded, then soon, then at the interval, and nothing after the end.
func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := NewState()
		ctx, end := context.WithCancel(t.Context())
		passes := 0
		go st.Every(ctx, time.Minute, func(context.Context, time.Time) { passes++ })
		check := func(after time.Duration, want int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if passes != want {
				t.Errorf("%d passes, want %d", passes, want)
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
