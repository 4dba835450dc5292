// Package factors has the operations on second factors: for their owner, who proves with one of
// them to change the others, and for administrators, who reset them.
//
//	o := factors.Site{Verifier: v, Issuer: "example.org"}.Of(account)
//	new, err := o.CreateTOTP(ctx, "phone")            the secret, shown once
//	_, err = o.Confirm(ctx, new.View.ID, &api.FactorProof{Code: "492039"})
//	err = o.Prove(ctx, "492039")                      step-up of a page: then [admin.Caller.Proven]
//
// A factor counts once it is confirmed. The first one ends pending ones. A caller of role self who
// has one, or needs one, must have proven it within [admin.ProvenFor] to add or delete factors; see
// [admin.Account.StepUp].
package factors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/factor"
	"github.com/drawbridge/drawbridge/internal/passkey"
	"github.com/drawbridge/drawbridge/internal/secondfactor"
	"github.com/drawbridge/drawbridge/internal/store"
)

// maxFactors bounds the second factors of an account, pending ones included.
const maxFactors = 20

// Site has what verifies the second factors of the site.
type Site struct {
	*secondfactor.Verifier
	Issuer string // names the site in authenticators; "" for the domain of the account
}

// Owned are the second factors of an account that the caller of a request reaches.
type Owned struct {
	Site
	account *admin.Account
}

// Of returns the second factors of an account.
func (s Site) Of(a *admin.Account) *Owned { return &Owned{s, a} }

// List returns the second factors, oldest first. Their secrets are never shown.
func (o *Owned) List() (*api.List[api.Factor], error) {
	out := &api.List[api.Factor]{Items: []api.Factor{}}
	cur, ok := o.account.Store.State.Account(o.account.Address())
	if !ok {
		return out, nil
	}
	for i := range cur.Doc.Factors {
		f := &cur.Doc.Factors[i]
		if f.Confirmed() || !o.expired(f) {
			out.Items = append(out.Items, o.view(f))
		}
	}
	return out, nil
}

// Ways are the ways in which an account can prove a second factor.
type Ways struct {
	Any     bool         // the account has a confirmed factor
	Passkey bool         // by a passkey, where the site has them
	Send    []api.Factor // by a code that is sent to one of these
}

// Ways returns how the account can prove a second factor.
func (o *Owned) Ways() (w Ways) {
	cur, ok := o.account.Store.State.Account(o.account.Address())
	if !ok {
		return w
	}
	for i := range cur.Doc.Factors {
		f := &cur.Doc.Factors[i]
		switch {
		case !f.Confirmed():
			continue
		case f.Kind == factor.Passkey:
			w.Passkey = o.Passkeys != nil
		case f.Kind == factor.Mail, f.Kind == factor.SMS:
			w.Send = append(w.Send, o.view(f))
		}
		w.Any = true
	}
	return w
}

func (o *Owned) expired(f *store.Factor) bool {
	return !f.Confirmed() && o.account.Time.Sub(f.CreatedAt) > secondfactor.PendingKept
}

// recoveryHash is the size of the stored form of a recovery code.
const recoveryHash = 16

func (o *Owned) view(f *store.Factor) api.Factor {
	v := api.Factor{ID: f.ID, Kind: string(f.Kind), Label: f.Label, CreatedAt: f.CreatedAt, ConfirmedAt: f.ConfirmedAt, Pending: !f.Confirmed()}
	switch f.Kind {
	case factor.Recovery:
		n := len(f.Data) / recoveryHash
		v.Left = &n
	case factor.Mail, factor.SMS:
		if to, err := o.Open(o.account.Address(), f); err == nil {
			v.To = masked(string(to))
		}
	case factor.TOTP, factor.Passkey:
	}
	return v
}

// masked shows enough of an address or number for its owner to recognise it.
func masked(to string) string {
	local, domain, found := strings.Cut(to, "@")
	if !found {
		return strings.Repeat("*", max(0, len(to)-3)) + to[max(0, len(to)-3):]
	}
	return local[:min(1, len(local))] + "***@" + domain
}

// change makes one change of the account's factors. It forgets pending ones that have expired, and
// with the first factor that counts all pending ones and recovery codes.
func (o *Owned) change(ctx context.Context, action string, edit func(ch *store.Change, next *store.Account) error) (rev uint64, err error) {
	a := o.account
	err = a.ChangeAs(ctx, admin.ForDomain|admin.ForSelf, func(ch *store.Change) error {
		cur, exists := a.Store.State.Account(a.Address())
		if err := a.Match(exists, cur.Rev); err != nil {
			return err
		}
		next := new(store.Account)
		if exists {
			*next = *cur.Doc
		} else {
			if err := a.CheckListed(); err != nil {
				return err
			}
			next = admin.NewAccount(a.Address(), ch)
		}
		next.Factors = slices.DeleteFunc(slices.Clone(next.Factors), func(f store.Factor) bool { return o.expired(&f) })
		rev = ch.Rev
		admin.Describe(ch, action, a.Name(), a.Address())
		if err := edit(ch, next); err != nil {
			return err
		}
		if next.HasFactor() && (!exists || !cur.Doc.HasFactor()) {
			// Whatever was begun before was begun with the password alone, by whoever knew it.
			next.Factors = slices.DeleteFunc(next.Factors, func(f store.Factor) bool { return !f.Confirmed() || f.Kind == factor.Recovery })
		}
		if len(next.Factors) > maxFactors {
			return api.Conflict("limit", "the account has the maximum of %d second factors: delete some", maxFactors)
		}
		ch.PutAccount(next)
		return nil
	})
	return rev, err
}

// add adds a factor, whose data is sealed.
func (o *Owned) add(ctx context.Context, f store.Factor, data []byte) (*admin.Result[api.CreatedFactor], error) {
	if err := o.account.StepUp(); err != nil {
		return nil, err
	}
	f.ID = store.NewID()
	res := &admin.Result[api.CreatedFactor]{Created: true}
	if f.Data = data; f.Kind != factor.Recovery {
		f.Data = o.Seal(o.account.Address(), f.ID, data)
	}
	var err error
	res.Rev, err = o.change(ctx, "second_factor.create", func(ch *store.Change, next *store.Account) error {
		if err := o.account.StepUp(); err != nil { // another request may have added the first one
			return err
		}
		if f.Kind == factor.Recovery && !next.HasFactor() {
			return api.Conflict("no_second_factor", "recovery codes stand in for another second factor, and the account has none: add one first")
		}
		f.CreatedAt = ch.Now
		if f.Kind == factor.Recovery { // new ones replace the old ones
			f.ConfirmedAt = ch.Now
			next.Factors = slices.DeleteFunc(next.Factors, func(o store.Factor) bool { return o.Kind == factor.Recovery })
		}
		next.Factors = append(next.Factors, f)
		ch.Audit.Note = fmt.Sprintf("%s %s %q", f.Kind, f.ID, f.Label)
		return nil
	})
	if err != nil {
		return nil, err
	}
	res.View.Factor = o.view(&f)
	return res, nil
}

// CreateTOTP adds an authenticator app. The caller clears the secret once it is shown.
func (o *Owned) CreateTOTP(ctx context.Context, in *api.NewFactor, f *api.Faults) (*admin.Result[api.CreatedFactor], error) {
	admin.CheckText(in.Label, "/label", f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	secret, err := factor.NewSecret()
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	res, err := o.add(ctx, store.Factor{Kind: factor.TOTP, Label: in.Label}, secret)
	if err != nil {
		return nil, err
	}
	issuer := o.Issuer
	if issuer == "" {
		issuer = o.account.Name()
	}
	if !o.account.DryRun {
		res.View.Secret = factor.Text(secret)
		res.View.URI = api.Secret(factor.URI(issuer, o.account.Address(), secret))
	}
	return res, nil
}

// CreateMail adds an address outside of the mailbox's domain that codes are sent to, and sends the
// first one. An administrator vouches for it: it counts at once.
func (o *Owned) CreateMail(ctx context.Context, in *api.NewFactor, f *api.Faults) (*admin.Result[api.CreatedFactor], error) {
	return o.createSending(ctx, factor.Mail, o.Mail != nil, in.Label, o.readAddress(in.Address, f), f)
}

// CreateSMS adds a telephone number in the same way: + and 6 to 15 digits.
func (o *Owned) CreateSMS(ctx context.Context, in *api.NewFactor, f *api.Faults) (*admin.Result[api.CreatedFactor], error) {
	if digits, plus := strings.CutPrefix(in.Number, "+"); !plus || len(digits) < 6 || len(digits) > 15 || strings.Trim(digits, "0123456789") != "" {
		f.Add("/number", "invalid_number", "is not a telephone number: write + and the country code, as in +491701234567")
	}
	return o.createSending(ctx, factor.SMS, o.SMS != nil, in.Label, in.Number, f)
}

func (o *Owned) createSending(ctx context.Context, kind factor.Kind, possible bool, label, to string, f *api.Faults) (*admin.Result[api.CreatedFactor], error) {
	admin.CheckText(label, "/label", f)
	if !possible {
		return nil, api.Conflict("cannot_send", "the site cannot send codes in this way: see notify.smtp and notify.sms_webhook_url")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	fac := store.Factor{Kind: kind, Label: label}
	vouched := o.account.Caller.Role != store.RoleSelf
	if vouched {
		fac.ConfirmedAt = o.account.Time.UTC().Truncate(time.Millisecond)
	}
	res, err := o.add(ctx, fac, []byte(to))
	if err == nil && !vouched && !o.account.DryRun {
		_, err = o.SendCode(ctx, res.View.ID)
	}
	return res, err
}

// readAddress validates an address outside of the mailbox's own domain, whose mail the owner of the
// mailbox may be unable to read.
func (o *Owned) readAddress(text string, f *api.Faults) string {
	addr, err := address.Parse(text, "")
	if err != nil {
		f.Add("/address", "invalid_address", "%v", err)
		return ""
	}
	if domain, ok := o.account.Store.State.ResolveDomain(address.Domain(addr)); ok && domain == o.account.Name() {
		f.Add("/address", "own_domain", "is in the domain of the mailbox: give an address elsewhere")
	}
	return addr
}

// pendingOrNot returns a factor of the account.
func (o *Owned) find(id string) (*store.Factor, error) {
	if cur, ok := o.account.Store.State.Account(o.account.Address()); ok {
		for i := range cur.Doc.Factors {
			if f := &cur.Doc.Factors[i]; f.ID == id && !o.expired(f) {
				return f, nil
			}
		}
	}
	return nil, api.NotFound("second factor")
}

// SendCode sends a code to the address or number of a factor.
func (o *Owned) SendCode(ctx context.Context, id string) (*api.SentCode, error) {
	if err := o.account.Caller.May(admin.ForDomain | admin.ForSelf); err != nil {
		return nil, err
	}
	f, err := o.find(id)
	if err != nil {
		return nil, err
	}
	out := &api.SentCode{To: o.view(f).To, ExpiresAt: o.account.Time.Add(secondfactor.CodeValid).UTC().Truncate(time.Second)}
	if o.account.DryRun {
		return out, nil
	}
	return out, problemOf(o.Send(ctx, o.account.Address(), f))
}

// problemOf returns the problem of an error of the verifier.
func problemOf(err error) error {
	switch {
	case errors.Is(err, secondfactor.ErrNoSending):
		return api.Conflict("cannot_send", "this second factor receives no codes, or the site cannot send them")
	case errors.Is(err, secondfactor.ErrTooMany):
		return api.TooMany("too_many_codes", "too many codes were sent to this account: wait an hour")
	case errors.Is(err, secondfactor.ErrNoPasskey):
		return api.Conflict("no_passkey", "the account has no passkey")
	case errors.Is(err, passkey.ErrRefused):
		return refused(err.Error())
	}
	return err
}

func refused(why string) error {
	return api.Unproven("second_factor_refused", "%s", why)
}

// CreatePasskey begins the registration of a passkey; the options are for the browser.
func (o *Owned) CreatePasskey(ctx context.Context, in *api.NewFactor, f *api.Faults) (*admin.Result[api.CreatedFactor], error) {
	admin.CheckText(in.Label, "/label", f)
	if err := cmpErr(f.Err(), o.hasParty()); err != nil {
		return nil, err
	}
	options, data, err := o.Register(o.account.Address())
	if err != nil {
		return nil, err
	}
	res, err := o.add(ctx, store.Factor{Kind: factor.Passkey, Label: in.Label}, data)
	if err == nil {
		res.View.Options = options
	}
	return res, err
}

func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *Owned) hasParty() error {
	if o.Passkeys == nil {
		return api.Conflict("no_passkeys", "passkeys belong to the address of the pages: set console.public_url")
	}
	return nil
}

// Confirm ends the creation of a factor: its owner shows a code of it, or the browser's response.
func (o *Owned) Confirm(ctx context.Context, id string, in *api.FactorProof) (*admin.Result[api.Factor], error) {
	a := o.account
	if err := a.Caller.May(admin.ForDomain | admin.ForSelf); err != nil {
		return nil, err
	}
	f, err := o.find(id)
	if err != nil {
		return nil, err
	}
	if f.Confirmed() {
		return nil, api.Conflict("confirmed", "the second factor is confirmed already")
	}
	data := f.Data
	switch {
	case a.DryRun:
	case f.Kind == factor.Passkey:
		if err := o.hasParty(); err != nil {
			return nil, err
		}
		key, err := o.Registered(ctx, a.Address(), f, in.Credential)
		if err != nil {
			return nil, problemOf(err)
		}
		data = o.Seal(a.Address(), f.ID, key)
	default:
		refusal, err := o.Verifier.Confirm(ctx, a.Address(), f, in.Code, a.Caller.From)
		if err != nil {
			return nil, err
		}
		if refusal != "" {
			return nil, refused(refusal)
		}
	}
	res := &admin.Result[api.Factor]{}
	res.Rev, err = o.change(ctx, "second_factor.confirm", func(ch *store.Change, next *store.Account) error {
		i := slices.IndexFunc(next.Factors, func(o store.Factor) bool { return o.ID == id })
		if i < 0 {
			return api.NotFound("second factor")
		}
		next.Factors[i].ConfirmedAt, next.Factors[i].Data = ch.Now, data
		ch.Audit.Note = fmt.Sprintf("%s %s %q", f.Kind, id, f.Label)
		res.View = o.view(&next.Factors[i])
		return nil
	})
	return res, err
}

// CreateRecoveryCodes replaces the recovery codes. They are shown once.
func (o *Owned) CreateRecoveryCodes(ctx context.Context) (*admin.Result[api.CreatedFactor], error) {
	var codes []string
	var data []byte
	for range factor.RecoveryCodes {
		code, err := factor.NewRecoveryCode()
		if err != nil {
			return nil, err
		}
		codes = append(codes, code)
		data = append(data, o.RecoveryHash(o.account.Address(), code)...)
	}
	res, err := o.add(ctx, store.Factor{Kind: factor.Recovery}, data)
	if err == nil && !o.account.DryRun {
		res.View.Codes = codes
	}
	return res, err
}

// Delete deletes a factor, and returns its last state.
func (o *Owned) Delete(ctx context.Context, id string) (*admin.Result[api.Factor], error) {
	if err := o.account.StepUp(); err != nil {
		return nil, err
	}
	if _, err := o.find(id); err != nil {
		return nil, err
	}
	res := &admin.Result[api.Factor]{}
	_, err := o.change(ctx, "second_factor.delete", func(ch *store.Change, next *store.Account) error {
		if err := o.account.StepUp(); err != nil {
			return err
		}
		i := slices.IndexFunc(next.Factors, func(o store.Factor) bool { return o.ID == id })
		if i < 0 {
			return api.NotFound("second factor")
		}
		f := next.Factors[i]
		res.View = o.view(&f)
		next.Factors = slices.Delete(next.Factors, i, i+1)
		ch.Audit.Note = fmt.Sprintf("%s %s %q", f.Kind, f.ID, f.Label)
		return nil
	})
	return res, err
}

// Reset deletes all factors of an account, for an administrator whose user has lost them.
func (o *Owned) Reset(ctx context.Context) (*admin.Result[api.List[api.Factor]], error) {
	if err := o.account.Caller.May(admin.ForDomain); err != nil {
		return nil, err
	}
	list, err := o.List()
	if err != nil {
		return nil, err
	}
	res := &admin.Result[api.List[api.Factor]]{View: *list}
	_, err = o.change(ctx, "second_factor.reset", func(ch *store.Change, next *store.Account) error {
		ch.Audit.Note = fmt.Sprintf("%d second factors", len(next.Factors))
		next.Factors = nil
		return nil
	})
	return res, err
}

// Challenge begins a proof with a passkey: the options are for the browser.
func (o *Owned) Challenge(ctx context.Context) (*api.FactorChallenge, error) {
	if err := cmpErr(o.account.Caller.May(admin.ForDomain|admin.ForSelf), o.hasParty()); err != nil {
		return nil, err
	}
	id, options, err := o.Verifier.Challenge(ctx, o.account.Address())
	if err != nil {
		return nil, problemOf(err)
	}
	return &api.FactorChallenge{ID: id, Options: options}, nil
}

// Answer ends a proof with a passkey. The result stands for it, as the otp of one login or of
// [Owned.Prove].
func (o *Owned) Answer(ctx context.Context, id string, response json.RawMessage) (*api.FactorAnswer, error) {
	if err := cmpErr(o.account.Caller.May(admin.ForDomain|admin.ForSelf), o.hasParty()); err != nil {
		return nil, err
	}
	proof, err := o.Verifier.Answer(ctx, o.account.Address(), id, response, o.account.Caller.From)
	if err != nil {
		return nil, problemOf(err)
	}
	return &api.FactorAnswer{OTP: api.Secret(proof), ExpiresAt: o.account.Time.Add(secondfactor.ChallengeValid).UTC().Truncate(time.Second)}, nil
}

// Prove verifies a code of one of the account's factors, or the proof of a passkey, and uses it up.
// The caller then has proven a second factor: see [admin.Caller.Proven].
func (o *Owned) Prove(ctx context.Context, otp string) error {
	refusal, err := o.Verify(ctx, o.account.Address(), otp, o.account.Caller.From)
	if err != nil {
		return err
	}
	if refusal != "" {
		return refused(refusal)
	}
	return nil
}
