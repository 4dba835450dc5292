package console

import (
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admintest"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/web"
)

// accountsOfBench is the size of the domain whose pages are measured.
const accountsOfBench = 100_000

// BenchmarkPages measures pages of a domain with 100 000 accounts: the median, in milliseconds.
func BenchmarkPages(b *testing.B) {
	browser, base, _ := newSite(b, accountsOfBench, new(time.Duration))
	const at = "/domains/example.org"
	for _, path := range []string{"/", at, at + "/accounts", "/accounts/user050000@example.org", at + "/policies", at + "/logins", "/store"} {
		b.Run(path, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				resp, err := browser.Get(base + path)
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

// newSite returns a browser that is logged in to the console of a site with so many accounts, and its
// key. Its clock is ahead by late.
func newSite(tb testing.TB, accounts int, late *time.Duration) (browser *http.Client, base, secret string) {
	a, red := admintest.New(tb)
	a.Throttled = func(time.Time) api.Throttle { return api.Throttle{} }
	root := admintest.Crowd(tb, a, accounts)
	key, err := root.CreateKey(tb.Context(), &api.NewKey{Name: "bench", Role: "admin"}, &api.Faults{})
	if err != nil {
		tb.Fatal(err)
	}
	site := web.New(web.Options{Store: red, Log: hclog.NewNullLogger(), ProblemOf: admin.ProblemOf})
	mux := http.NewServeMux()
	p := &Pages{Admin: a}
	for _, r := range routes() {
		mux.Handle(r.pattern, site.Page(func(c *web.Call) error {
			c.Now = c.Now.Add(*late)
			return p.visit(c, r)
		}))
	}
	mux.Handle("POST /login", site.Page(p.login))
	server := httptest.NewServer(site.Handler(mux))
	tb.Cleanup(server.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		tb.Fatal(err)
	}
	browser = &http.Client{Jar: jar}
	resp, err := browser.PostForm(server.URL+"/login", url.Values{"key": {string(key.View.Secret)}})
	if err != nil || resp.StatusCode != http.StatusOK {
		tb.Fatal(err, resp)
	}
	_ = resp.Body.Close()
	return browser, server.URL, string(key.View.Secret)
}
