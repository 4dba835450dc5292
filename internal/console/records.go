package console

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/web"
)

type loginsData struct {
	Items []api.LoginRecord
	Next  string
	Query url.Values
	Chart *chart
}

// loginsOf returns the domain of the path and its login records.
func (v *visit) loginsOf(o admin.Options) (*admin.Domain, *admin.Logins, error) {
	d, err := v.domain(o)
	if err != nil {
		return nil, nil, err
	}
	logins, err := d.Logins(d.Name())
	return d, logins, err
}

// records returns the login records that the query of a page selects.
func (v *visit) records(logins *admin.Logins, q url.Values) (*api.List[api.LoginRecord], error) {
	query := store.RecordQuery{
		Account: q.Get("account"), IP: q.Get("ip"), Outcome: q.Get("outcome"), Reason: q.Get("reason"), Policy: q.Get("policy"), Client: q.Get("client"),
		Region: q.Get("region"), Device: q.Get("device"), Abnormal: q.Get("abnormal") == "true", Limit: look, Cursor: q.Get("cursor"),
	}
	var f api.Faults
	query.Since, query.Until = day(q, "since", &f), day(q, "until", &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	return logins.List(v.R.Context(), query)
}

func (v *visit) logins() error {
	d, logins, err := v.loginsOf(admin.Options{})
	if err != nil {
		return err
	}
	q := v.filters()
	words := []string{"logins", d.Name()}
	for _, name := range []string{"account", "ip", "region", "device", "outcome", "reason", "policy", "client", "since", "until"} {
		if value := q.Get(name); value != "" {
			words = append(words, "--"+name, value)
		}
	}
	if q.Get("abnormal") == "true" {
		words = append(words, "--abnormal")
	}
	data := loginsData{Query: q}
	view := v.view("logins", "Logins", line(words...), &data)
	list, err := v.records(logins, q)
	if err != nil {
		return v.refused("logins", view, err)
	}
	data.Items, data.Next = list.Items, list.Next
	if n := len(list.Items); n > 1 {
		data.Chart = newChart(list.Items[n-1].Time, list.Items[0].Time, 24)
		for i := range list.Items {
			data.Chart.add(&list.Items[i])
		}
		data.Chart.scale()
	}
	return v.Show(pages, "logins", view)
}

// explainData is a login with what the site can do for its account.
type explainData struct {
	*api.ExplainedLogin
	Sessions, Passwords bool
}

func (v *visit) login() error {
	d, logins, err := v.loginsOf(admin.Options{})
	if err != nil {
		return err
	}
	id := v.R.PathValue("id")
	explained, err := logins.Explain(v.R.Context(), id)
	if err != nil {
		return err
	}
	data := explainData{ExplainedLogin: explained, Sessions: v.Open.Live != nil, Passwords: d.KeepsPasswords()}
	return v.show("explain", "logins", "A login explained", line("explain", d.Name(), id), data)
}

func (v *visit) blocks() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	list, err := d.IPBlocks(v.page())
	if err != nil {
		return err
	}
	return v.show("blocks", "ip-blocks", "Blocked addresses", line("ip-block", "list", d.Name()), list)
}

func (v *visit) changeBlocks() error {
	d, err := v.domain(v.options())
	if err != nil {
		return err
	}
	if v.Value("do") == "delete" {
		_, err = d.DeleteIPBlock(v.R.Context(), v.Value("id"))
		return v.changed(err, "The address is not blocked any more.", "/ip-blocks")
	}
	var f api.Faults
	in := &api.IPBlock{Network: v.Value("network"), Note: v.Value("note")}
	if hours := v.Value("expires"); hours != "" {
		span, err := time.ParseDuration(hours)
		if err != nil || span <= 0 {
			f.Add("/expires_at", "invalid", "is not a time such as 24h")
		}
		in.ExpiresAt = v.Now.Add(span)
	}
	ending := v.Open.Ending(d.Request, d.Name(), "")
	_, err = d.CreateIPBlock(v.R.Context(), web.Check(v.Call, in, &f), &f)
	ending.Settle(v.R.Context(), err)
	return v.changed(err, "The address is blocked"+v.where()+".", "/ip-blocks")
}

func (v *visit) held() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	list, err := d.HeldMessages(v.R.Context(), v.page())
	if err != nil {
		return err
	}
	return v.show("held", "held", "Held messages", line("held", "list", d.Name()), list)
}

func (v *visit) decideHeld() error {
	do := v.Value("do")
	if do != "approve" && do != "reject" {
		return web.NotFound()
	}
	res, err := v.as(admin.Options{}).DecideHeld(v.R.Context(), v.R.PathValue("id"), do == "approve", v.R.PostFormValue("text"))
	if err != nil {
		return v.changed(err, "", "/held")
	}
	return v.done("The message is "+res.View.State+"; its node "+res.View.Node+" carries that out.", "/held")
}

type mailRulesData struct {
	Items     []api.MailRule
	Next      string
	Suspended []api.Suspension
}

func (v *visit) mailRules() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	list, err := v.Mail.Of(d).Rules(v.page())
	if err != nil {
		return err
	}
	suspended, err := v.Mail.Of(d).Suspensions(admin.Page{})
	if err != nil {
		return err
	}
	return v.show("mailrules", "mail-rules", "Mail rules", line("mail-rule", "list", d.Name()), mailRulesData{list.Items, list.Next, suspended.Items})
}

func (v *visit) sessions() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	list, err := v.Open.OfDomain(v.R.Context(), d)
	if err != nil && admin.ProblemOf(err).Code != "no_doveadm" {
		return err
	}
	return v.show("sessions", "sessions", "Open sessions", line("sessions", d.Name()), list)
}

func (v *visit) endSession() error {
	_, ended, err := v.Open.End(v.R.Context(), v.as(admin.Options{}), v.R.PathValue("id"))
	if err != nil && admin.ProblemOf(err).Status != http.StatusNotFound {
		return err
	}
	note := "The session was ended."
	if ended != nil && ended.Failed > 0 {
		note = "The session did not end yet; the daemon keeps trying."
	}
	return v.done(note, "/sessions")
}

type auditData struct {
	Items        []api.AuditEntry
	Next, Domain string
}

func (v *visit) audit() error {
	domain := strings.TrimSpace(v.R.URL.Query().Get("domain"))
	if v.caller.Role == store.RoleDomain {
		domain = v.caller.Domain
	}
	list, err := v.as(admin.Options{}).Audit(v.R.Context(), domain, time.Time{}, v.page())
	if err != nil {
		return err
	}
	return v.show("audit", "audit", "Audit", line(slices.DeleteFunc([]string{"audit", domain}, func(w string) bool { return w == "" })...), auditData{list.Items, list.Next, domain})
}
