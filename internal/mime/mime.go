// Package mime reads the structure of messages by byte offsets, and changes messages by splicing
// bytes. It never rewrites a whole message: without a change every byte is kept, and a change
// keeps every byte outside of it.
//
//	m, err := mime.Parse(message, mime.Limits{})
//	texts, err := m.Texts()             // decoded, of any charset, as a reader sees them
//	attachments, err := m.Attachments() // names and types, also inside zip, TNEF, uuencode and yEnc
//	changes, err := m.Banner("...")     // above the text, in plain text and HTML
//	changed := changes.Apply(message)
//
// Parse always returns what could be read, together with the first fault, one of a bound before
// others: a [*Fault] names its kind and the part. Faults are what readers of mail would disagree on
// (a multipart without boundary, two different Content-Type fields, base64 around a multipart), a
// multipart that is cut off, and structure beyond the bounds of [Limits].
//
// # Limits
//
// Archives other than zip are known by their type only. The names in an encrypted zip are read;
// those in a zip inside an encrypted one are not. Text in images and PDF is not read.
//
// The package is pure: no I/O, clock, context or log.
package mime

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// Limits bound the work on a message. A zero field means its default.
type Limits struct {
	Depth   int // of parts within parts; 30
	Parts   int // 2 000
	Header  int // octets of all header fields of a message or part; 1 MiB
	Text    int // octets of decoded text in a message; 16 MiB
	Names   int // of attachments, in archives too; 20 000
	Archive int // octets decompressed to read the names of a zip inside a zip; 32 MiB
}

func (l Limits) orDefaults() Limits {
	return Limits{
		Depth: cmp.Or(l.Depth, 30), Parts: cmp.Or(l.Parts, 2000), Header: cmp.Or(l.Header, 1<<20),
		Text: cmp.Or(l.Text, 16<<20), Names: cmp.Or(l.Names, 20_000), Archive: cmp.Or(l.Archive, 32<<20),
	}
}

// Kind says what is wrong with a message.
type Kind string

// The kinds of faults.
const (
	Malformed Kind = "malformed" // its structure is ambiguous or cut off
	Bounds    Kind = "bounds"    // it exceeds a bound of [Limits]
	Charset   Kind = "charset"   // a text in a charset that is unknown
)

// Fault is the reason why a message could not be read completely.
type Fault struct {
	Kind   Kind
	Part   string // its path, such as "1.2"; empty for the message itself
	Detail string
}

// Error implements error.
func (f *Fault) Error() string {
	if f.Part == "" {
		return fmt.Sprintf("%s message: %s", f.Kind, f.Detail)
	}
	return fmt.Sprintf("%s message: part %s: %s", f.Kind, f.Part, f.Detail)
}

// Message is a message whose structure is known.
type Message struct {
	Root   *Part
	limits Limits
}

// Part is the message itself, or one of its parts.
type Part struct {
	Path        string // "2.1" is the first part of the second; empty for the message itself
	Type        string // media type in lower case; text/plain if not declared
	Charset     string // as declared, in lower case; empty if not
	Disposition string // in lower case, such as "attachment"; empty if not declared
	Names       []string
	Parts       []*Part

	params []param // of Content-Type
	// readings are further names that other programs may read. unreadable says why they are not all;
	// described are those of fields that name a file only where no other does.
	readings   []string
	described  []string
	unreadable string

	encoding transferEncoding
	src      []byte // what the offsets refer to: the message, or a decoded message within it
	header   span
	body     span
	fields   []field
	nl       string
}

// span is a range of octets.
type span struct{ start, end int }

// of returns the octets.
func (s span) of(src []byte) []byte { return src[s.start:s.end] }

// field is a header field: its name, its value with folds but without the last line break, and the
// whole with the line break.
type field struct{ name, value, whole span }

// transferEncoding is a Content-Transfer-Encoding.
type transferEncoding int

const (
	identity transferEncoding = iota // 7bit
	eightBit                         // 8bit and binary
	quotedPrintable
	base64Encoding
	uuencode
	unknownEncoding
)

// Parse reads the structure of a message: header fields, an empty line, and the body. Lines end in
// CRLF or LF. The message is kept, not copied. The result is never nil.
func Parse(message []byte, l Limits) (*Message, error) {
	p := parser{limits: l.orDefaults()}
	root := p.part(message, span{0, len(message)}, "", "text/plain", 0, nil)
	m := &Message{Root: root, limits: p.limits}
	if p.fault != nil {
		return m, p.fault
	}
	return m, nil
}

// BodyStart returns the offset of the body in the message: the octets behind the empty line.
func (m *Message) BodyStart() int { return m.Root.body.start }

// Header yields the names and values of the header fields of the message, in order and as they are.
func (m *Message) Header() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, f := range m.Root.fields {
			if !yield(string(f.name.of(m.Root.src)), string(f.value.of(m.Root.src))) {
				return
			}
		}
	}
}

// parser collects parts until a bound is reached, and notes the first fault.
type parser struct {
	limits Limits
	parts  int
	fault  *Fault
}

func (p *parser) fail(kind Kind, path, format string, args ...any) {
	if p.fault == nil || kind == Bounds && p.fault.Kind != Bounds {
		p.fault = &Fault{kind, path, fmt.Sprintf(format, args...)}
	}
}

// part reads one part. The boundaries are those of the multiparts around it.
func (p *parser) part(src []byte, within span, path, defaultType string, depth int, boundaries []string) *Part {
	part := &Part{Path: path, Type: defaultType, src: src, nl: "\n"}
	p.parts++
	p.readHeader(part, within)
	p.describe(part, defaultType)
	switch {
	case strings.HasPrefix(part.Type, "multipart/"):
		if part.encoding > eightBit {
			p.fail(Malformed, path, "a multipart with its own transfer encoding")
			return part
		}
		p.multipart(part, depth, boundaries)
	case isMessage(part.Type):
		p.message(part, depth)
	}
	return part
}

// isMessage reports whether a part of this type is a message with a structure of its own.
func isMessage(mediaType string) bool {
	return mediaType == "message/rfc822" || mediaType == "message/global" || mediaType == "message/news"
}

// readHeader finds the fields of a part and its body.
func (p *parser) readHeader(part *Part, within span) {
	src, at := part.src, within.start
	part.header = span{at, at}
	for at < within.end {
		next := within.end
		if i := bytes.IndexByte(src[at:within.end], '\n'); i >= 0 {
			next = at + i + 1
		}
		end := trimEOL(src, span{at, next})
		if part.header.start == at && end+2 == next {
			part.nl = "\r\n"
		}
		if end == at { // the empty line
			part.header.end, part.body = at, span{next, within.end}
			return
		}
		switch colon := bytes.IndexByte(src[at:end], ':'); {
		case isSpace(src[at]):
			if len(part.fields) == 0 {
				p.fail(Malformed, part.Path, "the header begins with the continuation of a line")
				part.header.end, part.body = at, span{at, within.end}
				return
			}
			last := &part.fields[len(part.fields)-1]
			last.value.end, last.whole.end = end, next
		case colon <= 0 || !isFieldName(bytes.TrimRight(src[at:at+colon], " \t")):
			p.fail(Malformed, part.Path, "a header line is no field")
			part.header.end, part.body = at, span{at, within.end}
			return
		default:
			name := bytes.TrimRight(src[at:at+colon], " \t")
			part.fields = append(part.fields, field{span{at, at + len(name)}, span{at + colon + 1, end}, span{at, next}})
		}
		if next-within.start > p.limits.Header {
			p.fail(Bounds, part.Path, "a header of more than %d octets", p.limits.Header)
			part.header.end, part.body = next, span{next, within.end}
			return
		}
		at = next
	}
	part.header.end, part.body = within.end, span{within.end, within.end}
}

// trimEOL returns the end of a line without its line break.
func trimEOL(src []byte, line span) int {
	end := line.end
	if end > line.start && src[end-1] == '\n' {
		if end--; end > line.start && src[end-1] == '\r' {
			end--
		}
	}
	return end
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

func isFieldName(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return len(name) > 0
}

// describe reads the fields that describe the content.
func (p *parser) describe(part *Part, defaultType string) {
	seen := map[string]string{}
	for _, f := range part.fields {
		name := strings.ToLower(string(f.name.of(part.src)))
		switch name {
		case "content-type", "content-transfer-encoding", "content-disposition":
		case "content-description", "content-location":
			if len(part.described) < 2 {
				part.described = append(part.described, DecodeWords(string(f.value.of(part.src))))
			}
			continue
		default:
			continue
		}
		value := unfold(f.value.of(part.src))
		if before, ok := seen[name]; ok {
			if before != value {
				p.fail(Malformed, part.Path, "two different %s fields", name)
			}
			continue
		}
		seen[name] = value
		switch name {
		case "content-type":
			read := readParameters(value)
			var mediaType string
			mediaType, part.params = read.token, read.params
			if part.Type = mediaType; !strings.Contains(mediaType, "/") {
				if part.Type = defaultType; mediaType != "text" && mediaType != "" {
					part.Type = "application/octet-stream"
				}
			}
			if all := distinct(part.params, "charset"); len(all) > 1 && strings.HasPrefix(part.Type, "text/") {
				p.fail(Malformed, part.Path, "two different charsets")
			} else if len(all) == 1 {
				part.Charset = strings.ToLower(strings.Trim(all[0], " '\""))
			}
			part.Names = addNames(part.Names, part.params, "name")
			part.addReadings(&read, "name")
			p.bound(part, part.params)
		case "content-disposition":
			read := readParameters(value)
			part.Disposition = read.token
			part.Names = addNames(part.Names, read.params, "filename")
			part.addReadings(&read, "filename")
			p.bound(part, read.params)
		case "content-transfer-encoding":
			if part.encoding = parseEncoding(value); part.encoding == unknownEncoding {
				p.fail(Malformed, part.Path, "the transfer encoding %.40q is unknown", value)
			}
		}
	}
}

// bound notes that a field has more parameters than are read.
func (p *parser) bound(part *Part, params []param) {
	if len(params) > maxParams {
		p.fail(Bounds, part.Path, "a header field of more than %d parameters", maxParams)
	}
}

func parseEncoding(value string) transferEncoding {
	token, _ := parameters(value)
	switch token {
	case "", "7bit", "7-bit":
		return identity
	case "8bit", "8-bit", "binary":
		return eightBit
	case "quoted-printable":
		return quotedPrintable
	case "base64":
		return base64Encoding
	case "uuencode", "x-uuencode", "x-uue", "uue":
		return uuencode
	}
	return unknownEncoding
}

// multipart reads the parts between the delimiters of a multipart.
func (p *parser) multipart(part *Part, depth int, boundaries []string) {
	all := distinct(part.params, "boundary")
	if len(all) != 1 || all[0] == "" || len(all[0]) > 256 || strings.ContainsAny(all[0], "\r\n") {
		p.fail(Malformed, part.Path, "a multipart without a usable boundary")
		return
	}
	boundary := strings.TrimRight(all[0], " \t")
	for _, b := range boundaries {
		if b == boundary {
			p.fail(Malformed, part.Path, "a multipart with the boundary of another around it")
			return
		}
	}
	if depth >= p.limits.Depth {
		p.fail(Bounds, part.Path, "parts nested more than %d deep", p.limits.Depth)
		return
	}
	defaultType := "text/plain"
	if part.Type == "multipart/digest" {
		defaultType = "message/rfc822"
	}
	scan := delimiters{src: part.src, at: part.body.start, end: part.body.end, boundary: []byte("--" + boundary)}
	open, ok := scan.next()
	if !ok {
		p.fail(Malformed, part.Path, "a multipart whose boundary does not occur")
		return
	}
	inner := append(boundaries[:len(boundaries):len(boundaries)], boundary)
	for !open.last {
		next, ok := scan.next()
		content := span{open.line.end, part.body.end}
		if ok {
			content.end = max(content.start, next.before)
		} else {
			p.fail(Malformed, part.Path, "a multipart without its end")
		}
		if p.parts >= p.limits.Parts {
			p.fail(Bounds, part.Path, "more than %d parts", p.limits.Parts)
			return
		}
		child := p.part(part.src, content, childPath(part.Path, len(part.Parts)+1), defaultType, depth+1, inner)
		part.Parts = append(part.Parts, child)
		if !ok {
			return
		}
		open = next
	}
}

func childPath(path string, n int) string {
	if path == "" {
		return strconv.Itoa(n)
	}
	return path + "." + strconv.Itoa(n)
}

// message reads a message within the message. It is decoded if it is encoded, which RFC 2046
// forbids and programs do.
func (p *parser) message(part *Part, depth int) {
	if depth >= p.limits.Depth || p.parts >= p.limits.Parts {
		p.fail(Bounds, part.Path, "messages nested too deep, or too many parts")
		return
	}
	src, body := part.src, part.body
	if part.encoding > eightBit {
		src = part.decode(len(part.src))
		body = span{0, len(src)}
	}
	part.Parts = []*Part{p.part(src, body, childPath(part.Path, 1), "text/plain", depth+1, nil)}
}

// delimiters finds the lines that separate the parts of a multipart (RFC 2046 section 5.1.1).
type delimiters struct {
	src      []byte
	at, end  int
	boundary []byte // with its dashes
}

// delimiter is such a line. The line break before it belongs to it.
type delimiter struct {
	before int
	line   span
	last   bool
}

func (d *delimiters) next() (delimiter, bool) {
	for d.at < d.end {
		i := bytes.Index(d.src[d.at:d.end], d.boundary)
		if i < 0 {
			break
		}
		start := d.at + i
		d.at = start + len(d.boundary)
		if start > 0 && d.src[start-1] != '\n' {
			continue
		}
		rest, eol := d.src[d.at:d.end], d.end
		if j := bytes.IndexByte(rest, '\n'); j >= 0 {
			eol = d.at + j + 1
			rest = rest[:j]
		}
		rest, last := bytes.CutPrefix(rest, []byte("--"))
		if len(bytes.Trim(rest, " \t\r")) > 0 {
			continue // another boundary that begins alike
		}
		d.at = eol
		before := start
		if before > 0 {
			if before--; before > 0 && d.src[before-1] == '\r' {
				before--
			}
		}
		return delimiter{before, span{start, eol}, last}, true
	}
	d.at = d.end
	return delimiter{}, false
}

// Structure returns the parts with their types, one a line, indented by depth.
func (m *Message) Structure() string {
	var b strings.Builder
	m.Root.walk(func(p *Part) bool {
		indent := 0
		if p.Path != "" {
			indent = strings.Count(p.Path, ".") + 1
		}
		fmt.Fprintf(&b, "%s%s", strings.Repeat("  ", indent), p.Type)
		if p.Charset != "" {
			fmt.Fprintf(&b, " %s", p.Charset)
		}
		for _, name := range p.Names {
			fmt.Fprintf(&b, " %q", name)
		}
		b.WriteByte('\n')
		return true
	})
	return b.String()
}

// walk visits a part and the parts within it, in order. A part whose visit returns false is not
// entered.
func (p *Part) walk(visit func(*Part) bool) {
	if !visit(p) {
		return
	}
	for _, child := range p.Parts {
		child.walk(visit)
	}
}
