package adminapi

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

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
	case admin.Trouble(c.Store) != nil:
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
		Name: "drawbridge_build_info", Help: "1, with the version.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	return errors.Join(
		m.registry.Register(info),
		m.registry.Register(gauge("drawbridge_store_up", "1 when changes are taken, 0 when they are refused.", func() float64 {
			if loaded, _ := st.State.Ready(); !loaded || admin.Trouble(st) != nil {
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
