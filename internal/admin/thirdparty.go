package admin

import (
	"cmp"
	"context"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// The simple switch for third-party clients (F1, F2) is a view of one managed policy.

// ThirdPartyAccess returns the simple switch for third-party clients. If its policy was deleted,
// nothing blocks them: they are allowed.
func (d *Domain) ThirdPartyAccess() (*Result[api.ThirdPartyAccess], error) {
	p, ok := d.Store.State.Policy(d.name, store.ManagedThirdParty)
	if !ok { // deleted: nothing blocks any more
		return &Result[api.ThirdPartyAccess]{View: api.ThirdPartyAccess{Allow: true, Mode: string(access.Enforce), SecureLoginIPs: []string{}}}, nil
	}
	return &Result[api.ThirdPartyAccess]{View: viewThirdParty(p.Doc), Rev: p.Rev}, nil
}

// viewThirdParty shows the managed policy as the simple switch.
func viewThirdParty(p *store.Policy) api.ThirdPartyAccess {
	view := api.ThirdPartyAccess{Allow: !p.Enabled, Mode: string(p.Mode), SecureLoginIPs: list(p.ExceptIPs)}
	view.Customised = !Same(normalPolicy(p), normalPolicy(managedPolicy(&view, view.SecureLoginIPs, p.CreatedAt)))
	return view
}

// exempt reports whether a policy is as the simple switch makes it. The lock-out guard ignores
// such: to block mail programs is their purpose.
func exempt(p *store.Policy) bool { return !viewThirdParty(p).Customised }

func checkThirdParty(t *api.ThirdPartyAccess, pointer string, f *api.Faults) {
	checkNetworks(t.SecureLoginIPs, pointer+"/secure_login_ips", f)
}

// PutThirdPartyAccess blocks or allows third-party clients by the managed policy. A missing list of
// addresses keeps the present one. The guard does not refuse it.
func (d *Domain) PutThirdPartyAccess(ctx context.Context, in *api.ThirdPartyAccess, f *api.Faults) (*Result[api.ThirdPartyAccess], error) {
	checkThirdParty(in, "", f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	res := &Result[api.ThirdPartyAccess]{}
	err := d.Change(ctx, func(ch *store.Change) error {
		cur, _ := d.Store.State.Policy(d.name, store.ManagedThirdParty)
		if err := d.Match(true, cur.Rev); err != nil {
			return err
		}
		before, next := d.switched(in, ch.Now)
		res.View = api.ThirdPartyAccess{Allow: in.Allow, Mode: string(next.Mode), SecureLoginIPs: list(next.ExceptIPs)}
		res.Rev, res.Pending = ch.Rev, nil
		if before != nil && Same(before, next) {
			res.Rev = cur.Rev
			return nil
		}
		Describe(ch, "third_party_access.update", d.name, d.name)
		ch.Diff(before, next)
		var err error
		res.Pending, err = d.ApplyRules(ch, &guard.Edit{Policies: map[string]*store.Policy{next.ID: next}}) // protects nobody, as exempt
		return err
	})
	return res, err
}

// switched returns the managed policy as it is, nil for none, and as the simple switch makes it. A
// missing list keeps the present one.
func (d *Domain) switched(t *api.ThirdPartyAccess, now time.Time) (before, next *store.Policy) {
	created, ips := now, t.SecureLoginIPs
	if cur, exists := d.Store.State.Policy(d.name, store.ManagedThirdParty); exists {
		before, created = cur.Doc, cur.Doc.CreatedAt
		if ips == nil {
			ips = cur.Doc.ExceptIPs
		}
	}
	return before, managedPolicy(t, ips, created)
}

// managedPolicy is the policy that the simple switch maintains.
func managedPolicy(t *api.ThirdPartyAccess, except []string, created time.Time) *store.Policy {
	return &store.Policy{CreatedAt: created, Policy: access.Policy{
		ID: store.ManagedThirdParty, Name: store.ManagedThirdPartyName, Managed: store.ManagedThirdParty,
		Type: access.Blacklist, Enabled: !t.Allow, Mode: access.PolicyMode(cmp.Or(t.Mode, string(access.Enforce))), Scope: access.Scope{All: true},
		IPs: []string{}, Regions: []string{}, ExceptIPs: list(except),
		Clients: []access.ClientType{access.ClientThirdParty, access.ClientCloudFetcher}, Protocols: []string{},
	}}
}
