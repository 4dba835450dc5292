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
// # Second factors
//
// A log-in of an account that has second factors has two steps: the password, then a code or passkey.
// Between them the browser has a token for five minutes, which is used up by each try. Where a factor
// is required and the account has none, the password opens the page that adds one, and nothing else.
// The first factor ends the sessions that began without it.
//
// # Diagnostics
//
// A wrong password, an unknown account and a domain that is not managed are one answer. When the
// site's own server cannot be asked (setting sasl.next), the answer is 503.
package selfservice

import (
	"context"
	"embed"
	"encoding/json"
	"html/template"
	"net/http"
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
	// Resume decides a login whose password was accepted, and records it. The outcome is never next.
	Resume func(context.Context, *access.Login) access.Decision
	// Other is what the site's own log-in at /account/oidc is called; "" for none.
	Other string
	// Servers are those that mail programs connect to; its other fields are not used.
	Servers phonesetup.Settings
}

// Register adds the pages to a mux.
func (p *Pages) Register(mux *http.ServeMux, site *web.Site) {
	mux.Handle("GET /account/login", site.Page(p.loginForm))
	mux.Handle("POST /account/login", site.Page(p.login))
	mux.Handle("POST /account/login/factor", site.Page(p.loginFactor))
	mux.Handle("POST /account/login/passkey", site.Page(p.loginPasskey))
	mux.Handle("POST /account/login/password", site.Page(p.loginPassword))
	mux.Handle("POST /account/login/password/strength", site.Page(p.loginStrength))
	mux.Handle("GET /account/phone/{token}", site.Page(p.phoneForm))
	mux.Handle("POST /account/phone/{token}", site.Page(p.phone))
	mux.Handle("POST /language", site.Page(web.ChooseLanguage))
	handle := func(enrolling bool, list map[string]func(*visit) error) {
		for pattern, serve := range list {
			mux.Handle(pattern, site.Page(func(c *web.Call) error { return p.visit(c, enrolling, serve) }))
		}
	}
	handle(false, map[string]func(*visit) error{
		"GET /account":                         (*visit).devices,
		"GET /account/{$}":                     func(v *visit) error { return v.Redirect("/account") },
		"GET /account/devices/new":             (*visit).newDevice,
		"POST /account/devices":                (*visit).createDevice,
		"GET /account/devices/{id}/state":      (*visit).deviceState,
		"POST /account/devices/{id}/rename":    (*visit).renameDevice,
		"GET /account/devices/{id}/delete":     (*visit).askDelete,
		"POST /account/devices/{id}/delete":    (*visit).deleteDevice,
		"POST /account/secure-passwords":       (*visit).ownSwitch,
		"POST /account/factors/recovery-codes": (*visit).createCodes,
		"GET /account/password":                (*visit).password,
		"POST /account/password":               (*visit).changePassword,
		"POST /account/password/strength":      (*visit).strength,
		"GET /account/logins":                  (*visit).logins,
		"POST /account/logins/{id}/mine":       (*visit).confirmLogin,
		"GET /account/logins/{id}/not-mine":    (*visit).foreignLogin,
		"POST /account/secure":                 (*visit).secure,
		"GET /account/sessions":                (*visit).sessions,
		"POST /account/sessions/{id}/end":      (*visit).endSession,
		"POST /account/passkey":                (*visit).challenge,
	})
	handle(true, map[string]func(*visit) error{
		"GET /account/factors":               (*visit).factors,
		"POST /account/factors/totp":         (*visit).createTOTP,
		"POST /account/factors/passkeys":     (*visit).createPasskey,
		"POST /account/factors/mail":         (*visit).createMail,
		"POST /account/factors/sms":          (*visit).createSMS,
		"POST /account/factors/{id}/confirm": (*visit).confirmFactor,
		"POST /account/factors/{id}/delete":  (*visit).deleteFactor,
		"POST /account/logout":               (*visit).logout,
		"POST /account/logout-everywhere":    (*visit).logoutEverywhere,
	})
}

// visit is a request of a user who is logged in.
type visit struct {
	*web.Call
	*Pages
	account *admin.Account
	lacks   bool // the second factor that is required
}

// visit serves a page to a user who is logged in, and asks others to log in. Who lacks a required
// second factor reaches the pages that add one, and no others.
func (p *Pages) visit(c *web.Call, enrolling bool, serve func(*visit) error) error {
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
	required, has := a.NeedsFactor()
	v := &visit{c, p, a, required && !has}
	if v.lacks && !enrolling {
		return c.Redirect("/account/factors")
	}
	return serve(v)
}

// replaced reports whether what was entered at a time opens the account no longer: it has another
// mailbox password, or a first second factor, since.
func (p *Pages) replaced(a *admin.Account, entered time.Time) bool {
	rec, ok := p.Admin.Store.State.Account(a.Address())
	return ok && (entered.Before(rec.Doc.FactorSince()) || a.KeepsPassword() && entered.Before(rec.Doc.MailboxSetAt))
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

// settings are those of the account, with a secret for a device.
func (p *Pages) settings(account, device string, secret []byte) *phonesetup.Settings {
	s := p.Servers
	s.Account, s.Device, s.Secret = account, device, secret
	return &s
}

// nav is what the layout shows around a page.
type nav struct {
	Account, Area string
	Lacks         bool // a required second factor: there are no other pages
	Password      bool // is kept here, and can be changed
}

func (v *visit) nav(area string) nav {
	return nav{v.account.Address(), area, v.lacks, v.account.KeepsPassword()}
}

// permission is what a one-time link allows. It ends with the sessions that could have made it.
type permission struct {
	Account string                `json:"account"`
	Device  api.NewSecurePassword `json:"device"`
	Made    time.Time             `json:"made"`
	Epoch   string                `json:"epoch"` // see [web.Call.Epoch]
}

func (p *Pages) phoneForm(c *web.Call) error {
	b, err := c.Permitted("phone", c.R.PathValue("token"))
	if err != nil {
		return err
	}
	return c.Show(pages, "phone", web.View{Title: c.T("Set up this phone"), Data: phoneData{Open: b != nil, Signed: p.Servers.Signed()}})
}

type phoneData struct {
	Open   bool // the link can be used
	Signed bool // the profile will be
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
	res, err := a.CreateSecurePassword(c.R.Context(), &allowed.Device, &api.Faults{})
	if err != nil {
		return err
	}
	defer clear(res.View.Secret)
	s := p.settings(allowed.Account, allowed.Device.Label, res.View.Secret)
	if c.Value("as") == "profile" {
		return sendProfile(c, s)
	}
	return c.Show(pages, "phone", web.View{Title: c.T("Set up this phone"), Data: phoneData{CreatedSecurePassword: &res.View, Settings: s}})
}

func sendProfile(c *web.Call, s *phonesetup.Settings) error {
	b, err := phonesetup.Apple(s)
	if err != nil {
		return err
	}
	defer clear(b)
	c.W.Header().Set("Content-Type", "application/x-apple-aspen-config")
	c.W.Header().Set("Content-Disposition", `attachment; filename="mail.mobileconfig"`)
	_, _ = c.W.Write(b) // the browser is gone
	return nil
}
