package selfservice

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/web"
)

// passwordData is the form for a new mailbox password, or the generated one, which is shown once.
type passwordData struct {
	proofs
	Token     string // of a log-in whose password has expired; "" within a session
	MinLength int
	Generate  bool
	Devices   []ticked
	Secret    string
	Done      string // what was changed
}

// ticked is a device whose password is to be deleted with the old mailbox password, unless unticked.
type ticked struct {
	api.SecurePassword
	Ticked bool
}

// showPassword shows the form. All devices are ticked until it is sent.
func (p *Pages) showPassword(c *web.Call, a *admin.Account, data passwordData, view web.View) error {
	list, err := a.SecurePasswords(c.R.Context(), admin.Page{})
	if err != nil && admin.ProblemOf(err).Status != http.StatusNotFound {
		return err
	}
	sent := c.Value("how") != ""
	if err == nil {
		for _, d := range list.Items {
			data.Devices = append(data.Devices, ticked{d, !sent || slices.Contains(c.R.PostForm["revoke"], d.ID)})
		}
	}
	if d, ok := p.Admin.Store.State.Domain(a.Name()); ok && d.Doc.Passwords != nil {
		data.MinLength = d.Doc.Passwords.MinLength
	}
	data.Generate = c.Value("how") == "generate"
	view.Title, view.Data = c.T("Change the mailbox password"), data
	return c.Show(pages, "password", view)
}

func (v *visit) password() error { return v.askPassword(web.View{}) }

func (v *visit) askPassword(view web.View) error {
	var data passwordData
	if !v.proved() {
		data.proofs = v.waysOf(v.account, "/account/passkey")
	}
	view.Nav = v.nav("password")
	return v.showPassword(v.Call, v.account, data, view)
}

// strengthData is how strong a password is that is being entered.
type strengthData struct {
	Score, Most int
	Faults      []api.Fault
}

// strength tells a script what the domain's rules say of a password while it is being entered.
func (v *visit) strength() error { return v.showStrength(v.Call, v.account) }

func (p *Pages) showStrength(c *web.Call, a *admin.Account) error {
	password := []byte(c.R.PostFormValue("new_password"))
	defer clear(password)
	var f api.Faults
	data := strengthData{Score: a.TryMailboxPassword(password, &f), Most: admin.MaxStrength}
	if err := f.Err(); err != nil {
		data.Faults = c.Problem(c.ProblemOf(err)).Errors
	}
	return c.Part(pages, "password", "strength", false, data)
}

// loginStrength is [visit.strength] before a log-in whose password has expired.
func (p *Pages) loginStrength(c *web.Call) error {
	h, a, err := p.seeHalf(c)
	if err != nil {
		return err
	}
	if !h.Expired {
		return web.NotFound()
	}
	return p.showStrength(c, a)
}

// changePassword sets a new mailbox password for who knows the present one, with a second factor that
// may have been proved a short while ago.
func (v *visit) changePassword() error {
	if v.Throttled() {
		return tooMany(v.Call)
	}
	proved := v.proved()
	done, note, problem, err := v.identify()
	if err != nil {
		return err
	}
	if problem != nil && problem.Code == string(access.ReasonSecondFactor) && proved {
		done = true // it is asked for once the password was accepted
	}
	if !done {
		return v.askPassword(web.View{Note: note, Problem: problem})
	}
	data, err := v.setPassword(v.Call, v.account)
	if err != nil {
		view, err := v.Again(web.View{}, named(v.Call, err))
		if err != nil {
			return err
		}
		return v.askPassword(view)
	}
	v.Now = time.Now()
	v.Prove(web.Account) // with the new password, so that this session is the one that stays
	if data.Secret != "" {
		return v.Show(pages, "password", web.View{Title: v.T("Your new mailbox password"), Nav: v.nav("password"), Data: *data})
	}
	v.Note(data.Done)
	return v.Redirect("/account")
}

// setPassword sets the mailbox password of a form, ends open sessions with it, and deletes the devices
// that are ticked.
func (p *Pages) setPassword(c *web.Call, a *admin.Account) (*passwordData, error) {
	in := &api.MailboxPassword{Generate: c.Value("how") == "generate", Revoke: c.R.PostForm["revoke"]}
	if !in.Generate {
		in.Password = []byte(c.R.PostFormValue("new_password"))
		defer clear(in.Password)
	}
	ending := p.Open.Ending(a.Request, "", a.Address())
	res, err := a.SetMailboxPassword(c.R.Context(), in, &api.Faults{})
	ended := ending.Settle(context.WithoutCancel(c.R.Context()), err)
	if err != nil {
		return nil, err
	}
	defer clear(res.View.Password)
	data := &passwordData{Secret: string(res.View.Password), Done: c.T("Your mailbox password was changed.")}
	if n := len(res.View.Revoked); n > 0 {
		data.Done += " " + c.T("Devices that were deleted: %d.", n)
	}
	if ended != nil && ended.Ended > 0 {
		data.Done += " " + c.T("Open sessions that were ended: %d.", ended.Ended)
	}
	return data, nil
}

// named names the fields of a form as the pages do.
func named(c *web.Call, err error) error {
	p := c.ProblemOf(err)
	if p.OfServer() {
		return err
	}
	named := *p
	named.Errors = slices.Clone(p.Errors)
	for i := range named.Errors {
		f := &named.Errors[i]
		switch field, _, _ := strings.Cut(strings.TrimPrefix(f.Pointer, "/"), "/"); field {
		case "label":
			f.Pointer = c.T("Name of the device")
		case "protocols":
			f.Pointer = c.T("Services that it may use")
		case "networks":
			f.Pointer = c.T("Networks that it may log in from")
		case "expires_at":
			f.Pointer = c.T("Last day")
		case "address":
			f.Pointer = c.T("E-mail address")
		case "number":
			f.Pointer = c.T("Telephone number, with + and the country code")
		case "password":
			f.Pointer = c.T("New password")
		case "revoke":
			f.Pointer = c.T("Devices")
		}
	}
	return &named
}

// askNew shows the form for a new password to who entered one that has expired.
func (p *Pages) askNew(c *web.Call, h half, view web.View) error {
	a, err := p.open(c, h.Account, time.Time{})
	if err != nil {
		return err
	}
	var data passwordData
	data.proofs = p.waysOf(a, "/account/login/passkey")
	h.Expired = true
	if data.Token, err = p.permit(c, h); err != nil {
		return err
	}
	return p.showPassword(c, a, data, view)
}

// loginPassword sets a new password in place of an expired one, after which its user logs in with it.
func (p *Pages) loginPassword(c *web.Call) error {
	if err := c.Form(); err != nil {
		return err
	}
	h, a, err := p.takeHalf(c)
	if err != nil {
		return err
	}
	if h == nil || !h.Expired {
		return p.expired(c)
	}
	if id := c.Value("send"); id != "" {
		note, problem, err := p.send(c, a, id)
		if err != nil {
			return err
		}
		return p.askNew(c, *h, web.View{Problem: problem, Note: note})
	}
	if cur, ok := p.Admin.Store.State.Account(h.Account); ok && cur.Doc.HasFactor() {
		otp, err := p.otp(c, a)
		if err == nil {
			err = p.Factors.Of(a).Prove(c.R.Context(), otp)
		}
		if err != nil {
			view, err := c.Again(web.View{}, err)
			if err != nil && admin.ProblemOf(err).Code != "second_factor_refused" {
				return err
			}
			view.Problem = codeRefused(c)
			return p.askNew(c, *h, view)
		}
		a.Caller.Proven = c.Now
	}
	data, err := p.setPassword(c, a)
	if err != nil {
		view, err := c.Again(web.View{}, named(c, err))
		if err != nil {
			return err
		}
		return p.askNew(c, *h, view)
	}
	if data.Secret != "" {
		return c.Show(pages, "password", web.View{Title: c.T("Your new mailbox password"), Data: *data})
	}
	c.Note(data.Done + " " + c.T("Log in with it."))
	return c.Redirect("/account/login")
}
