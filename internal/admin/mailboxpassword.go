package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/store"
)

// SetMailboxPassword sets the mailbox password that is stored here, or expires the present one. A
// password must meet the domain's policy; a generated one need not. Role self, whose present password
// the caller has verified, may set no hash. The caller clears the passwords that it sent and received.
func (a *Account) SetMailboxPassword(ctx context.Context, in *api.MailboxPassword, f *api.Faults) (*Result[api.MailboxPasswordSet], error) {
	if err := a.Caller.May(ForDomain | ForSelf); err != nil {
		return nil, err // before the hash is computed
	}
	if self := a.Caller.Role == store.RoleSelf; self && (in.Hash != nil || in.MustChange) {
		return nil, api.Forbidden("role self may set password or generate, and revoke")
	}
	if err := a.StepUp(); err != nil { // one that is required, and not there, must not keep an old password
		return nil, err
	}
	if !a.KeepsPasswords() {
		return nil, api.Conflict("next_passdb", "mailbox passwords belong to the site's next passdb: set it there, or keep them here with mailbox_passwords of the domain or login.next_passdb = false")
	}
	stored, generated, err := a.newMailboxHash(ctx, in, f)
	if err != nil {
		return nil, err
	}
	res := &Result[api.MailboxPasswordSet]{View: api.MailboxPasswordSet{Address: a.address, Password: generated, MustChange: in.MustChange}}
	err = a.ChangeAs(ctx, ForDomain|ForSelf, func(ch *store.Change) error {
		cur, ok := a.Store.State.Account(a.address)
		if !ok {
			return api.Missing("there is no such account: create it first")
		}
		if err := a.Match(true, cur.Rev); err != nil {
			return err
		}
		next := *cur.Doc
		next.MustChange = in.MustChange
		Describe(ch, "mailbox_password.set", a.name, a.address)
		if stored == "" { // only expires
			if cur.Doc.MailboxHash == "" {
				return api.Conflict("no_mailbox_password", "the account has no mailbox password that could expire: set one")
			}
			Describe(ch, "mailbox_password.expire", a.name, a.address)
		} else {
			next.FormerHashes = former(cur.Doc, a.passwordRules().History)
			next.MailboxHash, next.MailboxSetAt = stored, ch.Now
		}
		res.View.Scheme = scheme(next.MailboxHash)
		res.Rev, ch.Audit.Note = ch.Rev, res.View.Scheme
		if err := revokeWith(in.Revoke, &next, ch, &res.View); err != nil {
			return err
		}
		ch.PutAccount(&next)
		return nil
	})
	return res, err
}

// revokeWith revokes the secure passwords that a new mailbox password is to revoke.
func revokeWith(ids []string, next *store.Account, ch *store.Change, view *api.MailboxPasswordSet) error {
	view.Revoked = []string{}
	var f api.Faults
	all := len(ids) == 1 && ids[0] == "all"
	for i, id := range ids {
		if !all && !slices.ContainsFunc(next.Live(ch.Now), func(p store.SecurePassword) bool { return p.ID == id }) {
			f.Add(api.At("/revoke", i), "unknown_credential", `is no live secure password of the account: list them, or send ["all"]`)
		}
	}
	for _, p := range next.Live(ch.Now) {
		if all || slices.Contains(ids, p.ID) {
			next.Revoke(p.ID, ch.Now)
			view.Revoked = append(view.Revoked, p.Label)
		}
	}
	view.SecurePasswords = len(next.Live(ch.Now))
	if len(view.Revoked) > 0 {
		ch.Audit.Note += fmt.Sprintf(", with %s revoked: %q", counted(len(view.Revoked), "secure password"), view.Revoked)
	}
	return f.Err()
}

// newMailboxHash validates a request and returns the hash to be stored, "" if the present one only
// expires, and the password if it was generated. A dry run hashes and generates nothing.
func (a *Account) newMailboxHash(ctx context.Context, in *api.MailboxPassword, f *api.Faults) (stored string, generated api.Secret, err error) {
	given := 0
	for _, is := range [...]bool{in.Password != nil, in.Hash != nil || f.Has("/hash"), in.Generate} {
		if is {
			given++
		}
	}
	switch {
	case given > 1:
		f.Add("/password", "required", "give exactly one of password, hash and generate")
	case given == 0 && !in.MustChange && !f.Has("/password"):
		f.Add("/password", "required", "or hash or generate is needed: give exactly one of them")
	case in.Password != nil && len(f.List) == 0:
		if err := a.checkMailboxPassword(ctx, in.Password, f); err != nil {
			return "", nil, err
		}
	case in.Hash != nil:
		if err := credential.CheckStored(string(in.Hash)); err != nil {
			f.Add("/hash", "invalid_hash", "%v", err)
		}
	}
	if err := f.Err(); err != nil {
		return "", nil, err
	}
	password := in.Password
	switch {
	case in.Hash != nil:
		return string(in.Hash), nil, nil
	case given == 0:
		return "", nil, nil
	case a.DryRun:
		return dryHash, nil, nil
	case in.Generate:
		if password, err = credential.GeneratePassword(); err != nil {
			return "", nil, err
		}
		generated = password
	}
	if stored, err = a.Hasher.Hash(ctx, password); err != nil {
		return "", nil, fmt.Errorf("setting a mailbox password: %w", err)
	}
	return stored, generated, nil
}

// dryHash stands for the hash that a dry run does not compute.
const dryHash = "{ARGON2ID}"

// checkMailboxPassword validates a new password, which also must meet the domain's policy.
func (a *Account) checkMailboxPassword(ctx context.Context, password []byte, f *api.Faults) error {
	a.TryMailboxPassword(password, f)
	cur, known := a.Store.State.Account(a.address)
	rules := a.passwordRules()
	if !known || rules.History == 0 || len(f.List) > 0 {
		return nil
	}
	used, err := a.Hasher.Used(ctx, former(cur.Doc, rules.History+1), password)
	if err != nil {
		return fmt.Errorf("comparing with former passwords: %w", err)
	}
	if used {
		f.Add("/password", "used_before", "was used before: the domain forbids the last %d passwords", rules.History)
	}
	return nil
}

// MaxStrength is the strength of a password that is very hard to guess.
const MaxStrength = credential.MaxStrength

// TryMailboxPassword adds what is wrong with a new password, but not that it was used before, and
// estimates its strength: 0 to [MaxStrength].
func (a *Account) TryMailboxPassword(password []byte, f *api.Faults) (strength int) {
	for _, err := range each(credential.CheckNew(password)) {
		f.Add("/password", "invalid_password", "%v", err)
	}
	if len(f.List) > 0 {
		return 0 // the rest would be about something else
	}
	names := []string{address.Local(a.address)}
	if cur, known := a.Store.State.Account(a.address); known {
		for _, alias := range cur.Doc.Aliases {
			names = append(names, address.Local(alias))
		}
	}
	rules := a.passwordRules()
	for _, fault := range rules.Check(password, names) {
		f.Add("/password", fault.Code, fault.Format, fault.Args...)
	}
	return rules.Strength(password, names)
}

// KeepsPasswords reports whether accounts of the domain can have a mailbox password here.
func (d *Domain) KeepsPasswords() bool { return d.place().Settable(d.Site.NextPassdb) }

func (d *Domain) place() store.PasswordPlace {
	if cur, ok := d.Store.State.Domain(d.name); ok {
		return cur.Doc.MailboxPasswords
	}
	return store.PasswordsOfSite
}

// KeepsPassword reports whether the account's mailbox password is verified here.
func (a *Account) KeepsPassword() bool {
	_, v := a.Store.State.View(a.address)
	return !v.Site(a.Site).NextPassdb
}

// allKept reports whether the mailbox passwords of all accounts are verified here: an account without a
// record cannot log in.
func (d *Domain) allKept() bool {
	place := d.place()
	return place != store.PasswordsStored && place.Settable(d.Site.NextPassdb)
}

// TextPasswordsMove says what a change of who verifies mailbox passwords does.
const TextPasswordsMove = "Other mailbox passwords are valid at once: where Drawbridge verifies them, accounts without one here cannot log in"

// MovesPasswords reports whether a change of a domain makes other mailbox passwords valid at once than
// those before. To stored, nobody's change.
func MovesPasswords(cur, next *store.Domain) bool {
	return cur.MailboxPasswords != next.MailboxPasswords && next.MailboxPasswords != store.PasswordsStored
}

// confirmPlace refuses a change of who verifies mailbox passwords, unless it is confirmed.
func (d *Domain) confirmPlace(cur, next *store.Domain) error {
	if !MovesPasswords(cur, next) || d.DryRun || d.Confirm {
		return nil
	}
	return api.Conflict("confirm_required", "%s", TextPasswordsMove+"; while mailbox_passwords is stored, they can be set before the change").OrRepeat("confirm=true")
}

func (d *Domain) passwordRules() credential.Rules {
	cur, ok := d.Store.State.Domain(d.name)
	if !ok {
		return credential.Rules{}
	}
	return cur.Doc.Passwords.Rules()
}

// former returns the hashes of the latest passwords, the present one first, one less than history:
// the next password will be the other one.
func former(a *store.Account, history int) []string {
	if history <= 1 || a.MailboxHash == "" {
		return nil
	}
	list := append([]string{a.MailboxHash}, a.FormerHashes...)
	return list[:min(len(list), history-1)]
}

// scheme returns the name of a stored hash's scheme.
func scheme(stored string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(stored, "{"), "}")
	return strings.ToUpper(name)
}

// each returns the errors that errors.Join joined.
func each(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}
