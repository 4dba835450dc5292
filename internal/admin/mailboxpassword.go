package admin

import (
	"context"
	"fmt"
	"strings"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/store"
)

// SetMailboxPassword sets the mailbox password that is stored here, by a password or its hash. The
// caller clears the password.
func (a *Account) SetMailboxPassword(ctx context.Context, in *api.MailboxPassword, f *api.Faults) (*Result[api.MailboxPasswordSet], error) {
	if err := a.Caller.May(ForDomain); err != nil {
		return nil, err // before the hash is computed
	}
	if a.Site.NextPassdb {
		return nil, api.Conflict("next_passdb", "mailbox passwords belong to the site's next passdb: set it there, or set login.next_passdb = false to keep them here")
	}
	given, stored := in.Password != nil, string(in.Hash)
	switch {
	case given == (in.Hash != nil) && !f.Has("/hash"):
		f.Add("/password", "required", "or hash is needed: give exactly one of them")
	case given && len(f.List) == 0:
		for _, err := range each(credential.CheckNew(in.Password)) {
			f.List = append(f.List, api.Fault{Pointer: "/password", Code: "invalid_password", Detail: err.Error()})
		}
	case in.Hash != nil:
		if err := credential.CheckStored(stored); err != nil {
			f.Add("/hash", "invalid_hash", "%v", err)
		}
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	if given && !a.DryRun {
		var err error
		if stored, err = a.Hasher.Hash(ctx, in.Password); err != nil {
			return nil, fmt.Errorf("setting a mailbox password: %w", err)
		}
	}
	scheme, _, _ := strings.Cut(strings.TrimPrefix(stored, "{"), "}")
	if stored == "" { // a dry run
		scheme = "ARGON2ID"
	}
	scheme = strings.ToUpper(scheme)
	res := &Result[api.MailboxPasswordSet]{View: api.MailboxPasswordSet{Address: a.address, Scheme: scheme}}
	err := a.Change(ctx, func(ch *store.Change) error {
		cur, ok := a.Store.State.Account(a.address)
		if !ok {
			return api.Missing("there is no such account: create it first")
		}
		if err := a.match(true, cur.Rev); err != nil {
			return err
		}
		next := *cur.Doc
		next.MailboxHash, next.MailboxSetAt = stored, ch.Now
		res.Rev = ch.Rev
		Describe(ch, "mailbox_password.set", a.name, a.address)
		ch.Audit.Note = scheme
		ch.PutAccount(&next)
		return nil
	})
	return res, err
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
