package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/metrics"
)

func scrape(m *metrics.Metrics) string {
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// Each method's count is in the answer, with the labels that dashboard and alert rules name.
func TestCounts(t *testing.T) {
	m := metrics.New()
	m.Decision(access.IMAP, &access.Decision{Outcome: access.Deny, Reason: access.ReasonBadSecret})
	m.Message("refuse", "limit")
	m.Request("listKeys", 403)
	m.Took(metrics.LoginSeconds, "sasl")(70 * time.Microsecond)
	m.TookEach(metrics.StoreSeconds)("change", 3*time.Second)
	m.Gauge("drawbridge_sessions", "Open sessions.", func() float64 { return 7 }, "protocol", "imap")
	m.Counter("drawbridge_test_total", "Events.", func() float64 { return 2 })
	m.Listener("login", "unix:/run/login.sock", func() (int, int) { return 3, 100 }, func() uint64 { return 5 })
	got := scrape(m)
	for _, want := range []string{
		`drawbridge_decisions_total{outcome="deny",protocol="imap",reason="bad_secret"} 1`,
		`drawbridge_messages_total{reason="limit",verdict="refuse"} 1`,
		`drawbridge_api_requests_total{code="403",operation="listKeys"} 1`,
		`drawbridge_login_duration_seconds_bucket{door="sasl",le="5e-05"} 0`,
		`drawbridge_login_duration_seconds_bucket{door="sasl",le="0.0001"} 1`,
		`drawbridge_store_duration_seconds_bucket{operation="change",le="1"} 0`,
		`drawbridge_store_duration_seconds_sum{operation="change"} 3`,
		`drawbridge_sessions{protocol="imap"} 7`,
		`drawbridge_test_total 2`,
		`drawbridge_connections{listener="unix:/run/login.sock",service="login"} 3`,
		`drawbridge_connections_limit{listener="unix:/run/login.sock",service="login"} 100`,
		`drawbridge_connections_limit_reached_total{listener="unix:/run/login.sock",service="login"} 5`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("there is no %s", want)
		}
	}
}

// A daemon without metrics passes nil: nothing is counted and nothing fails.
func TestNilCountsNothing(t *testing.T) {
	var m *metrics.Metrics
	m.Decision(access.IMAP, &access.Decision{})
	m.Message("refuse", "limit")
	m.Request("listKeys", 200)
	m.Took(metrics.LoginSeconds, "sasl")(time.Second)
	m.Listener("login", "x", nil, nil)
}

// BenchmarkObserve measures what a histogram adds to each decision. The goal is 100 ns.
func BenchmarkObserve(b *testing.B) {
	observe := metrics.New().Took(metrics.LoginSeconds, "login")
	b.ReportAllocs()
	for b.Loop() {
		observe(70 * time.Microsecond)
	}
}
