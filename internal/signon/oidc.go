package signon

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/drawbridge/drawbridge/internal/web"
)

const (
	beginWithin  = 10 * time.Minute // for the login at the provider
	answerWithin = 10 * time.Second // for one answer of the provider
	maxAnswer    = 1 << 20          // bytes of it
	callbackPath = "/account/oidc/callback"
)

// Provider is the site's OpenID provider. Its fields are those of the settings; the zero Claim is
// email. It is safe for concurrent use.
type Provider struct {
	Issuer   string
	ClientID string
	Secret   []byte
	Claim    string
	// Domains are those of accounts that the provider may name; none means all that are managed.
	Domains []string
	// Factors are claims, such as amr=mfa, of which one shows that a second factor that counts was
	// proven; none counts if it is empty.
	Factors []string

	reading sync.Mutex
	known   atomic.Pointer[oidc.Provider]
}

// bounded bounds each answer of the provider.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

var client = &http.Client{
	Transport: bounded{http.DefaultTransport}, Timeout: answerWithin,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// discover reads the provider's metadata, unless it is known already. The error says what is wrong
// with it.
func (p *Provider) discover(ctx context.Context) (*oidc.Provider, error) {
	if known := p.known.Load(); known != nil {
		return known, nil
	}
	if !p.reading.TryLock() { // a provider that does not answer holds up one request only
		return nil, errors.New("the metadata of the OpenID provider is being read")
	}
	defer p.reading.Unlock()
	known, err := oidc.NewProvider(oidc.ClientContext(ctx, client), p.Issuer)
	if err != nil {
		return nil, fmt.Errorf("reading the metadata of the OpenID provider: %w", err)
	}
	p.known.Store(known)
	return known, nil
}

func (p *Provider) oauth(known *oidc.Provider, c *web.Call) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: string(p.Secret), Endpoint: known.Endpoint(), RedirectURL: c.Base() + callbackPath,
		Scopes: []string{oidc.ScopeOpenID, "email", "profile"},
	}
}

// begun is a login that waits for the provider, in a cookie of its browser.
type begun struct {
	State    string    `json:"s"`
	Nonce    string    `json:"n"`
	Verifier string    `json:"v"`
	Next     string    `json:"x,omitempty"`
	At       time.Time `json:"t"`
}

const begunCookie = "drawbridge-oidc"

// begin sends the browser to the provider.
func (p *Pages) begin(c *web.Call) error {
	known, err := p.Provider.discover(c.R.Context())
	if err != nil {
		return p.failed(c, "login by OpenID", err)
	}
	b := begun{rand.Text(), rand.Text(), oauth2.GenerateVerifier(), web.Local(c.R.URL.Query().Get("next")), c.Now}
	value, err := json.Marshal(b)
	if err != nil {
		return err
	}
	// Not Strict: the provider's site sends the browser back.
	c.SetCookie(begunCookie, base64.RawURLEncoding.EncodeToString(value), beginWithin)
	http.Redirect(c.W, c.R, p.Provider.oauth(known, c).AuthCodeURL(b.State, oidc.Nonce(b.Nonce), oauth2.S256ChallengeOption(b.Verifier)), http.StatusFound)
	return nil
}

// callback is where the provider sends the browser back to.
func (p *Pages) callback(c *web.Call) error {
	if err := throttled(c); err != nil {
		return err
	}
	var b begun
	if value, err := base64.RawURLEncoding.DecodeString(c.Cookie(begunCookie)); err == nil {
		_ = json.Unmarshal(value, &b) // what is no login is refused below
	}
	c.SetCookie(begunCookie, "", 0)
	arrival, err := p.Provider.answered(c, &b)
	if err == nil && !p.Exists(arrival.Account) {
		err = refuse("the account has no record here: " + arrival.Account)
	}
	if err != nil {
		return p.failed(c, "login by OpenID", err)
	}
	return p.Arrived(c, arrival)
}

// answered verifies the answer of the provider to a login that this browser has begun.
func (p *Provider) answered(c *web.Call, b *begun) (*Arrival, error) {
	q := c.R.URL.Query()
	switch {
	case b.State == "" || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(b.State)) != 1:
		return nil, refuseStray("this browser has not begun it")
	case c.Now.Sub(b.At) > beginWithin:
		return nil, refuse("it was begun too long ago")
	}
	known, err := p.discover(c.R.Context())
	if err != nil {
		return nil, err
	}
	var metadata struct {
		NamesIssuer bool   `json:"authorization_response_iss_parameter_supported"`
		EndSession  string `json:"end_session_endpoint"`
	}
	if err := known.Claims(&metadata); err != nil {
		return nil, fmt.Errorf("reading the metadata of the OpenID provider: %w", err)
	}
	switch {
	case q.Has("iss") && q.Get("iss") != p.Issuer, metadata.NamesIssuer && !q.Has("iss"):
		return nil, refuse("the answer is not of this issuer")
	case q.Get("error") != "":
		return nil, refuse(fmt.Sprintf("the provider reports %.100q", q.Get("error")))
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(c.R.Context(), client), answerWithin)
	defer cancel()
	token, err := p.oauth(known, c).Exchange(ctx, q.Get("code"), oauth2.VerifierOption(b.Verifier))
	if wrong := new(oauth2.RetrieveError); errors.As(err, &wrong) && wrong.Response.StatusCode/100 == 4 {
		return nil, refuse(fmt.Sprintf("the provider refuses the code: %.100q", wrong.ErrorCode))
	}
	if err != nil {
		return nil, fmt.Errorf("exchanging the code: %w", err)
	}
	raw, _ := token.Extra("id_token").(string)
	verified, err := known.Verifier(&oidc.Config{
		ClientID: p.ClientID, SupportedSigningAlgs: []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA},
		Now: func() time.Time { return c.Now },
	}).Verify(ctx, raw)
	if err != nil {
		return nil, refusal{why: fmt.Errorf("the ID token: %w", err)}
	}
	if subtle.ConstantTimeCompare([]byte(verified.Nonce), []byte(b.Nonce)) != 1 {
		return nil, refuse("the ID token is of another login")
	}
	var claims map[string]any
	if err := verified.Claims(&claims); err != nil {
		return nil, refusal{why: fmt.Errorf("the ID token: %w", err)}
	}
	if err := p.complete(ctx, known, token, verified.Subject, claims); err != nil {
		return nil, err
	}
	account, err := p.account(claims)
	if err != nil {
		return nil, err
	}
	return &Arrival{
		Account: account, Next: b.Next, How: "OIDC", Proven: p.proven(claims), LogOut: p.logOut(metadata.EndSession, raw, c.Base()+"/account/login"),
	}, nil
}

// complete adds the claims that name the account from the provider's UserInfo endpoint, where the ID
// token lacks them: providers need not have them in both (OpenID Connect Core 1.0, section 5.4).
func (p *Provider) complete(ctx context.Context, known *oidc.Provider, token *oauth2.Token, subject string, claims map[string]any) error {
	if _, has := claims[p.claim()]; has || known.UserInfoEndpoint() == "" {
		return nil
	}
	info, err := known.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return fmt.Errorf("reading the user info: %w", err)
	}
	if info.Subject != subject {
		return refuse("the user info is of another user than the ID token")
	}
	var more map[string]any
	if err := info.Claims(&more); err != nil {
		return fmt.Errorf("reading the user info: %w", err)
	}
	for _, name := range []string{p.claim(), "email_verified"} {
		if value, has := more[name]; has {
			claims[name] = value
		}
	}
	return nil
}

// claim is the claim with the account's address.
func (p *Provider) claim() string { return cmp.Or(p.Claim, "email") }

// logOut returns where a browser ends its session at the provider, and is sent back from (OpenID
// Connect RP-Initiated Logout 1.0); "" if the provider has no such place.
func (p *Provider) logOut(endpoint, token, back string) string {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	q := u.Query()
	q.Set("id_token_hint", token)
	q.Set("client_id", p.ClientID)
	q.Set("post_logout_redirect_uri", back)
	u.RawQuery = q.Encode()
	return u.String()
}

// account returns the account that the claims of an ID token name.
func (p *Provider) account(claims map[string]any) (string, error) {
	name := p.claim()
	account, _ := claims[name].(string)
	_, domain, found := strings.Cut(account, "@")
	verified := claims["email_verified"]
	if party, given := claims["azp"]; given && party != p.ClientID {
		return "", refuse("the ID token is for another client")
	}
	switch {
	case !found:
		return "", refuse(fmt.Sprintf("the claim %s is not an address", name))
	case name == "email" && verified != true && verified != "true":
		return "", refuse("the provider has not verified the address")
	case len(p.Domains) > 0 && !slices.ContainsFunc(p.Domains, func(d string) bool { return strings.EqualFold(d, domain) }):
		return "", refuse(fmt.Sprintf("the provider may not name accounts of %.100q", domain))
	}
	return account, nil
}

// proven reports whether the provider has asked for a second factor that counts here.
func (p *Provider) proven(claims map[string]any) bool {
	return slices.ContainsFunc(p.Factors, func(f string) bool {
		name, want, _ := strings.Cut(f, "=")
		if list, ok := claims[name].([]any); ok {
			return slices.Contains(list, any(want))
		}
		return claims[name] == any(want)
	})
}
