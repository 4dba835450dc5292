package mime

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

// disposed returns a message with an attachment whose Content-Disposition continues so.
func disposed(rest string) []byte {
	return message("multipart/mixed; boundary=x", "--x\n\nSee there.\n--x\nContent-Type: application/octet-stream\nContent-Disposition: attachment"+rest+"\n\ny\n--x--\n")
}

// typed returns a message with an attachment whose Content-Type is so, with a body and its encoding.
func typed(contentType string, content []byte) []byte {
	return message("multipart/mixed; boundary=x", "--x\nContent-Type: "+contentType+"\nContent-Transfer-Encoding: base64\n\n"+base64.StdEncoding.EncodeToString(content)+"\n--x--\n")
}

// entry is a file in a zip whose headers say whatever they are told.
type entry struct {
	local, central           string
	localMethod, method      uint16
	content, unicodeNameFrom []byte
}

// rawZip writes a zip by hand, behind what is before it.
func rawZip(before string, entries ...entry) []byte {
	var b, directory bytes.Buffer
	b.WriteString(before)
	put := func(w *bytes.Buffer, values ...any) {
		for _, v := range values {
			_ = binary.Write(w, binary.LittleEndian, v)
		}
	}
	for _, e := range entries {
		var extra bytes.Buffer
		if e.unicodeNameFrom != nil {
			put(&extra, uint16(0x7075), uint16(5+len(e.unicodeNameFrom)), uint8(1), crc32.ChecksumIEEE([]byte(e.local)), e.unicodeNameFrom)
		}
		at, size := uint32(b.Len()-len(before)), uint32(len(e.content))
		b.WriteString("PK\x03\x04")
		put(&b, uint16(20), uint16(0), e.localMethod, uint32(0), crc32.ChecksumIEEE(e.content), size, size, uint16(len(e.local)), uint16(extra.Len()), []byte(e.local), extra.Bytes(), e.content)
		directory.WriteString("PK\x01\x02")
		put(&directory, uint16(20), uint16(20), uint16(0), e.method, uint32(0), crc32.ChecksumIEEE(e.content), size, size, uint16(len(e.central)), uint16(extra.Len()),
			uint16(0), uint16(0), uint16(0), uint32(0), at, []byte(e.central), extra.Bytes())
	}
	start := b.Len()
	b.Write(directory.Bytes())
	b.WriteString("PK\x05\x06")
	put(&b, uint16(0), uint16(0), uint16(len(entries)), uint16(len(entries)), uint32(directory.Len()), uint32(start), uint16(0))
	return b.Bytes()
}

func deflated(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err == nil {
		_, _ = w.Write(content)
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// attribute is one of TNEF's.
func attribute(id uint32, content []byte) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{2}, id)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(content)))
	return append(append(b, content...), 0, 0)
}

func tnefOf(attributes ...[]byte) []byte {
	return append([]byte("\x78\x9f\x3e\x22\x01\x00"), bytes.Join(attributes, nil)...)
}

// mapi returns MAPI properties: a number and a named one, and then one of that tag.
func mapi(tag uint32, value []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 3)
	b = append(b, "\x03\x00\x05\x37\x01\x00\x00\x00"...)                                                                         // how it is attached
	b = append(append(b, "\x1f\x00\x01\x80"+"0123456789abcdef"+"\x01\x00\x00\x00\x06\x00\x00\x00a\x00b\x00\x00\x00\x00\x00"...), // named by a text
		"\x01\x00\x00\x00\x02\x00\x00\x00x\x00\x00\x00"...)
	b = binary.LittleEndian.AppendUint32(b, tag)
	b = binary.LittleEndian.AppendUint32(b, 1)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(value)))
	return append(append(b, value...), make([]byte, -len(value)&3)...)
}

func wideText(text string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(text + "\x00")) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// Whoever wants to pass a rule about "*.exe" does not pass it by writing the name so that programs read
// it otherwise: some name ends in .exe, or the message is one that cannot be read.
func TestHiddenNames(t *testing.T) {
	const exe = "evil.exe"
	inner := zipped(t, exe, []byte("MZ"))
	long := tnefOf(attribute(0x00069005, mapi(0x3707001f, wideText(exe))))
	embedded := append([]byte("0123456789abcdef"), tnefOf(attribute(0x00069005, mapi(0x3707001f, wideText(exe))))...)
	for name, m := range map[string][]byte{
		"plain":                        disposed(`; filename="evil.exe"`),
		"name beside filename":         message("multipart/mixed; boundary=x", "--x\nContent-Type: text/plain; name=evil.exe\nContent-Disposition: attachment; filename=a.txt\n\ny\n--x--\n"),
		"filename beside name":         message("multipart/mixed; boundary=x", "--x\nContent-Type: text/plain; name=a.txt\nContent-Disposition: attachment; filename=evil.exe\n\ny\n--x--\n"),
		"two filenames":                disposed(`; filename=a.txt; filename=evil.exe`),
		"two dispositions":             disposed("; filename=a.txt\nContent-Disposition: attachment; filename=evil.exe"),
		"filename*":                    disposed(`; filename=a.txt; filename*=utf-8''evil%2Eex%65`),
		"parts":                        disposed(`; filename*0=ev; filename*1=il.e; filename*2=xe`),
		"parts, encoded":               disposed(`; filename*1*=%65xe; filename*0*=utf-8''evil%2E`),
		"parts beside a whole":         disposed(`; filename*0="evil."; filename*=utf-8''a; filename*1="exe"`),
		"parts, one of them twice":     disposed(`; filename*0="evil."; filename*1="exe"; filename*1="txt"`),
		"parts, one twice, the last":   disposed(`; filename*0="evil."; filename*1="txt"; filename*1="exe"`),
		"parts with a gap":             disposed(`; filename*0=evil.exe; filename*2=.txt`),
		"parts without the first":      disposed(`; filename*1=evil.exe`),
		"encoded words":                disposed(`; filename="=?utf-8?Q?evil.e?= =?utf-8?B?eGU=?="`),
		"encoded word in parts":        disposed(`; filename*0="=?utf-8?Q?evil.e"; filename*1="xe?="`),
		"word in an unknown charset":   disposed(`; filename="=?x-klingon?Q?evil=2Eex=65?="`),
		"word in UTF-7":                disposed(`; filename="=?utf-7?Q?evil.+AGUAeABl-?="`),
		"parameter in UTF-7":           disposed(`; filename*=utf-7''evil.+AGUAeABl-`),
		"folded":                       disposed(";\n filename=evil.exe"),
		"folded by a bare CR":          disposed(";\r filename=evil.exe"),
		"vertical tab":                 disposed(";\vfilename=evil.exe"),
		"space around":                 disposed(` ; filename = evil.exe`),
		"capitals":                     disposed(`; FILENAME=EVIL.EXE`),
		"no quote at the end":          disposed(`; filename="evil.exe; x=y`),
		"quotes within":                disposed(`; filename="evil".exe`),
		"single quotes":                disposed(`; filename='evil.exe'`),
		"escaped":                      disposed(`; filename="evil.\e\x\e"`),
		"spaces without quotes":        disposed(`; filename=evil.exe a.txt`),
		"comment":                      disposed(`; filename=evil.exe(.txt)`),
		"comment before":               disposed(`; (x) filename=(y)evil.exe`),
		"no semicolon":                 disposed(` filename=evil.exe`),
		"no semicolon between":         disposed(`; size="1" filename="evil.exe"`),
		"dot":                          disposed(`; filename="evil.exe."`),
		"dots and spaces":              disposed(`; filename="evil.exe . ."`),
		"no-break space":               disposed(`; filename="evil.exe` + "\u00a0" + `"`),
		"NUL":                          disposed(`; filename*=utf-8''evil.exe%00.txt`),
		"NUL in a word":                disposed(`; filename="=?utf-8?Q?evil.exe=00.txt?="`),
		"line break in a word":         disposed(`; filename="=?utf-8?Q?evil.exe=0A.txt?="`),
		"stream":                       disposed(`; filename="evil.exe::$DATA"`),
		"stream in a path":             disposed(`; filename="C:\temp\evil.exe:a.txt"`),
		"path":                         disposed(`; filename="../a.txt/evil.exe"`),
		"text runs from the right":     disposed(`; filename="=?utf-8?Q?evil=E2=80=AEtxt.exe?="`),
		"invisible":                    disposed(`; filename="=?utf-8?Q?evil.e=E2=80=8Bxe=E2=80=8F?="`),
		"wide letters":                 disposed(`; filename="=?utf-8?B?` + base64.StdEncoding.EncodeToString([]byte("evil．ｅｘｅ")) + `?="`),
		"one-dot leader":               disposed(`; filename*=utf-8''evil%E2%80%A4exe`),
		"description alone":            disposed("\nContent-Description: evil.exe"),
		"location alone":               disposed("\nContent-Location: evil.exe"),
		"message within the message":   message("multipart/mixed; boundary=a", "--a\nContent-Type: message/rfc822\n\n"+strings.ReplaceAll(string(disposed("; filename=evil.exe")), "\r", "")+"\n--a--\n"),
		"encoded message within":       typed("message/rfc822", disposed("; filename=evil.exe")),
		"message as a file":            typed("application/octet-stream; name=note.eml", disposed("; filename=evil.exe")),
		"message as a text file":       typed(`text/plain; name="note.eml."`, disposed("; filename=evil.exe")),
		"messages as files in another": typed("application/octet-stream; name=a.eml", typed("application/x; name=b.EML", disposed("; filename=evil.exe"))),
		"uuencode":                     message("text/plain", "begin 644 evil.exe\n#0V%T\n`\nend\n"),
		"uuencode, with more spaces":   message("text/plain", "begin  0644  evil.exe\n#0V%T\n`\nend\n"),
		"yEnc":                         message("text/plain", "=ybegin line=128 size=2 name=evil.exe\nxx\n=yend size=2\n"),
		"zip":                          typed("application/zip; name=a.zip", inner),
		"zip of another type":          typed("image/png; name=a.png", inner),
		"zip behind something":         typed("application/octet-stream; name=a.dat", append([]byte("GIF89a"), inner...)),
		"zip in zip":                   typed("application/zip", zipped(t, "b.zip", inner)),
		"zip with a dot in zip":        typed("application/zip", zipped(t, "b.zip.", inner)),
		"stored zip in zip":            typed("application/zip", rawZip("", entry{local: "b.dat", central: "b.dat", content: inner})),
		"zip, name before the file":    typed("application/zip", rawZip("", entry{local: exe, central: "a.txt"})),
		"zip, name in the directory":   typed("application/zip", rawZip("", entry{local: "a.txt", central: exe})),
		"zip, Unicode name":            typed("application/zip", rawZip("", entry{local: "a.txt", central: "a.txt", unicodeNameFrom: []byte(exe)})),
		"zip, name with a dot":         typed("application/zip", rawZip("", entry{local: "evil.exe.", central: "evil.exe. "})),
		"zip in zip, two names":        typed("application/zip", rawZip("", entry{local: "b.txt", central: "b.zip", localMethod: 8, method: 8, content: deflated(t, inner)})),
		"zip in zip, said to be whole": typed("application/zip", rawZip("", entry{local: "b.zip", central: "b.zip", localMethod: 0, method: 8, content: deflated(t, inner)})),
		"zip in zip by Deflate64":      typed("application/zip", rawZip("", entry{local: "b.zip", central: "b.zip", localMethod: 9, method: 9, content: []byte("x")})),
		"winmail.dat":                  typed("application/ms-tnef; name=winmail.dat", tnefOf(attribute(0x00018010, []byte("evil.exe\x00")))),
		"winmail.dat, long name":       typed("application/ms-tnef", tnefOf(attribute(0x00018010, []byte("a.txt\x00")), attribute(0x00069005, mapi(0x3707001f, wideText(exe))))),
		"winmail.dat, old long name":   typed("application/ms-tnef", tnefOf(attribute(0x00069005, mapi(0x3707001e, []byte("evil.exe\x00"))))),
		"winmail.dat, zip in it":       typed("application/ms-tnef", tnefOf(attribute(0x00018010, []byte("a.zip\x00")), attribute(0x0006800f, inner))),
		"winmail.dat, message in it":   typed("application/ms-tnef", tnefOf(attribute(0x00069005, mapi(0x3701000d, embedded)))),
		"winmail.dat, cut off":         typed("application/ms-tnef", long[:len(long)-4]),
	} {
		parsed, fault := Parse(m, Limits{})
		files, unread := parsed.Attachments()
		found := slices.ContainsFunc(files, func(a Attachment) bool {
			return slices.ContainsFunc(a.Names, func(n string) bool { return strings.HasSuffix(strings.ToLower(n), ".exe") })
		})
		if !found && fault == nil && unread == nil {
			t.Errorf("%s: %+v", name, files)
		}
	}
}

// What is not what it is declared to be has both types, also within winmail.dat.
func TestHiddenTypes(t *testing.T) {
	const program = "application/x-msdownload"
	for name, m := range map[string][]byte{
		"picture":               typed("image/png; name=a.png", []byte("MZ\x90")),
		"text":                  typed("text/plain; name=a.txt", []byte("MZ\x90")),
		"winmail.dat":           typed("application/ms-tnef", tnefOf(attribute(0x0006800f, []byte("MZ\x90")))),
		"winmail.dat, property": typed("application/ms-tnef", tnefOf(attribute(0x00069005, mapi(0x37010102, []byte("MZ\x90"))))),
	} {
		parsed, _ := Parse(m, Limits{})
		files, err := parsed.Attachments()
		if !slices.ContainsFunc(files, func(a Attachment) bool { return slices.Contains(a.Types, program) }) || err != nil {
			t.Errorf("%s: %+v, %v", name, files, err)
		}
	}
}

// Names that programs write every day are read as they are, without a fault and without others.
func TestUsualNames(t *testing.T) {
	for rest, want := range map[string][]string{
		`; filename="Quarterly report (1).pdf"`:                                               {"Quarterly report (1).pdf"},
		`; filename="a.pdf"; size=17; creation-date="Mon, 01 Jan 2024 00:00:00 GMT"`:          {"a.pdf"},
		`; filename="=?utf-8?B?w7xiZXI=?=.pdf"; filename*=utf-8''%C3%BCber.pdf`:               {"über.pdf"},
		";\n filename*0*=utf-8''%E6%8A%A5;\n filename*1*=%E5%91%8A;\n filename*2=\".docx\"":   {"报告.docx"},
		";\n filename*0=\"a very long name that was \";\n filename*1=\"divided.txt\"":         {"a very long name that was divided.txt"},
		`; filename="=?iso-2022-jp?B?GyRCP3Q7ehsoQi5wZGY=?="`:                                 {"数字.pdf"},
		`; filename="archive.tar.gz" (comment)`:                                               {"archive.tar.gz"},
		`; filename="C:\Users\pat\figures.xlsx"`:                                              {`C:\Users\pat\figures.xlsx`, `C:Userspatfigures.xlsx`}, // as RFC 822 has it
		`; filename="say \"hello\".txt"`:                                                      {`say "hello".txt`},
		`; filename="Grüße – €.pdf"`:                                                          {"Grüße – €.pdf"},
		`; filename=plain.txt`:                                                                {"plain.txt"},
		"; filename=a.txt\nContent-Description: Minutes\nContent-Location: http://x.example/": {"a.txt"},
	} {
		parsed, fault := Parse(disposed(rest), Limits{})
		files, unread := parsed.Attachments()
		if len(files) != 1 || !slices.Equal(files[0].Names, want) || fault != nil || unread != nil {
			t.Errorf("%s: %+v, %v, %v", rest, files, fault, unread)
		}
	}
}

// A zip of documents, which are zips themselves, is read without decompressing them.
func TestZipOfDocuments(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	document := zipped(t, "word/document.xml", bytes.Repeat([]byte("x"), 1<<20))
	for _, name := range []string{"a.docx", "b.xlsx"} {
		w, err := z.Create(name)
		if err == nil {
			_, err = io.Copy(w, bytes.NewReader(document))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	parsed, _ := Parse(typed("application/zip; name=all.zip", b.Bytes()), Limits{})
	if files, err := parsed.Attachments(); err != nil || len(files) != 1 || !slices.Equal(files[0].Names, []string{"all.zip", "a.docx", "b.xlsx"}) {
		t.Errorf("%+v, %v", files, err)
	}
}
