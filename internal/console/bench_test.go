package console

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/web"
)

// accountsOfBench is the size of the domain whose pages are measured.
const accountsOfBench = 100_000

// BenchmarkPages measures pages of a domain with 100 000 accounts: the median, in milliseconds.
func BenchmarkPages(b *testing.B) {
	browser, base := largeSite(b)
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

// largeSite returns a browser that is logged in to the console of a large site.
func largeSite(b *testing.B) (browser *http.Client, base string) {
	st, red := redistest.NewStore(b, redistest.Start(b).Options())
	st.Timeout = time.Minute
	redistest.Run(b, st)
	redistest.Ready(b, st)
	pepper, err := credential.CreatePepper(filepath.Join(b.TempDir(), "pepper"))
	if err != nil {
		b.Fatal(err)
	}
	a := &admin.Admin{
		Store: st, Journal: red, Forget: red.Forget, Pepper: pepper, Hasher: credential.NewHasher(0), Log: hclog.NewNullLogger(), Site: access.Site{NextPassdb: true},
	}
	root := a.As(admin.Caller{Role: store.RoleAdmin, Local: true, Actor: store.Actor{Name: "root"}}, admin.Options{})
	if _, err := root.CreateDomain(b.Context(), &api.NewDomain{Domain: api.Domain{Name: "example.org"}}, &api.Faults{}); err != nil {
		b.Fatal(err)
	}
	d, err := root.Domain("example.org")
	if err != nil {
		b.Fatal(err)
	}
	for first := 0; first < accountsOfBench; first += admin.Chunk {
		err := d.Change(context.Background(), func(ch *store.Change) error {
			admin.Describe(ch, "bench", "example.org", "example.org")
			for i := first; i < min(first+admin.Chunk, accountsOfBench); i++ {
				ch.PutAccount(admin.NewAccount(fmt.Sprintf("user%06d@example.org", i), ch))
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	key, err := root.CreateKey(b.Context(), &api.NewKey{Name: "bench", Role: "admin"}, &api.Faults{})
	if err != nil {
		b.Fatal(err)
	}
	site := web.New(web.Options{Store: red, Log: hclog.NewNullLogger(), ProblemOf: admin.ProblemOf})
	mux := http.NewServeMux()
	(&Pages{Admin: a}).Register(mux, site)
	server := httptest.NewServer(site.Handler(mux))
	b.Cleanup(server.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		b.Fatal(err)
	}
	browser = &http.Client{Jar: jar}
	resp, err := browser.PostForm(server.URL+"/login", url.Values{"key": {string(key.View.Secret)}})
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatal(err, resp)
	}
	_ = resp.Body.Close()
	return browser, server.URL
}
