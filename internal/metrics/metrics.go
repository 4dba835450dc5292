// Package metrics counts what one daemon decides and answers, and reports it in the Prometheus text
// format. internal/adminapi lists the metrics; contrib/monitoring has a dashboard and alert rules.
package metrics

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Metrics are those of one daemon, in a registry of their own. A nil *Metrics may be used, and
// counts nothing.
type Metrics struct {
	registry  *prometheus.Registry
	decisions *prometheus.CounterVec
	requests  *prometheus.CounterVec
	messages  *prometheus.CounterVec
	durations map[string]*prometheus.HistogramVec
}

// The histograms: their name, label and help.
const (
	LoginSeconds  = "drawbridge_login_duration_seconds"
	PolicySeconds = "drawbridge_policy_duration_seconds"
	MilterSeconds = "drawbridge_milter_duration_seconds"
	StoreSeconds  = "drawbridge_store_duration_seconds"
	HashSeconds   = "drawbridge_hash_duration_seconds"
)

// seconds are the bounds of the histograms' buckets: decisions take microseconds, and seconds where a
// slow hash is computed or Redis waits for a disk.
var seconds = []float64{.000_01, .000_05, .000_1, .000_5, .001, .005, .01, .05, .1, .5, 1, 5, 10}

// New returns the metrics of one daemon. [Metrics.Watch] adds those of its store.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drawbridge_decisions_total", Help: "Logins decided.",
		}, []string{"protocol", "outcome", "reason"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drawbridge_api_requests_total", Help: "Requests that the API answered.",
		}, []string{"operation", "code"}),
	}
	m.messages = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "drawbridge_messages_total", Help: "Messages decided by sender check, mail rules and limits.",
	}, []string{"verdict", "reason"})
	m.durations = map[string]*prometheus.HistogramVec{}
	for _, h := range [][3]string{
		{LoginSeconds, "door", "Time to decide a login, by the door that asked: login (checkpassword, Lua, HTTP), sasl or api."},
		{PolicySeconds, "question", "Time to answer Postfix' policy requests, by question: submission or recipient."},
		{MilterSeconds, "stage", "Time to decide in the milter, by stage: begin, session or end of a message."},
		{StoreSeconds, "operation", "Time of writes to Redis: change, records, events or uses."},
		{HashSeconds, "scheme", "Time to compute a slow hash of a mailbox password kept here, by scheme."},
	} {
		m.durations[h[0]] = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: h[0], Help: h[2], Buckets: seconds}, []string{h[1]})
		m.registry.MustRegister(m.durations[h[0]])
	}
	m.registry.MustRegister(m.decisions, m.requests, m.messages,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// ServeHTTP reports all metrics in the Prometheus text format.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// Watch adds the metrics that are read from the store, and from the directory of held messages if
// usage is not nil. Refused returns why changes are refused, nil while they are taken. A second
// call fails: the metrics are there already.
func (m *Metrics) Watch(version string, st *store.Store, refused func(*store.Store) error, usage func() (used, quota int64)) error {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "drawbridge_build_info", Help: "1, with the version.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	var held error
	if usage != nil {
		held = m.registry.Register(gauge("drawbridge_hold_dir_bytes", "Octets of held messages, copies and notices on this node.", func() float64 {
			used, _ := usage()
			return float64(used)
		}))
	}
	return errors.Join(
		held,
		m.registry.Register(info),
		m.registry.Register(gauge("drawbridge_store_up", "1 when changes are taken, 0 when they are refused.", func() float64 {
			if loaded, _ := st.State.Ready(); !loaded || refused(st) != nil {
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
		m.registry.Register(gauge("drawbridge_held_messages", "Messages that wait for approval, on all nodes.", func() float64 {
			return float64(st.State.HeldCount())
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

// Took returns what observes the durations of one label's value in a histogram. It does not
// allocate memory.
func (m *Metrics) Took(histogram, value string) func(time.Duration) {
	if m == nil {
		return func(time.Duration) {}
	}
	o := m.durations[histogram].WithLabelValues(value)
	return func(d time.Duration) { o.Observe(d.Seconds()) }
}

// TookEach returns what observes durations in a histogram whose label has many values: writes to
// Redis by operation, slow hashes by scheme.
func (m *Metrics) TookEach(histogram string) func(value string, d time.Duration) {
	h := m.durations[histogram]
	return func(value string, d time.Duration) { h.WithLabelValues(value).Observe(d.Seconds()) }
}

// Gauge adds a value that is read whenever the metrics are. Labels are pairs of a name and a value.
func (m *Metrics) Gauge(name, help string, value func() float64, labels ...string) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: pairs(labels)}, value))
}

// Counter adds a number of events since the start, in the same way.
func (m *Metrics) Counter(name, help string, value func() float64, labels ...string) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: pairs(labels)}, value))
}

func pairs(labels []string) prometheus.Labels {
	l := prometheus.Labels{}
	for i := 0; i+1 < len(labels); i += 2 {
		l[labels[i]] = labels[i+1]
	}
	return l
}

// Message counts a message that was decided.
func (m *Metrics) Message(verdict, reason string) {
	if m != nil {
		m.messages.WithLabelValues(verdict, reason).Inc()
	}
}

// Decision counts a login that was decided.
func (m *Metrics) Decision(p access.Protocol, d *access.Decision) {
	if m != nil {
		m.decisions.WithLabelValues(p.String(), d.Outcome.String(), string(d.Reason)).Inc()
	}
}

// Request counts a request that the API answered with an HTTP status.
func (m *Metrics) Request(operation string, status int) {
	if m != nil {
		m.requests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
	}
}

// Listener adds the connections of one listener, read whenever the metrics are. The service is the
// table of its settings: "login", "policyd", "milter", "api".
func (m *Metrics) Listener(service, address string, connections func() (open, limit int), reached func() uint64) {
	if m == nil {
		return
	}
	labels := prometheus.Labels{"service": service, "listener": address}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value)
	}
	m.registry.MustRegister(
		gauge("drawbridge_connections", "Open connections.", func() float64 {
			open, _ := connections()
			return float64(open)
		}),
		gauge("drawbridge_connections_limit", "Maximum open connections.", func() float64 {
			_, limit := connections()
			return float64(limit)
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "drawbridge_connections_limit_reached_total", Help: "How often all connections were in use, so that further ones waited.", ConstLabels: labels,
		}, func() float64 { return float64(reached()) }),
	)
}
