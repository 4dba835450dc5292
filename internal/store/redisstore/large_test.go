//go:build faults

package redisstore_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/redistest"
)

// A shard of more documents than one command of Redis takes arguments is repaired while changes of
// other shards go on.
func TestFaultsOfALargeShard(t *testing.T) {
	const name, accounts = "example.org", 600_000
	r := redistest.Start(t, "appendfsync no")
	m := &redistest.Marker{}
	a := start(t, r.Options(), m).ready(t)
	a.Timeout = time.Minute
	a.accounts(t, name, accounts)
	ctx, raw := context.Background(), dial(t, r)
	if err := raw.Del(ctx, shardKey(name, "docs")).Err(); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the loss is noticed", func() bool { return a.Damage() != nil })

	var stop atomic.Bool
	longest := make(chan time.Duration)
	go func() {
		var most time.Duration
		for !stop.Load() {
			begin := time.Now()
			if err := raw.Ping(ctx).Err(); err != nil {
				t.Error(err)
			}
			most = max(most, time.Since(begin))
		}
		longest <- most
	}()
	begin := time.Now()
	n, err := a.Repair(ctx, false)
	took := time.Since(begin)
	stop.Store(true)
	fmt.Printf("| %d documents of a shard repaired in %.1f s; Redis answered others within %.0f ms |\n", accounts, took.Seconds(), float64((<-longest).Microseconds())/1000)
	if n != 1 || err != nil {
		t.Fatal(n, err)
	}
	late := start(t, r.Options(), &redistest.Marker{ID: m.ID}).ready(t)
	if _, n := late.State.Counts(); n != accounts {
		t.Errorf("%d accounts", n)
	}
	if err := late.putDomain(name); err != nil {
		t.Error(err)
	}
}
