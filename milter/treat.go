package milter

import (
	"errors"
	"slices"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/mime"
)

// replaced is the size of the chunks that a new body is sent in, in octets: Postfix' own.
const replaced = 65535

const notMarked = "451 4.7.1 The message cannot be marked now, please try again later."

var errUnchangeable = errors.New("the MTA does not let the message be changed, or the rules have changed since the connection was opened")

// change applies a treatment to a message that is accepted: the fields that pretend to be ours are
// removed, ours are added, and subject and text are changed. A response refuses the message.
func (s *session) change(m *gomilter.Modifier, t *mailflow.Treatment) (gomilter.Response, error) {
	banner, refusal := s.prepare(m, t)
	if refusal != nil {
		return refusal, nil
	}
	changeable := s.changeable()
	e := editor{m: m, leading: s.options.protocol&gomilter.OptHeaderLeadingSpace != 0}
	if changeable && !t.Keep {
		for name, n := range s.message.ours {
			for ; n > 0; n-- { // from the last, since each removal renumbers those behind
				e.set(n, name, "")
			}
		}
		s.subject(&e, t)
		for _, f := range banner.Fields {
			e.set(f.Index, f.Name, f.Value)
		}
	}
	if s.options.actions&gomilter.OptAddHeader != 0 {
		for _, f := range t.Fields {
			e.set(0, f.Name, f.Value)
		}
		if trace := s.message.submitter.Trace; trace != "" {
			e.set(0, traceHeader, trace)
		}
	}
	if len(banner.Body) > 0 {
		e.body(s.message.whole, &banner)
	}
	return nil, e.err
}

// changeable reports whether the MTA lets header fields be added and changed.
func (s *session) changeable() bool {
	const fields = gomilter.OptAddHeader | gomilter.OptChangeHeader
	return s.options.actions&fields == fields
}

// prepare returns the changes for a banner, if the treatment has one, or refuses the message if it
// cannot be treated so.
func (s *session) prepare(m *gomilter.Modifier, t *mailflow.Treatment) (banner mime.Changes, refusal gomilter.Response) {
	if !s.changeable() && (len(t.Fields) > 0 || t.Tag != "") {
		return banner, s.refuse(m, notMarked, errUnchangeable)
	}
	if t.Banner == "" {
		return banner, nil
	}
	banner, err := s.banner(t)
	if err != nil && t.OnFault != mailflow.FaultIgnore {
		return banner, s.refuse(m, notMarked, err)
	}
	return banner, nil
}

// banner returns the changes for a banner.
func (s *session) banner(t *mailflow.Treatment) (mime.Changes, error) {
	w := s.message.whole
	if w.long || w.bare || !s.seesBody() || s.options.actions&gomilter.OptChangeBody == 0 {
		return mime.Changes{}, errUnchangeable
	}
	parsed, err := w.parsed()
	if err != nil {
		return mime.Changes{}, err
	}
	return parsed.Banner(t.Banner)
}

// subject puts the tag before the subject, or removes tags from it.
func (s *session) subject(e *editor, t *mailflow.Treatment) {
	if t.Tag == "" && len(t.Untag) == 0 {
		return
	}
	w := s.message.whole
	i := slices.IndexFunc(w.Header, func(f mailflow.Field) bool { return isField(f.Name, "Subject") })
	old := ""
	if i >= 0 {
		old = strings.TrimPrefix(w.Header[i].Value, " ")
	}
	subject := old
	for _, tag := range t.Untag {
		subject, _ = mime.Untag(subject, tag)
	}
	subject = mime.Tag(subject, t.Tag)
	switch {
	case subject == old:
	case i < 0:
		e.set(0, "Subject", subject)
	case subject == "":
		e.set(1, "Subject", " ") // an empty value would remove the field
	default:
		e.set(1, "Subject", subject)
	}
}

// editor sends changes to the MTA until one fails.
type editor struct {
	m       *gomilter.Modifier
	leading bool // the MTA adds no space before values
	err     error
}

// set changes the field with that index among those of its name; removes it if the value is empty;
// adds one for index 0: ours above all others, the message's own below.
func (e *editor) set(index int, name, value string) {
	if e.err != nil {
		return
	}
	if e.leading && value != "" {
		value = " " + value
	}
	switch {
	case index > 0:
		e.err = e.m.ChangeHeader(index, name, value)
	case isOurs(name):
		e.err = e.m.InsertHeader(0, name, value)
	default:
		e.err = e.m.AddHeader(name, value)
	}
}

// body sends the changed body. No chunk ends between the CR and the LF of a line: go-milter turns
// both into LF, which Postfix wants.
func (e *editor) body(w *whole, c *mime.Changes) {
	chunk := make([]byte, 0, replaced)
	send := func(keep int) {
		if e.err == nil {
			e.err = e.m.ReplaceBody(chunk[:len(chunk)-keep])
			chunk = append(chunk[:0], chunk[len(chunk)-keep:]...)
		}
	}
	for piece := range c.Pieces(w.text, w.bodyStart) {
		for len(piece) > 0 && e.err == nil {
			n := min(len(piece), cap(chunk)-len(chunk))
			chunk, piece = append(chunk, piece[:n]...), piece[n:]
			if len(chunk) < cap(chunk) {
				break
			}
			if chunk[len(chunk)-1] == '\r' {
				send(1)
			} else {
				send(0)
			}
		}
	}
	if len(chunk) > 0 {
		send(0)
	}
}
