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
	r := readParameters(value)
	return r.token, r.params
}

// reading is a header value as it is read here, and as other programs may read it where it is not what
// RFC 2045 and RFC 2231 permit.
type reading struct {
	token     string
	params    []param
	others    []param
	ambiguous string // the name of a parameter whose parts have no order, in lower case
}

func readParameters(value string) (r reading) {
	text := []byte(value)
	for i, c := range text {
		if c < ' ' || c == 0x7f { // programs take a bare CR for a line break
			text[i] = ' '
		}
	}
	value = string(text)
	s := scanner{text: value}
	r.token = strings.ToLower(s.until(";"))
	if i := strings.IndexAny(r.token, " \t,"); i >= 0 && strings.Contains(r.token[i:], "=") { // a semicolon is missing
		r.others = append(r.others, readParameters(";"+value[:s.at][i+1:]).params...)
	}
	var pieces, others []piece
	for s.skip(';') && len(r.params)+len(pieces) <= maxParams {
		name := strings.ToLower(s.until("=;"))
		if !s.skip('=') {
			continue // an empty one, or a word without value
		}
		text, also, more := s.value()
		if strings.Contains(more, "=") && len(r.others) <= maxParams { // again
			r.others = append(r.others, readParameters(";"+more).params...)
		}
		base, rest, divided := strings.Cut(name, "*")
		if name == "" {
			continue
		}
		if divided {
			pieces = append(pieces, newPiece(base, rest, text))
		} else {
			r.params = append(r.params, param{name, text})
		}
		for _, other := range also {
			if divided {
				others = append(others, newPiece(base, rest, other))
			} else {
				r.others = append(r.others, param{name, other})
			}
		}
	}
	joined, ambiguous := join(pieces)
	r.params = append(r.params, joined...)
	r.ambiguous = ambiguous
	if ambiguous != "" {
		last := slices.Clone(pieces)
		slices.Reverse(last)
		inOrder := slices.Clone(pieces)
		for i := range inOrder {
			inOrder[i].number = i
		}
		for _, list := range [][]piece{last, inOrder, untilGap(pieces), untilGap(last)} {
			joined, _ = join(list)
			r.others = append(r.others, joined...)
		}
	}
	if len(others) > 0 { // each in place of its own
		for i, p := range pieces {
			for _, other := range others {
				if other.name == p.name && other.number == p.number && other.single == p.single {
					pieces[i] = other
				}
			}
		}
		joined, _ = join(pieces)
		r.others = append(r.others, joined...)
	}
	return r
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

// value returns the value of a parameter, without its quotes; what other programs may read in its
// place; and what follows its quotes before the next semicolon.
func (s *scanner) value() (value string, others []string, more string) {
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
		value = strings.Trim(s.text[start:s.at], " \t")
		if i := strings.IndexAny(value, " \t("); i > 0 {
			others, more = append(others, value[:i]), value[i:]
		}
		return value, others, more
	}
	var b, unescaped strings.Builder
	for s.at < len(s.text) && s.text[s.at] != '"' {
		if s.text[s.at] == '\\' && s.at+1 < len(s.text) {
			// Windows' paths are written without doubling their backslashes.
			next := s.text[s.at+1]
			s.at++
			if next != '"' && next != '\\' {
				b.WriteByte('\\')
			}
		}
		b.WriteByte(s.text[s.at])
		unescaped.WriteByte(s.text[s.at])
		s.at++
	}
	value = b.String()
	if unescaped.Len() < len(value) {
		others = append(others, unescaped.String())
	}
	if !s.skip('"') {
		if first, _, ok := strings.Cut(value, ";"); ok {
			others = append(others, first)
		}
		return value, others, ""
	}
	if more = s.until(";"); more != "" {
		others = append(others, value+more)
	}
	return value, others, more
}

// piece is a part of a parameter's value (RFC 2231 section 3).
type piece struct {
	name    string
	number  int
	single  bool // the whole value: name*=
	encoded bool
	text    string
}

func newPiece(name, rest, text string) piece {
	p := piece{name: name, text: text}
	rest, p.encoded = strings.CutSuffix(rest, "*")
	if rest == "" { // name*=
		p.encoded, p.single = true, true
		return p
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < 0 {
		n = 0
	}
	p.number = n
	return p
}

// join puts the pieces of each value together, and decodes them. Of pieces with the same number it
// takes the first, and passes over missing ones: then ambiguous is the name of that value.
func join(pieces []piece) (params []param, ambiguous string) {
	if len(pieces) == 0 {
		return nil, ""
	}
	pieces = slices.Clone(pieces)
	slices.SortStableFunc(pieces, func(a, b piece) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		switch {
		case a.single && b.single:
			return 0
		case a.single:
			return -1
		case b.single:
			return 1
		}
		return a.number - b.number
	})
	for len(pieces) > 0 {
		parts := pieces[:1]
		n := 1
		for !parts[0].single && n < len(pieces) && pieces[n].name == parts[0].name {
			switch p := pieces[n]; {
			case p.number != parts[len(parts)-1].number:
				parts = append(parts, p) // in place: it stands at n or before
			case p != parts[len(parts)-1]:
				ambiguous = p.name
			}
			n++
		}
		if !parts[0].single && parts[len(parts)-1].number != len(parts)-1 {
			ambiguous = parts[0].name
		}
		charset := ""
		var value []byte
		for i, p := range parts {
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
		if hidesASCII(charset) {
			ambiguous = parts[0].name
		}
		params = append(params, param{parts[0].name, decodeLoosely(charset, value)})
		pieces = pieces[n:]
	}
	return params, ambiguous
}

// untilGap returns the pieces whose numbers follow each other from 0.
func untilGap(pieces []piece) (list []piece) {
	has := func(name string, number int) bool {
		return slices.ContainsFunc(pieces, func(p piece) bool { return p.name == name && p.number == number })
	}
	ends := map[string]int{}
	for _, p := range pieces {
		if _, ok := ends[p.name]; !ok {
			n := 0
			for has(p.name, n) {
				n++
			}
			ends[p.name] = n
		}
		if p.single || p.number < ends[p.name] {
			list = append(list, p)
		}
	}
	return list
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

// addReadings adds what other programs may read as names of a part, and reports whether all can be
// known.
func (p *Part) addReadings(r *reading, name string) {
	for _, v := range append(distinct(r.params, name), distinct(r.others, name)...) {
		v = decodeLoosely("", []byte(v))
		if name := decodeWords(v, true); name != "" && !slices.Contains(p.Names, name) && !slices.Contains(p.readings, name) {
			p.readings = append(p.readings, name)
		}
		for rest := v; strings.Contains(rest, "=?"); {
			rest = rest[strings.Index(rest, "=?"):]
			if w, ok := newWord(rest); ok && hidesASCII(w.charset) {
				p.unreadable = "the charset " + quoteShort(w.charset) + " of a file name is unknown"
			}
			rest = rest[2:]
		}
	}
	if r.ambiguous == name {
		p.unreadable = "a file name whose parts contradict each other, or are missing"
	}
}

// DecodeWords returns the value of a header field with its encoded words decoded (RFC 2047) and
// without line breaks. It decodes what programs write: words without space between them, within
// quotes, characters divided between words, and 8-bit text. A word in an unknown charset stays.
func DecodeWords(value string) string {
	value = unfold([]byte(value))
	if !strings.Contains(value, "=?") {
		return decodeLoosely("", []byte(value))
	}
	return strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' || r == 0 {
			return ' '
		}
		return r
	}, decodeWords(value, false))
}

// decodeWords decodes encoded words. Loosely, it guesses the text of words in an unknown charset.
func decodeWords(value string, loosely bool) string {
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
		} else if loosely {
			b.WriteString(decodeLoosely("", pending.content))
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
	return b.String()
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
