package submission

import (
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/clocktest"
)

// A session goes on while the clock is set by hours, and is forgotten an hour after its last request.
func TestClockIsSet(t *testing.T) {
	for _, ahead := range []time.Duration{6 * time.Hour, -6 * time.Hour} {
		s, t0 := New(), time.Now()
		now := func(after time.Duration) time.Time { return clocktest.Set(t0.Add(after), ahead) }
		s.login(phone, t0)
		b := s.request(1, t0, all)
		check(t, "before", b, Bound, "phone")
		s.Sweep(now(time.Minute))
		if s.request(1, now(time.Minute), all) != b {
			t.Errorf("%s: the session is forgotten", ahead)
		}
		if s.request(1, now(time.Minute+sessionMemory), all) == b {
			t.Errorf("%s: the session is remembered after an hour", ahead)
		}
		check(t, "a login before the clock was set", s.request(2, now(authenticationMemory-time.Second), all), Bound, "phone")
		if got := s.request(3, now(authenticationMemory), all).State(); got == Bound {
			t.Errorf("%s: a login of yesterday counts", ahead)
		}
	}
}
