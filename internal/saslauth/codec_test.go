package saslauth

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// Whatever comes in whatever pieces, the same lines are read.
func TestLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	text := "one\n\n" + long + "\ntwo\nhalf"
	for name, chop := range map[string]func(io.Reader) io.Reader{
		"whole":     func(r io.Reader) io.Reader { return r },
		"one octet": iotest.OneByteReader,
		"halves":    iotest.HalfReader,
		"last":      iotest.DataErrReader,
	} {
		r := newLineReader(chop(strings.NewReader(text)))
		for _, want := range []string{"one", "", long, "two"} {
			if line, err := r.Read(); err != nil || string(line) != want {
				t.Fatalf("%s: %d octets, %v, want %d", name, len(line), err, len(want))
			}
		}
		if _, err := r.Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: half a line ends with %v", name, err)
		}
		if len(r.buf) != firstBuffer {
			t.Errorf("%s: the buffer stays at %d octets", name, len(r.buf))
		}
	}
	if _, err := newLineReader(strings.NewReader(long + "x\n")).Read(); !errors.Is(err, errMalformed) {
		t.Errorf("a line that is too long: %v", err)
	}
	if _, err := newLineReader(strings.NewReader("")).Read(); !errors.Is(err, io.EOF) {
		t.Errorf("nothing: %v", err)
	}
}

// A line is wiped once the next one is read, in whatever memory it was.
func TestLinesAreWiped(t *testing.T) {
	secret := strings.Repeat("secret", 600) // longer than the first buffer
	r := newLineReader(iotest.HalfReader(strings.NewReader(secret + "\nnext\n")))
	line, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(line, []byte("secret")) || bytes.Contains(r.buf, []byte("secret")) {
		t.Error("a line outlives the next one")
	}
	r.Wipe()
	if bytes.Contains(r.buf, []byte("next")) {
		t.Error("Wipe leaves a line")
	}
}

func TestUnescape(t *testing.T) {
	for _, s := range []string{"", "plain", "a\tb\r\nc\x00d\x01e"} {
		if got := unescape([]byte(escape(s))); got != s {
			t.Errorf("%q becomes %q", s, got)
		}
	}
	if got := unescape([]byte("a\x01")); got != "a\x01" {
		t.Errorf("%q", got)
	}
}

func seeds(f *testing.F, who string) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		script, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(script)) {
			if text, ok := strings.CutPrefix(strings.TrimSpace(line), who); ok {
				f.Add([]byte(strings.ReplaceAll(text, "|", "\t")))
			}
		}
	}
}

// What is read of a client's line says the same when it is passed on.
func FuzzRequest(f *testing.F) {
	seeds(f, "C> ")
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.IndexByte(line, '\n') >= 0 {
			return
		}
		req, err := parseRequest(line)
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Errorf("%q: %v", line, err)
			}
			return
		}
		if req.verb != "AUTH" {
			return
		}
		req.auth.login.Session = "S"
		passed := appendAuth(nil, req.id, &req.auth)
		again, err := parseRequest(bytes.TrimSuffix(passed, []byte("\n")))
		if err != nil || bytes.Count(passed, []byte("\n")) != 1 {
			t.Fatalf("%q is passed on as %q: %v", line, passed, err)
		}
		a, b := req.auth, again.auth
		if a.mechanism != b.mechanism || a.hasFirst != b.hasFirst || !bytes.Equal(a.initial, b.initial) || !bytes.Equal(a.passed, b.passed) ||
			a.login.IP != b.login.IP || a.login.TLS != b.login.TLS || a.login.Service != b.login.Service || a.login.ClientCert != b.login.ClientCert {
			t.Errorf("%q is passed on as %q", line, passed)
		}
	})
}

// No answer of the other server's is more than one line for the client.
func FuzzAnswer(f *testing.F) {
	seeds(f, "D< ")
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.IndexByte(line, '\n') >= 0 {
			return
		}
		a, err := parseAnswer(line)
		if err != nil {
			return
		}
		said := appendAnswer(nil, "OK", a.id, "user="+escape(a.user), "resp="+a.final, "reason="+text(a.reason))
		if bytes.Count(said, []byte("\n")) != 1 || bytes.Count(said, []byte("\t")) != 4 {
			t.Errorf("%q becomes %q", line, said)
		}
	})
}

// A response is split without loss, or refused.
func FuzzPlain(f *testing.F) {
	f.Add([]byte("\x00ann@example.org\x00right"))
	f.Add([]byte("ann@example.org\x00master\x00secret"))
	f.Fuzz(func(t *testing.T, response []byte) {
		authorise, user, secret, err := plain(response)
		if err != nil {
			return
		}
		if joined := bytes.Join([][]byte{authorise, user, secret}, []byte{0}); !bytes.Equal(joined, response) || len(user) == 0 {
			t.Errorf("%q is split into %q", response, joined)
		}
		decoded, err := decode(encodePlain("", string(user), secret))
		if err != nil || !bytes.Equal(decoded, bytes.Join([][]byte{nil, user, secret}, []byte{0})) {
			t.Errorf("%q is passed on as %q, %v", response, decoded, err)
		}
	})
}
