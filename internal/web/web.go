// Package web is what Drawbridge's pages have in common: sessions, protection against other sites,
// templates, languages, and the states in which a page cannot be shown.
//
//	site, err := web.New(web.Options{Store: redis, Sent: admin.ProblemOf, …})
//	mux.Handle("GET /account", site.Page(func(c *web.Call) error {
//		return c.Show(pages, "devices", "My devices", list)
//	}))
//	http.Serve(listener, site.Handler(mux))
//
// Every page works without JavaScript: a form posts, and the answer is a redirect or the form again
// with its faults. Scripts only improve that.
//
// # Protection
//
// The cookie is HttpOnly and SameSite=Strict, and named __Host- where the address is https. The
// token in it is renewed at each log-in, ends when it was unused for half an hour and after twelve
// hours, and is stored as a hash. A request for another host is refused (DNS rebinding), as is a
// change that another site's page sends (Sec-Fetch-Site, Origin). The Content-Security-Policy allows
// files of this site only, and no frames around its pages. Redirects stay on the site.
//
// # Diagnostics
//
// 303 to the log-in page: not logged in, or the session has ended. 403: another site's page sent the
// request. 404: also for what belongs to others. 413: the form is over 1 MiB. 421: the Host header
// names another site: set console.public_url. 422: the form again, with all of its faults. 429: too
// many wrong log-ins from this address, or too many requests of one domain's administrators at the same time. 503: the store is away; sessions cannot be read without it.
package web

import (
	"cmp"
	"context"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

const (
	idleFor  = 30 * time.Minute
	lasting  = 12 * time.Hour
	provedIn = 10 * time.Minute // how long a password or key that was entered counts
	maxBody  = 1 << 20

	// maxEach is the number of requests of one tenant at the same time. maxLong and maxLongEach are
	// those of requests that read many records or change many accounts.
	maxEach              = 8
	maxLong, maxLongEach = 4, 2
)

// HandoverPath takes forms of the webmail's pages: what handles it checks where they come from.
const HandoverPath = "/account/handover"

// guesses bounds wrong log-ins from one address; there are no accounts to guess at.
var guesses = throttle.Limits{PerAddress: 20, Window: 15 * time.Minute}

// Options are the parts and settings of the pages. All are needed but PublicURL and Proxies, whose zero
// values mean none.
type Options struct {
	Store Store
	// PublicURL is the address of the site, such as "https://mail.example.org"; "" for none.
	PublicURL string
	Proxies   address.Networks // trusted to name the client in X-Forwarded-For
	Log       hclog.Logger
	// ProblemOf returns the problem that an error is shown as.
	ProblemOf func(error) *api.Problem
}

// Site serves pages: it has their sessions, their protection against other sites, and the counters of
// wrong log-ins. It is safe for concurrent use.
type Site struct {
	Options
	sessions *scs.SessionManager
	guesses  *throttle.Throttle
	working  *rest.Limiter
	lasting  *rest.Limiter
	host     string // of PublicURL, with its port
	https    bool
	schemas  rest.Schemas
}

// New returns a site without pages, for plain http unless PublicURL is https; see [Site.Secure] for
// listeners with TLS. [Site.Page] makes handlers of pages.
func New(o Options) *Site {
	s := &Site{
		Options: o, sessions: new(scs.SessionManager), guesses: throttle.New(guesses), schemas: rest.NewSchemas(),
		working: rest.NewLimiter(math.MaxInt, maxEach), lasting: rest.NewLimiter(maxLong, maxLongEach),
	}
	s.PublicURL = strings.TrimSuffix(o.PublicURL, "/")
	if u, err := url.Parse(s.PublicURL); err == nil {
		s.host, s.https = u.Host, u.Scheme == "https"
	}
	s.schemas.Add(forms()...)
	m := s.sessions // not scs.New, whose store in memory has a goroutine that cannot be stopped at once
	m.Store, m.Codec = sessionStore{o.Store}, scs.GobCodec{}
	m.HashTokenInStore = true
	m.IdleTimeout, m.Lifetime = idleFor, lasting
	m.Cookie = scs.SessionCookie{Name: "drawbridge", Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode}
	m.ErrorFunc = func(w http.ResponseWriter, r *http.Request, err error) {
		s.Log.Warn("sessions of the pages cannot be read or written", "error", err)
		s.refuse(w, r, s.ProblemOf(err))
	}
	return s
}

// forms are the types that forms are read into: see [Check].
func forms() []reflect.Type {
	return []reflect.Type{
		reflect.TypeFor[api.NewSecurePassword](), reflect.TypeFor[api.SecurePassword](), reflect.TypeFor[api.Account](),
		reflect.TypeFor[api.Policy](), reflect.TypeFor[api.ThirdPartyAccess](), reflect.TypeFor[api.SecurePasswordPolicy](),
		reflect.TypeFor[api.Department](), reflect.TypeFor[api.IPBlock](), reflect.TypeFor[api.MailRule](), reflect.TypeFor[api.NewKey](),
		reflect.TypeFor[api.DomainDocument](), reflect.TypeFor[api.NewFactor](), reflect.TypeFor[api.Group](), reflect.TypeFor[api.Reclaim](),
		reflect.TypeFor[api.Withdrawal](), reflect.TypeFor[api.MailRuleTest](),
	}
}

// Secure returns the site as it is served under TLS, and so with a cookie for TLS alone.
func (s *Site) Secure(tls bool) *Site {
	if !tls && !s.https {
		return s
	}
	c, m := *s, *s.sessions
	m.Cookie.Name, m.Cookie.Secure = "__Host-drawbridge", true
	c.sessions = &m
	return &c
}

// Handler protects the pages of mux: it refuses requests of other sites (403) and for other hosts (421),
// bounds bodies to 1 MiB, and sets the headers of security.
func (s *Site) Handler(mux http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	cross.AddInsecureBypassPattern("POST " + HandoverPath)
	if s.PublicURL != "" {
		_ = cross.AddTrustedOrigin(s.PublicURL) // validated with the settings; a fault only refuses more
	}
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, api.Refuse(http.StatusForbidden, "cross_site", "another site sent this request: nothing was changed"))
	}))
	pages := cross.Handler(remembering(s.sessions.LoadAndSave(mux)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if s.sessions.Cookie.Secure {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		switch {
		case !s.ownHost(r.Host):
			s.refuse(w, r, api.Refuse(http.StatusMisdirectedRequest, "misdirected", "the request is for another host: use an IP address, or set console.public_url"))
		case strings.HasPrefix(r.URL.Path, staticPath):
			serveStatic(w, r)
		default:
			pages.ServeHTTP(w, r)
		}
	})
}

// ownHost reports whether a Host header names this site: the host of PublicURL, this machine, or an
// address, which no other site's name resolves to.
func (s *Site) ownHost(host string) bool {
	if s.host != "" && strings.EqualFold(host, s.host) {
		return true
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	_, err := netip.ParseAddr(host)
	return err == nil || strings.EqualFold(host, "localhost")
}

// clientIP returns the address of the client: that of the peer, or what trusted proxies report.
func (s *Site) clientIP(r *http.Request) netip.Addr {
	ip := parseIP(r.RemoteAddr)
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && s.Proxies.Contains(ip); i-- {
		hop := parseIP(strings.TrimSpace(hops[i]))
		if !hop.IsValid() {
			break
		}
		ip = hop
	}
	return ip
}

func parseIP(text string) netip.Addr {
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	ip, _ := netip.ParseAddr(strings.Trim(text, "[]"))
	return ip.Unmap().WithZone("")
}

// Local returns a path of this site, with its query; "" for an address that leads elsewhere or that
// browsers read in different ways.
func Local(path string) string {
	u, err := url.Parse(path)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || !strings.HasPrefix(path, "/") ||
		strings.HasPrefix(path, "//") || strings.ContainsFunc(path, func(r rune) bool { return r == '\\' || r < ' ' }) {
		return ""
	}
	return path
}

// Page handles requests by a function that shows a page or redirects. An error becomes a page that
// describes its problem, and is logged if it is internal.
func (s *Site) Page(serve func(*Call) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := s.call(w, r)
		if err := serve(c); err != nil {
			c.fail(err)
		}
	})
}

func (s *Site) call(w http.ResponseWriter, r *http.Request) *Call {
	return &Call{Site: s, W: w, R: r, IP: s.clientIP(r), Now: time.Now(), Language: languageOf(r)}
}

// refuse shows a problem where there may be no session.
func (s *Site) refuse(w http.ResponseWriter, r *http.Request, p *api.Problem) {
	c := s.call(w, r)
	c.bare = true
	c.showProblem(c.Problem(p))
}

// Throttled reports whether an address has entered too many wrong log-ins: 20 within a quarter of an
// hour, counted by this daemon.
func (c *Call) Throttled() bool { return c.guesses.Throttled("", c.IP, false, c.Now) }

// Wrong counts a wrong log-in of this address. The token distinguishes secrets: the same one again counts
// once.
func (c *Call) Wrong(token uint64) { c.guesses.Wrong("", c.IP, token, c.Now) }

// Take starts a request of a tenant, "" for the site, or refuses it with 429 because too many are
// running: all of the tenant's, or long ones. The caller calls done once.
func (c *Call) Take(tenant string, long bool) (done func(), err error) {
	if long {
		return c.lasting.Take(tenant)
	}
	return c.working.Take(tenant)
}

// Base returns the address of the site, for links that are opened elsewhere: PublicURL, or scheme and host
// of the request.
func (c *Call) Base() string {
	scheme := "http://"
	if c.sessions.Cookie.Secure {
		scheme = "https://"
	}
	return cmp.Or(c.PublicURL, scheme+c.R.Host)
}

// Store keeps sessions and one-time permissions for all nodes. The errors wrap those of package store. It
// is safe for concurrent use.
type Store interface {
	// FindPage returns the value at a key; nil, without an error, for what is not there or has
	// expired.
	FindPage(ctx context.Context, key string) ([]byte, error)
	// TakePage is FindPage that deletes, in one step: of two callers at once, one gets the value and
	// the other nil.
	TakePage(ctx context.Context, key string) ([]byte, error)
	// PutPage keeps a value for a time, and replaces the one that is there; a time of 0 deletes it.
	PutPage(ctx context.Context, key string, value []byte, keep time.Duration) error
	// PutPageIf is PutPage if the key is there, or if it is not; it reports whether it was so.
	PutPageIf(ctx context.Context, there bool, key string, value []byte, keep time.Duration) (bool, error)
}
