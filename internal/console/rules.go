package console

import (
	"encoding/json"
	"fmt"
	"net/url"
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
	return v.show("policies", "policies", "Access policies", line("policy", "list", d.Name()), policiesData{list.Items, list.Next, reverts.Items})
}

// policyForm is the wizard: first what the policy is, then what it would do, then saving it.
type policyForm struct {
	Policy      *api.Policy
	Scope       *api.Scope
	Clients     []string
	Protocols   []string
	Departments []api.Department
	Except      api.Exceptions

	JSON      string // of the draft, once it was checked
	Previewed *api.PolicyPreviewed
	Tested    *api.PolicyTested
	Login     api.HypotheticalLogin
	Lasts     []lastLogin
}

// lastLogin is the last login of an account, before and after the draft.
type lastLogin struct {
	Record        api.LoginRecord
	Before, After string
}

// clients are the client types that policies can select.
var clients = []string{
	"third-party", "cloud-fetcher", "web", "console", "native-desktop", "native-mobile", "outlook-addin", "chat-desktop", "chat-mobile", "social",
}

var protocols = []string{"imap", "pop3", "smtp", "sieve", "web"}

func (v *visit) form(d *admin.Domain, p *api.Policy) (*policyForm, error) {
	departments, err := d.Departments(admin.Page{Limit: 1000})
	if err != nil {
		return nil, err
	}
	f := &policyForm{Policy: p, Scope: p.Scope, Clients: clients, Protocols: protocols, Departments: departments.Items}
	if f.Scope == nil {
		f.Scope = &api.Scope{}
	}
	if f.Scope.Except != nil {
		f.Except = *f.Scope.Except
	}
	return f, nil
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

// scope reads the scope fields of a form.
func (v *visit) scope() *api.Scope {
	departments := func(field string) (list []api.ScopeDepartment) {
		for _, path := range v.Lines(field) {
			path, only := strings.CutSuffix(path, "/.")
			list = append(list, api.ScopeDepartment{Path: path, Sub: !only})
		}
		return list
	}
	s := &api.Scope{All: v.Value("all") == "true"}
	if !s.All {
		s.Departments, s.Members = departments("departments"), v.Lines("members")
	}
	if out := (api.Exceptions{Departments: departments("except_departments"), Members: v.Lines("except_members")}); out.Departments != nil || len(out.Members) > 0 {
		s.Except = &out
	}
	return s
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
	if form.Lasts, err = v.lasts(d, p); err != nil {
		return err
	}
	return v.Show(pages, "policycheck", view)
}

// lasts evaluates the last seen login of each account, with and without the draft; the newest 50.
func (v *visit) lasts(d *admin.Domain, p *api.Policy) (list []lastLogin, err error) {
	records, err := v.records(d, url.Values{}, 500)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, r := range records.Items {
		if seen[r.Account] || len(list) == 50 {
			continue
		}
		seen[r.Account] = true
		l := lastLogin{Record: r}
		for _, draft := range []*api.Policy{nil, p} {
			in := &api.PolicyTest{Policy: draft, Login: &api.HypotheticalLogin{CredentialID: r.CredentialID}}
			in.Login.Account, in.Login.Protocol, in.Login.IP, in.Login.RealIP, in.Login.Service = r.Account, r.Protocol, r.IP, r.RealIP, r.Service
			tested, err := v.TestPolicy(d, "", in, &api.Faults{})
			word := "unknown"
			if err == nil {
				word = tested.Outcome.String()
				if word == "deny" {
					word = string(tested.Reason)
				}
			}
			if draft == nil {
				l.Before = word
			} else {
				l.After = word
			}
		}
		list = append(list, l)
	}
	return list, nil
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
	Policy  api.SecurePasswordPolicy
	Scope   *api.Scope
	Except  api.Exceptions
	Planned bool
}

func (v *visit) enforcementView(d *admin.Domain, p api.SecurePasswordPolicy, planned bool) web.View {
	data := enforcementData{Policy: p, Scope: p.Scope, Planned: planned}
	if data.Scope == nil {
		data.Scope = &api.Scope{All: true}
	}
	if data.Scope.Except != nil {
		data.Except = *data.Scope.Except
	}
	return v.view("secure-passwords", "Secure passwords", line("secure-password-policy", "show", d.Name()), data)
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
	return v.Show(pages, "enforcement", v.enforcementView(d, res.View, false))
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
	in.GraceUntil = day(v.R.PostForm, "grace_until", &bad)
	if err := bad.Err(); err != nil {
		return v.refused("enforcement", v.enforcementView(d, *in, false), err)
	}
	ending := v.Open.Ending(d.Request, d.Name(), "")
	res, err := d.PutSecurePasswordPolicy(v.R.Context(), func(f *api.Faults) *api.SecurePasswordPolicy { return web.Check(v.Call, in, f) })
	ending.Settle(v.R.Context(), err)
	if err != nil {
		return v.refused("enforcement", v.enforcementView(d, *in, false), err)
	}
	if o.DryRun {
		return v.Show(pages, "enforcement", v.enforcementView(d, res.View, true))
	}
	return v.done("The requirement was set"+v.where()+".", "/secure-passwords")
}
