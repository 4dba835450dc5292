package admin

import (
	"context"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// SecurePasswordPolicy returns for whom secure passwords are enforced.
func (d *Domain) SecurePasswordPolicy() (*Result[api.SecurePasswordPolicy], error) {
	cur, ok := d.Store.State.Domain(d.name)
	if !ok {
		return nil, api.NotFound("domain")
	}
	return &Result[api.SecurePasswordPolicy]{View: ViewSecurePasswordPolicy(&cur.Doc.SecurePasswords), Rev: cur.Rev}, nil
}

// ViewSecurePasswordPolicy shows for whom secure passwords are enforced.
func ViewSecurePasswordPolicy(p *store.SecurePasswordPolicy) api.SecurePasswordPolicy {
	return api.SecurePasswordPolicy{Enforced: p.Enforced, Scope: ViewScope(&p.Scope)}
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
		res.View, res.Rev = ViewSecurePasswordPolicy(&next.SecurePasswords), ch.Rev
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
		res.View.CutOff, err = d.cutOff(ctx, changed)
	}
	return res, err
}

// ReadSecurePasswordPolicy validates for whom secure passwords are to be enforced.
func (d *Domain) ReadSecurePasswordPolicy(in *api.SecurePasswordPolicy, f *api.Faults) store.SecurePasswordPolicy {
	p := store.SecurePasswordPolicy{Enforced: in.Enforced, Scope: access.Scope{All: true}}
	if in.Scope != nil {
		p.Scope = d.ReadScope(in.Scope, "/scope", f)
	}
	if in.Enforced && in.Scope != nil && emptyScope(in.Scope) {
		f.Add("/scope", "required", `selects no account: send "all":true, departments or members; or set enforced to false`)
	}
	return p
}
