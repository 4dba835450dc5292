// Package signon has logins to the users' page that somebody else has verified: the site's OpenID
// provider, and the site's webmail.
//
// # OpenID provider
//
//	GET /account/oidc            302 to the provider, with state, nonce and a PKCE challenge
//	GET /account/oidc/callback   the provider's answer: a code, which is exchanged for an ID token
//
// State, nonce and the verifier of the challenge are in a cookie of the browser that began: an
// answer that another browser brings is refused. The ID token must be signed by a key of the issuer,
// for this client and with this nonce (OpenID Connect Core 1.0, section 3.1.3.7); where the answer
// names its issuer, it must be this one (RFC 9207). The account is in one claim, of the ID token or,
// if that lacks it, of the UserInfo endpoint's answer about the same subject. It must be of a
// domain that the settings allow, have a record here, and, if the claim is email, be verified.
//
// # Webmail
//
//	POST /account/handover       a form with a token, from the webmail's own pages
//
// The token is a JWT that is signed with a key that webmail and daemon share (HS256). It names the
// account that is logged in there, is for this site, valid for a minute at most, and accepted once.
// The form must come from the webmail's origin, so that no other site logs a browser in.
//
// # Limits
//
// A token opens no account by itself: the rules decide about each login as about others, it is recorded,
// and a second factor is asked for, unless the settings say that the provider's own one counts.
//
// A log-out from /account sends the browser to the provider's end_session_endpoint, if its metadata
// has one, with the ID token as a hint and /account/login as post_logout_redirect_uri. A session that
// ends by itself ends none of the provider's, and the provider ends none here.
//
// # Diagnostics
//
// 401: the answer or token was refused; the log says why. 429: too many of them from one address, of
// those that no other site's page can send.
// 503: the provider does not answer, or not as one.
package signon

import (
	"embed"
	"errors"
	"hash/fnv"
	"net/http"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/web"
)

//go:embed templates
var files embed.FS

var pages = web.Parse(files)

// Arrival is somebody whose login was verified elsewhere.
type Arrival struct {
	Account string
	Next    string // a path of this site, "" for none
	How     string // the mechanism in the record: OIDC or HANDOVER
	Proven  bool   // a second factor that counts was proven, too
	LogOut  string // where its browser ends the session there, "" for none
}

// Pages are the logins. Only those with settings have pages.
type Pages struct {
	Provider *Provider
	Webmail  *Webmail
	// Exists reports whether an account has a record here.
	Exists func(account string) bool
	// Arrived decides about the login, and continues with it or asks for a second factor.
	Arrived func(*web.Call, *Arrival) error
}

// Register adds the pages to a mux.
func (p *Pages) Register(mux *http.ServeMux, site *web.Site) {
	if p.Provider != nil {
		mux.Handle("GET /account/oidc", site.Page(p.begin))
		mux.Handle("GET /account/oidc/callback", site.Page(p.callback))
	}
	if p.Webmail != nil {
		mux.Handle("POST "+web.HandoverPath, site.Page(p.handover))
	}
}

// refusal is why an answer or token was refused, for the log.
type refusal struct {
	why error
	// stray: any other site's page can make a browser send it. It is not counted as a guess, or such a
	// page could keep everybody at that address from logging in.
	stray bool
}

func (r refusal) Error() string { return r.why.Error() }

func refuse(why string) error { return refusal{why: errors.New(why)} }

func refuseStray(why string) error { return refusal{why: errors.New(why), stray: true} }

// failed shows that a login was refused, or that it cannot be verified now. What was wrong is for the
// operator alone.
func (p *Pages) failed(c *web.Call, what string, err error) error {
	problem := api.Refuse(http.StatusUnauthorized, "refused", "%s", c.T("The login was refused. Begin again"))
	if refused := (refusal{}); errors.As(err, &refused) {
		c.Log.Info(what+" refused", "ip", c.IP, "reason", refused.why)
		if !refused.stray {
			token := fnv.New64a()
			_, _ = token.Write([]byte(c.R.URL.RawQuery + c.R.PostForm.Encode()))
			c.Wrong(token.Sum64())
		}
	} else {
		c.Log.Warn(what+" cannot be verified", "error", err)
		problem = api.Unavailable("unavailable", "%s", c.T("This login does not work at the moment. Use your mailbox password, or try again in a few minutes"))
	}
	return c.Show(pages, "refused", web.View{Title: c.T("Log in"), Problem: problem})
}

// throttled refuses an address that has sent too many wrong ones.
func throttled(c *web.Call) error {
	if !c.Throttled() {
		return nil
	}
	return api.TooMany("throttled", "%s", c.T("Too many wrong passwords from your address. Try again in a quarter of an hour"))
}
