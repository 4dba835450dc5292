package admin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Results of a migration for one policy; the second is also that of a batch for one account.
const (
	resultCreated = "created"
	resultChanged = "changed"
	resultKept    = "kept"
)

// migrated is a policy that corresponds to earlier settings. cur is the stored policy of its id,
// nil for none.
type migrated struct {
	cur, next *store.Policy
	result    string
	warnings  []api.Warning
}

// MigratePolicies creates the policies that correspond to earlier settings. Their ids are derived
// from the settings, so that it can be repeated. decode returns the request's value.
func (d *Domain) MigratePolicies(ctx context.Context, decode func(*api.Faults) *api.Migration) (*Result[api.Migrated], error) {
	res := &Result[api.Migrated]{}
	err := d.changeRules(ctx, func(ch *store.Change, e *guard.Edit) error {
		var f api.Faults
		in := decode(&f)
		policies := d.migratedBlacklists(in, ch, &f)
		if third := d.migratedSwitch(in, ch, &f); third != nil {
			policies = slices.Insert(policies, 0, *third)
		}
		if err := f.Err(); err != nil {
			return err
		}
		*res = Result[api.Migrated]{View: api.Migrated{Policies: make([]api.MigratedPolicy, len(policies))}}
		out := &res.View
		e.Policies = map[string]*store.Policy{}
		pending := guard.Pending(d.Store.State, d.name)
		for i, m := range policies {
			view := ViewPolicy(m.next)
			view.Warnings = append(d.PolicyWarnings(ctx, m.next), m.warnings...)
			view.Pending = pending[m.next.ID]
			out.Policies[i] = api.MigratedPolicy{Policy: view, Result: m.result}
			switch m.result {
			case resultKept:
				continue
			case resultCreated:
				out.Created++
			case resultChanged:
				out.Changed++
			}
			ch.DiffOf(m.next.ID, m.cur, m.next)
			e.Policies[m.next.ID] = m.next
		}
		if len(e.Policies) == 0 {
			return nil
		}
		returning := 0
		for id := range guard.Returning(d.Store.State, d.name).Policies {
			if _, edited := e.Policies[id]; !edited {
				returning++
			}
		}
		if len(d.Store.State.Policies(d.name))+returning+out.Created > MaxPolicies {
			return tooManyPolicies()
		}
		Describe(ch, "policy.migrate", d.name, d.name)
		var err error
		res.Pending, err = d.ApplyRules(ch, e)
		for i := range out.Policies {
			if out.Policies[i].Result != resultKept {
				out.Policies[i].Pending = res.Pending
			}
		}
		return err
	})
	return res, err
}

// migratedSwitch is the managed policy that corresponds to the earlier switch for third-party
// clients; nil if the settings do not contain it.
func (d *Domain) migratedSwitch(in *api.Migration, ch *store.Change, f *api.Faults) *migrated {
	checkNetworks(in.SecureLoginIPs, "/secure_login_ips", f)
	if in.ThirdPartyAllowed == nil {
		if in.SecureLoginIPs != nil {
			f.Add("/third_party_allowed", "required", "is needed with secure_login_ips, which are exempt from that block: say false, or leave both out")
		}
		return nil
	}
	third := &api.ThirdPartyAccess{Allow: *in.ThirdPartyAllowed, SecureLoginIPs: in.SecureLoginIPs}
	m := &migrated{}
	m.cur, m.next = d.switched(third, ch.Now)
	switch {
	case m.cur == nil:
		m.result = resultCreated
	case Same(normalPolicy(m.cur), m.next):
		m.result = resultKept
	default:
		m.result = resultChanged
	}
	return m
}

// migratedBlacklists are the blacklists for own clients that were not allowed. A stored policy of
// the same id is kept as it is.
func (d *Domain) migratedBlacklists(in *api.Migration, ch *store.Change, f *api.Faults) []migrated {
	var policies []migrated
	allowed := make(map[string]bool, len(in.NativeClients)) // by policy id
	somewhere := map[access.ClientType]bool{}               // allowed for some scope
	for i := range in.NativeClients {
		n := &in.NativeClients[i]
		pointer := api.At("/native_clients", i)
		client := access.ClientType(n.Client)
		known := d.clientTypes()
		switch {
		case n.Client == "": // reported by the schema
		case client == access.ClientThirdParty || client == access.ClientCloudFetcher:
			f.Add(pointer+"/client", "conflict", "is not one of the site's own clients: use third_party_allowed")
		case !slices.Contains(known, client):
			own := slices.DeleteFunc(known, func(t access.ClientType) bool { return !t.Own() })
			f.Add(pointer+"/client", "unknown_client_type", "there is no such client type%s", api.Suggest(n.Client, texts(own)))
		}
		scope := access.Scope{All: true}
		if n.Scope != nil {
			scope = canonicalScope(d.ReadScope(n.Scope, pointer+"/scope", f))
			CheckNobody(&scope, pointer+"/scope", f)
		}
		id := migratedID(client, &scope)
		if was, twice := allowed[id]; twice {
			if was != n.Allowed {
				f.Add(pointer+"/allowed", "conflict", "contradicts an earlier entry for the same client and scope: leave one of them out")
			}
			continue
		}
		if allowed[id] = n.Allowed; n.Allowed {
			somewhere[client] = true
			continue
		}
		policies = append(policies, d.migratedBlacklist(id, client, scope, policies, ch))
	}
	for i := range policies {
		m := &policies[i]
		if client := m.next.Clients; len(client) == 1 && somewhere[client[0]] {
			m.warnings = append(m.warnings, api.Warning{
				Code: "refused_and_allowed", Detail: "The settings allow this client for others. Accounts in both scopes are refused; if that is not intended, put them into scope.except.",
			})
		}
	}
	return policies
}

// migratedBlacklist is the blacklist that refuses an own client to a scope.
func (d *Domain) migratedBlacklist(id string, client access.ClientType, scope access.Scope, beside []migrated, ch *store.Change) migrated {
	next := &store.Policy{CreatedAt: ch.Now, Policy: access.Policy{
		ID: id, Type: access.Blacklist, Enabled: true, Mode: access.Enforce, Scope: scope,
		IPs: []string{}, Regions: []string{}, ExceptIPs: []string{}, Clients: []access.ClientType{client}, Protocols: []string{},
	}}
	if cur, ok := d.Store.State.Policy(d.name, id); ok {
		m := migrated{cur: cur.Doc, next: normalPolicy(cur.Doc), result: resultKept}
		next.Name, next.CreatedAt = m.next.Name, m.next.CreatedAt
		if !Same(m.next, next) {
			m.warnings = []api.Warning{{Code: "changed_since", Detail: "The stored policy of this id differs from the settings. It was kept as it is."}}
		}
		return m
	}
	next.Name = d.freeName(migratedName(client, &scope), beside)
	return migrated{next: next, result: resultCreated}
}

// migratedID is the id of the blacklist for a client and a scope: with a hash of the scope, unless
// it is everybody.
func migratedID(client access.ClientType, scope *access.Scope) string {
	id := "migrated-" + string(client)
	if Same(scope, access.Scope{All: true}) {
		return id
	}
	text, _ := json.Marshal(scope) // texts and flags: never fails
	sum := sha256.Sum256(text)
	return id + "-" + hex.EncodeToString(sum[:4])
}

// canonicalScope makes scopes equal that select the same in another order.
func canonicalScope(s access.Scope) access.Scope {
	if s.All {
		s.Departments, s.Members = nil, nil
	}
	for _, departments := range []*[]access.ScopeDepartment{&s.Departments, &s.Except.Departments} {
		slices.SortFunc(*departments, func(a, b access.ScopeDepartment) int {
			return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(fmt.Sprint(a.Sub), fmt.Sprint(b.Sub)))
		})
		*departments = slices.Compact(*departments)
	}
	slices.Sort(s.Members)
	slices.Sort(s.Except.Members)
	return s
}

func migratedName(client access.ClientType, scope *access.Scope) string {
	name := fmt.Sprintf("Migrated: %s is not allowed", client)
	if !scope.All {
		name += " for some"
	}
	return name
}

// freeName returns the name, numbered if another policy has it.
func (d *Domain) freeName(name string, beside []migrated) string {
	taken := map[string]bool{}
	for _, m := range beside {
		taken[FoldName(m.next.Name)] = true
	}
	free := name
	for n := 2; taken[FoldName(free)] || d.policyNamed(free, ""); n++ {
		free = fmt.Sprintf("%s (%d)", name, n)
	}
	return free
}
