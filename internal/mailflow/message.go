package mailflow

import (
	"net/netip"
	"strings"
	"time"
)

// Party is a sender or a recipient.
type Party struct {
	Address     string // canonical, or as written if it cannot be read; "" for the null sender
	Account     string // of a managed domain that the address belongs to; "" for none
	Domain      string // of the account; "" for none
	Departments []string
}

// Message is a message as the rules see it.
type Message struct {
	Time time.Time
	// From is MAIL FROM. Anybody may write anything there: its account says nothing about who sent
	// the message.
	From Party
	// Sender is who sent it: the account that authenticated, or the account of MAIL FROM where the
	// client is internal. The zero Party if that is not known, as for all mail from outside.
	Sender Party
	// Internal: the client is one of the site's own, or its sender authenticated.
	Internal bool
	// Credential is the id of the secure password that the session authenticated with, if there is
	// one candidate; "mailbox" for the mailbox password.
	Credential string
	// Redirected is the account whose mailbox forwards the message automatically.
	Redirected Party
	// Expanded: the MTA made the recipient of another one. What is known about the sender is MAIL
	// FROM.
	Expanded bool
	// Released: the message was held and is sent now; the steps before that are not repeated.
	Released bool
	// SentApart: it was decided about, and comes for the recipients whose filter files it as spam.
	SentApart bool
	// Size is in octets, as far as it is known.
	Size int64
	// Content is nil before the message itself is there.
	Content *Content
}

// origin returns who sent the message first, as far as it is known: MAIL FROM for one that is
// forwarded, which anybody may have written.
func (m *Message) origin() *Party {
	if m.Sender.Account == "" {
		return &m.From
	}
	return &m.Sender
}

// internalTo reports whether the message is internal mail of a domain.
func (m *Message) internalTo(domain string) bool {
	if m.Sender.Domain != "" {
		return m.Sender.Domain == domain
	}
	return m.Internal
}

// Content is the decoded content of a message. Parts that no rule needs may be missing: see
// [Needs].
type Content struct {
	Header      []Field  // in order; values decoded and on one line
	Subject     string   // decoded
	Texts       []string // of the parts that are shown, decoded
	Attachments []Attachment
	Fault       error // why a part of the content cannot be read; nil if all was
	// Load sets the texts, the attachments and the fault. It is called once, if a rule needs them.
	Load func(*Content)

	matched map[*matcher]matched // results of rules, for all recipients
	effort  int64                // that the rules have spent on it
}

// From returns the decoded From field; "" if there is none.
func (c *Content) From() string {
	if c != nil {
		for _, f := range c.Header {
			if strings.EqualFold(strings.TrimRight(f.Name, " \t"), "From") {
				return f.Value
			}
		}
	}
	return ""
}

// load makes sure that texts and attachments are there.
func (c *Content) load() {
	if load := c.Load; load != nil {
		c.Load = nil
		load(c)
	}
}

// Attachment is a part of a message that is a file.
type Attachment struct {
	Names []string // decoded: as declared, in any field, and those of files in an archive
	Types []string // media types, lower case: as declared, and as the content says
	Size  int64    // octets, decoded
}

// Envelope describes a message at one of its recipients, as the asking protocol knows it.
type Envelope struct {
	Login     string // who authenticated; "" for nobody
	IP        netip.Addr
	Port      uint16
	Sender    string // MAIL FROM
	Recipient string
	// Data: the client began to send the message.
	Data bool
	// Recipients is the number of recipients that were accepted; 0 before it is known.
	Recipients int
	Size       int64 // as announced, or counted
	Instance   string
	QueueID    string
	// Redirected is the mailbox that a Sieve script says it forwards from. It is trusted if the
	// client is one of the site's own.
	Redirected string
	// Delivered is the mailbox whose .forward file, or local alias, the MTA follows; "" for none.
	Delivered string
	MessageID string
}

// Judged is the verdict on a message at one of its recipients.
type Judged struct {
	Given  string // the address as it was given
	To     Party
	Sender string // the account that sent it, as [Message.Sender]; "" for nobody known
	// Forwards: the recipient's domain has rules about automatic forwarding, which judge what the
	// MTA sends out by the recipient that it was made of. The client must not name another one.
	Forwards bool
	// Spam: a filter files the message in the recipient's spam folder. Deleted: they do not get it.
	Spam, Deleted bool
	Verdict
}

// Reason is the stable code of why a message was refused.
type Reason string

// The reasons.
const (
	ReasonSenderNotOwned Reason = "sender_not_owned"
	ReasonInternalOnly   Reason = "internal_only"
	ReasonGroupClosed    Reason = "group_closed"
	ReasonForwarding     Reason = "forwarding"
	ReasonLimit          Reason = "limit"
	ReasonFiltered       Reason = "filtered"
	ReasonHeld           Reason = "held"
)

// Step is one step of an evaluation, for explanations.
type Step struct {
	Step   string `json:"step"`   // a kind of rule, or "group"
	Result string `json:"result"` // pass, refuse, report, match, no_match, not_applicable, not_evaluated
	Rule   string `json:"rule,omitempty"`
	Detail string `json:"detail,omitempty"`
}
