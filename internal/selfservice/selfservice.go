// Package selfservice is the users' own page, /account: their devices and secure passwords, their
// logins and open sessions.
//
// A user logs in with the mailbox password, which is verified like that of a login with protocol
// web and client type console, and recorded as one. Access policies for the client type console
// therefore apply to the page. What a user may do is what package admin allows the role self.
//
// A secure password is shown once, in the answer to the form that creates it; sending that form
// again creates none. A phone can be set up by a one-time link, which is valid for five minutes:
// its page shows nothing of the account until the user confirms on the phone, which uses the link
// up.
//
// # Diagnostics
//
// A wrong password, an unknown account and a domain that is not managed are one answer. When the
// site's own server cannot be asked (setting sasl.next), the answer is 503.
package selfservice

import (
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"hash/fnv"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/factors"
	"github.com/drawbridge/drawbridge/internal/admin/opensessions"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/phonesetup"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/web"
)

//go:embed templates
var files embed.FS

var pages = web.Parse(files)

// linkFor is how long a one-time link for a phone is valid.
const linkFor = 5 * time.Minute

// formFor is how long a form that creates a secure password may stay open.
const formFor = time.Hour

// Pages are the users' pages. All fields are needed.
type Pages struct {
	Admin *admin.Admin
	Open  opensessions.Site
	// Factors are the second factors, which a log-in shows if the account has one.
	Factors factors.Site
	// Login decides and records a login by its mailbox password. The outcome is never next.
	Login func(context.Context, *access.Login) access.Decision
	// Servers are those that mail programs connect to; its other fields are not used.
	Servers phonesetup.Settings
}

// Register adds the pages to a mux.
func (p *Pages) Register(mux *http.ServeMux, site *web.Site) {
	mux.Handle("GET /account/login", site.Page(p.loginForm))
	mux.Handle("POST /account/login", site.Page(p.login))
	mux.Handle("GET /account/phone/{token}", site.Page(p.phoneForm))
	mux.Handle("POST /account/phone/{token}", site.Page(p.phone))
	mux.Handle("POST /language", site.Page(web.ChooseLanguage))
	for pattern, serve := range map[string]func(*visit) error{
		"GET /account":                         (*visit).devices,
		"GET /account/{$}":                     func(v *visit) error { return v.Redirect("/account") },
		"GET /account/devices/new":             (*visit).newDevice,
		"POST /account/devices":                (*visit).createDevice,
		"GET /account/devices/{id}/state":      (*visit).deviceState,
		"POST /account/devices/{id}/rename":    (*visit).renameDevice,
		"GET /account/devices/{id}/delete":     (*visit).askDelete,
		"POST /account/devices/{id}/delete":    (*visit).deleteDevice,
		"POST /account/secure-passwords":       (*visit).ownSwitch,
		"GET /account/factors":                 (*visit).factors,
		"POST /account/factors/totp":           (*visit).createTOTP,
		"POST /account/factors/recovery-codes": (*visit).createCodes,
		"POST /account/factors/{id}/confirm":   (*visit).confirmFactor,
		"POST /account/factors/{id}/delete":    (*visit).deleteFactor,
		"GET /account/logins":                  (*visit).logins,
		"GET /account/sessions":                (*visit).sessions,
		"POST /account/sessions/{id}/end":      (*visit).endSession,
		"POST /account/logout":                 (*visit).logout,
		"POST /account/logout-everywhere":      (*visit).logoutEverywhere,
	} {
		mux.Handle(pattern, site.Page(func(c *web.Call) error { return p.visit(c, serve) }))
	}
}

// visit is a request of a user who is logged in.
type visit struct {
	*web.Call
	*Pages
	account *admin.Account
}

// visit serves a page to a user who is logged in, and asks others to log in.
func (p *Pages) visit(c *web.Call, serve func(*visit) error) error {
	who, err := c.SignedIn(web.Account)
	if err != nil {
		return err
	}
	var a *admin.Account
	if who != "" {
		if a, err = p.open(c, who, c.ProvedAt(web.Account)); err != nil && admin.ProblemOf(err).OfServer() {
			return err
		}
	}
	if a != nil && p.replaced(a, c.ProvedAt(web.Account)) {
		a = nil
	}
	if a == nil { // nobody, or an account that is suspended, not managed any more, or has another password
		to := "/account/login"
		if c.R.Method == http.MethodGet && c.R.URL.Path != "/account" {
			to += "?next=" + template.URLQueryEscaper(c.R.URL.RequestURI())
		}
		return c.Redirect(to)
	}
	if err := c.Form(); err != nil {
		return err
	}
	return serve(&visit{c, p, a})
}

// replaced reports whether the mailbox password that was entered is not that of the account any more.
func (p *Pages) replaced(a *admin.Account, entered time.Time) bool {
	rec, ok := p.Admin.Store.State.Account(a.Address())
	return ok && !p.Admin.Site.NextPassdb && entered.Before(rec.Doc.MailboxSetAt)
}

// open returns an account as its user sees it. Whoever proved the password proved a second factor
// with it, if the account has one.
func (p *Pages) open(c *web.Call, who string, proven time.Time) (*admin.Account, error) {
	if loaded, _ := p.Admin.Store.State.Ready(); !loaded {
		return nil, store.ErrUnavailable
	}
	a, err := p.Admin.As(admin.Owner(who, c.IP, proven), admin.Options{}).Account(who)
	if err != nil {
		return nil, err
	}
	if rec, ok := p.Admin.Store.State.Account(a.Address()); ok && rec.Doc.Suspended {
		return nil, api.Forbidden("the account is suspended")
	}
	return a, nil
}

// verify decides a login with the form's password. It returns the account, or what to answer.
func (p *Pages) verify(c *web.Call, name string) (string, *api.Problem) {
	l := &access.Login{
		Account: name, Secret: []byte(c.R.PostFormValue("password")), OTP: c.Value("code"), Service: "web", Protocol: access.Web,
		IP: c.IP, RealIP: c.IP, TLS: strings.HasPrefix(c.Base(), "https:"), ClientID: "Drawbridge", Page: true,
	}
	token := fnv.New64a()
	_, _ = token.Write([]byte(name + "\x00"))
	_, _ = token.Write(l.Secret)
	d := p.Login(c.R.Context(), l)
	clear(l.Secret)
	_, err := p.open(c, d.Account, time.Time{})
	switch {
	case d.Outcome == access.Allow && err == nil:
		return d.Account, nil
	case d.Outcome == access.TempFail:
		return "", api.Unavailable("unavailable", "%s", c.T("Passwords cannot be verified at the moment. Try again in a few minutes"))
	case d.Message != "":
		return "", api.Refuse(http.StatusForbidden, string(d.Reason), "%s", strings.TrimSuffix(c.T(d.Message), "."))
	}
	c.Wrong(token.Sum64())
	return "", api.Refuse(http.StatusUnauthorized, "wrong", "%s", c.T("Address or password are wrong"))
}

func (p *Pages) loginForm(c *web.Call) error {
	return c.Show(pages, "login", web.View{Title: c.T("Log in"), Data: loginData{"", web.Local(c.R.URL.Query().Get("next"))}})
}

type loginData struct{ Name, Next string }

func (p *Pages) login(c *web.Call) error {
	if err := c.Form(); err != nil {
		return err
	}
	if c.Throttled() {
		return api.TooMany("throttled", "%s", c.T("Too many wrong passwords from your address. Try again in a quarter of an hour"))
	}
	name, next := c.Value("account"), web.Local(c.Value("next"))
	who, problem := p.verify(c, name)
	if problem != nil {
		return c.Show(pages, "login", web.View{Title: c.T("Log in"), Problem: problem, Data: loginData{name, next}})
	}
	if err := c.SignIn(web.Account, who); err != nil {
		return err
	}
	return c.Redirect(cmp.Or(next, "/account"))
}

func (v *visit) logout() error {
	if err := v.SignOut(); err != nil {
		return err
	}
	return v.Redirect("/account/login")
}

func (v *visit) logoutEverywhere() error {
	if err := v.EndSessions(web.Account, v.account.Address()); err != nil {
		return err
	}
	return v.logout()
}

// proved reports whether the password was entered a short while ago, with the second factor that
// the account has now.
func (v *visit) proved() bool { return v.Proved(web.Account) && v.account.StepUp() == nil }

// identified checks the password in the form, unless it was entered a short while ago.
func (v *visit) identified() error {
	if v.proved() {
		return nil
	}
	if v.Throttled() {
		return api.TooMany("throttled", "%s", v.T("Too many wrong passwords from your address. Try again in a quarter of an hour"))
	}
	who, problem := v.verify(v.Call, v.account.Address())
	switch {
	case problem != nil && problem.Status == http.StatusForbidden:
		return api.Refuse(http.StatusUnprocessableEntity, problem.Code, "%s", problem.Detail)
	case problem != nil:
		return problem
	case who != v.account.Address():
		return api.Refuse(http.StatusUnauthorized, "wrong", "%s", v.T("Address or password are wrong"))
	}
	v.Prove(web.Account)
	v.account.Caller.Proven = v.Now
	return nil
}

// settings are those of the account, with a secret for a device.
func (p *Pages) settings(account, device string, secret []byte) *phonesetup.Settings {
	s := p.Servers
	s.Account, s.Device, s.Secret = account, device, secret
	return &s
}

// nav is what the layout shows around a page.
type nav struct{ Account, Area string }

func (v *visit) nav(area string) nav { return nav{v.account.Address(), area} }

// permission is what a one-time link allows. It ends with the sessions that could have made it.
type permission struct {
	Account string    `json:"account"`
	Label   string    `json:"label"`
	Made    time.Time `json:"made"`
	Epoch   string    `json:"epoch"` // see [web.Call.Epoch]
}

func (p *Pages) phoneForm(c *web.Call) error {
	b, err := c.Permitted("phone", c.R.PathValue("token"))
	if err != nil {
		return err
	}
	return c.Show(pages, "phone", web.View{Title: c.T("Set up this phone"), Data: phoneData{Open: b != nil}})
}

type phoneData struct {
	Open bool // the link can be used
	*api.CreatedSecurePassword
	*phonesetup.Settings
}

func (p *Pages) phone(c *web.Call) error {
	if err := c.Form(); err != nil {
		return err
	}
	b, err := c.TakePermit("phone", c.R.PathValue("token"))
	if err != nil {
		return err
	}
	var allowed permission
	if b == nil || json.Unmarshal(b, &allowed) != nil {
		return c.Show(pages, "phone", web.View{Title: c.T("Set up this phone"), Data: phoneData{}})
	}
	epoch, err := c.Epoch(web.Account, allowed.Account)
	if err != nil {
		return err
	}
	a, err := p.open(c, allowed.Account, c.Now) // proved when the link was made
	if err != nil {
		return err
	}
	if epoch != allowed.Epoch || epoch == "" || p.replaced(a, allowed.Made) {
		return c.Show(pages, "phone", web.View{Title: c.T("Set up this phone"), Data: phoneData{}})
	}
	res, err := a.CreateSecurePassword(c.R.Context(), &api.NewSecurePassword{Label: allowed.Label}, &api.Faults{})
	if err != nil {
		return err
	}
	defer clear(res.View.Secret)
	s := p.settings(allowed.Account, allowed.Label, res.View.Secret)
	if c.Value("as") == "profile" {
		sendProfile(c, s)
		return nil
	}
	return c.Show(pages, "phone", web.View{Title: c.T("Set up this phone"), Data: phoneData{CreatedSecurePassword: &res.View, Settings: s}})
}

func sendProfile(c *web.Call, s *phonesetup.Settings) {
	c.W.Header().Set("Content-Type", "application/x-apple-aspen-config")
	c.W.Header().Set("Content-Disposition", `attachment; filename="mail.mobileconfig"`)
	b := phonesetup.Apple(s)
	defer clear(b)
	_, _ = c.W.Write(b) // the browser is gone
}
