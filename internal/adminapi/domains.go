package adminapi

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

func listDomains(c *call) (*answer, error) {
	after, err := c.after()
	if err != nil {
		return nil, err
	}
	docs := c.Store.State.Domains(after, c.limit()+1)
	if c.id.role == store.RoleDomain {
		docs = docs[:0]
		if d, ok := c.Store.State.Domain(c.id.domain); ok {
			docs = append(docs, d)
		}
	}
	return listed(c, docs, func(d *store.Domain) string { return d.Name }, viewDomain)
}

func getDomain(c *call) (*answer, error) {
	d, ok := c.Store.State.Domain(c.domain)
	if !ok {
		return nil, api.NotFound("domain")
	}
	return found(d.Rev, viewDomain(d.Doc)), nil
}

func viewDomain(d *store.Domain) api.Domain {
	// On is the default: a domain says so for each, where an account leaves out what it inherits.
	protocols := access.Switches{}
	for _, p := range access.SwitchedProtocols {
		protocols[p.String()] = true
	}
	maps.Copy(protocols, d.Protocols)
	return api.Domain{
		Name: d.Name, AliasDomains: list(d.AliasDomains), Protocols: viewProtocols(protocols),
		MaxSecurePasswords: maxSecurePasswords(d), Accounts: cmp.Or(d.Accounts, "open"), SenderCheck: string(d.SenderCheck), TraceHeader: d.TraceHeader,
		Administrators: list(d.Administrators), CreatedAt: d.CreatedAt,
	}
}

// list makes a list that was never set an empty one, as JSON shows it.
func list[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

func maxSecurePasswords(d *store.Domain) int {
	if d.MaxSecurePasswords == 0 {
		return store.DefaultMaxSecurePasswords
	}
	return d.MaxSecurePasswords
}

func viewProtocols(s access.Switches) api.Protocols {
	of := func(p access.Protocol) *bool {
		if on, ok := s[p.String()]; ok {
			return &on
		}
		return nil
	}
	return api.Protocols{IMAP: of(access.IMAP), POP3: of(access.POP3), SMTP: of(access.SMTP), Sieve: of(access.Sieve)}
}

func switchesOf(p *api.Protocols) access.Switches {
	s := access.Switches{}
	for protocol, on := range map[access.Protocol]*bool{access.IMAP: p.IMAP, access.POP3: p.POP3, access.SMTP: p.SMTP, access.Sieve: p.Sieve} {
		if on != nil {
			s[protocol.String()] = *on
		}
	}
	return s
}

// apply puts what was sent over a domain. Whose its names are is judged elsewhere.
func applySettings(in *api.Domain, d *store.Domain, f *api.Faults) {
	d.AliasDomains = make([]string, 0, len(in.AliasDomains))
	for i, alias := range in.AliasDomains {
		name, err := address.ParseDomain(alias)
		switch pointer := api.At("/alias_domains", i); {
		case err != nil:
			f.Add(pointer, "invalid_domain", "%v", err)
		case name == d.Name:
			f.Add(pointer, "conflict", "is the domain's own name: leave it out")
		case slices.Contains(d.AliasDomains, name):
			f.Add(pointer, "duplicate", "is named twice: leave it out")
		default:
			d.AliasDomains = append(d.AliasDomains, name)
		}
	}
	d.Protocols = switchesOf(&in.Protocols)
	maps.DeleteFunc(d.Protocols, func(_ string, on bool) bool { return on })
	if d.MaxSecurePasswords = in.MaxSecurePasswords; d.MaxSecurePasswords == 0 {
		d.MaxSecurePasswords = store.DefaultMaxSecurePasswords
	}
	if d.Accounts = ""; in.Accounts == store.AccountsListed {
		d.Accounts = store.AccountsListed
	}
	if d.SenderCheck = mailflow.SenderCheck(in.SenderCheck); d.SenderCheck == "" {
		d.SenderCheck = mailflow.CheckBoth
	}
	d.TraceHeader = in.TraceHeader
	d.Administrators = make([]string, 0, len(in.Administrators))
	for i, a := range in.Administrators {
		addr, err := address.Parse(a, d.Name)
		if slices.Contains(d.AliasDomains, address.Domain(addr)) {
			addr = address.Local(addr) + "@" + d.Name
		}
		switch pointer := api.At("/administrators", i); {
		case err != nil:
			f.Add(pointer, "invalid_address", "%v", err)
		case address.Domain(addr) != d.Name:
			f.Add(pointer, "outside_domain", "is no address of this domain")
		case slices.Contains(d.Administrators, addr):
			f.Add(pointer, "duplicate", "is named twice: leave it out")
		default:
			d.Administrators = append(d.Administrators, addr)
		}
	}
}

func createDomain(c *call) (*answer, error) {
	var f api.Faults
	in := rest.Decode[api.NewDomain](c.schemas, c.body, &f)
	d := &store.Domain{}
	if name, err := address.ParseDomain(in.Name); err != nil {
		f.Add("/name", "invalid_domain", "%v", err)
	} else {
		d.Name = name
	}
	applySettings(&in.Domain, d, &f)
	third := in.ThirdPartyAccess
	if third == nil {
		third = &api.ThirdPartyAccess{}
	}
	checkThirdParty(third, "/third_party_access", &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	if err := c.match(c.managed(d.Name), 0); err != nil {
		return nil, err
	}
	c.names.Lock()
	defer c.names.Unlock()
	if c.managed(d.Name) {
		return nil, errManaged()
	}
	if err := c.claim(d.Name, append([]string{d.Name}, d.AliasDomains...)); err != nil {
		return nil, err
	}
	// What an interrupted deletion may have left must not come to life again, nor a key that was
	// being made meanwhile.
	if err := c.sweep(d.Name); err != nil {
		return nil, err
	}
	if err := c.revokeKeys(d.Name, func(k *store.Key) bool { return k.Domain == d.Name }); err != nil {
		return nil, err
	}
	var rev uint64
	err := c.change(store.ShardOf(d.Name), func(ch *store.Change) error {
		if c.managed(d.Name) {
			return errManaged()
		}
		d.CreatedAt, rev = ch.Now, ch.Rev
		audit(ch, "domain.create", d.Name, d.Name)
		ch.Diff(nil, d)
		ch.PutDomain(d)
		ch.PutPolicy(d.Name, managedPolicy(third, third.SecureLoginIPs, ch.Now))
		return nil
	})
	if err != nil {
		return nil, err
	}
	ans := found(rev, viewDomain(d))
	ans.location = "/v1/domains/" + url.PathEscape(d.Name)
	return ans, nil
}

func errManaged() error { return api.Conflict("exists", "the domain is managed already") }

func (c *call) managed(domain string) bool {
	_, ok := c.Store.State.Domain(domain)
	return ok
}

// claimFor is how long a claim keeps others off a name that its holder does not have yet: much
// longer than a change takes, and than daemons' clocks differ.
const claimFor = time.Minute

// claim reserves names for a domain, all or none. Domains live in different shards, so that a name
// is first claimed in the global one, where one of two daemons is first. A claim whose holder still
// does not have the name after claimFor is what an interrupted change left, and is taken over. Only
// a change that hung for that long, or clocks that differ by as much, let two domains win a name;
// all daemons then agree on the one that sorts first.
func (c *call) claim(domain string, names []string) error {
	return c.change(store.Global, func(ch *store.Change) error {
		var claimed []string
		for _, name := range names {
			of, has := c.Store.State.ResolveDomain(name)
			if has && of != domain {
				return api.Conflict("exists", "the name %s is taken: it is, or is an alias of, the managed domain %s", name, of)
			}
			claim, ok := c.Store.State.Claim(name)
			switch {
			case ok && claim.Domain == domain && has:
				continue
			case ok && claim.Domain != domain && ch.Now.Sub(claim.Time) < claimFor:
				return api.Conflict("exists", "the name %s is being given to the domain %s: try again in a minute if that does not come about", name, claim.Domain)
			}
			ch.PutClaim(name, store.Claim{Domain: domain, Time: ch.Now})
			claimed = append(claimed, name)
		}
		audit(ch, "domain.claim", domain, strings.Join(claimed, " "))
		return nil
	})
}

// release gives up names that a domain no longer has. A claim that stays behind does no harm: after
// claimFor whoever needs the name takes it over.
func (c *call) release(domain string, names []string) {
	err := c.change(store.Global, func(ch *store.Change) error {
		var released []string
		for _, name := range names {
			if claim, ok := c.Store.State.Claim(name); ok && claim.Domain == domain {
				ch.DeleteClaim(name)
				released = append(released, name)
			}
		}
		audit(ch, "domain.release", domain, strings.Join(released, " "))
		return nil
	})
	if err != nil {
		c.Log.Warn("releasing names", "domain", domain, "error", err)
	}
}

func patchDomain(c *call) (*answer, error) {
	c.names.Lock()
	defer c.names.Unlock()
	// The aliases that are wanted have to be claimed before the domain has them.
	var next *store.Domain
	var rev uint64
	var removed []string
	prepare := func() (cur store.Revised[store.Domain], err error) {
		cur, ok := c.Store.State.Domain(c.domain)
		if !ok {
			return cur, api.NotFound("domain")
		}
		if err := c.match(true, cur.Rev); err != nil {
			return cur, err
		}
		var f api.Faults
		view := viewDomain(cur.Doc)
		in, err := rest.Patch(c.schemas, &view, c.body, &f)
		if err != nil {
			return cur, err
		}
		copied := *cur.Doc
		next = &copied
		applySettings(in, next, &f)
		if name, err := address.ParseDomain(in.Name); err != nil || name != c.domain {
			f.Add("/name", "conflict", "cannot be changed: create the new domain and delete this one")
		}
		if err := f.Err(); err != nil {
			return cur, err
		}
		return cur, c.mayName(cur.Doc, next)
	}
	if _, err := prepare(); err != nil {
		return nil, err
	}
	if err := c.claim(c.domain, append([]string{c.domain}, next.AliasDomains...)); err != nil {
		return nil, err
	}
	err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		cur, err := prepare()
		if err != nil {
			return err
		}
		rev, removed = ch.Rev, givenUp(cur.Doc, next)
		if same(cur.Doc, next) {
			rev = cur.Rev
			return nil
		}
		audit(ch, "domain.update", c.domain, c.domain)
		ch.Diff(cur.Doc, next)
		ch.PutDomain(next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(removed) > 0 {
		c.release(c.domain, removed)
	}
	return found(rev, viewDomain(next)), nil
}

// mayName refuses a change of a domain's names to whoever administers the domain only.
func (c *call) mayName(cur, next *store.Domain) error {
	if c.id.role == store.RoleDomain && !slices.Equal(next.AliasDomains, list(cur.AliasDomains)) {
		return api.Forbidden("alias_domains is for administrators of the site: leave it as it is")
	}
	return nil
}

// givenUp returns the names that a domain no longer has after a change.
func givenUp(cur, next *store.Domain) []string {
	return slices.DeleteFunc(slices.Clone(cur.AliasDomains), func(alias string) bool { return slices.Contains(next.AliasDomains, alias) })
}

func deleteDomain(c *call) (*answer, error) {
	cur, ok := c.Store.State.Domain(c.domain)
	if !ok {
		return nil, api.NotFound("domain")
	}
	if err := c.match(true, cur.Rev); err != nil {
		return nil, err
	}
	if !c.dryRun && !c.flag("confirm") {
		return nil, api.Conflict("confirm_required", "deleting the domain also deletes %s and all its records: repeat with ?confirm=true", c.belongings())
	}
	c.names.Lock()
	defer c.names.Unlock()
	// Keys and aliases first: those that outlived the domain would be good for the next of that
	// name.
	err := c.revokeKeys(c.domain, func(k *store.Key) bool { return k.Domain == c.domain })
	if err != nil {
		return nil, err
	}
	if err := c.forgetAddresses(append([]string{c.domain}, cur.Doc.AliasDomains...)); err != nil {
		return nil, err
	}
	accounts := c.addresses(c.domain)
	err = c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		cur, ok = c.Store.State.Domain(c.domain)
		if !ok {
			return api.NotFound("domain")
		}
		if err := c.match(true, cur.Rev); err != nil {
			return err
		}
		audit(ch, "domain.delete", c.domain, c.domain)
		ch.Diff(cur.Doc, nil)
		ch.DeleteDomain(c.Store.State, c.domain, chunk)
		return nil
	})
	if err != nil {
		return nil, err
	}
	ans := &answer{body: viewDomain(cur.Doc)}
	if c.dryRun {
		return ans, nil
	}
	if err := c.sweep(c.domain); err != nil {
		return nil, err
	}
	c.release(c.domain, append([]string{c.domain}, cur.Doc.AliasDomains...))
	if err := c.Forget(c.ctx, c.domain, accounts); err != nil {
		c.Log.Warn("forgetting a deleted domain's records", "domain", c.domain, "error", err)
	}
	return ans, nil
}

// belongings says what is deleted with the call's domain.
func (c *call) belongings() string {
	accounts := c.Store.State.Accounts(c.domain, "", 0)
	secrets, suspended := 0, 0
	for _, a := range accounts {
		secrets += len(a.Doc.Live())
		if a.Doc.Suspended {
			suspended++
		}
	}
	return fmt.Sprintf("%s (%d suspended), %s, %s", counted(len(accounts), "account"), suspended,
		counted(secrets, "secure password"), counted(len(c.Store.State.Policies(c.domain)), "access policy"))
}

// counted puts a number before a noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func (c *call) addresses(domain string) []string {
	docs := c.Store.State.Accounts(domain, "", 0)
	names := make([]string, len(docs))
	for i, a := range docs {
		names[i] = a.Doc.Address
	}
	return names
}

// sweep removes what is left of a domain that is no longer managed, in pieces that are no burden
// for one transaction.
func (c *call) sweep(domain string) error {
	for len(c.Store.State.Accounts(domain, "", 1)) > 0 && !c.dryRun {
		err := c.change(store.ShardOf(domain), func(ch *store.Change) error {
			if c.managed(domain) {
				return nil // created anew meanwhile, which sweeps first
			}
			audit(ch, "domain.sweep", domain, domain)
			ch.DeleteDomain(c.Store.State, domain, chunk)
			return nil
		})
		if err != nil || c.managed(domain) {
			return err
		}
	}
	return nil
}

// forgetAddresses removes a deleted domain's addresses from the accounts and departments of others:
// they would be theirs again when somebody else creates the domain.
func (c *call) forgetAddresses(names []string) error {
	foreign := func(addr string) bool { return slices.Contains(names, address.Domain(addr)) }
	without := func(list []string) []string { return slices.DeleteFunc(slices.Clone(list), foreign) }
	for _, d := range c.Store.State.Domains("", 0) {
		domain := d.Doc.Name
		if domain == c.domain {
			continue
		}
		for _, a := range c.Store.State.Accounts(domain, "", 0) {
			if !slices.ContainsFunc(a.Doc.Aliases, foreign) && !slices.ContainsFunc(a.Doc.SendAs, foreign) {
				continue
			}
			err := c.change(store.ShardOf(domain), func(ch *store.Change) error {
				cur, ok := c.Store.State.Account(a.Doc.Address)
				if !ok {
					return nil
				}
				next := *cur.Doc
				next.Aliases, next.SendAs = without(next.Aliases), without(next.SendAs)
				audit(ch, "account.update", domain, next.Address)
				ch.Diff(cur.Doc, &next)
				ch.PutAccount(&next)
				return nil
			})
			if err != nil {
				return err
			}
		}
		for _, department := range c.Store.State.Departments(domain) {
			if !slices.ContainsFunc(department.Doc.SendAs, foreign) {
				continue
			}
			err := c.change(store.ShardOf(domain), func(ch *store.Change) error {
				cur, ok := c.Store.State.Department(domain, department.Doc.Path)
				if !ok {
					return nil
				}
				next := *cur.Doc
				next.SendAs = without(next.SendAs)
				audit(ch, "department.update", domain, next.Path)
				ch.Diff(cur.Doc, &next)
				ch.PutDepartment(domain, &next)
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// The simple switch (F1, F2) is a view of one managed policy.

func getThirdParty(c *call) (*answer, error) {
	view, rev := c.thirdParty()
	return found(rev, view), nil
}

func (c *call) thirdParty() (view api.ThirdPartyAccess, rev uint64) {
	p, ok := c.Store.State.Policy(c.domain, store.ManagedThirdParty)
	if !ok { // deleted: nothing blocks any more
		return api.ThirdPartyAccess{Allow: true, Mode: string(access.Enforce), SecureLoginIPs: []string{}}, 0
	}
	return viewThirdParty(p.Doc), p.Rev
}

// viewThirdParty shows the managed policy as the simple switch.
func viewThirdParty(p *store.Policy) api.ThirdPartyAccess {
	view := api.ThirdPartyAccess{Allow: !p.Enabled, Mode: string(p.Mode), SecureLoginIPs: list(p.ExceptIPs)}
	view.Customised = !same(normal(p), normal(managedPolicy(&view, view.SecureLoginIPs, p.CreatedAt)))
	return view
}

// normal spells lists that are empty and lists that were never set alike.
func normal(p *store.Policy) *store.Policy {
	n := *p
	n.IPs, n.Regions, n.ExceptIPs, n.Clients, n.Protocols = list(n.IPs), list(n.Regions), list(n.ExceptIPs), list(n.Clients), list(n.Protocols)
	return &n
}

func checkThirdParty(t *api.ThirdPartyAccess, pointer string, f *api.Faults) {
	checkNetworks(t.SecureLoginIPs, pointer+"/secure_login_ips", f)
}

func checkNetworks(entries []string, pointer string, f *api.Faults) {
	_, bad := address.ParseNetworks(entries)
	for _, fault := range bad {
		f.Add(api.At(pointer, fault.Index), "invalid_network", "%v", fault.Err)
	}
}

func putThirdParty(c *call) (*answer, error) {
	var f api.Faults
	in := rest.Decode[api.ThirdPartyAccess](c.schemas, c.body, &f)
	checkThirdParty(in, "", &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	var rev uint64
	var next *store.Policy
	var pending *api.PendingRevert
	err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		if !c.managed(c.domain) {
			return api.NotFound("domain")
		}
		cur, _ := c.Store.State.Policy(c.domain, store.ManagedThirdParty)
		if err := c.match(true, cur.Rev); err != nil {
			return err
		}
		var before *store.Policy
		before, next = c.switched(in, ch.Now)
		pending = nil
		if rev = ch.Rev; before != nil && same(before, next) {
			rev = cur.Rev
			return nil
		}
		audit(ch, "third_party_access.update", c.domain, c.domain)
		ch.Diff(before, next)
		// The simple switch is never guarded: to keep mail programs out is what it is for.
		var err error
		pending, err = c.edit(ch, &guard.Edit{Policies: map[string]*store.Policy{next.ID: next}})
		return err
	})
	if err != nil {
		return nil, err
	}
	ans := found(rev, api.ThirdPartyAccess{Allow: in.Allow, Mode: modeOf(in), SecureLoginIPs: list(next.ExceptIPs)})
	ans.pending = pending
	return ans, nil
}

// switched returns the managed policy as it is, nil for none, and as the simple switch wants it. A
// list that is left out rests, and is kept.
func (c *call) switched(t *api.ThirdPartyAccess, now time.Time) (before, next *store.Policy) {
	created, ips := now, t.SecureLoginIPs
	if cur, exists := c.Store.State.Policy(c.domain, store.ManagedThirdParty); exists {
		before, created = cur.Doc, cur.Doc.CreatedAt
		if ips == nil {
			ips = cur.Doc.ExceptIPs
		}
	}
	return before, managedPolicy(t, ips, created)
}

func modeOf(t *api.ThirdPartyAccess) string {
	if t.Mode == "" {
		return string(access.Enforce)
	}
	return t.Mode
}

func getSecurePolicy(c *call) (*answer, error) {
	d, ok := c.Store.State.Domain(c.domain)
	if !ok {
		return nil, api.NotFound("domain")
	}
	return found(d.Rev, viewSecurePolicy(&d.Doc.SecurePasswords)), nil
}

func viewSecurePolicy(p *store.SecurePasswordPolicy) api.SecurePasswordPolicy {
	return api.SecurePasswordPolicy{Enforced: p.Enforced, Scope: viewScope(&p.Scope)}
}

func putSecurePolicy(c *call) (*answer, error) {
	var next store.Domain
	var rev uint64
	err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		cur, ok := c.Store.State.Domain(c.domain)
		if !ok {
			return api.NotFound("domain")
		}
		if err := c.match(true, cur.Rev); err != nil {
			return err
		}
		var f api.Faults
		next = *cur.Doc
		next.SecurePasswords = c.readSecurePolicy(rest.Decode[api.SecurePasswordPolicy](c.schemas, c.body, &f), &f)
		if err := f.Err(); err != nil {
			return err
		}
		if rev = ch.Rev; same(cur.Doc, &next) {
			rev = cur.Rev
			return nil
		}
		audit(ch, "secure_password_policy.update", c.domain, c.domain)
		ch.Diff(&cur.Doc.SecurePasswords, &next.SecurePasswords)
		ch.PutDomain(&next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found(rev, viewSecurePolicy(&next.SecurePasswords)), nil
}

// readSecurePolicy reads whom secure passwords are enforced for, as it was sent.
func (c *call) readSecurePolicy(in *api.SecurePasswordPolicy, f *api.Faults) store.SecurePasswordPolicy {
	p := store.SecurePasswordPolicy{Enforced: in.Enforced, Scope: access.Scope{All: true}}
	if in.Scope != nil {
		p.Scope = c.scope(in.Scope, "/scope", f)
	}
	if in.Enforced && in.Scope != nil && emptyScope(in.Scope) {
		f.Add("/scope", "required", `names nobody: say "all":true, or name departments or members; or set enforced to false`)
	}
	return p
}

// managedPolicy is the policy that the simple switch maintains.
func managedPolicy(t *api.ThirdPartyAccess, except []string, created time.Time) *store.Policy {
	return &store.Policy{CreatedAt: created, Policy: access.Policy{
		ID: store.ManagedThirdParty, Name: store.ManagedThirdPartyName, Managed: store.ManagedThirdParty,
		Type: access.Blacklist, Enabled: !t.Allow, Mode: access.PolicyMode(modeOf(t)), Scope: access.Scope{All: true},
		IPs: []string{}, Regions: []string{}, ExceptIPs: list(except),
		Clients: []access.ClientType{access.ClientThirdParty, access.ClientCloudFetcher}, Protocols: []string{},
	}}
}
