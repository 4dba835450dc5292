package selfservice

import (
	"context"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/factors"
	"github.com/drawbridge/drawbridge/internal/admintest"
	"github.com/drawbridge/drawbridge/internal/secondfactor"
	"github.com/drawbridge/drawbridge/internal/web"
)

// BenchmarkPages measures the pages of a user among 100 000: the median, in milliseconds.
func BenchmarkPages(b *testing.B) {
	const accounts = 100_000
	a, red := admintest.New(b)
	admintest.Crowd(b, a, accounts)
	site := web.New(web.Options{Store: red, Log: hclog.NewNullLogger(), ProblemOf: admin.ProblemOf})
	mux := http.NewServeMux()
	allow := func(_ context.Context, l *access.Login) access.Decision {
		return access.Decision{Outcome: access.Allow, Account: l.Account}
	}
	(&Pages{Admin: a, Factors: factors.Site{Verifier: &secondfactor.Verifier{}}, Login: allow, Resume: allow}).Register(mux, site)
	server := httptest.NewServer(site.Handler(mux))
	b.Cleanup(server.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		b.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	resp, err := browser.PostForm(server.URL+"/account/login", url.Values{"account": {"user050000@example.org"}, "password": {"x"}})
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatal(err, resp)
	}
	_ = resp.Body.Close()
	for _, path := range []string{"/account", "/account/devices/new", "/account/factors", "/account/logins", "/account/sessions"} {
		b.Run(path, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				resp, err := browser.Get(server.URL + path)
				if err != nil {
					b.Fatal(err)
				}
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK || resp.Request.URL.Path != path {
					b.Fatalf("%d at %s", resp.StatusCode, resp.Request.URL)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2].Seconds()*1000, "median-ms")
		})
	}
}
