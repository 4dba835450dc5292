package admin

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// ViewDomain shows the settings of a domain. Protocols are on by default, and all are shown.
func ViewDomain(d *store.Domain) api.Domain {
	protocols := access.Switches{}
	for _, p := range access.SwitchedProtocols {
		protocols[p.String()] = true
	}
	maps.Copy(protocols, d.Protocols)
	return api.Domain{
		Name: d.Name, AliasDomains: list(d.AliasDomains), Protocols: viewProtocols(protocols),
		MaxSecurePasswords: maxSecurePasswords(d), Accounts: cmp.Or(d.Accounts, "open"), SenderCheck: string(d.SenderCheck), TraceHeader: d.TraceHeader,
		Administrators: list(d.Administrators), PasswordPolicy: viewPasswordPolicy(d.Passwords), SecondFactor: viewSecondFactor(d.SecondFactor),
		Records: viewRecordPolicy(d.Records), Inspection: viewInspectionPolicy(d.Inspection), MailboxPasswords: cmp.Or(string(d.MailboxPasswords), passwordsOfSite), CreatedAt: d.CreatedAt,
	}
}

// passwordsOfSite is how the API writes [store.PasswordsOfSite].
const passwordsOfSite = "site"

func maxSecurePasswords(d *store.Domain) int {
	return cmp.Or(d.MaxSecurePasswords, store.DefaultMaxSecurePasswords)
}

// Domains returns one page of the managed domains that the caller reaches, by name.
func (r *Request) Domains(p Page) (*api.List[api.Domain], error) {
	if err := r.Caller.May(ForRead | ForDomain); err != nil {
		return nil, err
	}
	after, err := p.after()
	if err != nil {
		return nil, err
	}
	docs := r.Store.State.Domains(after, p.limit()+1)
	if r.Caller.Role == store.RoleDomain {
		docs = docs[:0]
		if d, ok := r.Store.State.Domain(r.Caller.Domain); ok {
			docs = append(docs, d)
		}
	}
	return PageOf(p, docs, func(d *store.Domain) string { return d.Name }, ViewDomain)
}

// Settings returns the settings of the domain.
func (d *Domain) Settings() (*Result[api.Domain], error) {
	cur, ok := d.Store.State.Domain(d.name)
	if !ok {
		return nil, api.NotFound("domain")
	}
	return &Result[api.Domain]{View: ViewDomain(cur.Doc), Rev: cur.Rev}, nil
}

// ReadSettings validates the settings of a domain and writes them into next. Who owns its names is
// checked when they are claimed.
func ReadSettings(in *api.Domain, next *store.Domain, f *api.Faults) {
	next.AliasDomains = make([]string, 0, len(in.AliasDomains))
	for i, alias := range in.AliasDomains {
		name, err := address.ParseDomain(alias)
		switch pointer := api.At("/alias_domains", i); {
		case err != nil:
			f.Add(pointer, "invalid_domain", "%v", err)
		case name == next.Name:
			f.Add(pointer, "conflict", "is the domain's own name: leave it out")
		case slices.Contains(next.AliasDomains, name):
			f.Add(pointer, "duplicate", "is named twice: leave it out")
		default:
			next.AliasDomains = append(next.AliasDomains, name)
		}
	}
	next.Protocols = switchesOf(&in.Protocols)
	maps.DeleteFunc(next.Protocols, func(_ string, on bool) bool { return on })
	next.MaxSecurePasswords = cmp.Or(in.MaxSecurePasswords, store.DefaultMaxSecurePasswords)
	if next.Accounts = ""; in.Accounts == store.AccountsListed {
		next.Accounts = store.AccountsListed
	}
	next.SenderCheck = cmp.Or(store.SenderCheck(in.SenderCheck), store.DefaultSenderCheck)
	next.TraceHeader = in.TraceHeader
	if next.MailboxPasswords = store.PasswordPlace(in.MailboxPasswords); in.MailboxPasswords == passwordsOfSite {
		next.MailboxPasswords = store.PasswordsOfSite
	}
	next.Passwords = readPasswordPolicy(in.PasswordPolicy, f)
	next.Records = readRecordPolicy(in.Records, f)
	next.Inspection = readInspectionPolicy(in.Inspection, f)
	next.Administrators = make([]string, 0, len(in.Administrators))
	for i, a := range in.Administrators {
		addr, err := address.Parse(a, next.Name)
		if slices.Contains(next.AliasDomains, address.Domain(addr)) {
			addr = address.Local(addr) + "@" + next.Name
		}
		switch pointer := api.At("/administrators", i); {
		case err != nil:
			f.Add(pointer, "invalid_address", "%v", err)
		case address.Domain(addr) != next.Name:
			f.Add(pointer, "outside_domain", "is not an address of this domain")
		case slices.Contains(next.Administrators, addr):
			f.Add(pointer, "duplicate", "is named twice: leave it out")
		default:
			next.Administrators = append(next.Administrators, addr)
		}
	}
}

// CreateDomain adds a domain. By default it blocks third-party clients.
func (r *Request) CreateDomain(ctx context.Context, in *api.NewDomain, f *api.Faults) (*Result[api.Domain], error) {
	if err := r.Caller.May(ForAdmin); err != nil {
		return nil, err
	}
	next := &store.Domain{}
	if name, err := address.ParseDomain(in.Name); err != nil {
		f.Add("/name", "invalid_domain", "%v", err)
	} else {
		next.Name = name
	}
	ReadSettings(&in.Domain, next, f)
	next.SecondFactor = (&Domain{Request: r, name: next.Name}).ReadSecondFactor(in.SecondFactor, f)
	third := in.ThirdPartyAccess
	if third == nil {
		third = &api.ThirdPartyAccess{}
	}
	checkThirdParty(third, "/third_party_access", f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	if err := r.Match(r.managed(next.Name), 0); err != nil {
		return nil, err
	}
	r.names.Lock()
	defer r.names.Unlock()
	if r.managed(next.Name) {
		return nil, errManaged()
	}
	if err := r.claim(ctx, ForAdmin, next.Name, next.AliasDomains); err != nil {
		return nil, err
	}
	// Neither accounts that an interrupted deletion left, nor keys that were created meanwhile, may
	// become valid again.
	if err := r.sweep(ctx, next.Name); err != nil {
		return nil, err
	}
	if err := r.revokeKeys(ctx, next.Name, func(k *store.Key) bool { return k.Domain == next.Name }); err != nil {
		return nil, err
	}
	res := &Result[api.Domain]{Created: true}
	err := r.change(ctx, ForAdmin, store.ShardOf(next.Name), func(ch *store.Change) error {
		if r.managed(next.Name) {
			return errManaged()
		}
		next.CreatedAt, res.Rev = ch.Now, ch.Rev
		res.View = ViewDomain(next)
		Describe(ch, "domain.create", next.Name, next.Name)
		ch.Diff(nil, next)
		ch.PutDomain(next)
		ch.PutPolicy(next.Name, managedPolicy(third, third.SecureLoginIPs, ch.Now))
		return nil
	})
	return res, err
}

func errManaged() error { return api.Conflict("exists", "the domain is managed already") }

// Patch changes the settings of the domain. Role domain may not change its alias domains.
func (d *Domain) Patch(ctx context.Context, edit Edit[api.Domain]) (*Result[api.Domain], error) {
	if err := d.Caller.May(ForDomain); err != nil {
		return nil, err
	}
	d.names.Lock()
	defer d.names.Unlock()
	// New aliases are claimed before the domain has them.
	cur, next, err := d.patched(edit)
	if err != nil {
		return nil, err
	}
	expires := d.ExpiringPasswords(cur.Doc, next)
	if expires > 0 && !d.DryRun && !d.Confirm {
		return nil, api.Conflict("confirm_required", "the new max_age refuses %s at once, because they are older", counted(expires, "mailbox password")).OrRepeat("confirm=true")
	}
	if err := d.confirmPlace(cur.Doc, next); err != nil {
		return nil, err
	}
	if err := d.claim(ctx, ForDomain, d.name, next.AliasDomains); err != nil {
		return nil, err
	}
	res := &Result[api.Domain]{}
	var released []string
	var switched *store.Domain
	err = d.Change(ctx, func(ch *store.Change) error {
		cur, next, err := d.patched(edit)
		if err != nil {
			return err
		}
		res.View, res.Rev, released = ViewDomain(next), ch.Rev, ReleasedNames(cur.Doc, next)
		if Same(cur.Doc, next) {
			res.Rev = cur.Rev
			return nil
		}
		Describe(ch, "domain.update", d.name, d.name)
		ch.Diff(cur.Doc, next)
		ch.PutDomain(next)
		if switched = nil; !Same(cur.Doc.Protocols, next.Protocols) {
			switched = next
		}
		return nil
	})
	if err == nil && d.DryRun && switched != nil {
		res.View.CutOff, err = d.cutOff(ctx, switched)
	}
	if err != nil {
		return nil, err
	}
	if d.DryRun {
		res.View.ExpiredPasswords = expires
	}
	d.ReleaseNames(ctx, released)
	return res, nil
}

func viewSecondFactor(p *store.SecondFactorPolicy) *api.SecondFactorPolicy {
	if p == nil {
		return nil
	}
	return &api.SecondFactorPolicy{Required: p.Required, Scope: ViewScope(&p.Scope)}
}

// ReadSecondFactor validates for whom a second factor is to be required.
func (d *Domain) ReadSecondFactor(in *api.SecondFactorPolicy, f *api.Faults) *store.SecondFactorPolicy {
	if in == nil || !in.Required && in.Scope == nil {
		return nil
	}
	p := &store.SecondFactorPolicy{Required: in.Required, Scope: access.Scope{All: true}}
	if in.Scope != nil {
		p.Scope = d.ReadScope(in.Scope, "/second_factor/scope", f)
	}
	if in.Required && in.Scope != nil && emptyScope(in.Scope) {
		f.Add("/second_factor/scope", "required", `selects no account: send "all":true, departments or members; or set required to false`)
	}
	return p
}

// patched returns the domain as it is, and as an edit makes it.
func (d *Domain) patched(edit Edit[api.Domain]) (cur store.Revised[store.Domain], next *store.Domain, err error) {
	cur, ok := d.Store.State.Domain(d.name)
	if err := d.Existing(ok, cur.Rev, "domain"); err != nil {
		return cur, nil, err
	}
	var f api.Faults
	view := ViewDomain(cur.Doc)
	in, err := edit(&view, &f)
	if err != nil {
		return cur, nil, err
	}
	copied := *cur.Doc
	ReadSettings(in, &copied, &f)
	copied.SecondFactor = d.ReadSecondFactor(in.SecondFactor, &f)
	if name, err := address.ParseDomain(in.Name); err != nil || name != d.name {
		f.Add("/name", "conflict", "cannot be changed: create the new domain and delete this one")
	}
	if err := f.Err(); err != nil {
		return cur, nil, err
	}
	return cur, &copied, d.CheckNames(cur.Doc, &copied)
}
