package signon

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/web"
)

// memory is a store of pages for one test.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (m *memory) FindPage(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.values[key]), nil
}

func (m *memory) TakePage(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer delete(m.values, key)
	return m.values[key], nil
}

func (m *memory) PutPage(_ context.Context, key string, value []byte, _ time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[key] = bytes.Clone(value)
	return nil
}

func (m *memory) PutPageIf(_ context.Context, there bool, key string, value []byte, _ time.Duration) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, is := m.values[key]
	if is == there {
		m.values[key] = append([]byte{}, value...)
	}
	return is == there, nil
}

const (
	here     = "http://127.0.0.1:8482"
	clientID = "drawbridge"
	secret   = "the secret of this client, long enough for HS256"
)

// provider is an OpenID provider that can be made to lie.
type provider struct {
	*httptest.Server
	key, other *rsa.PrivateKey
	challenge  string // of the login that was begun
	nonce      string
	used       bool                               // the code
	claims     map[string]any                     // of the next ID token, in place of the right ones
	sign       func(p *provider, b []byte) string // the next ID token; nil signs rightly
	answer     func(w http.ResponseWriter) (ended bool)
	info       map[string]any // what the UserInfo endpoint answers; nil is a fault
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{}
	for _, key := range []**rsa.PrivateKey{&p.key, &p.other} {
		var err error
		if *key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			t.Fatal(err)
		}
	}
	mux := http.NewServeMux()
	send := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		send(w, map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/auth", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"userinfo_endpoint": p.URL + "/userinfo", "end_session_endpoint": p.URL + "/end?x=y",
			"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
		})
	})
	mux.HandleFunc("GET /userinfo", func(w http.ResponseWriter, r *http.Request) {
		if p.info == nil || r.Header.Get("Authorization") != "Bearer x" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		send(w, p.info)
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		send(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &p.key.PublicKey, KeyID: "1", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if p.answer != nil && p.answer(w) {
			return
		}
		sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		if p.used || r.PostFormValue("code") != "code" || base64.RawURLEncoding.EncodeToString(sum[:]) != p.challenge {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"error":"invalid_grant"}`))
			return
		}
		p.used = true
		claims := map[string]any{
			"iss": p.URL, "aud": clientID, "sub": "1", "nonce": p.nonce, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
			"email": "ann@example.org", "email_verified": true,
		}
		maps.Copy(claims, p.claims)
		maps.DeleteFunc(claims, func(name string, _ any) bool { return p.info != nil && (name == "email" || name == "email_verified") })
		b, _ := json.Marshal(claims) // plain values
		sign := p.sign
		if sign == nil {
			sign = func(p *provider, b []byte) string { return signed(jose.RS256, p.key, b) }
		}
		send(w, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": sign(p, b)})
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func signed(alg jose.SignatureAlgorithm, key any, b []byte) string {
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", "1"))
	if err != nil {
		panic(err)
	}
	o, err := s.Sign(b)
	if err != nil {
		panic(err)
	}
	text, err := o.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return text
}

// unsigned is a token of the algorithm none.
func unsigned(_ *provider, b []byte) string {
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString(b) + "."
}

// desk is the site that users log in to, and who has arrived there.
type desk struct {
	http.Handler
	arrived *Arrival
}

func newDesk(p *Pages) *desk {
	d := &desk{}
	p.Exists = func(account string) bool {
		return strings.HasSuffix(account, "@example.org") || strings.HasSuffix(account, "@other.example")
	}
	p.Arrived = func(c *web.Call, a *Arrival) error { d.arrived = a; return c.Arrived("/account") }
	site := web.New(web.Options{Store: &memory{values: map[string][]byte{}}, PublicURL: here, Log: hclog.NewNullLogger(), ProblemOf: func(err error) *api.Problem {
		if p := new(api.Problem); errors.As(err, &p) {
			return p
		}
		panic(err)
	}})
	mux := http.NewServeMux()
	p.Register(mux, site)
	d.Handler = site.Handler(mux)
	return d
}

var clients int

// send sends a request of a new address, so that no test is held back for another's guesses.
func (d *desk) send(r *http.Request) *http.Response {
	clients++
	r.RemoteAddr = fmt.Sprintf("10.0.%d.%d:1", clients/200, clients%200)
	return d.sendFrom(r)
}

func (d *desk) sendFrom(r *http.Request) *http.Response {
	d.arrived = nil
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Result()
}

// begin begins a login, and returns its cookies and state.
func (d *desk) begin(t *testing.T, p *provider) (cookies []*http.Cookie, state string) {
	t.Helper()
	resp := d.send(httptest.NewRequest(http.MethodGet, here+"/account/oidc?next=/account/devices/new", nil))
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || resp.StatusCode != http.StatusFound || !strings.HasPrefix(to.String(), p.URL+"/auth?") || to.Query().Get("code_challenge_method") != "S256" ||
		to.Query().Get("redirect_uri") != here+callbackPath {
		t.Fatalf("%d %v", resp.StatusCode, to)
	}
	p.challenge, p.nonce, p.used = to.Query().Get("code_challenge"), to.Query().Get("nonce"), false
	return resp.Cookies(), to.Query().Get("state")
}

func (d *desk) callback(cookies []*http.Cookie, query url.Values) *http.Response {
	r := httptest.NewRequest(http.MethodGet, here+callbackPath+"?"+query.Encode(), nil)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	return d.send(r)
}

// A user whom the provider has verified arrives; whatever is forged, replayed or of another party does
// not.
func TestOIDC(t *testing.T) {
	p := newProvider(t)
	op := &Provider{Issuer: p.URL, ClientID: clientID, Secret: []byte(secret), Domains: []string{"example.org"}, Factors: []string{"amr=mfa", "acr=high"}}
	d := newDesk(&Pages{Provider: op})
	type forgery struct {
		claims map[string]any
		sign   func(*provider, []byte) string
		query  map[string]string // "" deletes
		stolen bool              // by another browser
		answer func(http.ResponseWriter) bool
		info   map[string]any
		want   int
	}
	one := func(name string, value any) forgery { return forgery{claims: map[string]any{name: value}} }
	for name, f := range map[string]forgery{
		"right":                           {want: 200},
		"right, with its issuer":          {query: map[string]string{"iss": p.URL}, want: 200},
		"mix-up: another issuer answers":  {query: map[string]string{"iss": "https://evil.example"}},
		"another browser":                 {stolen: true},
		"another state":                   {query: map[string]string{"state": "x"}},
		"no state":                        {query: map[string]string{"state": ""}},
		"another code":                    {query: map[string]string{"code": "x"}},
		"the user declines":               {query: map[string]string{"error": "access_denied"}},
		"another issuer":                  one("iss", "https://evil.example"),
		"another audience":                one("aud", "other"),
		"another party":                   one("azp", "other"),
		"another login":                   one("nonce", "x"),
		"expired":                         one("exp", time.Now().Add(-time.Minute).Unix()),
		"an address not verified":         one("email_verified", false),
		"perhaps verified":                one("email_verified", nil),
		"another tenant":                  one("email", "eve@other.example"),
		"nobody":                          one("email", "eve"),
		"a list":                          one("email", []string{"ann@example.org"}),
		"not signed":                      {sign: unsigned},
		"signed with the client's secret": {sign: func(_ *provider, b []byte) string { return signed(jose.HS256, []byte(secret), b) }},
		"signed with another key":         {sign: func(p *provider, b []byte) string { return signed(jose.RS256, p.other, b) }},
		"no ID token":                     {sign: func(*provider, []byte) string { return "" }},
		"by user info":                    {info: map[string]any{"sub": "1", "email": "ann@example.org", "email_verified": true}, want: 200},
		"of another user":                 {info: map[string]any{"sub": "2", "email": "ann@example.org", "email_verified": true}},
		"not verified by user info":       {info: map[string]any{"sub": "1", "email": "ann@example.org"}},
		"nobody by user info":             {info: map[string]any{"sub": "1"}},
		"the provider is broken": {answer: func(w http.ResponseWriter) bool {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}, want: 503},
	} {
		cookies, state := d.begin(t, p)
		p.claims, p.sign, p.answer, p.info = f.claims, f.sign, f.answer, f.info
		q := url.Values{"code": {"code"}, "state": {state}}
		for name, value := range f.query {
			if q.Set(name, value); value == "" {
				q.Del(name)
			}
		}
		if f.stolen {
			cookies = nil
		}
		resp := d.callback(cookies, q)
		if f.want == 0 {
			f.want = 401
		}
		if resp.StatusCode != f.want || (d.arrived != nil) != (f.want == 200) {
			t.Errorf("%s: %d, %+v", name, resp.StatusCode, d.arrived)
		}
		if d.arrived != nil {
			end, err := url.Parse(d.arrived.LogOut)
			if q := end.Query(); err != nil || !strings.HasPrefix(d.arrived.LogOut, p.URL+"/end?") || q.Get("x") != "y" || q.Get("client_id") != clientID ||
				q.Get("post_logout_redirect_uri") != here+"/account/login" || strings.Count(q.Get("id_token_hint"), ".") != 2 {
				t.Errorf("%s: logs out at %s", name, d.arrived.LogOut)
			}
			d.arrived.LogOut = ""
		}
		if d.arrived != nil && *d.arrived != (Arrival{Account: "ann@example.org", Next: "/account/devices/new", How: "OIDC"}) {
			t.Errorf("%s: %+v", name, d.arrived)
		}
		if f.want == 200 { // the same answer again, by a browser that has kept its cookie
			if resp := d.callback(cookies, q); resp.StatusCode != http.StatusUnauthorized || d.arrived != nil {
				t.Errorf("%s, replayed: %d", name, resp.StatusCode)
			}
		}
	}
	// The provider's own factor counts only where the settings say so.
	for name, want := range map[string]bool{`{"amr":["pwd","mfa"]}`: true, `{"acr":"high"}`: true, `{"amr":["pwd"]}`: false, `{"amr":"mfa"}`: true, `{"acr":["low"]}`: false, `{"acr":null}`: false} {
		cookies, state := d.begin(t, p)
		p.claims, p.sign, p.answer, p.info = map[string]any{}, nil, nil, nil
		if err := json.Unmarshal([]byte(name), &p.claims); err != nil {
			t.Fatal(err)
		}
		if d.callback(cookies, url.Values{"code": {"code"}, "state": {state}}); d.arrived == nil || d.arrived.Proven != want {
			t.Errorf("%s: %+v", name, d.arrived)
		}
	}
	// A provider that is away.
	gone := newProvider(t)
	d = newDesk(&Pages{Provider: &Provider{Issuer: gone.URL, ClientID: clientID}})
	gone.Close()
	if resp := d.send(httptest.NewRequest(http.MethodGet, here+"/account/oidc", nil)); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without a provider: %d", resp.StatusCode)
	}
}

// The webmail's user arrives once; whatever is forged, late, or from elsewhere does not.
func TestHandover(t *testing.T) {
	const origin = "https://webmail.example.org"
	key := []byte("0123456789abcdef0123456789abcdef")
	d := newDesk(&Pages{Webmail: &Webmail{Key: key, Origin: origin}})
	now := time.Now()
	token := func(change map[string]any) []byte {
		claims := map[string]any{"aud": here, "sub": "ann@example.org", "iat": now.Unix(), "exp": now.Add(30 * time.Second).Unix(), "jti": rand.Text()}
		maps.Copy(claims, change)
		b, _ := json.Marshal(claims) // plain values
		return b
	}
	send := func(text, from string) int {
		r := httptest.NewRequest(http.MethodPost, here+web.HandoverPath, strings.NewReader(url.Values{"token": {text}, "next": {"//evil.example"}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		if from != "" {
			r.Header.Set("Origin", from)
		}
		return d.send(r).StatusCode
	}
	right := signed(jose.HS256, key, token(nil))
	for _, from := range []string{"", "null", "https://evil.example", origin + ".evil.example"} {
		if status := send(right, from); status != 401 || d.arrived != nil {
			t.Errorf("from %q: %d", from, status)
		}
	}
	if status := send(right, origin); status != 200 || *d.arrived != (Arrival{Account: "ann@example.org", How: "HANDOVER"}) {
		t.Errorf("%d %+v", status, d.arrived)
	}
	if status := send(right, origin); status != 401 || d.arrived != nil {
		t.Errorf("again: %d", status)
	}
	for name, text := range map[string]string{
		"expired":            signed(jose.HS256, key, token(map[string]any{"exp": now.Add(-time.Minute).Unix()})),
		"without an end":     signed(jose.HS256, key, token(map[string]any{"exp": nil})),
		"for two minutes":    signed(jose.HS256, key, token(map[string]any{"exp": now.Add(2 * time.Minute).Unix()})),
		"of tomorrow":        signed(jose.HS256, key, token(map[string]any{"iat": now.Add(24 * time.Hour).Unix(), "exp": now.Add(24*time.Hour + time.Minute).Unix()})),
		"without beginning":  signed(jose.HS256, key, token(map[string]any{"iat": nil})),
		"for another site":   signed(jose.HS256, key, token(map[string]any{"aud": "https://other.example"})),
		"for no site":        signed(jose.HS256, key, token(map[string]any{"aud": nil})),
		"without id":         signed(jose.HS256, key, token(map[string]any{"jti": ""})),
		"of nobody":          signed(jose.HS256, key, token(map[string]any{"sub": ""})),
		"of an unknown user": signed(jose.HS256, key, token(map[string]any{"sub": "eve@example.net"})),
		"another key":        signed(jose.HS256, bytes.Repeat([]byte("x"), 32), token(nil)),
		"another algorithm":  signed(jose.HS512, bytes.Repeat(key, 2), token(nil)),
		"not signed":         unsigned(nil, token(nil)),
		"nonsense":           "x",
		"nothing":            "",
	} {
		if status := send(text, origin); status != 401 || d.arrived != nil {
			t.Errorf("%s: %d, %+v", name, status, d.arrived)
		}
	}
}

// Where a browser logs out is an address on the web, whatever the provider says.
func TestLogOutAddress(t *testing.T) {
	p := &Provider{ClientID: clientID}
	for endpoint, want := range map[string]bool{
		"": false, "https://login.example.org/end": true, "http://127.0.0.1:1/end": true, "javascript:alert(1)": false, "/end": false, "data:x,y": false, "https://": false, "%": false,
	} {
		if got := p.logOut(endpoint, "a.b.c", here); (got != "") != want {
			t.Errorf("%q: %q", endpoint, got)
		}
	}
}

// What any other site's page makes a browser send keeps nobody at its address from logging in; guesses
// do.
func TestStrayAnswers(t *testing.T) {
	const origin, from = "https://webmail.example.org", "10.9.9.9:1"
	p := newProvider(t)
	d := newDesk(&Pages{Provider: &Provider{Issuer: p.URL, ClientID: clientID}, Webmail: &Webmail{Key: bytes.Repeat([]byte("k"), 32), Origin: origin}})
	send := func(method, path, form, origin string, cookies ...*http.Cookie) int {
		r := httptest.NewRequest(method, here+path, strings.NewReader(form))
		r.RemoteAddr = from
		if method == http.MethodPost {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Origin", origin)
		}
		for _, c := range cookies {
			r.AddCookie(c)
		}
		return d.sendFrom(r).StatusCode
	}
	for i := range 50 {
		if status := send(http.MethodGet, callbackPath+"?code=x&state="+strconv.Itoa(i), "", ""); status != http.StatusUnauthorized {
			t.Fatalf("answer %d: %d", i, status)
		}
		if status := send(http.MethodPost, web.HandoverPath, "token="+strconv.Itoa(i), "https://evil.example"); status != http.StatusUnauthorized {
			t.Fatalf("token %d: %d", i, status)
		}
	}
	cookies, state := d.begin(t, p)
	if status := send(http.MethodGet, callbackPath+"?code=code&state="+state, "", "", cookies...); status != http.StatusOK || d.arrived == nil {
		t.Errorf("a right answer: %d", status)
	}
	for i := range 20 {
		send(http.MethodPost, web.HandoverPath, "token="+strconv.Itoa(i), origin)
	}
	if status := send(http.MethodPost, web.HandoverPath, "token=x", origin); status != http.StatusTooManyRequests {
		t.Errorf("after 20 forged tokens: %d", status)
	}
}
