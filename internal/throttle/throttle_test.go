package throttle

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func limited() *Throttle { return New(Limits{PerAddress: 5, PerAccount: 3, Window: time.Hour}) }

// A flood from many addresses takes bounded memory, which is freed when the window ends.
func TestFloodIsBounded(t *testing.T) {
	g := limited()
	now := time.Now()
	for i := range maxEntries + 100 {
		ip := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		g.Wrong(fmt.Sprint(i), ip, uint64(i), now)
		g.Succeeded(fmt.Sprint(i), ip, now)
	}
	for name, n := range map[string]int{"accounts": g.accounts.Len(), "sources": g.sources.Len(), "pairs": g.pairs.Len(), "known": g.known.Len()} {
		if n != maxEntries {
			t.Errorf("%d %s, want %d", n, name, maxEntries)
		}
	}
	one := netip.MustParseAddr("203.0.113.9")
	for i := range 1000 {
		g.Wrong("ann@example.org", one, uint64(i), now.Add(time.Duration(i)*time.Second))
	}
	if w, _ := g.accounts.Get("ann@example.org", now); len(w.tokens) > 10 {
		t.Errorf("%d tokens of one account", len(w.tokens))
	}
	// The newest tokens are kept, so the account stays throttled for the whole window.
	last := now.Add(999 * time.Second)
	if !g.Throttled("ann@example.org", netip.MustParseAddr("203.0.113.10"), false, last.Add(time.Hour-10*time.Second)) {
		t.Error("the newest guesses were dropped")
	}
	g.Sweep(last.Add(time.Hour))
	if g.accounts.Len()+g.sources.Len()+g.pairs.Len() != 0 || g.known.Len() == 0 {
		t.Errorf("after the window %d accounts, %d sources, %d pairs, %d known", g.accounts.Len(), g.sources.Len(), g.pairs.Len(), g.known.Len())
	}
	if g.Sweep(now.Add(knownFor)); g.known.Len() != 0 {
		t.Errorf("%d known pairs after a week", g.known.Len())
	}
}

// Without a limit for accounts, only addresses are counted: what all of them try together takes no
// memory of one account.
func TestAddressesAlone(t *testing.T) {
	g, now := New(Limits{PerAddress: 5, Window: time.Hour}), time.Now()
	for i := range 1000 {
		g.Wrong("", netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), uint64(i), now)
	}
	if accounts, sources, _ := g.Entries(); accounts != 0 || g.pairs.Len() != 0 || sources != 1000 {
		t.Errorf("%d accounts, %d pairs, %d sources", accounts, g.pairs.Len(), sources)
	}
	ip := netip.MustParseAddr("203.0.113.9")
	g.Succeeded("", ip, now)
	if g.Throttled("", ip, false, now) || g.Throttled("", netip.MustParseAddr("203.0.113.10"), false, now) {
		t.Error("an address without guesses is throttled")
	}
	g = New(Limits{PerAddress: 5, Window: time.Hour})
	for i := range 5 {
		g.Wrong("", ip, uint64(i), now)
	}
	if !g.Throttled("", ip, false, now) {
		t.Error("five guesses from one address are not throttled")
	}
}

// Guesses at other accounts from a known address do not push its own guesses out of the count.
func TestOthersDoNotHideGuessesFromKnownAddress(t *testing.T) {
	g := limited()
	now := time.Now()
	ip := netip.MustParseAddr("203.0.113.9")
	g.Succeeded("ann@example.org", ip, now)
	for i := range 3 {
		g.Wrong("ann@example.org", ip, uint64(i), now)
		for other := range 100 {
			g.Wrong(fmt.Sprint(other), ip, uint64(1000+other), now)
		}
	}
	if !g.Throttled("ann@example.org", ip, false, now) {
		t.Error("three wrong secrets of ann are not throttled")
	}
}

func TestThrottledDoesNotAllocate(t *testing.T) {
	g := limited()
	now := time.Now()
	ip := netip.MustParseAddr("2001:db8::1")
	g.Wrong("ann@example.org", ip, 1, now)
	if n := testing.AllocsPerRun(100, func() { g.Throttled("ann@example.org", ip, false, now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// An exempt source is not throttled for others' guesses, but each of its accounts is.
func TestExemptSource(t *testing.T) {
	g := limited()
	now := time.Now()
	webmail := netip.MustParseAddr("192.0.2.1")
	for i := range 100 {
		g.Wrong(fmt.Sprint(i), webmail, uint64(i), now)
	}
	for i := range 3 {
		g.Wrong("ann@example.org", webmail, uint64(1000+i), now)
	}
	for account, want := range map[string]bool{"bob@example.org": false, "ann@example.org": true} {
		if got := g.Throttled(account, webmail, true, now); got != want {
			t.Errorf("%s throttled at an exempt source: %t", account, got)
		}
	}
	if !g.Throttled("bob@example.org", webmail, false, now) {
		t.Error("the source is not throttled without the exemption")
	}
}
