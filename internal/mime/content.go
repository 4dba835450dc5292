package mime

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/text/unicode/norm"
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
	Names []string // as declared, in any of the fields; those of the files in it; and see [Message.Attachments]
	Types []string // as declared, and as its first octets say
	Size  int      // octets, decoded
}

// Attachments returns the attachments of a message and of the messages within it, in order. It
// returns what it could read and the first fault.
//
// To the names as they are declared it adds those that other programs may read where the fields are
// not what the standards permit, and the names under which a file may be stored: without invisible
// characters, white space and dots around them, in characters of their usual width, and cut off at a
// control character or a colon.
func (m *Message) Attachments() ([]Attachment, error) {
	n := &names{left: m.limits.Names, archive: m.limits.Archive, limits: m.limits}
	n.message(m.Root)
	if n.fault != nil {
		return n.all, n.fault
	}
	return n.all, nil
}

// message notes the attachments of a message.
func (n *names) message(root *Part) {
	root.walk(func(p *Part) bool {
		if n.depth == 0 {
			n.path = p.Path
		}
		declared := append(slices.Clip(p.Names), p.readings...)
		if len(declared) == 0 {
			declared = p.described
		}
		switch {
		case strings.HasPrefix(p.Type, "multipart/"):
			return n.goesOn()
		case p.Type == "text/plain" && !p.attached() && len(p.readings) == 0:
			text := p.decode(n.limits.Text)
			for name, content := range uuFiles(text, n.limits.Text) {
				n.attachment([]string{decodeLoosely("", []byte(name))}, "", content)
			}
			for name := range yencNames(text) {
				n.attachment([]string{decodeLoosely("", []byte(name))}, "", nil)
			}
			return n.goesOn()
		case isMessage(p.Type):
			n.all = append(n.all, Attachment{Names: withVariants(declared), Types: []string{p.Type}, Size: p.body.end - p.body.start})
		case p.attached() || len(p.readings) > 0:
			n.attachment(declared, p.Type, p.decode(len(p.src)))
		default:
			return n.goesOn()
		}
		if p.unreadable != "" && n.fault == nil {
			n.fault = &Fault{Malformed, n.path, p.unreadable}
		}
		return n.goesOn()
	})
}

// goesOn reports whether more names are looked for.
func (n *names) goesOn() bool { return n.fault == nil || n.fault.Kind != Bounds }

// attached reports whether a part is something else than text to be displayed.
func (p *Part) attached() bool {
	return p.Disposition == "attachment" || len(p.Names) > 0 || !strings.HasPrefix(p.Type, "text/")
}

// maxMessages bounds files that are messages, in files that are messages.
const maxMessages = 5

// attachment describes a file by its declared names and type and by its content.
func (n *names) attachment(declared []string, mediaType string, content []byte) {
	a := Attachment{Names: slices.Clone(declared), Size: len(content)}
	if mediaType != "" {
		a.Types = append(a.Types, mediaType)
	}
	outer := n.types
	n.found, n.types = nil, nil
	n.file(content)
	a.Names = withVariants(append(a.Names, n.found...))
	for _, t := range n.types {
		if !slices.Contains(a.Types, t) {
			a.Types = append(a.Types, t)
		}
	}
	n.types = outer
	n.all = append(n.all, a)
	if !slices.ContainsFunc(a.Names, isMessageFile) || isMessage(mediaType) || !n.goesOn() {
		return
	}
	if n.depth >= maxMessages {
		n.fail("messages nested too deep")
		return
	}
	n.depth++
	within, _ := Parse(content, n.limits) // as far as it can be read: it may be none
	n.message(within.Root)
	n.depth--
}

// file notes the types that the content of a file stands for, and the names within it.
func (n *names) file(content []byte) {
	sniffed := sniff(content)
	if sniffed != "" {
		n.types = append(n.types, sniffed)
	}
	switch {
	case sniffed == "application/vnd.ms-tnef":
		n.tnef(content, 0)
	case sniffed == "application/zip":
		n.zip(content, 0)
	case endsAsZip(content): // programs look for its directory from the end
		n.types = append(n.types, "application/zip")
		n.zip(content, 0)
	}
}

// isMessageFile reports whether mail programs open a file of that name as a message.
func isMessageFile(name string) bool {
	name = strings.ToLower(name)
	return strings.HasSuffix(name, ".eml") || strings.HasSuffix(name, ".mht") || strings.HasSuffix(name, ".mhtml")
}

// withVariants adds to names those under which the files may be stored.
func withVariants(list []string) []string {
	for _, name := range list[:len(list):len(list)] {
		cut := name
		if i := strings.IndexFunc(name, unicode.IsControl); i > 0 {
			cut = name[:i]
		}
		for _, v := range []string{stored(name), stored(cut)} {
			base := v[strings.LastIndexAny(v, `/\`)+1:]
			file := v
			if i := strings.IndexByte(base, ':'); i > 1 { // what follows names a stream of it, but behind a letter a path
				file = stored(base[:i])
			}
			for _, v := range []string{v, file} {
				if v != "" && v != name && !slices.Contains(list[max(0, len(list)-4):], v) {
					list = append(list, v)
				}
			}
		}
	}
	return list
}

// stored returns a name as a program may store the file.
func stored(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == '\u034f' || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Variation_Selector) {
			return -1
		}
		return r
	}, norm.NFKC.String(name))
	return strings.TrimFunc(name, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("\"'`.", r) })
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
