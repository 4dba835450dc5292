package mailflow

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxHeader bounds the text of all originator fields of a message, in octets.
const MaxHeader = 64 << 10

// Mailboxes returns the address of every mailbox that the given values of an originator field
// (From, Sender, Resent-From, Resent-Sender) name, once each. Folded lines may end in LF or CRLF.
//
// It reads all of RFC 5322 section 3.4 with its obsolete forms (section 4.4), RFC 6854's groups and
// RFC 6532's UTF-8. A quoted local part that needs no quotes loses them. A field without a mailbox
// is an error, because mail programs would display whatever else stands in it.
//
// Programs that display mail do not all read so carefully. The result therefore also contains what
// a careless one might display as the sender: whatever stands in angle brackets within quotes,
// comments or encoded words, and an address that stands unquoted where the name should. Encoded
// words within an address, or with a line break or NUL inside, are errors. Apart from that a
// display name is not judged: it may say anything.
//
// Many programs write display names that the grammar forbids: raw Latin-1, unquoted commas,
// brackets and at signs. Such a field is read if it ends in the only angle brackets of the field
// and these hold a plain address; every word of the name that looks like an address is then in the
// result.
func Mailboxes(values []string) ([]string, error) {
	var all []string
	size := 0
	for _, value := range values {
		if size += len(value); size > MaxHeader {
			return nil, fmt.Errorf("it is longer than %d octets", MaxHeader)
		}
		found, err := fieldMailboxes(value)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// fieldMailboxes reads one field.
func fieldMailboxes(value string) ([]string, error) {
	text, err := unfold(value)
	if err != nil {
		return nil, err
	}
	p := parser{text: text}
	err = p.list(false)
	if err == nil && !utf8.ValidString(text) {
		err = errors.New("neither ASCII nor UTF-8")
	}
	if err != nil {
		if p.found = sloppyName(text); p.found == nil {
			return nil, fmt.Errorf("octet %d: %w", p.at+1, err)
		}
	}
	if len(p.found) == 0 {
		return nil, errors.New("it names no mailbox")
	}
	decoded, err := decodeWords(text)
	if err != nil {
		return nil, err
	}
	for _, s := range []string{text, decoded} {
		if err := p.bracketed(s); err != nil {
			return nil, err
		}
	}
	return p.found, nil
}

// sloppyName reads "any name <local@domain>" although the name is no phrase of RFC 5322. It returns
// the address, and every word of the name that looks like one; nil if the field has another form.
func sloppyName(text string) []string {
	text = strings.TrimRight(text, " ")
	open := strings.IndexByte(text, '<')
	if open < 0 || !strings.HasSuffix(text, ">") || strings.LastIndexByte(text, '<') != open || strings.Count(text, ">") != 1 {
		return nil
	}
	name, addr := text[:open], text[open+1:len(text)-1]
	inner := parser{text: addr}
	_, local, err := inner.words()
	if err != nil || inner.domainOf(local) != nil || inner.at != len(addr) || inner.found[0] != addr {
		return nil // a route, quotes, comments or space: not plainly an address
	}
	// Quotes and comments that do not end hide from careful readers what careless ones display.
	if strings.Count(name, `"`)%2 != 0 || strings.Contains(name, `\`) || strings.Count(name, "(") != strings.Count(name, ")") {
		return nil
	}
	found := inner.found
	for _, word := range strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune(" ,;:\"()[]", r) }) {
		if local, domain, ok := strings.Cut(word, "@"); ok && local != "" && domain != "" {
			found = append(found, word)
		}
	}
	return found
}

// unfold removes the line breaks of folded lines, and refuses whatever else could be taken for the
// end of a line or of the text. Octets outside UTF-8 stay, unless a careless decoder could read an
// ASCII character in them.
func unfold(value string) (string, error) {
	text := strings.ReplaceAll(value, "\r\n", "\n")
	if overlong(text) {
		return "", errors.New("overlong UTF-8")
	}
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD"):
			if text[i] < 0xa0 { // a control character of Latin-1
				return "", fmt.Errorf("octet %#x", text[i])
			}
			b.WriteByte(text[i])
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

// overlong reports whether octets encode in UTF-8 what a shorter form encodes: in two octets from
// C0 on, or in three and four that begin with E0 or F0.
func overlong(text string) bool {
	for i := 0; i+1 < len(text); i++ {
		c, next := text[i], text[i+1]
		switch {
		case c == 0xc0 || c == 0xc1:
			if next >= 0x80 && next < 0xc0 {
				return true
			}
		case c == 0xe0 && next >= 0x80 && next < 0xa0, c == 0xf0 && next >= 0x80 && next < 0x90:
			return true
		}
	}
	return false
}

// parser reads one unfolded field: text from at on.
type parser struct {
	text  string
	at    int
	found []string
}

var errUnexpected = errors.New("unexpected character or end")

// peek returns the next octet, or 0 at the end: the text contains no NUL.
func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

// next consumes the octet c.
func (p *parser) next(c byte) error {
	if p.peek() != c {
		return errUnexpected
	}
	p.at++
	return nil
}

// list reads mailboxes and groups, or the inside of a group up to its ";". Elements may be empty
// (obs-mbox-list, obs-group-list).
func (p *parser) list(inGroup bool) error {
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

// element reads a mailbox, with or without a name, or a group. Words are a name or a local part,
// which the next character decides.
func (p *parser) element(inGroup bool) error {
	start := p.at
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
	if p.peek() != '<' {
		return nil
	}
	// An address in place of the name counts if it stands there in one piece: "Ann @ Work" does
	// not.
	if last := len(p.found) - 1; !strings.Contains(p.text[start:p.at], p.found[last]) {
		p.found = p.found[:last]
	}
	return p.angle()
}

// words reads atoms, quoted strings and dots, as in a phrase or a local part (RFC 5322 obs-phrase,
// obs-local-part). The local part is "" if the words cannot be one.
func (p *parser) words() (some bool, local string, err error) {
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
func (p *parser) angle() error {
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
func (p *parser) route() error {
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
func (p *parser) domainOf(local string) error {
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
func (p *parser) domain() (string, error) {
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

func (p *parser) atom() string {
	start := p.at
	for isAtext(p.peek()) {
		p.at++
	}
	return p.text[start:p.at]
}

// quoted reads a quoted string and returns its content.
func (p *parser) quoted() (string, error) {
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
func (p *parser) skip() error {
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
func (p *parser) bracketed(s string) error {
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
			inner := parser{text: s[start : end+1]}
			if err := inner.angle(); err != nil {
				return err
			}
			p.found = append(p.found, inner.found...)
		}
		s = s[end+1:]
	}
}

// encodedWord is an encoded word (RFC 2047) as lenient programs accept it: with space inside.
var encodedWord = regexp.MustCompile(`=\?([^?\s]+)\?([bBqQ])\?([^?]*)\?=`)

// betweenWords is the space between two encoded words, which is not displayed.
var betweenWords = regexp.MustCompile(`(\?=)\s+(=\?[^?\s]+\?[bBqQ]\?)`)

// decodeWords returns text with its encoded words decoded, as displayed by programs that decode
// before they parse. It decodes leniently: base64 without padding or with space inside, and Q with
// faulty escapes. Of charsets that are no superset of ASCII it keeps the ASCII characters; where
// these cannot be distinguished, the word is an error.
func decodeWords(text string) (string, error) {
	var fault error
	text = betweenWords.ReplaceAllString(text, "$1$2")
	decoded := encodedWord.ReplaceAllStringFunc(text, func(word string) string {
		parts := encodedWord.FindStringSubmatch(word)
		charset, _, _ := strings.Cut(strings.ToLower(parts[1]), "*") // RFC 2231 adds a language
		content, err := plainText(charset, decodeContent(parts[2], parts[3]))
		fault = cmp.Or(fault, err)
		return content
	})
	if fault != nil {
		return "", fault
	}
	if strings.ContainsAny(decoded, "\x00\r\n") {
		return "", errors.New("an encoded word has a line break or NUL inside")
	}
	return decoded, nil
}

// decodeContent decodes the content of an encoded word, and never fails.
func decodeContent(encoding, content string) string {
	if encoding == "b" || encoding == "B" {
		content = strings.Map(func(r rune) rune {
			if r < utf8.RuneSelf && (isAlnum(byte(r)) || r == '+' || r == '/') { //nolint:gosec // ASCII
				return r
			}
			return -1
		}, content)
		if len(content)%4 == 1 {
			content = content[:len(content)-1]
		}
		decoded, _ := base64.RawStdEncoding.DecodeString(content) // stray bits at the end do no harm
		return string(decoded)
	}
	var b strings.Builder
	for i := 0; i < len(content); i++ {
		switch c := content[i]; {
		case c == '_':
			b.WriteByte(' ')
		case c == '=' && i+2 < len(content):
			if n, err := strconv.ParseUint(content[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
			fallthrough
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// plainText returns the ASCII characters of text in a charset, and whatever else of a charset that
// is a superset of ASCII.
func plainText(charset, text string) (string, error) {
	opaque := fmt.Errorf("an encoded word in %.40q cannot be read", charset)
	switch {
	case strings.HasPrefix(charset, "iso-2022-"):
		return singleBytes(text, "\x1b"), nil
	case strings.HasPrefix(charset, "hz"):
		return singleBytes(text, "~"), nil
	case strings.Contains(charset, "utf-7") && strings.Contains(text, "+"):
		return "", opaque
	case strings.HasPrefix(charset, "utf-16"), strings.HasPrefix(charset, "utf-32"), strings.Contains(charset, "ucs-"),
		strings.Contains(charset, "ebcdic"), strings.HasPrefix(charset, "ibm037"), strings.HasPrefix(charset, "cp037"),
		strings.HasPrefix(charset, "cp1026"), strings.HasPrefix(charset, "ibm1026"), strings.HasPrefix(charset, "cp500"), strings.HasPrefix(charset, "ibm500"):
		return "", opaque
	}
	return text, nil
}

// singleBytes returns the characters of one octet of a text that shifts to others and back. Escape
// sequences of ISO 2022 ("\x1b$B", "\x1b(B") and HZ ("~{", "~}") shift.
func singleBytes(text, escape string) string {
	var b strings.Builder
	double := false
	for i := 0; i < len(text); i++ {
		if strings.HasPrefix(text[i:], escape) && i+1 < len(text) {
			i++
			double = text[i] == '$' || text[i] == '{'
			if escape == "\x1b" {
				for i+1 < len(text) && strings.IndexByte("$()*+,-./", text[i]) >= 0 { // up to the final octet
					i++
				}
			}
			continue
		}
		if !double {
			b.WriteByte(text[i])
		}
	}
	return b.String()
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
	return isAlnum(c) || c >= utf8.RuneSelf ||
		c != 0 && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
