package admin

import (
	"slices"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// viewWithEffective shows a record with a summary of the effective settings.
func (d *Domain) viewWithEffective(a *store.Account) api.Account {
	view := ViewAccount(a)
	_, v := d.Store.State.View(a.Address)
	if !v.Known {
		return view // its domain was just deleted
	}
	acc := v.Account.Facts(new(access.Account))
	on := func(p access.Protocol) bool {
		on, _ := v.Rules.ProtocolOn(p, acc)
		return on
	}
	third, _ := d.thirdPartyFor(v.Rules.Applying(a.Address, acc))
	view.Effective = &api.EffectiveSummary{
		IMAP: on(access.IMAP), POP3: on(access.POP3), SMTP: on(access.SMTP), Sieve: on(access.Sieve),
		SecurePasswords: view.SecurePasswords, ThirdPartyAccess: third.Value,
	}
	if required, _ := v.Rules.SecureRequired(a.Address, acc); required {
		view.Effective.SecurePasswords = string(access.SecureRequired)
	}
	return view
}

// Effective returns the effective settings of the account and their origin. It reads the compiled
// rules that decisions read.
func (a *Account) Effective() (*api.Effective, error) {
	_, v := a.Store.State.View(a.address)
	if !v.Known {
		return nil, api.NotFound("domain")
	}
	record, acc := v.Account.Account(), v.Account.Facts(new(access.Account))
	if record == nil {
		record = &store.Account{}
	}
	protocol := func(p access.Protocol) api.Setting[bool] {
		on, by := v.Rules.ProtocolOn(p, acc)
		return byBatch(api.Setting[bool]{Value: on, SetBy: by}, record, "protocols."+p.String())
	}
	e := &api.Effective{
		Address: a.address, Record: v.Account.Exists(),
		Suspended:   byBatch(setBy(record.Suspended, false, "account"), record, "suspended"),
		Departments: api.Setting[[]string]{Value: list(record.Departments), SetBy: "default"},
		Protocols:   api.EffectiveProtocols{IMAP: protocol(access.IMAP), POP3: protocol(access.POP3), SMTP: protocol(access.SMTP), Sieve: protocol(access.Sieve)},
		// The settings of a domain are always stored, so a default value counts as the default.
		MaxSecurePasswords: setBy(maxSecurePasswords(v.Settings), store.DefaultMaxSecurePasswords, "domain"),
		SenderCheck:        setBy(ViewDomain(v.Settings).SenderCheck, "both", "domain"),
		TraceHeader:        setBy(v.Settings.TraceHeader, false, "domain"),
	}
	if len(record.Departments) > 0 {
		e.Departments.SetBy = "account"
		e.Departments = byBatch(e.Departments, record, "departments")
	}
	e.SecurePasswords = setBy(secureMode(record), string(access.SecureOptional), "account")
	if required, by := v.Rules.SecureRequired(a.address, acc); required {
		e.SecurePasswords = api.Setting[string]{Value: string(access.SecureRequired), SetBy: by}
	}
	e.SecurePasswords = byBatch(e.SecurePasswords, record, "secure_passwords")
	applying := v.Rules.Applying(a.address, acc)
	e.ThirdPartyAccess, e.SecureLoginIPs = a.thirdPartyFor(applying)
	e.Policies = a.effectivePolicies(record.Departments, applying)
	return e, nil
}

// setBy is a setting, set by default if it has the default value.
func setBy[T comparable](value, fallback T, by string) api.Setting[T] {
	if value == fallback {
		by = "default"
	}
	return api.Setting[T]{Value: value, SetBy: by}
}

// byBatch names the batch that set a setting of the account, if one did.
func byBatch[T any](s api.Setting[T], a *store.Account, name string) api.Setting[T] {
	if m := a.SetByBatch(name); m != nil && s.SetBy == "account" {
		s.SetBy, s.Batch = "batch", &api.BatchMark{At: m.At, By: m.By, Scope: m.Scope}
	}
	return s
}

// thirdPartyFor returns whether third-party clients are blocked for an account everywhere, by which
// of the policies that apply, and the addresses that it excepts.
func (d *Domain) thirdPartyFor(applying []string) (api.Setting[string], api.Setting[[]string]) {
	switched, except := api.Setting[string]{Value: "allow", SetBy: "default"}, api.Setting[[]string]{Value: []string{}, SetBy: "default"}
	for _, p := range d.Store.State.Policies(d.name) {
		if p.Doc.ID == store.ManagedThirdParty && switched.SetBy == "default" {
			switched.SetBy = p.Doc.ID
		}
		if !blocksThirdParty(p.Doc) || !slices.Contains(applying, p.Doc.ID) {
			continue
		}
		if p.Doc.Mode == access.Enforce {
			return api.Setting[string]{Value: "block", SetBy: p.Doc.ID}, api.Setting[[]string]{Value: list(p.Doc.ExceptIPs), SetBy: p.Doc.ID}
		}
		switched, except = api.Setting[string]{Value: "report", SetBy: p.Doc.ID}, api.Setting[[]string]{Value: list(p.Doc.ExceptIPs), SetBy: p.Doc.ID}
	}
	return switched, except
}

// blocksThirdParty reports whether a policy refuses third-party clients everywhere, exceptions
// aside, on every protocol.
func blocksThirdParty(p *store.Policy) bool {
	return p.Type == access.Blacklist && len(p.IPs)+len(p.Regions)+len(p.Protocols) == 0 &&
		(len(p.Clients) == 0 || slices.Contains(p.Clients, access.ClientThirdParty))
}

// effectivePolicies are the policies that apply to the account, with what in their scope selects
// it.
func (a *Account) effectivePolicies(departments, ids []string) []api.EffectivePolicy {
	list := make([]api.EffectivePolicy, 0, len(ids))
	for _, id := range ids {
		p, ok := a.Store.State.Policy(a.name, id)
		if !ok {
			continue // deleted since the rules were read
		}
		v := ViewPolicy(p.Doc)
		e := api.EffectivePolicy{ID: id, Name: v.Name, Type: v.Type, Mode: v.Mode, Clients: v.Clients, Protocols: v.Protocols}
		e.NamedBy, e.Department = namedBy(&p.Doc.Scope, a.address, departments)
		list = append(list, e)
	}
	return list
}

// namedBy returns the most specific part of a scope that selects an account in it.
func namedBy(s *access.Scope, account string, departments []string) (part, department string) {
	if slices.Contains(s.Members, account) {
		return "member", ""
	}
	for _, d := range s.Departments {
		if slices.ContainsFunc(departments, d.Has) {
			return "department", d.Path
		}
	}
	return "all", ""
}
