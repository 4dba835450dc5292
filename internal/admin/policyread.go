package admin

import (
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// everywhere is all addresses.
func everywhere() []string { return []string{"0.0.0.0/0", "::/0"} }

// ReadPolicy validates a policy, which is at a pointer of the request. cur is the one that it
// replaces, nil for none: its regions and client types are kept even if they are unknown by now.
func (d *Domain) ReadPolicy(in *api.Policy, id string, cur *store.Policy, pointer string, f *api.Faults) *store.Policy {
	p := &store.Policy{Policy: access.Policy{
		ID: id, Name: in.Name, Type: access.PolicyType(in.Type), Enabled: in.Enabled == nil || *in.Enabled,
		Mode: access.PolicyMode(in.Mode), IPs: list(in.IPs), ExceptIPs: list(in.ExceptIPs),
		Clients: []access.ClientType{}, Protocols: []string{},
	}}
	if id == store.ManagedThirdParty {
		p.Managed = id
	}
	var regions []string
	known := d.clientTypes()
	if cur != nil {
		p.CreatedAt, regions = cur.CreatedAt, cur.Regions
		known = append(known, cur.Clients...)
	}
	p.Regions = d.policyRegions(in.Regions, regions, pointer+"/regions", f)
	if p.Mode == "" {
		p.Mode = access.Enforce
	}
	d.checkPolicyName(p, pointer+"/name", f)
	if in.Scope == nil {
		f.Add(pointer+"/scope", "required", `is needed: say {"all":true}, or name departments or members`)
	} else {
		p.Scope = d.ReadScope(in.Scope, pointer+"/scope", f)
		CheckNobody(&p.Scope, pointer+"/scope", f)
	}
	checkPolicyPlace(p, pointer, f)
	for i, name := range in.Clients {
		client := access.ClientType(name)
		switch {
		case !slices.Contains(known, client):
			f.Add(api.At(pointer+"/clients", i), "unknown_client_type", "there is no such client type%s", api.Suggest(name, texts(known)))
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

func (d *Domain) checkPolicyName(p *store.Policy, pointer string, f *api.Faults) {
	if p.Name == "" {
		f.Add(pointer, "required", "is needed: people identify policies by it")
	}
	CheckText(p.Name, pointer, f)
	if d.policyNamed(p.Name, p.ID) {
		f.Add(pointer, "duplicate", "is the name of another policy of the domain, or of one with a pending revert: choose another")
	}
}

// policyNamed reports whether a policy other than the one of an id has a name, or will have it
// again once a change is reverted.
func (d *Domain) policyNamed(name, id string) bool {
	if other := d.policyOf(name); other != "" && other != id {
		return true
	}
	if d.planned.policies != nil { // includes those that would return
		return false
	}
	return slices.ContainsFunc(d.Store.State.Reverts(d.name), func(r store.Revised[store.Revert]) bool {
		for other, before := range r.Doc.Policies {
			if before != nil && other != id && FoldName(before.Name) == FoldName(name) {
				return true
			}
		}
		return false
	})
}

// policyOf returns the id of the policy of a name; "" for none. The name of the managed policy is
// reserved for it: the simple switch creates it again.
func (d *Domain) policyOf(name string) string {
	name = FoldName(name)
	if name == FoldName(store.ManagedThirdPartyName) {
		return store.ManagedThirdParty
	}
	if d.planned.policies != nil {
		return d.planned.policies[name]
	}
	for _, p := range d.Store.State.Policies(d.name) {
		if FoldName(p.Doc.Name) == name {
			return p.Doc.ID
		}
	}
	return ""
}

// FoldName makes names equal that differ in case only.
func FoldName(name string) string { return strings.ToLower(strings.ToUpper(name)) }

// checkPolicyPlace validates where a policy matches. That it never matches is reported only if its
// lists are valid.
func checkPolicyPlace(p *store.Policy, pointer string, f *api.Faults) {
	before := len(f.List)
	checkNetworks(p.IPs, pointer+"/ips", f)
	checkNetworks(p.ExceptIPs, pointer+"/except_ips", f)
	if p.Type == access.Whitelist && len(p.IPs)+len(p.Regions) == 0 && !f.Within(pointer+"/ips") && !f.Within(pointer+"/regions") {
		f.Add(pointer+"/ips", "required", "is needed, or regions: a whitelist permits logins from its addresses and regions, and refuses all others")
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
