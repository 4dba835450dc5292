package milter

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/mime"
	"github.com/drawbridge/drawbridge/internal/serving"
)

// Rules judges whole messages.
type Rules interface {
	// Message decides about a message at its recipients. It is asked once, at its end.
	Message(e *mailflow.Envelope, recipients []string, content *mailflow.Content) []mailflow.Judged
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
	errIncomplete = errors.New("the rules have changed since the connection was opened, or the message is too long to be kept")
)

// whole is the message that is collected.
type whole struct {
	mailflow.Whole
	pass *mailflow.Pass
	size int64
	long bool // it is longer than maxWhole, and not complete here
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

// content decodes the message for the rules, and notes from the header what the envelope lacks.
func (w *whole) content(body bool) *mailflow.Content {
	c := &mailflow.Content{Header: w.Header}
	for _, f := range w.Header {
		switch {
		case isField(f.Name, "Subject") && c.Subject == "":
			c.Subject = mime.DecodeWords(f.Value)
		case isField(f.Name, "Message-ID") && w.Envelope.MessageID == "":
			w.Envelope.MessageID = strings.TrimSpace(f.Value)
		case isField(f.Name, "X-Sieve-Redirected-From") && w.Envelope.Redirected == "":
			w.Envelope.Redirected = strings.TrimSpace(f.Value)
		}
	}
	w.Subject = strings.TrimSpace(c.Subject)
	if w.long {
		c.Fault = errLong
	}
	if !body || w.long {
		return c
	}
	m, fault := mime.Parse(w.Bytes(), mime.Limits{})
	c.Fault = fault
	texts, fault := m.Texts()
	if c.Texts = texts; c.Fault == nil {
		c.Fault = fault
	}
	files, fault := m.Attachments()
	if c.Fault == nil {
		c.Fault = fault
	}
	for _, f := range files {
		a := mailflow.Attachment{Size: int64(f.Size)}
		if len(f.Names) > 0 {
			a.Name, a.Inside = f.Names[0], f.Names[1:]
		}
		for _, t := range f.Types {
			a.Type = t
			c.Attachments = append(c.Attachments, a)
		}
		if len(f.Types) == 0 {
			c.Attachments = append(c.Attachments, a)
		}
	}
	return c
}

// judge decides about the message at its end. A response ends it; without one it is accepted for
// the recipients that are left.
func (s *session) judge(m *gomilter.Modifier) (gomilter.Response, error) {
	w := s.message.whole
	if w == nil || s.rules == nil {
		return nil, nil
	}
	e := &w.Envelope
	e.Login, e.IP, e.Port, e.Sender, e.QueueID = s.message.login, s.ip, s.port, s.message.sender, m.Macros["i"]
	if s.message.login != "" {
		e.IP, e.Port = s.message.ip, s.message.port
	}
	e.Size = w.size
	content := w.content(s.seesBody())
	recipients := make([]string, len(w.Recipients))
	for i := range recipients {
		recipients[i] = w.Recipients[i].Address
	}
	envelope := *e
	judged := s.rules.Message(&envelope, recipients, content)
	for i := range judged {
		v := &judged[i].Verdict
		if !v.Refused {
			continue
		}
		code := refused
		if v.Temporary {
			code = "451 4.7.1 "
		}
		return s.refuse(m, code+v.Text, v.Cause), nil
	}
	response, err := s.keep(m, w, judged)
	if response != nil || err != nil {
		return response, err
	}
	return s.confirm(m, w), nil
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

// keep holds the message for the recipients for whom it has to be approved, and copies it.
func (s *session) keep(m *gomilter.Modifier, w *whole, judged []mailflow.Judged) (gomilter.Response, error) {
	if len(mailflow.Parcels(judged)) == 0 {
		return nil, nil
	}
	if s.keeper == nil || w.long || !s.seesBody() || s.options.actions&gomilter.OptRemoveRcpt == 0 {
		return s.refuse(m, notKept, errIncomplete), nil
	}
	held, err := s.keeper.Keep(&w.Whole, judged)
	switch {
	case err != nil:
		return s.refuse(m, notKept, err), nil
	case len(held) == 0:
		return nil, nil
	}
	s.log.Info("message held", "queue_id", serving.ASCII(w.Envelope.QueueID), "user", serving.ASCII(s.message.login),
		"sender", serving.ASCII(s.message.sender), "recipients", len(held), "of", len(w.Recipients))
	if len(held) == len(w.Recipients) {
		if refusal := s.confirm(m, w); refusal != nil {
			return refusal, nil
		}
		return gomilter.RespDiscard, nil
	}
	for _, i := range held {
		if err := m.DeleteRecipient(w.Recipients[i].Address); err != nil {
			return nil, err
		}
	}
	return nil, nil
}
