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

// names collects the names of files in archives, within bounds.
type names struct {
	path    string // of the part
	left    int
	archive int
	found   []string // in the present attachment
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
		if !n.add(name) {
			return
		}
		if fixed == local && flags&1 == 0 && method == 8 && zipInside(name) {
			start := fixed + length + int(binary.LittleEndian.Uint16(header[28:]))
			if start < len(header) && !n.inner(header[start:], depth) {
				return
			}
		}
	}
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
	name = strings.ToLower(name)
	return strings.HasSuffix(name, ".zip") || strings.HasSuffix(name, ".jar")
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

// tnef notes the names of the files in a winmail.dat of Outlook: a signature, a key, and attributes
// of level, id, length, content and checksum.
func (n *names) tnef(content []byte) {
	const attachTitle = 0x00018010
	for at := 6; at+9 <= len(content); {
		id, length := binary.LittleEndian.Uint32(content[at+1:]), int64(binary.LittleEndian.Uint32(content[at+5:]))
		at += 9
		if length > int64(len(content)-at) {
			return
		}
		value := content[at : at+int(length)]
		if id == attachTitle && !n.add(decodeLoosely("", bytes.TrimRight(value, "\x00"))) {
			return
		}
		at += int(length) + 2
	}
}
