package throttle

import (
	"net/netip"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/clocktest"
)

// A clock that is set by hours throttles nobody longer and lets nobody go on earlier.
func TestClockIsSet(t *testing.T) {
	t0 := time.Now()
	home, away := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.7")
	for _, ahead := range []time.Duration{6 * time.Hour, -6 * time.Hour} {
		now := func(after time.Duration) time.Time { return clocktest.Set(t0.Add(after), ahead) }
		th := New(Limits{PerAddress: 3, PerAccount: 3, Window: 15 * time.Minute})
		th.Succeeded("bob", home, t0)
		for token := range uint64(3) {
			th.Wrong("ann", away, token, t0)
		}
		if !th.Throttled("ann", home, false, now(time.Minute)) || !th.Throttled("ann", home, false, now(15*time.Minute-1)) {
			t.Errorf("%s: the account can be guessed before the window ends", ahead)
		}
		if th.Throttled("ann", home, false, now(15*time.Minute)) {
			t.Errorf("%s: the account is throttled after the window", ahead)
		}
		th.Sweep(now(time.Minute))
		if !th.Throttled("ann", home, false, now(time.Minute)) {
			t.Errorf("%s: the sweep forgets wrong secrets", ahead)
		}
		for token := range uint64(3) {
			th.Wrong("bob", away, token, t0)
		}
		if th.Throttled("bob", home, false, now(time.Minute)) {
			t.Errorf("%s: a known address is locked out", ahead)
		}

		m := NewMeter()
		hourly := Rate{N: 10, Per: time.Hour}
		if ok, _ := m.Take("ann", hourly, 10, t0); !ok {
			t.Fatal("the bucket is not full")
		}
		if ok, _ := m.Take("ann", hourly, 1, now(time.Minute)); ok {
			t.Errorf("%s: a sending limit ends early", ahead)
		}
		if ok, _ := m.Take("ann", hourly, 1, now(7*time.Minute)); !ok {
			t.Errorf("%s: a sending limit lasts longer", ahead)
		}
	}
}
