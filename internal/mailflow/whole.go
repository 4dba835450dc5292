package mailflow

import (
	"net/netip"
	"slices"
	"strings"
)

// Whole is a message as a door received it, with all that is needed to send it again.
type Whole struct {
	Envelope   Envelope // without a recipient
	Params     []string // of MAIL, as the client wrote them
	Recipients []Addressee
	Header     []Field // in order, values as they were sent, with the space behind the colon
	Body       []byte  // lines end in CRLF
	Subject    string  // decoded
	Relayed    bool    // see [Judgement]
	Trace      string  // names client and credential (M10); "" for none
	Client     string  // the name of the client, if the MTA knows it
}

// Addressee is a recipient of a message and the parameters of its RCPT.
type Addressee struct {
	Address string
	Params  []string
}

// Pass describes a message that this daemon sends itself.
type Pass struct {
	ID string // of the message
	// Login and IP are those of the client that sent the message first.
	Login string
	IP    netip.Addr
	// Trace is that of the message as it was received.
	Trace string
	// Rules are ids of audit rules, and addresses of groups, that have held the message already.
	Rules []string
	// Notice: it is a copy or a notice, to which no rule applies.
	Notice bool
	// Spam: it is for the spam folders of its recipients. Apart: it was decided about, and sent apart
	// for that reason alone.
	Spam, Apart bool
	Sender      string
	Recipients  []string
}

// Covers reports whether the pass is for a message from a sender to a recipient.
func (p *Pass) Covers(sender, recipient string) bool {
	return p != nil && p.Sender == sender && slices.Contains(p.Recipients, recipient)
}

// Has reports whether the effect has held the message already.
func (p *Pass) Has(e *Effect) bool { return slices.Contains(p.Rules, e.ID()) }

// ID returns what names the effect in records and lists: the id of the rule, or the address of the
// group.
func (e *Effect) ID() string {
	if e.Rule != nil {
		return e.Rule.ID
	}
	return e.Group.Address
}

// Holds reports whether the effect wants an approver's decision before the message is delivered: of
// an audit rule, or a group with approvers.
func (e *Effect) Holds() bool { return e.Rule == nil || e.Rule.Kind == KindAudit }

// Parcel is a message for some of its recipients that is held or sent apart, or for one monitor that
// is copied.
type Parcel struct {
	Effect     Effect
	Recipients []int  // indices in [Whole.Recipients]
	Monitor    string // "" for a message that is not copied
	Spam       bool   // it is for the spam folders of its recipients
	Apart      bool   // it is sent at once, since others get it without that mark
}

// Parcels returns what has to be kept of a message: each recipient is held by one rule or group at
// most, the first, and what is held is not copied yet. A monitor gets one copy, and none of a
// message that they receive anyway. Recipients of one message share its bytes: if a filter files it
// as spam for some of those who get it now, and not for others, these get a message of their own.
func Parcels(judged []Judged) []Parcel {
	var list []Parcel
	receives := map[string]bool{}
	for i := range judged {
		receives[judged[i].To.Address] = receives[judged[i].To.Address] || !judged[i].Deleted
	}
	add := func(like Parcel, recipient int) {
		for i := range list {
			p := &list[i]
			if p.Monitor != like.Monitor || like.Monitor == "" && (p.Effect.ID() != like.Effect.ID() || p.Effect.Domain != like.Effect.Domain || p.Spam != like.Spam || p.Apart != like.Apart) {
				continue
			}
			if !slices.Contains(p.Recipients, recipient) {
				p.Recipients = append(p.Recipients, recipient)
			}
			return
		}
		like.Recipients = []int{recipient}
		list = append(list, like)
	}
	var spam []int
	others := false // get it now, and not as spam
	for i := range judged {
		effects := judged[i].Effects
		if held := slices.IndexFunc(effects, func(e Effect) bool { return e.Holds() }); held >= 0 {
			add(Parcel{Effect: effects[held], Spam: judged[i].Spam}, i)
			continue
		}
		switch {
		case judged[i].Spam && judged[i].filtered() != nil:
			spam = append(spam, i)
		case !judged[i].Spam && !judged[i].Deleted:
			others = true
		}
		for k := range effects {
			if e := &effects[k]; e.Rule.Kind == KindMonitor {
				for _, monitor := range e.Rule.Action.To {
					if !receives[monitor] {
						add(Parcel{Effect: *e, Monitor: monitor}, i)
					}
				}
			}
		}
	}
	if others {
		for _, i := range spam {
			add(Parcel{Effect: *judged[i].filtered(), Spam: true, Apart: true}, i)
		}
	}
	return list
}

// Head returns the header with the empty line after it, with CRLF for the ends of lines, and room
// for so many octets of body.
func (w *Whole) Head(room int) []byte {
	size := 2 + room
	for i := range w.Header {
		size += len(w.Header[i].Name) + len(w.Header[i].Value) + 8
	}
	b := make([]byte, 0, size)
	for i := range w.Header {
		b = append(append(b, w.Header[i].Name...), ':')
		value := w.Header[i].Value
		for {
			line, rest, more := strings.Cut(value, "\n")
			b = append(append(b, strings.TrimSuffix(line, "\r")...), "\r\n"...)
			if !more {
				break
			}
			value = rest
		}
	}
	return append(b, "\r\n"...)
}
