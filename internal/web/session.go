package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"html/template"
	"net/http"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"
)

// sessionStore is the store as package scs wants it.
type sessionStore struct{ Store }

// DeleteCtx implements scs.CtxStore.
func (s sessionStore) DeleteCtx(ctx context.Context, token string) error {
	return s.PutPage(ctx, "session:"+token, nil, 0)
}

// found is the token of the session that a request came with, in its context.
type found struct{ token string }

type foundKey struct{}

// remembering lets the store know which session a request came with.
func remembering(pages http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pages.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), foundKey{}, new(found))))
	})
}

// FindCtx implements scs.CtxStore.
func (s sessionStore) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	b, err := s.FindPage(ctx, "session:"+token)
	if came, ok := ctx.Value(foundKey{}).(*found); ok && b != nil {
		came.token = token
	}
	return b, b != nil, err
}

// CommitCtx implements scs.CtxStore. Every request writes its session, since it was used: one that
// ended while a request was running, as by a log-out, stays ended.
func (s sessionStore) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	if came, ok := ctx.Value(foundKey{}).(*found); ok && came.token == token {
		_, err := s.PutPageIf(ctx, true, "session:"+token, b, time.Until(expiry))
		return err
	}
	return s.PutPage(ctx, "session:"+token, b, time.Until(expiry))
}

// Delete, Find and Commit are not called: scs prefers those with a context.
func (s sessionStore) Delete(string) error                    { return nil }
func (s sessionStore) Find(string) ([]byte, bool, error)      { return nil, false, nil }
func (s sessionStore) Commit(string, []byte, time.Time) error { return nil }

// Area is a part of the pages with log-ins of its own: one browser may be logged in to both, as
// different people.
type Area string

// The areas.
const (
	Account Area = "account" // who is the address of an account
	Console Area = "console" // who is the hash of an API key
)

// epochKey names the value that all sessions of somebody share; another value ends them.
func (a Area) epochKey(who string) string { return "epoch:" + string(a) + ":" + who }

// SignIn begins a session under a new token, and so ends the one that the browser had: a token that
// was planted in it is worthless. Errors are those of the store.
func (c *Call) SignIn(a Area, who string) error {
	ctx := c.R.Context()
	epoch, err := c.join(a.epochKey(who))
	if err != nil {
		return err
	}
	if err := c.sessions.RenewToken(ctx); err != nil {
		return err
	}
	c.sessions.Put(ctx, string(a), who)
	c.sessions.Put(ctx, string(a)+".epoch", epoch)
	c.sessions.Put(ctx, string(a)+".ends", c.Now.Add(lasting).UnixMilli())
	c.Prove(a)
	return nil
}

// join returns the epoch at a key, or begins one, and keeps it for as long as a session lasts. Of two
// who begin one at once, both get the same.
func (c *Call) join(key string) (epoch string, err error) {
	ctx := c.R.Context()
	for range 3 { // what is found may end before it is kept
		b, err := c.Store.FindPage(ctx, key)
		if err != nil {
			return "", err
		}
		there := b != nil
		if !there {
			b = []byte(rand.Text())
		}
		if joined, err := c.Store.PutPageIf(ctx, there, key, b, lasting+time.Hour); joined || err != nil {
			return string(b), err
		}
	}
	return "", api.Unavailable("unavailable", "sessions are ending at this moment: try again")
}

// SignedIn returns who is logged in to an area; "" for nobody, after [Call.EndSessions], and twelve
// hours after the log-in to this area. Errors are those of the store, and mean that nobody may continue.
func (c *Call) SignedIn(a Area) (string, error) {
	ctx := c.R.Context()
	who := c.sessions.GetString(ctx, string(a))
	if who == "" || c.Now.UnixMilli() >= c.sessions.GetInt64(ctx, string(a)+".ends") { // a log-in to the other area begins none here
		return "", nil
	}
	epoch, err := c.Epoch(a, who)
	if err != nil || epoch == "" || epoch != c.sessions.GetString(ctx, string(a)+".epoch") {
		return "", err
	}
	return who, nil
}

// Epoch returns a value that changes when all sessions of somebody end; "" if there are none. What
// is bound to it ends with them.
func (c *Call) Epoch(a Area, who string) (string, error) {
	b, err := c.Store.FindPage(c.R.Context(), a.epochKey(who))
	return string(b), err
}

// SignOut ends the session of this browser, in both areas: it is deleted from the store, and its
// cookie is removed. It returns what [Call.LogOutAt] kept.
func (c *Call) SignOut() (elsewhere string, err error) {
	elsewhere = c.sessions.GetString(c.R.Context(), "elsewhere")
	return elsewhere, c.sessions.Destroy(c.R.Context())
}

// LogOutAt keeps with the session where its browser is to log out, too; "" for nowhere.
func (c *Call) LogOutAt(url string) { c.sessions.Put(c.R.Context(), "elsewhere", url) }

// Left shows that the user has logged out here, and leads on to where the browser has to log out, too.
// It is a page and no redirect: the Content-Security-Policy lets no form lead to another site.
func (c *Call) Left(url string) error {
	c.W.Header().Set("Refresh", "0; url="+url)
	return c.send(leftPage, leftPage.Name(), http.StatusOK, View{Call: c, Title: c.T("Logged out"), Data: url})
}

var leftPage = template.Must(template.Must(shared.Clone()).Parse(`<!DOCTYPE html>
<html lang="{{.Code}}">
<head>{{template "head" .}}</head>
<body><main class="container"><h1>{{.Title}}</h1><p><a href="{{.Data}}">{{.T "Log out there, too"}}</a></p></main></body>
</html>
`))

// EndSessions ends all sessions of somebody in an area, on all nodes, this one included. Those of the
// other area continue.
func (c *Call) EndSessions(a Area, who string) error {
	return a.EndSessions(c.R.Context(), c.Store, who)
}

// EndSessions ends all sessions of somebody, on all nodes, from their next request on. It needs no
// request of a page, so that other doors can call it.
func (a Area) EndSessions(ctx context.Context, s Store, who string) error {
	return s.PutPage(ctx, a.epochKey(who), nil, 0)
}

// Prove records in the session that the password or key of an area has just been entered, which
// permits dangerous changes for ten minutes.
func (c *Call) Prove(a Area) {
	ctx := c.R.Context()
	c.sessions.Put(ctx, string(a)+".proved", c.Now.UnixMilli())
	c.sessions.Put(ctx, string(a)+".until", c.Now.Add(provedIn).UnixMilli())
}

// Proved reports whether the password or key was entered recently enough for a dangerous change: less
// than ten minutes ago.
func (c *Call) Proved(a Area) bool {
	return c.Now.UnixMilli() < c.sessions.GetInt64(c.R.Context(), string(a)+".until")
}

// ProvedAt returns when the password or key was last entered, to the millisecond; 1970 if it was not
// in this session.
func (c *Call) ProvedAt(a Area) time.Time {
	return time.UnixMilli(c.sessions.GetInt64(c.R.Context(), string(a)+".proved"))
}

// Note keeps a text for the next page that this browser shows; a later text replaces it. It is kept
// in the session.
func (c *Call) Note(text string) { c.sessions.Put(c.R.Context(), "note", text) }

// Permit keeps a permission for a time, and returns the token with which it is taken once. The store
// has only the hash of the token.
func (c *Call) Permit(kind string, value []byte, keep time.Duration) (token string, err error) {
	token = rand.Text()
	return token, c.Store.PutPage(c.R.Context(), permission(kind, token), value, keep)
}

// Permitted returns what a token permits, without taking it; nil for an unknown token, and for one that
// was taken or has expired.
func (c *Call) Permitted(kind, token string) ([]byte, error) {
	return c.Store.FindPage(c.R.Context(), permission(kind, token))
}

// TakePermit takes a permission: of two requests at once, on whichever nodes, one gets it and the
// other nil.
func (c *Call) TakePermit(kind, token string) ([]byte, error) {
	return c.Store.TakePage(c.R.Context(), permission(kind, token))
}

// Once reports whether an id of a kind is used for the first time, on any node; it is remembered for a time.
func (c *Call) Once(kind, id string, keep time.Duration) (first bool, err error) {
	return c.Store.PutPageIf(c.R.Context(), false, permission(kind, id), nil, keep)
}

// SetCookie keeps a value in the browser for a time, 0 to delete it, beside its session. Unlike the
// session's cookie it is sent when another site's page leads here. It is not signed.
func (c *Call) SetCookie(name, value string, keep time.Duration) {
	cookie := &http.Cookie{Name: c.cookieName(name), Value: value, Path: "/", MaxAge: int(keep.Seconds()), HttpOnly: true, Secure: c.sessions.Cookie.Secure, SameSite: http.SameSiteLaxMode} //nolint:gosec // G124: Secure where the site is
	if keep <= 0 {
		cookie.MaxAge = -1
	}
	http.SetCookie(c.W, cookie)
}

// Cookie returns a value that [Call.SetCookie] kept; "" for none.
func (c *Call) Cookie(name string) string {
	cookie, err := c.R.Cookie(c.cookieName(name))
	if err != nil {
		return ""
	}
	return cookie.Value
}

func (c *Call) cookieName(name string) string {
	if c.sessions.Cookie.Secure {
		return "__Host-" + name
	}
	return name
}

// Arrived continues at a path of this site after a log-in that another site's page led to. It is a page
// and no redirect: only a page of this site makes the browser send the session's cookie, which is
// SameSite=Strict.
func (c *Call) Arrived(path string) error {
	if path = Local(path); path == "" {
		path = "/"
	}
	c.W.Header().Set("Refresh", "0; url="+path)
	return c.send(arrivedPage, arrivedPage.Name(), http.StatusOK, View{Call: c, Title: c.T("Logged in"), Data: path})
}

var arrivedPage = template.Must(template.Must(shared.Clone()).Parse(`<!DOCTYPE html>
<html lang="{{.Code}}">
<head>{{template "head" .}}</head>
<body><main class="container"><h1>{{.Title}}</h1><p><a href="{{.Data}}">{{.T "To my devices"}}</a></p></main></body>
</html>
`))

// permission is the key of a permission, which does not reveal its token.
func permission(kind, token string) string {
	sum := sha256.Sum256([]byte(token))
	return "permit:" + kind + ":" + hex.EncodeToString(sum[:])
}
