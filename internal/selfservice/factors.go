package selfservice

import (
	"context"
	"encoding/json"
	"html/template"
	"net/http"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/factors"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/web"
)

// factorsData are the second factors, and one that was just created.
type factorsData struct {
	Items    []api.Factor
	Created  *api.CreatedFactor
	Secret   string // of an authenticator app
	Drawing  template.HTML
	Options  string // of a passkey, for the browser
	Codes    []string
	Passkeys bool // can be added here
	SMS      bool // can be sent
}

func (v *visit) factors() error { return v.showFactors(factorsData{}, nil) }

func (v *visit) showFactors(data factorsData, problem error) error {
	list, err := v.Factors.Of(v.account).List()
	if err != nil {
		return err
	}
	data.Items, data.Passkeys, data.SMS = list.Items, v.Factors.Passkeys != nil, v.Factors.SMS != nil
	view := web.View{Title: v.T("Second factors"), Nav: v.nav("factors"), Data: data}
	if problem != nil {
		if view, err = v.Again(view, named(v.Call, problem)); err != nil {
			return err
		}
	}
	return v.Show(pages, "factors", view)
}

// create begins with a second factor of a kind. What it needs once, to be confirmed, is shown.
func (v *visit) create(kind func(*factors.Owned, context.Context, *api.NewFactor, *api.Faults) (*admin.Result[api.CreatedFactor], error)) error {
	if ok, err := v.identified(); !ok {
		return err
	}
	var f api.Faults
	in := web.Check(v.Call, &api.NewFactor{Label: v.Value("label"), Address: v.Value("address"), Number: v.Value("number")}, &f)
	res, err := kind(v.Factors.Of(v.account), v.R.Context(), in, &f)
	if err != nil {
		return v.showFactors(factorsData{}, err)
	}
	defer clear(res.View.Secret)
	defer clear(res.View.URI)
	data := factorsData{Created: &res.View, Secret: string(res.View.Secret), Options: string(res.View.Options)}
	if len(res.View.URI) > 0 {
		if data.Drawing, err = v.draw(string(res.View.URI), v.T("QR code for an authenticator app")); err != nil {
			return err
		}
	}
	return v.showFactors(data, nil)
}

func (v *visit) createTOTP() error    { return v.create((*factors.Owned).CreateTOTP) }
func (v *visit) createPasskey() error { return v.create((*factors.Owned).CreatePasskey) }
func (v *visit) createMail() error    { return v.create((*factors.Owned).CreateMail) }
func (v *visit) createSMS() error     { return v.create((*factors.Owned).CreateSMS) }

func (v *visit) createCodes() error {
	if ok, err := v.identified(); !ok {
		return err
	}
	res, err := v.Factors.Of(v.account).CreateRecoveryCodes(v.R.Context())
	if err != nil {
		return v.showFactors(factorsData{}, err)
	}
	return v.showFactors(factorsData{Codes: res.View.Codes}, nil)
}

func (v *visit) confirmFactor() error {
	proof := &api.FactorProof{Code: v.Value("code")}
	if response := v.Value("credential"); json.Valid([]byte(response)) {
		proof.Credential = json.RawMessage(response)
	}
	_, err := v.Factors.Of(v.account).Confirm(v.R.Context(), v.R.PathValue("id"), proof)
	if err == nil && v.Proved(web.Account) { // it was shown, after the password
		v.Now = time.Now()
		v.Prove(web.Account)
	}
	return v.factorsChanged(err, v.T("The second factor is in use: logins to this page ask for it."))
}

func (v *visit) deleteFactor() error {
	if ok, err := v.identified(); !ok {
		return err
	}
	_, err := v.Factors.Of(v.account).Delete(v.R.Context(), v.R.PathValue("id"))
	return v.factorsChanged(err, v.T("The second factor was deleted."))
}

func (v *visit) factorsChanged(err error, note string) error {
	if err != nil {
		if p := v.ProblemOf(err); p.Code == "second_factor_refused" {
			err = api.Refuse(http.StatusUnauthorized, p.Code, "%s", v.T("The code is wrong, or was used before"))
		}
		return v.showFactors(factorsData{}, err)
	}
	v.Note(note)
	return v.Redirect("/account/factors")
}
