package mime

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// message returns a message of a type with a body, with CRLF.
func message(contentType, body string) []byte {
	return []byte(strings.ReplaceAll("From: pat@partner.example\nContent-Type: "+contentType+"\n\n"+body, "\n", "\r\n"))
}

// zipped returns a zip of one file.
func zipped(t testing.TB, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(name)
	if err == nil {
		_, err = w.Write(content)
	}
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func attached(content []byte) string {
	return "--x\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString(content) + "\n--x--\n"
}

// Whatever exceeds a bound is a fault that says so, and takes bounded work.
func TestBounds(t *testing.T) {
	nested := ""
	for i := range 40 {
		nested += fmt.Sprintf("--b%d\nContent-Type: multipart/mixed; boundary=b%d\n\n", i, i+1)
	}
	bomb := zipped(t, "a.zip", bytes.Repeat([]byte{0}, 100<<20))
	droste := []byte("x")
	for range 6 {
		droste = zipped(t, "inner.zip", droste)
	}
	var many bytes.Buffer
	z := zip.NewWriter(&many)
	for i := range 500 {
		if _, err := z.Create(fmt.Sprint("file", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		message []byte
		want    string
	}{
		"depth":      {message("multipart/mixed; boundary=b0", nested), "bounds message: part 1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1: parts nested more than 30 deep"},
		"messages":   {message("message/rfc822", strings.Repeat("Content-Type: message/rfc822\n\n", 100)), "bounds message: part 1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1: messages nested too deep, or too many parts"},
		"parts":      {message("multipart/mixed; boundary=x", strings.Repeat("--x\n\ny\n", 3000)+"--x--\n"), "bounds message: more than 2000 parts"},
		"header":     {message("multipart/mixed; boundary=x", "--x\n"+strings.Repeat("X: y\n", 300_000)+"\n--x--\n"), "bounds message: part 1: a header of more than 1048576 octets"},
		"parameters": {message("text/plain"+strings.Repeat("; a=b", 2000), "x"), "bounds message: a header field of more than 500 parameters"},
		"text":       {message("text/plain", strings.Repeat("x", 17<<20)), "bounds message: more text than is read"},
		"zip bomb":   {message("multipart/mixed; boundary=x", attached(bomb)), "bounds message: part 1: a zip within a zip that is too large"},
		"droste":     {message("multipart/mixed; boundary=x", attached(droste)), "bounds message: part 1: zips nested too deep"},
		"names":      {message("multipart/mixed; boundary=x", strings.Repeat(strings.TrimSuffix(attached(many.Bytes()), "--x--\n"), 21)+"--x--\n"), "bounds message: part 21: more file names in archives than are read"},
	} {
		m, err := Parse(c.message, Limits{})
		if err == nil {
			_, err = m.Texts()
		}
		if err == nil {
			_, err = m.Attachments()
		}
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: %v", name, err)
		}
		var fault *Fault
		if !errors.As(err, &fault) {
			t.Errorf("%s: an error of another type: %T", name, err)
		}
	}
}

// Texts that take superlinear time in careless programs.
func TestHostileTexts(t *testing.T) {
	for _, piece := range []string{" ", "=", "<", "<!--", "(", "\"", "&", "PK\x03\x04", "begin 644 x\n", "=?a?q?x", "--", "\n--x", "a=b;"} {
		text := strings.Repeat(piece, 1<<20/len(piece))
		for _, m := range [][]byte{
			message("text/html", text), message("text/plain", text), message("multipart/mixed; boundary=x", "--x\n"+text+"\n--x--"),
			message("application/zip", text), message("text/plain; name="+text[:100_000], text),
			message("text/plain\nContent-Transfer-Encoding: quoted-printable", text),
		} {
			parsed, _ := Parse(m, Limits{})
			_, _ = parsed.Texts()
			_, _ = parsed.Attachments()
			_, _ = parsed.Banner("x")
		}
	}
}
