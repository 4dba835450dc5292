package milter

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	gomilter "github.com/emersion/go-milter"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/content"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/mime"
	"github.com/drawbridge/drawbridge/internal/serving"
)

// Rules judges whole messages.
type Rules interface {
	// Message decides about a message at its recipients. It is asked once, at its end.
	Message(e *mailflow.Envelope, recipients []string, content *mailflow.Content) mailflow.Judgement
	// Treated notes that a message is accepted: if a content filter hands it in again, it is not
	// treated twice.
	Treated(e *mailflow.Envelope, recipients []string)
	// NotReceived reports that a message was refused before Message was asked.
	NotReceived(queueID string, reason mailflow.Reason)
	// Identified reports the Message-ID of a message that is accepted, about which Message is not
	// asked.
	Identified(queueID, messageID string)
}

// Envelopes judges messages before they are there.
type Envelopes interface {
	// WantsBody reports whether some rule may use the body of a message; without, it is not
	// collected.
	WantsBody(e *mailflow.Envelope, recipients []string) bool
	// Forwarded decides whether the MTA may pass a message on to a recipient that it made of
	// another one, which the envelope names as Redirected.
	Forwarded(e *mailflow.Envelope) mailflow.Verdict
}

// Keeper keeps held messages and copies on the disk.
type Keeper interface {
	// Pass returns what is known about the message that the daemon itself sends from an address and
	// port, and notes that the milter sees it; nil for nothing.
	Pass(ip netip.Addr, port uint16) *mailflow.Pass
	// Accept records that such a message is accepted. After an error it must not be.
	Accept(id, queueID string) error
	// Keep makes durable what has to be kept of a message, and returns the indices of the
	// recipients for whom it is held, and of those to whom it is sent apart.
	Keep(m *mailflow.Whole, judged []mailflow.Judged) (held, apart []int, err error)
}

const (
	// maxWhole bounds the messages that are collected, in octets. Longer ones are judged as ones
	// that cannot be read.
	maxWhole = 128 << 20

	noRoom  = "451 4.3.1 There is no memory to check the message now, please try again later."
	notKept = "451 4.3.0 The message cannot be stored now, please try again later."
)

var (
	errLong       = errors.New("the message is longer than what is checked")
	errNoBody     = errors.New("the rules have changed since the connection was opened")
	errIncomplete = errors.New("the rules have changed since the connection was opened, or the message is too long to be kept")
)

// whole is the message that is collected. The body is in chunks until its text is needed.
type whole struct {
	mailflow.Whole
	pass   *mailflow.Pass
	size   int64
	chunks [][]byte
	taken  int64 // of the memory for all messages
	body   int64 // the part of it that the chunks take
	long   bool  // it is longer than what is collected, and not complete here
	full   bool  // there was no memory for it: it is refused for now
	bare   bool  // no rule uses its body, which is not collected

	// Once it is parsed:
	text      []byte
	bodyStart int
	message   *mime.Message
	fault     error
}

// collect takes room for n more octets of the message, and reports whether there is. A message
// without room is dropped at once, and refused when it ends.
func (s *session) collect(n int) bool {
	w := s.message.whole
	charge := int64(n) + overhead
	switch {
	case w.full, w.long:
	case w.taken+charge > s.server.longest():
		w.long = true
		s.server.give(w.body)
		w.taken, w.body, w.chunks = w.taken-w.body, 0, nil
	case s.server.take(charge):
		w.taken += charge
		return true
	default:
		s.drop()
	}
	return false
}

// drop gives back the memory of the message. What comes of it after that is refused for now.
func (s *session) drop() {
	if w := s.message.whole; w != nil {
		s.server.give(w.taken)
		*w = whole{full: true}
	}
}

// lacksMemory refuses a message that was dropped; nil for none.
func (s *session) lacksMemory(m *gomilter.Modifier) gomilter.Response {
	if w := s.message.whole; w == nil || !w.full {
		return nil
	}
	s.server.reportLack(time.Now())
	return s.reject(m, mailflow.Reason(access.ReasonStoreUnavailable), noRoom, nil)
}

// addBody collects a chunk of the body.
func (s *session) addBody(chunk []byte) {
	w := s.message.whole
	w.size += int64(len(chunk))
	if w.bare {
		return
	}
	if s.collect(len(chunk)) {
		w.body += int64(len(chunk)) + overhead
		w.chunks = append(w.chunks, chunk) // go-milter does not use it again
	}
}

// join makes one text of the fields and chunks.
func (w *whole) join() {
	if w.text != nil {
		return
	}
	n := 0
	for _, c := range w.chunks {
		n += len(c)
	}
	w.text = w.Head(n)
	w.bodyStart = len(w.text)
	for _, c := range w.chunks {
		w.text = append(w.text, c...)
	}
	w.Body, w.chunks = w.text[w.bodyStart:], nil // the same octets, once
}

// content describes the message for the rules, and notes from the header what the envelope lacks.
func (w *whole) content(body bool) *mailflow.Content {
	c := content.New(w.Header, w.parsed)
	for _, f := range c.Header {
		switch {
		case isField(f.Name, "Message-ID") && w.Envelope.MessageID == "":
			w.Envelope.MessageID = f.Value
		case isField(f.Name, "X-Sieve-Redirected-From") && w.Envelope.Redirected == "":
			w.Envelope.Redirected = f.Value
		}
	}
	w.Subject = c.Subject
	switch {
	case w.long:
		c.Fault, c.Load = errLong, nil
	case !body:
		c.Fault, c.Load = errNoBody, nil
	}
	return c
}

// parsed returns the structure of the message.
func (w *whole) parsed() (*mime.Message, error) {
	if w.message == nil {
		w.join()
		m, err := mime.Parse(w.text, mime.Limits{})
		w.message, w.fault = m, err
	}
	return w.message, w.fault
}

// judge decides about the message at its end, and changes it. A response ends it; without one it is
// accepted for the recipients that are left.
func (s *session) judge(m *gomilter.Modifier) (gomilter.Response, error) {
	w := s.message.whole
	if w == nil || s.rules == nil {
		return s.change(m, &mailflow.Treatment{})
	}
	if s.gate.Needs().Unknown { // another store was adopted meanwhile
		return s.reject(m, mailflow.Reason(access.ReasonStoreUnavailable), unjudged, nil), nil
	}
	if !w.full && !w.long {
		if text := w.taken; s.server.take(text) {
			w.taken += text
		} else {
			s.drop()
		}
	}
	if refusal := s.lacksMemory(m); refusal != nil {
		return refusal, nil
	}
	recipients := s.envelope(m)
	e := &w.Envelope
	described := w.content(s.seesBody() && !w.bare)
	if e.MessageID == "" {
		e.MessageID = s.message.id
	}
	envelope := *e
	judgement := s.rules.Message(&envelope, recipients, described)
	t := judgement.Treat()
	t.Keep = t.Keep || w.pass != nil && w.pass.Notice // copies have a field of ours
	if v := t.Refusal; v != nil {
		code := refused
		if v.Temporary {
			code = "451 4.7.1 "
		}
		return s.refuse(m, code+v.Text, v.Cause), nil
	}
	w.Relayed = judgement.Relayed
	gone, refusal := s.keep(m, w, &judgement)
	if refusal != nil {
		return refusal, nil
	}
	judgement.Mark(&t, gone)
	without := t.Without
	for _, i := range gone {
		without = append(without, w.Recipients[i].Address)
	}
	switch {
	case t.Discard, len(without) > 0 && len(without) == len(w.Recipients):
		if refusal := s.confirm(m, w); refusal != nil {
			return refusal, nil
		}
		s.rules.Treated(e, present(recipients, gone))
		return gomilter.RespDiscard, nil
	case len(without) > 0 && s.options.actions&gomilter.OptRemoveRcpt == 0:
		return s.refuse(m, notKept, errIncomplete), nil
	}
	if refusal, err := s.change(m, &t); refusal != nil || err != nil {
		return refusal, err
	}
	for _, addr := range without {
		if err := m.DeleteRecipient(addr); err != nil {
			return nil, err
		}
	}
	if refusal, err := s.restore(m, judgement.Recipients, without); refusal != nil || err != nil {
		return refusal, err
	}
	if refusal := s.confirm(m, w); refusal != nil {
		return refusal, nil
	}
	s.rules.Treated(e, present(recipients, gone))
	return nil, nil
}

// present returns the recipients whose indices are not in gone: the message is treated for the others
// when it comes back for them.
func present(recipients []string, gone []int) []string {
	if len(gone) == 0 {
		return recipients
	}
	var list []string
	for i, r := range recipients {
		if !slices.Contains(gone, i) {
			list = append(list, r)
		}
	}
	return list
}

// envelope completes the envelope of the message, and returns its recipients.
func (s *session) envelope(m *gomilter.Modifier) []string {
	w := s.message.whole
	e := &w.Envelope
	e.Login, e.IP, e.Port, e.Sender, e.QueueID = s.message.login, s.ip, s.port, s.message.sender, m.Macros["i"]
	if s.message.login != "" {
		e.IP, e.Port = s.message.ip, s.message.port
	}
	if e.Size = w.size; w.bare {
		e.Size = 0 // policyd knows it
	}
	recipients := make([]string, len(w.Recipients))
	for i := range recipients {
		recipients[i] = w.Recipients[i].Address
	}
	return recipients
}

// confirm records that a message of the daemon's own is accepted; nil if it may be.
func (s *session) confirm(m *gomilter.Modifier, w *whole) gomilter.Response {
	if w.pass == nil {
		return nil
	}
	if err := s.keeper.Accept(w.pass.ID, w.Envelope.QueueID); err != nil {
		return s.refuse(m, notKept, err)
	}
	return nil
}

// keep holds the message for the recipients for whom it has to be approved, sends it apart to those
// whose spam folder it is for, and copies it. It returns the indices of the recipients who do not get
// the message itself, or a refusal.
func (s *session) keep(m *gomilter.Modifier, w *whole, j *mailflow.Judgement) (gone []int, refusal gomilter.Response) {
	if len(mailflow.Parcels(j.Recipients)) == 0 {
		return nil, nil
	}
	marks := mailflow.Treatment{Keep: j.Again} // what is stored may be sent at once: a refusal comes before that
	j.Mark(&marks, nil)
	if _, refusal := s.prepare(m, &marks); refusal != nil {
		return nil, refusal
	}
	if s.keeper == nil || w.long || w.bare || !s.seesBody() || s.options.actions&gomilter.OptRemoveRcpt == 0 {
		return nil, s.refuse(m, notKept, errIncomplete)
	}
	w.join()
	w.Trace, w.Client = s.message.submitter.Trace, s.name
	held, apart, err := s.keeper.Keep(&w.Whole, j.Recipients)
	if err != nil {
		return nil, s.refuse(m, notKept, err)
	}
	if len(held) > 0 {
		s.log.Info("message held", "queue_id", serving.ASCII(w.Envelope.QueueID), "user", serving.ASCII(s.message.login),
			"sender", serving.ASCII(s.message.sender), "recipients", len(held), "of", len(w.Recipients))
	}
	if len(apart) > 0 {
		s.log.Info("message sent apart for the spam folder", "queue_id", serving.ASCII(w.Envelope.QueueID), "recipients", len(apart), "of", len(w.Recipients))
	}
	return append(held, apart...), nil
}
