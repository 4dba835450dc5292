package mime

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/unicode"
)

// charsetOf returns the encoding of a charset; nil if it is unknown. As browsers do, it reads
// windows-1252 where a subset of it is declared, and GB18030 for GB2312.
func charsetOf(name string) encoding.Encoding {
	name = strings.ToLower(strings.Trim(name, " '\""))
	switch name {
	case "", "us-ascii", "ascii", "default", "unknown-8bit", "8bit", "x-unknown", "utf8", "utf-8", "unicode-1-1-utf-8":
		return unicode.UTF8
	case "gb2312", "gbk", "gb_2312-80", "x-gbk", "cp936", "ms936", "windows-936":
		name = "gb18030"
	case "cp932", "ms932", "windows-31j", "x-sjis":
		name = "shift_jis"
	case "cp949", "ms949", "ks_c_5601-1987", "ks_c_5601", "uhc", "windows-949":
		name = "euc-kr"
	case "big5-hkscs", "cp950", "x-big5", "big5_tw", "big5-tw":
		name = "big5"
	case "iso-2022-jp-1", "iso-2022-jp-2", "iso-2022-jp-3", "iso-2022-jp-ms", "cp50220", "cp50221":
		name = "iso-2022-jp"
	case "cp437", "ibm437":
		return charmap.CodePage437
	case "cp850", "ibm850":
		return charmap.CodePage850
	}
	if hidesASCII(name) {
		return nil
	}
	if digits, ok := strings.CutPrefix(name, "cp125"); ok {
		name = "windows-125" + digits
	}
	if e, err := htmlindex.Get(name); err == nil && e != encoding.Replacement {
		return e
	}
	if e, err := ianaindex.MIME.Encoding(name); err == nil && e != nil && e != encoding.Replacement {
		return e
	}
	return nil
}

// hidesASCII reports whether a charset is one that is not read here, and in which octets of ASCII stand
// for other characters of ASCII.
func hidesASCII(name string) bool {
	switch strings.ToLower(strings.Trim(name, " '\"")) {
	case "utf-7", "utf7", "unicode-1-1-utf-7", "csunicode11utf7", "x-unicode-2-0-utf-7", "utf-7-imap", "iso-2022-kr", "csiso2022kr", "iso-2022-cn", "iso-2022-cn-ext":
		return true
	}
	return false
}

// decodeCharset returns text in UTF-8. It returns false if the charset is unknown. Octets that mean
// nothing in the charset become U+FFFD; 8-bit text that declares ASCII, or is not the UTF-8 that it
// declares, is read as what it most likely is.
func decodeCharset(name string, text []byte) (string, bool) {
	e := charsetOf(name)
	if e == nil {
		return "", false
	}
	if e == unicode.UTF8 {
		text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
		if utf8.Valid(text) {
			return string(text), true
		}
		if e = charmap.Windows1252; strings.HasPrefix(name, "utf") {
			return strings.ToValidUTF8(string(text), "\uFFFD"), true
		}
	}
	decoded, err := e.NewDecoder().Bytes(text)
	if err != nil {
		return "", false
	}
	return string(decoded), true
}

// decodeLoosely returns text in UTF-8 by its charset, or if that is unknown by what it looks like.
func decodeLoosely(charset string, text []byte) string {
	if decoded, ok := decodeCharset(charset, text); ok {
		return decoded
	}
	decoded, _ := decodeCharset("", text)
	return decoded
}

// encodeCharset returns text in a charset, and false if the charset lacks one of its characters.
func encodeCharset(e encoding.Encoding, text string) ([]byte, bool) {
	encoded, err := e.NewEncoder().Bytes([]byte(text))
	if err != nil {
		return nil, false
	}
	return encoded, true
}

func isASCII(text []byte) bool {
	for _, c := range text {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// shifts reports whether octets of ASCII stand for other characters in some places of a text.
func shifts(charset string) bool {
	return strings.HasPrefix(charset, "iso-2022-") || strings.HasPrefix(charset, "cp5022") || strings.HasPrefix(charset, "hz")
}

// wide reports whether a charset encodes ASCII in other octets than ASCII's.
func wide(charset string) bool {
	for _, prefix := range []string{"utf-16", "utf-32", "ucs-", "iso-10646", "unicode"} {
		if strings.HasPrefix(charset, prefix) && charset != "unicode-1-1-utf-8" {
			return true
		}
	}
	return strings.Contains(charset, "ebcdic") || strings.HasPrefix(charset, "ibm0") || strings.HasPrefix(charset, "cp037")
}
