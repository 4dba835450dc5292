package mailflow

import (
	"strings"
	"time"
)

// Outcome is what became of a message, at all its recipients together: accepted, refused, or
// refused for some of them.
type Outcome string

// The outcomes.
const (
	Accepted Outcome = "accepted"
	Refused  Outcome = "refused"
	Partly   Outcome = "partly_refused" // for some recipients
)

// Record is the record of a message for one domain (M11), without its content. Text from
// outsiders in it is bounded.
type Record struct {
	ID        string    `json:"id"`
	Time      time.Time `json:"time"`
	Domain    string    `json:"-"`
	QueueID   string    `json:"queue_id,omitempty" doc:"Postfix's; missing if all recipients were refused before it had one."`
	MessageID string    `json:"message_id,omitempty" doc:"As the message says; missing where no rule makes the milter read headers."`
	Direction Direction `json:"direction" enum:"sent,received" doc:"sent: an account of the domain sent it; it may have recipients in the domain, too."`
	Account   string    `json:"account,omitempty" doc:"Who sent it, if an account of the domain did."`
	Sender    string    `json:"sender" doc:"MAIL FROM; empty for bounces."`
	Internal  bool      `json:"internal" doc:"Whether it counts as mail from within the domain."`
	Redirect  string    `json:"redirected_by,omitempty" doc:"The account whose mailbox forwarded it automatically."`

	IP           string `json:"ip,omitempty" doc:"The client's address. Missing if an account of another domain sent the message, as are the next three."`
	Client       string `json:"client,omitempty" doc:"The client type."`
	CredentialID string `json:"credential_id,omitempty" doc:"The secure password's id, mailbox or master; several with commas if it is not known which."`
	Credential   string `json:"credential,omitempty" doc:"The secure password's label."`

	Size             int64    `json:"size,omitempty" doc:"Octets."`
	Recipients       int      `json:"recipients" doc:"Recipients that were accepted: all of them if the domain's account sent the message, else those in the domain."`
	RecipientDomains []string `json:"recipient_domains" doc:"Their domains, at most 50; refused ones included."`
	Accounts         []string `json:"accounts,omitempty" doc:"The recipients in the domain, accounts and groups, at most 50."`

	Verdict     Outcome  `json:"verdict" enum:"accepted,refused,partly_refused"`
	RefusedFor  int      `json:"recipients_refused,omitempty" doc:"The number of recipients that were refused."`
	Reason      Reason   `json:"reason,omitempty" doc:"Of the first refusal."`
	Rule        string   `json:"rule,omitempty" doc:"The mail rule or group of the first refusal, or of the first rule that had an effect."`
	WouldRefuse []string `json:"would_refuse,omitempty" doc:"Rules in report mode that match."`
	Warned      []string `json:"warned,omitempty" doc:"Limits that the message came close to."`
	Node        string   `json:"node,omitempty" doc:"The host of the daemon."`
}

// Has reports whether an account sent or received the message.
func (r *Record) Has(account string) bool {
	if r.Account == account {
		return true
	}
	for _, a := range r.Accounts {
		if a == account {
			return true
		}
	}
	return false
}

// MayBeOf reports whether the message was sent with a credential, or perhaps with another one.
func (r *Record) MayBeOf(credential string) bool {
	for id := range strings.SplitSeq(r.CredentialID, ",") {
		if id == credential {
			return true
		}
	}
	return false
}
