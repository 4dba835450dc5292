package selfservice

import (
	"encoding/json"
	"html/template"
	"net/http"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/phonesetup"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/web"
)

type devicesData struct {
	Devices   []api.SecurePassword
	Effective *api.Effective
	Own       string // the account's own choice about secure passwords
	Servers   phonesetup.Settings
	Confirm   string // the choice that waits to be confirmed
}

func (v *visit) devices() error { return v.showDevices("", nil) }

func (v *visit) showDevices(confirm string, problem *api.Problem) error {
	list, err := v.account.SecurePasswords(v.R.Context(), admin.Page{})
	if err != nil && admin.ProblemOf(err).Status != http.StatusNotFound {
		return err
	}
	data := devicesData{Servers: v.Servers, Own: string(access.SecureOptional), Confirm: confirm}
	if err == nil {
		data.Devices = list.Items
	}
	if data.Effective, err = v.account.Effective(); err != nil {
		return err
	}
	if rec, err := v.account.Record(); err == nil {
		data.Own = rec.View.SecurePasswords
	}
	return v.Show(pages, "devices", web.View{Title: v.T("My devices"), Nav: v.nav("devices"), Problem: problem, Data: data})
}

// newData is the form for a new device.
type newData struct {
	Once, Label, As   string
	Protocols         []string
	Networks, Expires string
	Servers           phonesetup.Settings
}

func (v *visit) newDevice() error {
	once, err := v.Permit("form", []byte(v.account.Address()), formFor)
	if err != nil {
		return err
	}
	return v.Show(pages, "new", web.View{Title: v.T("New device"), Nav: v.nav("devices"), Data: newData{Once: once, As: "show", Servers: v.Servers}})
}

// createdData is a new device, whose secret is shown once.
type createdData struct {
	*api.CreatedSecurePassword
	*phonesetup.Settings
	As      string
	Drawing template.HTML
	State   stateData
	Link    string
	Until   time.Time
}

func (v *visit) createDevice() error {
	label, as, once := v.Value("label"), v.Value("as"), v.Value("once")
	again := func(err error) error {
		view, err := v.Again(web.View{Title: v.T("New device"), Nav: v.nav("devices")}, named(v.Call, err))
		if err != nil {
			return err
		}
		view.Data = newData{once, label, as, v.R.PostForm["protocols"], v.Value("networks"), v.Value("expires"), v.Servers}
		return v.Show(pages, "new", view)
	}
	if ok, err := v.identified(); !ok {
		return err
	}
	in := &api.NewSecurePassword{Label: label, SecretBounds: api.SecretBounds{Protocols: v.R.PostForm["protocols"], Networks: v.Lines("networks")}}
	var f api.Faults
	in = web.Check(v.Call, in, &f)
	if day := v.Value("expires"); day != "" {
		at, err := time.Parse(time.DateOnly, day)
		if err != nil {
			f.Add("/expires_at", "invalid_time", "is not a date: write it as 2027-06-30")
		}
		in.ExpiresAt = at.Add(24*time.Hour - time.Second) // it works on that day
	}
	if err := f.Err(); err != nil {
		return again(err)
	}
	mine, err := v.TakePermit("form", once)
	if err != nil {
		return err
	}
	if string(mine) != v.account.Address() {
		v.Note(v.T("This form was sent before: your devices are listed below."))
		return v.Redirect("/account")
	}
	if as == "link" {
		if err = v.offerLink(in); err == nil {
			return nil
		}
	}
	var res *admin.Result[api.CreatedSecurePassword]
	if err == nil {
		res, err = v.account.CreateSecurePassword(v.R.Context(), in, &f)
	}
	if err != nil {
		if once, err := v.Permit("form", mine, formFor); err == nil { // nothing was created: the form may be sent again
			v.R.PostForm.Set("once", once)
		}
		once = v.R.PostForm.Get("once")
		return again(err)
	}
	defer clear(res.View.Secret)
	s := v.settings(v.account.Address(), label, res.View.Secret)
	data := createdData{CreatedSecurePassword: &res.View, Settings: s, As: as, State: stateData{ID: res.View.ID}}
	switch as {
	case "profile":
		return sendProfile(v.Call, s)
	case "thunderbird":
		text, err := phonesetup.Thunderbird(s)
		if err != nil {
			return err
		}
		if data.Drawing, err = v.draw(text, v.T("QR code for Thunderbird on Android: it contains the password")); err != nil {
			return err
		}
	}
	return v.Show(pages, "created", web.View{Title: v.T("New device"), Nav: v.nav("devices"), Data: data})
}

// offerLink shows a one-time link with which a phone sets itself up.
func (v *visit) offerLink(in *api.NewSecurePassword) error {
	// A fault is shown with the form, and not when the link was used up.
	check, err := v.open(v.Call, v.account.Address(), v.account.Caller.Proven)
	if err != nil {
		return err
	}
	check.DryRun = true
	if _, err := check.CreateSecurePassword(v.R.Context(), in, &api.Faults{}); err != nil {
		return err
	}
	epoch, err := v.Epoch(web.Account, v.account.Address())
	if err != nil {
		return err
	}
	b, err := json.Marshal(permission{v.account.Address(), *in, v.Now, epoch})
	if err != nil {
		return err
	}
	token, err := v.Permit("phone", b, linkFor)
	if err != nil {
		return err
	}
	data := createdData{CreatedSecurePassword: &api.CreatedSecurePassword{Label: in.Label}, As: "link", Link: v.Base() + "/account/phone/" + token, Until: v.Now.Add(linkFor)}
	if data.Drawing, err = v.draw(data.Link, v.T("QR code with a link that sets up the phone")); err != nil {
		return err
	}
	return v.Show(pages, "created", web.View{Title: v.T("New device"), Nav: v.nav("devices"), Data: data})
}

func (v *visit) draw(text, label string) (template.HTML, error) {
	svg, err := phonesetup.QR(text, label)
	return template.HTML(svg), err //nolint:gosec // G203: drawn by phonesetup, which escapes the label
}

// watchedFor is how long the page of a new device asks by itself whether it has logged in. Each time is
// a use of the session, which would otherwise not end while nobody is there.
const watchedFor = 15 * time.Minute

// stateData is whether a new device has logged in.
type stateData struct {
	ID  string
	Use *api.SecurePassword // nil until then
}

func (v *visit) deviceState() error {
	res, err := v.account.SecurePassword(v.R.Context(), v.R.PathValue("id"))
	if err != nil {
		return err
	}
	state := stateData{ID: res.View.ID}
	if !res.View.LastUsedAt.IsZero() {
		state.Use = &res.View
	}
	if v.R.Header.Get("HX-Request") != "" {
		if state.Use == nil && v.Now.Sub(res.View.CreatedAt) <= watchedFor {
			return v.Unchanged()
		}
		return v.Part(pages, "created", "state", true, state)
	}
	return v.Show(pages, "state", web.View{Title: v.T("First login"), Nav: v.nav("devices"), Data: state})
}

func (v *visit) renameDevice() error {
	_, err := v.account.PatchSecurePassword(v.R.Context(), v.R.PathValue("id"), func(cur *api.SecurePassword, f *api.Faults) (*api.SecurePassword, error) {
		cur.Label = v.Value("label")
		return web.Check(v.Call, cur, f), nil
	})
	return v.done(err, v.T("The device was renamed."))
}

// done continues with the devices after a change, or shows what was wrong with it.
func (v *visit) done(err error, note string) error {
	if err == nil {
		v.Note(note)
		return v.Redirect("/account")
	}
	view, err := v.Again(web.View{}, named(v.Call, err))
	if err != nil {
		return err
	}
	return v.showDevices("", view.Problem)
}

func (v *visit) askDelete() error {
	res, err := v.account.SecurePassword(v.R.Context(), v.R.PathValue("id"))
	if err != nil {
		return err
	}
	return v.Show(pages, "delete", web.View{Title: v.T("Delete device"), Nav: v.nav("devices"), Data: res.View})
}

func (v *visit) deleteDevice() error {
	ending := v.Open.Ending(v.account.Request, "", v.account.Address())
	_, err := v.account.RevokeSecurePassword(v.R.Context(), v.R.PathValue("id"))
	ended := ending.Settle(v.R.Context(), err)
	if err != nil {
		return v.done(err, "")
	}
	note := v.T("The device was deleted: its password is not valid any more.")
	if ended != nil && ended.Ended > 0 {
		note += " " + v.T("Open sessions that were ended: %d.", ended.Ended)
	}
	return v.done(nil, note)
}

// ownSwitch changes the account's own choice about secure passwords. Switching them off has to be
// confirmed, because the devices stop working.
func (v *visit) ownSwitch() error {
	choice := v.Value("choice")
	if v.Value("confirm") == "" {
		return v.showDevices(choice, nil)
	}
	if ok, err := v.identified(); !ok {
		return err
	}
	v.account.Confirm = true
	ending := v.Open.Ending(v.account.Request, "", v.account.Address())
	_, err := v.account.Patch(v.R.Context(), func(cur *api.Account, f *api.Faults) (*api.Account, error) {
		cur.SecurePasswords = choice
		return web.Check(v.Call, cur, f), nil
	})
	ending.Settle(v.R.Context(), err)
	if err != nil {
		return v.done(err, "")
	}
	return v.done(nil, v.T("Your choice was saved."))
}

type loginsData struct {
	Items []api.LoginRecord
	Next  string
}

func (v *visit) logins() error {
	of, err := v.account.Logins(v.account.Name())
	if err != nil {
		return err
	}
	list, err := of.List(v.R.Context(), store.RecordQuery{Limit: 50, Cursor: v.R.URL.Query().Get("cursor")})
	if err != nil {
		return err
	}
	return v.Show(pages, "logins", web.View{Title: v.T("My logins"), Nav: v.nav("logins"), Data: loginsData{list.Items, list.Next}})
}

// confirmLogin learns that a login was the user's own.
func (v *visit) confirmLogin() error {
	of, err := v.account.Logins(v.account.Name())
	if err != nil {
		return err
	}
	if _, err := of.Confirm(v.R.Context(), v.R.PathValue("id")); err != nil {
		return err
	}
	v.Note(v.T("Thank you. Such logins are usual from now on."))
	return v.Redirect("/account/logins")
}

// foreignLogin shows a login that was not the user's own, and asks whether to secure the account.
func (v *visit) foreignLogin() error {
	of, err := v.account.Logins(v.account.Name())
	if err != nil {
		return err
	}
	rec, err := of.Record(v.R.Context(), v.R.PathValue("id"))
	if err != nil {
		return err
	}
	return v.Show(pages, "secure", web.View{Title: v.T("It was not me"), Nav: v.nav("logins"), Data: rec})
}

// secure deletes all devices and ends all sessions, on this page too.
func (v *visit) secure() error {
	_, err := v.account.Secure(v.R.Context(), &api.Secure{RevokeSecurePasswords: true, EndSessions: true}, &api.Faults{})
	if err != nil {
		return err
	}
	ended, err := v.Open.EndAll(v.R.Context(), v.account)
	if err != nil && admin.ProblemOf(err).Code != "no_doveadm" {
		return err
	}
	if err := v.EndSessions(web.Account, v.account.Address()); err != nil {
		return err
	}
	return v.Show(pages, "secured", web.View{Title: v.T("Your account was secured"), Data: securedData{ended, v.account.KeepsPassword()}})
}

type securedData struct {
	Ended int
	Kept  bool // the mailbox password can be changed here
}

func (v *visit) sessions() error { return v.showSessions(nil) }

func (v *visit) showSessions(problem *api.Problem) error {
	list, err := v.Open.OfAccount(v.R.Context(), v.account)
	if err != nil && admin.ProblemOf(err).Code != "no_doveadm" {
		return err
	}
	return v.Show(pages, "sessions", web.View{Title: v.T("Open sessions"), Nav: v.nav("sessions"), Problem: problem, Data: list})
}

func (v *visit) endSession() error {
	_, _, err := v.Open.End(v.R.Context(), v.account.Request, v.R.PathValue("id"))
	switch p := admin.ProblemOf(err); {
	case err == nil, p.Status == http.StatusNotFound: // or it has ended meanwhile
		v.Note(v.T("The session was ended."))
		return v.Redirect("/account/sessions")
	case p.Code == "server_unreachable":
		return v.showSessions(api.Unavailable(p.Code, "%s", v.T("The mail server of this session does not answer: it may still be open. Try again in a few minutes")))
	}
	return err
}
