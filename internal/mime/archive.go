package mime

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// maxZipDepth bounds zips in zips: some contain themselves.
const maxZipDepth = 4

// names collects attachments with the names of files in archives, within bounds.
type names struct {
	all     []Attachment
	limits  Limits
	depth   int    // files that are messages, around the present one
	path    string // of the part
	left    int
	archive int
	found   []string // in the present attachment
	types   []string // of it, and of files within it
	fault   *Fault
}

func (n *names) fail(detail string) {
	if n.fault == nil {
		n.fault = &Fault{Bounds, n.path, detail}
	}
}

// add notes a name once, and returns false when there are too many.
func (n *names) add(name string) bool {
	if n.left--; n.left < 0 {
		n.fail("more file names in archives than are read")
		return false
	}
	if name != "" && (len(n.found) > 200 || !slices.Contains(n.found, name)) {
		n.found = append(n.found, name)
	}
	return true
}

// zip notes the names of files in a zip. It reads the headers before the files as well as those at
// the end, since programs differ in which they use, and finds them by their signatures, so that a
// zip that is damaged or cut off still has names. Nothing is decompressed but zips in it.
func (n *names) zip(content []byte, depth int) {
	const local, central = 30, 46 // octets before the name
	read := map[int]bool{}        // where zips within it begin that were read
	for at := 0; ; {
		i := bytes.Index(content[at:], []byte("PK"))
		if i < 0 {
			return
		}
		at += i
		header := content[at:]
		at += 2
		var fixed, lengthAt int
		switch {
		case len(header) >= local && header[2] == 3 && header[3] == 4:
			fixed, lengthAt = local, 26
		case len(header) >= central && header[2] == 1 && header[3] == 2:
			fixed, lengthAt = central, 28
		default:
			continue
		}
		length := int(binary.LittleEndian.Uint16(header[lengthAt:]))
		if length == 0 || fixed+length > len(header) {
			continue
		}
		flagsAt := fixed - local + 6
		if fixed == central {
			flagsAt = 8
		}
		flags, method := binary.LittleEndian.Uint16(header[flagsAt:]), binary.LittleEndian.Uint16(header[flagsAt+2:])
		name := zipName(header[fixed:fixed+length], flags&0x800 != 0)
		extra := int(binary.LittleEndian.Uint16(header[lengthAt+2:]))
		other := unicodeName(header[fixed+length : min(len(header), fixed+length+extra)])
		if !n.add(name) || other != "" && !n.add(other) {
			return
		}
		if flags&1 != 0 || !zipInside(name) && !zipInside(other) {
			continue
		}
		start := at - 2 + fixed + length + extra
		if fixed == central { // the header before the file may say something else
			start = n.fileOf(content, header, method)
		}
		if start < 0 || start >= len(content) || read[start] || method == 0 && bytes.HasPrefix(content[start:], []byte("PK")) {
			continue
		}
		read[start] = true
		switch method {
		case 0, 8: // programs go by the other header
			if !n.inner(content[start:], depth) {
				return
			}
		default:
			n.fail("a zip within a zip in a compression that is not read")
			return
		}
	}
}

// fileOf returns where the file begins that a header of the directory of a zip is about; -1 for none.
func (n *names) fileOf(content, header []byte, method uint16) int {
	const local = 30
	if method == 0 {
		return -1 // its headers stand in the outer one
	}
	at := int64(binary.LittleEndian.Uint32(header[42:]))
	if at+local > int64(len(content)) || !bytes.HasPrefix(content[at:], []byte("PK\x03\x04")) {
		return -1 // there is something before the zip: the header before the file says it
	}
	return int(at) + local + int(binary.LittleEndian.Uint16(content[at+26:])) + int(binary.LittleEndian.Uint16(content[at+28:]))
}

// unicodeName returns the name that the extra fields of a file in a zip say is the right one (Info-ZIP
// Unicode Path); "" for none.
func unicodeName(extra []byte) string {
	for len(extra) >= 4 {
		id, length := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		extra = extra[4:]
		if length > len(extra) {
			return ""
		}
		if id == 0x7075 && length > 5 { // version, checksum of the other name
			return strings.ToValidUTF8(string(extra[5:length]), "\uFFFD")
		}
		extra = extra[length:]
	}
	return ""
}

// endsAsZip reports whether there is the end of a zip's directory where programs look for it.
func endsAsZip(content []byte) bool {
	const most = 22 + 0xffff // with its comment
	return bytes.Contains(content[max(0, len(content)-most):], []byte("PK\x05\x06"))
}

// zipName returns a name in UTF-8: ZIP knows code page 437, and UTF-8 with or without its flag.
func zipName(name []byte, isUTF8 bool) string {
	if isUTF8 || utf8.Valid(name) {
		return strings.ToValidUTF8(string(name), "\uFFFD")
	}
	decoded, _ := charmap.CodePage437.NewDecoder().Bytes(name)
	return string(decoded)
}

// zipInside reports whether a program opens a file of that name as a zip.
func zipInside(name string) bool {
	name = strings.ToLower(stored(name))
	return strings.HasSuffix(name, ".zip") || strings.HasSuffix(name, ".jar") || strings.HasSuffix(name, ".zipx")
}

// inner notes the names in a compressed zip within a zip. Stored ones need nothing: their headers
// stand in the outer one.
func (n *names) inner(compressed []byte, depth int) bool {
	if depth+1 >= maxZipDepth {
		n.fail("zips nested too deep")
		return false
	}
	r := flate.NewReader(bytes.NewReader(compressed))
	content, _ := io.ReadAll(io.LimitReader(r, int64(n.archive)+1)) // damaged: as far as it goes
	if n.archive -= len(content); n.archive < 0 {
		n.fail("a zip within a zip that is too large")
		return false
	}
	n.zip(content, depth+1)
	return n.fault == nil
}

// maxTNEF bounds messages of Outlook within messages of Outlook.
const maxTNEF = 5

// tnef notes the names of the files in a winmail.dat of Outlook, and those within the files: a
// signature, a key, and attributes of level, id, length, content and checksum ([MS-OXTNEF]).
func (n *names) tnef(content []byte, depth int) {
	const attachTitle, attachData, attachment, messageProps = 0x00018010, 0x0006800f, 0x00069005, 0x00069003
	for at := 6; at+9 <= len(content); {
		id, length := binary.LittleEndian.Uint32(content[at+1:]), int64(binary.LittleEndian.Uint32(content[at+5:]))
		at += 9
		value := content[at:]
		if length <= int64(len(value)) { // else it is cut off
			value = value[:length]
		}
		ok := true
		switch id {
		case attachTitle:
			ok = n.add(decodeLoosely("", bytes.TrimRight(value, "\x00")))
		case attachData:
			if sniff(value) != "application/vnd.ms-tnef" {
				n.file(value)
			}
		case attachment, messageProps:
			ok = n.properties(value, depth)
		}
		if !ok || !n.goesOn() || length > int64(len(content)-at) {
			return
		}
		at += int(length) + 2
	}
}

// properties notes the names among MAPI properties, and those of a message among them. Each is of a
// type, an id and a value: one of a fixed size, or a number of values with their lengths. All are
// padded to four octets.
func (n *names) properties(p []byte, depth int) bool {
	const object, text, wideText, binaryType, several = 0x0d, 0x1e, 0x1f, 0x102, 0x1000
	const displayName, shortName, longName, wholePath, data = 0x3001, 0x3704, 0x3707, 0x3708, 0x3701
	ok := true
	take := func(size int64) (b []byte) {
		if ok = ok && size >= 0 && size <= int64(len(p)); ok {
			b, p = p[:size], p[size:]
			p = p[min(int64(len(p)), -size&3):]
		}
		return b
	}
	number := func() int64 {
		if b := take(4); ok {
			return int64(binary.LittleEndian.Uint32(b))
		}
		return 0
	}
	for count := number(); count > 0 && ok; count-- {
		tag := number()
		kind, id := tag&0xffff, tag>>16
		if id >= 0x8000 { // it has a name: a GUID, and a number or a text
			take(16)
			if byText := number() == 1; byText {
				take(number())
			} else {
				take(4)
			}
		}
		base, values := kind&^several, int64(1)
		variable := base == object || base == text || base == wideText || base == binaryType
		if variable || kind&several != 0 {
			values = number()
		}
		for ; values > 0 && ok; values-- {
			if !variable {
				take(fixedSize(base))
				continue
			}
			value := take(number())
			switch {
			case !ok:
			case id == displayName || id == shortName || id == longName || id == wholePath:
				if !n.add(mapiText(value, base == wideText)) {
					return false
				}
			case id == data:
				n.data(value, depth)
			}
		}
	}
	return true
}

// fixedSize returns the size of a MAPI property's value.
func fixedSize(kind int64) int64 {
	switch kind {
	case 0x05, 0x06, 0x07, 0x14, 0x40:
		return 8
	case 0x48:
		return 16
	}
	return 4
}

// mapiText returns a text that ends in NUL.
func mapiText(value []byte, wide bool) string {
	if !wide {
		return decodeLoosely("", bytes.TrimRight(value, "\x00"))
	}
	return strings.TrimRight(decodeLoosely("utf-16le", value), "\x00")
}

// data notes the names in the content of an attachment: a file, or behind the id of an interface a
// message.
func (n *names) data(value []byte, depth int) {
	const identifier = 16
	if len(value) > identifier && sniff(value[identifier:]) == "application/vnd.ms-tnef" {
		value = value[identifier:]
	}
	switch {
	case sniff(value) != "application/vnd.ms-tnef":
		n.file(value)
	case depth+1 >= maxTNEF:
		n.fail("messages nested too deep")
	default:
		n.tnef(value, depth+1)
	}
}
