package store

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/store/snapshot"
)

// BenchmarkMillion measures what a domain of a million accounts, with three secure passwords each,
// costs beside decisions, for which see contrib/bench.
func BenchmarkMillion(b *testing.B) {
	const (
		name     = "example.org"
		accounts = 1_000_000
		atOnce   = 5000 // accounts in a change
	)
	at := time.Now().UTC().Truncate(time.Millisecond)
	docs, values := make([]Doc, accounts), make([]string, accounts)
	for i := range docs {
		a := &Account{Address: fmt.Sprintf("user%d@%s", i, name), Departments: []string{fmt.Sprintf("department%d", i%10)}, Aliases: []string{}, CreatedAt: at}
		for k := range 3 {
			p := SecurePassword{ID: NewID(), Label: fmt.Sprintf("device %d", k), PepperID: "0123456789abcdef", CreatedAt: at}
			copy(p.Hash[:], p.ID+p.ID)
			a.Secrets = append(a.Secrets, p)
		}
		body, err := json.Marshal(a)
		if err != nil {
			b.Fatal(err)
		}
		docs[i] = Doc{Key: kindAccount + "/" + a.Address, Body: body}
		value, err := docs[i].Stored()
		if err != nil {
			b.Fatal(err)
		}
		values[i] = string(value)
	}
	shard := ShardOf(name)
	head := Head{N: 1}
	domain := Doc{Key: kindDomain + "/" + name, Body: []byte(`{"name":"example.org"}`)}
	var loads, collections, places []float64
	var held uint64
	for b.Loop() {
		before := inUse()
		st := NewState()
		begin := cpuTime(b)
		load := newBuilder()
		for i := range docs {
			d, err := ReadDoc(docs[i].Key, values[i])
			if err != nil {
				b.Fatal(err)
			}
			if err := load.put(d); err != nil {
				b.Fatal(err)
			}
		}
		if err := load.put(domain); err != nil {
			b.Fatal(err)
		}
		fresh, err := load.build(shard, head)
		if err != nil {
			b.Fatal(err)
		}
		st.swap(shard, head, fresh)
		load = nil //nolint:wastedassign // its memory is free from here on
		loads = append(loads, (cpuTime(b) - begin).Seconds())
		held = inUse() - before

		begin = cpuTime(b)
		runtime.GC()
		collections = append(collections, (cpuTime(b) - begin).Seconds())

		var some []Doc
		for range atOnce {
			some = append(some, docs[rand.IntN(accounts)])
		}
		next, err := st.prepare(some, nil, at)
		if err != nil {
			b.Fatal(err)
		}
		locked := time.Now()
		st.mu.Lock()
		st.place(next)
		st.mu.Unlock()
		places = append(places, float64(time.Since(locked).Microseconds())/1000)
	}
	b.ReportMetric(float64(held)/accounts, "B/account")
	b.ReportMetric(middle(loads), "CPU-s/load")
	b.ReportMetric(1000*middle(collections), "CPU-ms/collection")
	b.ReportMetric(middle(places), "ms-locked/5000")
}

// BenchmarkSnapshot measures writing and reading the snapshot of as many accounts, files and
// checksums included.
func BenchmarkSnapshot(b *testing.B) {
	const name, accounts = "example.org", 1_000_000
	st := NewState()
	shard := ShardOf(name)
	for s := range Shard(Shards) {
		fresh, err := freshState(s, Head{StoreID: "id", N: 1}, nil)
		if err != nil {
			b.Fatal(err)
		}
		if s == shard {
			for i := range accounts {
				a := &Account{Address: fmt.Sprintf("user%d@%s", i, name), Departments: []string{"sales"}, CreatedAt: time.Now()}
				for range 3 {
					a.Secrets = append(a.Secrets, SecurePassword{ID: NewID(), Label: "device", PepperID: "0123456789abcdef", CreatedAt: time.Now()})
				}
				fresh.putAccount(a.Address, pack(a.Address, a, 1))
			}
		}
		st.swap(s, Head{StoreID: "id", N: 1}, fresh)
	}
	files, err := snapshot.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	from := &Store{State: st, Marker: known("id"), Logger: hclog.NewNullLogger()}
	var writes, reads []float64
	for b.Loop() {
		begin := cpuTime(b)
		if err := files.Replace(from.whole); err != nil {
			b.Fatal(err)
		}
		writes = append(writes, (cpuTime(b) - begin).Seconds())
		begin = cpuTime(b)
		s := &Store{State: NewState(), Marker: known("id"), Snapshot: files, Logger: hclog.NewNullLogger()}
		s.resume()
		reads = append(reads, (cpuTime(b) - begin).Seconds())
		if _, n := s.State.Counts(); n != accounts {
			b.Fatal(n)
		}
	}
	b.ReportMetric(middle(writes), "CPU-s/write")
	b.ReportMetric(middle(reads), "CPU-s/read")
}

// BenchmarkCheck measures finding a random account among a million and checking a secret of its, by the
// thread's processor time. Names are in the cache, as those of requests are.
func BenchmarkCheck(b *testing.B) {
	const name, accounts, turns = "example.org", 1_000_000, 512
	pepper, err := credential.CreatePepper(filepath.Join(b.TempDir(), "pepper"))
	if err != nil {
		b.Fatal(err)
	}
	secret := []byte("abcdefghijklmnop")
	addr := func(i int) string { return fmt.Sprintf("user%d@%s", i, name) }
	st, shard := NewState(), ShardOf(name)
	fresh, err := freshState(shard, Head{StoreID: "id", N: 1}, []Doc{{Key: kindDomain + "/" + name, Body: []byte(`{"name":"example.org"}`)}})
	if err != nil {
		b.Fatal(err)
	}
	for i := range accounts {
		a := &Account{Address: addr(i), Departments: []string{"sales"}, CreatedAt: time.Now()}
		for k := range 3 {
			p := SecurePassword{ID: NewID(), Label: "device", PepperID: pepper.ID(), CreatedAt: time.Now()}
			if copy(p.Hash[:], p.ID+p.ID); k == 1 {
				p.Hash = pepper.Hash(a.Address, secret)
			}
			a.Secrets = append(a.Secrets, p)
		}
		fresh.putAccount(a.Address, pack(a.Address, a, 1))
	}
	st.swap(shard, Head{StoreID: "id", N: 1}, fresh)
	index, missed := &st.domains[name].accounts, 0
	check := func(b *testing.B, v View, hash credential.Hash) {
		if s, ok := v.Account.Match(pepper.ID(), hash); !ok || s.State != access.SecretLive {
			b.Fatal("the secret is not found")
		}
	}
	kinds := []struct {
		name   string
		random int
		f      func(b *testing.B, addr string)
	}{
		{"check", accounts, func(b *testing.B, addr string) {
			_, v := st.View(addr)
			check(b, v, pepper.Hash(addr, secret))
		}},
		{"cached", 16, func(b *testing.B, addr string) {
			_, v := st.View(addr)
			check(b, v, pepper.Hash(addr, secret))
		}},
		{"hash", 16, func(_ *testing.B, addr string) { pepper.Hash(addr, secret) }},
		// The floor of finding: a place of the index and a record that are not in the cache, one after the
		// other.
		{"misses", accounts, func(_ *testing.B, _ string) {
			slot := index.slots[rand.IntN(len(index.slots))]
			p, offset := index.at(slot)
			missed += int(index.pages[p].data[max(offset, 0)])
		}},
	}
	times := make([][]float64, len(kinds))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	names := make([]string, turns)
	for b.Loop() {
		for range 100 {
			for k, kind := range kinds {
				for i := range names {
					names[i] = addr(rand.IntN(kind.random))
				}
				begin := threadTime(b)
				for _, name := range names {
					kind.f(b, name)
				}
				times[k] = append(times[k], float64(threadTime(b)-begin)/turns)
			}
		}
	}
	if missed < 0 {
		b.Fatal("never")
	}
	for k, kind := range kinds {
		b.ReportMetric(middle(times[k]), "ns-"+kind.name)
	}
}

func threadTime(b *testing.B) time.Duration {
	b.Helper()
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// cpuTime is what the program has used: others on the machine do not lengthen it.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

func middle(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
