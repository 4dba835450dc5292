// Package mailflow is the vocabulary and the decision engine for messages: whether a sender address
// belongs to whoever authenticated (M1), and what is noted on submitted mail (M10).
//
// The package is pure: no I/O, no clock, no context, no log.
package mailflow

import (
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
)

// SenderCheck says which sender addresses must belong to the login.
type SenderCheck string

// The settings of a domain's sender_check; the zero value means [CheckBoth].
const (
	CheckBoth     SenderCheck = "both"     // MAIL FROM and every header From mailbox
	CheckEnvelope SenderCheck = "envelope" // MAIL FROM only
	CheckOff      SenderCheck = "off"
)

// Needs are the parts of messages that some rule in force wants to see.
type Needs struct {
	Headers bool
	Body    bool
}

// Submitter is who authenticated, as the rules for messages see them.
type Submitter struct {
	Account string // canonical; empty when no rule concerns the session
	Check   SenderCheck
	// Owns reports whether a canonical address belongs to the account.
	Owns func(addr string) bool
	// Trace is the value of the header that names client type and credential, or "" when the domain
	// wants none. ASCII, without line breaks.
	Trace string
	// Unavailable: whether rules concern the session cannot be told now.
	Unavailable bool
}

// Verdict says whether a message may go on.
type Verdict struct {
	Refused bool
	Text    string // for the SMTP client; ASCII, without line breaks
}

// Envelope holds MAIL FROM, without its angle brackets, against the submitter. The null sender is
// allowed: bounces and read receipts have it.
func (s *Submitter) Envelope(from string) Verdict {
	if s.Account == "" || s.Check == CheckOff || from == "" || s.owns(from) {
		return Verdict{}
	}
	return Verdict{true, "The sender address does not belong to your account."}
}

// HeaderFrom holds the mailboxes of all From header fields against the submitter. A message without
// any has none that could be foreign.
func (s *Submitter) HeaderFrom(mailboxes []string) Verdict {
	if !s.WantsHeaderFrom() {
		return Verdict{}
	}
	for _, m := range mailboxes {
		if !s.owns(m) {
			return Verdict{true, "The address in the From header does not belong to your account."}
		}
	}
	return Verdict{}
}

// WantsHeaderFrom reports whether the From header fields are checked.
func (s *Submitter) WantsHeaderFrom() bool {
	return s.Account != "" && (s.Check == CheckBoth || s.Check == "")
}

// owns accepts the account's own address extensions (ann+lists@) beside what Owns says.
func (s *Submitter) owns(addr string) bool {
	canonical, err := address.Parse(addr, "")
	if err != nil {
		return false
	}
	if s.Owns(canonical) {
		return true
	}
	local, domain := address.Local(canonical), address.Domain(canonical)
	base, _, extended := strings.Cut(local, "+")
	return extended && base != "" && s.Owns(base+"@"+domain)
}
