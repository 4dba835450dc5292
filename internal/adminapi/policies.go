package adminapi

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	maxPolicyID = 64 // characters
	// maxPolicies bounds the access policies of a domain: all of them are compiled at each change.
	maxPolicies = 10_000
	// draft stands for the id of a policy that is tested and has none.
	draft = "draft"
	// draftName stands for its name.
	draftName = "(draft)"
)

// everywhere are all addresses there are.
func everywhere() []string { return []string{"0.0.0.0/0", "::/0"} }

func viewPolicy(p *store.Policy) api.Policy {
	enabled := p.Enabled // documents are shared: nothing points into them
	return api.Policy{
		ID: p.ID, Name: p.Name, Type: string(p.Type), Enabled: &enabled, Mode: string(p.Mode), Managed: p.Managed,
		Scope: viewScope(&p.Scope), IPs: list(p.IPs), Regions: list(p.Regions), ExceptIPs: list(p.ExceptIPs),
		Clients: texts(p.Clients), Protocols: list(p.Protocols), CreatedAt: p.CreatedAt,
	}
}

// byAge is where something stands in a list that is oldest first.
func byAge(created time.Time, id string) string {
	return created.UTC().Format("20060102150405.000000000") + id
}

func listPolicies(c *call) (*answer, error) {
	return listed(c, c.Store.State.Policies(c.domain), func(p *store.Policy) string { return byAge(p.CreatedAt, p.ID) }, viewPolicy)
}

func getPolicy(c *call) (*answer, error) {
	p, ok := c.Store.State.Policy(c.domain, c.r.PathValue("id"))
	if !ok {
		return nil, api.NotFound("policy")
	}
	view := viewPolicy(p.Doc)
	view.Pending = guard.Pending(c.Store.State, c.domain)[p.Doc.ID]
	return found(p.Rev, view), nil
}

// checkPolicyID refuses ids that would read as something else in a path.
func checkPolicyID(id string, fault func(code, format string, args ...any)) {
	switch {
	case id == "" || len(id) > maxPolicyID || strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}):
		fault("invalid_name", "must be 1 to %d letters, digits, hyphens and underscores", maxPolicyID)
	case slices.Contains([]string{"test", "preview", "migrate", draft}, id):
		fault("reserved", "is the name of something else: choose another")
	}
}

// readPolicy reads a policy as it was sent. cur is the one that it replaces, nil for none.
func (c *call) readPolicy(in *api.Policy, id string, cur *store.Policy, pointer string, f *api.Faults) *store.Policy {
	p := &store.Policy{Policy: access.Policy{
		ID: id, Name: in.Name, Type: access.PolicyType(in.Type), Enabled: in.Enabled == nil || *in.Enabled,
		Mode: access.PolicyMode(in.Mode), IPs: list(in.IPs), ExceptIPs: list(in.ExceptIPs),
		Clients: []access.ClientType{}, Protocols: []string{},
	}}
	if id == store.ManagedThirdParty {
		p.Managed = id
	}
	var regions []string
	if cur != nil {
		p.CreatedAt, regions = cur.CreatedAt, cur.Regions
	}
	p.Regions = c.policyRegions(in.Regions, regions, pointer+"/regions", f)
	if p.Mode == "" {
		p.Mode = access.Enforce
	}
	c.policyName(p, pointer+"/name", f)
	if in.Scope == nil {
		f.Add(pointer+"/scope", "required", `is needed: say {"all":true}, or name departments or members`)
	} else {
		p.Scope = c.scope(in.Scope, pointer+"/scope", f)
		checkNobody(&p.Scope, pointer+"/scope", f)
	}
	c.policyPlace(p, pointer, f)
	known := c.clientTypes()
	if cur != nil {
		known = append(known, cur.Clients...) // one that was forgotten meanwhile is no reason not to disable the policy
	}
	for i, name := range in.Clients {
		client := access.ClientType(name)
		switch {
		case !slices.Contains(known, client):
			f.Add(api.At(pointer+"/clients", i), "unknown_client_type", "there is no such client type%s", rest.Suggest(name, texts(known)))
		case !slices.Contains(p.Clients, client):
			p.Clients = append(p.Clients, client)
		}
	}
	for _, name := range in.Protocols {
		if !slices.Contains(p.Protocols, name) {
			p.Protocols = append(p.Protocols, name)
		}
	}
	return p
}

func (c *call) policyName(p *store.Policy, pointer string, f *api.Faults) {
	switch {
	case p.Name == "":
		f.Add(pointer, "required", "is needed: people tell policies by it")
	case strings.TrimSpace(p.Name) != p.Name || strings.ContainsFunc(p.Name, unprintable):
		f.Add(pointer, "unprintable", "begins or ends with a space, or has a character that does not print")
	}
	if c.policyNamed(p.Name, p.ID) {
		f.Add(pointer, "duplicate", "is the name of another policy of the domain, or is kept for one: choose another")
	}
}

// policyNamed reports whether a policy other than the one of an id has a name, or will have it when
// a change undoes itself.
func (c *call) policyNamed(name, id string) bool {
	if other := c.policyOf(name); other != "" && other != id {
		return true
	}
	if c.planned.policies != nil { // has those that come back
		return false
	}
	return slices.ContainsFunc(c.Store.State.Reverts(c.domain), func(r store.Revised[store.Revert]) bool {
		for other, before := range r.Doc.Policies {
			if before != nil && other != id && foldName(before.Name) == foldName(name) {
				return true
			}
		}
		return false
	})
}

// policyOf returns the id of the policy that a name belongs to; "" for none. The name of the simple
// switch's is always its own: the switch makes it anew with that.
func (c *call) policyOf(name string) string {
	name = foldName(name)
	if name == foldName(store.ManagedThirdPartyName) {
		return store.ManagedThirdParty
	}
	if c.planned.policies != nil {
		return c.planned.policies[name]
	}
	for _, p := range c.Store.State.Policies(c.domain) {
		if foldName(p.Doc.Name) == name {
			return p.Doc.ID
		}
	}
	return ""
}

// foldName spells names alike that differ in upper and lower case only.
func foldName(name string) string { return strings.ToLower(strings.ToUpper(name)) }

// policyPlace judges where a policy matches. That it never does is told only of lists that can be
// read.
func (c *call) policyPlace(p *store.Policy, pointer string, f *api.Faults) {
	before := len(f.List)
	checkNetworks(p.IPs, pointer+"/ips", f)
	checkNetworks(p.ExceptIPs, pointer+"/except_ips", f)
	if p.Type == access.Whitelist && len(p.IPs)+len(p.Regions) == 0 && !f.Within(pointer+"/ips") && !f.Within(pointer+"/regions") {
		f.Add(pointer+"/ips", "required", "is needed: or regions are: a whitelist says from where to let in, and refuses everywhere else")
	}
	if len(f.List) > before || len(p.ExceptIPs) == 0 {
		return
	}
	in := p.IPs
	if len(in) == 0 || len(p.Regions) > 0 { // a region may be anywhere
		in = everywhere()
	}
	if address.Within(in, p.ExceptIPs) {
		f.Add(pointer+"/except_ips", "never_matches", "excepts every address that the policy names, so that it would never match: except fewer")
	}
}

// clientTypes are those that need no registration, and the site's own.
func (c *call) clientTypes() []access.ClientType {
	known := slices.Clone(access.KnownClientTypes[:])
	for _, t := range c.Store.State.ClientTypes() {
		if !slices.Contains(known, t.Doc.Type) {
			known = append(known, t.Doc.Type)
		}
	}
	return known
}

func texts(types []access.ClientType) []string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = string(t)
	}
	return names
}

func checkNobody(s *access.Scope, pointer string, f *api.Faults) {
	if nobody(s) && !f.Within(pointer) {
		f.Add(pointer, "never_matches", `has nobody in it, so that the policy would never match: say "all":true, name departments or members, or except fewer`)
	}
}

// nobody reports whether a scope concerns nobody, whatever accounts there are: each part of it is
// excepted by name.
func nobody(s *access.Scope) bool {
	return !s.All && !slices.ContainsFunc(s.Members, func(m string) bool { return !slices.Contains(s.Except.Members, m) }) &&
		!slices.ContainsFunc(s.Departments, func(d access.ScopeDepartment) bool {
			return !slices.ContainsFunc(s.Except.Departments, func(out access.ScopeDepartment) bool {
				return out.Has(d.Path) && (out.Sub || !d.Sub)
			})
		})
}

// policyWarnings tells what the administrator may not have thought of.
func (c *call) policyWarnings(p *store.Policy) []api.Warning {
	warnings := c.regionWarning(p)
	postmaster := "postmaster@" + c.domain
	record, _ := c.Store.State.Account(postmaster)
	if !p.Scope.All || !c.covers(&p.Scope)(postmaster, record.Doc) {
		return warnings
	}
	return append(warnings, api.Warning{
		Code: "postmaster_included", Detail: "The policy binds " + postmaster + " like anyone. If that is not meant, put the address into scope.except.members.",
	})
}

// editPolicy makes one change of a policy. edit is given the policy as it is, nil for none.
func (c *call) editPolicy(id string, edit func(cur *store.Policy, f *api.Faults) (*api.Policy, error)) (*answer, error) {
	ans := &answer{etag: true}
	err := c.changeRules(func(ch *store.Change, e *guard.Edit) error {
		cur, exists := c.Store.State.Policy(c.domain, id)
		if err := c.match(exists, cur.Rev); err != nil {
			return err
		}
		var f api.Faults
		in, err := edit(cur.Doc, &f)
		if err != nil {
			return err
		}
		if in.ID != "" && in.ID != id {
			f.Add("/id", "conflict", "is not the one in the URL, and cannot be changed: create the new policy and delete this one")
		}
		next := c.readPolicy(in, id, cur.Doc, "", &f)
		if err := f.Err(); err != nil {
			return err
		}
		if !exists {
			returning := guard.Returning(c.Store.State, c.domain).Policies
			delete(returning, id)
			if len(c.Store.State.Policies(c.domain))+len(returning) >= maxPolicies {
				return tooManyPolicies()
			}
			next.CreatedAt = ch.Now
		}
		view := viewPolicy(next)
		view.Warnings = c.policyWarnings(next)
		ans.status, ans.rev, ans.location, ans.body, ans.pending = 0, ch.Rev, "", &view, nil
		pending := guard.Pending(c.Store.State, c.domain)[id]
		if exists && same(normal(cur.Doc), next) && (!c.flag("confirm") || pending == nil) {
			ans.rev, view.Pending = cur.Rev, pending
			return nil
		}
		audit(ch, "policy.update", c.domain, id)
		if !exists {
			ans.status, ans.location = http.StatusCreated, "/v1/domains/"+url.PathEscape(c.domain)+"/policies/"+url.PathEscape(id)
			audit(ch, "policy.create", c.domain, id)
		}
		ch.Audit.Note = next.Name
		ch.Diff(cur.Doc, next)
		e.Policies = map[string]*store.Policy{id: next}
		view.Pending, err = c.edit(ch, e)
		ans.pending = view.Pending
		return err
	})
	return ans, err
}

func tooManyPolicies() error {
	return api.Conflict("limit", "a domain may have %d policies: delete those that are not needed", maxPolicies)
}

func createPolicy(c *call) (*answer, error) {
	id := store.NewID()
	if named := c.body.Get("id"); named != nil && named.Kind == rest.String {
		id = cmp.Or(rest.Unquote(named.Raw), id)
	}
	return c.editPolicy(id, func(cur *store.Policy, f *api.Faults) (*api.Policy, error) {
		checkPolicyID(id, func(code, format string, args ...any) { f.Add("/id", code, format, args...) })
		in := rest.Decode[api.Policy](c.schemas, c.body, f)
		if cur != nil {
			return nil, api.Conflict("exists", "there is a policy of this id already: PUT replaces it, PATCH changes it")
		}
		return in, nil
	})
}

func putPolicy(c *call) (*answer, error) {
	id := c.r.PathValue("id")
	return c.editPolicy(id, func(_ *store.Policy, f *api.Faults) (*api.Policy, error) {
		checkPolicyID(id, func(code, format string, args ...any) { f.Parameter("id", code, format, args...) })
		return rest.Decode[api.Policy](c.schemas, c.body, f), nil
	})
}

func patchPolicy(c *call) (*answer, error) {
	return c.editPolicy(c.r.PathValue("id"), func(cur *store.Policy, f *api.Faults) (*api.Policy, error) {
		if cur == nil {
			return nil, api.NotFound("policy")
		}
		view := viewPolicy(cur)
		return rest.Patch(c.schemas, &view, c.body, f)
	})
}

func deletePolicy(c *call) (*answer, error) {
	id := c.r.PathValue("id")
	ans := &answer{}
	err := c.changeRules(func(ch *store.Change, e *guard.Edit) error {
		cur, ok := c.Store.State.Policy(c.domain, id)
		if !ok {
			return api.NotFound("policy")
		}
		if err := c.match(true, cur.Rev); err != nil {
			return err
		}
		ans.body = viewPolicy(cur.Doc)
		audit(ch, "policy.delete", c.domain, id)
		ch.Audit.Note = cur.Doc.Name
		ch.Diff(cur.Doc, nil)
		e.Policies = map[string]*store.Policy{id: nil}
		var err error
		ans.pending, err = c.edit(ch, e)
		return err
	})
	return ans, err
}
