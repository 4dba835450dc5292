package mime

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

// large returns a multipart with text, HTML and an attachment, of about 5 MB.
func large() []byte {
	var b bytes.Buffer
	b.WriteString("From: pat@partner.example\r\nSubject: x\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n" +
		"--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n" +
		"--a\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello\r\n" +
		"--a\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	b.Write(encodeBase64([]byte("<html><body>"+strings.Repeat("<p>Hello</p>\r\n", 1000)+"</body></html>"), "\r\n"))
	b.WriteString("--a--\r\n--m\r\nContent-Type: application/pdf; name=x.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	line := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1, 2, 3}, 19)) + "\r\n"
	b.WriteString(strings.Repeat(line, 5<<20/len(line)))
	b.WriteString("--m--\r\n")
	return b.Bytes()
}

// BenchmarkRead is what BenchmarkBanner is compared with: the pieces of a message, as a milter gets
// them, put together and read once.
func BenchmarkRead(b *testing.B) {
	message := large()
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	lines := 0
	for b.Loop() {
		body := gather(message)
		lines += bytes.Count(body, []byte("\n"))
	}
}

// BenchmarkBanner parses and changes a message of 5 MB, and reads the result once.
func BenchmarkBanner(b *testing.B) {
	message := large()
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	lines := 0
	for b.Loop() {
		body := gather(message)
		m, err := Parse(body, Limits{})
		if err != nil {
			b.Fatal(err)
		}
		changes, err := m.Banner("This message is from outside.")
		if err != nil || len(changes.Body) != 2 {
			b.Fatal(err, changes)
		}
		for piece := range changes.Pieces(body, m.BodyStart()) {
			lines += bytes.Count(piece, []byte("\n"))
		}
	}
}

// gather puts the chunks of a body together.
func gather(message []byte) []byte {
	const chunk = 65535
	var chunks [][]byte
	for rest := message; len(rest) > 0; {
		n := min(chunk, len(rest))
		chunks = append(chunks, bytes.Clone(rest[:n]))
		rest = rest[n:]
	}
	return bytes.Join(chunks, nil)
}

func BenchmarkAttachments(b *testing.B) {
	m, err := Parse(large(), Limits{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(m.Root.src)))
	for b.Loop() {
		if _, err := m.Attachments(); err != nil {
			b.Fatal(err)
		}
	}
}
