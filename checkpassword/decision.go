package checkpassword

import (
	"errors"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	maxNesting = 64  // of values within an answer
	maxUser    = 512 // bytes of the name that an answer may give
)

var errDecision = errors.New("the answer is not a decision")

// Decision is the part of the daemon's answer that this program needs.
type Decision struct {
	Outcome Outcome
	Reason  string // its code
	Message string // shown to the client
	User    string // the name that Dovecot continues with; empty for the name as it came
}

// ParseDecision reads one JSON object (RFC 8259), strictly. The members of Decision must be strings
// or null, come once at most and name an outcome; other members are checked and skipped. A user
// with a control character, or of more than 512 bytes, is no decision either.
func ParseDecision(body []byte) (Decision, error) {
	var d Decision
	var outcome string
	s := scanner{data: body}
	ok := s.object(0, func(name string) bool {
		switch name {
		case "outcome":
			return s.once(1, &outcome)
		case "reason":
			return s.once(2, &d.Reason)
		case "message":
			return s.once(4, &d.Message)
		case "user":
			return s.once(8, &d.User)
		default:
			return s.value(1)
		}
	})
	s.space()
	d.Outcome = outcomeOf(outcome)
	if !ok || s.pos != len(s.data) || d.Outcome == NoAnswer || len(d.User) > maxUser || oneLine(d.User) != d.User {
		return Decision{}, errDecision
	}
	return d, nil
}

// A scanner walks over JSON text. Its methods return false at the first byte that does not belong.
type scanner struct {
	data []byte
	pos  int
	seen uint8 // the members that once has met, a bit each
}

// once reads a string or null into to, for the first time.
func (s *scanner) once(bit uint8, to *string) (ok bool) {
	if s.seen&bit != 0 {
		return false
	}
	s.seen |= bit
	if s.literal("null") {
		return true
	}
	*to, ok = s.str()
	return ok
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// next takes c, after any space.
func (s *scanner) next(c byte) bool {
	s.space()
	return s.take(c)
}

// take takes c if it comes immediately.
func (s *scanner) take(c byte) bool {
	if s.pos < len(s.data) && s.data[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) literal(word string) bool {
	if end := s.pos + len(word); end <= len(s.data) && string(s.data[s.pos:end]) == word {
		s.pos = end
		return true
	}
	return false
}

// object calls member for each name, with the scanner before the value.
func (s *scanner) object(depth int, member func(name string) bool) bool {
	if depth > maxNesting || !s.next('{') {
		return false
	}
	if s.next('}') {
		return true
	}
	for {
		s.space()
		name, ok := s.str()
		if !ok || !s.next(':') {
			return false
		}
		s.space()
		if !member(name) {
			return false
		}
		if !s.next(',') {
			return s.next('}')
		}
	}
}

func (s *scanner) array(depth int) bool {
	if depth > maxNesting || !s.next('[') {
		return false
	}
	if s.next(']') {
		return true
	}
	for s.value(depth + 1) {
		if !s.next(',') {
			return s.next(']')
		}
	}
	return false
}

// value skips any value.
func (s *scanner) value(depth int) bool {
	s.space()
	if s.pos == len(s.data) {
		return false
	}
	switch s.data[s.pos] {
	case '{':
		return s.object(depth, func(string) bool { return s.value(depth + 1) })
	case '[':
		return s.array(depth)
	case '"':
		_, ok := s.str()
		return ok
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.take('e') || s.take('E') {
		_ = s.take('+') || s.take('-')
		return s.digits()
	}
	return true
}

// digits takes one digit or more.
func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

// str reads a string. Text that is not UTF-8 is refused; a surrogate without its other half becomes
// U+FFFD.
func (s *scanner) str() (string, bool) {
	if !s.take('"') {
		return "", false
	}
	var out []byte
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		s.pos++
		switch {
		case c == '"':
			return string(out), utf8.Valid(out)
		case c < ' ':
			return "", false
		case c != '\\':
			out = append(out, c)
		default:
			r, ok := s.escape()
			if !ok {
				return "", false
			}
			out = utf8.AppendRune(out, r)
		}
	}
	return "", false
}

// escape reads an escape sequence after its backslash.
func (s *scanner) escape() (rune, bool) {
	if s.pos == len(s.data) {
		return 0, false
	}
	c := s.data[s.pos]
	s.pos++
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'u':
		r, ok := s.hex4()
		if !ok || !utf16.IsSurrogate(r) {
			return r, ok
		}
		before := s.pos
		if s.literal(`\u`) {
			if low, ok := s.hex4(); ok {
				if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
					return pair, true
				}
			}
		}
		s.pos = before
		return utf8.RuneError, true
	default:
		return 0, false
	}
}

func (s *scanner) hex4() (rune, bool) {
	var r rune
	for range 4 {
		if s.pos == len(s.data) {
			return 0, false
		}
		c := s.data[s.pos]
		s.pos++
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}
