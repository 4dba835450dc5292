package mime

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// param is a parameter of a header field, with its name in lower case.
type param struct{ name, value string }

// unfold returns the value of a header field on one line, without space around it.
func unfold(value []byte) string {
	if bytes.IndexByte(value, '\n') >= 0 {
		value = bytes.ReplaceAll(bytes.ReplaceAll(value, []byte("\r\n"), nil), []byte("\n"), nil)
	}
	return strings.Trim(string(value), " \t\r")
}

// parameters reads "token; name=value; ...", as Content-Type and Content-Disposition have it. It
// reads what programs write rather than what RFC 2045 permits: values with spaces and without
// quotes, missing quotes at the end, empty parameters, comments. Parts of a value (RFC 2231) are
// joined and decoded. It stops behind [maxParams].
func parameters(value string) (token string, params []param) {
	s := scanner{text: value}
	token = strings.ToLower(s.until(";"))
	var pieces []piece
	for s.skip(';') && len(params)+len(pieces) <= maxParams {
		name := strings.ToLower(s.until("=;"))
		if !s.skip('=') {
			continue // an empty one, or a word without value
		}
		text := s.value()
		if base, rest, ok := strings.Cut(name, "*"); ok {
			pieces = append(pieces, newPiece(base, rest, text))
		} else if name != "" {
			params = append(params, param{name, text})
		}
	}
	return token, append(params, join(pieces)...)
}

// maxParams bounds the parameters of a header field.
const maxParams = 500

// scanner reads a header value from left to right.
type scanner struct {
	text string
	at   int
	open bool // a comment does not end: no more are looked for
}

func (s *scanner) skip(c byte) bool {
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

// until returns the text before one of the stops, without comments and without space around it.
func (s *scanner) until(stops string) string {
	var b strings.Builder
	for s.at < len(s.text) && strings.IndexByte(stops, s.text[s.at]) < 0 {
		if s.text[s.at] == '(' && s.comment() {
			continue
		}
		b.WriteByte(s.text[s.at])
		s.at++
	}
	return strings.Trim(b.String(), " \t")
}

// comment passes over a comment. It returns false, at the same place, if it does not end.
func (s *scanner) comment() bool {
	depth := 0
	for i := s.at; i < len(s.text) && !s.open; i++ {
		switch s.text[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				s.at = i + 1
				return true
			}
		}
	}
	s.open = true
	return false
}

// value returns the value of a parameter, without its quotes.
func (s *scanner) value() string {
	for s.at < len(s.text) && (isSpace(s.text[s.at]) || s.text[s.at] == '(' && s.comment()) {
		if s.at < len(s.text) && isSpace(s.text[s.at]) {
			s.at++
		}
	}
	if !s.skip('"') {
		start := s.at // comments are not looked for: file names have parentheses
		for s.at < len(s.text) && s.text[s.at] != ';' {
			s.at++
		}
		return strings.Trim(s.text[start:s.at], " \t")
	}
	var b strings.Builder
	for s.at < len(s.text) && s.text[s.at] != '"' {
		if s.text[s.at] == '\\' && s.at+1 < len(s.text) {
			// Windows' paths are written without doubling their backslashes.
			if next := s.text[s.at+1]; next == '"' || next == '\\' {
				s.at++
			}
		}
		b.WriteByte(s.text[s.at])
		s.at++
	}
	s.skip('"')
	s.until(";")
	return b.String()
}

// piece is a part of a parameter's value (RFC 2231 section 3).
type piece struct {
	name    string
	number  int
	encoded bool
	text    string
}

func newPiece(name, rest, text string) piece {
	p := piece{name: name, text: text}
	rest, p.encoded = strings.CutSuffix(rest, "*")
	if rest == "" { // name*=
		p.encoded = true
		return p
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < 0 {
		n = 0
	}
	p.number = n
	return p
}

// join puts the pieces of each value together, and decodes them.
func join(pieces []piece) []param {
	if len(pieces) == 0 {
		return nil
	}
	slices.SortStableFunc(pieces, func(a, b piece) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return a.number - b.number
	})
	var params []param
	for len(pieces) > 0 {
		n := 1
		for n < len(pieces) && pieces[n].name == pieces[0].name && pieces[n].number != pieces[0].number {
			n++
		}
		charset := ""
		var value []byte
		for i, p := range pieces[:n] {
			text := p.text
			if p.encoded {
				if i == 0 {
					if cs, rest, ok := strings.Cut(text, "'"); ok {
						if _, rest, ok := strings.Cut(rest, "'"); ok {
							charset, text = cs, rest
						}
					}
				}
				value = append(value, percent(text)...)
			} else {
				value = append(value, text...)
			}
		}
		params = append(params, param{pieces[0].name, decodeLoosely(charset, value)})
		pieces = pieces[n:]
	}
	return params
}

// percent decodes %XX, and keeps a percent sign without two digits.
func percent(text string) []byte {
	b := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if v, ok := hex(text[i+1], text[i+2]); ok {
				b = append(b, v)
				i += 2
				continue
			}
		}
		b = append(b, text[i])
	}
	return b
}

// hex reads two hexadecimal digits.
func hex(a, b byte) (byte, bool) {
	x, y := digit(a), digit(b)
	return x<<4 | y, x < 16 && y < 16
}

func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// distinct returns the different values of a parameter.
func distinct(params []param, name string) []string {
	var all []string
	for _, p := range params {
		if p.name == name && !slices.Contains(all, p.value) {
			all = append(all, p.value)
		}
	}
	return all
}

// addNames adds the decoded values of a parameter to the names of a part.
func addNames(names []string, params []param, name string) []string {
	for _, v := range distinct(params, name) {
		v = DecodeWords(decodeLoosely("", []byte(v)))
		if v != "" && !slices.Contains(names, v) {
			names = append(names, v)
		}
	}
	return names
}

// DecodeWords returns the value of a header field with its encoded words decoded (RFC 2047) and
// without line breaks. It decodes what programs write: words without space between them, within
// quotes, characters divided between words, and 8-bit text. A word in an unknown charset stays.
func DecodeWords(value string) string {
	value = unfold([]byte(value))
	if !strings.Contains(value, "=?") {
		return decodeLoosely("", []byte(value))
	}
	var b strings.Builder
	var pending word // of words that follow each other in one charset
	flush := func() {
		if len(pending.raw) == 0 {
			return
		}
		if text, ok := decodeCharset(pending.charset, pending.content); ok {
			b.WriteString(text)
		} else {
			b.Write(pending.raw)
		}
		pending = word{}
	}
	for value != "" {
		start := strings.Index(value, "=?")
		if start < 0 {
			break
		}
		w, ok := newWord(value[start:])
		if !ok {
			flush()
			b.WriteString(decodeLoosely("", []byte(value[:start+2])))
			value = value[start+2:]
			continue
		}
		between, length := value[:start], len(w.raw)
		if len(pending.raw) == 0 || strings.Trim(between, " \t") != "" {
			flush()
			b.WriteString(decodeLoosely("", []byte(between)))
		}
		if len(pending.raw) > 0 && pending.charset == w.charset {
			pending.raw = append(append(pending.raw, between...), w.raw...)
			pending.content = append(pending.content, w.content...)
		} else {
			flush()
			pending = w
		}
		value = value[start+length:]
	}
	flush()
	b.WriteString(decodeLoosely("", []byte(value)))
	return strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' || r == 0 {
			return ' '
		}
		return r
	}, b.String())
}

// maxWord bounds an encoded word, in octets. RFC 2047 allows 75.
const maxWord = 16 << 10

// word is an encoded word.
type word struct {
	charset      string
	raw, content []byte
}

// newWord reads the encoded word that text begins with.
func newWord(text string) (word, bool) {
	charset, rest, ok := strings.Cut(text[2:], "?")
	if !ok || charset == "" || strings.ContainsAny(charset, " \t") || len(rest) < 2 || rest[1] != '?' {
		return word{}, false
	}
	kind, rest := rest[0]|0x20, rest[2:]
	end := strings.Index(rest[:min(len(rest), maxWord)], "?=")
	if kind == 'q' && strings.HasPrefix(rest, "?=") {
		end = 0
	}
	if end < 0 || strings.Contains(rest[:end], "=?") {
		return word{}, false
	}
	w := word{raw: []byte(text[:len(text)-len(rest)+end+2])}
	w.charset, _, _ = strings.Cut(strings.ToLower(charset), "*") // RFC 2231 adds a language
	switch kind {
	case 'b':
		w.content = decodeBase64(nil, []byte(rest[:end]))
	case 'q':
		w.content = decodeQ(rest[:end])
	default:
		return word{}, false
	}
	return w, true
}

func decodeQ(text string) []byte {
	b := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '_':
			b = append(b, ' ')
		case c == '=' && i+2 < len(text):
			if v, ok := hex(text[i+1], text[i+2]); ok {
				b = append(b, v)
				i += 2
				continue
			}
			b = append(b, c)
		default:
			b = append(b, c)
		}
	}
	return b
}

// EncodeWords returns text for the value of a header field: as it is if it is ASCII that no program
// takes for an encoded word, else as encoded words in UTF-8 (RFC 2047), which programs read as one
// text. Lines are folded.
func EncodeWords(text string) string {
	plain := !strings.Contains(text, "=?")
	for i := range len(text) {
		plain = plain && text[i] >= ' ' && text[i] < 0x7f
	}
	if plain {
		return text
	}
	const most = 45 // octets in a word of at most 75 characters
	var b strings.Builder
	for len(text) > 0 {
		n := min(most, len(text))
		for n < len(text) && n > 0 && !utf8.RuneStart(text[n]) {
			n--
		}
		if b.Len() > 0 {
			b.WriteString("\n ")
		}
		b.WriteString("=?utf-8?B?" + base64.StdEncoding.EncodeToString([]byte(text[:n])) + "?=")
		text = text[n:]
	}
	return b.String()
}
