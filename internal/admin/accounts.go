package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// ViewAccount shows the record of an account.
func ViewAccount(a *store.Account) api.Account {
	v := api.Account{
		AccountSettings: api.AccountSettings{
			Address: a.Address, DisplayName: a.DisplayName, Suspended: a.Suspended, Departments: list(a.Departments), Aliases: list(a.Aliases), SendAs: list(a.SendAs),
			Protocols: viewProtocols(a.Protocols), SecurePasswords: secureMode(a),
		},
		MailboxPasswordSet: a.MailboxHash != "", MustChangePassword: a.MustChange, SecurePasswordCount: len(a.Live(time.Now())), CreatedAt: a.CreatedAt,
	}
	v.Preset = presetOf(&v.Protocols)
	return v
}

// secureMode is the account's own choice; without one it is optional.
func secureMode(a *store.Account) string {
	if a.Secure == "" {
		return string(access.SecureOptional)
	}
	return string(a.Secure)
}

// Accounts returns one page of the accounts that have a record, by address.
func (d *Domain) Accounts(p Page) (*api.List[api.Account], error) {
	after, err := p.after()
	if err != nil {
		return nil, err
	}
	return PageOf(p, d.Store.State.Accounts(d.name, after, p.limit()+1), func(a *store.Account) string { return a.Address }, d.viewWithEffective)
}

// Record returns the account's record.
func (a *Account) Record() (*Result[api.Account], error) {
	cur, ok := a.Store.State.Account(a.address)
	if !ok {
		return nil, errNoRecord()
	}
	return &Result[api.Account]{View: a.viewWithEffective(cur.Doc), Rev: cur.Rev}, nil
}

func errNoRecord() error {
	return api.Missing("the account has no settings of its own; its effective settings are those of the domain")
}

// checkListed refuses to create a record for an address where accounts are listed: it is probably
// misspelled.
func (d *Domain) checkListed(addr string) error {
	cur, _ := d.Store.State.Domain(d.name)
	listed := d.allKept() || cur.Doc != nil && cur.Doc.Accounts == store.AccountsListed
	if !listed || d.Create && d.Caller.Role != store.RoleSelf {
		return nil
	}
	return api.Conflict("unknown_account", "there is no account %s, and the accounts of %s are listed here: check the spelling", addr, d.name).OrRepeat("create=true")
}

// unknownWarning reports that a record is created for an address that is another name of an account so
// far, or that nothing knows: none of the domain's recent logins, unless they were refused, is of it.
// There is no warning if the caller said that the account is new, or if the records cannot be read.
func (a *Account) unknownWarning(ctx context.Context) []api.Warning {
	if a.Create || a.Caller.Role == store.RoleSelf {
		return nil
	}
	if owner := a.Person(a.address); owner != a.address {
		return []api.Warning{{Code: "separate_account", Detail: fmt.Sprintf("%s was another name of %s. It is an account of its own now: logins under it follow its settings, not those of %s.", a.address, owner, owner)}}
	}
	records, _, err := a.Journal.Records(ctx, store.RecordQuery{Domain: a.name, Limit: recentLogins})
	if err != nil || slices.ContainsFunc(records, func(r store.LoginRecord) bool { return r.Account == a.address && r.Outcome != access.Deny }) {
		return nil
	}
	return []api.Warning{{Code: "unknown_address", Detail: fmt.Sprintf("%s had no settings here, and no recent login: check the spelling of the address.", a.address)}}
}

// aliasWarnings reports new aliases that are accounts of the domain already, and stay it.
func (a *Account) aliasWarnings(before, after []string) (warnings []api.Warning) {
	for _, alias := range after {
		if _, exists := a.Store.State.Account(alias); !exists || slices.Contains(before, alias) || address.Domain(alias) != a.name {
			continue
		}
		warnings = append(warnings, api.Warning{Code: "alias_is_account", Detail: fmt.Sprintf(
			"%s has settings of its own and stays an account: logins under it are not logins of %s, which may only send from it.", alias, a.address)})
	}
	return warnings
}

// NewAccount is the record of an account that has none yet.
func NewAccount(addr string, ch *store.Change) *store.Account {
	return &store.Account{
		Address: addr, Departments: []string{}, Aliases: []string{}, Protocols: access.Switches{},
		Secure: access.SecureOptional, CreatedAt: ch.Now,
	}
}

// ReadAccount validates settings and returns the record with them. Secrets and the mailbox password
// stay as they are.
func (d *Domain) ReadAccount(in *api.AccountSettings, cur *store.Account, f *api.Faults) *store.Account {
	return d.readAccount(in, cur, d.HasDepartment, f)
}

func (d *Domain) readAccount(in *api.AccountSettings, cur *store.Account, exists func(department string) bool, f *api.Faults) *store.Account {
	next := new(store.Account)
	*next = *cur
	next.DisplayName, next.Suspended = in.DisplayName, in.Suspended
	CheckText(in.DisplayName, "/display_name", f)
	next.Departments = make([]string, 0, len(in.Departments))
	for i, path := range in.Departments {
		switch pointer := api.At("/departments", i); {
		case !exists(path):
			f.Add(pointer, "unknown_department", "there is no such department: create it first")
		case slices.Contains(next.Departments, path):
			f.Add(pointer, "duplicate", "is named twice: leave it out")
		default:
			next.Departments = append(next.Departments, path)
		}
	}
	next.Aliases = d.readAliases(in.Aliases, next, cur, f)
	next.SendAs = d.readSendAs(in.SendAs, cur.SendAs, f)
	applyPreset(&in.Protocols, in.Preset, "", f)
	next.Protocols = switchesOf(&in.Protocols)
	if next.Secure = access.SecureMode(in.SecurePasswords); next.Secure == "" {
		next.Secure = access.SecureOptional
	}
	if len(cur.Batches) > 0 {
		next.Batches = unmark(cur.Batches, changedSettings(cur, next))
	}
	return next
}

// Put creates or replaces the account's record. edit receives the current view, nil for none.
func (a *Account) Put(ctx context.Context, edit Edit[api.Account]) (*Result[api.Account], error) {
	return a.edit(ctx, ForDomain, func(cur *store.Account, f *api.Faults) (*api.Account, error) {
		if cur == nil {
			return edit(nil, f)
		}
		view := ViewAccount(cur)
		return edit(&view, f)
	})
}

// Patch changes the account, or creates its record. The view that edit receives has no preset: it
// would contradict a change of the switches. Role self may change secure_passwords only.
func (a *Account) Patch(ctx context.Context, edit Edit[api.Account]) (*Result[api.Account], error) {
	var warnings []api.Warning
	res, err := a.edit(ctx, ForDomain|ForSelf, func(cur *store.Account, f *api.Faults) (*api.Account, error) {
		warnings = nil
		self := a.Caller.Role == store.RoleSelf
		if cur == nil && self && a.allKept() {
			return nil, errNoRecord() // role self creates none
		}
		if cur == nil {
			if err := a.checkListed(a.address); err != nil {
				return nil, err
			}
			warnings = a.unknownWarning(ctx)
		}
		view := patchable(a.address, cur)
		before := view.AccountSettings
		in, err := edit(&view, f)
		if err != nil || !self {
			return in, err
		}
		if !onlySecurePasswords(before, in.AccountSettings) {
			return nil, api.Forbidden("a key of role self may change secure_passwords only")
		}
		if f.Has("/secure_passwords") {
			return in, nil
		}
		return in, a.mayChoose(cur, before.SecurePasswords, in.SecurePasswords)
	})
	res.View.Warnings = append(warnings, res.View.Warnings...)
	return res, err
}

// mayChoose refuses the owner of the account to change its mode of secure passwords without a second
// factor, to lower it while the domain enforces them, and to lower it unconfirmed (F7).
func (a *Account) mayChoose(cur *store.Account, before, after string) error {
	if before == after {
		return nil
	}
	if err := a.stepUp(); err != nil {
		return err
	}
	if after == string(access.SecureRequired) || before == string(access.SecureOff) {
		return nil
	}
	_, v := a.Store.State.View(a.address)
	if required, by := v.Rules.SecureRequired(a.address, v.Account.Facts(new(access.Account))); required && by == "domain" {
		return api.Conflict("enforced", "secure passwords are enforced by the domain, so they cannot be switched off")
	}
	if a.Confirm || a.DryRun {
		return nil
	}
	what := "the mailbox password would open mail programs again"
	if cur != nil && after == string(access.SecureOff) {
		what = counted(len(cur.Live(a.Time)), "secure password") + " would become inactive, and " + what
	}
	return api.Conflict("confirm_required", "%s", what).OrRepeat("confirm=true")
}

func onlySecurePasswords(before, after api.AccountSettings) bool {
	after.SecurePasswords = before.SecurePasswords
	return Same(before, after)
}

// patchable shows a record, nil for none, as a patch changes it.
func patchable(addr string, cur *store.Account) api.Account {
	if cur == nil {
		return api.Account{AccountSettings: api.AccountSettings{Address: addr, SecurePasswords: string(access.SecureOptional)}}
	}
	view := ViewAccount(cur)
	view.Preset = ""
	return view
}

// edit makes one change of the account's record. edit receives the current record, nil for none.
func (a *Account) edit(ctx context.Context, allowed Roles, edit func(cur *store.Account, f *api.Faults) (*api.Account, error)) (*Result[api.Account], error) {
	res := &Result[api.Account]{}
	var changed *store.Account
	err := a.changeFor(ctx, allowed, a.DryRun, func(ch *store.Change) error {
		cur, exists := a.Store.State.Account(a.address)
		if err := a.Match(exists, cur.Rev); err != nil {
			return err
		}
		var f api.Faults
		in, err := edit(cur.Doc, &f)
		if err != nil {
			return err
		}
		if in.Address != "" {
			if addr, err := address.Parse(in.Address, a.DefaultDomain); err != nil || a.Store.State.Canonical(addr) != a.address {
				f.Add("/address", "conflict", "is not the one in the URL, and cannot be changed: create the new account and delete this one")
			}
		}
		base := cur.Doc
		if !exists {
			base = NewAccount(a.address, ch)
		}
		next := a.ReadAccount(&in.AccountSettings, base, &f)
		if err := f.Err(); err != nil {
			return err
		}
		*res = Result[api.Account]{View: ViewAccount(next), Rev: ch.Rev, Created: !exists}
		res.View.Warnings = a.aliasWarnings(base.Aliases, next.Aliases)
		if exists && Same(cur.Doc, next) {
			res.Rev = cur.Rev
			return nil
		}
		Describe(ch, "account.update", a.name, a.address)
		if !exists {
			Describe(ch, "account.create", a.name, a.address)
		}
		ch.Diff(cur.Doc, next)
		ch.PutAccount(next)
		if changed = nil; !Same(base.Protocols, next.Protocols) || base.Suspended != next.Suspended || base.Secure != next.Secure {
			changed = next
		}
		return nil
	})
	if err == nil && a.DryRun && changed != nil {
		res.View.CutOff, err = a.cutOff(ctx, changed)
	}
	return res, err
}

// Delete deletes the account's record and secrets, and returns its former view. Its secrets are
// lost, so it must be confirmed; a dry run need not.
func (a *Account) Delete(ctx context.Context) (*Result[api.Account], error) {
	if err := a.Caller.May(ForDomain); err != nil {
		return nil, err
	}
	cur, err := a.deletable()
	if err != nil {
		return nil, err
	}
	if !a.DryRun && !a.Confirm {
		return nil, api.Conflict("confirm_required", "deleting the account also deletes %s", a.belongings(cur)).OrRepeat("confirm=true")
	}
	// Keys first: a key that outlived its account would open the next account of that name.
	if err := a.RevokeKeys(ctx, func(k *store.Key) bool { return k.Account == a.address }); err != nil {
		return nil, err
	}
	res := &Result[api.Account]{}
	err = a.Change(ctx, func(ch *store.Change) error {
		cur, err := a.deletable()
		if err != nil {
			return err
		}
		res.View = ViewAccount(cur)
		Describe(ch, "account.delete", a.name, a.address)
		ch.Audit.Note = fmt.Sprintf("with %d secure passwords", len(cur.Live(ch.Now)))
		ch.Diff(cur, nil)
		ch.DeleteAccount(a.address)
		return nil
	})
	if err == nil && !a.DryRun {
		a.ForgetAccounts(ctx, a.address)
	}
	return res, err
}

// ForgetAccounts removes what is stored of deleted accounts beside their documents: the next account
// of a name begins without it. A failure is logged.
func (d *Domain) ForgetAccounts(ctx context.Context, accounts ...string) {
	if err := d.Forget(context.WithoutCancel(ctx), "", accounts); err != nil {
		d.Log.Warn("deleting last uses and usual logins of deleted accounts", "domain", d.name, "error", err)
	}
}

// deletable returns the record if the account may be deleted.
func (a *Account) deletable() (*store.Account, error) {
	cur, ok := a.Store.State.Account(a.address)
	if !ok {
		return nil, errNoRecord()
	}
	if err := a.Match(true, cur.Rev); err != nil {
		return nil, err
	}
	return cur.Doc, CheckDeletable(cur.Doc)
}

// CheckDeletable refuses to delete a suspended account: it could log in again by its domain's
// rules.
func CheckDeletable(a *store.Account) error {
	if !a.Suspended {
		return nil
	}
	return api.Conflict("suspended", "the account %s is suspended, and deleting it would lift the suspension: lift it first if that is intended", a.Address)
}

// belongings describes the secrets and keys that are deleted with the account.
func (a *Account) belongings(cur *store.Account) string {
	list := []string{"its settings"}
	if live := cur.Live(a.Time); len(live) > 0 {
		labels := make([]string, len(live))
		for i := range live {
			labels[i] = live[i].Label
		}
		list = append(list, fmt.Sprintf("%s (%s)", counted(len(live), "secure password"), strings.Join(labels, ", ")))
	}
	if cur.MailboxHash != "" {
		list = append(list, "its mailbox password")
	}
	keys := 0
	for _, k := range a.Store.State.Keys() {
		if k.Doc.Account == a.address {
			keys++
		}
	}
	if keys > 0 {
		list = append(list, counted(keys, "API key"))
	}
	return strings.Join(list, ", ")
}
