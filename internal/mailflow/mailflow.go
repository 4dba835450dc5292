// Package mailflow is the vocabulary and the decision engine for messages: whether the sender
// addresses of a message the authenticated user may use (M1, M12), and which header is added to
// submitted mail (M10).
//
// The domain of an address decides who may use it: an address of a managed domain is for the
// account that it belongs to and for those it was granted to (send_as), whatever the submitter's
// own domain says, and even if that is not managed. The submitter's domain decides on addresses of
// domains that are not managed.
//
// The package is pure: no I/O, no clock, no context, no log.
package mailflow

import (
	"fmt"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
)

// SenderCheck selects where sender addresses of a domain are checked: in MAIL FROM and the header,
// or in MAIL FROM alone. The zero value checks both.
type SenderCheck string

// The settings of a domain's sender_check; the zero value means [CheckBoth].
const (
	CheckBoth     SenderCheck = "both"     // MAIL FROM, and From, Sender, Resent-From and Resent-Sender
	CheckEnvelope SenderCheck = "envelope" // MAIL FROM only
	CheckOff      SenderCheck = "off"
)

// Headers reports whether header fields are checked, too. The zero value, of a domain that names
// none, checks them.
func (c SenderCheck) Headers() bool { return c == CheckBoth || c == "" }

// Needs are the parts of messages that rules in force use.
type Needs struct {
	Recipients bool
	Headers    bool
	Body       bool
	// MessageID: messages are recorded, with their Message-ID; fields named as ours are removed. No
	// rule needs a header field for that.
	MessageID bool
	// Unknown: the rules are not loaded. No message can be judged, and all parts may be needed.
	Unknown bool
}

// Or returns what one or the other needs. It is commutative; the zero Needs adds nothing.
func (n Needs) Or(o Needs) Needs {
	return Needs{
		n.Recipients || o.Recipients, n.Headers || o.Headers, n.Body || o.Body, n.MessageID || o.MessageID, n.Unknown || o.Unknown,
	}
}

// Address is the verdict of the rules on a sender address.
type Address struct {
	Managed bool        // its domain is managed
	Check   SenderCheck // of its domain, if that is managed
	Granted bool        // the submitter may use it
}

// Submitter is who authenticated, as the rules for messages see them.
type Submitter struct {
	Account string      // canonical; empty when no rule concerns the session
	Check   SenderCheck // of the submitter's domain; off if that is not managed
	Headers bool        // some managed domain checks header fields
	// Address looks up a canonical address. One whose local part cannot be read is looked up as
	// "@domain".
	Address func(addr string) Address
	// Trace is the value of the header that names client type and credential, or "" when the domain
	// wants none. ASCII, without line breaks.
	Trace string
	// Unavailable: which rules concern the session is not known at the moment.
	Unavailable bool
}

// Verdict is the decision on a message, or on one of its recipients. The zero Verdict has no
// objection.
type Verdict struct {
	Refused   bool
	Temporary bool   // refused for now only
	Text      string // for the SMTP client; ASCII, without line breaks
	Cause     error  // for the log; nil when the text says it all
	Reason    Reason // of the refusal
	Rule      string // the id of the rule, or the address of the group, that refuses
	// Reported are the rules in report mode that would refuse, by id.
	Reported []string
	// Effects are the rules of kinds filter, audit, monitor and warning that match, in the order of
	// [Kinds], and groups with approvers (then Rule is nil).
	Effects []Effect
	Trace   []Step // if asked for
}

// Effect is a rule that matches a message at one recipient.
type Effect struct {
	Rule  *Rule
	Group *Group // whose approvers decide, nil for a rule
	// Side is the side of the message that is in the rule's scope.
	Side   Direction
	Domain string // whose rule or group it is
	Level  string // of a warning: LevelGeneral or LevelAdvanced
}

func (s *Submitter) refuse(cause error, format string, args ...any) Verdict {
	return Verdict{Refused: true, Text: fmt.Sprintf(format, args...), Cause: cause, Reason: ReasonSenderNotOwned}
}

// Envelope checks MAIL FROM, without its angle brackets. The null sender is allowed: bounces and
// read receipts have it.
func (s *Submitter) Envelope(from string) Verdict {
	if s.Account == "" || from == "" {
		return Verdict{}
	}
	a := s.lookup(from)
	if a.Granted || s.check(a) == CheckOff {
		return Verdict{}
	}
	return s.refuse(nil, "The sender address %s does not belong to your account: send as %s, or ask for permission to use it.",
		shown(from), shown(s.Account))
}

// Field is a header field as it was received: the name in the client's spelling, the value with its
// folding.
type Field struct{ Name, Value string }

// Originator reports whether a header field names whom a message is from. Space before the colon is
// obsolete, and mail programs still read it (RFC 5322 section 4.5).
func Originator(name string) bool {
	name = strings.TrimRight(name, " \t")
	for _, f := range [...]string{"From", "Sender", "Resent-From", "Resent-Sender"} {
		if strings.EqualFold(name, f) {
			return true
		}
	}
	return false
}

// Header checks the originator fields of a message, in any order.
func (s *Submitter) Header(fields []Field) Verdict {
	if !s.ChecksHeader() {
		return Verdict{}
	}
	froms, size := 0, 0
	for _, f := range fields {
		name := strings.TrimRight(f.Name, " \t")
		if strings.EqualFold(name, "From") {
			froms++
		}
		if size += len(f.Value); size > MaxHeader {
			return s.unreadable(name, fmt.Errorf("the originator fields are longer than %d octets", MaxHeader))
		}
		mailboxes, err := Mailboxes([]string{f.Value})
		if err != nil {
			return s.unreadable(name, err)
		}
		for _, m := range mailboxes {
			if a := s.lookup(m); !a.Granted && s.check(a).Headers() {
				return s.refuse(nil, "The address %s in the %s header does not belong to your account: write %s, or ask for permission to use it.",
					shown(m), shown(name), shown(s.Account))
			}
		}
	}
	switch {
	case !s.Check.Headers() || froms == 1:
	case froms == 0:
		return s.refuse(nil, "The message has no From header: write From: %s", shown(s.Account))
	default:
		return s.refuse(nil, "The message has %d From headers: write one, From: %s", froms, shown(s.Account))
	}
	return Verdict{}
}

func (s *Submitter) unreadable(name string, cause error) Verdict {
	return s.refuse(cause, "The %s header cannot be read (%s): write %s: %s", shown(name), shown(cause.Error()), shown(name), shown(s.Account))
}

// ChecksHeader reports whether the originator fields of the submitter's messages are checked.
func (s *Submitter) ChecksHeader() bool { return s.Account != "" && s.Headers }

// check returns the setting that applies to an address.
func (s *Submitter) check(a Address) SenderCheck {
	if a.Managed {
		return a.Check
	}
	return s.Check
}

// lookup reads an address by the same rules in the envelope and in the header: source routes are
// dropped, and quotes that are not needed.
func (s *Submitter) lookup(text string) Address {
	p := parser{text: "<" + text + ">"}
	if err := p.angle(); err == nil && p.at == len(p.text) {
		text = p.found[0]
	}
	if canonical, err := address.Parse(text, ""); err == nil {
		return s.Address(canonical)
	}
	// Postfix rewrites domain!local and local%domain to local@domain. As no account has an address
	// of these forms, any managed domain in it decides.
	var a Address
	for _, domain := range [...]string{text[strings.LastIndexByte(text, '@')+1:], text[strings.LastIndexByte(text, '%')+1:], text[:max(strings.IndexByte(text, '!'), 0)]} {
		if domain, err := address.ParseDomain(domain); err == nil && !a.Managed {
			a = s.Address("@" + domain)
		}
	}
	a.Granted = false
	return a
}

// shown returns text fit for an SMTP reply: ASCII, without control characters, bounded.
func shown(text string) string {
	const enough = 100
	if len(text) > enough {
		text = text[:enough] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
}
