package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Delete deletes the domain with its accounts, policies and records, and returns its last state. It
// must be confirmed; a dry run need not.
func (d *Domain) Delete(ctx context.Context) (*Result[api.Domain], error) {
	ctx = context.WithoutCancel(ctx)
	if err := d.Caller.May(ForAdmin); err != nil {
		return nil, err
	}
	cur, ok := d.Store.State.Domain(d.name)
	if err := d.Existing(ok, cur.Rev, "domain"); err != nil {
		return nil, err
	}
	if !d.DryRun && !d.Confirm {
		return nil, api.Conflict("confirm_required", "deleting the domain also deletes %s and all its records", d.belongings()).OrRepeat("confirm=true")
	}
	if err := d.checkUnnamed(append([]string{d.name}, cur.Doc.AliasDomains...)); err != nil {
		return nil, err
	}
	d.names.Lock()
	defer d.names.Unlock()
	// Keys and aliases first: if they outlived the domain, they would be valid for the next domain
	// of that name.
	if err := d.RevokeKeys(ctx, func(k *store.Key) bool { return k.Domain == d.name }); err != nil {
		return nil, err
	}
	if err := d.forgetAddresses(ctx, append([]string{d.name}, cur.Doc.AliasDomains...)); err != nil {
		return nil, err
	}
	accounts := d.addresses()
	err := d.Change(ctx, func(ch *store.Change) error {
		cur, ok = d.Store.State.Domain(d.name)
		if err := d.Existing(ok, cur.Rev, "domain"); err != nil {
			return err
		}
		Describe(ch, "domain.delete", d.name, d.name)
		ch.Diff(cur.Doc, nil)
		ch.DeleteDomain(d.Store.State, d.name, Chunk)
		return nil
	})
	if err != nil {
		return nil, err
	}
	res := &Result[api.Domain]{View: ViewDomain(cur.Doc)}
	if d.DryRun {
		return res, nil
	}
	if err := d.sweep(ctx, d.name); err != nil {
		return nil, err
	}
	d.ReleaseNames(ctx, append([]string{d.name}, cur.Doc.AliasDomains...))
	if err := d.Forget(ctx, d.name, accounts); err != nil {
		d.Log.Warn("deleting the records of a deleted domain", "domain", d.name, "error", err)
	}
	return res, nil
}

// maxNaming is the number of rules and groups that an answer lists.
const maxNaming = 10

// checkUnnamed refuses to delete a domain whose addresses mail rules or groups of other domains
// name. Without them a rule could match all messages, or lack an approver; if they stayed, MAIL
// FROM would prove what a login proves now.
func (d *Domain) checkUnnamed(names []string) error {
	foreign := func(addr string) bool { return slices.Contains(names, address.Domain(addr)) }
	var list []string
	for _, other := range d.Store.State.Domains("", 0) {
		domain := other.Doc.Name
		if domain == d.name {
			continue
		}
		for _, r := range d.Store.State.MailRules(domain) {
			if r.Doc.NamesAny(foreign) {
				list = append(list, "mail rule "+r.Doc.ID+" of "+domain)
			}
		}
		for _, g := range d.Store.State.Groups(domain) {
			if g.Doc.NamesAny(foreign) {
				list = append(list, "group "+g.Doc.Address)
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	more := ""
	if n := len(list) - maxNaming; n > 0 {
		list, more = list[:maxNaming], fmt.Sprintf(" and %d more", n)
	}
	return api.Conflict("in_use", "addresses of the domain are named by %s%s: remove them there first", strings.Join(list, ", "), more)
}

// belongings describes the accounts and secrets that are deleted with the domain.
func (d *Domain) belongings() string {
	accounts := d.Store.State.Accounts(d.name, "", 0)
	secrets, suspended := 0, 0
	for _, a := range accounts {
		secrets += len(a.Doc.Live(d.Time))
		if a.Doc.Suspended {
			suspended++
		}
	}
	st := d.Store.State
	list := fmt.Sprintf("%s (%d suspended), %s, %s", counted(len(accounts), "account"), suspended,
		counted(secrets, "secure password"), counted(len(st.Policies(d.name)), "access policy"))
	for _, mail := range []struct {
		n    int
		noun string
	}{{len(st.MailRules(d.name)), "mail rule"}, {len(st.Groups(d.name)), "group"}, {len(st.HeldIn(d.name)), "held message"}} {
		if mail.n > 0 {
			list += ", " + counted(mail.n, mail.noun)
		}
	}
	return list
}

func (d *Domain) addresses() []string {
	docs := d.Store.State.Accounts(d.name, "", 0)
	names := make([]string, len(docs))
	for i, a := range docs {
		names[i] = a.Doc.Address
	}
	return names
}

// sweep deletes the accounts that are left of a domain that is no longer managed, one chunk per
// transaction.
func (r *Request) sweep(ctx context.Context, domain string) error {
	for len(r.Store.State.Accounts(domain, "", 1)) > 0 && !r.DryRun {
		err := r.change(ctx, ForAdmin, store.ShardOf(domain), func(ch *store.Change) error {
			if r.managed(domain) {
				return nil // created again meanwhile, which sweeps first
			}
			Describe(ch, "domain.sweep", domain, domain)
			ch.DeleteDomain(r.Store.State, domain, Chunk)
			return nil
		})
		if err != nil || r.managed(domain) {
			return err
		}
	}
	return nil
}

// forgetAddresses removes addresses of the domain, by any of its names, from the accounts and
// departments of other domains: they would be granted again if somebody else created the domain.
func (d *Domain) forgetAddresses(ctx context.Context, names []string) error {
	foreign := func(addr string) bool { return slices.Contains(names, address.Domain(addr)) }
	without := func(list []string) []string { return slices.DeleteFunc(slices.Clone(list), foreign) }
	for _, other := range d.Store.State.Domains("", 0) {
		domain := other.Doc.Name
		if domain == d.name {
			continue
		}
		for _, a := range d.Store.State.Accounts(domain, "", 0) {
			if !slices.ContainsFunc(a.Doc.Aliases, foreign) && !slices.ContainsFunc(a.Doc.SendAs, foreign) {
				continue
			}
			err := d.change(ctx, ForAdmin, store.ShardOf(domain), func(ch *store.Change) error {
				cur, ok := d.Store.State.Account(a.Doc.Address)
				if !ok {
					return nil
				}
				next := *cur.Doc
				next.Aliases, next.SendAs = without(next.Aliases), without(next.SendAs)
				Describe(ch, "account.update", domain, next.Address)
				ch.Diff(cur.Doc, &next)
				ch.PutAccount(&next)
				return nil
			})
			if err != nil {
				return err
			}
		}
		for _, department := range d.Store.State.Departments(domain) {
			if !slices.ContainsFunc(department.Doc.SendAs, foreign) {
				continue
			}
			err := d.change(ctx, ForAdmin, store.ShardOf(domain), func(ch *store.Change) error {
				cur, ok := d.Store.State.Department(domain, department.Doc.Path)
				if !ok {
					return nil
				}
				next := *cur.Doc
				next.SendAs = without(next.SendAs)
				Describe(ch, "department.update", domain, next.Path)
				ch.Diff(cur.Doc, &next)
				ch.PutDepartment(domain, &next)
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
