package admin

import (
	"context"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// ProvenFor is for how long a second factor that was proven is enough.
const ProvenFor = 10 * time.Minute

// NeedsFactor returns whether a second factor is required of the account, and whether it has one
// that counts.
func (a *Account) NeedsFactor() (required, has bool) {
	_, v := a.Store.State.View(a.address)
	if !v.Known {
		return false, false
	}
	return v.Rules.FactorRequired(a.address, v.Account.Facts(new(access.Account))), len(v.Account.FactorKinds()) > 0
}

// StepUp refuses a caller of role self who has not proven a second factor lately, if the account
// has one. The first one may be added without.
func (a *Account) StepUp() error {
	_, has := a.NeedsFactor()
	if a.Caller.Role != store.RoleSelf || !has {
		return nil
	}
	// Before the account had a factor, a page verified the password alone.
	cur, ok := a.Store.State.Account(a.address)
	if proven := a.Caller.Proven; ok && a.Time.Sub(proven) < ProvenFor && !proven.Before(cur.Doc.FactorSince()) {
		return nil
	}
	return errFactor("prove a second factor of the account first: with a header Second-Factor")
}

// stepUp refuses the same for what needs a second factor where one is required.
func (a *Account) stepUp() error {
	if required, has := a.NeedsFactor(); a.Caller.Role == store.RoleSelf && required && !has {
		return errFactor("the domain requires a second factor: set one up first")
	}
	return a.StepUp()
}

func errFactor(detail string) error {
	return api.Unproven("second_factor_required", "%s", detail)
}

// ChangeAs is [Domain.Change] for callers of other roles too.
func (d *Domain) ChangeAs(ctx context.Context, allowed Roles, f func(*store.Change) error) error {
	return d.changeFor(ctx, allowed, d.DryRun, f)
}

// CheckListed refuses to create a record for the account where accounts are listed.
func (a *Account) CheckListed() error { return a.checkListed(a.address) }
