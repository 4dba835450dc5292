package mime

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
)

// Texts returns the texts of a message as its reader sees them, in order: of plain text and HTML,
// also in messages within it, but not of attachments. Runs of white space become one space, and
// none between Chinese or Japanese characters; invisible characters are left out. It returns what
// it could read and the first fault.
func (m *Message) Texts() ([]string, error) {
	var texts []string
	var fault *Fault
	left := m.limits.Text
	m.Root.walk(func(p *Part) bool {
		if !strings.HasPrefix(p.Type, "text/") || p.Disposition == "attachment" || fault != nil && fault.Kind == Bounds {
			return true
		}
		decoded := p.decode(left + 1)
		if left -= len(decoded); left < 0 {
			fault = &Fault{Bounds, p.Path, "more text than is read"}
			return true
		}
		text, ok := decodeCharset(p.Charset, decoded)
		if !ok {
			if fault == nil {
				fault = &Fault{Charset, p.Path, "the charset " + quoteShort(p.Charset) + " is unknown"}
			}
			text = decodeLoosely("", decoded)
		}
		switch {
		case p.Type == "text/html":
			text = htmlText(text)
		case p.flowed() && p.param("delsp") == "yes":
			text = strings.ReplaceAll(strings.ReplaceAll(text, " \r\n", ""), " \n", "")
		}
		if text = squeeze(text); text != "" {
			texts = append(texts, text)
		}
		return true
	})
	if fault != nil {
		return texts, fault
	}
	return texts, nil
}

func quoteShort(s string) string {
	if len(s) > 40 {
		s = s[:40]
	}
	return strings.ToValidUTF8(`"`+s+`"`, "?")
}

// param returns the value of a parameter of Content-Type, in lower case.
func (p *Part) param(name string) string {
	for _, q := range p.params {
		if q.name == name {
			return strings.ToLower(q.value)
		}
	}
	return ""
}

// flowed reports whether the lines of a plain text may be joined (RFC 3676).
func (p *Part) flowed() bool { return p.Type == "text/plain" && p.param("format") == "flowed" }

// separates names the elements of HTML before and after which a text continues in a new line.
var separates = map[string]bool{
	"address": true, "article": true, "blockquote": true, "body": true, "br": true, "center": true, "dd": true, "div": true, "dt": true,
	"footer": true, "form": true, "h1": true, "h2": true, "h3": true, "h4": true, "h5": true, "h6": true, "header": true, "hr": true,
	"img": true, "li": true, "ol": true, "option": true, "p": true, "pre": true, "section": true, "table": true, "td": true, "th": true,
	"title": true, "tr": true, "ul": true,
}

// htmlText returns the text of HTML without its tags, comments, scripts and style sheets.
func htmlText(text string) string {
	var b strings.Builder
	z := html.NewTokenizer(strings.NewReader(text))
	for hidden := ""; ; {
		switch z.Next() {
		case html.ErrorToken:
			return b.String()
		case html.TextToken:
			if hidden == "" {
				b.Write(z.Text())
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			name, _ := z.TagName()
			switch string(name) {
			case "script", "style":
				hidden = string(name)
			default:
				if separates[string(name)] {
					b.WriteByte('\n')
				}
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			if string(name) == hidden {
				hidden = ""
			}
			if separates[string(name)] {
				b.WriteByte('\n')
			}
		case html.CommentToken, html.DoctypeToken:
		}
	}
}

// squeeze makes text fit for looking for words in it.
func squeeze(text string) string {
	var b strings.Builder
	b.Grow(len(text))
	var last rune // written
	space := false
	for _, r := range text {
		switch {
		case r < utf8.RuneSelf && r > ' ' && r != 0x7f:
		case unicode.IsSpace(r) || unicode.IsControl(r):
			space = true
			continue
		case r == '\u00ad', r == '\u034f', r == '\ufeff', '\u200b' <= r && r <= '\u200f', '\u202a' <= r && r <= '\u202e', '\u2060' <= r && r <= '\u206f':
			continue
		}
		if space && last != 0 && (!ideographic(last) || !ideographic(r)) {
			b.WriteByte(' ')
		}
		space, last = false, r
		b.WriteRune(r)
	}
	return b.String()
}

// ideographic reports whether words of this character are written without spaces between them.
func ideographic(r rune) bool {
	return r >= 0x2e80 && (unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana) || r >= 0x3000 && r <= 0x303f || r >= 0xff00 && r <= 0xffef)
}

// Attachment is a part that is no text of the message itself, or a file within its text.
type Attachment struct {
	Names []string // as declared, in any of the fields; then those of the files in it
	Types []string // as declared, and as its first octets say
	Size  int      // octets, decoded
}

// Attachments returns the attachments of a message and of the messages within it, in order. It
// returns what it could read and the first fault.
func (m *Message) Attachments() ([]Attachment, error) {
	var all []Attachment
	names := &names{left: m.limits.Names, archive: m.limits.Archive}
	m.Root.walk(func(p *Part) bool {
		names.path = p.Path
		switch {
		case strings.HasPrefix(p.Type, "multipart/"):
		case p.Type == "text/plain" && !p.attached():
			for name, content := range uuFiles(p.decode(m.limits.Text), m.limits.Text) {
				all = append(all, names.attachment([]string{decodeLoosely("", []byte(name))}, "", content))
			}
		case isMessage(p.Type):
			all = append(all, Attachment{Names: p.Names, Types: []string{p.Type}, Size: p.body.end - p.body.start})
		case p.attached():
			all = append(all, names.attachment(p.Names, p.Type, p.decode(len(p.src))))
		}
		return names.fault == nil || names.fault.Kind != Bounds
	})
	if names.fault != nil {
		return all, names.fault
	}
	return all, nil
}

// attached reports whether a part is something else than text to be displayed.
func (p *Part) attached() bool {
	return p.Disposition == "attachment" || len(p.Names) > 0 || !strings.HasPrefix(p.Type, "text/")
}

// attachment describes a file by its declared names and type and by its content.
func (n *names) attachment(declared []string, mediaType string, content []byte) Attachment {
	a := Attachment{Names: slices.Clone(declared), Size: len(content)}
	if mediaType != "" {
		a.Types = append(a.Types, mediaType)
	}
	sniffed := sniff(content)
	if sniffed != "" && sniffed != mediaType {
		a.Types = append(a.Types, sniffed)
	}
	n.found = nil
	switch sniffed {
	case "application/zip":
		n.zip(content, 0)
	case "application/vnd.ms-tnef":
		n.tnef(content)
	}
	a.Names = append(a.Names, n.found...)
	return a
}

// signatures are the first octets of kinds of files that administrators ask for.
var signatures = []struct{ begins, mediaType string }{
	{"PK\x03\x04", "application/zip"},
	{"PK\x05\x06", "application/zip"},
	{"MZ", "application/x-msdownload"},
	{"\x7fELF", "application/x-executable"},
	{"\xcf\xfa\xed\xfe", "application/x-mach-binary"},
	{"\xca\xfe\xba\xbe", "application/java-vm"},
	{"Rar!\x1a\x07", "application/vnd.rar"},
	{"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"},
	{"\x1f\x8b", "application/gzip"},
	{"BZh", "application/x-bzip2"},
	{"\xfd7zXZ\x00", "application/x-xz"},
	{"MSCF", "application/vnd.ms-cab-compressed"},
	{"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"},
	{"L\x00\x00\x00\x01\x14\x02\x00", "application/x-ms-shortcut"},
	{"ITSF", "application/vnd.ms-htmlhelp"},
	{"\x78\x9f\x3e\x22", "application/vnd.ms-tnef"},
	{"%PDF-", "application/pdf"},
	{"{\\rtf", "application/rtf"},
	{"#!", "text/x-script"},
	{"\x89PNG\r\n\x1a\n", "image/png"},
	{"\xff\xd8\xff", "image/jpeg"},
	{"GIF8", "image/gif"},
}

// sniff returns the type that the first octets of a file stand for, "" if they say nothing.
func sniff(content []byte) string {
	for _, s := range signatures {
		if bytes.HasPrefix(content, []byte(s.begins)) {
			return s.mediaType
		}
	}
	start := bytes.ToLower(bytes.TrimLeft(content[:min(len(content), 512)], "\xef\xbb\xbf \t\r\n"))
	if bytes.HasPrefix(start, []byte("<!doctype html")) || bytes.HasPrefix(start, []byte("<html")) || bytes.HasPrefix(start, []byte("<script")) {
		return "text/html"
	}
	return ""
}
