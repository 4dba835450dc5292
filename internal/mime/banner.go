package mime

import (
	"bytes"
	"cmp"
	"html"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	tokens "golang.org/x/net/html"
)

// headOfHTML bounds the search for the place of a banner in HTML, in octets.
const headOfHTML = 256 << 10

// Banner returns the changes that put a text above the text of a message, once in each form that
// readers may see: plain text and HTML. Parts that are signed or encrypted, calendars, attachments
// and messages within the message keep every octet. A plain text whose charset lacks a character of
// the banner becomes UTF-8. A message without a text to be displayed is not changed.
//
// The text may have several lines. Where a part cannot be changed, the fault says why.
func (m *Message) Banner(text string) (Changes, error) {
	b := bannerChanges{text: strings.Trim(strings.ReplaceAll(text, "\r\n", "\n"), "\n")}
	b.visit(m.Root)
	slices.SortFunc(b.changes.Body, func(x, y Splice) int {
		return cmp.Or(cmp.Compare(x.Start, y.Start), cmp.Compare(x.End, y.End))
	})
	if b.fault != nil {
		return b.changes, b.fault
	}
	return b.changes, nil
}

// bannerChanges collects the changes for a banner.
type bannerChanges struct {
	text    string
	changes Changes
	fault   *Fault
}

// visit changes the text that readers display first of a part, and reports whether there is one.
func (b *bannerChanges) visit(p *Part) bool {
	switch p.Type {
	case "multipart/alternative":
		done := false
		for _, child := range p.Parts {
			done = b.visit(child) || done
		}
		return done
	case "multipart/signed", "multipart/encrypted":
		return true // displayed, and not ours to change
	case "text/plain", "text/html":
		if p.Disposition == "attachment" || len(p.Names) > 0 && p.Path != "" {
			return false
		}
		b.change(p)
		return true
	case "multipart/related":
		start := strings.Trim(p.param("start"), "<> ")
		for _, child := range p.Parts {
			if start != "" && strings.EqualFold(strings.Trim(child.field("content-id"), "<> "), start) {
				return b.visit(child)
			}
		}
		return len(p.Parts) > 0 && b.visit(p.Parts[0])
	}
	if strings.HasPrefix(p.Type, "multipart/") {
		return slices.ContainsFunc(p.Parts, b.visit)
	}
	return isMessage(p.Type) || strings.Contains(p.Type, "pkcs7")
}

// field returns the value of the first field of that name.
func (p *Part) field(name string) string {
	for _, f := range p.fields {
		if strings.EqualFold(string(f.name.of(p.src)), name) {
			return unfold(f.value.of(p.src))
		}
	}
	return ""
}

func (b *bannerChanges) fail(p *Part, kind Kind, detail string) {
	if b.fault == nil {
		b.fault = &Fault{kind, p.Path, detail}
	}
}

func (b *bannerChanges) change(p *Part) {
	e := charsetOf(p.Charset)
	switch {
	case p.header.end == p.body.start: // no empty line, thus no text
		return
	case e == nil || wide(p.Charset):
		b.fail(p, Charset, "no banner can be written in the charset "+quoteShort(p.Charset))
		return
	case p.encoding == uuencode || p.encoding == unknownEncoding:
		b.fail(p, Malformed, "no banner can be written in this transfer encoding")
		return
	}
	if p.Type == "text/html" {
		b.splice(p, []byte(strings.ReplaceAll(b.html(), "\n", p.newline())), p.placeInHTML())
		return
	}
	text, ok := encodeCharset(e, b.plain(p))
	declared := p.Charset != "" && !strings.Contains(p.Charset, "ascii")
	if ok && (isASCII(text) || declared && p.encoding != identity) {
		at := 0
		if bytes.HasPrefix(p.decode(3), []byte("\xef\xbb\xbf")) {
			at = 3
		}
		b.splice(p, text, at)
		return
	}
	b.rewrite(p)
}

// plain returns the banner for a plain text: its lines, and an empty one.
func (b *bannerChanges) plain(p *Part) string {
	nl := p.newline()
	var out strings.Builder
	for line := range strings.SplitSeq(b.text, "\n") {
		line = strings.TrimRight(line, " \t\r")
		if p.flowed() && (strings.HasPrefix(line, " ") || strings.HasPrefix(line, ">") || strings.HasPrefix(line, "From ")) {
			line = " " + line // RFC 3676 section 4.4
		}
		out.WriteString(line + nl)
	}
	return out.String() + nl
}

// newline returns the line break of a part's content.
func (p *Part) newline() string {
	if p.encoding != base64Encoding {
		return p.nl
	}
	head := p.decode(64 << 10)
	if i := bytes.IndexByte(head, '\n'); i >= 0 && (i == 0 || head[i-1] != '\r') {
		return "\n"
	}
	return "\r\n"
}

// html returns the banner as HTML in ASCII, for any charset. Its style outranks style sheets.
func (b *bannerChanges) html() string {
	var out strings.Builder
	out.WriteString(`<div style="display:block!important;visibility:visible!important;opacity:1!important;position:static!important;` + "\n" +
		`font:bold 14px sans-serif!important;color:#7a3e00!important;background:#fff4e5!important;` + "\n" +
		`border:1px solid #d98500!important;margin:0 0 12px!important;padding:8px 12px!important">`)
	for i, line := range strings.Split(b.text, "\n") {
		if i > 0 {
			out.WriteString("<br>\n")
		}
		for _, r := range html.EscapeString(line) {
			if r < utf8.RuneSelf {
				out.WriteRune(r)
			} else {
				out.WriteString("&#" + strconv.Itoa(int(r)) + ";")
			}
		}
	}
	out.WriteString("</div>\n")
	return out.String()
}

// placeInHTML returns the offset in the decoded HTML that a banner belongs at: behind the tag of
// the body; if there is none behind the head, behind the tag of html, or behind the document type.
func (p *Part) placeInHTML() int {
	text := p.decode(headOfHTML)
	if shifts(p.Charset) {
		text = unshifted(text)
	}
	z := tokens.NewTokenizer(bytes.NewReader(text))
	at, best, rank := 0, 0, 0
	if bytes.HasPrefix(text, []byte("\xef\xbb\xbf")) {
		best = 3
	}
	found := func(r int) {
		if r > rank {
			best, rank = at, r
		}
	}
	begins := func(at int) int { // without a tag: something to be displayed
		if rank == 3 {
			return best
		}
		return max(at, best)
	}
	for hidden := false; ; {
		kind := z.Next()
		if kind == tokens.ErrorToken {
			return best
		}
		raw := len(z.Raw())
		at += raw
		switch kind {
		case tokens.DoctypeToken:
			found(1)
		case tokens.StartTagToken, tokens.EndTagToken, tokens.SelfClosingTagToken:
			name, _ := z.TagName()
			switch string(name) {
			case "html":
				if kind == tokens.StartTagToken {
					found(2)
				}
			case "head":
				if kind == tokens.EndTagToken {
					found(3)
				}
			case "body":
				if kind == tokens.StartTagToken {
					return at
				}
			case "title", "style", "script":
				hidden = kind == tokens.StartTagToken
			case "meta", "link", "base", "noscript":
			default: // the body begins without its tag
				return begins(at - raw)
			}
		case tokens.TextToken:
			if !hidden && len(bytes.TrimSpace(z.Text())) > 0 {
				return begins(at - raw)
			}
		case tokens.CommentToken, tokens.ErrorToken:
		}
	}
}

// unshifted replaces the octets of characters of two octets, in encodings of ISO 2022 and HZ, by
// letters: among them are octets that look like tags.
func unshifted(text []byte) []byte {
	out := bytes.Clone(text)
	double := false
	for i := 0; i < len(out); i++ {
		switch {
		case out[i] == 0x1b && i+2 < len(out):
			double = out[i+1] == '$'
			for i++; i+1 < len(out) && strings.IndexByte("$()*+,-./", out[i]) >= 0; i++ {
				out[i] = 'x'
			}
			out[i] = 'x'
		case out[i] == '~' && i+1 < len(out) && (out[i+1] == '{' || out[i+1] == '}'):
			double = out[i+1] == '{'
			i++
		case double && out[i] > ' ':
			out[i] = 'x'
		}
	}
	return out
}

// splice puts content, in the part's charset, at an offset of the decoded part.
func (b *bannerChanges) splice(p *Part, content []byte, at int) {
	text := p.body.of(p.src)
	insert := func(start, end int, with []byte) {
		b.changes.Body = append(b.changes.Body, Splice{p.body.start + start, p.body.start + end, with})
	}
	switch p.encoding {
	case base64Encoding:
		b.spliceBase64(p, content, at)
	case quotedPrintable:
		_, offset := decodeQuoted(text, at)
		encoded := encodeQuoted(content, p.nl)
		if offset > 0 && text[offset-1] != '\n' {
			encoded = append([]byte("="+p.nl), encoded...)
		}
		if !bytes.HasSuffix(encoded, []byte("\n")) {
			encoded = append(encoded, "="+p.nl...)
		}
		insert(offset, offset, encoded)
	default:
		if at > 0 && text[at-1] != '\n' && p.Type == "text/html" {
			content = append([]byte(p.nl), content...)
		}
		insert(at, at, content)
	}
}

// spliceBase64 puts content into base64 text without moving what stands behind it: the content is
// filled up to a multiple of three octets, by spaces before it, and takes the characters of the
// group that it divides with it.
func (b *bannerChanges) spliceBase64(p *Part, content []byte, at int) {
	text := p.body.of(p.src)
	var before, after []byte
	place, whole := quantum(text, at/3)
	if whole {
		group := decodeBase64(nil, place.of(text))
		before, after = group[:at%3], group[at%3:]
		if at%3 == 0 {
			place.end, after = place.start, nil
		}
	} else { // the last group, or behind it
		decoded := decodeBase64(nil, text)
		if at < len(decoded)-2 {
			b.fail(p, Malformed, "base64 with padding before its end")
			return
		}
		if at/3 > 0 {
			if last, ok := quantum(text, at/3-1); ok {
				place = span{last.end, len(text)}
			}
		} else {
			place = span{0, len(text)}
		}
		before, after = decoded[at/3*3:at], decoded[at:]
	}
	filler := (3 - (len(before)+len(content)+len(after))%3) % 3
	if !whole {
		filler = 0
	}
	all := slices.Concat(before, bytes.Repeat([]byte(" "), filler), content, after)
	encoded := encodeBase64(all, p.nl)
	if place.start > 0 && text[place.start-1] != '\n' {
		encoded = append([]byte(p.nl), encoded...)
	}
	b.changes.Body = append(b.changes.Body, Splice{p.body.start + place.start, p.body.start + place.end, encoded})
}

// rewrite makes a plain text UTF-8, with the banner above it, where its charset or its transfer
// encoding has no room for the banner. Decoded it is the same text.
func (b *bannerChanges) rewrite(p *Part) {
	decoded := p.decode(len(p.src))
	text, ok := decodeCharset(p.Charset, decoded)
	if !ok || strings.Contains(text, "\uFFFD") {
		b.fail(p, Charset, "its text is not of the charset "+quoteShort(cmp.Or(p.Charset, "us-ascii")))
		return
	}
	content := []byte(b.plain(p) + text)
	high := 0
	for _, c := range content {
		if c >= utf8.RuneSelf {
			high++
		}
	}
	transfer, encode := "quoted-printable", encodeQuoted
	if high > len(content)/6 {
		transfer, encode = "base64", encodeBase64
	}
	encoded := encode(content, p.nl)
	b.changes.Body = append(b.changes.Body, Splice{p.body.start, p.body.end, encoded})
	b.setField(p, "MIME-Version", "1.0")
	b.setField(p, "Content-Type", p.contentType("utf-8"))
	b.setField(p, "Content-Transfer-Encoding", transfer)
}

// contentType returns the value of Content-Type with another charset.
func (p *Part) contentType(charset string) string {
	value := p.Type + "; charset=" + charset
	for _, q := range p.params {
		if q.name != "charset" && isFieldName([]byte(q.name)) && !strings.ContainsAny(q.value, "\r\n") && isASCII([]byte(q.value)) {
			value += ";\n " + q.name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(q.value) + `"`
		}
	}
	return value
}

// setField sets a header field of a part, wherever it is repeated. MIME-Version is for the message
// itself, if it has none.
func (b *bannerChanges) setField(p *Part, name, value string) {
	n := 0
	for _, f := range p.fields {
		if !strings.EqualFold(string(f.name.of(p.src)), name) {
			continue
		}
		n++
		switch {
		case name == "MIME-Version":
		case p.Path == "":
			b.changes.Fields = append(b.changes.Fields, FieldChange{name, n, value})
		default:
			line := string(f.name.of(p.src)) + ": " + strings.ReplaceAll(value, "\n", p.nl)
			b.changes.Body = append(b.changes.Body, Splice{f.whole.start, f.value.end, []byte(line)})
		}
	}
	switch {
	case n > 0:
	case p.Path == "":
		b.changes.Fields = append(b.changes.Fields, FieldChange{name, 0, value})
	case name != "MIME-Version":
		line := name + ": " + strings.ReplaceAll(value, "\n", p.nl) + p.nl
		b.changes.Body = append(b.changes.Body, Splice{p.header.start, p.header.start, []byte(line)})
	}
}
