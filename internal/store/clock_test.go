package store

import (
	"net/netip"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/clocktest"
)

// The clock jumps ahead, past the end of a block, and is set back: the block holds again.
func TestBlockAfterTheClockWasSetBack(t *testing.T) {
	const name = "example.org"
	st, now := NewState(), time.Now()
	e := change(t, map[string]any{
		"domain/" + name:       Domain{Name: name},
		"block/" + name + "/1": Block{ID: "1", Network: "192.0.2.1", ExpiresAt: now.Add(time.Hour)},
		"block/" + name + "/2": Block{ID: "2", Network: "192.0.2.2", ExpiresAt: now.Add(-time.Hour)},
	})
	if err := st.apply(ShardOf(name), Head{N: 1}, e); err != nil {
		t.Fatal(err)
	}
	blocked := func(ip string) bool {
		d := access.Decide(&access.Query{
			Login: &access.Login{Protocol: access.IMAP, IP: netip.MustParseAddr(ip)}, Address: "ann@" + name, Rules: st.rulesOf(name).rules,
			Account: &access.Account{}, Client: access.ClientThirdParty, Secret: access.Secret{State: access.SecretLive, CredentialID: "x"},
		}, nil, false)
		return d.Reason == access.ReasonIPBlocked
	}
	for _, c := range []struct {
		ahead        time.Duration
		first, other bool
	}{{0, true, false}, {6 * time.Hour, false, false}, {0, true, false}, {-6 * time.Hour, true, true}, {0, true, false}} {
		st.expire(clocktest.Set(now, c.ahead))
		if first, other := blocked("192.0.2.1"), blocked("192.0.2.2"); first != c.first || other != c.other {
			t.Errorf("with the clock %s ahead the blocks are in effect: %t, %t", c.ahead, first, other)
		}
	}
}

// The state does not become stale, and stays no longer fresh, because the clock is set.
func TestSyncedAfterTheClockWasSet(t *testing.T) {
	st, now := NewState(), time.Now()
	st.agreed(now)
	for _, ahead := range []time.Duration{48 * time.Hour, -48 * time.Hour} {
		_, synced := st.Ready()
		if age := clocktest.Set(now.Add(time.Minute), ahead).Sub(synced); age != time.Minute {
			t.Errorf("the clock was set %s ahead: the state is %s old after a minute", ahead, age)
		}
	}
}
