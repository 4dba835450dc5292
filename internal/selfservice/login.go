package selfservice

import (
	"cmp"
	"encoding/json"
	"hash/fnv"
	"net/http"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/web"
)

// factorWithin is how long a log-in waits for its second factor.
const factorWithin = 5 * time.Minute

// request is the login that a page of the client asks about.
func request(c *web.Call, account, otp string) *access.Login {
	return &access.Login{
		Account: account, OTP: otp, Service: "web", Protocol: access.Web,
		IP: c.IP, RealIP: c.IP, TLS: strings.HasPrefix(c.Base(), "https:"), ClientID: "Drawbridge", Page: true,
	}
}

// verify decides a login with the form's password and the second factor. It returns the decision, and
// what to answer unless the login may continue: also if it is only to add a required second factor.
func (p *Pages) verify(c *web.Call, name, otp string) (access.Decision, *api.Problem) {
	l := request(c, name, otp)
	l.Secret = []byte(c.R.PostFormValue("password"))
	token := fnv.New64a()
	_, _ = token.Write([]byte(name + "\x00"))
	_, _ = token.Write(l.Secret)
	d := p.Login(c.R.Context(), l)
	clear(l.Secret)
	problem := p.judged(c, &d)
	if problem != nil && problem.Code == "wrong" {
		c.Wrong(token.Sum64())
	}
	return d, problem
}

// judged returns what to answer to a login, nil if it may continue.
func (p *Pages) judged(c *web.Call, d *access.Decision) *api.Problem {
	_, err := p.open(c, d.Account, time.Time{})
	lacks := d.Reason == access.ReasonSecondFactor && len(d.SecondFactors) == 0 // is asked for after the password
	switch {
	case (d.Outcome == access.Allow || lacks) && err == nil:
		return nil
	case d.Reason == access.ReasonPasswordExpired && err == nil: // after the password, too
		return api.Refuse(http.StatusForbidden, string(d.Reason), "%s", c.T("Your mailbox password has expired. Choose a new one"))
	case d.Reason == access.ReasonSecondFactor && err == nil:
		return api.Refuse(http.StatusForbidden, string(d.Reason), "%s", c.T("A second factor is required to log in"))
	case d.Outcome == access.TempFail:
		return api.Unavailable("unavailable", "%s", c.T("Passwords cannot be verified at the moment. Try again in a few minutes"))
	case d.Message != "":
		return api.Refuse(http.StatusForbidden, string(d.Reason), "%s", strings.TrimSuffix(c.T(d.Message), "."))
	}
	return api.Refuse(http.StatusUnauthorized, "wrong", "%s", c.T("The address or the password is wrong"))
}

func tooMany(c *web.Call) error {
	return api.TooMany("throttled", "%s", c.T("Too many wrong passwords from your address. Try again in a quarter of an hour"))
}

func (p *Pages) loginForm(c *web.Call) error {
	return c.Show(pages, "login", web.View{Title: c.T("Log in"), Data: p.loginData("", web.Local(c.R.URL.Query().Get("next")))})
}

type loginData struct {
	Name, Next string
	Other      string // what the site's own log-in is called
}

func (p *Pages) loginData(name, next string) loginData { return loginData{name, next, p.Other} }

func (p *Pages) login(c *web.Call) error {
	if err := c.Form(); err != nil {
		return err
	}
	if c.Throttled() {
		return tooMany(c)
	}
	name, next, otp := c.Value("account"), web.Local(c.Value("next")), c.Value("code")
	d, problem := p.verify(c, name, otp)
	if problem != nil && problem.Code == string(access.ReasonSecondFactor) {
		if otp == "" {
			problem = nil // asked for, not refused
		}
		return p.askFactor(c, half{Account: d.Account, Next: next, Entered: c.Now}, problem, "")
	}
	if problem != nil && problem.Code == string(access.ReasonPasswordExpired) {
		return p.askNew(c, half{Account: d.Account, Next: next, Entered: c.Now}, web.View{Problem: problem})
	}
	if problem != nil {
		return c.Show(pages, "login", web.View{Title: c.T("Log in"), Problem: problem, Data: p.loginData(name, next)})
	}
	return p.signIn(c, d.Account, next, "")
}

// signIn begins a session of an account. logOut is where the site's own log-in, if it was that, ends its
// own session.
func (p *Pages) signIn(c *web.Call, who, next, logOut string) error {
	if err := c.SignIn(web.Account, who); err != nil {
		return err
	}
	c.LogOutAt(logOut)
	return c.Redirect(cmp.Or(next, "/account"))
}

// Arrival is a user whom the site's own log-in has verified.
type Arrival struct {
	Account string
	Next    string // a path of this site, "" for none
	How     string // the mechanism in the record
	Proven  bool   // it has verified a second factor, too, and that counts
	LogOut  string // where the browser ends the session of that log-in, "" for none
}

// Arrived decides about a log-in that was verified elsewhere.
func (p *Pages) Arrived(c *web.Call, in *Arrival) error {
	l := request(c, in.Account, "")
	l.Mechanism, l.Proven = in.How, in.Proven
	d := p.Resume(c.R.Context(), l)
	switch problem := p.judged(c, &d); {
	case problem == nil:
		if err := c.SignIn(web.Account, d.Account); err != nil {
			return err
		}
		c.LogOutAt(in.LogOut)
		return c.Arrived(cmp.Or(in.Next, "/account"))
	case problem.Code == string(access.ReasonSecondFactor):
		return p.askFactor(c, half{Account: d.Account, Next: in.Next, Entered: c.Now, LogOut: in.LogOut}, nil, "")
	default:
		return c.Show(pages, "login", web.View{Title: c.T("Log in"), Problem: problem, Data: p.loginData("", in.Next)})
	}
}

// half is a log-in whose password was accepted.
type half struct {
	Account string    `json:"account"`
	Next    string    `json:"next"`
	Entered time.Time `json:"entered"` // the password
	Expired bool      `json:"expired"` // it must be changed
	LogOut  string    `json:"log_out,omitempty"`
}

// permit returns a new token for the rest of a log-in.
func (p *Pages) permit(c *web.Call, h half) (token string, err error) {
	b, err := json.Marshal(h)
	if err != nil {
		return "", err
	}
	return c.Permit("half", b, h.Entered.Add(factorWithin).Sub(c.Now))
}

// proofs are the ways in which an account can prove a second factor.
type proofs struct {
	Has     bool         // the account has one
	Passkey string       // where the browser gets a challenge; "" without passkeys
	Send    []api.Factor // those that codes can be sent to
}

// waysOf returns how an account can prove a factor; a passkey by a challenge of the path.
func (p *Pages) waysOf(a *admin.Account, passkey string) proofs {
	ways := p.Factors.Of(a).Ways()
	w := proofs{Has: ways.Any, Send: ways.Send}
	if ways.Passkey {
		w.Passkey = passkey
	}
	return w
}

type factorData struct {
	proofs
	Token string
}

// askFactor shows the second step of a log-in, with a new token for it.
func (p *Pages) askFactor(c *web.Call, h half, problem *api.Problem, note string) error {
	a, err := p.open(c, h.Account, time.Time{})
	if err != nil {
		return err
	}
	var data factorData
	data.proofs = p.waysOf(a, "/account/login/passkey")
	if data.Token, err = p.permit(c, h); err != nil {
		return err
	}
	return c.Show(pages, "factor", web.View{Title: c.T("Second factor"), Problem: problem, Note: note, Data: data})
}

// halfOf returns the log-in that a token belongs to, and its account; nil for a token that is not
// valid.
func (p *Pages) halfOf(c *web.Call, b []byte) (*half, *admin.Account, error) {
	if b == nil {
		return nil, nil, nil
	}
	var h half
	if err := json.Unmarshal(b, &h); err != nil {
		return nil, nil, err
	}
	a, err := p.open(c, h.Account, time.Time{})
	if err != nil {
		return nil, nil, err
	}
	rec, ok := p.Admin.Store.State.Account(h.Account)
	if !ok || h.Entered.Before(rec.Doc.CreatedAt) || c.Now.Sub(h.Entered) >= factorWithin || a.KeepsPassword() && h.Entered.Before(rec.Doc.MailboxSetAt) {
		return nil, nil, nil
	}
	return &h, a, nil
}

// takeHalf is [Pages.halfOf] with the token of the form, which it uses up.
func (p *Pages) takeHalf(c *web.Call) (*half, *admin.Account, error) {
	b, err := c.TakePermit("half", c.Value("token"))
	if err != nil {
		return nil, nil, err
	}
	return p.halfOf(c, b)
}

// seeHalf is [Pages.halfOf] with the token of the form, which stays valid. A token that is not is an error.
func (p *Pages) seeHalf(c *web.Call) (*half, *admin.Account, error) {
	if err := c.Form(); err != nil {
		return nil, nil, err
	}
	b, err := c.Permitted("half", c.Value("token"))
	if err != nil {
		return nil, nil, err
	}
	h, a, err := p.halfOf(c, b)
	if err == nil && h == nil {
		err = web.NotFound()
	}
	return h, a, err
}

// expired begins a log-in again whose token is not valid.
func (p *Pages) expired(c *web.Call) error {
	problem := api.Refuse(http.StatusUnauthorized, "expired", "%s", c.T("The login has expired. Begin again with your password"))
	return c.Show(pages, "login", web.View{Title: c.T("Log in"), Problem: problem, Data: p.loginData("", "")})
}

func codeRefused(c *web.Call) *api.Problem {
	return api.Refuse(http.StatusUnauthorized, "second_factor_refused", "%s", c.T("The code is wrong, or was used before"))
}

// loginFactor is the second step of a log-in: it sends a code, or verifies one.
func (p *Pages) loginFactor(c *web.Call) error {
	if err := c.Form(); err != nil {
		return err
	}
	h, a, err := p.takeHalf(c)
	if err != nil {
		return err
	}
	if h == nil || h.Expired {
		return p.expired(c)
	}
	if id := c.Value("send"); id != "" {
		note, problem, err := p.send(c, a, id)
		if err != nil {
			return err
		}
		return p.askFactor(c, *h, problem, note)
	}
	otp, err := p.otp(c, a)
	if err != nil {
		p := c.ProblemOf(err)
		if p.OfServer() {
			return err
		}
		otp = "" // refused as no code is
	}
	d := p.Resume(c.R.Context(), request(c, h.Account, otp))
	problem := p.judged(c, &d)
	switch {
	case problem == nil:
		return p.signIn(c, h.Account, h.Next, h.LogOut)
	case problem.Code == string(access.ReasonSecondFactor):
		return p.askFactor(c, *h, codeRefused(c), "")
	}
	return c.Show(pages, "login", web.View{Title: c.T("Log in"), Problem: problem, Data: p.loginData(h.Account, h.Next)})
}

// loginPasskey answers a browser that wants to prove a passkey as the second step of a log-in.
func (p *Pages) loginPasskey(c *web.Call) error {
	_, a, err := p.seeHalf(c)
	if err != nil {
		return err
	}
	return p.sendChallenge(c, a)
}

// challenge answers a browser that wants to prove a passkey within a session.
func (v *visit) challenge() error { return v.sendChallenge(v.Call, v.account) }

func (p *Pages) sendChallenge(c *web.Call, a *admin.Account) error {
	challenge, err := p.Factors.Of(a).Challenge(c.R.Context())
	if err != nil {
		return err
	}
	b, err := json.Marshal(challenge)
	if err != nil {
		return err
	}
	c.W.Header().Set("Content-Type", "application/json")
	_, _ = c.W.Write(b) // the browser is gone
	return nil
}

// otp returns the second factor in a form: the code, or what a passkey's response is exchanged for.
func (p *Pages) otp(c *web.Call, a *admin.Account) (string, error) {
	response := c.Value("credential")
	if response == "" {
		return c.Value("code"), nil
	}
	if !json.Valid([]byte(response)) {
		return "", api.Malformed("credential is not JSON")
	}
	answer, err := p.Factors.Of(a).Answer(c.R.Context(), c.Value("challenge"), json.RawMessage(response))
	if err != nil {
		return "", err
	}
	return string(answer.OTP), nil
}

// send sends a code to one of the account's factors. It returns a note for the user, or why not.
func (p *Pages) send(c *web.Call, a *admin.Account, id string) (note string, problem *api.Problem, err error) {
	sent, err := p.Factors.Of(a).SendCode(c.R.Context(), id)
	if err == nil {
		return c.T("A code was sent to %s. It is valid for ten minutes.", sent.To), nil, nil
	}
	switch problem = c.ProblemOf(err); problem.Code {
	case "too_many_codes":
		return "", api.TooMany(problem.Code, "%s", c.T("Too many codes were sent to you lately. Try again in an hour")), nil
	case "cannot_send", "internal":
		if problem.Code == "internal" {
			c.Log.Error("sending a code", "account", a.Address(), "error", err)
		}
		return "", api.Unavailable("cannot_send", "%s", c.T("The code cannot be sent at the moment")), nil
	}
	return "", nil, err
}

func (v *visit) logout() error {
	elsewhere, err := v.SignOut()
	if err != nil {
		return err
	}
	if elsewhere != "" {
		return v.Left(elsewhere)
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

// confirmData is a form that is sent again, with the proof that its user is who logged in.
type confirmData struct {
	proofs
	Fields []web.Field
}

// identified reports whether the user has proved a short while ago, or proves with this form, to be
// who logged in. Otherwise it has shown a page that asks for the proof and sends the form again.
func (v *visit) identified() (bool, error) {
	if v.proved() {
		return true, nil
	}
	if v.Throttled() {
		return false, tooMany(v.Call)
	}
	done, note, problem, err := v.identify()
	if done || err != nil {
		return done, err
	}
	data := confirmData{Fields: v.Resend()}
	data.proofs = v.waysOf(v.account, "/account/passkey")
	return false, v.Show(pages, "confirm", web.View{Title: v.T("Confirm that it is you"), Nav: v.nav(""), Problem: problem, Note: note, Data: data})
}

// identify verifies the proof in a form, if there is one, or sends a code for it.
func (v *visit) identify() (done bool, note string, problem *api.Problem, err error) {
	if id := v.Value("send"); id != "" {
		note, problem, err = v.send(v.Call, v.account, id)
		return false, note, problem, err
	}
	if v.R.PostFormValue("password") == "" {
		return false, "", nil, nil
	}
	otp, err := v.otp(v.Call, v.account)
	if err != nil {
		if p := v.ProblemOf(err); p.OfServer() {
			return false, "", nil, err
		}
		return false, "", api.Refuse(http.StatusUnauthorized, "second_factor_refused", "%s", v.T("The passkey was not accepted")), nil
	}
	d, problem := v.verify(v.Call, v.account.Address(), otp)
	switch {
	case problem == nil && d.Account != v.account.Address():
		problem = api.Refuse(http.StatusUnauthorized, "wrong", "%s", v.T("The address or the password is wrong"))
	case problem == nil:
		v.Prove(web.Account)
		v.account.Caller.Proven = v.Now
		return true, "", nil, nil
	case problem.OfServer():
		return false, "", nil, problem
	}
	return false, "", problem, nil
}
