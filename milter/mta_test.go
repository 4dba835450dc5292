package milter

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	gomilter "github.com/emersion/go-milter"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/serving/servingtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What Postfix 3.7 offers: all actions and all options up to leading space.
const (
	postfixActions  = 0x1ff
	postfixProtocol = 0x1fffff
)

// rules are a gate with one submitter, ann, and one alias.
type rules struct {
	needs     mailflow.Needs
	later     func() *mailflow.Needs // in place of needs, unless nil
	submitter func(login string, client netip.AddrPort) mailflow.Submitter
	connected chan netip.AddrPort // nil for nobody
	ended     chan netip.AddrPort // the same
	decision  access.Decision     // on every submission; the zero value lets it pass
}

func (r *rules) Needs() mailflow.Needs {
	if r.later != nil {
		return *r.later()
	}
	return r.needs
}

func (r *rules) Connected(ip netip.Addr, port uint16) func() {
	if r.connected != nil {
		r.connected <- netip.AddrPortFrom(ip, port)
	}
	return func() {
		if r.ended != nil {
			r.ended <- netip.AddrPortFrom(ip, port)
		}
	}
}

func (r *rules) Submitter(s access.Submission) mailflow.Submitter {
	return r.submitter(s.Account, netip.AddrPortFrom(s.IP, s.Port))
}

func (r *rules) Submission(s access.Submission) access.Decision {
	if r.decision.Outcome == 0 {
		return access.Decision{Outcome: access.Allow}
	}
	return r.decision
}

// checking are rules that check ann's messages, and everybody's header.
func checking(check mailflow.SenderCheck, trace string) *rules {
	return &rules{
		needs: mailflow.Needs{Headers: check == mailflow.CheckBoth},
		submitter: func(login string, _ netip.AddrPort) mailflow.Submitter {
			return mailflow.Submitter{Account: login, Check: check, Headers: check == mailflow.CheckBoth, Trace: trace, Address: func(addr string) mailflow.Address {
				return mailflow.Address{Managed: true, Check: check, Granted: addr == login || addr == "sales@example.net"}
			}}
		},
	}
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

// mta speaks the milter protocol as Postfix does, and honours what was agreed.
type mta struct {
	t testing.TB
	net.Conn
	r        *bufio.Reader
	out      []byte
	actions  gomilter.OptAction
	protocol gomilter.OptProtocol
	skipped  bool // the milter wants no more of the body
}

// dial connects without a word.
func (tr *trial) dial() *mta {
	tr.t.Helper()
	c := tr.Dial()
	return &mta{t: tr.t, Conn: c, r: bufio.NewReader(c)}
}

// postfix opens a session as Postfix does for a client at 203.0.113.9:50412.
func (tr *trial) postfix() *mta {
	tr.t.Helper()
	m := tr.dial()
	m.negotiate(postfixActions, postfixProtocol)
	m.connect("203.0.113.9", 50412)
	return m
}

func (m *mta) negotiate(actions, protocol uint32) {
	m.t.Helper()
	m.send(gomilter.CodeOptNeg, string(offer(actions, protocol)))
	code, data := m.receive()
	if code != 'O' || len(data) != 12 {
		m.t.Fatalf("negotiation: %c %q", code, data)
	}
	m.actions = gomilter.OptAction(binary.BigEndian.Uint32(data[4:]))
	m.protocol = gomilter.OptProtocol(binary.BigEndian.Uint32(data[8:]))
}

// offer is the data of an MTA's first packet.
func offer(actions, protocol uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 6), actions), protocol)
}

func (m *mta) connect(ip string, port uint16) {
	m.t.Helper()
	m.macros(gomilter.CodeConn, "j", "mx.example.org")
	m.connected(ip, port)
}

// connected reports a client after the macros.
func (m *mta) connected(ip string, port uint16) {
	m.t.Helper()
	family := "4"
	if strings.Contains(ip, ":") {
		family = "6"
	}
	m.send(gomilter.CodeConn, "unknown\x00"+family+string(binary.BigEndian.AppendUint16(nil, port))+ip+"\x00")
	if m.protocol&gomilter.OptNoConnReply == 0 {
		m.expect("c")
	}
}

// packet appends a packet to dst.
func packet(dst []byte, code gomilter.Code, data string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(data)+1))
	return append(append(dst, byte(code)), data...)
}

func (m *mta) send(code gomilter.Code, data string) {
	m.t.Helper()
	m.out = packet(m.out[:0], code, data)
	if _, err := m.Write(m.out); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mta) macros(code gomilter.Code, namesAndValues ...string) {
	m.t.Helper()
	m.send(gomilter.CodeMacro, string(rune(code))+strings.Join(append(namesAndValues, ""), "\x00"))
}

func (m *mta) receive() (code byte, data []byte) {
	m.t.Helper()
	var head [5]byte
	if _, err := io.ReadFull(m.r, head[:]); err != nil {
		m.t.Fatalf("no answer: %v", err)
	}
	data = make([]byte, binary.BigEndian.Uint32(head[:])-1)
	if _, err := io.ReadFull(m.r, data); err != nil {
		m.t.Fatalf("half an answer: %v", err)
	}
	return head[4], data
}

// expect reads answers: a letter for one without data, else the letter, a space and the data with |
// for NUL.
func (m *mta) expect(want ...string) {
	m.t.Helper()
	for _, w := range want {
		code, data := m.receive()
		got := string(rune(code))
		if len(data) > 0 {
			got += " " + strings.TrimSuffix(strings.ReplaceAll(string(data), "\x00", "|"), "|")
		}
		if got != w {
			m.t.Errorf("got %q, want %q", got, w)
		}
	}
}

// expectClosed checks that the connection ends without another word.
func (m *mta) expectClosed() {
	m.t.Helper()
	servingtest.ExpectClosed(m.t, m.r)
}

// mail begins a message; login "" means a session that did not authenticate.
func (m *mta) mail(login, from string) {
	m.t.Helper()
	if login == "" {
		m.macros(gomilter.CodeMail, "{mail_addr}", from)
	} else {
		m.macros(gomilter.CodeMail, "{auth_type}", "PLAIN", "{auth_authen}", login, "{mail_addr}", from)
	}
	m.send(gomilter.CodeMail, "<"+from+">\x00SIZE=100\x00")
}

// headers sends header fields, each "Name: value", and their end.
func (m *mta) headers(fields ...string) {
	m.t.Helper()
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		m.send(gomilter.CodeHeader, name+"\x00"+strings.TrimPrefix(value, " ")+"\x00")
		if m.protocol&gomilter.OptNoHeaderReply == 0 {
			m.expect("c")
		}
	}
	m.macros(gomilter.CodeEOH, "i", "4F1B986051")
	m.send(gomilter.CodeEOH, "")
}

// end ends the message.
func (m *mta) end() {
	m.t.Helper()
	m.macros(gomilter.CodeEOB, "i", "4F1B986051")
	m.send(gomilter.CodeEOB, "")
}

// script is a connection that says what was written beforehand.
type script struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (s *script) Read(b []byte) (int, error)     { return s.in.Read(b) }
func (s *script) Write(b []byte) (int, error)    { return s.out.Write(b) }
func (*script) Close() error                     { return nil }
func (*script) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (*script) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (*script) SetDeadline(time.Time) error      { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }

// answers are the letters of what was written.
func (s *script) answers() (string, error) {
	var codes strings.Builder
	for out := s.out.Bytes(); len(out) > 0; {
		if len(out) < 5 || int(binary.BigEndian.Uint32(out)) > len(out)-4 {
			return "", fmt.Errorf("half an answer: %q", out)
		}
		codes.WriteByte(out[4])
		out = out[4+binary.BigEndian.Uint32(out):]
	}
	return codes.String(), nil
}
