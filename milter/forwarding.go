package milter

import (
	"slices"
	"strconv"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// passOn decides about the recipients of a message that Postfix passes on, at its end. Postfix says
// which recipient it made each of, by an alias or a .forward file, as the original recipient of
// delivery status notifications. Recipients that a rule forbids are removed: if they were refused,
// Postfix would send a bounce to an envelope sender that may be forged.
func (s *session) passOn(m *gomilter.Modifier) (gomilter.Response, error) {
	w := s.message.whole
	if w == nil {
		return gomilter.RespAccept, nil
	}
	if refusal := s.lacksMemory(m); refusal != nil {
		return refusal, nil
	}
	var allowed, without []string
	for _, r := range w.Recipients {
		v := s.server.Envelopes.Forwarded(&mailflow.Envelope{
			IP: s.ip, Port: s.port, Sender: s.message.sender, Recipient: r.Address, Redirected: originalRecipient(r.Params),
			Delivered: s.message.local.mailbox, QueueID: m.Macros["i"], MessageID: s.message.id,
		})
		switch {
		case !v.Refused:
			allowed = append(allowed, r.Address)
		case v.Temporary:
			return s.refuse(m, "451 4.7.1 "+v.Text, v.Cause), nil
		default:
			without = append(without, r.Address)
		}
	}
	// Postfix removes an address wherever it stands: one that gets the message anyway keeps both.
	without = slices.DeleteFunc(without, func(addr string) bool { return slices.Contains(allowed, addr) })
	switch {
	case len(without) == 0:
		return gomilter.RespAccept, nil
	case len(allowed) == 0:
		return gomilter.RespDiscard, nil
	case s.options.actions&gomilter.OptRemoveRcpt == 0:
		return s.refuse(m, notMarked, errUnchangeable), nil
	}
	slices.Sort(without)
	for _, addr := range slices.Compact(without) {
		if err := m.DeleteRecipient(addr); err != nil {
			return nil, err
		}
	}
	return gomilter.RespAccept, nil
}

// local is what Postfix' local(8) writes at the head of a message that it forwards for a mailbox:
//
//	Received: by mx.example.org (Postfix)
//	        id 4F1B986051; Sun, 29 Nov 2026 02:00:00 +0000 (UTC)
//	Delivered-To: ann@example.org
//
// The Received field of a message that came by SMTP begins with "from", so that no client can write
// the same.
type local struct {
	fields  int // that were seen
	trace   bool
	mailbox string // "" for a message of another kind
}

// localFields is how many fields of a header local looks at.
const localFields = 2

// field notes the next field of the header.
func (l *local) field(name, value string) {
	switch l.fields++; {
	case l.fields == 1:
		l.trace = isField(name, "Received") && strings.HasPrefix(strings.TrimSpace(value), "by ")
	case l.fields == localFields && l.trace && isField(name, "Delivered-To"):
		l.mailbox = strings.TrimSpace(value)
	}
}

// restore has the MTA forget which original recipients the client named, at recipients whose
// forwarding is judged: they would hide the mailbox that forwards. The MTA then names the recipient
// itself. A response refuses the message.
func (s *session) restore(m *gomilter.Modifier, judged []mailflow.Judged, without []string) (gomilter.Response, error) {
	for i := range judged {
		r := &s.message.whole.Recipients[i]
		if original := originalRecipient(r.Params); !judged[i].Forwards || !names(r.Params, "ORCPT") || strings.EqualFold(original, r.Address) || slices.Contains(without, r.Address) {
			continue
		}
		if s.options.actions&gomilter.OptAddRcptWithArgs == 0 {
			return s.refuse(m, notMarked, errUnchangeable), nil
		}
		if err := m.DeleteRecipient(r.Address); err != nil {
			return nil, err
		}
		s.add(r.Address, slices.DeleteFunc(slices.Clone(r.Params), func(p string) bool { return !names([]string{p}, "NOTIFY") }))
	}
	return nil, nil
}

// names reports whether one of the parameters has a name.
func names(params []string, name string) bool {
	return slices.ContainsFunc(params, func(p string) bool {
		n, _, _ := strings.Cut(p, "=")
		return strings.EqualFold(n, name)
	})
}

// originalRecipient returns the address of a parameter ORCPT=rfc822;ann+2Bx@example.org (RFC 3461
// section 4.2); "" for none, or one of another form.
func originalRecipient(params []string) string {
	for _, p := range params {
		name, value, _ := strings.Cut(p, "=")
		if !strings.EqualFold(name, "ORCPT") {
			continue
		}
		kind, text, _ := strings.Cut(value, ";")
		if !strings.EqualFold(kind, "rfc822") && !strings.EqualFold(kind, "utf-8") {
			return ""
		}
		var b strings.Builder
		for i := 0; i < len(text); i++ {
			if text[i] == '+' && i+2 < len(text) {
				if n, err := strconv.ParseUint(text[i+1:i+3], 16, 8); err == nil {
					b.WriteByte(byte(n))
					i += 2
					continue
				}
			}
			b.WriteByte(text[i])
		}
		return b.String()
	}
	return ""
}
