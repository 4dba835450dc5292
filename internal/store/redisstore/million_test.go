package redisstore_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

// BenchmarkStartOfMillion measures a daemon's start from Redis with a domain of a million accounts
// of three secure passwords each, until decisions can be made.
func BenchmarkStartOfMillion(b *testing.B) {
	const name, accounts, atOnce = "example.org", 1_000_000, 5000
	r := redistest.Start(b)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m := &redistest.Marker{}
	begin := func(ctx context.Context) *store.Store {
		log := redisstore.Open(r.Options())
		b.Cleanup(func() { _ = log.Close() })
		s := &store.Store{Log: log, Upkeep: log, State: store.NewState(), Marker: m, Logger: hclog.NewNullLogger(), Timeout: time.Minute, VerifyPause: time.Hour}
		go s.Run(ctx)
		for ok := false; !ok; ok, _ = s.State.Ready() {
			time.Sleep(time.Millisecond)
		}
		return s
	}
	s := begin(ctx)
	for first := 0; first < accounts; first += atOnce {
		err := s.Update(ctx, store.ShardOf(name), store.Actor{Name: "bench"}, false, func(c *store.Change) error {
			for i := first; i < first+atOnce; i++ {
				a := &store.Account{Address: fmt.Sprintf("user%d@%s", i, name), Departments: []string{"sales"}, Aliases: []string{}, CreatedAt: c.Now}
				for range 3 {
					p := store.SecurePassword{ID: store.NewID(), Label: "device", PepperID: "01234567", CreatedAt: c.Now}
					copy(p.Hash[:], p.ID+p.ID)
					a.Secrets = append(a.Secrets, p)
				}
				c.PutAccount(a)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	var times, own []float64
	for b.Loop() {
		ctx, cancel := context.WithCancel(ctx)
		runtime.GC()
		wall, cpu := time.Now(), processorTime()
		if _, n := begin(ctx).State.Counts(); n != accounts {
			b.Error(n)
		}
		times, own = append(times, time.Since(wall).Seconds()), append(own, (processorTime()-cpu).Seconds())
		cancel()
	}
	slices.Sort(times)
	slices.Sort(own)
	b.ReportMetric(times[len(times)/2], "s/start")
	b.ReportMetric(own[len(own)/2], "CPU-s/start")
}
