package milter

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"

	gomilter "github.com/emersion/go-milter"
	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/serving"
)

const (
	// traceHeader names the field that states how a message was submitted (M10).
	traceHeader = mailflow.FieldTrace
	messageID   = "Message-ID"
	// maxForged bounds the fields named as ours in a message: Postfix searches the whole message
	// for each that is removed.
	maxForged = 20
	// outgoing is the name of the smtpd that passes on what Postfix sends out (macro
	// {daemon_name}).
	outgoing = "drawbridge-outgoing"
)

// options are the actions and the omitted packets of a connection.
type options struct {
	actions  gomilter.OptAction
	protocol gomilter.OptProtocol
}

// choose requests the offered options that the rules need: Postfix drops a milter that asks for
// more than it offered. The answer to the connection is never omitted: the MTA waits for it, so
// that a connection is known before anything can authenticate it.
//
// No rule decides at a recipient or a header field, so that no answers are sent there. Without a
// body the end of the message follows the end of the header in the same write, and answers for both.
func choose(needs mailflow.Needs, offer []byte) options {
	const always = gomilter.OptNoHelo | gomilter.OptNoUnknown | gomilter.OptNoData | gomilter.OptNoHeaderReply | gomilter.OptNoRcptReply
	o := options{gomilter.OptAddHeader | gomilter.OptChangeHeader, always}
	if !needs.Headers && !needs.Body && !needs.MessageID {
		o.protocol |= gomilter.OptNoHeaders | gomilter.OptNoEOH
	}
	if needs.Recipients || needs.Body {
		o.actions |= gomilter.OptRemoveRcpt | gomilter.OptAddRcptWithArgs
	} else {
		o.protocol |= gomilter.OptNoRcptTo
	}
	if needs.Body { // with the space behind the colon, so that the message is kept as it was sent
		o.protocol |= gomilter.OptHeaderLeadingSpace
		if skips := gomilter.OptProtocol(binary.BigEndian.Uint32(offer[8:]))&gomilter.OptSkip != 0; skips {
			o.protocol |= gomilter.OptSkip
		} else {
			o.protocol |= gomilter.OptNoBodyReply
		}
		o.actions |= gomilter.OptChangeBody
	} else {
		o.protocol |= gomilter.OptNoBody
		if needs.Recipients {
			o.protocol |= gomilter.OptNoEOHReply
		}
	}
	o.actions &= gomilter.OptAction(binary.BigEndian.Uint32(offer[4:]))
	o.protocol &= gomilter.OptProtocol(binary.BigEndian.Uint32(offer[8:]))
	return o
}

// session is one SMTP session, as go-milter reports it.
type session struct {
	gate    Gate
	rules   Rules
	keeper  Keeper
	server  *Server
	params  func() []string // of the present MAIL or RCPT
	add     func(recipient string, params []string)
	log     hclog.Logger
	options options
	fields  bool   // rules want header fields, beside those that are always of interest
	offer   []byte // of the MTA
	ip      netip.Addr
	port    uint16
	name    string // of the client; "" if it is not known
	passing bool   // the MTA passes on mail that was received before: see outgoing
	ended   func() // nil before the MTA has reported a connection
	message message
}

// message is the state of the current message.
type message struct {
	login     string
	sender    string
	ip        netip.Addr // of the client, as is the port
	port      uint16
	passed    bool // by another server, see [access.Submission]
	submitter mailflow.Submitter
	from      []mailflow.Field // originator fields
	fromSize  int              // octets of their values, and of those left out
	ours      map[string]int   // fields named as ours, by name
	forged    int              // their number
	checked   bool             // the header fields were
	refusal   gomilter.Response
	id        string // Message-ID
	local     local  // of a message that the MTA passes on
	whole     *whole // nil if nothing of it is collected
}

// submission is the session of the message.
func (m *message) submission() access.Submission {
	return access.Submission{Account: m.login, IP: m.ip, Port: m.port, Sender: m.sender, Passed: m.passed}
}

func newSession(s *Server, offer []byte) *session {
	needs := s.Gate.Needs()
	return &session{
		gate: s.Gate, rules: s.Rules, keeper: s.Keeper, server: s, log: s.Log, options: choose(needs, offer), fields: needs.Headers || needs.Body, offer: bytes.Clone(offer),
	}
}

// seesHeaders reports whether header fields are sent on this connection.
func (s *session) seesHeaders() bool { return s.options.protocol&gomilter.OptNoHeaders == 0 }

// seesBody reports whether bodies are sent on this connection, and the header fields as they are.
func (s *session) seesBody() bool {
	return s.options.protocol&(gomilter.OptNoBody|gomilter.OptHeaderLeadingSpace) == gomilter.OptHeaderLeadingSpace
}

// seesRecipients reports whether recipients are sent on this connection.
func (s *session) seesRecipients() bool { return s.options.protocol&gomilter.OptNoRcptTo == 0 }

// outdated reports whether the rules need parts of messages that this connection was opened
// without.
func (s *session) outdated() bool {
	const parts = gomilter.OptNoRcptTo | gomilter.OptNoHeaders | gomilter.OptNoEOH | gomilter.OptNoBody
	needs := s.gate.Needs()
	if (needs.Headers || needs.Body) && !s.fields {
		return true
	}
	needs.MessageID = false
	return s.options.protocol&parts&^choose(needs, s.offer).protocol != 0
}

// declines reports whether the session does without a header field, because it means nothing here
// or because there were too many. A field that wants an answer has to be seen to get it.
func (s *session) declines(name []byte) bool {
	switch {
	case s.options.protocol&gomilter.OptNoHeaderReply == 0, s.passing && s.message.local.fields < localFields, s.collects() && !s.message.whole.long && !s.message.whole.full:
		return false
	case isField(string(name), messageID):
		return s.message.id != ""
	case mailflow.Originator(string(name)):
		return s.message.fromSize > mailflow.MaxHeader
	case isOurs(string(name)):
		return s.message.forged > maxForged
	default:
		return true
	}
}

// collects reports whether the header fields of the message are collected.
func (s *session) collects() bool { return s.fields && s.message.whole != nil && !s.passing }

// isOurs reports whether only Drawbridge writes a field of that name.
func isOurs(name string) bool {
	return len(name) > len(mailflow.FieldPrefix) && strings.EqualFold(name[:len(mailflow.FieldPrefix)], mailflow.FieldPrefix)
}

// isField compares names of header fields. Space before the colon is obsolete, and still read by
// mail programs (RFC 5322 section 4.5).
func isField(name, want string) bool {
	return strings.EqualFold(strings.TrimRight(name, " \t"), want)
}

// continueUnless is the answer to a packet that needs none if so agreed.
func (s *session) continueUnless(agreed gomilter.OptProtocol) gomilter.Response {
	if s.options.protocol&agreed != 0 {
		return nil
	}
	return gomilter.RespContinue
}

// Connect notes the client's address.
func (s *session) Connect(_, _ string, port uint16, addr net.IP, m *gomilter.Modifier) (gomilter.Response, error) {
	s.passing = m.Macros["{daemon_name}"] == outgoing
	if s.name, _, _ = strings.Cut(m.Macros["_"], " "); strings.HasPrefix(s.name, "[") || s.name == "unknown" {
		s.name = ""
	}
	ip, _ := netip.AddrFromSlice(addr)
	s.ip, s.port = ip.Unmap(), port
	s.end()
	if port != 0 { // a program on the machine has none
		s.ended = s.gate.Connected(s.ip, port)
	}
	return gomilter.RespContinue, nil
}

// end reports the end of the session, if its beginning was reported.
func (s *session) end() {
	if s.ended != nil {
		s.ended()
		s.ended = nil
	}
}

// Helo is not requested: the name that a client gives itself proves nothing.
func (s *session) Helo(string, *gomilter.Modifier) (gomilter.Response, error) {
	return gomilter.RespContinue, nil
}

// MailFrom begins a message: who sends it is known now.
func (s *session) MailFrom(from string, m *gomilter.Modifier) (gomilter.Response, error) {
	s.drop()
	s.message = message{sender: from, login: m.Macros["{auth_authen}"]}
	msg := &s.message
	if msg.login != "" {
		msg.ip, msg.port = s.client(m.Macros)
		msg.passed = m.Macros["{auth_type}"] == "XCLIENT"
		msg.submitter = s.gate.Submitter(msg.submission())
		if msg.submitter.Unavailable {
			return s.refuse(m, unavailable, nil), nil
		}
		if v := msg.submitter.Envelope(from); v.Refused {
			return s.refuse(m, refused+v.Text, v.Cause), nil
		}
		if msg.submitter.ChecksHeader() && !s.seesHeaders() {
			return s.refuse(m, reconnect, nil), nil
		}
	}
	if s.gate.Needs().Unknown {
		return s.refuse(m, unjudged, nil), nil
	}
	if s.rules != nil && s.outdated() {
		return s.refuse(m, reconnect, nil), nil
	}
	if s.passing {
		if !s.seesRecipients() || s.server.Envelopes == nil {
			return gomilter.RespAccept, nil
		}
		msg.whole = &whole{bare: true} // its recipients
		return gomilter.RespContinue, nil
	}
	if s.seesRecipients() {
		msg.whole = &whole{}
		msg.whole.Params = s.params()
		if s.keeper != nil && msg.login == "" {
			if msg.whole.pass = s.keeper.Pass(s.ip, s.port); msg.whole.pass != nil {
				msg.submitter.Trace = msg.whole.pass.Trace
			}
		}
	}
	if !s.seesHeaders() && !s.seesRecipients() && msg.submitter.Trace == "" {
		return gomilter.RespAccept, nil
	}
	return gomilter.RespContinue, nil
}

// client returns the client's address and port: the macros' if there are any, since they are newer.
func (s *session) client(macros map[string]string) (netip.Addr, uint16) {
	ip, port := s.ip, s.port
	if a, err := address.ParseIP(strings.TrimPrefix(macros["{client_addr}"], "IPv6:")); err == nil {
		ip = a
	}
	if p, err := strconv.ParseUint(macros["{client_port}"], 10, 16); err == nil {
		port = uint16(p)
	}
	return ip, port
}

// RcptTo collects a recipient that Postfix has accepted.
func (s *session) RcptTo(to string, _ *gomilter.Modifier) (gomilter.Response, error) {
	if w := s.message.whole; w != nil {
		params := s.params()
		size := len(to)
		for _, p := range params {
			size += len(p)
		}
		if s.collect(size) {
			w.Recipients = append(w.Recipients, mailflow.Addressee{Address: to, Params: params})
		} else {
			s.drop() // none may be missing when the message is judged
		}
	}
	return s.continueUnless(gomilter.OptNoRcptReply), nil
}

// Header collects the fields that matter.
func (s *session) Header(name, value string, _ *gomilter.Modifier) (gomilter.Response, error) {
	msg := &s.message
	if isField(name, messageID) && msg.id == "" {
		msg.id = strings.Join(strings.Fields(value), " ")
	}
	if s.passing {
		msg.local.field(name, value)
	}
	if s.collects() {
		msg.whole.size += int64(len(name) + len(value) + 3)
		if s.collect(len(name) + len(value)) {
			msg.whole.Header = append(msg.whole.Header, mailflow.Field{Name: name, Value: value})
		}
	}
	switch {
	case mailflow.Originator(name):
		// Fields beyond the bound still count: one more makes the header refused.
		if before := msg.fromSize; before <= mailflow.MaxHeader {
			msg.fromSize += len(value)
			msg.from = append(msg.from, mailflow.Field{Name: name, Value: value})
		}
	case isOurs(name):
		if msg.ours == nil {
			msg.ours = map[string]int{}
		}
		msg.ours[textproto.CanonicalMIMEHeaderKey(strings.TrimRight(name, " \t"))]++
		msg.forged++
	}
	return s.continueUnless(gomilter.OptNoHeaderReply), nil
}

// Headers decides at the end of the header, if an answer is due there.
func (s *session) Headers(_ textproto.MIMEHeader, m *gomilter.Modifier) (gomilter.Response, error) {
	if s.options.protocol&gomilter.OptNoEOHReply != 0 {
		return nil, nil
	}
	if s.passing {
		return gomilter.RespContinue, nil
	}
	if refusal := s.check(m); refusal != nil {
		return refusal, nil
	}
	if refusal := s.lacksMemory(m); refusal != nil {
		return refusal, nil
	}
	if s.message.forged == 0 && s.message.submitter.Trace == "" && s.message.whole == nil {
		s.identify(m)
		return gomilter.RespAccept, nil
	}
	if w := s.message.whole; w != nil && w.pass == nil && s.seesBody() && s.server.Envelopes != nil {
		w.bare = !s.server.Envelopes.WantsBody(&w.Envelope, s.envelope(m))
	}
	return gomilter.RespContinue, nil
}

// identify reports the Message-ID of a message that is accepted unjudged.
func (s *session) identify(m *gomilter.Modifier) {
	if s.rules != nil && s.message.whole == nil && s.seesHeaders() {
		s.rules.Identified(m.Macros["i"], s.message.id)
	}
}

// check decides, once a message, whether the session may still send and whether its header fields
// obey the rules. It returns nil if so. A message that was refused before stays refused.
func (s *session) check(m *gomilter.Modifier) gomilter.Response {
	msg := &s.message
	if msg.checked || msg.refusal != nil {
		return msg.refusal
	}
	msg.checked = true
	if msg.submitter.Account != "" {
		d := s.gate.Submission(msg.submission())
		if text := ended(&d); text != "" {
			return s.reject(m, mailflow.Reason(d.Reason), text, nil)
		}
	}
	if msg.forged > maxForged {
		return s.reject(m, mailflow.ReasonFiltered, refused+textForged, nil)
	}
	if v := msg.submitter.Header(msg.from); v.Refused {
		return s.reject(m, mailflow.ReasonSenderNotOwned, refused+v.Text, v.Cause)
	}
	return nil
}

// reject refuses a message whose recipients the policy service may have accepted: it is recorded as
// refused, and its allowance is given back.
func (s *session) reject(m *gomilter.Modifier, reason mailflow.Reason, text string, cause error) gomilter.Response {
	if s.rules != nil {
		s.rules.NotReceived(m.Macros["i"], reason)
	}
	return s.refuse(m, text, cause)
}

// BodyChunk collects a part of the body.
func (s *session) BodyChunk(chunk []byte, _ *gomilter.Modifier) (gomilter.Response, error) {
	w := s.message.whole
	if w != nil {
		s.addBody(chunk)
	}
	if s.options.protocol&gomilter.OptSkip != 0 && (w == nil || w.bare || w.long || w.full) {
		return skip{}, nil
	}
	return s.continueUnless(gomilter.OptNoBodyReply), nil
}

// skip is the answer to a part of the body that wants no further ones (SMFIR_SKIP).
type skip struct{}

// Response implements [gomilter.Response].
func (skip) Response() *gomilter.Message { return &gomilter.Message{Code: byte(gomilter.ActSkip)} }

// Continue implements [gomilter.Response]: the message goes on.
func (skip) Continue() bool { return true }

// Body ends the message: changes are possible only now. Had the MTA left out the end of the header,
// it would be decided now.
func (s *session) Body(m *gomilter.Modifier) (gomilter.Response, error) {
	defer s.drop()
	if s.passing {
		return s.passOn(m)
	}
	if refusal := s.check(m); refusal != nil {
		return refusal, nil
	}
	if response, err := s.judge(m); response != nil || err != nil {
		return response, err
	}
	s.identify(m)
	return gomilter.RespAccept, nil
}

// Abort ends a message early, and comes after each.
func (s *session) Abort(*gomilter.Modifier) error {
	s.drop()
	s.message = message{}
	return nil
}

// refuse logs a refusal, notes it and returns it.
func (s *session) refuse(m *gomilter.Modifier, text string, cause error) gomilter.Response {
	ip, _ := s.client(m.Macros)
	args := []any{"user", serving.ASCII(s.message.login), "ip", ip, "sender", serving.ASCII(s.message.sender), "reply", text}
	if id := m.Macros["i"]; id != "" {
		args = append(args, "queue_id", serving.ASCII(id))
	}
	if cause != nil {
		args = append(args, "cause", serving.ASCII(cause.Error()))
	}
	s.log.Info("message refused", args...)
	s.message.refusal = reply(text)
	return s.message.refusal
}
