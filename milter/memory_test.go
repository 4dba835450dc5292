package milter

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	gomilter "github.com/emersion/go-milter"
	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/serving/servingtest"
)

// permissive are rules that let everything pass, and read all of it.
type permissive struct{ judged chan judged }

type judged struct {
	size  int64
	fault error
}

func (p permissive) Message(e *mailflow.Envelope, recipients []string, content *mailflow.Content) mailflow.Judgement {
	if content.Load != nil {
		content.Load(content)
	}
	p.judged <- judged{e.Size, content.Fault}
	return mailflow.Judgement{Recipients: make([]mailflow.Judged, len(recipients))}
}

func (permissive) Treated(*mailflow.Envelope, []string) {}
func (permissive) NotReceived(string, mailflow.Reason)  {}
func (permissive) Identified(string, string)            {}

// body sends a part of the body, unless the milter wants no more of it.
func (m *mta) body(n int) {
	m.t.Helper()
	if m.skipped {
		return
	}
	m.send(gomilter.CodeBody, strings.Repeat("x", n))
	if m.protocol&gomilter.OptNoBodyReply == 0 {
		code, _ := m.receive()
		m.skipped = code == byte(gomilter.ActSkip)
	}
}

func (tr *trial) unused(s *Server) func() bool {
	return func() bool { return s.memory.used.Load() == 0 }
}

func (tr *trial) uses(s *Server, least int64) func() bool {
	return func() bool { return s.memory.used.Load() >= least }
}

// begin sends a message up to its body.
func (m *mta) begin(recipient string) {
	m.t.Helper()
	m.skipped = false
	m.mail("", "eve@example.net")
	m.expect("c")
	m.send(gomilter.CodeRcpt, "<"+recipient+">\x00")
	m.headers("From: eve@example.net", "Subject: x")
}

func startCollecting(t *testing.T, limit int64) (*trial, *Server, permissive) {
	t.Helper()
	rules := permissive{make(chan judged, 100)}
	gate := checking(mailflow.CheckOff, "")
	gate.needs = mailflow.Needs{Recipients: true, Headers: true, Body: true}
	var s *Server
	tr := &trial{servingtest.Start(t, func(log hclog.Logger) servingtest.Server {
		s = &Server{Gate: gate, Rules: rules, Log: log, MaxMemory: limit}
		return s
	}), t}
	return tr, s, rules
}

// Connections together collect no more than the bound. What has no room is refused for now and is
// never judged, and the lack is reported once.
func TestMemoryIsBounded(t *testing.T) {
	const limit = 1 << 20
	tr, s, rules := startCollecting(t, limit)
	var open []*mta
	for range 12 { // 100 kB each
		m := tr.postfix()
		m.begin("ann@example.org")
		m.expect("c")
		m.body(50_000)
		m.body(50_000)
		open = append(open, m)
	}
	tr.eventually(tr.uses(s, 500_000), "the bodies are not collected")
	for _, m := range open {
		m.end()
		m.receiveEnd(t)
		m.send(gomilter.CodeAbort, "")
	}
	if used := s.memory.used.Load(); used > limit {
		t.Errorf("%d octets are used", used)
	}
	tr.eventually(tr.unused(s), "the memory is not given back")
	if n := len(rules.judged); n == 0 || n == len(open) {
		t.Errorf("%d of %d messages were judged", n, len(open))
	}
	if n := strings.Count(tr.Log.String(), "milter.max_memory is reached"); n != 1 {
		t.Errorf("reported %d times", n)
	}
	m := open[0]
	m.begin("ann@example.org")
	m.expect("c")
	m.body(400_000)
	m.end()
	m.expect("a")
}

// receiveEnd reads the answer to the end of a message: accepted, or no memory.
func (m *mta) receiveEnd(t *testing.T) {
	t.Helper()
	if code, data := m.receive(); code != 'a' && (code != 'y' || !strings.HasPrefix(string(data), noRoom)) {
		t.Errorf("answered %c %q", code, data)
	}
}

// Memory is given back however a message ends.
func TestMemoryIsGivenBack(t *testing.T) {
	for name, end := range map[string]func(*mta){
		"end":              func(m *mta) { m.end(); m.expect("a") },
		"abort":            func(m *mta) { m.send(gomilter.CodeAbort, "") },
		"the next message": func(m *mta) { m.mail("", "") },
		"quit":             func(m *mta) { m.send(gomilter.CodeQuit, "") },
		"disconnection":    func(m *mta) { _ = m.Close() },
		"a malformed one":  func(m *mta) { m.send(gomilter.CodeHelo, "") },
	} {
		t.Run(name, func(t *testing.T) {
			tr, s, _ := startCollecting(t, 0)
			m := tr.postfix()
			m.begin("ann@example.org")
			m.expect("c")
			m.body(60_000)
			tr.eventually(tr.uses(s, 60_000), "the body is not collected")
			end(m)
			tr.eventually(tr.unused(s), "the memory is not given back")
		})
	}
}

// A message that alone is too long is judged as one that cannot be read, and takes nothing.
func TestLongMessage(t *testing.T) {
	tr, s, rules := startCollecting(t, 200_000)
	m := tr.postfix()
	m.begin("ann@example.org")
	m.expect("c")
	m.body(60_000)
	m.body(60_000)
	m.end()
	m.expect("a")
	tr.eventually(tr.unused(s), "the memory is not given back")
	if got := <-rules.judged; got.size < 120_000 || !errors.Is(got.fault, errLong) {
		t.Errorf("judged as %+v", got)
	}
}

// A recipient that has no room is not left out of what is judged: the message is refused.
func TestNoRoomForRecipients(t *testing.T) {
	tr, s, rules := startCollecting(t, 1000)
	m := tr.postfix()
	m.begin(strings.Repeat("x", 600) + "@example.org")
	m.expect("y " + noRoom)
	m.end()
	m.expect("y " + noRoom)
	m.send(gomilter.CodeAbort, "")
	tr.eventually(tr.unused(s), "the memory is not given back")
	if len(rules.judged) > 0 {
		t.Error("the message was judged")
	}
}

func TestLackIsReportedOnceAMinute(t *testing.T) {
	var out strings.Builder
	s := Server{Log: hclog.New(&hclog.LoggerOptions{Output: &out})}
	now := time.Now()
	for _, after := range []time.Duration{0, 1, lackEvery - 1, lackEvery, lackEvery + 1} {
		s.reportLack(now.Add(after))
	}
	if n := strings.Count(out.String(), "milter.max_memory is reached"); n != 2 {
		t.Errorf("reported %d times", n)
	}
}

// envelopes wants the bodies of messages to one recipient.
type envelopes string

func (w envelopes) WantsBody(_ *mailflow.Envelope, recipients []string) bool {
	return slices.Contains(recipients, string(w))
}
func (envelopes) Forwarded(*mailflow.Envelope) (v mailflow.Verdict) { return v }

// A body that no rule uses is neither sent as a whole nor kept, and the message is judged all the
// same.
func TestBodiesThatNoRuleUses(t *testing.T) {
	tr, s, rules := startCollecting(t, 1<<20)
	s.Envelopes = envelopes("ann@example.org")
	m := tr.postfix()
	for recipient, skipped := range map[string]bool{"ann@example.org": false, "bob@example.org": true} {
		m.begin(recipient)
		m.expect("c")
		before := s.memory.used.Load()
		m.body(60_000)
		if m.skipped != skipped || skipped && s.memory.used.Load() != before {
			t.Errorf("to %s: skipped %t, %d octets", recipient, m.skipped, s.memory.used.Load()-before)
		}
		m.body(60_000)
		m.end()
		m.expect("a")
		<-rules.judged
	}
}
