package admin_test

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admintest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// noAsker answers where nothing is verified or counted.
type noAsker struct{}

func (noAsker) Throttled() bool { return false }
func (noAsker) Mailbox() bool   { return false }

// BenchmarkInspection measures an inspection of 100 000 accounts with as many login records, and
// decisions beside it, as a ratio of the processor time that a decision takes without and beside it:
// medians of the rounds. The goals are 10 s and 0.9.
func BenchmarkInspection(b *testing.B) {
	const accounts = 100_000
	ctx := context.Background()
	a, red := admintest.New(b)
	admintest.Populate(b, a, "example.org")
	d, err := admintest.As(a, store.RoleAdmin, "", "").Domain("example.org")
	if err != nil {
		b.Fatal(err)
	}
	names := make([]string, accounts)
	for i := range names {
		names[i] = fmt.Sprintf("user%06d@example.org", i)
	}
	for first := 0; first < accounts; first += admin.Chunk {
		err := d.Change(ctx, func(ch *store.Change) error {
			admin.Describe(ch, "bench", "example.org", "example.org")
			for i := first; i < min(first+admin.Chunk, accounts); i++ {
				account := admin.NewAccount(names[i], ch)
				account.CreatedAt = ch.Now.AddDate(-1, 0, 0)
				ch.PutAccount(account)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		var batch store.Batch
		for i := first; i < min(first+admin.Chunk, accounts); i++ {
			batch.Records = append(batch.Records, store.LoginRecord{
				ID: store.NewID(), Time: time.Now(), Domain: "example.org", Account: names[i],
				Protocol: "imap", IP: "203.0.113.9", Outcome: access.Allow, Reason: access.ReasonOK, Client: access.ClientThirdParty,
			})
		}
		if err := red.AppendRecords(ctx, store.BatchID{Origin: "bench", N: uint64(first/admin.Chunk + 1)}, &batch); err != nil {
			b.Fatal(err)
		}
	}
	var decided, spent atomic.Int64 // spent is the processor time of these decisions, in nanoseconds
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		runtime.LockOSThread()
		var room access.Account
		login := access.Login{Protocol: access.IMAP, IP: netip.MustParseAddr("203.0.113.9")}
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			addr, v := a.Store.State.View(names[i%accounts])
			access.Decide(&access.Query{Site: a.Site, Login: &login, Address: addr, Rules: v.Rules, Account: v.Account.Facts(&room), Client: access.ClientThirdParty}, noAsker{}, false)
			if i%1000 == 0 {
				decided.Store(int64(i))
				spent.Store(int64(threadTime()))
			}
		}
	}()
	rate := func(f func()) (each float64) {
		n, cpu := decided.Load(), spent.Load()
		f()
		return float64(spent.Load()-cpu) / float64(decided.Load()-n)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var ratios, times []float64
	for b.Loop() {
		begin, cpu := time.Now(), threadTime()
		beside := rate(func() {
			if _, err := d.Inspect(ctx, "", 90, false, admin.Page{Limit: 1000}); err != nil {
				b.Error(err)
			}
		})
		took := time.Since(begin)
		times = append(times, took.Seconds())
		b.ReportMetric((threadTime() - cpu).Seconds(), "CPU-s")
		alone := rate(func() {
			for end := time.Now().Add(took); time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
		})
		ratios = append(ratios, alone/beside)
	}
	median := func(of []float64) float64 {
		slices.Sort(of)
		return of[len(of)/2]
	}
	b.ReportMetric(median(times), "s")
	b.ReportMetric(median(ratios), "decisions-ratio")
	b.Logf("ratios %.3f, seconds %.1f", ratios, times)
}

// threadTime is the processor time of the calling thread.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // never fails
	return time.Duration(t.Nano())
}
