package console

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/web"
)

// inspectDays is how long something must be unused to be found, unless the form says otherwise.
const inspectDays = 90

type inspectionData struct {
	*api.Inspection
	Account   string
	Days      int
	Kinds     []string // of the listed findings that have a proposal
	Reclaimed *api.Reclaimed
	Report    *api.InspectionReport // of the domain's schedule; nil for none
	Every     string                // its schedule; "" for none
	Planned   bool
	Undone    bool
}

// inspection looks at the domain, and shows what a reclaim did or would do beside it.
func (v *visit) inspection(account, days string, data inspectionData, problem error) error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	data.Account, data.Days = account, inspectDays
	if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= 3650 {
		data.Days = n
	}
	words := []string{"inspect", d.Name()}
	if account != "" {
		words = append(words, "--account", account)
	}
	if data.Days != inspectDays {
		words = append(words, "--days", strconv.Itoa(data.Days))
	}
	view := v.view("inspection", "Inspection", line(words...), &data)
	data.Inspection, err = d.Inspect(v.R.Context(), account, data.Days, false, v.page())
	if err != nil {
		data.Inspection = &api.Inspection{}
		problem = err
	}
	if account == "" && data.Reclaimed == nil {
		data.Report, _ = d.InspectionReport(v.R.Context()) // the page is about what is found now
		if set, err := d.Settings(); err == nil && set.View.Inspection != nil {
			data.Every = set.View.Inspection.Every
		}
	}
	for i := range data.Items {
		if f := &data.Items[i]; f.Proposal != nil && !slices.Contains(data.Kinds, f.Kind) {
			data.Kinds = append(data.Kinds, f.Kind)
		}
	}
	slices.Sort(data.Kinds)
	if problem != nil {
		return v.refused("inspection", view, problem)
	}
	return v.Show(pages, "inspection", view)
}

func (v *visit) inspect() error {
	q := v.R.URL.Query()
	return v.inspection(q.Get("account"), q.Get("days"), inspectionData{}, nil)
}

// schedule sets how often the domain is inspected by itself.
func (v *visit) schedule() error {
	d, err := v.domain(v.options())
	if err != nil {
		return err
	}
	every := v.Value("every")
	_, err = d.Patch(v.R.Context(), func(cur *api.Domain, _ *api.Faults) (*api.Domain, error) {
		next := *cur
		next.Inspection = &api.InspectionPolicy{Every: every}
		if cur.Inspection != nil {
			next.Inspection.Days = cur.Inspection.Days
		}
		return &next, nil
	})
	note := "The domain is inspected every " + every
	if every == "" {
		note = "The domain is not inspected by itself"
	}
	return v.changed(err, note+v.where()+".", "/inspection")
}

// reclaim carries out the proposals of findings, shows what that would change, or undoes it.
func (v *visit) reclaim() error {
	if v.Value("do") == "schedule" {
		return v.schedule()
	}
	o := v.options()
	o.DryRun = v.Value("do") == "plan"
	d, err := v.domain(o)
	if err != nil {
		return err
	}
	account := v.Value("account")
	in := &api.Reclaim{Findings: nonNil(v.R.PostForm["finding"]), Kinds: nonNil(v.R.PostForm["kind"]), Account: account, Undo: v.Value("undo")}
	if n, err := strconv.Atoi(v.Value("days")); err == nil {
		in.Days = &n
	}
	var f api.Faults
	ending := v.Open.Ending(d.Request, d.Name(), "")
	data := inspectionData{Planned: o.DryRun, Undone: in.Undo != ""}
	data.Reclaimed, err = d.Reclaim(v.R.Context(), web.Check(v.Call, in, &f), &f)
	ending.Settle(v.R.Context(), err)
	return v.inspection(account, v.Value("days"), data, err)
}

func nonNil(list []string) []string { return append([]string{}, list...) }

// throttle shows who is held back after wrong secrets.
func (v *visit) throttle() error {
	list, err := v.as(admin.Options{}).HeldBack(v.page())
	if err != nil {
		return err
	}
	return v.show("throttle", "throttle", "Throttled after wrong passwords", line("throttle"), list)
}

func (v *visit) unblock() error {
	subject := v.Value("subject")
	if _, err := v.as(admin.Options{}).LiftThrottle(v.R.Context(), subject); err != nil {
		return v.refused("refused", v.view("throttle", "Nothing was changed", "", "/throttle"), err)
	}
	v.Note("The wrong passwords of " + subject + " were forgotten, on all nodes.")
	return v.Redirect("/throttle")
}

// confirmLogin records that a login was its owner's: what was unusual about it is usual from now on.
func (v *visit) confirmLogin() error {
	_, logins, err := v.loginsOf(admin.Options{})
	if err != nil {
		return err
	}
	id := v.R.PathValue("id")
	_, err = logins.Confirm(v.R.Context(), id)
	return v.changed(err, "The login was its owner's: logins like this are usual from now on.", "/logins/"+url.PathEscape(id))
}

// forwards shows what sends an account's mail on, or hides it.
func (v *visit) forwards() error {
	a, err := v.as(admin.Options{}).Account(v.R.PathValue("address"))
	if err != nil {
		return err
	}
	f, err := a.Forwards(v.R.Context())
	if err != nil {
		return err
	}
	view := v.view("accounts", "Forwards of "+a.Address(), line("account", "forwards", a.Address()), f)
	n, _ := view.Nav.(nav)
	n.Domain = a.Name()
	view.Nav = n
	return v.Show(pages, "forwards", view)
}

type securedData struct {
	api.Secured
	Password []byte // an api.Secret does not print
	Back     string
}

// secureLogin does one thing, or all, for the account of a login that was not its owner's.
func (v *visit) secureLogin() error {
	d, logins, err := v.loginsOf(v.options())
	if err != nil {
		return err
	}
	id := v.R.PathValue("id")
	rec, err := logins.Record(v.R.Context(), id)
	if err != nil {
		return err
	}
	do := v.Value("do")
	all := do == "all"
	in := &api.Secure{
		RevokeSecurePasswords: all || do == "revoke", SwitchOff: all || do == "switch-off", EndSessions: do == "end-sessions" || all && v.Open.Live != nil,
		ResetMailboxPassword: do == "reset-password" || all && d.KeepsPasswords(),
	}
	if all || do == "block-ip" {
		in.BlockIP = rec.IP
	}
	a, err := v.as(v.options()).Account(rec.Account)
	if err != nil {
		return err
	}
	back := "/domains/" + url.PathEscape(d.Name()) + "/logins/" + url.PathEscape(id)
	var f api.Faults
	ending := v.Open.Ending(d.Request, d.Name(), "")
	res, err := a.Secure(v.R.Context(), in, &f)
	ending.Settle(v.R.Context(), err)
	if err != nil {
		return v.refused("refused", v.view("logins", "Nothing was changed", "", back), err)
	}
	defer clear(res.View.Password)
	if err := web.Account.EndSessions(v.R.Context(), v.Store, a.Address()); err != nil {
		return err
	}
	if in.EndSessions {
		if res.View.EndedBeside, err = v.Open.EndAll(v.R.Context(), a); err != nil {
			return v.refused("refused", v.view("logins", "Sessions were not ended", "", back), err)
		}
	}
	return v.show("secured", "logins", a.Address()+" is secured", "", securedData{res.View, res.View.Password, back})
}

// withdrawal is the form that selects what a credential sent.
type withdrawal struct {
	CredentialID, Account string
	Since, Until          string // of a field for date and time, UTC
	Uncertain             bool
	Withdrawn             *api.Withdrawn
	Planned               bool
}

// clock is how a browser sends a date with a time.
const clock = "2006-01-02T15:04"

func (v *visit) withdrawForm() error {
	q := v.R.URL.Query()
	data := withdrawal{
		CredentialID: q.Get("credential"), Account: q.Get("account"),
		Since: q.Get("since"), Until: q.Get("until"),
	}
	// A link may have what is not a time.
	if _, err := time.Parse(clock, data.Since); err != nil {
		data.Since = v.Now.UTC().Add(-24 * time.Hour).Format(clock)
	}
	if _, err := time.Parse(clock, data.Until); err != nil {
		data.Until = ""
	}
	return v.Show(pages, "withdraw", v.withdrawView(&data))
}

func (v *visit) withdrawView(data *withdrawal) web.View {
	words := []string{"withdraw", v.R.PathValue("domain"), "--credential", cmp.Or(data.CredentialID, "ID")}
	for _, flag := range []struct{ name, value string }{{"--account", data.Account}, {"--since", data.Since}, {"--until", data.Until}} {
		value := flag.value
		if _, err := time.Parse(clock, value); err == nil {
			value += ":00Z"
		}
		if value != "" {
			words = append(words, flag.name, value)
		}
	}
	if data.Uncertain {
		words = append(words, "--uncertain")
	}
	return v.view("withdraw", "Withdraw messages", line(append(words, "--dry-run")...), data)
}

// withdraw looks for what a credential sent, or deletes it.
func (v *visit) withdraw() error {
	planned := v.Value("do") == "plan"
	d, err := v.domain(admin.Options{DryRun: planned})
	if err != nil {
		return err
	}
	data := withdrawal{CredentialID: v.Value("credential"), Account: v.Value("account"), Since: v.Value("since"), Until: v.Value("until"), Uncertain: v.Value("uncertain") != "", Planned: planned}
	in := &api.Withdrawal{CredentialID: data.CredentialID, Account: data.Account, Uncertain: data.Uncertain}
	var f api.Faults
	if data.CredentialID == "" {
		f.Add("/credential_id", "required", "is needed: the id of a secure password, or mailbox")
	}
	for _, t := range []struct {
		name, text string
		to         *time.Time
	}{{"/since", data.Since, &in.Since}, {"/until", data.Until, &in.Until}} {
		if t.text == "" && t.name == "/until" {
			continue
		}
		if *t.to, err = time.Parse(clock, t.text); err != nil {
			f.Add(t.name, "invalid", "is not a time such as 2026-11-28T15:04")
		}
	}
	view := v.withdrawView(&data)
	data.Withdrawn, err = v.Withdraw(context.WithoutCancel(v.R.Context()), d, web.Check(v.Call, in, &f), &f)
	if err != nil {
		return v.refused("withdraw", view, err)
	}
	return v.Show(pages, "withdraw", view)
}

// resetFactors deletes the second factors of a user who has lost them.
func (v *visit) resetFactors() error {
	a, err := v.as(v.options()).Account(v.R.PathValue("address"))
	if err != nil {
		return err
	}
	back := "/accounts/" + url.PathEscape(a.Address())
	if _, err := v.Factors.Of(a).Reset(v.R.Context()); err != nil {
		return v.refused("refused", v.view("accounts", "Nothing was changed", "", back), err)
	}
	v.Note("The second factors of " + a.Address() + " were deleted.")
	return v.Redirect(back)
}

// progress shows who still uses the mailbox password where secure passwords are, or will be, enforced.
func (v *visit) progress() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	p, err := d.EnforcementProgress(v.R.Context())
	if err != nil {
		return err
	}
	return v.show("progress", "secure-passwords", "Progress of secure passwords", line("secure-password-policy", "progress", d.Name()), p)
}

// pauseEnforcement pauses the enforcement of secure passwords, or resumes it.
func (v *visit) pauseEnforcement() error {
	pause := v.Value("do") == "pause"
	d, err := v.domain(v.options())
	if err != nil {
		return err
	}
	ending := v.Open.Ending(d.Request, d.Name(), "")
	_, err = d.PutSecurePasswordPolicy(v.R.Context(), func(*api.Faults) *api.SecurePasswordPolicy {
		cur, ok := d.Store.State.Domain(d.Name())
		if !ok {
			return &api.SecurePasswordPolicy{}
		}
		p := admin.ViewSecurePasswordPolicy(&cur.Doc.SecurePasswords)
		p.Paused = pause
		return &p
	})
	ending.Settle(v.R.Context(), err)
	note := "The enforcement resumes"
	if pause {
		note = "The enforcement is paused"
	}
	return v.changed(err, note+v.where()+".", "/secure-passwords")
}

// unsuspend lifts the suspension of a credential that reached a sending limit.
func (v *visit) unsuspend() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	_, err = v.Mail.Of(d).Unsuspend(v.R.Context(), v.R.PathValue("id"))
	return v.changed(err, "The credential may send again"+v.where()+".", "/mail-rules")
}
