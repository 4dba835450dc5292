// Package clocktest makes the times that a program reads after the clock of its machine was set.
package clocktest

import (
	"time"
	"unsafe"
)

// Set returns the time that [time.Now] would have returned instead of t on a machine whose clock was
// set ahead by a number of whole seconds: the wall clock differs, the monotonic clock does not. It
// panics if t has no monotonic clock.
func Set(t time.Time, ahead time.Duration) time.Time {
	set := t
	wall := (*uint64)(unsafe.Pointer(&set))         //nolint:gosec // G103: the first field; checked below
	*wall += uint64(int64(ahead/time.Second)) << 30 //nolint:gosec // G115: the seconds; negative ones borrow
	if !set.Round(0).Equal(t.Round(0).Add(ahead)) || set.Sub(t) != 0 {
		panic("clocktest: t has no monotonic clock, or time.Time has another form")
	}
	return set
}
