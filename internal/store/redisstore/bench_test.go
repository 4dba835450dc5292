package redisstore_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// BenchmarkStore measures changes of one and of 5000 accounts, and the load of a shard, on a real
// server that does not wait for its disk.
func BenchmarkStore(b *testing.B) {
	const name, accounts = "example.org", 20_000
	r := redistest.Start(b, "appendfsync no")
	st, log := redistest.NewStore(b, r.Options())
	redistest.Run(b, st)
	redistest.Ready(b, st)
	ctx, shard := context.Background(), store.ShardOf(name)
	put := func(b *testing.B, first, n int) {
		b.Helper()
		err := st.Update(ctx, shard, store.Actor{Name: "bench"}, false, func(c *store.Change) error {
			for i := first; i < first+n; i++ {
				a := &store.Account{Address: fmt.Sprintf("user%d@%s", i%accounts, name), Departments: []string{"sales"}, Aliases: []string{}, CreatedAt: c.Now}
				for range 3 {
					p := store.SecurePassword{ID: store.NewID(), Label: "device", PepperID: "0123456789abcdef", CreatedAt: c.Now}
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
	for i := 0; i < accounts; i += 5000 {
		put(b, i, 5000)
	}
	b.Run("change=1", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			put(b, i, 1)
		}
	})
	b.Run("change=5000", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			put(b, i*5000, 5000)
		}
	})
	b.Run("load=20000", func(b *testing.B) {
		for b.Loop() {
			docs := 0
			count := func(store.Doc) error { docs++; return nil }
			if _, err := log.Load(ctx, shard, store.Head{}, func() func(store.Doc) error { docs = 0; return count }); err != nil || docs != accounts {
				b.Fatal(docs, err)
			}
		}
	})
}
