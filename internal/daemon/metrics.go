package daemon

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/livesessions"
	"github.com/drawbridge/drawbridge/internal/metrics"
	"github.com/drawbridge/drawbridge/internal/region"
)

// watchGate adds the metrics of what the gate keeps in memory.
func watchGate(m *metrics.Metrics, g *gate.Gate) {
	entries := func(pick func(accounts, addresses, known int) int) func() float64 {
		return func() float64 { return float64(pick(g.ThrottleEntries())) }
	}
	const name, help = "drawbridge_throttle_entries", "Accounts and addresses with counters of wrong passwords, and addresses known for an account."
	m.Gauge(name, help, entries(func(n, _, _ int) int { return n }), "kind", "account")
	m.Gauge(name, help, entries(func(_, n, _ int) int { return n }), "kind", "address")
	m.Gauge(name, help, entries(func(_, _, n int) int { return n }), "kind", "known")
	m.Gauge("drawbridge_distributed_guessing", "Domains at which many addresses guess passwords.", func() float64 {
		return float64(g.DistributedGuessing(time.Now()))
	})
	const waiting, which = "drawbridge_records_waiting", "Login and message records that wait to be written, in memory (entries) and in the spool (batches)."
	m.Gauge(waiting, which, func() float64 { n, _ := g.Backlog(); return float64(n) }, "where", "memory")
	m.Gauge(waiting, which, func() float64 { _, n := g.Backlog(); return float64(n) }, "where", "spool")
	m.Counter("drawbridge_records_dropped_total", "Login and message records that were lost because Redis was away too long.", func() float64 {
		return float64(g.Dropped())
	})
	m.Gauge("drawbridge_feed_lag_seconds", "Time since the rules in memory were last known to be those of the store.", func() float64 {
		_, synced := g.Store.State.Ready()
		if synced.IsZero() {
			return 0
		}
		return time.Since(synced).Seconds()
	})
	m.Gauge("drawbridge_sessions", "Open sessions: of Postfix as the milter reports them, of Dovecot as doveadm lists them.", func() float64 {
		return float64(g.OpenSubmissions())
	}, "server", "postfix", "protocol", access.SMTP.String())
}

// watchFiles adds the metrics of files: the databases of regions and networks, and the snapshot.
func watchFiles(m *metrics.Metrics, regions, networks *region.Source, stateDir string) {
	age := func(of *region.Source) func() float64 {
		return func() float64 {
			d := of.Database()
			if d == nil {
				return 0
			}
			return time.Since(d.Date).Seconds()
		}
	}
	m.Gauge("drawbridge_region_database_age_seconds", "Age of the data of the region database; 0 without one.", age(regions))
	m.Gauge("drawbridge_network_database_age_seconds", "Age of the data of the database of networks; 0 without one.", age(networks))
	m.Gauge("drawbridge_snapshot_age_seconds", "Time since the snapshot was last written, its journal included; 0 without one.", func() float64 {
		files, _ := filepath.Glob(filepath.Join(stateDir, "snapshot", "*"))
		var newest time.Time
		for _, f := range files {
			if info, err := os.Stat(f); err == nil && filepath.Base(f) != "lock" && info.ModTime().After(newest) {
				newest = info.ModTime()
			}
		}
		if newest.IsZero() {
			return 0
		}
		return time.Since(newest).Seconds()
	})
}

// countSessions adds the open sessions of Dovecot. doveadm is asked every sessionsEvery, whoever reads
// the metrics how often.
func countSessions(ctx context.Context, m *metrics.Metrics, live *livesessions.Sessions) {
	var mu sync.Mutex
	counts := map[access.Protocol]int{}
	for _, p := range []access.Protocol{access.IMAP, access.POP3, access.Sieve} {
		m.Gauge("drawbridge_sessions", "Open sessions: of Postfix as the milter reports them, of Dovecot as doveadm lists them.", func() float64 {
			mu.Lock()
			defer mu.Unlock()
			return float64(counts[p])
		}, "server", "dovecot", "protocol", p.String())
	}
	for {
		list, _ := live.List(ctx, "", "")
		fresh := map[access.Protocol]int{}
		for i := range list {
			fresh[list[i].Protocol]++
		}
		mu.Lock()
		counts = fresh
		mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(sessionsEvery):
		}
	}
}

const sessionsEvery = 30 * time.Second
