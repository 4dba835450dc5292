package admin

import (
	"context"
	"strconv"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Domain is a managed domain that the caller of a request reaches.
type Domain struct {
	*Request
	name    string // canonical
	planned planned
}

// Account is an account, with or without a record, that the caller of a request reaches.
type Account struct {
	*Domain
	address string // canonical
}

// planned is what a domain has once a document is applied that is being validated. A nil map means
// what the domain has now.
type planned struct {
	departments map[string]bool   // by path
	policies    map[string]string // id by folded name
}

// Domain returns a managed domain. Role self reaches none, but see [Request.Account] and
// [Request.Logins].
func (r *Request) Domain(name string) (*Domain, error) {
	return r.domain(name, ForRead|ForDomain)
}

func (r *Request) domain(name string, allowed Roles) (*Domain, error) {
	name, _ = address.ParseDomain(name) // "" is managed by nobody
	if !r.Caller.Reaches(name) {
		return nil, api.NotFound("domain")
	}
	if err := r.Caller.May(allowed); err != nil {
		return nil, err
	}
	return r.managedDomain(name)
}

func (r *Request) managedDomain(name string) (*Domain, error) {
	if r.managed(name) {
		return &Domain{Request: r, name: name}, nil
	}
	if of, ok := r.Store.State.ResolveDomain(name); ok {
		return nil, api.Missing("%s is an alias domain of %s: use that name", name, of)
	}
	return nil, api.Missing("the domain %s is not managed: create it first", name)
}

// Account returns an account of a managed domain.
func (r *Request) Account(addr string) (*Account, error) {
	parsed, err := address.Parse(addr, r.DefaultDomain)
	if err != nil {
		var f api.Faults
		f.Parameter("address", "invalid_address", "%v", err)
		return nil, f.Err()
	}
	parsed = r.Store.State.Canonical(parsed)
	if !r.Caller.ReachesAccount(address.Domain(parsed), parsed) {
		return nil, api.NotFound("account")
	}
	if err := r.Caller.May(ForRead | ForDomain | ForSelf); err != nil {
		return nil, err
	}
	d, err := r.managedDomain(address.Domain(parsed))
	if err != nil {
		return nil, err
	}
	return &Account{Domain: d, address: parsed}, nil
}

// Reach refuses a domain or account out of the caller's reach as not found, whether it is managed or
// not. Invalid addresses are left to [Request.Account].
func (r *Request) Reach(domain, addr string) error {
	if addr == "" {
		domain, _ = address.ParseDomain(domain) // "" is managed by nobody
		if !r.Caller.Reaches(domain) {
			return api.NotFound("domain")
		}
		return nil
	}
	parsed, err := address.Parse(addr, r.DefaultDomain)
	parsed = r.Store.State.Canonical(parsed)
	if err == nil && !r.Caller.ReachesAccount(address.Domain(parsed), parsed) {
		return api.NotFound("account")
	}
	return nil
}

// Name returns the canonical name of the domain.
func (d *Domain) Name() string { return d.name }

// Address returns the canonical address of the account.
func (a *Account) Address() string { return a.address }

// Assume returns the domain as it is once it has only these departments, and policies of these
// names (see [Domain.Names]). nil means what it has now.
func (d *Domain) Assume(departments map[string]bool, policies map[string]string) *Domain {
	assumed := *d
	assumed.planned = planned{departments, policies}
	return &assumed
}

// Change makes one change of the domain's shard, which f describes in the audit. If the domain was
// deleted meanwhile, it is not found.
func (d *Domain) Change(ctx context.Context, f func(*store.Change) error) error {
	return d.changeFor(ctx, ForDomain, d.DryRun, f)
}

// ChangeOwn is [Domain.Change] for what role self may change of its account, too.
func (a *Account) ChangeOwn(ctx context.Context, f func(*store.Change) error) error {
	return a.changeFor(ctx, ForDomain|ForSelf, a.DryRun, f)
}

// Try calls f as [Domain.Change] does, and changes nothing.
func (d *Domain) Try(ctx context.Context, f func(*store.Change) error) error {
	return d.changeFor(ctx, ForDomain, true, f)
}

func (d *Domain) changeFor(ctx context.Context, allowed Roles, dry bool, f func(*store.Change) error) error {
	return d.Request.changeFor(ctx, allowed, store.ShardOf(d.name), dry, func(ch *store.Change) error {
		if !d.managed(d.name) {
			return api.NotFound("domain")
		}
		return f(ch)
	})
}

// managed reports whether a domain is managed.
func (r *Request) managed(domain string) bool {
	_, ok := r.Store.State.Domain(domain)
	return ok
}

// Match applies the condition of the request to a resource, or to its absence.
func (r *Request) Match(exists bool, rev uint64) error {
	return r.MatchTag(exists, strconv.FormatUint(rev, 10))
}

// Existing refuses an operation on a resource that does not exist, or does not meet the condition.
func (r *Request) Existing(exists bool, rev uint64, what string) error {
	if !exists {
		return api.NotFound(what)
	}
	return r.Match(true, rev)
}

// MatchTag applies the condition of the request to a tag that is no revision.
func (r *Request) MatchTag(exists bool, tag string) error {
	if r.If == nil {
		return nil
	}
	return r.If(exists, tag)
}
