package milter

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gomilter "github.com/emersion/go-milter"
	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// BenchmarkMessages compares messages per second, 20 on a connection and each with 20 header fields
// and 16 KiB of body, on a unix socket:
//
//	everything  go-milter as it comes: asks for all, and accepts
//	norule      no rule wants headers or body, or concerns the session
//	trace       no rule wants headers or body; a field is added to each message
//	from        the From header is checked
//	floor       a loop that asks for the packets of from, and does not look at them
//	rules       rules about recipients (M5, M7, M9): each message is judged at its end
//	headers     rules about recipients and header fields
//	identified  no rule; the Message-ID is recorded, as it always is with the whole daemon
//
// The client honours what was agreed and writes when it needs an answer, as Postfix does, and shares
// the processors.
func BenchmarkMessages(b *testing.B) {
	for _, c := range contenders() {
		b.Run(c.name, func(b *testing.B) {
			deliver := sendTo(b, c.serve)
			b.ReportAllocs()
			b.ResetTimer()
			deliver(b.N)
		})
	}
}

// BenchmarkRatios measures the same in turns with go-milter taking everything, by processor time of
// both ends, and prints how much less of it a message takes, with the goal.
func BenchmarkRatios(b *testing.B) {
	const turn = 200
	list := contenders()
	for _, c := range list[1:] {
		b.Run(c.name, func(b *testing.B) {
			theirs, ours := sendTo(b, list[0].serve), sendTo(b, c.serve)
			theirs(turn)
			ours(turn)
			var spent, less time.Duration
			for b.Loop() {
				start := processorTime(b)
				theirs(turn)
				between := processorTime(b)
				ours(turn)
				spent, less = spent+between-start, less+processorTime(b)-between
			}
			b.ReportMetric(float64(spent)/float64(less), "x")
			b.ReportMetric(c.goal, "goal")
		})
	}
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// contender is one way to answer the MTA.
type contender struct {
	name  string
	goal  float64 // times as many messages as go-milter taking everything; 0 for none
	serve func(context.Context, net.Listener)
}

// contenders begin with go-milter taking everything.
func contenders() []contender {
	nobody := &rules{submitter: func(string, netip.AddrPort) mailflow.Submitter { return mailflow.Submitter{} }}
	needs := func(n mailflow.Needs) *rules {
		r := checking(mailflow.CheckOff, "")
		r.needs = n
		return r
	}
	list := []contender{{"everything", 0, serveEverything}, {"floor", 0, serveFloor}}
	for _, c := range []struct {
		name  string
		goal  float64
		gate  *rules
		rules Rules
	}{
		{"norule", 2.5, nobody, nil},
		{"trace", 0, checking(mailflow.CheckEnvelope, "third-party"), nil},
		{"from", 6, checking(mailflow.CheckBoth, ""), nil},
		{"rules", 3, needs(mailflow.Needs{Recipients: true}), unmoved{}},
		{"identified", 2.5, needs(mailflow.Needs{MessageID: true}), unmoved{}},
		{"rules, identified", 3, needs(mailflow.Needs{Recipients: true, MessageID: true}), unmoved{}},
		{"headers", 3, needs(mailflow.Needs{Recipients: true, Headers: true}), unmoved{}},
	} {
		s := &Server{Gate: c.gate, Rules: c.rules, Log: hclog.NewNullLogger()}
		list = append(list, contender{c.name, c.goal, func(ctx context.Context, ln net.Listener) { _ = s.Serve(ctx, ln) }})
	}
	return list
}

// unmoved has no objection to any message.
type unmoved struct{}

func (unmoved) Message(_ *mailflow.Envelope, recipients []string, _ *mailflow.Content) mailflow.Judgement {
	return mailflow.Judgement{Recipients: make([]mailflow.Judged, len(recipients))}
}
func (unmoved) Treated(*mailflow.Envelope, []string) {}
func (unmoved) NotReceived(string, mailflow.Reason)  {}
func (unmoved) Identified(string, string)            {}

func serveEverything(ctx context.Context, ln net.Listener) {
	context.AfterFunc(ctx, func() { _ = ln.Close() })
	s := gomilter.Server{NewMilter: func() gomilter.Milter { return gomilter.NoOpMilter{} }}
	_ = s.Serve(ln)
}

// serveFloor accepts every message at the end of its header.
func serveFloor(ctx context.Context, ln net.Listener) {
	context.AfterFunc(ctx, func() { _ = ln.Close() })
	agreed := choose(mailflow.Needs{Headers: true}, offer(postfixActions, postfixProtocol))
	data := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 2}, uint32(agreed.actions)), uint32(agreed.protocol))
	answers := [256][]byte{
		gomilter.CodeOptNeg: packet(nil, gomilter.CodeOptNeg, string(data)), gomilter.CodeConn: packet(nil, 'c', ""),
		gomilter.CodeMail: packet(nil, 'c', ""), gomilter.CodeEOH: packet(nil, 'a', ""),
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			for r := bufio.NewReader(c); ; {
				head, err := r.Peek(5)
				if err != nil {
					return
				}
				answer := answers[head[4]]
				if _, err = r.Discard(4 + int(binary.BigEndian.Uint32(head))); err == nil && answer != nil {
					_, err = c.Write(answer)
				}
				if err != nil {
					return
				}
			}
		}()
	}
}

// sendTo starts a server, and returns what delivers messages to it.
func sendTo(b *testing.B, serve func(context.Context, net.Listener)) (deliver func(messages int)) {
	b.Helper()
	const messages = 20
	socket := filepath.Join(b.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { serve(ctx, ln) })
	b.Cleanup(func() {
		cancel()
		done.Wait()
	})
	fields := []string{"From: Ann <ann@example.org>", "Message-ID: <1f2e3d4c5b6a@mail.example.org>", "Subject: a message of the usual kind"}
	for len(fields) < 20 {
		fields = append(fields, "X-Something-Else: "+strings.Repeat("x", 60))
	}
	body := strings.Repeat("x", 16<<10)
	return func(n int) {
		for sent := 0; sent < n; {
			c, err := net.Dial("unix", socket)
			if err != nil {
				b.Fatal(err)
			}
			w := bufio.NewWriterSize(c, 8<<10)
			m := &mta{t: b, Conn: buffered{c, w}, r: bufio.NewReader(flushing{c, w})}
			m.negotiate(postfixActions, postfixProtocol)
			m.connect("203.0.113.9", 50412)
			m.step(gomilter.CodeHelo, "client\x00", gomilter.OptNoHelo, gomilter.OptNoHeloReply)
			for range messages {
				m.message(fields, body)
				sent++
			}
			m.send(gomilter.CodeQuit, "")
			if err := errors.Join(w.Flush(), c.Close()); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// buffered collects what is written.
type buffered struct {
	net.Conn
	w *bufio.Writer
}

func (c buffered) Write(b []byte) (int, error) { return c.w.Write(b) }

// flushing writes what is collected before it waits.
type flushing struct {
	net.Conn
	w *bufio.Writer
}

func (c flushing) Read(b []byte) (int, error) {
	if err := c.w.Flush(); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

// step sends a packet, unless it was declined, and returns the answer's letter.
func (m *mta) step(code gomilter.Code, data string, declined, unanswered gomilter.OptProtocol) byte {
	if m.protocol&declined != 0 {
		return 'c'
	}
	m.send(code, data)
	if m.protocol&unanswered != 0 {
		return 'c'
	}
	for {
		head, err := m.r.Peek(5)
		if err != nil {
			m.t.Fatal(err)
		}
		answer := head[4]
		if _, err := io.CopyN(io.Discard, m.r, 4+int64(binary.BigEndian.Uint32(head))); err != nil {
			m.t.Fatal(err)
		}
		if answer != 'i' && answer != 'm' {
			return answer
		}
	}
}

// message sends a message as far as the milter wants to see it.
func (m *mta) message(fields []string, body string) {
	defer m.send(gomilter.CodeAbort, "")
	m.macros(gomilter.CodeMail, "{auth_authen}", ann)
	if m.step(gomilter.CodeMail, "<"+ann+">\x00", gomilter.OptNoMailFrom, gomilter.OptNoMailReply) == 'a' {
		return
	}
	if m.protocol&gomilter.OptNoRcptTo == 0 {
		m.macros(gomilter.CodeRcpt, "{rcpt_addr}", "bob@example.net")
	}
	m.step(gomilter.CodeRcpt, "<bob@example.net>\x00", gomilter.OptNoRcptTo, gomilter.OptNoRcptReply)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		m.step(gomilter.CodeHeader, name+"\x00"+value+"\x00", gomilter.OptNoHeaders, gomilter.OptNoHeaderReply)
	}
	if m.step(gomilter.CodeEOH, "", gomilter.OptNoEOH, gomilter.OptNoEOHReply) == 'a' {
		return
	}
	m.step(gomilter.CodeBody, body, gomilter.OptNoBody, gomilter.OptNoBodyReply)
	m.macros(gomilter.CodeEOB, "i", "4F1B986051")
	if answer := m.step(gomilter.CodeEOB, "", 0, 0); answer != 'a' {
		m.t.Fatalf("the message ends in %c", answer)
	}
}
