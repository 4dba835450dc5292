package throttle

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// Held names exactly those whose logins are refused, with since when, until when and why.
func TestHeldBack(t *testing.T) {
	g := limited()
	now := time.Now()
	guesser, home := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::7")
	g.Succeeded("bob@example.org", home, now)
	for i := range 5 {
		g.Wrong(fmt.Sprintf("user%d@example.org", i), guesser, uint64(i), now.Add(time.Duration(i)*time.Minute))
	}
	for i := range 3 {
		g.Wrong("ann@example.org", netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), uint64(10+i), now)
		g.Wrong("bob@example.org", home, uint64(20+i), now)
	}
	later := now.Add(5 * time.Minute)
	list := g.Held(later)
	at := func(account string, source netip.Prefix) *Held {
		i := slices.IndexFunc(list, func(h Held) bool { return h.Account == account && h.Source == source })
		if i < 0 {
			t.Fatalf("%q from %v is not in %+v", account, source, list)
		}
		return &list[i]
	}
	source := at("", Source(guesser))
	if !source.Since.Equal(now.Add(4*time.Minute)) || !source.Until.Equal(now.Add(time.Hour)) || source.Wrong != 5 || len(source.Tried) != 5 {
		t.Errorf("the guesser: %+v", source)
	}
	if ann := at("ann@example.org", netip.Prefix{}); len(ann.From) != 3 || !ann.Since.Equal(now) {
		t.Errorf("ann: %+v", ann)
	}
	at("bob@example.org", netip.Prefix{}) // from elsewhere
	at("bob@example.org", Source(home))
	if len(list) != 4 {
		t.Errorf("%d entries: %+v", len(list), list)
	}
	if left := g.Held(now.Add(time.Hour + time.Minute)); len(left) != 0 {
		t.Errorf("after the window: %+v", left)
	}
}

// Lifting forgets everything that was counted until then, also what is reported late, and nothing
// later.
func TestLift(t *testing.T) {
	g := limited()
	now := time.Now()
	home, other := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("203.0.113.10")
	guess := func(n int, ip netip.Addr, at time.Time) {
		for i := range n {
			g.Wrong("ann@example.org", ip, uint64(100*at.Second()+i), at)
		}
	}
	g.Succeeded("ann@example.org", home, now)
	guess(3, home, now)
	if !g.Lift("ann@example.org", netip.Prefix{}, now) || g.Throttled("ann@example.org", home, false, now) || g.Throttled("ann@example.org", other, false, now) {
		t.Error("ann is held back after it was lifted")
	}
	guess(3, other, now.Add(-time.Second)) // another node's, which come late
	if g.Throttled("ann@example.org", other, false, now) {
		t.Error("guesses from before count")
	}
	guess(3, other, now.Add(time.Second))
	if !g.Throttled("ann@example.org", other, false, now.Add(time.Second)) {
		t.Error("guesses after it do not count")
	}
	for i := range 5 {
		g.Wrong(fmt.Sprint(i), other, uint64(1000+i), now)
	}
	if !g.Throttled("bob@example.org", other, false, now) || !g.Lift("", Source(other), now) || g.Throttled("bob@example.org", other, false, now) {
		t.Error("the address was not held back, or is after it was lifted")
	}
	if g.Lift("nobody@example.org", netip.Prefix{}, now) {
		t.Error("what was never counted was lifted")
	}
}

// Ten thousand addresses with one guess each are noticed once, and nobody is refused for it; with
// KnownOnly, only addresses that the account is not used from.
func TestDistributedGuessing(t *testing.T) {
	g := New(Limits{PerAddress: 5, PerAccount: 10_000, Window: time.Hour, Distributed: 100})
	now := time.Now()
	home, away := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("203.0.113.10")
	g.Succeeded("user1@example.org", home, now)
	began := 0
	for i := range 10_000 {
		ip := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if g.Wrong(fmt.Sprintf("user%d@example.org", i%500), ip, uint64(i), now) {
			began++
		}
	}
	d := g.Distributed(now)
	if began != 1 || len(d) != 1 || d[0].Domain != "example.org" {
		t.Fatalf("began %d times: %+v", began, d)
	}
	if d[0].Sources < 9_000 || d[0].Sources > 11_000 || d[0].Accounts < 450 || d[0].Accounts > 550 {
		t.Errorf("estimated %+v, want 10000 and 500", d[0])
	}
	if g.Throttled("user1@example.org", away, false, now) {
		t.Error("somebody is shut out")
	}
	g.limits.KnownOnly = true
	if !g.Throttled("user1@example.org", away, false, now) || g.Throttled("user1@example.org", home, false, now) ||
		g.Throttled("user1@example.org", away, true, now) || g.Throttled("user1@example.net", away, false, now) {
		t.Error("KnownOnly refuses others than unknown addresses of the domain")
	}
	if ended := g.Sweep(now.Add(20 * time.Minute)); len(ended) != 0 {
		t.Errorf("ended too early: %v", ended)
	}
	if ended := g.Sweep(now.Add(61 * time.Minute)); !slices.Equal(ended, []string{"example.org"}) || len(g.Distributed(now.Add(61*time.Minute))) != 0 {
		t.Errorf("not ended: %v", ended)
	}
}

// Neither a few addresses, nor many at few accounts, nor the accounts' own addresses are a botnet.
func TestNotDistributed(t *testing.T) {
	g := New(Limits{PerAddress: 5, PerAccount: 10_000, Window: time.Hour, Distributed: 100})
	now := time.Now()
	for i := range 1000 {
		ip := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		own := fmt.Sprintf("user%d@own.example", i)
		g.Succeeded(own, ip, now)
		g.Wrong(own, ip, uint64(i), now)
		g.Wrong(fmt.Sprintf("user%d@accounts.example", i%5), ip, uint64(i), now)
		g.Wrong(fmt.Sprintf("user%d@addresses.example", i), netip.AddrFrom4([4]byte{10, 1, 0, byte(i % 50)}), uint64(i), now)
	}
	if d := g.Distributed(now); len(d) != 0 {
		t.Errorf("noticed %+v", d)
	}
}

func BenchmarkWrong(b *testing.B) {
	g := New(Limits{PerAddress: 20, PerAccount: 10, Window: time.Hour, Distributed: 100})
	now := time.Now()
	for i := 0; b.Loop(); i++ {
		g.Wrong("ann@example.org", netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), uint64(i), now)
	}
}
