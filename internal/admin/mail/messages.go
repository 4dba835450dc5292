package mail

import (
	"cmp"
	"context"
	"mime"
	"net/netip"
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

// Test evaluates a message that nobody sent, with the stored rule of an id, "" for none, and a
// draft in its place or beside the others.
func (d *Domain) Test(id string, in *api.MailRuleTest, f *api.Faults) (*api.MailDecision, error) {
	set := d.Store.State.MailSettings(d.Name())
	content := d.content([]byte(in.Message.Text))
	var judged string
	if id != "" {
		if _, ok := d.Store.State.MailRule(d.Name(), id); !ok {
			return nil, api.NotFound("mail rule")
		}
		judged = id
	}
	if in.Rule != nil {
		draft := d.ReadRule(in.Rule, cmp.Or(id, admin.DraftID), nil, "/rule", f)
		draft.Enabled = true
		judged = draft.ID
		set.Rules = slices.DeleteFunc(set.Rules, func(r mailflow.Rule) bool { return r.ID == draft.ID })
		set.Rules = append(set.Rules, draft.Rule)
	}
	m := &in.Message
	if m.Login != "" {
		addr, err := address.Parse(m.Login, d.Name())
		if err == nil && address.Domain(d.Store.State.Canonical(addr)) != d.Name() && d.Caller.Role == store.RoleDomain {
			f.Add("/message/login", "outside_domain", "is not an address of this domain")
		}
	}
	var ip netip.Addr
	if m.IP != "" {
		var err error
		if ip, err = address.ParseIP(m.IP); err != nil {
			f.Add("/message/ip", "invalid_address", "%v", err)
		}
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	out := &api.MailDecision{Recipients: []api.RecipientDecision{}}
	for _, to := range m.Recipients {
		e := &mailflow.Envelope{Login: m.Login, IP: ip, Sender: m.Sender, Recipient: to, Size: m.Size, Redirected: m.RedirectedBy}
		v := d.site.Explain(e, content, d.Name(), mailflow.Compile(set))
		r := viewVerdict(to, &v)
		for _, s := range v.Trace {
			if s.Rule == judged && judged != "" {
				r.Verdict = s.Result
			}
		}
		if judged != "" && r.Verdict == "" {
			r.Verdict = "not_applicable"
			if stored, ok := d.Store.State.MailRule(d.Name(), judged); ok && in.Rule == nil && !stored.Doc.Enabled {
				r.Verdict = "not_evaluated"
			}
		}
		out.Recipients = append(out.Recipients, r)
	}
	return out, nil
}

// content reads a message that is tested.
func (d *Domain) content(message []byte) *mailflow.Content {
	if d.site.Content != nil {
		return d.site.Content(message)
	}
	return headerOf(string(message))
}

// headerOf reads the header of a message.
func headerOf(message string) *mailflow.Content {
	c := &mailflow.Content{}
	message = strings.ReplaceAll(message, "\r\n", "\n")
	header, _, _ := strings.Cut(message, "\n\n")
	for line := range strings.SplitSeq(header, "\n") {
		if line != "" && (line[0] == ' ' || line[0] == '\t') && len(c.Header) > 0 {
			c.Header[len(c.Header)-1].Value += "\n" + line
			continue
		}
		if name, value, ok := strings.Cut(line, ":"); ok {
			c.Header = append(c.Header, mailflow.Field{Name: name, Value: strings.TrimPrefix(value, " ")})
		}
	}
	var words mime.WordDecoder
	for _, f := range c.Header {
		if strings.EqualFold(f.Name, "Subject") {
			c.Subject = f.Value
			if decoded, err := words.DecodeHeader(f.Value); err == nil {
				c.Subject = decoded
			}
		}
	}
	return c
}

// Explain returns the records of a message, each with what the present rules say about its
// envelope for each recipient.
func (d *Domain) Explain(ctx context.Context, queueID, messageID string) (*api.ExplainedMessages, error) {
	var f api.Faults
	if (queueID == "") == (messageID == "") {
		f.Parameter("queue_id", "required", "give either queue_id or message_id")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	if messageID != "" && !strings.HasPrefix(messageID, "<") {
		messageID = "<" + messageID + ">"
	}
	logins, err := d.Logins(d.Name())
	if err != nil {
		return nil, err
	}
	page, err := logins.Messages(ctx, store.MessageQuery{QueueID: queueID, MessageID: messageID})
	if err != nil {
		return nil, err
	}
	if len(page.Items) == 0 {
		return nil, api.Missing("there is no record of this message in the domain: it was not submitted by its accounts, no mail rule or group of the domain concerns its recipients, or the record is older than records.retention")
	}
	out := &api.ExplainedMessages{Items: []api.ExplainedMessage{}}
	rules := mailflow.Compile(d.Store.State.MailSettings(d.Name()))
	for i := range page.Items {
		rec := &page.Items[i]
		x := api.ExplainedMessage{Record: *rec, Recipients: []api.RecipientDecision{}}
		for _, to := range recordedRecipients(rec, d.Name()) {
			v := d.site.Explain(recordedEnvelope(rec, to), nil, d.Name(), rules)
			x.Recipients = append(x.Recipients, viewVerdict(to, &v))
		}
		out.Items = append(out.Items, x)
	}
	return out, nil
}

// Verdicts returns the verdicts of message records.
func Verdicts() []string {
	return []string{string(mailflow.Accepted), string(mailflow.Refused), string(mailflow.Partly)}
}

// recordedRecipients returns the recipients that a record names, and one for each other domain.
func recordedRecipients(rec *mailflow.Record, own string) []string {
	to := slices.Clone(rec.Accounts)
	for _, domain := range rec.RecipientDomains {
		if domain != own {
			to = append(to, "*@"+domain)
		}
	}
	return to
}

// recordedEnvelope is the envelope of a recorded message at a recipient.
func recordedEnvelope(rec *mailflow.Record, to string) *mailflow.Envelope {
	ip, _ := address.ParseIP(rec.IP)
	e := &mailflow.Envelope{Login: rec.Account, IP: ip, Sender: rec.Sender, Recipient: to, Size: rec.Size}
	if rec.Redirect != "" {
		e.Login, e.Redirected, e.IP = "", rec.Redirect, netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return e
}

func viewVerdict(to string, v *mailflow.Verdict) api.RecipientDecision {
	r := api.RecipientDecision{
		Recipient: to, Refused: v.Refused, Temporary: v.Temporary, Reason: string(v.Reason), Rule: v.Rule, Message: v.Text,
		WouldRefuse: v.Reported, Trace: []api.MailStep{},
	}
	for _, effect := range v.Effects {
		if effect.Rule != nil {
			r.Effects = append(r.Effects, effect.Rule.ID)
		} else {
			r.Effects = append(r.Effects, effect.Group.Address)
		}
	}
	for _, s := range v.Trace {
		r.Trace = append(r.Trace, api.MailStep(s))
	}
	return r
}

// maxPreviewed bounds the message records that a preview reads.
const maxPreviewed = 50_000

// PreviewRule evaluates a draft over recorded messages: those that it would refuse.
func (d *Domain) PreviewRule(ctx context.Context, in *api.MailRulePreview, f *api.Faults) (*api.MailRulePreviewed, error) {
	draft := d.ReadRule(in.Rule, cmp.Or(in.Rule.ID, admin.DraftID), nil, "/rule", f)
	switch {
	case f.Err() != nil:
	case !draft.Kind.Envelope():
		f.Add("/rule/kind", "not_recorded", "cannot be previewed: records lack the data that rules of kind %s evaluate. Use mode report instead", draft.Kind)
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	draft.Enabled, draft.Mode = true, access.Enforce
	days := in.Days
	if days == 0 {
		days = admin.PreviewDays
	}
	rules := mailflow.Compile(&mailflow.Settings{
		Domain: d.Name(), Names: d.Store.State.MailSettings(d.Name()).Names, Departments: d.Store.State.MailSettings(d.Name()).Departments, Rules: []mailflow.Rule{draft.Rule},
	})
	out := &api.MailRulePreviewed{Since: d.Time.UTC().Truncate(time.Second).AddDate(0, 0, -days), Accounts: []api.PreviewedSender{}, Messages: []string{}}
	var records []mailflow.Record
	for cursor := ""; len(records) < maxPreviewed; {
		page, next, err := d.ReadMessages(ctx, store.MessageQuery{Domain: d.Name(), Since: out.Since, Limit: 1000, Cursor: cursor})
		if err != nil {
			return nil, err
		}
		records = append(records, page...)
		if cursor = next; cursor == "" {
			break
		}
	}
	slices.Reverse(records) // limits count from the oldest on
	limit := d.site.PreviewLimit(&draft.Rule)
	refused := map[string]int{}
	for i := range records {
		rec := &records[i]
		out.Examined++
		hit := false
		if draft.Kind == mailflow.KindLimit {
			hit = rec.Direction == mailflow.Sent && rec.Verdict != mailflow.Refused && d.inScope(&draft.Rule, rec.Account) && !limit(rec)
		} else {
			for _, to := range recordedRecipients(rec, d.Name()) {
				v := d.site.Explain(recordedEnvelope(rec, to), nil, d.Name(), rules)
				hit = hit || v.Refused
			}
		}
		if !hit {
			continue
		}
		out.Refused++
		who := rec.Account
		if who == "" && len(rec.Accounts) > 0 {
			who = rec.Accounts[0]
		}
		refused[who]++
		if len(out.Messages) < 100 {
			out.Messages = append(out.Messages, rec.ID)
		}
	}
	for who, n := range refused {
		out.Accounts = append(out.Accounts, api.PreviewedSender{Address: who, Messages: n})
	}
	slices.SortFunc(out.Accounts, func(a, b api.PreviewedSender) int {
		if a.Messages != b.Messages {
			return b.Messages - a.Messages
		}
		return strings.Compare(a.Address, b.Address)
	})
	return out, nil
}

// inScope reports whether the scope of a rule includes an account.
func (d *Domain) inScope(r *mailflow.Rule, account string) bool {
	record, _ := d.Store.State.Account(account)
	return d.Covers(&r.Scope)(account, record.Doc)
}
