package milter

import (
	"errors"
	"fmt"
	"net/netip"

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
}

// Keeper keeps messages on the disk: those that are held, and copies.
type Keeper interface {
	// Pass returns what is known about the message that the daemon itself sends from an address and
	// port, and notes that the milter sees it; nil for nothing.
	Pass(ip netip.Addr, port uint16) *mailflow.Pass
	// Accept records that such a message is accepted. After an error it must not be.
	Accept(id, queueID string) error
	// Keep makes durable what has to be kept of a message, and returns the indices of the
	// recipients for whom it is held.
	Keep(m *mailflow.Whole, judged []mailflow.Judged) (held []int, err error)
}

const (
	// maxWhole bounds the messages that are collected, in octets. Longer ones are judged as ones
	// that cannot be read.
	maxWhole = 128 << 20

	notKept = "451 4.3.0 The message cannot be stored now, please try again later."
)

var (
	errLong       = fmt.Errorf("the message is longer than %d octets", maxWhole)
	errNoBody     = errors.New("the rules have changed since the connection was opened")
	errIncomplete = errors.New("the rules have changed since the connection was opened, or the message is too long to be kept")
)

// whole is the message that is collected.
type whole struct {
	mailflow.Whole
	pass *mailflow.Pass
	size int64
	long bool // it is longer than maxWhole, and not complete here

	// Once it is parsed:
	text      []byte
	bodyStart int
	message   *mime.Message
	fault     error
}

// addHeader collects a field.
func (w *whole) addHeader(name, value string) {
	if w.grow(len(name) + len(value) + 3) {
		w.Header = append(w.Header, mailflow.Field{Name: name, Value: value})
	}
}

// addBody collects a chunk of the body.
func (w *whole) addBody(chunk []byte) {
	if w.grow(len(chunk)) {
		w.Body = append(w.Body, chunk...)
	}
}

func (w *whole) grow(n int) bool {
	w.size += int64(n)
	w.long = w.long || w.size > maxWhole
	if w.long {
		w.Body = nil
	}
	return !w.long
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
		w.text = w.Bytes()
		w.bodyStart = len(w.text) - len(w.Body)
		w.Body = w.text[w.bodyStart:] // the same octets, once
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
	e := &w.Envelope
	e.Login, e.IP, e.Port, e.Sender, e.QueueID = s.message.login, s.ip, s.port, s.message.sender, m.Macros["i"]
	if s.message.login != "" {
		e.IP, e.Port = s.message.ip, s.message.port
	}
	e.Size = w.size
	described := w.content(s.seesBody())
	recipients := make([]string, len(w.Recipients))
	for i := range recipients {
		recipients[i] = w.Recipients[i].Address
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
	held, refusal := s.keep(m, w, judgement.Recipients)
	if refusal != nil {
		return refusal, nil
	}
	without := t.Without
	for _, i := range held {
		without = append(without, w.Recipients[i].Address)
	}
	switch {
	case t.Discard, len(without) > 0 && len(without) == len(w.Recipients):
		if refusal := s.confirm(m, w); refusal != nil {
			return refusal, nil
		}
		s.rules.Treated(e, recipients)
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
	if refusal := s.confirm(m, w); refusal != nil {
		return refusal, nil
	}
	s.rules.Treated(e, recipients)
	return nil, nil
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

// keep holds the message for the recipients for whom it has to be approved, and copies it. It
// returns the indices of these recipients, or a refusal.
func (s *session) keep(m *gomilter.Modifier, w *whole, judged []mailflow.Judged) (held []int, refusal gomilter.Response) {
	if len(mailflow.Parcels(judged)) == 0 {
		return nil, nil
	}
	if s.keeper == nil || w.long || !s.seesBody() || s.options.actions&gomilter.OptRemoveRcpt == 0 {
		return nil, s.refuse(m, notKept, errIncomplete)
	}
	held, err := s.keeper.Keep(&w.Whole, judged)
	if err != nil {
		return nil, s.refuse(m, notKept, err)
	}
	if len(held) > 0 {
		s.log.Info("message held", "queue_id", serving.ASCII(w.Envelope.QueueID), "user", serving.ASCII(s.message.login),
			"sender", serving.ASCII(s.message.sender), "recipients", len(held), "of", len(w.Recipients))
	}
	return held, nil
}
