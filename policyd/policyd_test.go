package policyd

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/serving/servingtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type gateFunc func(access.Submission) access.Decision

func (f gateFunc) Submission(s access.Submission) access.Decision { return f(s) }

func (gateFunc) Needs() mailflow.Needs { return mailflow.Needs{} }

func (gateFunc) Recipient(*mailflow.Envelope) mailflow.Verdict              { return mailflow.Verdict{} }
func (gateFunc) MessageEnded(*mailflow.Envelope, bool) (v mailflow.Verdict) { return v }

// says is a gate that answers always the same.
func says(d access.Decision) gateFunc {
	return func(access.Submission) access.Decision { return d }
}

// trial is a server on a unix socket, stopped when the test ends.
type trial struct {
	*servingtest.Trial
	t testing.TB
}

func start(t testing.TB, gate Gate) *trial {
	t.Helper()
	return &trial{servingtest.Start(t, func(log hclog.Logger) servingtest.Server { return &Server{Gate: gate, Log: log} }), t}
}

// client is a Postfix that asks by hand.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (tr *trial) dial() *client {
	tr.t.Helper()
	c := tr.Dial()
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
	servingtest.ExpectClosed(c.t, c.r)
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
	tr.Stop()
	if err := tr.Wait(); err != nil {
		t.Fatal(err)
	}
	log := tr.Log.String()
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
	if log := tr.Log.String(); !strings.Contains(log, "panic") || strings.Count(log, "\n") != 1 {
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
	tr.Stop()
	idle.expectClosed()
	tr.ExpectRefused()
	close(answer)
	busy.expect("554 5.7.1 Access denied")
	busy.expectClosed()
	if err := tr.Wait(); err != nil {
		t.Error(err)
	}
}

// A peer that connects and asks nothing is dropped after five seconds; one that asked may stay as
// long as Postfix keeps idle connections.
func TestSilentPeer(t *testing.T) {
	for said, want := range map[string]time.Duration{"": firstTimeout, "request=smtpd_access_policy\n\n": idleTimeout + rearm} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			ln := &oneListener{conn: ours, closed: make(chan struct{})}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() {
				done <- (&Server{Gate: says(access.Decision{Outcome: access.Next}), Log: hclog.NewNullLogger()}).Serve(ctx, ln)
			}()
			if said != "" { // a pipe delivers empty writes too
				go func() { _, _ = io.WriteString(theirs, said) }()
			}
			start := time.Now()
			_, _ = io.Copy(io.Discard, theirs)
			if got := time.Since(start); got != want {
				t.Errorf("after %q dropped after %v, want %v", said, got, want)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			_ = theirs.Close()
		})
	}
}

// oneListener accepts one connection.
type oneListener struct {
	conn   net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *oneListener) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *oneListener) Addr() net.Addr { return &net.UnixAddr{} }
