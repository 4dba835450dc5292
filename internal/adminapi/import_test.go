package adminapi_test

import (
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf16"
)

// utf16Text is what spreadsheets save as "Unicode text".
func utf16Text(order binary.AppendByteOrder, text string) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}

// Spreadsheets separate cells by semicolons or tabs, end lines with separators and write UTF-16.
func TestImportOfSpreadsheets(t *testing.T) {
	for name, file := range map[string]string{
		"semicolons":          "address;imap;departments\r\nann@example.org;off;\"sales;board\"\r\n",
		"tabs":                "address\timap\tdepartments\nann@example.org\toff\tsales;board\n",
		"an empty first tab":  "imap\taddress\n\tann@example.org\n",
		"trailing separators": "address,imap,,\nann@example.org,off,,\n\nbob@example.org,,\n",
		"UTF-16":              utf16Text(binary.LittleEndian, "address\timap\r\nann@example.org\toff\r\n"),
		"UTF-16, big endian":  utf16Text(binary.BigEndian, "address;imap\r\nann@example.org;off\r\n"),
		"carriage returns":    "address,imap\rann@example.org,off\r",
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t, true).site()
			d.csv(dom+"/accounts/import", file).want(200)
			if name == "an empty first tab" {
				return
			}
			d.admin.get("/v1/accounts/ann@example.org").want(200).has("protocols.imap", `false`)
		})
	}
}

// A file that cannot be read is named for what it is, with the line where the fault begins.
func TestImportFaultsOfSpreadsheets(t *testing.T) {
	d := start(t, true).site()
	for file, want := range map[string]string{
		utf16Text(binary.LittleEndian, "address,imap\n") + "x": `"line":1`,
		"a\x00d\x00d\x00":                                                  "UTF-16",
		"\n\naddress,imapp\n":                                              `"line":3`,
		"address,imap\nann@example.org,maybe\n":                            `"line":2`,
		"address,imap\n\n\nann@example.org,maybe\n":                        `"line":4`,
		"address,imap\nann@example.org,on\n\"bob@example.org,on\nx,y\nz\n": `"line":3`,
		"address,imap\nann@example.org,on,off\n":                           "has 3 cells, the header has 2",
	} {
		if got := string(d.csv(dom+"/accounts/import", file).want(422, "invalid").body); !strings.Contains(got, want) {
			t.Errorf("%q lacks %s:\n%s", file, want, got)
		}
	}
}
