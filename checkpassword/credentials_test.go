package checkpassword

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

func TestReadCredentials(t *testing.T) {
	long := strings.Repeat("x", 496)
	tests := []struct {
		name, in     string
		user, secret string
		malformed    bool
	}{
		{name: "Dovecot's", in: "ann@example.org\x00opensesame\x00\x00", user: "ann@example.org", secret: "opensesame"},
		{name: "with a timestamp", in: "ann\x00pw\x00Y123\x00", user: "ann", secret: "pw"},
		{name: "a look-up", in: "ann\x00\x00\x00", user: "ann"},
		{name: "Latin-1 password", in: "ann\x00p\xe4ss\x00\x00", user: "ann", secret: "p\xe4ss"},
		{name: "what follows is not ours", in: "ann\x00pw\x00\x00junk\x00", user: "ann", secret: "pw"},
		{name: "512 bytes", in: "ann@ample.org\x00" + long + "\x00\x00", user: "ann@ample.org", secret: long},
		{name: "513 bytes", in: "ann@xample.org\x00" + long + "\x00\x00", malformed: true},
		{name: "endless", in: strings.Repeat("x", 5000), malformed: true},
		{name: "empty", in: "", malformed: true},
		{name: "one NUL", in: "ann\x00pw", malformed: true},
		{name: "two NULs", in: "ann\x00pw\x00", malformed: true},
		{name: "no name", in: "\x00pw\x00\x00", malformed: true},
		{name: "name not UTF-8", in: "\xe4nn\x00pw\x00\x00", malformed: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for kind, r := range map[string]io.Reader{
				"at once":    strings.NewReader(tt.in),
				"bytewise":   iotest.OneByteReader(strings.NewReader(tt.in)),
				"with error": iotest.DataErrReader(strings.NewReader(tt.in)),
			} {
				c, err := ReadCredentials(r)
				var malformed MalformedError
				if errors.As(err, &malformed) != tt.malformed || err != nil && !tt.malformed {
					t.Errorf("%s: error %v, want malformed: %v", kind, err, tt.malformed)
				}
				if string(c.User) != tt.user || string(c.Secret) != tt.secret {
					t.Errorf("%s: got %q, %q", kind, c.User, c.Secret)
				}
			}
		})
	}
}

func TestReadCredentialsError(t *testing.T) {
	c, err := ReadCredentials(io.MultiReader(strings.NewReader("ann\x00pw"), iotest.ErrReader(iotest.ErrTimeout)))
	if !errors.Is(err, iotest.ErrTimeout) || c.User != nil {
		t.Errorf("got %q and error %v, want the reader's own error", c.User, err)
	}
}

func TestWipe(t *testing.T) {
	c, err := ReadCredentials(strings.NewReader("ann\x00opensesame\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	c.Wipe()
	if !bytes.Equal(c.Secret, make([]byte, len("opensesame"))) || !bytes.Equal(c.buf, make([]byte, len(c.buf))) {
		t.Errorf("after Wipe: %q", c.buf)
	}
}

// FuzzReadCredentials reads back what is written, byte by byte and at once, and never takes a byte
// beyond the third NUL that it did not have to.
func FuzzReadCredentials(f *testing.F) {
	f.Add([]byte("ann@example.org"), []byte("opensesame"), []byte(""), []byte("next"))
	f.Add([]byte("a\x00b"), []byte("\xff"), []byte("Y1"), []byte("\x00"))
	f.Add([]byte(""), bytes.Repeat([]byte("x"), 511), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, user, secret, stamp, rest []byte) {
		wire := bytes.Join([][]byte{user, secret, stamp, rest}, []byte{0})
		parts := bytes.SplitN(wire, []byte{0}, 4) // as a reader sees it, with whatever NULs are inside
		head := len(parts[0]) + len(parts[1]) + len(parts[2]) + 3
		valid := head <= maxCredentials && len(parts[0]) > 0 && utf8.Valid(parts[0])

		source := bytes.NewReader(wire)
		bytewise, err := ReadCredentials(iotest.OneByteReader(source))
		if (err == nil) != valid {
			t.Fatalf("%q: error %v, want valid: %v", wire, err, valid)
		}
		if !valid {
			return
		}
		if got := len(wire) - source.Len(); got != head {
			t.Errorf("%q: read %d bytes, the third NUL is byte %d", wire, got, head)
		}
		atOnce, err := ReadCredentials(bytes.NewReader(wire))
		if err != nil {
			t.Fatalf("%q at once: %v", wire, err)
		}
		for _, c := range []Credentials{bytewise, atOnce} {
			if !bytes.Equal(c.User, parts[0]) || !bytes.Equal(c.Secret, parts[1]) {
				t.Errorf("%q: got %q, %q", wire, c.User, c.Secret)
			}
		}
	})
}
