package api

import (
	"time"

	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// MailRule is a rule for the messages that accounts of a domain send or receive.
type MailRule struct {
	ID            string     `json:"id,omitempty" maxLength:"64" doc:"Generated if missing. Cannot be changed." example:"interns"`
	Name          string     `json:"name" maxLength:"100" doc:"A name for people." example:"Interns write to colleagues only"`
	Kind          string     `json:"kind" required:"true" enum:"monitor,audit,filter,forwarding,internal_only,warning,limit" doc:"Kind of rule. Cannot be changed."`
	Enabled       *bool      `json:"enabled,omitempty" default:"true"`
	Mode          string     `json:"mode" enum:"enforce,report" default:"enforce" doc:"In report mode, matching messages are recorded and nothing else happens."`
	Scope         *Scope     `json:"scope,omitempty" doc:"The accounts whose messages the rule concerns. Needed."`
	Direction     string     `json:"direction" enum:"sent,received,both" default:"both" doc:"Messages that accounts in the scope send, receive, or both. Limits concern what is sent; forwarding and warning what is received."`
	Match         *MailMatch `json:"match,omitempty" doc:"What a message must have; without it, all messages match. Not for internal_only, forwarding and limit."`
	ExceptDomains []string   `json:"except_domains" maxItems:"1000" doc:"Domains of the other party that the rule does not apply to: example.net, or *.example.net for all below." example:"example.net"`
	From          *time.Time `json:"from,omitempty" doc:"When the rule begins; null for at once."`
	Until         *time.Time `json:"until,omitempty" doc:"When the rule ends; null for never."`
	OnFault       string     `json:"on_fault" enum:"tempfail,ignore" default:"tempfail" doc:"What happens to a message that the rule cannot be evaluated for: refuse it for now, or ignore the rule."`
	Action        MailAction `json:"action" doc:"Action on matching messages; the fields depend on kind."`
	CreatedAt     time.Time  `json:"created_at,omitzero" readOnly:"true"`
	Warnings      []Warning  `json:"warnings,omitempty" readOnly:"true" doc:"In the response to a change: possible mistakes."`
}

// MailMatch is what a message must have: each list that is not empty has to match by one of its
// entries.
type MailMatch struct {
	RecipientDomains []string         `json:"recipient_domains,omitempty" maxItems:"1000" example:"example.net"`
	Senders          []string         `json:"senders,omitempty" maxItems:"1000" doc:"Addresses, and *@domain." example:"*@example.net"`
	Recipients       []string         `json:"recipients,omitempty" maxItems:"1000" doc:"Addresses, and *@domain; also groups."`
	Headers          []HeaderMatch    `json:"headers,omitempty" maxItems:"100" doc:"All of them must match."`
	Subject          []string         `json:"subject,omitempty" maxItems:"1000" doc:"Texts in the subject, in any case."`
	Text             []string         `json:"text,omitempty" maxItems:"1000" doc:"Texts in the subject or the text, in any case."`
	Attachments      *AttachmentMatch `json:"attachments,omitempty"`
	MinSize          int64            `json:"min_size,omitempty" minimum:"0" doc:"Octets."`
}

// HeaderMatch matches a header field of any case by its decoded value: text that it contains, or an
// RE2 regular expression, never both.
type HeaderMatch struct {
	Name     string `json:"name" required:"true" maxLength:"100" example:"List-Id"`
	Contains string `json:"contains,omitempty" maxLength:"1000" doc:"A text, in any case."`
	Regex    string `json:"regex,omitempty" maxLength:"1000" doc:"A regular expression (RE2), of at most 1000 characters and sets when its repetitions are written out."`
}

// AttachmentMatch matches attachments by patterns.
type AttachmentMatch struct {
	Names []string `json:"names,omitempty" maxItems:"1000" doc:"Patterns, in any case; names in archives count." example:"*.exe"`
	Types []string `json:"types,omitempty" maxItems:"1000" doc:"Media types." example:"application/*"`
}

// MailAction is what a mail rule does with a message that matches. Each kind has fields of its own.
type MailAction struct {
	To []string `json:"to,omitempty" maxItems:"100" doc:"Of monitor: the addresses that receive copies."`

	Approvers []string `json:"approvers,omitempty" maxItems:"100" doc:"Of audit: who decides. Addresses, and department:legal for the members of a department and those below." example:"department:legal"`
	Need      string   `json:"need,omitempty" enum:"any,all" doc:"Of audit: whether one approver decides, or all must agree."`
	Expires   string   `json:"expires,omitempty" doc:"Of audit: how long to wait." example:"72h"`
	Then      string   `json:"then,omitempty" enum:"reject,release,refuse,suspend_credential" doc:"Of audit, once it has expired: reject or release. Of limit, once it is reached: refuse further messages, or suspend the secure password that sends, too."`

	Do   string `json:"do,omitempty" enum:"spam,delete,return" doc:"Of filter: deliver to the spam folder, delete, or return to the sender."`
	Text string `json:"text,omitempty" maxLength:"300" doc:"Of filter: what the sender of a returned message reads."`

	Allow         string   `json:"allow,omitempty" enum:"inside,none" doc:"Of forwarding: within the domain, or not at all."`
	ExceptDomains []string `json:"except_domains,omitempty" maxItems:"1000" doc:"Of forwarding: domains that may be forwarded to; the same as the rule's except_domains."`

	Per               string `json:"per,omitempty" enum:"account,credential,domain" doc:"Of limit: what is counted together."`
	MessagesPerHour   int    `json:"messages_per_hour,omitempty" minimum:"0" doc:"Of limit; 0 for no bound."`
	MessagesPerDay    int    `json:"messages_per_day,omitempty" minimum:"0" doc:"Of limit; 0 for no bound."`
	RecipientsPerHour int    `json:"recipients_per_hour,omitempty" minimum:"0" doc:"Of limit; 0 for no bound."`
	RecipientsPerDay  int    `json:"recipients_per_day,omitempty" minimum:"0" doc:"Of limit; 0 for no bound."`
	WarnAt            int    `json:"warn_at,omitempty" minimum:"0" maximum:"99" doc:"Of limit: per cent of a bound from which on it is logged and recorded."`

	Level         string            `json:"level,omitempty" enum:"general,advanced" doc:"Of warning."`
	How           []string          `json:"how,omitempty" maxItems:"3" enum:"header,subject,banner" doc:"Of warning."`
	Texts         map[string]string `json:"texts,omitempty" doc:"Of warning: what readers see, by language; {name} and {address} stand for the sender's."`
	AdvancedTexts map[string]string `json:"advanced_texts,omitempty" doc:"Of warning: in place of texts, for messages whose sender looks like a colleague or like your domain."`
	Tag           string            `json:"tag,omitempty" maxLength:"40" doc:"Of warning: what is put before the subject; [EXT] if it is empty." example:"[EXT]"`
	Whitelist     []string          `json:"whitelist,omitempty" maxItems:"1000" doc:"Of warning: sender domains that are not marked."`
}

// Group is a group of a domain, and who may write to it. The mail server expands it.
type Group struct {
	Address         string    `json:"address,omitempty" doc:"Cannot be changed." example:"team@example.org"`
	Aliases         []string  `json:"aliases" maxItems:"100" doc:"Further addresses that lead to the group."`
	Members         []string  `json:"members" maxItems:"10000" doc:"Accounts, groups of the domain, and addresses elsewhere." example:"ann@example.org"`
	WhoMaySend      string    `json:"who_may_send" enum:"anyone,domain,members,listed" default:"anyone" doc:"Anyone; internal mail of the domain; members, those of groups among the members included; or what senders and departments list. Groups among the members must allow the sender, too."`
	Senders         []string  `json:"senders" maxItems:"10000" doc:"With listed: addresses, *@domain, and groups for their members. Senders of managed domains have to authenticate."`
	Departments     []string  `json:"departments" maxItems:"1000" doc:"With listed: departments, with their subdepartments." example:"sales"`
	Approvers       []string  `json:"approvers" maxItems:"100" doc:"Messages to the group are held until one of them decides."`
	ExemptApprovers bool      `json:"exempt_approvers,omitempty" doc:"Messages of approvers need no approval."`
	CreatedAt       time.Time `json:"created_at,omitzero" readOnly:"true"`
}

// Suspension is a credential that is suspended because it reached a sending limit.
type Suspension struct {
	ID         string    `json:"id"`
	Account    string    `json:"account"`
	Credential string    `json:"credential" doc:"A secure password's id, or mailbox: then only submissions are refused."`
	Label      string    `json:"label,omitempty" doc:"The secure password's label."`
	Rule       string    `json:"rule" doc:"The limit."`
	Note       string    `json:"note" doc:"The bound that was reached."`
	At         time.Time `json:"at"`
}

// MessageRecord is what is kept of a message: envelope, client, verdict and rule, but nothing of
// its content. It has the form that the store has.
type MessageRecord = mailflow.Record

// MailRuleTest is a message to evaluate, with a draft of a rule or without, by all rules in force.
// Nothing is counted or recorded.
type MailRuleTest struct {
	Rule    *MailRule   `json:"rule,omitempty" doc:"A draft, evaluated as if enabled beside all other rules, in place of the stored rule in the path, if any."`
	Message TestMessage `json:"message" required:"true"`
}

// TestMessage is a message that nobody sent, to be evaluated: nothing is delivered, counted or
// recorded. Only the parts that rules look at are needed.
type TestMessage struct {
	Login        string   `json:"login,omitempty" doc:"Who authenticated; empty for mail from outside." example:"ann@example.org"`
	IP           string   `json:"ip,omitempty" doc:"The client's address." example:"203.0.113.9"`
	Sender       string   `json:"sender,omitempty" doc:"MAIL FROM; empty for bounces." example:"ann@example.org"`
	Recipients   []string `json:"recipients" required:"true" minItems:"1" maxItems:"100" example:"bob@example.net"`
	RedirectedBy string   `json:"redirected_by,omitempty" doc:"The mailbox that forwards it automatically, by a client of the site."`
	Size         int64    `json:"size,omitempty" minimum:"0" doc:"Octets."`
	Text         string   `json:"text,omitempty" maxLength:"900000" doc:"The message: its header, and its body if rules look at it."`
}

// MailDecision is the decision on a message at each of its recipients, in the order of the request,
// because rules can differ for each.
type MailDecision struct {
	Recipients []RecipientDecision `json:"recipients"`
}

// RecipientDecision is the decision on a message at one recipient: verdict, reason, rule and the
// steps that led to it.
type RecipientDecision struct {
	Recipient   string     `json:"recipient"`
	Refused     bool       `json:"refused"`
	Temporary   bool       `json:"temporary,omitempty" doc:"Refused for now only."`
	Reason      string     `json:"reason,omitempty" example:"internal_only"`
	Rule        string     `json:"rule,omitempty" doc:"The rule or group that refuses."`
	Message     string     `json:"message,omitempty" doc:"Text that the sender receives."`
	WouldRefuse []string   `json:"would_refuse,omitempty" doc:"Rules in report mode that match."`
	Effects     []string   `json:"effects,omitempty" doc:"Rules and groups that do something with the message, in order."`
	Verdict     string     `json:"verdict,omitempty" doc:"Of the rule that is tested: refuse, report, match, pass, no_match, not_applicable or not_evaluated."`
	Trace       []MailStep `json:"trace"`
}

// MailStep is one step of the evaluation of a message.
type MailStep struct {
	Step   string `json:"step" doc:"A kind of rule, or group."`
	Result string `json:"result"`
	Rule   string `json:"rule,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// MailRulePreview requests an evaluation of recorded messages.
type MailRulePreview struct {
	Rule *MailRule `json:"rule" required:"true" doc:"A draft of kind internal_only or limit, evaluated as if enabled and enforced."`
	Days int       `json:"days,omitempty" minimum:"1" maximum:"3650" default:"30"`
}

// MailRulePreviewed is the evaluation of recorded messages.
type MailRulePreviewed struct {
	Since    time.Time         `json:"since"`
	Examined int               `json:"examined" doc:"Records that were read."`
	Refused  int               `json:"refused" doc:"Messages that the rule would have refused for some or all recipients."`
	Accounts []PreviewedSender `json:"accounts" doc:"Senders and their number of messages, the highest first."`
	Messages []string          `json:"messages" doc:"The ids of the first 100 of their records."`
}

// PreviewedSender is an account with the number of its messages that a rule would have refused.
type PreviewedSender struct {
	Address  string `json:"address"`
	Messages int    `json:"messages"`
}

// ExplainedMessages are the records of one message, found by its queue id or Message-ID: one for
// each domain that it concerned and the caller reaches.
type ExplainedMessages struct {
	Items []ExplainedMessage `json:"items"`
}

// ExplainedMessage is a recorded message, and what the present rules say about its envelope.
type ExplainedMessage struct {
	Record     MessageRecord       `json:"record"`
	Recipients []RecipientDecision `json:"recipients" doc:"By the current rules. A recipient of another domain is shown as *@domain. Rules that use the content are not evaluated."`
}
