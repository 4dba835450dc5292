package adminapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

func viewSecurePassword(p *store.SecurePassword, uses map[string]store.LastUse) api.SecurePassword {
	use := uses[p.ID]
	return api.SecurePassword{
		ID: p.ID, Label: p.Label, CreatedAt: p.CreatedAt,
		LastUsedAt: use.Time, LastUsedIP: use.IP, LastUsedProtocol: use.Protocol,
	}
}

func listSecurePasswords(c *call) (*answer, error) {
	after, err := c.after()
	if err != nil {
		return nil, err
	}
	uses, err := c.Journal.LastUses(c.ctx, c.account)
	if err != nil {
		return nil, err
	}
	items := []api.SecurePassword{}
	if a, ok := c.Store.State.Account(c.account); ok {
		live := a.Doc.Live()
		if i := slices.IndexFunc(live, func(p store.SecurePassword) bool { return p.ID == after }); i >= 0 {
			live = live[i+1:]
		}
		for i := range live {
			items = append(items, viewSecurePassword(&live[i], uses))
		}
	} else if !c.Site.NextPassdb {
		return nil, errNoRecord()
	}
	return &answer{body: paged(items, c.limit(), func(p api.SecurePassword) string { return p.ID })}, nil
}

// live returns a live secure password of the call's account, with its record.
func (c *call) live() (cur store.Revised[store.Account], p *store.SecurePassword, err error) {
	cur, ok := c.Store.State.Account(c.account)
	if ok {
		for i := range cur.Doc.Secrets {
			if p := &cur.Doc.Secrets[i]; p.ID == c.r.PathValue("id") && p.Live() {
				return cur, p, nil
			}
		}
	}
	return cur, nil, api.NotFound("secure password")
}

func getSecurePassword(c *call) (*answer, error) {
	cur, p, err := c.live()
	if err != nil {
		return nil, err
	}
	uses, err := c.Journal.LastUses(c.ctx, c.account)
	if err != nil {
		return nil, err
	}
	return found(cur.Rev, viewSecurePassword(p, uses)), nil
}

func checkLabel(label string, f *api.Faults) {
	if strings.TrimSpace(label) != label || strings.ContainsFunc(label, unprintable) {
		f.Add("/label", "unprintable", "begins or ends with a space, or has a character that does not print")
	}
}

func createSecurePassword(c *call) (*answer, error) {
	var f api.Faults
	if c.body.Get("secret") != nil {
		f.Add("/secret", "unknown_field", "secure passwords are generated, never chosen: leave it out")
	}
	in := rest.Decode[api.NewSecurePassword](c.schemas, c.body, &f)
	checkLabel(in.Label, &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	p := store.SecurePassword{ID: store.NewID(), Label: in.Label, PepperID: c.Pepper.ID()}
	created := api.CreatedSecurePassword{ID: p.ID, Label: p.Label, Secret: api.Secret{}}
	if !c.dryRun {
		secret, err := credential.Generate()
		if err != nil {
			return nil, fmt.Errorf("creating a secure password: %w", err)
		}
		created.Secret = secret
		p.Hash = c.Pepper.Hash(c.account, secret)
	}
	ans := &answer{etag: true, location: "/v1/accounts/" + url.PathEscape(c.account) + "/secure-passwords/" + p.ID}
	err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		_, v := c.Store.State.View(c.account)
		if !v.Known {
			return api.NotFound("domain")
		}
		cur, exists := c.Store.State.Account(c.account)
		if err := c.match(exists, cur.Rev); err != nil {
			return err
		}
		base := cur.Doc
		if !exists {
			if err := c.unlisted(c.account); err != nil {
				return err
			}
			base = newRecord(c.account, ch)
		}
		if most := maxSecurePasswords(v.Settings); len(base.Live()) >= most {
			return api.Conflict("secure_password_limit", "the account has %d secure passwords, the most that its domain allows: revoke one that is no longer used", most)
		}
		p.CreatedAt, created.CreatedAt = ch.Now, ch.Now
		next := *base
		next.Secrets = append(slices.Clone(next.Secrets), p)
		created.Warnings = c.warnings(v, base)
		ans.rev = ch.Rev
		audit(ch, "secure_password.create", c.domain, c.account)
		ch.Audit.Note = fmt.Sprintf("%s %q", p.ID, p.Label)
		ch.PutAccount(&next)
		return nil
	})
	if err != nil {
		clear(created.Secret)
		return nil, err
	}
	ans.body, ans.wipe = created, created.Secret
	return ans, nil
}

// warnings tells why a new secure password of an account could not log in now.
func (c *call) warnings(v store.View, record *store.Account) []api.Warning {
	list := []api.Warning{}
	warn := func(code, format string, args ...any) {
		list = append(list, api.Warning{Code: code, Detail: fmt.Sprintf(format, args...)})
	}
	acc := &access.Account{Suspended: record.Suspended, Departments: record.Departments, Protocols: record.Protocols.Compile(), Secure: record.Secure}
	if record.Suspended {
		warn("suspended", "The account is suspended.")
	}
	if required, _ := v.Rules.SecureRequired(c.account, acc); record.Secure == access.SecureOff && !required {
		warn("secure_passwords_off", "The account has switched secure passwords off: they are inactive.")
	}
	if switched, except := c.thirdPartyFor(v.Rules.Applying(c.account, acc)); switched.Value == "block" {
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

// editSecrets makes one change of a live secure password of the call's account.
func (c *call) editSecrets(edit func(ch *store.Change, next *store.Account, p *store.SecurePassword) (any, error)) (*answer, error) {
	ans := &answer{etag: true}
	err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		cur, p, err := c.live()
		if err != nil {
			return err
		}
		if err := c.match(true, cur.Rev); err != nil {
			return err
		}
		next := *cur.Doc
		next.Secrets = slices.Clone(next.Secrets)
		ans.rev = ch.Rev
		if ans.body, err = edit(ch, &next, p); err != nil {
			return err
		}
		ch.PutAccount(&next)
		return nil
	})
	return ans, err
}

func patchSecurePassword(c *call) (*answer, error) {
	uses, err := c.Journal.LastUses(c.ctx, c.account)
	if err != nil {
		return nil, err
	}
	return c.editSecrets(func(ch *store.Change, next *store.Account, p *store.SecurePassword) (any, error) {
		var f api.Faults
		view := viewSecurePassword(p, uses)
		in, err := rest.Patch(c.schemas, &view, c.body, &f)
		if err != nil {
			return nil, err
		}
		checkLabel(in.Label, &f)
		if err := f.Err(); err != nil {
			return nil, err
		}
		audit(ch, "secure_password.update", c.domain, c.account)
		ch.Audit.Note = fmt.Sprintf("%s, was %q, is %q", p.ID, p.Label, in.Label)
		for i := range next.Secrets {
			if next.Secrets[i].ID == p.ID {
				next.Secrets[i].Label = in.Label
			}
		}
		view.Label = in.Label
		return view, nil
	})
}

func deleteSecurePassword(c *call) (*answer, error) {
	ans, err := c.editSecrets(func(ch *store.Change, next *store.Account, p *store.SecurePassword) (any, error) {
		audit(ch, "secure_password.revoke", c.domain, c.account)
		ch.Audit.Note = fmt.Sprintf("%s %q", p.ID, p.Label)
		next.Revoke(p.ID, ch.Now)
		return viewSecurePassword(p, nil), nil
	})
	if err != nil {
		return nil, err
	}
	ans.etag = false
	return ans, nil
}

func putMailboxPassword(c *call) (*answer, error) {
	if c.Site.NextPassdb {
		return nil, api.Conflict("next_passdb", "mailbox passwords belong to the site's next passdb: set it there, or set login.next_passdb = false to keep them here")
	}
	var f api.Faults
	in := rest.Decode[api.MailboxPassword](c.schemas, c.body, &f)
	defer clear(in.Password)
	given, hashed := c.body.Get("password"), c.body.Get("hash")
	stored := string(in.Hash)
	switch {
	case rest.Present(given) == rest.Present(hashed):
		f.Add("/password", "required", "or hash is needed: give exactly one of them")
	case rest.Present(given) && len(f.List) == 0:
		for _, err := range each(credential.CheckNew(in.Password)) {
			f.List = append(f.List, api.Fault{Pointer: "/password", Code: "invalid_password", Detail: err.Error()})
		}
	case rest.Present(hashed):
		if err := credential.CheckStored(stored); err != nil {
			f.Add("/hash", "invalid_hash", "%v", err)
		}
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	if rest.Present(given) && !c.dryRun {
		var err error
		if stored, err = c.Hasher.Hash(c.r.Context(), in.Password); err != nil {
			return nil, fmt.Errorf("setting a mailbox password: %w", err)
		}
	}
	scheme, _, _ := strings.Cut(strings.TrimPrefix(stored, "{"), "}")
	if stored == "" { // a dry run
		scheme = "ARGON2ID"
	}
	ans := &answer{etag: true, body: api.MailboxPasswordSet{Address: c.account, Scheme: strings.ToUpper(scheme)}}
	err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		cur, ok := c.Store.State.Account(c.account)
		if !ok {
			return api.Refuse(http.StatusNotFound, "not_found", "there is no such account: create it first")
		}
		if err := c.match(true, cur.Rev); err != nil {
			return err
		}
		next := *cur.Doc
		next.MailboxHash, next.MailboxSetAt = stored, ch.Now
		ans.rev = ch.Rev
		audit(ch, "mailbox_password.set", c.domain, c.account)
		ch.Audit.Note = strings.ToUpper(scheme)
		ch.PutAccount(&next)
		return nil
	})
	return ans, err
}

// each takes apart what errors.Join put together.
func each(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}
