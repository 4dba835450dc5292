package console

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/web"
)

type policiesData struct {
	Items   []api.Policy
	Next    string
	Reverts []api.Revert
}

func (v *visit) policies() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	list, err := d.Policies(v.page())
	if err != nil {
		return err
	}
	reverts, err := d.Reverts(admin.Page{})
	if err != nil {
		return err
	}
	for i := range reverts.Items { // by name rather than by id
		r := &reverts.Items[i]
		if p := slices.IndexFunc(list.Items, func(p api.Policy) bool { return p.ID == r.Target }); p >= 0 {
			r.Target = list.Items[p].Name
		}
	}
	return v.show("policies", "policies", "Access policies", line("policy", "list", d.Name()), policiesData{list.Items, list.Next, reverts.Items})
}

// policyForm is the wizard: first what the policy is, then what it would do, then saving it.
type policyForm struct {
	scopeForm
	Policy    *api.Policy
	Clients   []string
	Protocols []string

	JSON      string // of the draft, once it was checked
	Previewed *api.PolicyPreviewed
	Lasts     []api.LastLogin // the first of Previewed
	Tested    *api.PolicyTested
	Login     api.HypotheticalLogin
}

// clients are the client types that policies can select.
var clients = []string{
	"third-party", "cloud-fetcher", "web", "console", "native-desktop", "native-mobile", "outlook-addin", "chat-desktop", "chat-mobile", "social",
}

var protocols = []string{"imap", "pop3", "smtp", "sieve", "web"}

func (v *visit) form(d *admin.Domain, p *api.Policy) (*policyForm, error) {
	scope, err := v.scopeForm(d, p.Scope)
	scope.Step = 2
	return &policyForm{scopeForm: scope, Policy: p, Clients: clients, Protocols: protocols}, err
}

func (v *visit) newPolicy() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	f, err := v.form(d, &api.Policy{Type: "blacklist", Mode: "report", Scope: &api.Scope{All: true}, Clients: []string{"third-party"}})
	if err != nil {
		return err
	}
	return v.show("policyform", "policies", "New access policy", line("policy", "create", d.Name()), f)
}

func (v *visit) policy() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	res, err := d.Policy(v.R.PathValue("id"))
	if err != nil {
		return err
	}
	f, err := v.form(d, &res.View)
	if err != nil {
		return err
	}
	return v.show("policyform", "policies", "Access policy: "+res.View.Name, line("policy", "show", d.Name(), res.View.ID), f)
}

// draft reads the policy of a form: from its fields, or from the draft that was checked.
func (v *visit) draft(f *api.Faults) *api.Policy {
	if text := v.Value("policy"); text != "" {
		return web.DecodeJSON[api.Policy](v.Call, []byte(text), f)
	}
	on := v.Value("enabled") != "false"
	p := &api.Policy{
		ID: v.Value("id"), Name: v.Value("name"), Type: v.Value("type"), Mode: v.Value("mode"), Enabled: &on, Scope: v.scope(),
		IPs: v.rows("ips"), Regions: v.Lines("regions"), ExceptIPs: v.rows("except_ips"),
		Clients: v.R.PostForm["clients"], Protocols: v.R.PostForm["protocols"],
	}
	return web.Check(v.Call, p, f)
}

// rows reads a field with an item on each line, without empty lines.
func (v *visit) rows(field string) []string {
	list := []string{}
	for line := range strings.Lines(v.R.PostFormValue(field)) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list
}

// checkPolicy shows what a draft would do, before it is saved.
func (v *visit) checkPolicy() error {
	d, err := v.domain(admin.Options{DryRun: true})
	if err != nil {
		return err
	}
	var f api.Faults
	p := v.draft(&f)
	form, err := v.form(d, p)
	if err != nil {
		return err
	}
	view := v.view("policies", "Check the policy", line(append(append([]string{"policy", "preview", d.Name()}, slices.DeleteFunc([]string{p.ID}, func(id string) bool { return id == "" })...), "--draft", "FILE")...), form)
	if err := f.Err(); err != nil {
		return v.refused("policyform", view, err)
	}
	preview, err := d.PreviewPolicy(&api.PolicyPreview{Policy: p, Days: 30}, &f)
	if err != nil {
		return v.refused("policyform", view, err)
	}
	if form.Previewed, err = preview(v.R.Context(), func(api.PreviewProgress) error { return nil }); err != nil {
		return err
	}
	if v.Value("account") != "" {
		form.Login.Account, form.Login.Protocol, form.Login.IP = v.Value("account"), v.Value("protocol"), v.Value("ip")
		if form.Tested, err = v.TestPolicy(d, "", &api.PolicyTest{Policy: p, Login: &form.Login}, &f); err != nil {
			return v.refused("policyform", view, err)
		}
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	form.JSON = string(b)
	last := form.Previewed.LastLogins.Items
	form.Lasts = last[:min(len(last), look)]
	return v.Show(pages, "policycheck", view)
}

func (v *visit) savePolicy() error {
	d, err := v.domain(v.options())
	if err != nil {
		return err
	}
	var f api.Faults
	p := v.draft(&f)
	if mode := v.Value("save_as"); mode != "" {
		p.Mode = mode
	}
	again := func(err error) error {
		form, bad := v.form(d, p)
		if bad != nil {
			return bad
		}
		return v.refused("policyform", v.view("policies", "Access policy", "", form), err)
	}
	if err := f.Err(); err != nil {
		return again(err)
	}
	decode := func(*api.Faults) *api.Policy { c := *p; return &c }
	ending := v.Open.Ending(d.Request, d.Name(), "")
	var res *admin.Result[api.Policy]
	if _, missing := d.Policy(p.ID); p.ID != "" && missing == nil {
		res, err = d.PutPolicy(v.R.Context(), p.ID, decode)
	} else {
		res, err = d.CreatePolicy(v.R.Context(), p.ID, decode)
	}
	ending.Settle(v.R.Context(), err)
	if err != nil {
		return again(err)
	}
	note := fmt.Sprintf("The policy %q was saved and is in effect%s.", res.View.Name, v.where())
	for _, w := range res.View.Warnings {
		note += " " + w.Detail
	}
	return v.done(note, "/policies")
}

// where says where a change is in effect: on this daemon at once, and on the others that are seen.
func (v *visit) where() string {
	if v.Admin.Nodes == nil || v.caller.Tenant() != "" {
		return ""
	}
	nodes, err := v.Admin.Nodes(v.R.Context())
	if err != nil || len(nodes) < 2 {
		return ""
	}
	live := 0
	for _, seen := range nodes {
		if v.Now.Sub(seen) < time.Minute {
			live++
		}
	}
	return fmt.Sprintf(" (on %d nodes within a second)", live)
}

// changePolicy enables, disables or deletes a policy.
func (v *visit) changePolicy() error {
	d, err := v.domain(v.options())
	if err != nil {
		return err
	}
	id, do := v.R.PathValue("id"), v.Value("do")
	ending := v.Open.Ending(d.Request, d.Name(), "")
	switch do {
	case "enable", "disable", "enforce", "report":
		_, err = d.PatchPolicy(v.R.Context(), id, func(cur *api.Policy, _ *api.Faults) (*api.Policy, error) {
			switch on := do == "enable"; do {
			case "enable", "disable":
				cur.Enabled = &on
			default:
				cur.Mode = do
			}
			return cur, nil
		})
	case "delete":
		_, err = d.DeletePolicy(v.R.Context(), id)
	default:
		err = web.NotFound()
	}
	ending.Settle(v.R.Context(), err)
	return v.changed(err, "The policy was changed"+v.where()+".", "/policies")
}

// revert keeps a change that waits to be confirmed, or undoes it now.
func (v *visit) revert() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	if v.Value("do") == "undo" {
		err = d.UndoRevert(v.R.Context(), v.R.PathValue("id"))
		return v.changed(err, "The change is being reverted.", "/policies")
	}
	_, err = d.ConfirmRevert(v.R.Context(), v.R.PathValue("id"))
	return v.changed(err, "The change is confirmed.", "/policies")
}

func (v *visit) thirdParty() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	res, err := d.ThirdPartyAccess()
	if err != nil {
		return err
	}
	return v.show("thirdparty", "third-party", "Third-party clients", line("third-party", "show", d.Name()), res.View)
}

func (v *visit) setThirdParty() error {
	d, err := v.domain(v.options())
	if err != nil {
		return err
	}
	var f api.Faults
	in := web.Check(v.Call, &api.ThirdPartyAccess{Allow: v.Value("allow") == "true", Mode: v.Value("mode"), SecureLoginIPs: v.rows("secure_login_ips")}, &f)
	ending := v.Open.Ending(d.Request, d.Name(), "")
	_, err = d.PutThirdPartyAccess(v.R.Context(), in, &f)
	ending.Settle(v.R.Context(), err)
	if err != nil {
		return v.refused("thirdparty", v.view("third-party", "Third-party clients", "", *in), err)
	}
	return v.done("The switch was set"+v.where()+".", "/third-party")
}

type enforcementData struct {
	scopeForm
	Policy  api.SecurePasswordPolicy
	Planned bool
}

// showEnforcement shows the requirement, and what was wrong with its form.
func (v *visit) showEnforcement(d *admin.Domain, p api.SecurePasswordPolicy, planned bool, problem error) error {
	if p.Scope == nil {
		p.Scope = &api.Scope{All: true}
	}
	scope, err := v.scopeForm(d, p.Scope)
	if err != nil {
		return err
	}
	view := v.view("secure-passwords", "Secure passwords", line("secure-password-policy", "show", d.Name()), enforcementData{scope, p, planned})
	if problem != nil {
		return v.refused("enforcement", view, problem)
	}
	return v.Show(pages, "enforcement", view)
}

func (v *visit) enforcement() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	res, err := d.SecurePasswordPolicy()
	if err != nil {
		return err
	}
	return v.showEnforcement(d, res.View, false, nil)
}

// enforce shows whom enforcement would keep out, or enforces it.
func (v *visit) enforce() error {
	o := v.options()
	o.DryRun = v.Value("do") == "plan"
	d, err := v.domain(o)
	if err != nil {
		return err
	}
	in := &api.SecurePasswordPolicy{Enforced: v.Value("enforced") == "true", Mode: v.Value("mode"), Paused: v.Value("paused") == "true", Scope: v.scope()}
	var bad api.Faults
	if text := v.Value("grace_until"); text != "" {
		at, err := time.Parse(clock, text)
		if err != nil {
			bad.Add("/grace_until", "invalid", "is not a time such as 2026-11-28T15:04")
		}
		in.GraceUntil = at
	}
	if err := bad.Err(); err != nil {
		return v.showEnforcement(d, *in, false, err)
	}
	ending := v.Open.Ending(d.Request, d.Name(), "")
	res, err := d.PutSecurePasswordPolicy(v.R.Context(), func(f *api.Faults) *api.SecurePasswordPolicy { return web.Check(v.Call, in, f) })
	ending.Settle(v.R.Context(), err)
	if err != nil {
		return v.showEnforcement(d, *in, false, err)
	}
	if o.DryRun {
		return v.showEnforcement(d, res.View, true, nil)
	}
	return v.done("The requirement was set"+v.where()+".", "/secure-passwords")
}
