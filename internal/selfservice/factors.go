package selfservice

import (
	"html/template"
	"net/http"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/web"
)

// factorsData are the second factors, and one that was just created.
type factorsData struct {
	Items   []api.Factor
	Created *api.CreatedFactor
	Secret  string // of an authenticator app
	Drawing template.HTML
	Codes   []string
	Ask     bool // for the password
}

func (v *visit) factors() error { return v.showFactors(factorsData{}, nil) }

func (v *visit) showFactors(data factorsData, problem error) error {
	list, err := v.Factors.Of(v.account).List()
	if err != nil {
		return err
	}
	data.Items, data.Ask = list.Items, !v.proved()
	view := web.View{Title: v.T("Second factors"), Nav: v.nav("factors"), Data: data}
	if problem != nil {
		if view, err = v.Again(view, problem); err != nil {
			return err
		}
	}
	return v.Show(pages, "factors", view)
}

// createTOTP begins with an authenticator app: its secret is shown once, and a code confirms it.
func (v *visit) createTOTP() error {
	if err := v.identified(); err != nil {
		return v.showFactors(factorsData{}, err)
	}
	var f api.Faults
	in := web.Check(v.Call, &api.NewFactor{Label: v.Value("label")}, &f)
	res, err := v.Factors.Of(v.account).CreateTOTP(v.R.Context(), in, &f)
	if err != nil {
		return v.showFactors(factorsData{}, err)
	}
	defer clear(res.View.Secret)
	defer clear(res.View.URI)
	data := factorsData{Created: &res.View, Secret: string(res.View.Secret)}
	if data.Drawing, err = v.draw(string(res.View.URI), v.T("QR code for an authenticator app")); err != nil {
		return err
	}
	return v.showFactors(data, nil)
}

func (v *visit) createCodes() error {
	if err := v.identified(); err != nil {
		return v.showFactors(factorsData{}, err)
	}
	res, err := v.Factors.Of(v.account).CreateRecoveryCodes(v.R.Context())
	if err != nil {
		return v.showFactors(factorsData{}, err)
	}
	return v.showFactors(factorsData{Codes: res.View.Codes}, nil)
}

func (v *visit) confirmFactor() error {
	_, err := v.Factors.Of(v.account).Confirm(v.R.Context(), v.R.PathValue("id"), &api.FactorProof{Code: v.Value("code")})
	if err == nil && v.Proved(web.Account) { // a code of it was entered, after the password
		v.Now = time.Now()
		v.Prove(web.Account)
	}
	return v.factorsChanged(err, v.T("The second factor is in use: log-ins to this page ask for it."))
}

func (v *visit) deleteFactor() error {
	if err := v.identified(); err != nil {
		return v.showFactors(factorsData{}, err)
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
