package admin

import (
	"context"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/store"
)

// SecurePasswordPolicy returns for whom secure passwords are enforced.
func (d *Domain) SecurePasswordPolicy() (*Result[api.SecurePasswordPolicy], error) {
	cur, ok := d.Store.State.Domain(d.name)
	if !ok {
		return nil, api.NotFound("domain")
	}
	return &Result[api.SecurePasswordPolicy]{View: d.viewEnforcement(&cur.Doc.SecurePasswords), Rev: cur.Rev}, nil
}

// ViewSecurePasswordPolicy shows for whom secure passwords are enforced.
func ViewSecurePasswordPolicy(p *store.SecurePasswordPolicy) api.SecurePasswordPolicy {
	v := api.SecurePasswordPolicy{Enforced: p.Enforced, Scope: ViewScope(&p.Scope), Mode: string(access.Enforce), GraceUntil: p.GraceUntil, Paused: p.Paused}
	if p.Report {
		v.Mode = string(access.Report)
	}
	return v
}

// viewEnforcement shows it with its present state.
func (d *Domain) viewEnforcement(p *store.SecurePasswordPolicy) api.SecurePasswordPolicy {
	v := ViewSecurePasswordPolicy(p)
	v.State = string(p.State(d.Time))
	return v
}

// EnforcementProgress returns who still uses the mailbox password in third-party clients, with what,
// from where and when, by the logins of the last days.
func (d *Domain) EnforcementProgress(ctx context.Context) (*api.EnforcementProgress, error) {
	cur, ok := d.Store.State.Domain(d.name)
	if !ok {
		return nil, api.NotFound("domain")
	}
	p := cur.Doc.SecurePasswords
	var draft history.Draft
	draft.Would = d.Store.State.Rules(d.name, d.Time, func(set *access.Settings) {
		set.Enforced = false
		draft.Are = access.Compile(set)
		set.Enforced, set.EnforceFor = true, p.Scope
	})
	out, err := d.cutOffBy(ctx, draft)
	if err != nil {
		return nil, err
	}
	v := &api.EnforcementProgress{State: string(p.State(d.Time)), GraceUntil: p.GraceUntil, CutOff: *out}
	for _, a := range d.Store.State.Accounts(d.name, "", 0) {
		if required, by := draft.Would.SecureRequired(a.Doc.Address, &access.Account{Departments: a.Doc.Departments}); !required || by != "domain" {
			continue
		}
		if v.InScope++; len(a.Doc.Live(d.Time)) > 0 {
			v.Ready++
		}
	}
	return v, nil
}

// PutSecurePasswordPolicy enforces secure passwords, or stops enforcing them. decode returns what
// was sent.
func (d *Domain) PutSecurePasswordPolicy(ctx context.Context, decode func(*api.Faults) *api.SecurePasswordPolicy) (*Result[api.SecurePasswordPolicy], error) {
	res := &Result[api.SecurePasswordPolicy]{}
	var changed *store.Domain
	err := d.Change(ctx, func(ch *store.Change) error {
		cur, ok := d.Store.State.Domain(d.name)
		if err := d.Existing(ok, cur.Rev, "domain"); err != nil {
			return err
		}
		var f api.Faults
		next := *cur.Doc
		next.SecurePasswords = d.ReadSecurePasswordPolicy(decode(&f), &f)
		if err := f.Err(); err != nil {
			return err
		}
		res.View, res.Rev = d.viewEnforcement(&next.SecurePasswords), ch.Rev
		if Same(cur.Doc, &next) {
			res.Rev = cur.Rev
			return nil
		}
		Describe(ch, "secure_password_policy.update", d.name, d.name)
		ch.Diff(&cur.Doc.SecurePasswords, &next.SecurePasswords)
		ch.PutDomain(&next)
		changed = &next
		return nil
	})
	if err == nil && d.DryRun && changed != nil && changed.SecurePasswords.Enforced {
		if res.View.CutOff, err = d.cutOff(ctx, changed); err == nil {
			res.View.Accounts, res.View.Sessions = res.View.CutOff.Accounts, &res.View.CutOff.Sessions
		}
	}
	return res, err
}

// ReadSecurePasswordPolicy validates for whom secure passwords are to be enforced.
func (d *Domain) ReadSecurePasswordPolicy(in *api.SecurePasswordPolicy, f *api.Faults) store.SecurePasswordPolicy {
	p := store.SecurePasswordPolicy{
		Enforced: in.Enforced, Scope: access.Scope{All: true}, Report: in.Mode == string(access.Report), Paused: in.Paused, GraceUntil: in.GraceUntil.UTC(),
	}
	if in.Scope != nil {
		p.Scope = d.ReadScope(in.Scope, "/scope", f)
	}
	if in.Enforced && in.Scope != nil && emptyScope(in.Scope) {
		f.Add("/scope", "required", `selects no account: send "all":true, departments or members; or set enforced to false`)
	}
	return p
}
