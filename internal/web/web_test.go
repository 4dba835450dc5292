package web

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
)

// away is a store that cannot be reached.
type away struct{}

func (away) FindPage(context.Context, string) ([]byte, error)             { return nil, errAway() }
func (away) TakePage(context.Context, string) ([]byte, error)             { return nil, errAway() }
func (away) PutPage(context.Context, string, []byte, time.Duration) error { return errAway() }

func (away) PutPageIf(context.Context, bool, string, []byte, time.Duration) (bool, error) {
	return false, errAway()
}

func errAway() error { return api.Unavailable("store_unavailable", "the store is unavailable") }

func site(t *testing.T, url string, proxies ...string) *Site {
	t.Helper()
	n, err := address.ParseNetworks(proxies)
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Store: away{}, PublicURL: url, Proxies: n, Log: hclog.NewNullLogger(), ProblemOf: func(err error) *api.Problem {
		p := api.Internal()
		_ = errors.As(err, &p)
		return p
	}})
}

func TestLocal(t *testing.T) {
	for path, want := range map[string]bool{
		"/account": true, "/domains/example.org/logins?account=ann%40example.org": true,
		"": false, "account": false, "//evil.example": false, "/\\evil.example": false, "https://evil.example/": false, "javascript:alert(1)": false, "/a\r\nb": false,
	} {
		if got := Local(path); (got != "") != want || got != "" && got != path {
			t.Errorf("%q: %q", path, got)
		}
	}
}

func TestHost(t *testing.T) {
	s := site(t, "https://mail.example.org:8443")
	for host, want := range map[string]bool{
		"mail.example.org:8443": true, "MAIL.example.org:8443": true, "127.0.0.1:8482": true, "[::1]:8482": true, "localhost": true,
		"mail.example.org": false, "evil.example": false, "": false, "127.0.0.1.evil.example": false,
	} {
		if s.ownHost(host) != want {
			t.Errorf("%q: %t", host, !want)
		}
	}
}

func TestClientIP(t *testing.T) {
	s := site(t, "", "127.0.0.1", "192.0.2.0/24")
	for _, tt := range []struct{ peer, forwarded, want string }{
		{"127.0.0.1:1", "203.0.113.9", "203.0.113.9"},
		{"127.0.0.1:1", "1.1.1.1, 203.0.113.9, 192.0.2.7", "203.0.113.9"},
		{"127.0.0.1:1", "", "127.0.0.1"},
		{"127.0.0.1:1", "203.0.113.9, nonsense", "127.0.0.1"},
		{"203.0.113.1:1", "198.51.100.1", "203.0.113.1"},
		{"[2001:db8::1]:1", "198.51.100.1", "2001:db8::1"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = tt.peer
		r.Header.Set("X-Forwarded-For", tt.forwarded)
		if got := s.clientIP(r).String(); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

// While the store is away there is a page that says so, and no session.
func TestStoreAway(t *testing.T) {
	s := site(t, "https://mail.example.org").Secure(false)
	mux := http.NewServeMux()
	mux.Handle("/", s.Page(func(c *Call) error { return c.Redirect("/x") }))
	r := httptest.NewRequest(http.MethodGet, "https://mail.example.org/", nil)
	r.AddCookie(&http.Cookie{Name: "__Host-drawbridge", Value: "token"})
	w := httptest.NewRecorder()
	s.Handler(mux).ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "The store cannot be reached") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w.Header().Get("Strict-Transport-Security") == "" {
		t.Error("https without Strict-Transport-Security")
	}
}

// The cookie of a site with https is for https alone.
func TestCookie(t *testing.T) {
	for url, want := range map[string]string{"https://mail.example.org": "__Host-drawbridge", "": "drawbridge", "http://localhost:8482": "drawbridge"} {
		if c := site(t, url).Secure(false).sessions.Cookie; c.Name != want || c.Secure != strings.HasPrefix(want, "__Host") || c.SameSite != http.SameSiteStrictMode || !c.HttpOnly || c.Path != "/" || c.Domain != "" {
			t.Errorf("%q: %+v", url, c)
		}
	}
}

// Wrong log-ins from many addresses take memory for each address alone, and no time that grows with
// those of others.
func TestWrongLogInsAreBounded(t *testing.T) {
	s := site(t, "")
	for i := range 1000 {
		r := httptest.NewRequest(http.MethodPost, "/login", nil)
		r.RemoteAddr = netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}).String() + ":1"
		s.call(httptest.NewRecorder(), r).Wrong(uint64(i))
	}
	if accounts, sources, _ := s.guesses.Entries(); accounts != 0 || sources != 1000 {
		t.Errorf("%d accounts, %d addresses", accounts, sources)
	}
}

// One tenant's requests leave room for those of others.
func TestTake(t *testing.T) {
	c := site(t, "").call(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	for _, long := range []bool{false, true} {
		most := maxEach
		if long {
			most = maxLongEach
		}
		var done []func()
		for i := range most + 1 {
			d, err := c.Take("example.org", long)
			if (err != nil) != (i == most) {
				t.Fatalf("request %d, long %t: %v", i+1, long, err)
			}
			done = append(done, d)
		}
		other, err := c.Take("example.net", long)
		if err != nil {
			t.Errorf("long %t: another tenant: %v", long, err)
		}
		other()
		done[0]()
		if _, err := c.Take("example.org", long); err != nil {
			t.Errorf("long %t, after one: %v", long, err)
		}
	}
}

// A problem is a sentence in each language, whatever letter it begins with.
func TestExplain(t *testing.T) {
	for code, want := range map[string]string{
		"en": "The store is away.", "de": "Ändern Sie es.", "zh": "不存在。",
	} {
		i := slices.IndexFunc(languages, func(l *Language) bool { return l.Code == code })
		c := &Call{Language: languages[i]}
		detail := strings.TrimRight(want, ".。")
		for _, given := range []string{detail, strings.ToLower(detail)[:len(detail)]} {
			if got := c.Explain(&api.Problem{Detail: given}); !strings.EqualFold(got, want) || !strings.HasPrefix(got, string([]rune(want)[0])) {
				t.Errorf("%q, want %q", got, want)
			}
		}
	}
}

// The console is in English, whatever a browser asks for; the users' pages are not.
func TestConsoleIsInEnglish(t *testing.T) {
	for path, want := range map[string]string{
		"/": "en", "/keys": "en", "/accounts/ann@example.org": "en", "/accountant": "en", "/account": "de", "/account/logins": "de", "/language": "de",
	} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Accept-Language", "de-AT, en;q=0.5")
		if got := languageOf(r).Code; got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
}
