package mailflow

import (
	"net/netip"
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
	// Released: the message was held and is sent now; the steps before that are not repeated.
	Released bool
	// Size is in octets, as far as it is known.
	Size int64
	// Content is nil before the message itself is there.
	Content *Content
}

// internalTo reports whether the message is internal mail of a domain.
func (m *Message) internalTo(domain string) bool {
	if m.Sender.Domain != "" {
		return m.Sender.Domain == domain
	}
	return m.Internal
}

// Content is what a message says, decoded. What the rules do not need may be missing ([Needs]).
type Content struct {
	Header      []Field  // in order; values as sent
	Subject     string   // decoded
	Texts       []string // of the parts that are shown, decoded
	Attachments []Attachment
	Fault       error // why a part of the content cannot be read; nil if all was
}

// Attachment is a part of a message that is a file.
type Attachment struct {
	Name   string // decoded
	Type   string // media type, lower case
	Size   int64  // octets, decoded
	Inside []string
	Fault  error // why an archive's names cannot be read
}

// Envelope is what a door knows of a message at one of its recipients.
type Envelope struct {
	Login     string // who authenticated; "" for nobody
	IP        netip.Addr
	Port      uint16
	Sender    string // MAIL FROM
	Recipient string
	// Recipients is the number of recipients that were accepted; 0 before it is known.
	Recipients int
	Size       int64 // as announced, or counted
	Instance   string
	QueueID    string
	// Redirected is the mailbox that a Sieve script says it forwards from. It is believed if the
	// client is one of the site's own.
	Redirected string
	MessageID  string
}

// Judged is the verdict on a message at one of its recipients.
type Judged struct {
	To     Party
	Sender string // the account that sent it, as [Message.Sender]; "" for nobody known
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
