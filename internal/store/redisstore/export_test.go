package redisstore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/auditchain"
	"github.com/drawbridge/drawbridge/internal/recordtext"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

const million = 1_000_000

// processorTime is what this process has used; the work of Redis is not in it.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkExportOfMillion measures an export of a million login records. The goal is 200 000
// records a second with a heap that does not grow with their number.
func BenchmarkExportOfMillion(b *testing.B) {
	ctx := context.Background()
	_, log := redistest.NewStore(b, redistest.Start(b, "appendonly no").Options())
	const batch = 1000
	for i := 0; i < million; i += batch {
		var records store.Batch
		for k := i; k < i+batch; k++ {
			records.Records = append(records.Records, store.LoginRecord{
				ID: store.NewID(), Time: time.Now(), Domain: "example.org", Account: fmt.Sprintf("user%d@example.org", k%10_000), Protocol: "imap",
				IP: fmt.Sprintf("203.0.113.%d", k%250), Outcome: access.Allow, Reason: access.ReasonOK, Client: access.ClientThirdParty, CredentialID: store.NewID(),
			})
		}
		if err := log.AppendRecords(ctx, store.BatchID{Origin: "bench", N: uint64(i/batch + 1)}, &records); err != nil {
			b.Fatal(err)
		}
	}
	for _, format := range []string{recordtext.JSONL, recordtext.CSV, recordtext.Syslog} {
		b.Run(format, func(b *testing.B) {
			for b.Loop() {
				var mem runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&mem)
				first, peak, n, begin, cpu := mem.HeapAlloc, mem.HeapAlloc, 0, time.Now(), processorTime()
				err := log.ExportRecords(ctx, store.RecordQuery{Domain: "example.org"}, &redisstore.Export{
					Begin: func(int64) {},
					Append: func(part *bytes.Buffer, text string, r *store.LoginRecord) {
						recordtext.Append(part, format, "mx1", text, r)
					},
					Decode: format != recordtext.JSONL,
					Write: func(part []byte) error {
						n += bytes.Count(part, []byte("\n"))
						runtime.ReadMemStats(&mem)
						peak = max(peak, mem.HeapAlloc)
						return nil
					},
				})
				if err != nil || n != million {
					b.Fatal(n, err)
				}
				b.ReportMetric(float64(n)/time.Since(begin).Seconds(), "records/s")
				b.ReportMetric((processorTime() - cpu).Seconds(), "CPU-s")
				b.ReportMetric(float64(peak-first)/(1<<20), "heap-MiB")
			}
		})
	}
}

// BenchmarkVerifyAuditOfMillion measures the verification of a million audit entries. The goal is
// 5 s.
func BenchmarkVerifyAuditOfMillion(b *testing.B) {
	ctx := context.Background()
	server := redistest.Start(b, "appendonly no")
	st, log := redistest.NewStore(b, server.Options())
	redistest.Run(b, st)
	redistest.Ready(b, st)
	// The first entry is a change of the store's own; the others continue its chain.
	shard := store.ShardOf("example.org")
	err := st.Update(ctx, shard, store.Actor{Name: "bench"}, false, func(c *store.Change) error {
		c.PutDomain(&store.Domain{Name: "example.org"})
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	heads, err := log.AuditHeads(ctx)
	if err != nil || len(heads) == 0 {
		b.Fatal(heads, err)
	}
	head := heads[0]
	for _, h := range heads {
		if h.Shard == int(shard) {
			head = h
		}
	}
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: server.Socket})
	b.Cleanup(func() { _ = client.Close() })
	key := fmt.Sprintf("{%d}audit", shard)
	for _, k := range client.Keys(ctx, "*audit*").Val() {
		if n := client.XLen(ctx, k).Val(); n > 0 {
			if last := client.XRevRangeN(ctx, k, "+", "-", 1).Val(); last[0].Values["l"] == head.Link {
				key = k
			}
		}
	}
	n, link := head.N, head.Link
	for done := 0; done < million; {
		pipe := client.Pipeline()
		for range 2000 {
			n++
			entry, err := json.Marshal(&store.AuditEntry{Time: time.Now(), Actor: store.Actor{Name: "bench"}, Action: "account.update", Domain: "example.org", Target: fmt.Sprintf("user%d@example.org", n)})
			if err != nil {
				b.Fatal(err)
			}
			link = auditchain.Link(link, n, entry)
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: fmt.Sprintf("%d-0", n), Values: []any{"a", entry, "l", link}})
			done++
		}
		if _, err := pipe.Exec(ctx); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for b.Loop() {
		begin, cpu := time.Now(), processorTime()
		report, err := log.VerifyAudit(ctx, "")
		if err != nil || report.Entries < million || len(report.Breaks) > 0 {
			b.Fatalf("%+v %v", report, err)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "s")
		b.ReportMetric((processorTime() - cpu).Seconds(), "CPU-s")
	}
}
