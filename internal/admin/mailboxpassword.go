package admin

import (
	"context"
	"fmt"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/store"
)

// SetMailboxPassword sets the mailbox password that is stored here, or expires the present one. A
// password must meet the domain's policy; a generated one need not. The caller clears the passwords
// that it sent and received.
func (a *Account) SetMailboxPassword(ctx context.Context, in *api.MailboxPassword, f *api.Faults) (*Result[api.MailboxPasswordSet], error) {
	if err := a.Caller.May(ForDomain); err != nil {
		return nil, err // before the hash is computed
	}
	if a.Site.NextPassdb {
		return nil, api.Conflict("next_passdb", "mailbox passwords belong to the site's next passdb: set it there, or set login.next_passdb = false to keep them here")
	}
	stored, generated, err := a.newMailboxHash(ctx, in, f)
	if err != nil {
		return nil, err
	}
	res := &Result[api.MailboxPasswordSet]{View: api.MailboxPasswordSet{Address: a.address, Password: generated, MustChange: in.MustChange}}
	err = a.Change(ctx, func(ch *store.Change) error {
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
		ch.PutAccount(&next)
		return nil
	})
	return res, err
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
	for _, err := range each(credential.CheckNew(password)) {
		f.Add("/password", "invalid_password", "%v", err)
	}
	if len(f.List) > 0 {
		return nil // the rest would be about something else
	}
	names := []string{address.Local(a.address)}
	cur, known := a.Store.State.Account(a.address)
	if known {
		for _, alias := range cur.Doc.Aliases {
			names = append(names, address.Local(alias))
		}
	}
	rules := a.passwordRules()
	for _, fault := range rules.Check(password, names) {
		f.Add("/password", fault.Code, "%s", fault.Detail)
	}
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
