package mailflow

import (
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
)

// Kind is the kind of a rule: its effect on messages.
type Kind string

// The kinds of rules.
const (
	KindLimit        Kind = "limit"         // bounds how much is sent (M9)
	KindInternalOnly Kind = "internal_only" // no mail to or from outside (M7)
	KindForwarding   Kind = "forwarding"    // no automatic forwarding (M6)
	KindFilter       Kind = "filter"        // to the spam folder, deleted or returned (M4)
	KindAudit        Kind = "audit"         // held until an approver decides (M3)
	KindMonitor      Kind = "monitor"       // a copy to others (M2)
	KindWarning      Kind = "warning"       // marks mail from outside (M8)
)

// Kinds are all kinds in the order in which they are evaluated. Groups are evaluated after
// internal-only rules.
var Kinds = [...]Kind{KindLimit, KindInternalOnly, KindForwarding, KindFilter, KindAudit, KindMonitor, KindWarning}

// Envelope reports whether rules of the kind are evaluated for each recipient, before the message
// itself is there.
func (k Kind) Envelope() bool {
	return k == KindLimit || k == KindInternalOnly
}

// Matches reports whether rules of the kind select messages by [Match].
func (k Kind) Matches() bool {
	return k == KindFilter || k == KindAudit || k == KindMonitor || k == KindWarning
}

// Direction selects messages by the side that a rule's scope is on.
type Direction string

// The directions. The zero value means both.
const (
	Sent     Direction = "sent"     // the sender is in the scope
	Received Direction = "received" // the recipient is in the scope
	Both     Direction = "both"
)

// Has reports whether rules of direction d apply to one side of a message.
func (d Direction) Has(side Direction) bool { return d == "" || d == Both || d == side }

// Fault is what happens to a message that a rule cannot be evaluated for.
type Fault string

// The settings of a rule's on_fault. The zero value means FaultTempfail.
const (
	FaultTempfail Fault = "tempfail" // the message is refused for now
	FaultIgnore   Fault = "ignore"   // as if the rule did not match
)

// Rule is a rule for messages of a domain.
type Rule struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Kind      Kind              `json:"kind"`
	Enabled   bool              `json:"enabled"`
	Mode      access.PolicyMode `json:"mode"`
	Scope     access.Scope      `json:"scope"`
	Direction Direction         `json:"direction"`
	Match     Match             `json:"match,omitzero"`
	// ExceptDomains are domains of the other party for which the rule does not apply:
	// "example.net", or "*.example.net" for all below.
	ExceptDomains []string  `json:"except_domains,omitempty"`
	From          time.Time `json:"from,omitzero"`  // when it begins; zero for always
	Until         time.Time `json:"until,omitzero"` // when it ends; zero for never
	OnFault       Fault     `json:"on_fault,omitempty"`
	Action        Action    `json:"action,omitzero"`
}

// Match selects the messages that a rule applies to: each list that is not empty must match, and
// one of its entries is enough.
type Match struct {
	RecipientDomains []string      `json:"recipient_domains,omitempty"` // "example.net", "*.example.net"
	Senders          []string      `json:"senders,omitempty"`           // addresses, "*@example.net"
	Recipients       []string      `json:"recipients,omitempty"`
	Headers          []HeaderMatch `json:"headers,omitempty"`
	Subject          []string      `json:"subject,omitempty"` // words in the decoded subject
	Text             []string      `json:"text,omitempty"`    // words in the decoded text, or in the subject
	Attachments      Attachments   `json:"attachments,omitzero"`
	MinSize          int64         `json:"min_size,omitempty"` // octets
}

// Empty reports whether all messages match, because no condition is given. The zero Match is empty.
func (m *Match) Empty() bool {
	return len(m.RecipientDomains)+len(m.Senders)+len(m.Recipients)+len(m.Headers)+len(m.Subject)+len(m.Text)+
		len(m.Attachments.Names)+len(m.Attachments.Types) == 0 && m.MinSize == 0
}

// HeaderMatch matches a field of the header by its decoded value.
type HeaderMatch struct {
	Name     string `json:"name"`
	Contains string `json:"contains,omitempty"` // whatever the case
	Regex    string `json:"regex,omitempty"`    // RE2
}

// Attachments match attachments by patterns, whatever the case: "*.exe", "application/*". Names in
// archives count as names.
type Attachments struct {
	Names []string `json:"names,omitempty"`
	Types []string `json:"types,omitempty"`
}

// Action is the effect of a rule on a message. The fields for rules of other kinds are empty.
type Action struct {
	// Of monitor.
	To []string `json:"to,omitempty"`

	// Of audit. Then, of limit too: "reject" or "release"; "refuse" or "suspend_credential".
	Approvers []string `json:"approvers,omitempty"`
	Need      string   `json:"need,omitempty"`    // "any", "all"
	Expires   string   `json:"expires,omitempty"` // a duration: "72h"
	Then      string   `json:"then,omitempty"`

	// Of filter: "spam", "delete", "return" with a text.
	Do   string `json:"do,omitempty"`
	Text string `json:"text,omitempty"`

	// Of forwarding: "inside" or "none". Domains that may be forwarded to are in ExceptDomains of the
	// rule.
	Allow string `json:"allow,omitempty"`

	// Of limit; 0 for no bound.
	Per               string `json:"per,omitempty"` // "account", "credential", "domain"
	MessagesPerHour   int    `json:"messages_per_hour,omitempty"`
	MessagesPerDay    int    `json:"messages_per_day,omitempty"`
	RecipientsPerHour int    `json:"recipients_per_hour,omitempty"`
	RecipientsPerDay  int    `json:"recipients_per_day,omitempty"`
	WarnAt            int    `json:"warn_at,omitempty"` // per cent of a bound

	// Of warning: "general" or "advanced"; "header", "subject", "banner"; texts by language.
	Level     string            `json:"level,omitempty"`
	How       []string          `json:"how,omitempty"`
	Texts     map[string]string `json:"texts,omitempty"`
	Whitelist []string          `json:"whitelist,omitempty"`
	// Tag is put before the subject; "[EXT]" if empty. AdvancedTexts are for the advanced level, in
	// place of Texts.
	Tag           string            `json:"tag,omitempty"`
	AdvancedTexts map[string]string `json:"advanced_texts,omitempty"`
}

// The values of an action's fields.
const (
	ThenReject  = "reject"
	ThenRelease = "release"
	NeedAny     = "any"
	NeedAll     = "all"

	ThenRefuse  = "refuse"
	ThenSuspend = "suspend_credential"

	DoSpam   = "spam"
	DoDelete = "delete"
	DoReturn = "return"

	AllowInside = "inside"
	AllowNone   = "none"

	PerAccount    = "account"
	PerCredential = "credential"
	PerDomain     = "domain"

	LevelGeneral  = "general"
	LevelAdvanced = "advanced"

	HowHeader  = "header"
	HowSubject = "subject"
	HowBanner  = "banner"
)

// WhoMaySend says who may write to a group: anyone, internal mail of the domain, its members, or
// those listed. The zero value means anyone.
type WhoMaySend string

// The settings of a group's who_may_send. The zero value means anyone.
const (
	Anyone  WhoMaySend = "anyone"
	Inside  WhoMaySend = "domain"  // internal mail of the group's domain
	Members WhoMaySend = "members" // its members, and those of groups among them
	Listed  WhoMaySend = "listed"  // its listed senders and departments
)

// Group is an address that several accounts receive mail by (M5). Postfix expands it; here is who
// may write to it.
type Group struct {
	Address     string     `json:"address"`
	Aliases     []string   `json:"aliases,omitempty"` // further addresses that lead to it
	Members     []string   `json:"members,omitempty"` // accounts, groups, addresses elsewhere
	WhoMaySend  WhoMaySend `json:"who_may_send"`
	Senders     []string   `json:"senders,omitempty"` // addresses, "*@example.net", groups for their members
	Departments []string   `json:"departments,omitempty"`
	// Approvers decide about messages to the group before they are delivered. ExemptApprovers: their
	// own messages need no approval.
	Approvers       []string `json:"approvers,omitempty"`
	ExemptApprovers bool     `json:"exempt_approvers,omitempty"`
}
