package console

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/web"
)

// look is how many accounts and policies the overviews look at.
const look = 200

// attention is what an administrator should look at.
type attention struct{ Text, Link string }

type overviewData struct {
	Domains []api.Domain
	Next    string
	Store   *api.StoreStatus
	Regions *api.RegionStatus
	Items   []attention
}

func (v *visit) overview() error {
	if v.caller.Role == store.RoleDomain {
		return v.Redirect("/domains/" + url.PathEscape(v.caller.Domain))
	}
	r := v.as(admin.Options{})
	var data overviewData
	list, err := r.Domains(v.page())
	if err != nil {
		return err
	}
	data.Domains, data.Next = list.Items, list.Next
	if data.Store, err = r.StoreStatus(); err != nil {
		return err
	}
	if data.Regions, err = r.RegionStatus(); err != nil {
		return err
	}
	add := func(text, link string) { data.Items = append(data.Items, attention{text, link}) }
	if data.Store.Trouble != "" {
		add("The store refuses changes: "+data.Store.Trouble, "/store")
	}
	if data.Store.Evicting {
		add("The Redis server may delete rules when its memory is full.", "/store")
	}
	if data.Regions.Kind != "none" && data.Regions.AgeDays > 60 {
		add("The region database is "+strconv.Itoa(data.Regions.AgeDays)+" days old.", "/store")
	}
	if held, err := r.HeldBack(admin.Page{Limit: look}); err == nil {
		if n := len(held.Items); n > 0 {
			add(strconv.Itoa(n)+" accounts or addresses are throttled after wrong passwords.", "/throttle")
		}
		for _, d := range held.Distributed {
			add("Many addresses guess passwords at "+d.Domain+".", "/throttle")
		}
	}
	if nodes, err := v.nodes(); err == nil {
		for _, n := range nodes {
			if !n.Live {
				add("The node "+n.Name+" was last seen at "+n.Seen.UTC().Format("2006-01-02 15:04 UTC")+".", "/store")
			}
		}
	}
	for _, d := range list.Items[:min(len(list.Items), 10)] {
		items, err := v.attention(d.Name)
		if err != nil {
			return err
		}
		for _, a := range items {
			add(d.Name+": "+a.Text, a.Link)
		}
	}
	return v.show("overview", "overview", "Overview", "domain list", data)
}

// attention looks at one domain.
func (v *visit) attention(domain string) (items []attention, err error) {
	d, err := v.as(admin.Options{}).Domain(domain)
	if err != nil {
		return nil, err
	}
	at := "/domains/" + url.PathEscape(domain)
	add := func(n int, one, many, link string) {
		switch {
		case n == 1:
			items = append(items, attention{"1 " + one, at + link})
		case n > 1:
			items = append(items, attention{strconv.Itoa(n) + " " + many, at + link})
		}
	}
	reverts, err := d.Reverts(admin.Page{Limit: look})
	if err != nil {
		return nil, err
	}
	add(len(reverts.Items), "change is reverted unless it is confirmed", "changes are reverted unless they are confirmed", "/policies")
	held, err := d.HeldMessages(v.R.Context(), admin.Page{Limit: look})
	if err != nil {
		return nil, err
	}
	add(len(held.Items), "message waits for approval", "messages wait for approval", "/held")
	policies, err := d.Policies(admin.Page{Limit: look})
	if err != nil {
		return nil, err
	}
	reporting, nobody := 0, 0
	for _, p := range policies.Items {
		on := p.Enabled == nil || *p.Enabled
		if on && p.Mode == "report" {
			reporting++
		}
		if s := p.Scope; on && s != nil && !s.All && len(s.Departments) == 0 && len(s.Members) == 0 {
			nobody++
		}
	}
	add(reporting, "policy only reports", "policies only report", "/policies")
	add(nobody, "enabled policy selects nobody", "enabled policies select nobody", "/policies")
	enforced, err := d.SecurePasswordPolicy()
	if err != nil {
		return nil, err
	}
	accounts, err := d.Accounts(admin.Page{Limit: look})
	if err != nil {
		return nil, err
	}
	without, suspended := 0, 0
	for _, a := range accounts.Items {
		if a.SecurePasswordCount == 0 {
			without++
		}
		if a.Suspended {
			suspended++
		}
	}
	of := ""
	if accounts.Next != "" {
		of = " (of the first " + strconv.Itoa(look) + ")"
	}
	if enforced.View.Enforced {
		add(without, "account has no secure password, and may need one"+of, "accounts have no secure password, and some may need one"+of, "/accounts")
	} else {
		add(without, "account has no secure password"+of, "accounts have no secure password"+of, "/secure-passwords")
	}
	add(suspended, "account is suspended"+of, "accounts are suspended"+of, "/accounts")
	return items, nil
}

type domainData struct {
	Settings   api.Domain
	ThirdParty api.ThirdPartyAccess
	Items      []attention
}

func (v *visit) domainPage() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	settings, err := d.Settings()
	if err != nil {
		return err
	}
	data := domainData{Settings: settings.View}
	third, err := d.ThirdPartyAccess()
	if err != nil {
		return err
	}
	data.ThirdParty = third.View
	if data.Items, err = v.attention(d.Name()); err != nil {
		return err
	}
	return v.show("domain", "domain", d.Name(), line("domain", "show", d.Name()), data)
}

// setRecords sets how long the domain's records are kept, and when their addresses are replaced.
func (v *visit) setRecords() error {
	d, err := v.domain(v.options())
	if err != nil {
		return err
	}
	_, err = d.Patch(v.R.Context(), func(cur *api.Domain, _ *api.Faults) (*api.Domain, error) {
		next := *cur
		next.Records = &api.RecordPolicy{Retention: v.Value("retention"), PseudonymiseAfter: v.Value("pseudonymise_after")}
		return &next, nil
	})
	return v.changed(err, "How long records are kept was set"+v.where()+".", "")
}

func (v *visit) accounts() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	if addr := v.R.URL.Query().Get("address"); addr != "" {
		a, err := v.as(admin.Options{}).Account(addr)
		if err != nil {
			return v.refused("accounts", v.view("accounts", "Accounts", "", &api.List[api.Account]{}), err)
		}
		return v.Redirect("/accounts/" + url.PathEscape(a.Address()))
	}
	list, err := d.Accounts(v.page())
	if err != nil {
		return err
	}
	return v.show("accounts", "accounts", "Accounts", line("account", "list", d.Name()), list)
}

type accountData struct {
	Account   api.Account
	Effective *api.Effective
	Devices   []api.SecurePassword
	Factors   []api.Factor
}

func (v *visit) accountView(a *admin.Account, sent *api.Account) (web.View, error) {
	var data accountData
	rec, err := a.Record()
	switch {
	case sent != nil:
		data.Account = *sent
	case err == nil:
		data.Account = rec.View
	case admin.ProblemOf(err).Status == http.StatusNotFound:
		data.Account.Address, data.Account.SecurePasswords = a.Address(), "optional"
	default:
		return web.View{}, err
	}
	if data.Effective, err = a.Effective(); err != nil {
		return web.View{}, err
	}
	if list, err := a.SecurePasswords(v.R.Context(), admin.Page{}); err == nil {
		data.Devices = list.Items
	} else if admin.ProblemOf(err).OfServer() {
		return web.View{}, err
	}
	factors, err := v.Factors.Of(a).List()
	if err != nil {
		return web.View{}, err
	}
	data.Factors = factors.Items
	view := v.view("accounts", a.Address(), line("account", "show", a.Address()), data)
	n, _ := view.Nav.(nav)
	n.Domain = a.Name()
	view.Nav = n
	return view, nil
}

func (v *visit) account() error {
	a, err := v.as(admin.Options{}).Account(v.R.PathValue("address"))
	if err != nil {
		return err
	}
	view, err := v.accountView(a, nil)
	if err != nil {
		return err
	}
	return v.Show(pages, "account", view)
}

// switched reads a switch of a form: on, off, or inherited.
func (v *visit) switched(name string) *bool {
	switch v.Value(name) {
	case "on":
		on := true
		return &on
	case "off":
		off := false
		return &off
	}
	return nil
}

func (v *visit) switches() api.Protocols {
	return api.Protocols{IMAP: v.switched("imap"), POP3: v.switched("pop3"), SMTP: v.switched("smtp"), Sieve: v.switched("sieve")}
}

func (v *visit) changeAccount() error {
	a, err := v.as(v.options()).Account(v.R.PathValue("address"))
	if err != nil {
		return err
	}
	ending := v.Open.Ending(a.Request, "", a.Address())
	var sent *api.Account
	_, err = a.Patch(v.R.Context(), func(cur *api.Account, f *api.Faults) (*api.Account, error) {
		cur.Suspended, cur.Protocols = v.Value("suspended") == "true", v.switches()
		cur.Departments, cur.Aliases, cur.SendAs = v.rows("departments"), v.Lines("aliases"), v.Lines("send_as")
		cur.SecurePasswords = v.Value("secure_passwords")
		sent = web.Check(v.Call, cur, f)
		return sent, nil
	})
	ended := ending.Settle(v.R.Context(), err)
	if err != nil {
		view, bad := v.accountView(a, sent)
		if bad != nil {
			return bad
		}
		return v.refused("account", view, err)
	}
	note := "The account was changed" + v.where() + "."
	if ended != nil {
		note += " Open sessions that were ended: " + strconv.Itoa(ended.Ended) + "."
	}
	v.Note(note)
	return v.Redirect("/accounts/" + url.PathEscape(a.Address()))
}

func (v *visit) deleteAccount() error {
	a, err := v.as(v.options()).Account(v.R.PathValue("address"))
	if err != nil {
		return err
	}
	ending := v.Open.Ending(a.Request, "", a.Address())
	_, err = a.Delete(v.R.Context())
	ending.Settle(v.R.Context(), err)
	if err != nil {
		return v.refused("refused", v.view("accounts", "Nothing was changed", "", "/accounts/"+url.PathEscape(a.Address())), err)
	}
	v.Note("The record of " + a.Address() + " was deleted.")
	return v.Redirect("/domains/" + url.PathEscape(a.Name()) + "/accounts")
}

func (v *visit) revokeDevice() error {
	a, err := v.as(admin.Options{}).Account(v.R.PathValue("address"))
	if err != nil {
		return err
	}
	ending := v.Open.Ending(a.Request, "", a.Address())
	_, err = a.RevokeSecurePassword(v.R.Context(), v.R.PathValue("id"))
	ending.Settle(v.R.Context(), err)
	if err != nil {
		return err
	}
	v.Note("The secure password was revoked.")
	return v.Redirect("/accounts/" + url.PathEscape(a.Address()))
}

type batchData struct {
	scopeForm
	Totals  *api.BatchTotals
	Results []api.BatchAccount
	Planned bool
}

func (v *visit) batchForm() error { return v.showBatch(nil, batchData{}, nil) }

func (v *visit) showBatch(scope *api.Scope, data batchData, problem error) error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	if data.scopeForm, err = v.scopeForm(d, scope); err != nil {
		return err
	}
	view := v.view("batch", "Change many accounts", line("batch", d.Name()), data)
	if problem != nil {
		return v.refused("batch", view, problem)
	}
	return v.Show(pages, "batch", view)
}

// batch changes many accounts, or lists who would change.
func (v *visit) batch() error {
	planned := v.Value("do") == "plan"
	d, err := v.domain(admin.Options{DryRun: planned})
	if err != nil {
		return err
	}
	data, scope := batchData{Planned: planned}, v.scope()
	var f api.Faults
	in := &api.Batch{Select: scope, Set: &api.BatchSet{}}
	var named []string
	for _, p := range []struct {
		name string
		to   **bool
	}{{"imap", &in.Set.Protocols.IMAP}, {"pop3", &in.Set.Protocols.POP3}, {"smtp", &in.Set.Protocols.SMTP}, {"sieve", &in.Set.Protocols.Sieve}} {
		if word := v.Value(p.name); word != "" {
			named = append(named, "protocols."+p.name)
			*p.to = v.switched(p.name)
		}
	}
	if word := v.Value("suspended"); word != "" {
		named, in.Set.Suspended = append(named, "suspended"), word == "true"
	}
	if word := v.Value("secure_passwords"); word != "" {
		named, in.Set.SecurePasswords = append(named, "secure_passwords"), word
	}
	if in.Set.SecurePasswords != "" && !slices.Contains([]string{"optional", "required", "off"}, in.Set.SecurePasswords) {
		f.Add("/set/secure_passwords", "invalid", "is not optional, required or off")
	}
	b, err := d.Batch(in, named, "", &f)
	if err != nil {
		return v.showBatch(scope, data, err)
	}
	ending := v.Open.Ending(d.Request, d.Name(), "")
	err = b.Run(context.WithoutCancel(v.R.Context()), func(results []api.BatchAccount) error {
		for _, r := range results {
			if r.Result != "unchanged" && len(data.Results) < look {
				data.Results = append(data.Results, r)
			}
		}
		return nil
	})
	ending.Settle(v.R.Context(), err)
	if err != nil {
		return v.showBatch(scope, data, err)
	}
	totals := b.Totals()
	data.Totals = &totals
	return v.showBatch(scope, data, nil)
}

type departmentsData struct {
	Tree []*branch
	Many *level // of more than maxTree
}

func (v *visit) departments() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	list, err := d.Departments(admin.Page{Limit: math.MaxInt})
	if err != nil {
		return err
	}
	var data departmentsData
	if len(list.Items) > maxTree {
		data.Many = v.level(list.Items, nil, nil)
	} else {
		data.Tree = tree(list.Items, nil, nil)
	}
	return v.show("departments", "departments", "Departments", line("department", "list", d.Name()), data)
}

func (v *visit) changeDepartment() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	path := v.Value("path")
	switch v.Value("do") {
	case "delete":
		_, err = d.DeleteDepartment(v.R.Context(), path)
		return v.changed(err, "The department was deleted.", "/departments")
	case "rename":
		_, err = d.PatchDepartment(v.R.Context(), path, func(cur *api.Department, f *api.Faults) (*api.Department, error) {
			cur.Path, cur.Name = v.Value("to"), v.Value("name")
			return web.Check(v.Call, cur, f), nil
		})
		return v.changed(err, "The department was changed.", "/departments")
	}
	var f api.Faults
	in := web.Check(v.Call, &api.Department{Path: path, Name: v.Value("name"), SendAs: []string{}}, &f)
	_, err = d.PutDepartment(v.R.Context(), path, in, &f)
	return v.changed(err, "The department was saved.", "/departments")
}
