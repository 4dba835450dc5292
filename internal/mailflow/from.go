package mailflow

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxFrom bounds the text of all From header fields of a message, in octets.
const MaxFrom = 64 << 10

// FromMailboxes returns the address of every mailbox that the given values of From header fields
// name, once each. Folded lines may end in LF or CRLF.
//
// It reads all of RFC 5322 section 3.4 with its obsolete forms (section 4.4), RFC 6854's groups and
// RFC 6532's UTF-8, and nothing more: what it cannot read wholly is an error, never a guess. A
// quoted local part that needs no quotes loses them. A field without any mailbox is an error too,
// because mail programs would show whatever else stands in it.
//
// Programs that show mail do not all read so carefully, so the result also holds what a careless
// one might show as the sender: whatever stands in angle brackets within quotes, comments or
// encoded words, and an address that stands unquoted where the name should (as many devices write
// it). Encoded words within an address, or with a line break or NUL inside, are errors. Apart from
// that a display name is not judged: it may say anything.
func FromMailboxes(values []string) ([]string, error) {
	var all []string
	size := 0
	for i, value := range values {
		if size += len(value); size > MaxFrom {
			return nil, fmt.Errorf("reading From: longer than %d octets", MaxFrom)
		}
		text, err := unfold(value)
		if err != nil {
			return nil, fmt.Errorf("reading From field %d: %w", i+1, err)
		}
		p := fromParser{text: text}
		if err := p.list(false); err != nil {
			return nil, fmt.Errorf("reading From field %d at octet %d: %w", i+1, p.at+1, err)
		}
		if len(p.found) == 0 {
			return nil, fmt.Errorf("reading From field %d: no mailbox", i+1)
		}
		decoded, err := decodeWords(text)
		if err != nil {
			return nil, fmt.Errorf("reading From field %d: %w", i+1, err)
		}
		for _, s := range []string{text, decoded} {
			if err := p.bracketed(s); err != nil {
				return nil, fmt.Errorf("reading From field %d carelessly: %w", i+1, err)
			}
		}
		all = append(all, p.found...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// unfold removes the line breaks of folded lines, and refuses whatever else could be taken for the
// end of a line or of the text.
func unfold(value string) (string, error) {
	if !utf8.ValidString(value) {
		return "", errors.New("neither ASCII nor UTF-8")
	}
	text := strings.ReplaceAll(value, "\r\n", "\n")
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == '\n' && i+1 < len(text) && isSpace(text[i+1]):
		case r == '\t':
			b.WriteByte(' ')
		case unicode.IsControl(r), r == '\u2028', r == '\u2029':
			return "", fmt.Errorf("control character %U", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String(), nil
}

// fromParser reads one unfolded field: text from at on.
type fromParser struct {
	text  string
	at    int
	found []string
}

var errUnexpected = errors.New("unexpected character or end")

// peek returns the next octet, or 0 at the end: the text holds no NUL.
func (p *fromParser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

// next consumes the octet c.
func (p *fromParser) next(c byte) error {
	if p.peek() != c {
		return errUnexpected
	}
	p.at++
	return nil
}

// list reads mailboxes and groups, or the inside of a group up to its ";". Elements may be empty
// (obs-mbox-list, obs-group-list).
func (p *fromParser) list(inGroup bool) error {
	for {
		if err := p.skip(); err != nil {
			return err
		}
		switch c := p.peek(); {
		case c == 0 && !inGroup:
			return nil
		case c == ';' && inGroup:
			p.at++
			return nil
		case c == ',':
			p.at++
			continue
		}
		if err := p.element(inGroup); err != nil {
			return err
		}
		if err := p.skip(); err != nil {
			return err
		}
		if c := p.peek(); c != ',' && c != 0 && (c != ';' || !inGroup) {
			return errUnexpected
		}
	}
}

// element reads a mailbox, with or without a name, or a group. Words are a name or a local part:
// what follows them tells.
func (p *fromParser) element(inGroup bool) error {
	words, local, err := p.words()
	if err != nil {
		return err
	}
	switch p.peek() {
	case '<':
		return p.angle()
	case ':':
		if inGroup || !words {
			return errUnexpected
		}
		p.at++
		return p.list(true)
	}
	if err := p.domainOf(local); err != nil {
		return err
	}
	if p.peek() == '<' {
		return p.angle()
	}
	return nil
}

// words reads atoms, quoted strings and dots, as in a phrase or a local part (RFC 5322 obs-phrase,
// obs-local-part). The local part is "" if the words cannot be one.
func (p *fromParser) words() (some bool, local string, err error) {
	var b strings.Builder
	proper, word := true, false // so far word "." word ...; the last one was a word
	for {
		if err := p.skip(); err != nil {
			return some, "", err
		}
		switch c := p.peek(); {
		case c == '.' && some:
			proper = proper && word
			word = false
			p.at++
			b.WriteByte('.')
			continue
		case c == '"':
			s, err := p.quoted()
			if err != nil {
				return some, "", err
			}
			b.WriteString(s)
		case isAtext(c):
			b.WriteString(p.atom())
		default:
			if !proper || !word {
				return some, "", nil
			}
			return some, b.String(), nil
		}
		proper = proper && !word
		some, word = true, true
	}
}

// angle reads "<", an optional route (obs-route), an address and ">".
func (p *fromParser) angle() error {
	if err := p.next('<'); err != nil {
		return err
	}
	if err := p.skip(); err != nil {
		return err
	}
	if c := p.peek(); c == '@' || c == ',' {
		if err := p.route(); err != nil {
			return err
		}
	}
	_, local, err := p.words()
	if err != nil {
		return err
	}
	if err := p.domainOf(local); err != nil {
		return err
	}
	return p.next('>')
}

// route reads domains up to the ":" that ends them.
func (p *fromParser) route() error {
	for p.peek() != ':' {
		if p.peek() == ',' {
			p.at++
		} else {
			if err := p.next('@'); err != nil {
				return err
			}
			if _, err := p.domain(); err != nil {
				return err
			}
			if c := p.peek(); c != ',' && c != ':' {
				return errUnexpected
			}
		}
		if err := p.skip(); err != nil {
			return err
		}
	}
	p.at++
	return nil
}

// domainOf reads "@" and the domain that completes the local part.
func (p *fromParser) domainOf(local string) error {
	if local == "" {
		return errUnexpected
	}
	if err := p.next('@'); err != nil {
		return err
	}
	domain, err := p.domain()
	if err != nil {
		return err
	}
	if strings.Contains(local, "=?") || strings.Contains(domain, "=?") {
		return errors.New("encoded word in an address")
	}
	p.found = append(p.found, quote(local)+"@"+domain)
	return nil
}

// domain reads a domain or a literal, and the space and comments around it.
func (p *fromParser) domain() (string, error) {
	if err := p.skip(); err != nil {
		return "", err
	}
	if p.peek() == '[' {
		end := strings.IndexAny(p.text[p.at+1:], `[]\`)
		if end < 0 || p.text[p.at+1+end] != ']' {
			return "", errUnexpected
		}
		literal := p.text[p.at : p.at+end+2]
		p.at += len(literal)
		return literal, p.skip()
	}
	var b strings.Builder
	for {
		label := p.atom()
		if label == "" {
			return "", errUnexpected
		}
		b.WriteString(label)
		if err := p.skip(); err != nil {
			return "", err
		}
		if p.peek() != '.' {
			return b.String(), nil
		}
		p.at++
		b.WriteByte('.')
		if err := p.skip(); err != nil {
			return "", err
		}
	}
}

func (p *fromParser) atom() string {
	start := p.at
	for isAtext(p.peek()) {
		p.at++
	}
	return p.text[start:p.at]
}

// quoted reads a quoted string and returns what it says.
func (p *fromParser) quoted() (string, error) {
	var b strings.Builder
	for p.at++; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; c {
		case '"':
			p.at++
			return b.String(), nil
		case '\\':
			if p.at++; p.at == len(p.text) {
				return "", errUnexpected
			}
			b.WriteByte(p.text[p.at])
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("quotes that do not end")
}

// skip passes over white space and comments, which nest.
func (p *fromParser) skip() error {
	depth := 0
	for ; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == '(':
			depth++
		case depth == 0:
			if !isSpace(c) {
				return nil
			}
		case c == ')':
			depth--
		case c == '\\':
			p.at++
		}
	}
	p.at = min(p.at, len(p.text))
	if depth > 0 {
		return errors.New("comment that does not end")
	}
	return nil
}

// bracketed adds what stands in angle brackets anywhere in s, for readers that know neither quotes
// nor comments.
func (p *fromParser) bracketed(s string) error {
	for {
		end := strings.IndexByte(s, '>')
		if end < 0 {
			return nil
		}
		first, start := strings.IndexByte(s[:end], '<'), strings.LastIndexByte(s[:end], '<')
		if start >= 0 && strings.Contains(s[first:end], "@") {
			if strings.Contains(s[first:start], "@") {
				return errors.New("angle bracket around an angle bracket")
			}
			inner := fromParser{text: s[start : end+1]}
			if err := inner.angle(); err != nil {
				return err
			}
			p.found = append(p.found, inner.found...)
		}
		s = s[end+1:]
	}
}

// decodeWords returns text with its encoded words (RFC 2047) decoded, as read by programs that
// decode before they parse. Characters of charsets that are no superset of ASCII are left out.
func decodeWords(text string) (string, error) {
	dec := mime.WordDecoder{CharsetReader: func(charset string, r io.Reader) (io.Reader, error) {
		for _, prefix := range []string{"iso-2022-", "hz-", "utf-7"} {
			if strings.HasPrefix(strings.ToLower(charset), prefix) {
				return strings.NewReader(""), nil
			}
		}
		return r, nil
	}}
	decoded, err := dec.DecodeHeader(text)
	if err != nil {
		return "", fmt.Errorf("encoded word: %w", err)
	}
	if strings.ContainsAny(decoded, "\x00\r\n") {
		return "", errors.New("encoded word with a line break or NUL inside")
	}
	return decoded, nil
}

// quote returns the local part as it stands in an address.
func quote(local string) string {
	plain := !strings.HasPrefix(local, ".") && !strings.HasSuffix(local, ".") && !strings.Contains(local, "..")
	for i := range len(local) {
		plain = plain && (local[i] == '.' || isAtext(local[i]))
	}
	if plain {
		return local
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// isAtext includes the octets of UTF-8 (RFC 6532 section 3.2).
func isAtext(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c >= utf8.RuneSelf ||
		c != 0 && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}
