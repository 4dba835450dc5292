package saslauth

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
)

// single admits one account with one secret, and counts.
type single struct{ admitted int }

func (g *single) Login(_ context.Context, l *access.Login) access.Decision {
	switch {
	case l.Account == "ann@example.org" && string(l.Secret) == "right" && l.MasterUser == "":
		g.admitted++
		return access.Decision{Outcome: access.Allow, Account: l.Account}
	case len(l.Secret)%2 == 0:
		return access.Decision{Outcome: access.Next, Account: l.Account}
	}
	return access.Decision{Outcome: access.Deny, Message: "no\tOK\t1\nOK\t1\tuser=ann@example.org"}
}

func (g *single) Report(*access.Ending) {}

func (g *single) Recheck(*access.Login, string) access.Decision { return access.Decision{} }

// tape is a connection whose client sends a fixed text, whatever it hears.
type tape struct {
	net.Conn // nil: no other method is called
	sent     io.Reader
	heard    bytes.Buffer
}

func (c *tape) Read(b []byte) (int, error)       { return c.sent.Read(b) }
func (c *tape) Write(b []byte) (int, error)      { return c.heard.Write(b) }
func (c *tape) SetReadDeadline(time.Time) error  { return nil }
func (c *tape) SetWriteDeadline(time.Time) error { return nil }

// Whatever lines come, truncated, reordered or in between: each line that is answered is one of the
// protocol's about an exchange of the client's, and OK is said as often as the gate admits.
func FuzzConversation(f *testing.F) {
	const hello = "VERSION\t1\t0\nCPID\t4711\n"
	f.Add([]byte(hello + "AUTH\t1\tLOGIN\tservice=smtp\nAUTH\t2\tPLAIN\tservice=smtp\nCONT\t1\tYW5uQGV4YW1wbGUub3Jn\n" +
		"CONT\t2\tAGFubkBleGFtcGxlLm9yZwByaWdodA==\nCONT\t1\tcmlnaHQ=\nCANCEL\t1\nCONT\t1\t=\n"))
	f.Add([]byte("CPID\t1\nVERSION\t1\t0\nAUTH\t1\tPLAIN\tservice=smtp\tresp=AGFubkBleGFtcGxlLm9yZwByaWdodA=="))
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		script, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		text := hello
		for line := range strings.Lines(string(script)) {
			if said, ok := strings.CutPrefix(line, "C> "); ok {
				if said, err = unmarked(said); err != nil {
					f.Fatal(file, err)
				}
				text += said
			}
		}
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		gate := &single{}
		c := &tape{sent: bytes.NewReader(text)}
		(&conn{Conn: c, server: &Server{Gate: gate, Log: hclog.NewNullLogger(), MasterSeparator: "*"}, lines: newLineReader(c)}).serve(t.Context())
		_, said, found := strings.Cut(c.heard.String(), "\nDONE\n")
		if !found {
			t.Fatalf("no greeting: %q", c.heard.String())
		}
		admitted := 0
		for line := range strings.Lines(said) {
			verb, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			id, _, _ := strings.Cut(rest, "\t")
			if _, ok := parseID([]byte(id)); !ok || verb != "OK" && verb != "FAIL" && verb != "CONT" || !strings.HasSuffix(line, "\n") {
				t.Errorf("%q is answered %q", text, line)
			}
			if verb == "OK" {
				admitted++
			}
		}
		if admitted != gate.admitted {
			t.Errorf("%q: %d OK for %d admitted logins", text, admitted, gate.admitted)
		}
	})
}
