package store

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
	docs := make([]Doc, accounts)
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
		if err := st.replace(shard, head, append([]Doc{domain}, docs...)); err != nil {
			b.Fatal(err)
		}
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
