package policyd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge/drawbridge/internal/access"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should come at once.
const patience = 10 * time.Second

type gateFunc func(access.Submission) access.Decision

func (f gateFunc) Submission(s access.Submission) access.Decision { return f(s) }

// says is a gate that answers always the same.
func says(d access.Decision) gateFunc {
	return func(access.Submission) access.Decision { return d }
}

// journal is a log that tests read.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// trial is a server on a unix socket, stopped when the test ends.
type trial struct {
	t      testing.TB
	socket string
	log    journal
	stop   context.CancelFunc
	served chan error
}

func start(t testing.TB, gate Gate) *trial {
	t.Helper()
	tr := &trial{t: t, socket: filepath.Join(t.TempDir(), "s"), served: make(chan error, 1)}
	ln, err := net.Listen("unix", tr.socket)
	if err != nil {
		t.Fatal(err)
	}
	tr.serve(ln, gate)
	return tr
}

func (tr *trial) serve(ln net.Listener, gate Gate) {
	ctx, cancel := context.WithCancel(context.Background())
	tr.stop = cancel
	s := &Server{Gate: gate, Log: hclog.New(&hclog.LoggerOptions{Output: &tr.log})}
	go func() { tr.served <- s.Serve(ctx, ln) }()
	tr.t.Cleanup(func() {
		cancel()
		if err := tr.wait(); err != nil {
			tr.t.Errorf("Serve: %v", err)
		}
	})
}

// wait returns what Serve returned.
func (tr *trial) wait() error {
	tr.t.Helper()
	select {
	case err := <-tr.served:
		tr.served <- err
		return err
	case <-time.After(patience):
		tr.t.Error("Serve does not return")
		return nil
	}
}

// client is a Postfix that asks by hand.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (tr *trial) dial() *client {
	tr.t.Helper()
	c, err := net.Dial("unix", tr.socket)
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		tr.t.Fatal(err)
	}
	return &client{tr.t, c, bufio.NewReader(c)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads one answer.
func (c *client) expect(want string) {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	if empty, err := c.r.ReadString('\n'); err != nil || empty != "\n" {
		c.t.Fatalf("%q is followed by %q, %v, not by an empty line", line, empty, err)
	}
	if line != "action="+want+"\n" {
		c.t.Errorf("got %q, want action=%s", line, want)
	}
}

// expectClosed checks that the connection ends without another word.
func (c *client) expectClosed() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil && !errors.Is(err, syscall.ECONNRESET) || len(rest) > 0 {
		c.t.Errorf("the connection says %q, %v", rest, err)
	}
}

func TestUnauthenticatedIsNotAsked(t *testing.T) {
	c := start(t, gateFunc(func(s access.Submission) access.Decision {
		t.Errorf("the gate is asked about %+v", s)
		return access.Decision{}
	})).dial()
	for _, text := range []string{lines(), lines("sasl_username="), lines("protocol_state=RCPT", "client_address=192.0.2.1")} {
		c.send(text)
		c.expect("DUNNO")
	}
}

func TestManyRequestsOnAConnection(t *testing.T) {
	c := start(t, gateFunc(func(s access.Submission) access.Decision {
		switch s.Account {
		case "ann@example.org":
			return access.Decision{Outcome: access.Next}
		case "bob@example.org":
			return access.Decision{Outcome: access.Deny, Reason: access.ReasonBadSecret}
		}
		return access.Decision{Outcome: access.Deny, Reason: access.ReasonPolicy, Message: "No.\nReally."}
	})).dial()
	c.send(postfix)
	c.expect("DUNNO")
	c.send(lines("sasl_username=bob@example.org"))
	c.expect("421 4.7.0 Your credential is no longer valid, please authenticate again")
	c.send(lines("sasl_username=eve@example.org"))
	c.expect("554 5.7.1 No.?Really.")
	c.send(lines() + postfix + lines("sasl_username=eve@example.org")) // all at once
	c.expect("DUNNO")
	c.expect("DUNNO")
	c.expect("554 5.7.1 No.?Really.")
	for _, part := range strings.SplitAfter(postfix, "=") {
		c.send(part)
	}
	c.expect("DUNNO")
}

// Every state in which Postfix names an account is judged.
func TestEveryState(t *testing.T) {
	c := start(t, says(access.Decision{Outcome: access.Deny, Reason: access.ReasonSecureRequired})).dial()
	for _, state := range []string{"MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN"} {
		c.send(lines("protocol_state="+state, "sasl_username=ann@example.org"))
		c.expect("421 4.7.0 Your credential is no longer valid, please authenticate again")
	}
}

func TestNoAnswerClosesTheConnection(t *testing.T) {
	for name, d := range map[string]access.Decision{
		"temporary failure": {Outcome: access.TempFail, Reason: access.ReasonStoreUnavailable, Message: "Later."},
		"no outcome":        {Message: "Nothing."},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, says(d)).dial()
			c.send(lines())
			c.expect("DUNNO")
			c.send(postfix)
			c.expectClosed()
		})
	}
}

func TestMalformedRequestClosesTheConnection(t *testing.T) {
	tr := start(t, says(access.Decision{Outcome: access.Allow}))
	c := tr.dial()
	c.send(lines("sasl_username=ann@example.org", "sasl_username=\xffeve\x1b@example.org"))
	c.expectClosed()
	c = tr.dial()
	c.send(strings.Repeat("x", maxRequest+1))
	c.expectClosed()
	tr.stop()
	if err := tr.wait(); err != nil {
		t.Fatal(err)
	}
	log := tr.log.String()
	if !strings.Contains(log, `longer than 65536 octets`) || !strings.Contains(log, `\xffeve\x1b@example.org`) {
		t.Errorf("log: %q", log)
	}
	if strings.ContainsFunc(log, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) || strings.Count(log, "\n") != 2 {
		t.Errorf("log is no two lines of ASCII: %q", log)
	}
}

func TestPanicEndsOneConnectionOnly(t *testing.T) {
	tr := start(t, gateFunc(func(s access.Submission) access.Decision {
		if s.Account == "crash" {
			panic("at\nthe disco")
		}
		return access.Decision{Outcome: access.Allow}
	}))
	other := tr.dial()
	c := tr.dial()
	c.send(lines("sasl_username=crash"))
	c.expectClosed()
	other.send(postfix)
	other.expect("DUNNO")
	if log := tr.log.String(); !strings.Contains(log, "panic") || strings.Count(log, "\n") != 1 {
		t.Errorf("log: %q", log)
	}
}

func TestStopAnswersWhatIsInFlight(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	tr := start(t, gateFunc(func(access.Submission) access.Decision {
		close(asked)
		<-answer
		return access.Decision{Outcome: access.Deny, Reason: access.ReasonPolicy}
	}))
	idle, busy := tr.dial(), tr.dial()
	idle.send(lines())
	idle.expect("DUNNO")
	busy.send(postfix)
	<-asked
	tr.stop()
	idle.expectClosed()
	if c, err := net.Dial("unix", tr.socket); err == nil {
		_ = c.Close()
		t.Error("a stopped server accepts connections")
	}
	close(answer)
	busy.expect("554 5.7.1 Access denied")
	busy.expectClosed()
	if err := tr.wait(); err != nil {
		t.Error(err)
	}
}

func TestStopIsBounded(t *testing.T) {
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	cs := connections{open: map[*conn]struct{}{}}
	c := &conn{Conn: ours}
	cs.add(c)
	err := cs.finish(time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "1 policy connections were cut off") {
		t.Errorf("got %v", err)
	}
	if _, err := ours.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing to a connection that was cut off: %v", err)
	}
	cs.remove(c)
}

// moody is a listener that fails before it works, and then for good.
type moody struct {
	net.Listener
	errs []error
}

func (m *moody) Accept() (net.Conn, error) {
	if len(m.errs) > 0 {
		err := m.errs[0]
		m.errs = m.errs[1:]
		return nil, err
	}
	return m.Listener.Accept()
}

func TestAcceptGoesOnAfterAnError(t *testing.T) {
	tr := &trial{t: t, socket: filepath.Join(t.TempDir(), "s"), served: make(chan error, 1)}
	ln, err := net.Listen("unix", tr.socket)
	if err != nil {
		t.Fatal(err)
	}
	tr.serve(&moody{ln, []error{syscall.EMFILE, syscall.ECONNABORTED}}, says(access.Decision{Outcome: access.Allow}))
	c := tr.dial()
	c.send(postfix)
	c.expect("DUNNO")
	if log := tr.log.String(); strings.Count(log, "accepting policy connections") != 2 {
		t.Errorf("log: %q", log)
	}
}

func TestServeTellsOfALostListener(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	s := &Server{Gate: says(access.Decision{}), Log: hclog.NewNullLogger()}
	if err := s.Serve(t.Context(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
