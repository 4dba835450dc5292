package mime

import (
	"bytes"
	"encoding/base64"
)

// decode returns the content of a part without its transfer encoding, and at most that many octets
// of it. It decodes leniently, as readers of mail do: characters outside base64 do not count, data
// may continue after padding, faulty escapes stay as they are.
func (p *Part) decode(most int) []byte {
	text := p.body.of(p.src)
	switch p.encoding {
	case base64Encoding:
		if n := most/3*4 + 8; len(text) > 2*n { // twice, for line breaks and whatever else
			text = text[:2*n]
		}
		decoded := decodeBase64(make([]byte, 0, min(len(text)/4*3+3, most+8)), text)
		return decoded[:min(len(decoded), most)]
	case quotedPrintable:
		decoded, _ := decodeQuoted(text, most)
		return decoded
	case uuencode:
		var all []byte
		for name, content := range uuFiles(text, most) {
			_ = name
			all = append(all, content...)
		}
		return all[:min(len(all), most)]
	case identity, eightBit, unknownEncoding:
	}
	return text[:min(len(text), most)]
}

// sextet maps a character of base64 to its value, and all others to 64 or, for padding, 65.
var sextet = func() (table [256]byte) {
	for i := range table {
		table[i] = 64
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		table[c] = byte(i)
	}
	table['='] = 65
	return table
}()

// decodeBase64 appends what text encodes.
func decodeBase64(to, text []byte) []byte {
	for len(text) > 0 {
		// Whole lines without anything odd are for the standard library, which is faster.
		line := text
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line = text[:i]
		}
		rest := text[min(len(line)+1, len(text)):]
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 || len(line)%4 != 0 || line[len(line)-1] == '=' {
			break
		}
		whole, err := base64.StdEncoding.AppendDecode(to, line)
		if err != nil {
			break
		}
		to, text = whole, rest
	}
	var bits uint32
	n := 0
	for _, c := range text {
		v := sextet[c]
		if v > 64 { // padding: the next characters start a new group
			to = appendBits(to, bits, n)
			bits, n = 0, 0
		}
		if v >= 64 {
			continue
		}
		bits = bits<<6 | uint32(v)
		if n++; n == 4 {
			to = append(to, byte(bits>>16), byte(bits>>8), byte(bits)) //nolint:gosec // octets
			bits, n = 0, 0
		}
	}
	return appendBits(to, bits, n)
}

// appendBits appends the whole octets of fewer than four characters.
func appendBits(to []byte, bits uint32, n int) []byte {
	switch n {
	case 2:
		return append(to, byte(bits>>4)) //nolint:gosec // octets
	case 3:
		return append(to, byte(bits>>10), byte(bits>>2)) //nolint:gosec // octets
	}
	return to
}

// quantum returns where the group of four characters with number n stands in base64 text. It
// returns false if the text ends, or is padded, before the group is complete.
func quantum(text []byte, n int) (span, bool) {
	count, start := 0, 0
	for i, c := range text {
		switch v := sextet[c]; {
		case v > 64:
			return span{}, false
		case v < 64:
			if count == 4*n {
				start = i
			}
			if count++; count == 4*n+4 {
				return span{start, i + 1}, true
			}
		}
	}
	return span{}, false
}

// decodeQuoted decodes quoted-printable text, at most that many octets. It returns how many octets
// of the text it read. Space at the end of a line was added on the way (RFC 2045 section 6.7).
func decodeQuoted(text []byte, most int) (decoded []byte, read int) {
	decoded = make([]byte, 0, min(len(text), most))
	for read < len(text) && len(decoded) < most {
		line, next := text[read:], len(text)
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line, next = line[:i+1], read+i+1
		}
		content := bytes.TrimRight(bytes.TrimRight(line, "\r\n"), " \t")
		hard := bytes.TrimLeft(line[len(content):], " \t")
		if bytes.HasSuffix(content, []byte("=")) {
			content, hard = content[:len(content)-1], nil
		}
		for i := 0; i < len(content); i++ {
			if len(decoded) == most {
				return decoded, read + i
			}
			c := content[i]
			if c == '=' && i+2 < len(content) {
				if v, ok := hex(content[i+1], content[i+2]); ok {
					c = v
					i += 2
				}
			}
			decoded = append(decoded, c)
		}
		if len(decoded) == most {
			return decoded, read + len(content)
		}
		hard = hard[:min(len(hard), most-len(decoded))]
		decoded, read = append(decoded, hard...), next
	}
	return decoded, read
}

// encodeQuoted encodes text as quoted-printable, in lines of at most 76 characters. Line breaks of
// the text stay as they are; nl is for those that are escaped.
func encodeQuoted(text []byte, nl string) []byte {
	const digits = "0123456789ABCDEF"
	var out []byte
	column := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\n' || c == '\r' && i+1 < len(text) && text[i+1] == '\n' {
			if c == '\r' {
				out = append(out, c)
				i++
			}
			out, column = append(out, '\n'), 0
			continue
		}
		ends := i+1 == len(text) || text[i+1] == '\n' || text[i+1] == '\r'
		literal := c > ' ' && c < 0x7f && c != '=' || isSpace(c) && !ends
		if column == 0 && (c == '.' || c == 'F' && bytes.HasPrefix(text[i:], []byte("From "))) {
			literal = false
		}
		width := 3
		if literal {
			width = 1
		}
		if column+width > 75 {
			out, column = append(append(out, '='), nl...), 0
		}
		if literal {
			out = append(out, c)
		} else {
			out = append(out, '=', digits[c>>4], digits[c&15])
		}
		column += width
	}
	return out
}

// encodeBase64 encodes content in lines of 76 characters, each with its line break.
func encodeBase64(content []byte, nl string) []byte {
	var out []byte
	for len(content) > 0 {
		n := min(57, len(content))
		out = append(base64.StdEncoding.AppendEncode(out, content[:n]), nl...)
		content = content[n:]
	}
	return out
}

// uuFiles yields the names of the files that stand uuencoded in a text, and their content up to a
// bound in all.
func uuFiles(text []byte, most int) func(yield func(name string, content []byte) bool) {
	return func(yield func(string, []byte) bool) {
		for at := 0; ; {
			i := bytes.Index(text[at:], []byte("begin"))
			if i < 0 {
				return
			}
			start := at + i
			at = start + len("begin")
			if start > 0 && text[start-1] != '\n' || at >= len(text) || !isSpace(text[at]) {
				continue
			}
			line, rest := cutLine(text[start:])
			mode, name, _ := bytes.Cut(bytes.TrimLeft(line[len("begin"):], " \t"), []byte(" "))
			if len(mode) < 3 || len(mode) > 6 || len(bytes.Trim(mode, "01234567")) > 0 || len(bytes.TrimSpace(name)) == 0 {
				continue
			}
			var content []byte
			for len(rest) > 0 && most > 0 {
				line, rest = cutLine(rest)
				if len(line) == 0 || bytes.Equal(line, []byte("end")) || line[0] == '`' {
					break
				}
				before := len(content)
				content = uuLine(content, line)
				most -= len(content) - before
			}
			if !yield(string(bytes.TrimSpace(name)), content) {
				return
			}
			at = len(text) - len(rest)
		}
	}
}

// yencNames yields the names of the files that stand in a text by yEnc: "=ybegin line=128 size=9 name=a.exe".
func yencNames(text []byte) func(yield func(name string) bool) {
	return func(yield func(string) bool) {
		begin := []byte("=ybegin ")
		for at := 0; ; {
			i := bytes.Index(text[at:], begin)
			if i < 0 {
				return
			}
			start := at + i
			at = start + len(begin)
			line, _ := cutLine(text[start:])
			_, name, ok := bytes.Cut(line, []byte(" name="))
			if (start == 0 || text[start-1] == '\n') && ok && !yield(string(bytes.TrimSpace(name))) {
				return
			}
		}
	}
}

// cutLine returns the first line, without its line break, and the rest.
func cutLine(text []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(text, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), rest
}

// uuLine appends what a line of uuencoded text encodes.
func uuLine(to, line []byte) []byte {
	n := int(line[0]-' ') & 63
	line = line[1:]
	at := func(i int) uint32 {
		if i < len(line) {
			return uint32(line[i]-' ') & 63
		}
		return 0
	}
	for i := 0; n > 0; i += 4 {
		bits := at(i)<<18 | at(i+1)<<12 | at(i+2)<<6 | at(i+3)
		group := [3]byte{byte(bits >> 16), byte(bits >> 8), byte(bits)} //nolint:gosec // octets
		to = append(to, group[:min(n, 3)]...)
		n -= 3
	}
	return to
}
