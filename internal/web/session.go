package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// sessionStore is the store as package scs wants it.
type sessionStore struct{ Store }

// DeleteCtx implements scs.CtxStore.
func (s sessionStore) DeleteCtx(ctx context.Context, token string) error {
	return s.PutPage(ctx, "session:"+token, nil, 0)
}

// FindCtx implements scs.CtxStore.
func (s sessionStore) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	b, err := s.FindPage(ctx, "session:"+token)
	return b, b != nil, err
}

// CommitCtx implements scs.CtxStore.
func (s sessionStore) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	return s.PutPage(ctx, "session:"+token, b, time.Until(expiry))
}

// Delete, Find and Commit are not called: scs prefers those with a context.
func (s sessionStore) Delete(string) error                    { return nil }
func (s sessionStore) Find(string) ([]byte, bool, error)      { return nil, false, nil }
func (s sessionStore) Commit(string, []byte, time.Time) error { return nil }

// Area is a part of the pages with log-ins of its own.
type Area string

// The areas.
const (
	Account Area = "account" // who is the address of an account
	Console Area = "console" // who is the hash of an API key
)

// epochKey names the value that all sessions of somebody share; another value ends them.
func (a Area) epochKey(who string) string { return "epoch:" + string(a) + ":" + who }

// SignIn begins a session under a new token, and so ends the one that the browser had.
func (c *Call) SignIn(a Area, who string) error {
	ctx := c.R.Context()
	epoch, err := c.Store.FindPage(ctx, a.epochKey(who))
	if err != nil {
		return err
	}
	if epoch == nil {
		epoch = []byte(rand.Text())
	}
	if err := c.Store.PutPage(ctx, a.epochKey(who), epoch, lasting+time.Hour); err != nil {
		return err
	}
	if err := c.sessions.RenewToken(ctx); err != nil {
		return err
	}
	c.sessions.Put(ctx, string(a), who)
	c.sessions.Put(ctx, string(a)+".epoch", string(epoch))
	c.Prove(a)
	return nil
}

// SignedIn returns who is logged in to an area; "" for nobody.
func (c *Call) SignedIn(a Area) (string, error) {
	ctx := c.R.Context()
	who := c.sessions.GetString(ctx, string(a))
	if who == "" {
		return "", nil
	}
	epoch, err := c.Epoch(a, who)
	if err != nil || epoch == "" || epoch != c.sessions.GetString(ctx, string(a)+".epoch") {
		return "", err
	}
	return who, nil
}

// Epoch returns a value that changes when all sessions of somebody end.
func (c *Call) Epoch(a Area, who string) (string, error) {
	b, err := c.Store.FindPage(c.R.Context(), a.epochKey(who))
	return string(b), err
}

// SignOut ends the session of this browser.
func (c *Call) SignOut() error { return c.sessions.Destroy(c.R.Context()) }

// EndSessions ends all sessions of somebody in an area, on all nodes, this one included.
func (c *Call) EndSessions(a Area, who string) error {
	return a.EndSessions(c.R.Context(), c.Store, who)
}

// EndSessions ends all sessions of somebody, on all nodes.
func (a Area) EndSessions(ctx context.Context, s Store, who string) error {
	return s.PutPage(ctx, a.epochKey(who), nil, 0)
}

// Prove notes that the password or key has just been entered.
func (c *Call) Prove(a Area) { c.sessions.Put(c.R.Context(), string(a)+".proved", c.Now.UnixMilli()) }

// Proved reports whether the password or key was entered recently enough for a dangerous change.
func (c *Call) Proved(a Area) bool {
	return c.Now.Sub(c.ProvedAt(a)) < provedIn
}

// ProvedAt returns when the password or key was last entered.
func (c *Call) ProvedAt(a Area) time.Time {
	return time.UnixMilli(c.sessions.GetInt64(c.R.Context(), string(a)+".proved"))
}

// Note keeps a text for the next page that this browser shows.
func (c *Call) Note(text string) { c.sessions.Put(c.R.Context(), "note", text) }

// Permit keeps a permission for a time, and returns the token with which it is taken once.
func (c *Call) Permit(kind string, value []byte, keep time.Duration) (token string, err error) {
	token = rand.Text()
	return token, c.Store.PutPage(c.R.Context(), permission(kind, token), value, keep)
}

// Permitted returns what a token permits, without taking it; nil for nothing.
func (c *Call) Permitted(kind, token string) ([]byte, error) {
	return c.Store.FindPage(c.R.Context(), permission(kind, token))
}

// TakePermit takes a permission: of two requests, one gets it.
func (c *Call) TakePermit(kind, token string) ([]byte, error) {
	return c.Store.TakePage(c.R.Context(), permission(kind, token))
}

// permission is the key of a permission, which does not reveal its token.
func permission(kind, token string) string {
	sum := sha256.Sum256([]byte(token))
	return "permit:" + kind + ":" + hex.EncodeToString(sum[:])
}
