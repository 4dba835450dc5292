package mail

import (
	"cmp"
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
)

// MaxRules is the number of mail rules of a domain: each change compiles all of them.
const MaxRules = 10_000

// ViewRule returns a mail rule as the API shows it, with each default spelled out. Its lists belong to
// the stored rule.
func ViewRule(r *store.MailRule) api.MailRule {
	enabled := r.Enabled
	v := api.MailRule{
		ID: r.ID, Name: r.Name, Kind: string(r.Kind), Enabled: &enabled, Mode: string(r.Mode), Scope: admin.ViewScope(&r.Scope), Direction: string(r.Direction),
		ExceptDomains: append([]string{}, r.ExceptDomains...), OnFault: string(r.OnFault), CreatedAt: r.CreatedAt,
		Action: viewAction(&r.Action),
	}
	if !r.From.IsZero() {
		v.From = &r.From
	}
	if !r.Until.IsZero() {
		v.Until = &r.Until
	}
	m := &r.Match
	if m.Empty() {
		return v
	}
	v.Match = &api.MailMatch{
		RecipientDomains: m.RecipientDomains, Senders: m.Senders, Recipients: m.Recipients, Subject: m.Subject, Text: m.Text, MinSize: m.MinSize,
	}
	for _, h := range m.Headers {
		v.Match.Headers = append(v.Match.Headers, api.HeaderMatch(h))
	}
	if len(m.Attachments.Names)+len(m.Attachments.Types) > 0 {
		a := api.AttachmentMatch(m.Attachments)
		v.Match.Attachments = &a
	}
	return v
}

func viewAction(a *mailflow.Action) api.MailAction {
	return api.MailAction{
		To: a.To, Approvers: a.Approvers, Need: a.Need, Expires: a.Expires, Then: a.Then, Do: a.Do, Text: a.Text, Allow: a.Allow,
		Per: a.Per, MessagesPerHour: a.MessagesPerHour, MessagesPerDay: a.MessagesPerDay, RecipientsPerHour: a.RecipientsPerHour,
		RecipientsPerDay: a.RecipientsPerDay, WarnAt: a.WarnAt, Level: a.Level, How: a.How, Texts: a.Texts, Whitelist: a.Whitelist,
		AdvancedTexts: a.AdvancedTexts, Tag: a.Tag,
	}
}

// Rules returns one page of the mail rules, oldest first.
func (d *Domain) Rules(p admin.Page) (*api.List[api.MailRule], error) {
	return admin.PageOf(p, d.Store.State.MailRules(d.Name()), func(r *store.MailRule) string { return admin.ByAge(r.CreatedAt, r.ID) }, ViewRule)
}

// Rule returns a mail rule of the domain with its revision, as this daemon has it in memory; 404 not_found
// if there is none.
func (d *Domain) Rule(id string) (*admin.Result[api.MailRule], error) {
	r, ok := d.Store.State.MailRule(d.Name(), id)
	if !ok {
		return nil, api.NotFound("mail rule")
	}
	return &admin.Result[api.MailRule]{View: ViewRule(r.Doc), Rev: r.Rev}, nil
}

// CreateRule creates a mail rule; with id "", its id is generated. decode returns the request's
// value.
func (d *Domain) CreateRule(ctx context.Context, id string, decode func(*api.Faults) *api.MailRule) (*admin.Result[api.MailRule], error) {
	if id == "" {
		id = store.NewID()
	}
	return d.editRule(ctx, id, func(cur *store.MailRule, f *api.Faults) (*api.MailRule, error) {
		admin.CheckPolicyID(id, func(code, format string, args ...any) { f.Add("/id", code, format, args...) })
		in := decode(f)
		if cur != nil {
			return nil, api.Conflict("exists", "there is a mail rule of this id already: PUT replaces it, PATCH changes it")
		}
		return in, nil
	})
}

// PutRule creates or replaces a mail rule. decode returns the request's value. The kind of a rule cannot be
// changed.
func (d *Domain) PutRule(ctx context.Context, id string, decode func(*api.Faults) *api.MailRule) (*admin.Result[api.MailRule], error) {
	return d.editRule(ctx, id, func(_ *store.MailRule, f *api.Faults) (*api.MailRule, error) {
		admin.CheckPolicyID(id, func(code, format string, args ...any) { f.Parameter("id", code, format, args...) })
		return decode(f), nil
	})
}

// PatchRule changes a mail rule by an edit of its view (RFC 7396), and validates the outcome as a whole;
// 404 not_found if there is none.
func (d *Domain) PatchRule(ctx context.Context, id string, edit admin.Edit[api.MailRule]) (*admin.Result[api.MailRule], error) {
	return d.editRule(ctx, id, func(cur *store.MailRule, f *api.Faults) (*api.MailRule, error) {
		if cur == nil {
			return nil, api.NotFound("mail rule")
		}
		view := ViewRule(cur)
		return edit(&view, f)
	})
}

// editRule makes one change of a mail rule. edit receives the current one, nil for none.
func (d *Domain) editRule(ctx context.Context, id string, edit func(cur *store.MailRule, f *api.Faults) (*api.MailRule, error)) (*admin.Result[api.MailRule], error) {
	res := &admin.Result[api.MailRule]{}
	err := d.Change(ctx, func(ch *store.Change) error {
		cur, exists := d.Store.State.MailRule(d.Name(), id)
		if err := d.Match(exists, cur.Rev); err != nil {
			return err
		}
		var f api.Faults
		in, err := edit(cur.Doc, &f)
		if err != nil {
			return err
		}
		if in.ID != "" && in.ID != id {
			f.Add("/id", "conflict", "is not the one in the URL, and cannot be changed: create the new rule and delete this one")
		}
		next := d.ReadRule(in, id, cur.Doc, "", &f)
		if err := f.Err(); err != nil {
			return err
		}
		if !exists {
			if len(d.Store.State.MailRules(d.Name())) >= MaxRules {
				return api.Conflict("limit", "a domain may have %d mail rules: delete those that are not needed", MaxRules)
			}
			next.CreatedAt = ch.Now
		}
		*res = admin.Result[api.MailRule]{View: ViewRule(next), Rev: ch.Rev, Created: !exists}
		res.View.Warnings = d.ruleWarnings(next)
		if exists && admin.Same(cur.Doc, next) {
			res.Rev = cur.Rev
			return nil
		}
		admin.Describe(ch, "mail_rule.update", d.Name(), id)
		if !exists {
			admin.Describe(ch, "mail_rule.create", d.Name(), id)
		}
		ch.Audit.Note = next.Name
		ch.Diff(cur.Doc, next)
		ch.PutMailRule(d.Name(), next)
		return nil
	})
	return res, err
}

// DeleteRule deletes a mail rule, and returns its last state for the answer and the audit; 404 not_found
// if there is no such rule.
func (d *Domain) DeleteRule(ctx context.Context, id string) (*admin.Result[api.MailRule], error) {
	res := &admin.Result[api.MailRule]{}
	err := d.Change(ctx, func(ch *store.Change) error {
		cur, ok := d.Store.State.MailRule(d.Name(), id)
		if err := d.Existing(ok, cur.Rev, "mail rule"); err != nil {
			return err
		}
		res.View = ViewRule(cur.Doc)
		admin.Describe(ch, "mail_rule.delete", d.Name(), id)
		ch.Audit.Note = cur.Doc.Name
		ch.Diff(cur.Doc, nil)
		ch.DeleteMailRule(d.Name(), id)
		return nil
	})
	return res, err
}

// ReadRule validates a mail rule, which is at a pointer of the request. cur is the one that it
// replaces, nil for none.
func (d *Domain) ReadRule(in *api.MailRule, id string, cur *store.MailRule, pointer string, f *api.Faults) *store.MailRule {
	r := &store.MailRule{Rule: mailflow.Rule{
		ID: id, Name: in.Name, Kind: mailflow.Kind(in.Kind), Enabled: in.Enabled == nil || *in.Enabled, Mode: access.PolicyMode(in.Mode),
		Direction: mailflow.Direction(in.Direction), OnFault: mailflow.Fault(in.OnFault),
	}}
	if r.Mode == "" {
		r.Mode = access.Enforce
	}
	if r.Direction == "" {
		r.Direction = mailflow.Both
	}
	if r.OnFault == "" {
		r.OnFault = mailflow.FaultTempfail
	}
	if cur != nil {
		r.CreatedAt = cur.CreatedAt
		if r.Kind != cur.Kind && !f.Within(pointer+"/kind") {
			f.Add(pointer+"/kind", "conflict", "cannot be changed: create another rule and delete this one")
		}
	}
	if r.Name == "" {
		f.Add(pointer+"/name", "required", "is needed: people identify rules by it")
	}
	admin.CheckText(r.Name, pointer+"/name", f)
	if in.Scope == nil {
		f.Add(pointer+"/scope", "required", `is needed: say {"all":true}, or name departments or members`)
	} else {
		r.Scope = d.ReadScope(in.Scope, pointer+"/scope", f)
		admin.CheckNobody(&r.Scope, pointer+"/scope", f)
	}
	if in.From != nil {
		r.From = in.From.UTC()
	}
	if in.Until != nil {
		r.Until = in.Until.UTC()
		if !r.Until.After(r.From) {
			f.Add(pointer+"/until", "conflict", "is not after from: the rule would never apply")
		}
	}
	r.ExceptDomains = readDomains(in.ExceptDomains, pointer+"/except_domains", f)
	known := !f.Within(pointer + "/kind") // what else is wrong depends on it
	if in.Match != nil {
		if known && !r.Kind.Matches() {
			f.Add(pointer+"/match", "conflict", "is not for rules of kind %s: they apply to all messages of the accounts in the scope", r.Kind)
		}
		d.readMatch(in.Match, &r.Match, pointer+"/match", f)
	}
	if known {
		d.readAction(&in.Action, r, pointer+"/action", f)
	}
	if cur == nil || !admin.Same(cur, r) {
		d.checkOwn(r.Action.To, pointer+"/action/to", f)
	}
	return r
}

// readDomains validates domains, and entries for all domains below one.
func readDomains(in []string, pointer string, f *api.Faults) (out []string) {
	for i, entry := range in {
		name, below := strings.CutPrefix(entry, "*.")
		domain, err := address.ParseDomain(name)
		if err != nil {
			f.Add(api.At(pointer, i), "invalid_domain", "%v: write example.net, or *.example.net for all domains below it", err)
			continue
		}
		if below {
			domain = "*." + domain
		}
		if !slices.Contains(out, domain) {
			out = append(out, domain)
		}
	}
	return out
}

// readParties validates addresses, and entries for all addresses of a domain.
func (d *Domain) readParties(in []string, pointer string, f *api.Faults) []string {
	return d.readAddresses(in, d.Store.State.Canonical, pointer, f)
}

// readPersons is readParties for who writes or approves: another name of an account becomes the
// account, since that is what a login is known by.
func (d *Domain) readPersons(in []string, pointer string, f *api.Faults) []string {
	return d.readAddresses(in, d.Person, pointer, f)
}

func (d *Domain) readAddresses(in []string, meant func(addr string) string, pointer string, f *api.Faults) (out []string) {
	for i, entry := range in {
		addr, err := address.Parse(entry, d.Name())
		if err != nil {
			f.Add(api.At(pointer, i), "invalid_address", "%v: write ann@example.net, or *@example.net for all of a domain", err)
			continue
		}
		if addr = meant(addr); !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// readApprovers reads addresses and departments, "department:legal".
func (d *Domain) readApprovers(in []string, pointer string, f *api.Faults) (out []string) {
	for i, entry := range in {
		path, isDepartment := strings.CutPrefix(entry, mailflow.DepartmentPrefix)
		if !isDepartment {
			var faults api.Faults
			out = append(out, d.readPersons([]string{entry}, "", &faults)...)
			for range faults.List {
				f.Add(api.At(pointer, i), "invalid_address", "is neither an address nor a department such as %slegal", mailflow.DepartmentPrefix)
			}
			continue
		}
		if !d.HasDepartment(path) {
			f.Add(api.At(pointer, i), "unknown_department", "names no department of the domain")
			continue
		}
		out = append(out, entry)
	}
	return out
}

func (d *Domain) readMatch(in *api.MailMatch, m *mailflow.Match, pointer string, f *api.Faults) {
	m.RecipientDomains = readDomains(in.RecipientDomains, pointer+"/recipient_domains", f)
	m.Senders = d.readParties(in.Senders, pointer+"/senders", f)
	m.Recipients = d.readParties(in.Recipients, pointer+"/recipients", f)
	m.Subject = readTexts(in.Subject, pointer+"/subject", f)
	m.Text = readTexts(in.Text, pointer+"/text", f)
	m.MinSize = in.MinSize
	for i, h := range in.Headers {
		at := api.At(pointer+"/headers", i)
		if !fieldName(h.Name) {
			f.Add(at+"/name", "invalid_name", "is not the name of a header field")
		}
		if (h.Contains == "") == (h.Regex == "") {
			f.Add(at+"/contains", "required", "give either contains or regex")
		}
		if err := mailflow.CheckExpression(h.Regex); err != nil {
			f.Add(at+"/regex", "invalid_regex", "%v", err)
		}
		m.Headers = append(m.Headers, mailflow.HeaderMatch(h))
	}
	if in.Attachments != nil {
		m.Attachments.Names = readPatterns(in.Attachments.Names, pointer+"/attachments/names", f)
		m.Attachments.Types = readPatterns(in.Attachments.Types, pointer+"/attachments/types", f)
	}
}

func fieldName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' })
}

func readTexts(in []string, pointer string, f *api.Faults) (out []string) {
	for i, text := range in {
		if strings.TrimSpace(text) == "" {
			f.Add(api.At(pointer, i), "required", "is empty, and would match every message")
		}
		admin.CheckText(text, api.At(pointer, i), f)
		out = append(out, text)
	}
	return out
}

func readPatterns(in []string, pointer string, f *api.Faults) (out []string) {
	for i, text := range readTexts(in, pointer, f) {
		if err := mailflow.CheckPattern(text); err != nil {
			f.Add(api.At(pointer, i), "invalid_pattern", "%v: * stands for any text, ? for one character", err)
		}
		out = append(out, text)
	}
	return out
}

// readAction validates the action of a rule, and refuses the fields of other kinds.
func (d *Domain) readAction(in *api.MailAction, r *store.MailRule, pointer string, f *api.Faults) {
	a := &r.Action
	need := func(given bool, field, hint string) {
		if !given && !f.Within(pointer+field) {
			f.Add(pointer+field, "required", "is needed for kind %s: %s", r.Kind, hint)
		}
	}
	rest := *in
	switch r.Kind {
	case mailflow.KindInternalOnly:
	case mailflow.KindMonitor:
		a.To, rest.To = d.readParties(in.To, pointer+"/to", f), nil
		need(len(a.To) > 0, "/to", "the addresses that receive copies")
	case mailflow.KindAudit:
		a.Approvers, rest.Approvers = d.readApprovers(in.Approvers, pointer+"/approvers", f), nil
		need(len(a.Approvers) > 0, "/approvers", "the approvers of held messages")
		a.Need, rest.Need = cmp.Or(in.Need, mailflow.NeedAny), ""
		a.Expires, rest.Expires = cmp.Or(in.Expires, "72h"), ""
		if _, err := mailflow.CheckExpires(a.Expires); err != nil {
			f.Add(pointer+"/expires", "invalid_duration", "%v", err)
		}
		a.Then, rest.Then = oneOf(in.Then, pointer+"/then", f, mailflow.ThenReject, mailflow.ThenRelease), ""
	case mailflow.KindFilter:
		a.Do, rest.Do = in.Do, ""
		need(a.Do != "", "/do", "spam, delete or return")
		a.Text, rest.Text = in.Text, ""
		admin.CheckText(a.Text, pointer+"/text", f)
		if a.Text != "" && a.Do != mailflow.DoReturn {
			f.Add(pointer+"/text", "conflict", "is for returned messages")
		}
	case mailflow.KindForwarding:
		a.Allow, rest.Allow = cmp.Or(in.Allow, mailflow.AllowInside), ""
		r.ExceptDomains = append(r.ExceptDomains, readDomains(in.ExceptDomains, pointer+"/except_domains", f)...)
		slices.Sort(r.ExceptDomains)
		r.ExceptDomains, rest.ExceptDomains = slices.Compact(r.ExceptDomains), nil
	case mailflow.KindLimit:
		a.Per, rest.Per = cmp.Or(in.Per, mailflow.PerAccount), ""
		a.MessagesPerHour, a.MessagesPerDay, a.RecipientsPerHour, a.RecipientsPerDay = in.MessagesPerHour, in.MessagesPerDay, in.RecipientsPerHour, in.RecipientsPerDay
		need(a.MessagesPerHour+a.MessagesPerDay+a.RecipientsPerHour+a.RecipientsPerDay > 0, "/messages_per_hour", "or another bound")
		rest.MessagesPerHour, rest.MessagesPerDay, rest.RecipientsPerHour, rest.RecipientsPerDay = 0, 0, 0, 0
		a.WarnAt, rest.WarnAt = in.WarnAt, 0
		a.Then, rest.Then = oneOf(in.Then, pointer+"/then", f, mailflow.ThenRefuse, mailflow.ThenSuspend), ""
	case mailflow.KindWarning:
		a.Level, rest.Level = cmp.Or(in.Level, mailflow.LevelGeneral), ""
		a.How, rest.How = in.How, nil
		if len(a.How) == 0 {
			a.How = []string{mailflow.HowHeader}
		}
		a.Texts, rest.Texts = readWarnings(in.Texts, pointer+"/texts", f), nil
		a.AdvancedTexts, rest.AdvancedTexts = readWarnings(in.AdvancedTexts, pointer+"/advanced_texts", f), nil
		if len(in.AdvancedTexts) > 0 && a.Level != mailflow.LevelAdvanced {
			f.Add(pointer+"/advanced_texts", "conflict", "is for the level advanced")
		}
		a.Tag, rest.Tag = in.Tag, ""
		if err := mailflow.CheckTag(a.Tag); err != nil {
			f.Add(pointer+"/tag", "invalid_text", "%v", err)
		}
		a.Whitelist, rest.Whitelist = readDomains(in.Whitelist, pointer+"/whitelist", f), nil
	}
	for field, left := range map[string]bool{
		"/to": len(rest.To) > 0, "/approvers": len(rest.Approvers) > 0, "/need": rest.Need != "", "/expires": rest.Expires != "", "/then": rest.Then != "",
		"/do": rest.Do != "", "/text": rest.Text != "", "/allow": rest.Allow != "", "/except_domains": len(rest.ExceptDomains) > 0, "/per": rest.Per != "",
		"/messages_per_hour": rest.MessagesPerHour != 0, "/messages_per_day": rest.MessagesPerDay != 0, "/recipients_per_hour": rest.RecipientsPerHour != 0,
		"/recipients_per_day": rest.RecipientsPerDay != 0, "/warn_at": rest.WarnAt != 0, "/level": rest.Level != "", "/how": len(rest.How) > 0,
		"/texts": len(rest.Texts) > 0, "/whitelist": len(rest.Whitelist) > 0,
		"/advanced_texts": len(rest.AdvancedTexts) > 0, "/tag": rest.Tag != "",
	} {
		if left && !f.Within(pointer+field) {
			f.Add(pointer+field, "conflict", "is not for rules of kind %s: leave it out", r.Kind)
		}
	}
}

// languageTag is what names the language of a text, such as en, zh-Hant or de-AT.
var languageTag = regexp.MustCompile(`^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$`)

// readWarnings validates the texts of a warning, by language.
func readWarnings(in map[string]string, pointer string, f *api.Faults) map[string]string {
	for _, lang := range slices.Sorted(maps.Keys(in)) {
		at := api.At(pointer, lang)
		if !languageTag.MatchString(lang) {
			f.Add(at, "invalid_language", "is no language tag: write one like en, de-AT or zh-Hant")
		}
		if strings.TrimSpace(in[lang]) == "" {
			f.Add(at, "required", "is empty: write a text, or leave the language out")
		}
		admin.CheckLines(in[lang], at, f)
	}
	return in
}

// checkOwn allows only administrators of the site to send copies out of the domain.
func (d *Domain) checkOwn(addresses []string, pointer string, f *api.Faults) {
	for i, addr := range addresses {
		if address.Domain(addr) != d.Name() && d.Caller.Role != store.RoleAdmin {
			f.Add(api.At(pointer, i), "outside_domain", "is not an address of this domain or its alias domains")
		}
	}
}

// oneOf returns a word of the list; the first by default.
func oneOf(value, pointer string, f *api.Faults, words ...string) string {
	if value == "" {
		return words[0]
	}
	if !slices.Contains(words, value) {
		f.Add(pointer, "invalid_value", "must be %s", strings.Join(words, " or "))
	}
	return value
}

// ruleWarnings reports possible mistakes in a rule.
func (d *Domain) ruleWarnings(r *store.MailRule) (warnings []api.Warning) {
	if r.Kind == mailflow.KindInternalOnly && r.Enabled && d.Covers(&r.Scope)("postmaster@"+d.Name(), nil) {
		warnings = append(warnings, api.Warning{
			Code:   "postmaster_included",
			Detail: "The rule applies to postmaster@" + d.Name() + " too, which others must be able to reach. Put it into scope.except.members.",
		})
	}
	if !r.Until.IsZero() && r.Until.Before(time.Now()) {
		warnings = append(warnings, api.Warning{Code: "ended", Detail: "The rule has ended: until is in the past."})
	}
	return warnings
}
