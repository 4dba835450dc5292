package console

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/web"
)

// form is how the value of a field of a rule is entered.
type form uint8

const (
	oneText form = iota
	rows         // a list of texts, one per line
	choice       // one of the options
	choices      // any of the options
	number
	byName  // texts by language: "en=External" on each line; \n is the end of a line in a text
	headers // "List-Id: text", or "List-Id ~ regular expression", on each line
)

// ruleField is a field of a rule's match or action, as its form shows it.
type ruleField struct {
	Name, Label string
	Form        form
	Options     []string
	Text        string   // the present value
	Chosen      []string // of choices
}

// List reports whether the field is a list of lines.
func (f ruleField) List() bool { return f.Form == rows || f.Form == byName || f.Form == headers }

// Number reports whether the field is a number.
func (f ruleField) Number() bool { return f.Form == number }

// Choice reports whether the field is one of its options.
func (f ruleField) Choice() bool { return f.Form == choice }

// Choices reports whether the field is any of its options.
func (f ruleField) Choices() bool { return f.Form == choices }

// ruleKind is a kind of mail rule: what it does, the fields of its action, and whether it has a match.
type ruleKind struct {
	Kind, Text string
	matches    bool
	action     []ruleField
}

var ruleKinds = []ruleKind{
	{"internal_only", "Accounts exchange messages only within the domain", false, nil},
	{"limit", "Accounts may send a limited number of messages", false, []ruleField{
		{Name: "per", Label: "Count separately for each", Form: choice, Options: []string{"account", "credential", "domain"}},
		{Name: "messages_per_hour", Label: "Messages per hour; 0: no bound", Form: number},
		{Name: "messages_per_day", Label: "Messages per day", Form: number},
		{Name: "recipients_per_hour", Label: "Recipients per hour", Form: number},
		{Name: "recipients_per_day", Label: "Recipients per day", Form: number},
		{Name: "warn_at", Label: "Log a warning at this percentage of a bound", Form: number},
		{Name: "then", Label: "When a bound is reached", Form: choice, Options: []string{"refuse", "suspend_credential"}},
	}},
	{"forwarding", "Automatic forwarding stays inside, or is refused", false, []ruleField{
		{Name: "allow", Label: "Forwarding that is allowed", Form: choice, Options: []string{"inside", "none"}},
	}},
	{"filter", "Messages that match go to spam, are deleted, or are returned", true, []ruleField{
		{Name: "do", Label: "Action", Form: choice, Options: []string{"spam", "delete", "return"}},
		{Name: "text", Label: "return: text for the sender"},
	}},
	{"audit", "Messages that match wait until somebody approves them", true, []ruleField{
		{Name: "approvers", Label: "Approvers, one per line: addresses, or department:legal", Form: rows},
		{Name: "need", Label: "Approval by", Form: choice, Options: []string{"any", "all"}},
		{Name: "expires", Label: "Time to wait for a decision, such as 72h"},
		{Name: "then", Label: "If nobody decides", Form: choice, Options: []string{"reject", "release"}},
	}},
	{"monitor", "Copies of messages that match are sent to monitors", true, []ruleField{
		{Name: "to", Label: "Recipients of copies, one address per line", Form: rows},
	}},
	{"warning", "Messages from outside are marked for their readers", true, []ruleField{
		{Name: "level", Label: "Level; advanced also looks for senders who look like colleagues", Form: choice, Options: []string{"general", "advanced"}},
		{Name: "how", Label: "Marks", Form: choices, Options: []string{"header", "subject", "banner"}},
		{Name: "tag", Label: "Before the subject; empty: [EXT]"},
		{Name: "texts", Label: "Texts of the banner by language, such as en=From outside: {address}", Form: byName},
		{Name: "advanced_texts", Label: "advanced: texts for senders who look like colleagues", Form: byName},
		{Name: "whitelist", Label: "Sender domains that are not marked, one per line", Form: rows},
	}},
}

// matchFields are those of a match, with attachments beside them.
var matchFields = []ruleField{
	{Name: "senders", Label: "Senders, one per line; *@example.net is a domain", Form: rows},
	{Name: "recipients", Label: "Recipients", Form: rows},
	{Name: "recipient_domains", Label: "Recipients' domains", Form: rows},
	{Name: "subject", Label: "Texts in the subject", Form: rows},
	{Name: "text", Label: "Texts in the subject or the text", Form: rows},
	{Name: "headers", Label: "Header fields, all of them: List-Id: text, or List-Id ~ regular expression", Form: headers},
	{Name: "min_size", Label: "Size in bytes or more", Form: number},
}

var attachmentFields = []ruleField{
	{Name: "names", Label: "Names of attachments, such as *.exe; those in archives count", Form: rows},
	{Name: "types", Label: "Media types of attachments, such as application/*", Form: rows},
}

func kindOf(name string) (*ruleKind, bool) {
	i := slices.IndexFunc(ruleKinds, func(k ruleKind) bool { return k.Kind == name })
	if i < 0 {
		return nil, false
	}
	return &ruleKinds[i], true
}

// ruleForm is the form of a mail rule, and what its draft would do.
type ruleForm struct {
	scopeForm
	ID          string // "new" for one that does not exist
	Rule        *api.MailRule
	Kinds       []ruleKind // of a new rule whose kind is not chosen
	About       string
	Action      []ruleField
	Match       []ruleField
	From, Until string
	Message     api.TestMessage

	JSON      string
	Decision  *api.MailDecision
	Previewed *api.MailRulePreviewed
}

// filled returns fields with the values that an object has.
func filled(prefix string, fields []ruleField, from any) []ruleField {
	values := map[string]any{}
	if b, err := json.Marshal(from); err == nil {
		_ = json.Unmarshal(b, &values) // null stays empty
	}
	out := slices.Clone(fields)
	for i := range out {
		f := &out[i]
		var lines []string
		switch value := values[f.Name].(type) {
		case string:
			f.Text = value
		case float64:
			f.Text = strconv.FormatFloat(value, 'f', -1, 64)
		case []any:
			for _, item := range value {
				switch item := item.(type) {
				case string:
					lines = append(lines, item)
				case map[string]any:
					if regex, ok := item["regex"].(string); ok {
						lines = append(lines, fmt.Sprint(item["name"], " ~ ", regex))
					} else {
						lines = append(lines, fmt.Sprint(item["name"], ": ", item["contains"]))
					}
				}
			}
		case map[string]any:
			for _, language := range slices.Sorted(maps.Keys(value)) {
				lines = append(lines, language+"="+strings.ReplaceAll(fmt.Sprint(value[language]), "\n", `\n`))
			}
		}
		if f.Form == choices {
			f.Chosen = lines
		} else if lines != nil {
			f.Text = strings.Join(lines, "\n")
		}
		f.Name = prefix + f.Name
	}
	return out
}

// read returns the values of fields that were sent, as the API wants them; what is empty is left out.
func (v *visit) read(prefix string, fields []ruleField, f *api.Faults) map[string]any {
	out := map[string]any{}
	for i := range fields {
		field := &fields[i]
		name := prefix + field.Name
		pointer := "/" + strings.ReplaceAll(name, ".", "/")
		lines := v.rows(name)
		switch text := v.Value(name); {
		case field.Form == choices:
			if chosen := v.R.PostForm[name]; len(chosen) > 0 {
				out[field.Name] = chosen
			}
		case text == "":
		case field.Form == number:
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				f.Add(pointer, "invalid", "is not a whole number")
			}
			out[field.Name] = n
		case field.Form == rows:
			out[field.Name] = lines
		case field.Form == byName:
			texts := map[string]string{}
			for _, line := range lines {
				language, text, ok := strings.Cut(line, "=")
				if !ok {
					f.Add(pointer, "invalid", "is not written as en=text")
				}
				texts[strings.TrimSpace(language)] = strings.ReplaceAll(text, `\n`, "\n")
			}
			out[field.Name] = texts
		case field.Form == headers:
			var list []api.HeaderMatch
			for _, line := range lines {
				if name, regex, ok := strings.Cut(line, " ~ "); ok && !strings.Contains(name, ":") {
					list = append(list, api.HeaderMatch{Name: name, Regex: regex})
					continue
				}
				name, text, ok := strings.Cut(line, ":")
				if !ok {
					f.Add(pointer, "invalid", "is not written as List-Id: text, or List-Id ~ regular expression")
				}
				list = append(list, api.HeaderMatch{Name: strings.TrimSpace(name), Contains: strings.TrimSpace(text)})
			}
			out[field.Name] = list
		default:
			out[field.Name] = text
		}
	}
	return out
}

// ruleView is the page with the form of a rule.
func (v *visit) ruleView(d *admin.Domain, id string, r *api.MailRule) (web.View, *ruleForm, error) {
	scope, err := v.scopeForm(d, r.Scope)
	if err != nil {
		return web.View{}, nil, err
	}
	scope.Step = 2
	data := &ruleForm{scopeForm: scope, ID: id, Rule: r}
	if r.From != nil {
		data.From = r.From.UTC().Format(clock)
	}
	if r.Until != nil {
		data.Until = r.Until.UTC().Format(clock)
	}
	if k, ok := kindOf(r.Kind); ok {
		data.About = k.Text
		data.Action = filled("action.", k.action, &r.Action)
		if k.matches {
			match := r.Match
			if match == nil {
				match = &api.MailMatch{}
			}
			data.Match = append(filled("match.", matchFields, match), filled("match.attachments.", attachmentFields, match.Attachments)...)
		}
	} else {
		data.Kinds = ruleKinds
	}
	if id == "new" {
		kind := "KIND"
		if data.Kinds == nil {
			kind = r.Kind
		}
		return v.view("mail-rules", "New mail rule", line("mail-rule", "create", d.Name(), kind), data), data, nil
	}
	return v.view("mail-rules", "Mail rule: "+r.Name, line("mail-rule", "show", d.Name(), id), data), data, nil
}

// mailRule shows a rule, or the form for a new one. Experts may ask for its document.
func (v *visit) mailRule() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	id, q, on := v.R.PathValue("id"), v.R.URL.Query(), true
	rule := &api.MailRule{Kind: q.Get("kind"), Enabled: &on, Mode: "report", Direction: "both", Scope: &api.Scope{All: true}, ExceptDomains: []string{}}
	if id != "new" {
		res, err := v.Mail.Of(d).Rule(id)
		if err != nil {
			return err
		}
		rule = &res.View
	} else if err := v.caller.May(writers); err != nil {
		return err
	}
	view, data, err := v.ruleView(d, id, rule)
	if err != nil {
		return err
	}
	if q.Get("as") == "document" {
		if rule.Kind == "" {
			rule.Kind = ruleKinds[0].Kind
		}
		return v.documentOfRule(view, data, rule)
	}
	return v.Show(pages, "mailruleform", view)
}

// documentOfRule shows a rule as JSON.
func (v *visit) documentOfRule(view web.View, data *ruleForm, rule *api.MailRule) error {
	b, err := json.MarshalIndent(rule, "", "  ")
	if err != nil {
		return err
	}
	data.JSON = string(b)
	return v.Show(pages, "mailrule", view)
}

// draftRule reads a rule from the fields of its form.
func (v *visit) draftRule(f *api.Faults) *api.MailRule {
	scope := v.scope()
	doc := map[string]any{
		"name": v.Value("name"), "kind": v.Value("kind"), "enabled": v.Value("enabled") != "false", "mode": v.Value("mode"), "direction": v.Value("direction"),
		"on_fault": v.Value("on_fault"), "scope": scope, "except_domains": v.rows("except_domains"), "action": map[string]any{},
	}
	for name, value := range doc {
		if value == "" {
			delete(doc, name)
		}
	}
	for _, name := range []string{"from", "until"} {
		if text := v.Value(name); text != "" {
			at, err := time.Parse(clock, text)
			if err != nil {
				f.Add("/"+name, "invalid", "is not a time such as 2026-11-28T15:04")
			}
			doc[name] = at
		}
	}
	if k, ok := kindOf(v.Value("kind")); ok {
		doc["action"] = v.read("action.", k.action, f)
		if match := v.read("match.", matchFields, f); k.matches {
			if a := v.read("match.attachments.", attachmentFields, f); len(a) > 0 {
				match["attachments"] = a
			}
			if len(match) > 0 {
				doc["match"] = match
			}
		}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		f.Add("", "invalid", "cannot be read")
	}
	return web.DecodeJSON[api.MailRule](v.Call, b, f)
}

// checkMailRule shows what a draft would do, before it is saved.
func (v *visit) checkMailRule() error {
	d, err := v.domain(admin.Options{DryRun: true})
	if err != nil {
		return err
	}
	id := v.R.PathValue("id")
	var f api.Faults
	rule := v.draftRule(&f)
	view, data, err := v.ruleView(d, id, rule)
	if err != nil {
		return err
	}
	data.Message = api.TestMessage{
		Login: v.Value("login"), IP: v.Value("ip"), Sender: v.Value("sender"), Recipients: v.Lines("to"), RedirectedBy: v.Value("redirected_by"), Text: v.R.PostFormValue("text"),
	}
	if err := f.Err(); err != nil {
		return v.refused("mailruleform", view, err)
	}
	m, stored := v.Mail.Of(d), id
	if id == "new" {
		stored = ""
	}
	in := &api.MailRuleTest{Rule: rule, Message: data.Message} // without recipients it validates only
	if len(in.Message.Recipients) > 0 {
		in = web.Check(v.Call, in, &f)
	}
	in.Message.Text = strings.ReplaceAll(in.Message.Text, "\r\n", "\n")
	if data.Decision, err = m.Test(stored, in, &f); err != nil {
		return v.refused("mailruleform", view, err)
	}
	if rule.Kind == "internal_only" || rule.Kind == "limit" {
		if data.Previewed, err = m.PreviewRule(v.R.Context(), &api.MailRulePreview{Rule: rule}, &f); err != nil {
			return v.refused("mailruleform", view, err)
		}
	}
	b, err := json.Marshal(rule)
	if err != nil {
		return err
	}
	data.JSON = string(b)
	view.Title = "Check the mail rule"
	return v.Show(pages, "mailrulecheck", view)
}

// changeMailRule saves a rule, switches it, or deletes it.
func (v *visit) changeMailRule() error {
	d, err := v.domain(v.options())
	if err != nil {
		return err
	}
	m, id := v.Mail.Of(d), v.R.PathValue("id")
	switch do := v.Value("do"); do {
	case "delete":
		_, err := m.DeleteRule(v.R.Context(), id)
		return v.changed(err, "The rule was deleted.", "/mail-rules")
	case "enable", "disable":
		on := do == "enable"
		_, err := m.PatchRule(v.R.Context(), id, func(cur *api.MailRule, _ *api.Faults) (*api.MailRule, error) {
			cur.Enabled = &on
			return cur, nil
		})
		return v.changed(err, "The rule was changed"+v.where()+".", "/mail-rules")
	}
	text, mode := v.Value("rule"), v.Value("save_as")
	decode := func(f *api.Faults) *api.MailRule {
		r := web.DecodeJSON[api.MailRule](v.Call, []byte(text), f)
		if mode != "" {
			r.Mode = mode
		}
		return r
	}
	var res *admin.Result[api.MailRule]
	if id == "new" {
		res, err = m.CreateRule(v.R.Context(), "", decode)
	} else {
		res, err = m.PutRule(v.R.Context(), id, decode)
	}
	if err != nil {
		data := &ruleForm{ID: id, JSON: text}
		return v.refused("mailrule", v.view("mail-rules", "Mail rule", "", data), err)
	}
	note := "The rule was saved" + v.where() + "."
	for _, w := range res.View.Warnings {
		note += " " + w.Detail
	}
	return v.done(note, "/mail-rules")
}
