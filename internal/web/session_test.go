package web

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a store in memory whose values expire, as Redis' do.
type memory map[string]kept

type kept struct {
	value []byte
	until time.Time
}

func (m memory) FindPage(_ context.Context, key string) ([]byte, error) {
	if k, ok := m[key]; ok && time.Now().Before(k.until) {
		return k.value, nil
	}
	return nil, nil
}

func (m memory) TakePage(ctx context.Context, key string) ([]byte, error) {
	value, err := m.FindPage(ctx, key)
	delete(m, key)
	return value, err
}

func (m memory) PutPage(_ context.Context, key string, value []byte, keep time.Duration) error {
	m[key] = kept{value, time.Now().Add(keep)}
	return nil
}

func (m memory) PutPageIf(ctx context.Context, there bool, key string, value []byte, keep time.Duration) (bool, error) {
	if k, ok := m[key]; there != (ok && time.Now().Before(k.until)) {
		return false, nil
	}
	return true, m.PutPage(ctx, key, value, keep)
}

// visitor is a browser with a cookie.
type visitor struct {
	t      *testing.T
	pages  http.Handler
	cookie *http.Cookie
}

func (v *visitor) get(path string) string {
	v.t.Helper()
	r, w := httptest.NewRequest(http.MethodGet, path, nil), httptest.NewRecorder()
	r.Host = "localhost"
	if v.cookie != nil {
		r.AddCookie(v.cookie)
	}
	v.pages.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		v.cookie = c
	}
	return w.Body.String()
}

// A session ends when it was unused for half an hour, and twelve hours after its log-in however much it
// is used. What was entered counts for ten minutes.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := site(t, "")
		store := memory{}
		s.Store, s.sessions.Store = store, sessionStore{store}
		mux := http.NewServeMux()
		mux.Handle("/in", s.Page(func(c *Call) error { return c.SignIn(Account, "ann") }))
		mux.Handle("/console", s.Page(func(c *Call) error { return c.SignIn(Console, "key") }))
		mux.Handle("/who", s.Page(func(c *Call) error {
			who, err := c.SignedIn(Account)
			_, _ = fmt.Fprint(c.W, who, " ", c.Proved(Account))
			return err
		}))
		pages := s.Handler(mux)
		want := func(v *visitor, after time.Duration, text string) {
			t.Helper()
			time.Sleep(after)
			if got := v.get("/who"); got != text {
				t.Errorf("%q, want %q", got, text)
			}
		}

		idle := &visitor{t: t, pages: pages}
		idle.get("/in")
		want(idle, 0, "ann true")
		want(idle, 10*time.Minute-time.Second, "ann true")
		want(idle, time.Second, "ann false")
		want(idle, 30*time.Minute-time.Second, "ann false")
		want(idle, 30*time.Minute+time.Second, " false")

		busy := &visitor{t: t, pages: pages}
		busy.get("/in")
		for range 35 {
			want(busy, 20*time.Minute, "ann false") // 11 hours and 40 minutes
		}
		want(busy, 20*time.Minute-time.Second, "ann false")
		want(busy, 2*time.Second, " false")

		// A log-in to the other area makes no session of this one last longer.
		both := &visitor{t: t, pages: pages}
		both.get("/in")
		for range 35 {
			want(both, 20*time.Minute, "ann false")
		}
		both.get("/console")
		want(both, 20*time.Minute-time.Second, "ann false")
		want(both, 2*time.Second, " false")

		planted := &visitor{t: t, pages: pages, cookie: &http.Cookie{Name: "drawbridge", Value: "planted"}}
		planted.get("/in")
		if planted.cookie.Value == "planted" {
			t.Error("a token that was planted is in use")
		}
		for key := range store {
			if key == "session:"+planted.cookie.Value {
				t.Error("the token is in the store")
			}
		}
	})
}

// A session that ends while another of its requests is running stays ended, although that one writes
// it, too.
func TestEndedSessionsStayEnded(t *testing.T) {
	t.Parallel()
	s, store := site(t, ""), memory{}
	s.Store, s.sessions.Store = store, sessionStore{store}
	var v *visitor
	mux := http.NewServeMux()
	mux.Handle("/in", s.Page(func(c *Call) error { return c.SignIn(Account, "ann") }))
	mux.Handle("/out", s.Page(func(c *Call) error {
		_, err := c.SignOut()
		return err
	}))
	mux.Handle("/slow/{end}", s.Page(func(c *Call) error {
		other := *v
		other.get("/" + c.R.PathValue("end")) // meanwhile, in another window
		return c.Redirect("/who")
	}))
	mux.Handle("/who", s.Page(func(c *Call) error {
		who, err := c.SignedIn(Account)
		_, _ = fmt.Fprint(c.W, who)
		return err
	}))
	for _, end := range []string{"out", "in"} {
		v = &visitor{t: t, pages: s.Handler(mux)}
		v.get("/in")
		before := *v
		if who := v.get("/who"); who != "ann" {
			t.Fatalf("logged in as %q", who)
		}
		v.get("/slow/" + end)
		if who := before.get("/who"); who != "" {
			t.Errorf("after %s the former session is that of %q", end, who)
		}
	}
}
