package adminapi

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

func (c *call) storeStatus() api.StoreStatus {
	var s api.StoreStatus
	s.Loaded, s.SyncedAt = c.Store.State.Ready()
	s.SyncedAt = s.SyncedAt.UTC()
	heads := c.Store.State.Heads()
	s.StoreID = heads[store.Global].StoreID
	for _, h := range heads {
		s.Changes += h.N
	}
	if err := trouble(c.Store); err != nil {
		s.Trouble, s.Foreign, s.Damaged = err.Error(), errors.Is(err, store.ErrForeign), c.Store.Damage() != nil
	}
	s.Policy, s.Evicting = c.Store.Eviction()
	s.Domains, s.Accounts = c.Store.State.Counts()
	s.Version = orUnknown(c.Version)
	return s
}

// trouble says why changes are refused: before they are tried, or by Redis.
func trouble(st *store.Store) error {
	if err := st.Trouble(); err != nil {
		return err
	}
	return st.Refusing()
}

func getStore(c *call) (*answer, error) { return &answer{body: c.storeStatus()}, nil }

func adoptStore(c *call) (*answer, error) {
	if c.dryRun {
		if !errors.Is(c.Store.Trouble(), store.ErrForeign) && c.Store.Damage() == nil {
			return nil, store.ErrNothingToAdopt
		}
		return &answer{body: c.storeStatus()}, nil
	}
	before := c.storeStatus()
	id, err := c.Store.Adopt(c.ctx)
	if err != nil {
		return nil, err
	}
	// The store's own audit may have gone with the old one.
	c.Log.Warn("store adopted", "by", c.id.actor.Name, "key", c.id.actor.Key, "uid", c.id.actor.UID, "before", before.StoreID, "now", id)
	status := c.storeStatus()
	status.StoreID = id
	return &answer{body: status}, nil
}

func repairStore(c *call) (*answer, error) {
	n, err := c.Store.Repair(c.ctx, c.dryRun)
	if n > 0 && !c.dryRun {
		c.Log.Warn("store repaired from memory", "by", c.id.actor.Name, "key", c.id.actor.Key, "uid", c.id.actor.UID, "shards", n)
	}
	if err != nil {
		return nil, err
	}
	return &answer{body: api.StoreRepair{Shards: n}}, nil
}

func getLive(*call) (*answer, error) { return &answer{body: api.Health{Status: "ok"}}, nil }

func getReady(c *call) (*answer, error) {
	damaged := c.Store.Damage() != nil
	if !c.Available() {
		if damaged {
			return &answer{status: http.StatusServiceUnavailable, body: api.Health{Status: "damaged"}}, nil //nolint:nilerr // the status says it
		}
		return &answer{status: http.StatusServiceUnavailable, body: api.Health{Status: "unavailable"}}, nil
	}
	_, evicting := c.Store.Eviction()
	status := "ok"
	switch {
	case damaged:
		status = "damaged"
	case trouble(c.Store) != nil:
		status = "degraded"
	case evicting:
		status = "evicting"
	}
	return &answer{body: api.Health{Status: status}}, nil
}

func getOpenAPI(c *call) (*answer, error) {
	return &answer{handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(c.document)
	}}, nil
}

func getMetrics(c *call) (*answer, error) {
	if c.Metrics == nil {
		return nil, api.NotFound("metric")
	}
	return &answer{handler: promhttp.HandlerFor(c.Metrics.registry, promhttp.HandlerOpts{}).ServeHTTP}, nil
}

// Metrics counts what the package comment lists, in a registry of its own. Its methods may be
// called on nil, which counts nothing.
type Metrics struct {
	registry  *prometheus.Registry
	decisions *prometheus.CounterVec
	requests  *prometheus.CounterVec
}

// NewMetrics returns the metrics of one daemon. [API.Handler] adds those of its store.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drawbridge_decisions_total", Help: "Logins decided.",
		}, []string{"protocol", "outcome", "reason"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drawbridge_api_requests_total", Help: "Requests that the API answered.",
		}, []string{"operation", "code"}),
	}
	m.registry.MustRegister(m.decisions, m.requests,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watch adds what is asked for when the metrics are read.
func (m *Metrics) watch(version string, st *store.Store) error {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "drawbridge_build_info", Help: "1, with the version.", ConstLabels: prometheus.Labels{"version": orUnknown(version)},
	})
	info.Set(1)
	return errors.Join(
		m.registry.Register(info),
		m.registry.Register(gauge("drawbridge_store_up", "1 when changes are taken, 0 when they are refused.", func() float64 {
			if loaded, _ := st.State.Ready(); !loaded || trouble(st) != nil {
				return 0
			}
			return 1
		})),
		m.registry.Register(gauge("drawbridge_store_synced_timestamp_seconds", "When the store was last seen to agree.", func() float64 {
			_, synced := st.State.Ready()
			if synced.IsZero() {
				return 0
			}
			return float64(synced.UnixMilli()) / 1000
		})),
		m.registry.Register(gauge("drawbridge_store_evicting", "1 when Redis may delete rules, because its maxmemory-policy is not noeviction, and that is not accepted.", func() float64 {
			if _, evicting := st.Eviction(); evicting {
				return 1
			}
			return 0
		})),
		m.registry.Register(gauge("drawbridge_domains", "Managed domains.", func() float64 {
			domains, _ := st.State.Counts()
			return float64(domains)
		})),
		m.registry.Register(gauge("drawbridge_accounts", "Accounts with a record.", func() float64 {
			_, accounts := st.State.Counts()
			return float64(accounts)
		})),
	)
}

// Decision counts a login that was decided.
func (m *Metrics) Decision(p access.Protocol, d *access.Decision) {
	if m != nil {
		m.decisions.WithLabelValues(p.String(), d.Outcome.String(), string(d.Reason)).Inc()
	}
}

func (m *Metrics) request(operation string, status int) {
	if m != nil {
		m.requests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
	}
}
