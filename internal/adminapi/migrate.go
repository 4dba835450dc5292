package adminapi

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// What became of a policy that former settings stand for.
const (
	resultCreated = "created"
	resultChanged = "changed"
	resultKept    = "kept"
)

// migration is one policy that former settings stand for. cur is the one of its id that is there,
// nil for none.
type migration struct {
	cur, next *store.Policy
	result    string
	warnings  []api.Warning
}

// migratePolicies creates the policies that correspond to earlier settings. Ids are derived from
// the settings, so that a second call finds what the first one made, whatever the order of the
// entries.
func migratePolicies(c *call) (*answer, error) {
	var out api.Migrated
	var made *api.PendingRevert
	err := c.changeRules(func(ch *store.Change, e *guard.Edit) error {
		var f api.Faults
		in := rest.Decode[api.Migration](c.schemas, c.body, &f)
		list := c.restrictions(in, ch, &f)
		if third := c.formerSwitch(in, ch, &f); third != nil {
			list = slices.Insert(list, 0, *third)
		}
		if err := f.Err(); err != nil {
			return err
		}
		out = api.Migrated{Policies: make([]api.MigratedPolicy, len(list))}
		e.Policies = map[string]*store.Policy{}
		pending := guard.Pending(c.Store.State, c.domain)
		for i, m := range list {
			view := viewPolicy(m.next)
			view.Warnings = append(c.policyWarnings(m.next), m.warnings...)
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
		if made = nil; len(e.Policies) == 0 {
			return nil
		}
		returning := 0
		for id := range guard.Returning(c.Store.State, c.domain).Policies {
			if _, edited := e.Policies[id]; !edited {
				returning++
			}
		}
		if len(c.Store.State.Policies(c.domain))+returning+out.Created > maxPolicies {
			return tooManyPolicies()
		}
		audit(ch, "policy.migrate", c.domain, c.domain)
		var err error
		made, err = c.edit(ch, e)
		for i := range out.Policies {
			if out.Policies[i].Result != resultKept {
				out.Policies[i].Pending = made
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &answer{body: out, pending: made}, nil
}

// formerSwitch is the managed policy as the former switch had it; nil when the settings leave it
// alone.
func (c *call) formerSwitch(in *api.Migration, ch *store.Change, f *api.Faults) *migration {
	checkNetworks(in.SecureLoginIPs, "/secure_login_ips", f)
	if in.ThirdPartyAllowed == nil {
		if in.SecureLoginIPs != nil {
			f.Add("/third_party_allowed", "required", "is needed with secure_login_ips, which are exempt from that block: say false, or leave both out")
		}
		return nil
	}
	third := &api.ThirdPartyAccess{Allow: *in.ThirdPartyAllowed, SecureLoginIPs: in.SecureLoginIPs}
	m := &migration{}
	m.cur, m.next = c.switched(third, ch.Now)
	switch {
	case m.cur == nil:
		m.result = resultCreated
	case same(normal(m.cur), m.next):
		m.result = resultKept
	default:
		m.result = resultChanged
	}
	return m
}

// restrictions are the blacklists for own clients that were not allowed. One that is there is left
// as the administrator has it by now.
func (c *call) restrictions(in *api.Migration, ch *store.Change, f *api.Faults) []migration {
	var list []migration
	allowed := make(map[string]bool, len(in.NativeClients)) // by policy id
	somewhere := map[access.ClientType]bool{}               // allowed for some scope
	for i := range in.NativeClients {
		n := &in.NativeClients[i]
		pointer := api.At("/native_clients", i)
		client := access.ClientType(n.Client)
		known := c.clientTypes()
		switch {
		case n.Client == "": // told already
		case client == access.ClientThirdParty || client == access.ClientCloudFetcher:
			f.Add(pointer+"/client", "conflict", "is none of the site's own clients: use third_party_allowed")
		case !slices.Contains(known, client):
			f.Add(pointer+"/client", "unknown_client_type", "there is no such client type%s", rest.Suggest(n.Client, texts(slices.DeleteFunc(known, notOwn))))
		}
		scope := access.Scope{All: true}
		if n.Scope != nil {
			scope = canonical(c.scope(n.Scope, pointer+"/scope", f))
			checkNobody(&scope, pointer+"/scope", f)
		}
		id := restrictionID(client, &scope)
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
		list = append(list, c.restriction(id, client, scope, list, ch))
	}
	for i := range list {
		m := &list[i]
		if client := m.next.Clients; len(client) == 1 && somewhere[client[0]] {
			m.warnings = append(m.warnings, api.Warning{
				Code: "refused_and_allowed", Detail: "The settings allow this client for others. Whoever is in both scopes is refused; if that is not meant, put them into scope.except.",
			})
		}
	}
	return list
}

func notOwn(t access.ClientType) bool { return !t.Own() }

// restriction is the blacklist that refuses an own client to a scope.
func (c *call) restriction(id string, client access.ClientType, scope access.Scope, beside []migration, ch *store.Change) migration {
	next := &store.Policy{CreatedAt: ch.Now, Policy: access.Policy{
		ID: id, Type: access.Blacklist, Enabled: true, Mode: access.Enforce, Scope: scope,
		IPs: []string{}, Regions: []string{}, ExceptIPs: []string{}, Clients: []access.ClientType{client}, Protocols: []string{},
	}}
	if cur, ok := c.Store.State.Policy(c.domain, id); ok {
		m := migration{cur: cur.Doc, next: normal(cur.Doc), result: resultKept}
		next.Name, next.CreatedAt = m.next.Name, m.next.CreatedAt
		if !same(m.next, next) {
			m.warnings = []api.Warning{{Code: "changed_since", Detail: "A policy of this id is there and is not, or no more, what the settings say. It was left as it is."}}
		}
		return m
	}
	next.Name = c.freeName(restrictionName(client, &scope), beside)
	return migration{next: next, result: resultCreated}
}

// restrictionID names the blacklist for a client and a scope: the client alone when it is
// everybody, else with what tells the scope from others.
func restrictionID(client access.ClientType, scope *access.Scope) string {
	id := "migrated-" + string(client)
	if same(scope, access.Scope{All: true}) {
		return id
	}
	text, _ := json.Marshal(scope) // texts and flags: never fails
	sum := sha256.Sum256(text)
	return id + "-" + hex.EncodeToString(sum[:4])
}

// canonical spells scopes alike that name the same in another order.
func canonical(s access.Scope) access.Scope {
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

func restrictionName(client access.ClientType, scope *access.Scope) string {
	name := fmt.Sprintf("Migrated: %s is not allowed", client)
	if !scope.All {
		name += " for some"
	}
	return name
}

// freeName returns the name, numbered when another policy has it.
func (c *call) freeName(name string, beside []migration) string {
	taken := map[string]bool{}
	for _, m := range beside {
		taken[foldName(m.next.Name)] = true
	}
	free := name
	for n := 2; taken[foldName(free)] || c.policyNamed(free, ""); n++ {
		free = fmt.Sprintf("%s (%d)", name, n)
	}
	return free
}
