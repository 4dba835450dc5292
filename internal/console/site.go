package console

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/document"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/web"
)

type keysData struct {
	Items   []api.Key
	Next    string
	Created *api.CreatedKey
	Secret  []byte   // of Created
	Roles   []string // that the caller may create
}

func (v *visit) keysView(created *api.CreatedKey) (web.View, error) {
	list, err := v.as(admin.Options{}).Keys(v.R.Context(), v.page())
	if err != nil {
		return web.View{}, err
	}
	data := keysData{Items: list.Items, Next: list.Next, Created: created, Roles: []string{"self"}}
	if created != nil {
		data.Secret = created.Secret // an api.Secret does not print
	}
	if v.caller.Role == store.RoleAdmin {
		data.Roles = []string{"domain", "read", "login", "self"}
	}
	return v.view("keys", "API keys", "key list", data), nil
}

func (v *visit) keys() error {
	view, err := v.keysView(nil)
	if err != nil {
		return err
	}
	return v.Show(pages, "keys", view)
}

func (v *visit) createKey() error {
	var f api.Faults
	in := &api.NewKey{Name: v.Value("name"), Role: v.Value("role"), Domain: v.Value("for_domain"), Account: v.Value("for_account")}
	if text := v.Value("expires"); text != "" {
		at, err := time.Parse("2006-01-02", text)
		if err != nil {
			f.Add("/expires_at", "invalid", "is not a date such as 2026-12-31")
		}
		in.ExpiresAt = at
	}
	in = web.Check(v.Call, in, &f)
	res, err := v.as(admin.Options{}).CreateKey(v.R.Context(), in, &f)
	var created *api.CreatedKey
	if err == nil {
		created = &res.View
		defer clear(res.View.Secret)
	}
	view, bad := v.keysView(created)
	if bad != nil {
		return bad
	}
	if err != nil {
		return v.refused("keys", view, err)
	}
	return v.Show(pages, "keys", view)
}

func (v *visit) revokeKey() error {
	if _, err := v.as(admin.Options{}).RevokeKey(v.R.Context(), v.R.PathValue("id")); err != nil {
		return err
	}
	v.Note("The key was revoked.")
	return v.Redirect("/keys")
}

// node is a daemon that reports itself.
type node struct {
	Name string
	Seen time.Time
	Live bool
}

func (v *visit) nodes() ([]node, error) {
	if v.Admin.Nodes == nil {
		return nil, nil
	}
	seen, err := v.Admin.Nodes(v.R.Context())
	if err != nil {
		return nil, err
	}
	var list []node
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		list = append(list, node{name, seen[name], v.Now.Sub(seen[name]) < time.Minute})
	}
	return list, nil
}

type storeData struct {
	Store   *api.StoreStatus
	Regions *api.RegionStatus
	Nodes   []node
	Types   []api.ClientType
}

func (v *visit) store() error {
	r := v.as(admin.Options{})
	var data storeData
	var err error
	if data.Store, err = r.StoreStatus(); err != nil {
		return err
	}
	if data.Regions, err = r.RegionStatus(); err != nil {
		return err
	}
	types, err := r.ClientTypes(admin.Page{})
	if err != nil {
		return err
	}
	data.Types = types.Items
	if data.Nodes, err = v.nodes(); err != nil {
		return err
	}
	return v.show("store", "store", "Store, nodes and client types", "store status", data)
}

type documentData struct {
	Text string
	Plan *api.Plan
}

func (v *visit) document() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	accounts := v.R.URL.Query().Get("accounts") == "true"
	doc, err := document.Export(d, accounts)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	if v.R.URL.Query().Get("as") == "file" {
		v.W.Header().Set("Content-Type", "application/json")
		v.W.Header().Set("Content-Disposition", `attachment; filename="`+d.Name()+`.json"`)
		_, _ = v.W.Write(append(text, '\n')) // the browser is gone
		return nil
	}
	return v.show("document", "document", "The domain as a document", line("export", d.Name()), documentData{Text: string(text)})
}

// applyDocument shows what a document would change, or changes it.
func (v *visit) applyDocument() error {
	o := v.options()
	o.DryRun = v.Value("do") == "plan"
	d, err := v.domain(o)
	if err != nil {
		return err
	}
	data := documentData{Text: v.R.PostFormValue("document")}
	view := v.view("document", "The domain as a document", "apply FILE --dry-run", &data)
	var f api.Faults
	in := web.DecodeJSON[api.DomainDocument](v.Call, []byte(data.Text), &f)
	if in.Domain != nil && in.Domain.Name != d.Name() {
		f.Add("/domain/name", "conflict", "is another domain than that of this page")
	}
	ending := v.Open.Ending(d.Request, d.Name(), "")
	data.Plan, err = document.Apply(v.R.Context(), d, in, &f)
	ending.Settle(v.R.Context(), err)
	if err != nil {
		return v.refused("document", view, err)
	}
	return v.Show(pages, "document", view)
}
