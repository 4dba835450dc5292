package milter

import (
	"slices"
	"strconv"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// forwarded decides about a recipient of a message that Postfix passes on. Postfix says which
// recipient it made it of, by an alias or a .forward file, as the original recipient of delivery
// status notifications.
func (s *session) forwarded(to string, m *gomilter.Modifier) gomilter.Response {
	original := originalRecipient(s.params())
	if original == "" || strings.EqualFold(original, to) {
		return gomilter.RespContinue
	}
	v := s.server.Envelopes.Forwarded(&mailflow.Envelope{
		IP: s.ip, Port: s.port, Sender: s.message.sender, Recipient: to, Redirected: original, QueueID: m.Macros["i"],
	})
	if !v.Refused {
		return gomilter.RespContinue
	}
	code := refused
	if v.Temporary {
		code = "451 4.7.1 "
	}
	return reply(code + v.Text)
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
