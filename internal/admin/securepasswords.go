package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/store"
)

func viewSecurePassword(p *store.SecurePassword, uses map[string]store.LastUse) api.SecurePassword {
	use := uses[p.ID]
	return api.SecurePassword{
		ID: p.ID, Label: p.Label, SecretBounds: viewBounds(p), CreatedAt: p.CreatedAt,
		LastUsedAt: use.Time, LastUsedIP: use.IP, LastUsedProtocol: use.Protocol,
	}
}

func viewBounds(p *store.SecurePassword) api.SecretBounds {
	return api.SecretBounds{Protocols: p.Protocols, Networks: p.Networks, ExpiresAt: p.ExpiresAt}
}

// readBounds validates where and until when a secure password is accepted, and puts it into p.
func (r *Request) readBounds(in *api.SecretBounds, p *store.SecurePassword, f *api.Faults) {
	p.Protocols, p.Networks = nil, nil
	for i, name := range in.Protocols {
		if slices.Contains(p.Protocols, name) {
			f.Add(api.At("/protocols", i), "duplicate", "is named twice: leave it out")
		}
		p.Protocols = append(p.Protocols, name)
	}
	checkNetworks(in.Networks, "/networks", f)
	for _, entry := range in.Networks {
		p.Networks = append(p.Networks, strings.ReplaceAll(entry, " ", ""))
	}
	if at := in.ExpiresAt.UTC(); !at.Equal(p.ExpiresAt) {
		if !in.ExpiresAt.IsZero() && !at.After(r.Time) {
			f.Add("/expires_at", "in_the_past", "is not in the future")
		}
		p.ExpiresAt = at
	}
}

// SecurePasswords returns one page of the account's live secure passwords with their last use,
// without the secrets. Revoked ones are not listed.
func (a *Account) SecurePasswords(ctx context.Context, p Page) (*api.List[api.SecurePassword], error) {
	after, err := p.after()
	if err != nil {
		return nil, err
	}
	uses, err := a.Journal.LastUses(ctx, a.address)
	if err != nil {
		return nil, err
	}
	items := []api.SecurePassword{}
	if cur, ok := a.Store.State.Account(a.address); ok {
		live := cur.Doc.Live(a.Time)
		if i := slices.IndexFunc(live, func(s store.SecurePassword) bool { return s.ID == after }); i >= 0 {
			live = live[i+1:]
		}
		for i := range live {
			items = append(items, viewSecurePassword(&live[i], uses))
		}
	} else if a.allKept() {
		return nil, errNoRecord()
	}
	return firstPage(p, items, func(v api.SecurePassword) string { return v.ID }), nil
}

// live returns a live secure password of the account, with the record.
func (a *Account) live(id string) (cur store.Revised[store.Account], p *store.SecurePassword, err error) {
	cur, ok := a.Store.State.Account(a.address)
	if ok {
		for i := range cur.Doc.Secrets {
			if p := &cur.Doc.Secrets[i]; p.ID == id && p.Live(a.Time) {
				return cur, p, nil
			}
		}
	}
	return cur, nil, api.NotFound("secure password")
}

// SecurePassword returns a live secure password by its id, with its last use and without the
// secret; 404 for a revoked one.
func (a *Account) SecurePassword(ctx context.Context, id string) (*Result[api.SecurePassword], error) {
	cur, p, err := a.live(id)
	if err != nil {
		return nil, err
	}
	uses, err := a.Journal.LastUses(ctx, a.address)
	if err != nil {
		return nil, err
	}
	return &Result[api.SecurePassword]{View: viewSecurePassword(p, uses), Rev: cur.Rev}, nil
}

// CreateSecurePassword generates a secure password. The caller clears its secret once it is sent; a
// dry run has none.
func (a *Account) CreateSecurePassword(ctx context.Context, in *api.NewSecurePassword, f *api.Faults) (*Result[api.CreatedSecurePassword], error) {
	if err := a.stepUp(); err != nil {
		return nil, err
	}
	CheckText(in.Label, "/label", f)
	p := store.SecurePassword{ID: store.NewID(), Label: in.Label, PepperID: a.Pepper.ID()}
	a.readBounds(&in.SecretBounds, &p, f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	res := &Result[api.CreatedSecurePassword]{View: api.CreatedSecurePassword{ID: p.ID, Label: p.Label, Secret: api.Secret{}, SecretBounds: viewBounds(&p)}, Created: true}
	if !a.DryRun {
		secret, err := credential.Generate()
		if err != nil {
			return nil, fmt.Errorf("creating a secure password: %w", err)
		}
		res.View.Secret = secret
		p.Hash = a.Pepper.Hash(a.address, secret)
	}
	err := a.changeFor(ctx, ForDomain|ForSelf, a.DryRun, func(ch *store.Change) error {
		_, v := a.Store.State.View(a.address)
		if !v.Known {
			return api.NotFound("domain")
		}
		cur, exists := a.Store.State.Account(a.address)
		if err := a.Match(exists, cur.Rev); err != nil {
			return err
		}
		base := cur.Doc
		if !exists {
			if err := a.checkListed(a.address); err != nil {
				return err
			}
			base = NewAccount(a.address, ch)
		}
		if most := maxSecurePasswords(v.Settings); len(base.Live(ch.Now)) >= most {
			return api.Conflict("secure_password_limit", "the account has %d secure passwords, the maximum of its domain: revoke one that is no longer used", most)
		}
		p.CreatedAt, res.View.CreatedAt = ch.Now, ch.Now
		next := *base
		next.Secrets = append(slices.Clone(next.Secrets), p)
		res.View.Warnings = a.loginWarnings(v, base)
		if !exists {
			res.View.Warnings = append(res.View.Warnings, a.unknownWarning(ctx)...)
		}
		res.Rev = ch.Rev
		Describe(ch, "secure_password.create", a.name, a.address)
		ch.Audit.Note = fmt.Sprintf("%s %q", p.ID, p.Label) + boundsNote(&p)
		ch.PutAccount(&next)
		return nil
	})
	if err != nil {
		clear(res.View.Secret)
		return nil, err
	}
	return res, nil
}

// boundsNote describes the bounds of a secure password in the audit, "" for none.
func boundsNote(p *store.SecurePassword) string {
	var parts []string
	if len(p.Protocols) > 0 {
		parts = append(parts, "protocols "+strings.Join(p.Protocols, " "))
	}
	if len(p.Networks) > 0 {
		parts = append(parts, "networks "+strings.Join(p.Networks, " "))
	}
	if !p.ExpiresAt.IsZero() {
		parts = append(parts, "expires "+p.ExpiresAt.Format(time.RFC3339))
	}
	if len(parts) == 0 {
		return ""
	}
	return ", " + strings.Join(parts, ", ")
}

// loginWarnings reports why a new secure password of the account cannot log in now.
func (a *Account) loginWarnings(v store.View, record *store.Account) []api.Warning {
	list := []api.Warning{}
	warn := func(code, format string, args ...any) {
		list = append(list, api.Warning{Code: code, Detail: fmt.Sprintf(format, args...)})
	}
	acc := &access.Account{Suspended: record.Suspended, Departments: record.Departments, Protocols: record.Protocols.Compile(), Secure: record.Secure}
	if record.Suspended {
		warn("suspended", "The account is suspended.")
	}
	if required, _ := v.Rules.SecureRequired(a.address, acc); record.Secure == access.SecureOff && !required {
		warn("secure_passwords_off", "Secure passwords are switched off for the account, so that they are inactive.")
	}
	if switched, except := a.thirdPartyFor(v.Rules.Applying(a.address, acc)); switched.Value == "block" {
		if len(except.Value) == 0 {
			warn("third_party_blocked", "Third-party clients are blocked by the policy %s.", switched.SetBy)
		} else {
			warn("third_party_restricted", "Third-party clients are blocked by the policy %s, except from certain addresses.", switched.SetBy)
		}
	}
	var off []string
	for _, p := range access.SwitchedProtocols {
		if on, _ := v.Rules.ProtocolOn(p, acc); !on {
			off = append(off, p.String())
		}
	}
	switch len(off) {
	case 0:
	case len(access.SwitchedProtocols):
		warn("protocols_off", "All protocols are switched off for the account.")
	default:
		warn("protocol_off", "Switched off for the account: %s.", strings.Join(off, ", "))
	}
	return list
}

// editSecurePassword makes one change of a live secure password.
func (a *Account) editSecurePassword(ctx context.Context, id string, edit func(ch *store.Change, next *store.Account, p *store.SecurePassword) (api.SecurePassword, error)) (*Result[api.SecurePassword], error) {
	res := &Result[api.SecurePassword]{}
	err := a.changeFor(ctx, ForDomain|ForSelf, a.DryRun, func(ch *store.Change) error {
		cur, p, err := a.live(id)
		if err != nil {
			return err
		}
		if err := a.Match(true, cur.Rev); err != nil {
			return err
		}
		next := *cur.Doc
		next.Secrets = slices.Clone(next.Secrets)
		res.Rev = ch.Rev
		if res.View, err = edit(ch, &next, p); err != nil {
			return err
		}
		ch.PutAccount(&next)
		return nil
	})
	return res, err
}

// PatchSecurePassword changes the label and the bounds of a secure password.
func (a *Account) PatchSecurePassword(ctx context.Context, id string, edit Edit[api.SecurePassword]) (*Result[api.SecurePassword], error) {
	uses, err := a.Journal.LastUses(ctx, a.address)
	if err != nil {
		return nil, err
	}
	return a.editSecurePassword(ctx, id, func(ch *store.Change, next *store.Account, p *store.SecurePassword) (view api.SecurePassword, err error) {
		var f api.Faults
		view = viewSecurePassword(p, uses)
		in, err := edit(&view, &f)
		if err != nil {
			return view, err
		}
		CheckText(in.Label, "/label", &f)
		changed := *p
		changed.Label = in.Label
		a.readBounds(&in.SecretBounds, &changed, &f)
		if err := f.Err(); err != nil {
			return view, err
		}
		Describe(ch, "secure_password.update", a.name, a.address)
		ch.Audit.Note = fmt.Sprintf("%s, was %q%s, is %q%s", p.ID, p.Label, boundsNote(p), changed.Label, boundsNote(&changed))
		for i := range next.Secrets {
			if next.Secrets[i].ID == p.ID {
				next.Secrets[i] = changed
			}
		}
		return viewSecurePassword(&changed, uses), nil
	})
}

// RevokeSecurePassword revokes a secure password and returns its last state.
func (a *Account) RevokeSecurePassword(ctx context.Context, id string) (*Result[api.SecurePassword], error) {
	return a.editSecurePassword(ctx, id, func(ch *store.Change, next *store.Account, p *store.SecurePassword) (api.SecurePassword, error) {
		Describe(ch, "secure_password.revoke", a.name, a.address)
		ch.Audit.Note = fmt.Sprintf("%s %q", p.ID, p.Label)
		next.Revoke(p.ID, ch.Now)
		return viewSecurePassword(p, nil), nil
	})
}
