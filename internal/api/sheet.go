package api

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// Sheet returns a table that a spreadsheet has saved (RFC 4180) as UTF-8 with line feeds, and the
// separator of its cells: a comma, or else a semicolon or a tab, as spreadsheets of many languages
// write. UTF-16 needs its byte order mark; other encodings are refused with what to do.
func Sheet(raw []byte) (text []byte, separator rune, err error) {
	big := bytes.HasPrefix(raw, []byte("\xfe\xff"))
	switch {
	case big || bytes.HasPrefix(raw, []byte("\xff\xfe")):
		if len(raw)%2 != 0 {
			return nil, 0, errors.New("the file is UTF-16 and ends within a character: save it again, as UTF-8")
		}
		order := binary.ByteOrder(binary.LittleEndian)
		if big {
			order = binary.BigEndian
		}
		units := make([]uint16, 0, len(raw)/2)
		for pair := range slices.Chunk(raw[2:], 2) {
			units = append(units, order.Uint16(pair))
		}
		raw = []byte(string(utf16.Decode(units)))
	case bytes.IndexByte(raw, 0) >= 0:
		return nil, 0, errors.New("the file has NUL bytes, as UTF-16 without its mark has: save it as UTF-8")
	case !utf8.Valid(raw):
		return nil, 0, errors.New("the file is not valid UTF-8: save it in that encoding")
	}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	if bytes.IndexByte(raw, '\n') < 0 { // old spreadsheets end lines with a carriage return alone
		raw = bytes.ReplaceAll(raw, []byte("\r"), []byte("\n"))
	}
	header, _, _ := bytes.Cut(bytes.TrimLeft(raw, "\r\n"), []byte("\n"))
	for _, c := range ",;\t" {
		if bytes.ContainsRune(header, c) {
			return raw, c, nil
		}
	}
	return raw, ',', nil
}
