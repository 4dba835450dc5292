package adminapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

func listAccounts(c *call) (*answer, error) {
	after, err := c.after()
	if err != nil {
		return nil, err
	}
	return listed(c, c.Store.State.Accounts(c.domain, after, c.limit()+1), func(a *store.Account) string { return a.Address }, c.viewEffective)
}

func getAccount(c *call) (*answer, error) {
	a, ok := c.Store.State.Account(c.account)
	if !ok {
		return nil, errNoRecord()
	}
	return found(a.Rev, c.viewEffective(a.Doc)), nil
}

// viewEffective shows an account with what applies to it.
func (c *call) viewEffective(a *store.Account) api.Account {
	view := viewAccount(a)
	_, v := c.Store.State.View(a.Address)
	if !v.Known {
		return view // its domain was just deleted
	}
	acc := v.Account.Facts(new(access.Account))
	on := func(p access.Protocol) bool {
		on, _ := v.Rules.ProtocolOn(p, acc)
		return on
	}
	third, _ := c.thirdPartyFor(v.Rules.Applying(a.Address, acc))
	view.Effective = &api.EffectiveSummary{
		IMAP: on(access.IMAP), POP3: on(access.POP3), SMTP: on(access.SMTP), Sieve: on(access.Sieve),
		SecurePasswords: view.SecurePasswords, ThirdPartyAccess: third.Value,
	}
	if required, _ := v.Rules.SecureRequired(a.Address, acc); required {
		view.Effective.SecurePasswords = string(access.SecureRequired)
	}
	return view
}

// unlisted refuses to give a record to an address that has none, where accounts are listed: it is
// probably misspelled.
func (c *call) unlisted(addr string) error {
	d, _ := c.Store.State.Domain(c.domain)
	listed := !c.Site.NextPassdb || d.Doc != nil && d.Doc.Accounts == store.AccountsListed
	if !listed || c.flag("create") && c.id.role != store.RoleSelf {
		return nil
	}
	return api.Conflict("unknown_account", "there is no account %s, and the accounts of %s are listed here: check the spelling; ?create=true creates the account", addr, c.domain)
}

func errNoRecord() error {
	return api.Refuse(http.StatusNotFound, "not_found", "the account has no record of its own; its effective settings answer")
}

// presets are the pairs that can be switched at once (F3): what they set imap, pop3 and smtp to.
func presets(name string) (imap, pop3, smtp, ok bool) {
	switch name {
	case "imap-smtp":
		return true, false, true, true
	case "pop3-smtp":
		return false, true, true, true
	case "all":
		return true, true, true, true
	case "none":
		return false, false, false, true
	default:
		return false, false, false, false
	}
}

// presetOf returns the preset that explains switches, or "".
func presetOf(p *api.Protocols) string {
	if p.IMAP == nil || p.POP3 == nil || p.SMTP == nil {
		return ""
	}
	for _, name := range []string{"imap-smtp", "pop3-smtp", "all", "none"} {
		if imap, pop3, smtp, _ := presets(name); *p.IMAP == imap && *p.POP3 == pop3 && *p.SMTP == smtp {
			return name
		}
	}
	return ""
}

// preset puts a preset over switches, which must not say otherwise.
func applyPreset(p *api.Protocols, name, pointer string, f *api.Faults) {
	imap, pop3, smtp, ok := presets(name)
	if !ok {
		return
	}
	for _, s := range []struct {
		on   **bool
		want bool
	}{{&p.IMAP, imap}, {&p.POP3, pop3}, {&p.SMTP, smtp}} {
		if *s.on != nil && **s.on != s.want {
			f.Add(pointer+"/preset", "conflict", "and protocols say different things: give one of them")
		}
		*s.on = &s.want
	}
}

func viewAccount(a *store.Account) api.Account {
	v := api.Account{
		AccountSettings: api.AccountSettings{
			Address: a.Address, Suspended: a.Suspended, Departments: list(a.Departments), Aliases: list(a.Aliases), SendAs: list(a.SendAs),
			Protocols: viewProtocols(a.Protocols), SecurePasswords: secureMode(a),
		},
		MailboxPasswordSet: a.MailboxHash != "", SecurePasswordCount: len(a.Live()), CreatedAt: a.CreatedAt,
	}
	v.Preset = presetOf(&v.Protocols)
	return v
}

// secureMode is the account's own choice; a record without one leaves it open.
func secureMode(a *store.Account) string {
	if a.Secure == "" {
		return string(access.SecureOptional)
	}
	return string(a.Secure)
}

// record puts what was sent over an account's record. What a record keeps beside (secrets, the
// mailbox password) stays. The function given tells which departments there are.
func (c *call) record(in *api.AccountSettings, cur *store.Account, exists func(department string) bool, f *api.Faults) *store.Account {
	next := new(store.Account)
	*next = *cur
	next.Suspended = in.Suspended
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
	next.Aliases = c.aliases(in.Aliases, next, cur, f)
	next.SendAs = c.sendAs(in.SendAs, cur.SendAs, "", f)
	applyPreset(&in.Protocols, in.Preset, "", f)
	next.Protocols = switchesOf(&in.Protocols)
	if next.Secure = access.SecureMode(in.SecurePasswords); next.Secure == "" {
		next.Secure = access.SecureOptional
	}
	if len(cur.Batches) > 0 {
		next.Batches = unmark(cur.Batches, changed(cur, next))
	}
	return next
}

// aliases reads an account's further sender addresses. Only administrators of the site may give it
// addresses of another domain; whoever may not is not told which other domains there are.
func (c *call) aliases(in []string, next, cur *store.Account, f *api.Faults) []string {
	list := make([]string, 0, len(in))
	for i, alias := range in {
		pointer := api.At("/aliases", i)
		addr, err := address.Parse(alias, c.domain)
		addr = c.Store.State.Canonical(addr)
		kept := slices.Contains(cur.Aliases, addr)
		switch {
		case err != nil:
			f.Add(pointer, "invalid_address", "%v", err)
		case address.Local(addr) == "*":
			f.Add(pointer, "invalid_address", "is no single address: put *@domain into send_as")
		case addr == next.Address:
			f.Add(pointer, "conflict", "is the account's own address, by its own or an alias domain: leave it out")
		case slices.Contains(list, addr):
			f.Add(pointer, "duplicate", "is named twice: leave it out")
		case !kept && address.Domain(addr) != c.domain && c.id.role != store.RoleAdmin:
			f.Add(pointer, "outside_domain", "is no address of this domain or its alias domains")
		case !kept && !c.managed(address.Domain(addr)):
			f.Add(pointer, "unmanaged_domain", "is in a domain that is not managed: create the domain first")
		default:
			list = append(list, addr)
		}
	}
	return list
}

// sendAs validates the sender addresses granted to an account or a department. Only administrators
// of the site may grant addresses outside the domain; entries that were there before are kept.
func (c *call) sendAs(in, cur []string, pointer string, f *api.Faults) []string {
	list := make([]string, 0, len(in))
	for i, entry := range in {
		pointer := api.At(pointer+"/send_as", i)
		// Any address of a domain is written with the local part "*", which is also an atom of RFC
		// 5322.
		addr, err := address.Parse(entry, c.domain)
		addr = c.Store.State.Canonical(addr)
		switch {
		case err != nil:
			f.Add(pointer, "invalid_address", "%v", err)
		case slices.Contains(list, addr):
			f.Add(pointer, "duplicate", "is named twice: leave it out")
		case address.Domain(addr) != c.domain && c.id.role != store.RoleAdmin && !slices.Contains(cur, addr):
			f.Add(pointer, "outside_domain", "is no address of this domain or its alias domains")
		default:
			list = append(list, addr)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list
}

// department reports whether the domain has a department, or would have it.
func (c *call) department(path string) bool {
	if c.planned.departments != nil {
		return c.planned.departments[path]
	}
	_, ok := c.Store.State.Department(c.domain, path)
	return ok
}

// editAccount makes one change of the call's account. edit is given the current record, nil for
// none.
func (c *call) editAccount(edit func(cur *store.Account, f *api.Faults) (*api.Account, error)) (*answer, error) {
	ans := &answer{etag: true}
	err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		if !c.managed(c.domain) {
			return api.NotFound("domain")
		}
		cur, exists := c.Store.State.Account(c.account)
		if err := c.match(exists, cur.Rev); err != nil {
			return err
		}
		var f api.Faults
		in, err := edit(cur.Doc, &f)
		if err != nil {
			return err
		}
		if in.Address != "" {
			if addr, err := address.Parse(in.Address, c.DefaultDomain); err != nil || c.Store.State.Canonical(addr) != c.account {
				f.Add("/address", "conflict", "is not the one in the URL, and cannot be changed: create the new account and delete this one")
			}
		}
		base := cur.Doc
		if !exists {
			base = newRecord(c.account, ch)
		}
		next := c.record(&in.AccountSettings, base, c.department, &f)
		if err := f.Err(); err != nil {
			return err
		}
		ans.status, ans.rev, ans.location, ans.body = 0, ch.Rev, "", viewAccount(next)
		if exists && same(cur.Doc, next) {
			ans.rev = cur.Rev
			return nil
		}
		audit(ch, "account.update", c.domain, c.account)
		if !exists {
			ans.status, ans.location = http.StatusCreated, "/v1/accounts/"+url.PathEscape(c.account)
			audit(ch, "account.create", c.domain, c.account)
		}
		ch.Diff(cur.Doc, next)
		ch.PutAccount(next)
		return nil
	})
	return ans, err
}

// newRecord is the record of an account that has none yet.
func newRecord(addr string, ch *store.Change) *store.Account {
	return &store.Account{
		Address: addr, Departments: []string{}, Aliases: []string{}, Protocols: access.Switches{},
		Secure: access.SecureOptional, CreatedAt: ch.Now,
	}
}

func putAccount(c *call) (*answer, error) {
	return c.editAccount(func(cur *store.Account, f *api.Faults) (*api.Account, error) {
		if cur != nil && cur.Suspended && !rest.Present(c.body.Get("suspended")) && !c.flag("confirm") {
			return nil, api.Conflict("confirm_required", "the account is suspended, and the new record does not say suspended, which would lift the suspension: send it, or repeat with ?confirm=true")
		}
		return rest.Decode[api.Account](c.schemas, c.body, f), nil
	})
}

func patchAccount(c *call) (*answer, error) {
	if c.id.role == store.RoleSelf {
		for _, f := range c.body.Fields {
			if f.Name != "secure_passwords" {
				return nil, api.Forbidden("a key of role self may change secure_passwords only")
			}
		}
	}
	return c.editAccount(func(cur *store.Account, f *api.Faults) (*api.Account, error) {
		if cur == nil && c.id.role == store.RoleSelf && !c.Site.NextPassdb {
			return nil, errNoRecord() // nobody is made an account by themselves
		}
		if cur == nil {
			if err := c.unlisted(c.account); err != nil {
				return nil, err
			}
		}
		return c.patchRecord(cur, c.account, c.body, f)
	})
}

// patchRecord puts a merge patch over an account's record, nil for none.
func (c *call) patchRecord(cur *store.Account, addr string, with *rest.Node, f *api.Faults) (*api.Account, error) {
	view := api.Account{AccountSettings: api.AccountSettings{Address: addr, SecurePasswords: string(access.SecureOptional)}}
	if cur != nil {
		view = viewAccount(cur)
		view.Preset = "" // told by the switches; kept, it would speak against a patch of them
	}
	in, err := rest.Patch(c.schemas, &view, with, f)
	if err != nil || in.Preset == "" {
		return in, err
	}
	// A preset goes over the switches as they were, but not over those in the same patch.
	sent := rest.Decode[api.Account](c.schemas, with, &api.Faults{}).Protocols
	in.Protocols.IMAP, in.Protocols.POP3, in.Protocols.SMTP = sent.IMAP, sent.POP3, sent.SMTP
	return in, nil
}

func deleteAccount(c *call) (*answer, error) {
	cur, ok := c.Store.State.Account(c.account)
	if !ok {
		return nil, errNoRecord()
	}
	if err := c.match(true, cur.Rev); err != nil {
		return nil, err
	}
	if err := mayDelete(cur.Doc); err != nil {
		return nil, err
	}
	if !c.dryRun && !c.flag("confirm") {
		return nil, api.Conflict("confirm_required", "deleting the account also deletes %s: repeat with ?confirm=true", c.losses(cur.Doc))
	}
	// Keys first: one that outlived its account would open the next of that name.
	err := c.revokeKeys(c.domain, func(k *store.Key) bool { return k.Account == c.account })
	if err != nil {
		return nil, err
	}
	ans := &answer{}
	err = c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		cur, ok := c.Store.State.Account(c.account)
		if !ok {
			return errNoRecord()
		}
		if err := c.match(true, cur.Rev); err != nil {
			return err
		}
		if err := mayDelete(cur.Doc); err != nil {
			return err
		}
		ans.body = viewAccount(cur.Doc)
		audit(ch, "account.delete", c.domain, c.account)
		ch.Audit.Note = fmt.Sprintf("with %d secure passwords", len(cur.Doc.Live()))
		ch.Diff(cur.Doc, nil)
		ch.DeleteAccount(c.account)
		return nil
	})
	return ans, err
}

// mayDelete refuses to delete a suspended account, which could log in again by its domain's rules.
func mayDelete(a *store.Account) error {
	if !a.Suspended {
		return nil
	}
	return api.Conflict("suspended", "the account %s is suspended, and deleting it would lift the suspension: lift it first if that is meant", a.Address)
}

// losses says what is deleted with an account.
func (c *call) losses(a *store.Account) string {
	list := []string{"its settings"}
	if live := a.Live(); len(live) > 0 {
		labels := make([]string, len(live))
		for i := range live {
			labels[i] = live[i].Label
		}
		list = append(list, fmt.Sprintf("%s (%s)", counted(len(live), "secure password"), strings.Join(labels, ", ")))
	}
	if a.MailboxHash != "" {
		list = append(list, "its mailbox password")
	}
	keys := 0
	for _, k := range c.Store.State.Keys() {
		if k.Doc.Account == a.Address {
			keys++
		}
	}
	if keys > 0 {
		list = append(list, counted(keys, "API key"))
	}
	return strings.Join(list, ", ")
}

// getEffective tells every setting with what set it. It reads the same compiled rules that
// decisions do.
func getEffective(c *call) (*answer, error) {
	_, v := c.Store.State.View(c.account)
	if !v.Known {
		return nil, api.NotFound("domain")
	}
	record, acc := v.Account.Account(), v.Account.Facts(new(access.Account))
	if record == nil {
		record = &store.Account{}
	}
	protocol := func(p access.Protocol) api.Setting[bool] {
		on, by := v.Rules.ProtocolOn(p, acc)
		return own(api.Setting[bool]{Value: on, SetBy: by}, record, "protocols."+p.String())
	}
	e := api.Effective{
		Address: c.account, Record: v.Account.Exists(),
		Suspended:   own(set(record.Suspended, false, "account"), record, "suspended"),
		Departments: api.Setting[[]string]{Value: list(record.Departments), SetBy: "default"},
		Protocols:   api.EffectiveProtocols{IMAP: protocol(access.IMAP), POP3: protocol(access.POP3), SMTP: protocol(access.SMTP), Sieve: protocol(access.Sieve)},
		// A domain's settings are always written out: as good as the default is the default.
		MaxSecurePasswords: set(maxSecurePasswords(v.Settings), store.DefaultMaxSecurePasswords, "domain"),
		SenderCheck:        set(viewDomain(v.Settings).SenderCheck, "both", "domain"),
		TraceHeader:        set(v.Settings.TraceHeader, false, "domain"),
	}
	if len(record.Departments) > 0 {
		e.Departments.SetBy = "account"
		e.Departments = own(e.Departments, record, "departments")
	}
	e.SecurePasswords = set(secureMode(record), string(access.SecureOptional), "account")
	if required, by := v.Rules.SecureRequired(c.account, acc); required {
		e.SecurePasswords = api.Setting[string]{Value: string(access.SecureRequired), SetBy: by}
	}
	e.SecurePasswords = own(e.SecurePasswords, record, "secure_passwords")
	applying := v.Rules.Applying(c.account, acc)
	e.ThirdPartyAccess, e.SecureLoginIPs = c.thirdPartyFor(applying)
	e.Policies = c.policiesOf(record.Departments, applying)
	return &answer{body: e}, nil
}

func set[T comparable](value, fallback T, by string) api.Setting[T] {
	if value == fallback {
		by = "default"
	}
	return api.Setting[T]{Value: value, SetBy: by}
}

// thirdPartyFor tells whether third-party clients are kept from an account wherever they are, by
// which of the policies that apply, and which addresses it excepts.
func (c *call) thirdPartyFor(applying []string) (api.Setting[string], api.Setting[[]string]) {
	switched, except := api.Setting[string]{Value: "allow", SetBy: "default"}, api.Setting[[]string]{Value: []string{}, SetBy: "default"}
	for _, p := range c.Store.State.Policies(c.domain) {
		if p.Doc.ID == store.ManagedThirdParty && switched.SetBy == "default" {
			switched.SetBy = p.Doc.ID
		}
		if !keepsOut(p.Doc) || !slices.Contains(applying, p.Doc.ID) {
			continue
		}
		if p.Doc.Mode == access.Enforce {
			return api.Setting[string]{Value: "block", SetBy: p.Doc.ID}, api.Setting[[]string]{Value: list(p.Doc.ExceptIPs), SetBy: p.Doc.ID}
		}
		switched, except = api.Setting[string]{Value: "report", SetBy: p.Doc.ID}, api.Setting[[]string]{Value: list(p.Doc.ExceptIPs), SetBy: p.Doc.ID}
	}
	return switched, except
}

// keepsOut reports whether a policy refuses third-party clients wherever they are, but for its
// exceptions, on every protocol.
func keepsOut(p *store.Policy) bool {
	return p.Type == access.Blacklist && len(p.IPs)+len(p.Regions)+len(p.Protocols) == 0 &&
		(len(p.Clients) == 0 || slices.Contains(p.Clients, access.ClientThirdParty))
}
