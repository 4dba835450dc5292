package saslauth

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/serving/servingtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a gate that answers what it was given, and says what it was asked.
type scripted struct {
	answers chan access.Decision
	asked   chan string
}

func newScripted() *scripted {
	return &scripted{make(chan access.Decision, 8), make(chan string, 8)}
}

func (g *scripted) Login(_ context.Context, l *access.Login) access.Decision {
	or := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	asked := []string{"login", l.Account, or(string(l.Secret)), l.Service, l.Mechanism}
	ip, tls := "-", "-"
	if l.IP.IsValid() {
		ip = l.IP.String()
	}
	if l.TLS {
		tls = "tls"
	}
	asked = append(asked, ip, tls)
	if l.Lookup == access.LookupCredentials {
		asked = append(asked, "hidden")
	}
	if l.Relayed {
		asked = append(asked, "relayed")
	}
	if l.MasterUser != "" {
		asked = append(asked, l.MasterUser)
	}
	g.asked <- strings.Join(asked, " ")
	return <-g.answers
}

func (g *scripted) Report(e *access.Ending) {
	g.asked <- fmt.Sprintf("report %s %t", e.Account, e.Success)
}

func (g *scripted) Recheck(l *access.Login, typed string) access.Decision {
	g.asked <- "recheck " + l.Account + " typed " + typed
	return <-g.answers
}

// dovecot is the site's own server, played by hand.
type dovecot struct {
	t     *testing.T
	path  string
	heard chan string
	mu    sync.Mutex
	open  []net.Conn
	last  net.Conn
}

func newDovecot(t *testing.T) *dovecot {
	d := &dovecot{t: t, path: filepath.Join(t.TempDir(), "auth"), heard: make(chan string, 8)}
	ln, err := net.Listen("unix", d.path)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			d.open = append(d.open, c)
			d.mu.Unlock()
			serving.Go(func() { d.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		d.restart()
		serving.Wait()
	})
	return d
}

// serve greets as Dovecot 2.4 does, which names what it offers after the client has spoken.
func (d *dovecot) serve(c net.Conn) {
	_, _ = io.WriteString(c, "VERSION\t1\t3\n")
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "CPID\t"):
			_, _ = io.WriteString(c, "MECH\tPLAIN\tplaintext\nMECH\tSCRAM-SHA-256\tmutual-auth\nMECH\tEXTERNAL\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n")
		case strings.HasPrefix(line, "VERSION\t"):
		default:
			d.mu.Lock()
			d.last = c
			d.mu.Unlock()
			d.heard <- line
		}
	}
}

func (d *dovecot) say(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := io.WriteString(d.last, line+"\n"); err != nil {
		d.t.Error(err)
	}
}

func (d *dovecot) restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.open {
		_ = c.Close()
	}
	d.open = nil
}

// client is a Postfix that authenticates by hand.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, tr *servingtest.Trial) *client {
	t.Helper()
	c := tr.Dial()
	k := &client{t, c, bufio.NewReader(c)}
	k.send("VERSION\t1\t0\nCPID\t4711\n")
	for k.line() != "DONE" {
	}
	return k
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) line() string {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("no line: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (c *client) expect(want string) {
	c.t.Helper()
	if got := c.line(); got != want {
		c.t.Errorf("got %q, want %q", got, want)
	}
}

func next[T any](t *testing.T, what string, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(servingtest.Patience):
		t.Fatalf("no %s", what)
	}
	return v
}

var (
	encoded = regexp.MustCompile(`\{[^}]*\}`)
	session = regexp.MustCompile(`session=sasl-[A-Z2-7]{26}\b`)
)

// wire turns a line of a dialogue into what is sent.
func wire(t *testing.T, line string) string {
	t.Helper()
	text, err := unmarked(line)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// unmarked writes TABs for "|", and base64 for text in braces.
func unmarked(line string) (text string, err error) {
	line = strings.NewReplacer("|", "\t", `\x01`, "\x01").Replace(line)
	return encoded.ReplaceAllStringFunc(line, func(s string) string {
		decoded, fault := strconv.Unquote(`"` + s[1:len(s)-1] + `"`)
		err = errors.Join(err, fault)
		return base64.StdEncoding.EncodeToString([]byte(decoded))
	}), err
}

// Each file of testdata is a dialogue: C the client, S the server, D the site's own server (with
// "next" before the first line); "gate" is the next decision, other words are what the gate hears.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			gate := newScripted()
			server := &Server{Gate: gate, MasterSeparator: "*"}
			var d *dovecot
			if strings.Contains(string(script), "\nnext\n") {
				d = newDovecot(t)
				server.Next = d.path
			}
			tr := servingtest.Start(t, func(log hclog.Logger) servingtest.Server { server.Log = log; return server })
			c := dial(t, tr)
			for i, line := range strings.Split(string(script), "\n") {
				who, rest, _ := strings.Cut(line, " ")
				at := fmt.Sprintf("%s:%d", file, i+1)
				switch who {
				case "", "#", "next":
				case "gate":
					word, text, _ := strings.Cut(rest, " ")
					dec := access.Decision{Outcome: access.ParseOutcome(word), Account: text, Message: text}
					if dec.Outcome == access.Deny {
						dec.Message, _ = strconv.Unquote(`"` + text + `"`)
					}
					gate.answers <- dec
				case "C>":
					c.send(wire(t, rest) + "\n")
				case "S>":
					if rest == "closed" {
						servingtest.ExpectClosed(t, c.r)
					} else if got, want := c.line(), wire(t, rest); got != want {
						t.Errorf("%s: the client hears %q, want %q", at, got, want)
					}
				case "D>":
					got, want := session.ReplaceAllString(next(t, at, d.heard), "session=S"), wire(t, rest)
					if got != want {
						t.Errorf("%s: Dovecot hears %q, want %q", at, got, want)
					}
				case "D<":
					d.say(wire(t, rest))
				case "D":
					d.restart()
				case "reconnect":
					c = dial(t, tr)
				default:
					if got := next(t, at, gate.asked); got != line {
						t.Errorf("%s: the gate hears %q, want %q", at, got, line)
					}
				}
			}
			for _, secret := range []string{"right", "mailbox", "AGFubk", "wrong"} {
				if strings.Contains(tr.Log.String(), secret) {
					t.Errorf("the log holds %q:\n%s", secret, tr.Log.String())
				}
			}
		})
	}
}

// The greeting offers what is decided here and what the site's own server has beside it.
func TestOffer(t *testing.T) {
	d := newDovecot(t)
	server := &Server{Gate: newScripted(), Next: d.path}
	tr := servingtest.Start(t, func(log hclog.Logger) servingtest.Server { server.Log = log; return server })
	c := tr.Dial()
	k := &client{t, c, bufio.NewReader(c)}
	k.expect("VERSION\t1\t2")
	k.expect("MECH\tPLAIN\tplaintext")
	k.expect("MECH\tLOGIN\tplaintext")
	k.expect("MECH\tSCRAM-SHA-256\tmutual-auth")
	k.expect("MECH\tEXTERNAL")
	k.expect("SPID\t" + strconv.Itoa(os.Getpid()))
	k.expect("CUID\t1")
	if cookie := k.line(); len(cookie) != len("COOKIE\t")+32 {
		t.Errorf("%q", cookie)
	}
	k.expect("DONE")
}

// Without the site's own server secure passwords still open, and what it would decide is a
// temporary failure.
func TestNextIsAway(t *testing.T) {
	gate := newScripted()
	server := &Server{Gate: gate, Next: filepath.Join(t.TempDir(), "nobody")}
	tr := servingtest.Start(t, func(log hclog.Logger) servingtest.Server { server.Log = log; return server })
	c := dial(t, tr)
	gate.answers <- access.Decision{Outcome: access.Allow, Account: "ann@example.org"}
	c.send(wire(t, `AUTH|1|PLAIN|service=smtp|resp={\x00ann@example.org\x00right}`) + "\n")
	c.expect("OK\t1\tuser=ann@example.org")
	gate.answers <- access.Decision{Outcome: access.Next}
	c.send(wire(t, `AUTH|2|PLAIN|service=smtp|resp={\x00ann@example.org\x00mailbox}`) + "\n")
	servingtest.ExpectClosed(t, c.r)
	c = dial(t, tr)
	c.send("AUTH\t1\tSCRAM-SHA-256\tservice=smtp\n")
	servingtest.ExpectClosed(t, c.r)
}

// A server that says nothing is given up before Postfix does so, and a stop does not wait for it.
func TestHandshakeComesFirst(t *testing.T) {
	tr := servingtest.Start(t, func(log hclog.Logger) servingtest.Server { return &Server{Gate: newScripted(), Log: log} })
	for _, first := range []string{"AUTH\t1\tPLAIN\tservice=smtp\n", "CPID\t1\n", "VERSION\t2\t0\n", "VERSION\t1\t1\nCPID\tx\n", "VERSION\t1\t1\nCONT\t1\tAA==\n"} {
		c := tr.Dial()
		k := &client{t, c, bufio.NewReader(c)}
		for k.line() != "DONE" {
		}
		k.send(first)
		servingtest.ExpectClosed(t, k.r)
	}
}

// Postfix passes 16 000 octets on; a line beyond the bound ends the connection.
func TestLongLines(t *testing.T) {
	gate := newScripted()
	tr := servingtest.Start(t, func(log hclog.Logger) servingtest.Server { return &Server{Gate: gate, Log: log} })
	c := dial(t, tr)
	c.send("AUTH\t1\tPLAIN\tservice=smtp\tresp=" + strings.Repeat("A", 16_000) + "\n")
	c.expect("FAIL\t1")
	gate.answers <- access.Decision{Outcome: access.Allow, Account: "ann@example.org"}
	long := strings.Repeat("x", maxSecret)
	c.send(wire(t, `AUTH|2|PLAIN|service=smtp|resp={\x00ann@example.org\x00`+long+`}`) + "\n")
	c.expect("OK\t2\tuser=ann@example.org")
	c.send(wire(t, `AUTH|3|PLAIN|service=smtp|resp={\x00ann@example.org\x00`+long+`x}`) + "\n")
	c.expect("FAIL\t3")
	c.send("AUTH\t4\tPLAIN\tservice=smtp\t" + strings.Repeat("a\t", maxParameters) + "\n")
	servingtest.ExpectClosed(t, c.r)
	c = dial(t, tr)
	go func() { _, _ = io.WriteString(c, strings.Repeat("A", 10*maxLine)) }()
	servingtest.ExpectClosed(t, c.r)
}

// Thousands of smtpd processes keep their connection; each is answered, and a stop ends them all.
func TestIdleConnections(t *testing.T) {
	gate := newScripted()
	tr := servingtest.Start(t, func(log hclog.Logger) servingtest.Server { return &Server{Gate: gate, Log: log} })
	clients := make([]*client, 2000)
	for i := range clients {
		clients[i] = dial(t, tr)
	}
	for _, c := range clients {
		gate.answers <- access.Decision{Outcome: access.Allow, Account: "ann@example.org"}
		c.send(wire(t, `AUTH|7|PLAIN|service=smtp|resp={\x00ann@example.org\x00right}`) + "\n")
		<-gate.asked
		c.expect("OK\t7\tuser=ann@example.org")
	}
	tr.Stop()
	if err := tr.Wait(); err != nil {
		t.Error(err)
	}
	for _, c := range clients {
		servingtest.ExpectClosed(t, c.r)
	}
}

// A login that is being decided when the daemon stops is still answered.
func TestStopAnswers(t *testing.T) {
	gate := newScripted()
	tr := servingtest.Start(t, func(log hclog.Logger) servingtest.Server { return &Server{Gate: gate, Log: log} })
	c := dial(t, tr)
	c.send(wire(t, `AUTH|1|PLAIN|service=smtp|resp={\x00ann@example.org\x00right}`) + "\n")
	next(t, "question", gate.asked)
	tr.Stop()
	gate.answers <- access.Decision{Outcome: access.Allow, Account: "ann@example.org"}
	c.expect("OK\t1\tuser=ann@example.org")
	servingtest.ExpectClosed(t, c.r)
}

// So is a login that the client has sent by then, and one that waits for the client's next response.
// Afterwards the client cannot send: Postfix connects again, and asks the next process.
func TestStopEndsExchanges(t *testing.T) {
	gate := newScripted()
	tr := servingtest.Start(t, func(log hclog.Logger) servingtest.Server { return &Server{Gate: gate, Log: log} })
	idle, c := dial(t, tr), dial(t, tr)
	c.send(wire(t, `AUTH|1|LOGIN|service=smtp|resp={ann@example.org}`) + "\n")
	c.expect("CONT\t1\t" + promptSecret)
	c.send(wire(t, `AUTH|2|PLAIN|service=smtp|resp={\x00ann@example.org\x00right}`) + "\n")
	next(t, "question", gate.asked)
	c.send(wire(t, `AUTH|3|PLAIN|service=smtp|resp={\x00ann@example.org\x00right}`) + "\n")
	tr.Stop()
	servingtest.ExpectClosed(t, idle.r)
	allow := access.Decision{Outcome: access.Allow, Account: "ann@example.org"}
	for _, id := range []string{"2", "3", "1"} {
		if id == "1" {
			c.send(wire(t, `CONT|1|{right}`) + "\n")
		}
		if id != "2" {
			next(t, "question", gate.asked)
		}
		gate.answers <- allow
		c.expect("OK\t" + id + "\tuser=ann@example.org")
	}
	servingtest.ExpectClosed(t, c.r)
	for _, gone := range []*client{idle, c} {
		if _, err := io.WriteString(gone, "AUTH\t4\tPLAIN\n"); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("writing to a server that stopped: %v", err)
		}
	}
	if err := tr.Wait(); err != nil {
		t.Error(err)
	}
}

// Every outcome has its words; what is not an outcome says nothing.
func TestWords(t *testing.T) {
	for o := range access.Outcome(10) {
		want := map[access.Outcome]speech{access.Allow: admit, access.Deny: refuse, access.Next: passOn}[o]
		if got := words(o); got != want {
			t.Errorf("outcome %v: %v, want %v", o, got, want)
		}
	}
}
