package adminapi

import "github.com/prometheus/client_golang/prometheus"

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
