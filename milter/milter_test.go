package milter

import (
	"bytes"
	"io"
	"log"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gomilter "github.com/emersion/go-milter"
	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/serving/servingtest"
)

const (
	ann = "ann@example.org"

	foreignSender = "y 550 5.7.1 The sender address eve@example.org does not belong to your account: send as ann@example.org, or ask for permission to use it."
	foreignFrom   = "y 550 5.7.1 The address eve@example.org in the From header does not belong to your account: write ann@example.org, or ask for permission to use it."
	two           = "y 550 5.7.1 The message has 2 From headers: write one, From: ann@example.org"
	missing       = "y 550 5.7.1 The message has no From header: write From: ann@example.org"
	unreadable    = "y 550 5.7.1 The From header cannot be read (CAUSE): write From: ann@example.org"
)

func TestChoose(t *testing.T) {
	const (
		spared  = gomilter.OptNoHelo | gomilter.OptNoRcptTo | gomilter.OptNoBody
		later   = gomilter.OptNoUnknown | gomilter.OptNoData | gomilter.OptNoHeaderReply | gomilter.OptNoRcptReply
		headers = gomilter.OptNoHeaders | gomilter.OptNoEOH
		changes = gomilter.OptAddHeader | gomilter.OptChangeHeader
	)
	for _, c := range []struct {
		name              string
		headers           bool
		actions, protocol uint32
		want              options
	}{
		{"Postfix, headers wanted", true, postfixActions, postfixProtocol, options{changes, spared | later}},
		{"Postfix, no rule wants any", false, postfixActions, postfixProtocol, options{changes, spared | later | headers}},
		{"an MTA of version 2", false, 0x3f, 0x7f, options{changes, spared | headers}},
		{"an MTA that lets nothing be changed", true, 0, postfixProtocol, options{0, spared | later}},
		{"an MTA that offers nothing", false, 0, 0, options{0, 0}},
	} {
		if got := choose(mailflow.Needs{Headers: c.headers}, offer(c.actions, c.protocol)); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

// What is agreed goes over the wire, and bodies never are asked for.
func TestNegotiation(t *testing.T) {
	m := start(t, checking(mailflow.CheckBoth, "")).postfix()
	if m.protocol&gomilter.OptNoBody == 0 || m.protocol&gomilter.OptNoHeaders != 0 || m.protocol&^postfixProtocol != 0 {
		t.Errorf("rules that want headers: protocol %#x", m.protocol)
	}
	m = start(t, checking(mailflow.CheckEnvelope, "")).postfix()
	if m.protocol&gomilter.OptNoBody == 0 || m.protocol&gomilter.OptNoHeaders == 0 {
		t.Errorf("rules that want no headers: protocol %#x", m.protocol)
	}
}

func TestEnvelope(t *testing.T) {
	m := start(t, checking(mailflow.CheckEnvelope, "")).postfix()
	for _, c := range []struct{ login, from, want string }{
		{ann, "ann@example.org", "a"},
		{ann, "eve@example.org", foreignSender},
		{ann, "sales@example.net", "a"},
		{ann, "", "a"},
		{ann, "@relay.example:ann@example.org", "a"},
		{"", "eve@example.org", "a"},
		{ann, "eve@example.org", foreignSender},
	} {
		m.mail(c.login, c.from)
		m.expect(c.want)
		m.send(gomilter.CodeAbort, "")
	}
}

// A session that may no longer send is refused when its message has been received.
func TestSessionEndsDuringMessage(t *testing.T) {
	for name, c := range map[string]struct {
		d    access.Decision
		want string
	}{
		"revoked":         {access.Decision{Outcome: access.Deny, Reason: access.ReasonRevokedSecret}, "y " + reauthenticate},
		"enforced":        {access.Decision{Outcome: access.Deny, Reason: access.ReasonSecureRequired, Message: "x"}, "y " + reauthenticate},
		"suspended":       {access.Decision{Outcome: access.Deny, Reason: access.ReasonSuspended, Message: "This account is suspended."}, "y 550 5.7.1 This account is suspended."},
		"without a text":  {access.Decision{Outcome: access.Deny, Reason: access.ReasonPolicy}, "y 550 5.7.1 Access denied."},
		"unknown for now": {access.Decision{Outcome: access.TempFail}, "y " + unknown},
		"next passdb's":   {access.Decision{Outcome: access.Next}, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			gate := checking(mailflow.CheckBoth, "")
			gate.decision = c.d
			m := start(t, gate).postfix()
			m.mail(ann, "ann@example.org")
			m.expect("c")
			m.headers("From: ann@example.org")
			m.expect(c.want)
		})
	}
	if got := ended(&access.Decision{}); got != unknown {
		t.Errorf("the zero decision is answered %q", got)
	}
}

func TestHeaderFrom(t *testing.T) {
	m := start(t, checking(mailflow.CheckBoth, "")).postfix()
	for _, c := range []struct {
		fields []string
		want   string
	}{
		{[]string{"Received: x", "From: Ann <ann@example.org>", "Subject: y"}, "a"},
		{[]string{"Subject: no From at all"}, missing},
		{[]string{"From: ann@example.org", "Sender: eve@example.org"}, strings.Replace(foreignFrom, "From", "Sender", 1)},
		{[]string{"From: ann@example.org", "Resent-From: eve@example.org"}, strings.Replace(foreignFrom, "From", "Resent-From", 1)},
		{[]string{"From: ann@example.org", "From: sales@example.net"}, two},
		{[]string{"From: ann@example.org", "From: eve@example.org"}, foreignFrom},
		{[]string{"From: ann@example.org, eve@example.org"}, foreignFrom},
		{[]string{"fRoM: eve@example.org"}, strings.Replace(foreignFrom, "From", "fRoM", 1)},
		{[]string{"From \t: eve@example.org"}, foreignFrom},
		{[]string{"From: Ann\n <eve@example.org>"}, foreignFrom},
		{[]string{"From: Team: ann@example.org, eve@example.org;"}, foreignFrom},
		{[]string{`From: "<eve@example.org>" <ann@example.org>`}, foreignFrom},
		{[]string{"From: ann@[192.0.2.1]"}, strings.Replace(foreignFrom, "eve@example.org", "ann@[192.0.2.1]", 1)},
		{[]string{"From: änn@example.org"}, strings.Replace(foreignFrom, "eve@example.org", "?nn@example.org", 1)},
		{[]string{"From:"}, strings.Replace(unreadable, "CAUSE", "it names no mailbox", 1)},
		{[]string{"From: nonsense"}, strings.Replace(unreadable, "CAUSE", "octet 9: unexpected character or end", 1)},
		{[]string{"From: ann@example.org", "From: ann@example.org\neve@example.org"}, strings.Replace(unreadable, "CAUSE", "control character U+000A", 1)},
		{[]string{"From: B\xfcro <ann@example.org>"}, "a"},
		{[]string{"From: <ann@example.org> " + strings.Repeat("(x)", mailflow.MaxHeader/3)}, strings.Replace(unreadable, "CAUSE", "the originator fields are longer than 65536 octets", 1)},
		{many(40, "From: ann@example.org"+strings.Repeat(" ", 2000)), strings.Replace(unreadable, "CAUSE", "the originator fields are longer than 65536 octets", 1)},
		{[]string{"From: ann@example.org", "X-From: eve@example.org", "Fromage: eve@example.org"}, "a"},
	} {
		m.mail(ann, ann)
		m.expect("c")
		m.headers(c.fields...)
		m.expect(c.want)
		m.send(gomilter.CodeAbort, "")
	}
	m.mail(ann, "") // a read receipt
	m.expect("c")
	m.headers("From: eve@example.org")
	m.expect(foreignFrom)
}

func many(n int, field string) []string {
	fields := make([]string, n)
	for i := range fields {
		fields[i] = field
	}
	return fields
}

// An MTA that leaves out the end of the header gets its answer at the end.
func TestHeaderFromWithoutItsEnd(t *testing.T) {
	m := start(t, checking(mailflow.CheckBoth, "")).postfix()
	m.mail(ann, ann)
	m.expect("c")
	m.send(gomilter.CodeHeader, "From\x00eve@example.org\x00")
	m.end()
	m.expect(foreignFrom)
}

// An MTA that goes on all the same does not get around the refusal.
func TestRefusedStaysRefused(t *testing.T) {
	m := start(t, checking(mailflow.CheckBoth, "third-party")).postfix()
	m.mail(ann, "eve@example.org")
	m.expect(foreignSender)
	m.headers("From: ann@example.org")
	m.expect(foreignSender)
	m.end()
	m.expect(foreignSender)
	m.mail(ann, ann)
	m.expect("c")
	m.headers("From: eve@example.org")
	m.expect(foreignFrom)
	m.end()
	m.expect(foreignFrom)
}

// Nothing of one message may linger in the next, whichever way it ended.
func TestManyMessagesInASession(t *testing.T) {
	m := start(t, checking(mailflow.CheckBoth, "")).postfix()
	for range 3 {
		m.mail(ann, ann)
		m.expect("c")
		m.headers("From: eve@example.org")
		m.expect(foreignFrom)
		m.send(gomilter.CodeAbort, "")
		m.send(gomilter.CodeAbort, "") // Postfix sends two

		m.mail(ann, ann)
		m.expect("c")
		m.headers("From: ann@example.org")
		m.expect("a")

		m.mail(ann, ann) // no abort between
		m.expect("c")
		m.send(gomilter.CodeHeader, "From\x00eve@example.org\x00")
		m.send(gomilter.CodeAbort, "")

		m.mail("", "eve@example.net")
		m.expect("c")
		m.headers("From: eve@example.net")
		m.expect("a")

		m.mail(ann, ann)
		m.expect("c")
		m.headers("Subject: x")
		m.expect(missing) // the From of the message before is forgotten
		m.send(gomilter.CodeAbort, "")
	}
}

func TestTrace(t *testing.T) {
	const (
		insert  = "i \x00\x00\x00\x00X-Drawbridge-Client|third-party; credential=\"My iPhone\""
		remove1 = "m \x00\x00\x00\x01X-Drawbridge-Client|"
		remove2 = "m \x00\x00\x00\x02X-Drawbridge-Client|"
	)
	// expect shows NUL as |, in numbers too.
	show := func(s string) string { return strings.ReplaceAll(s, "\x00", "|") }

	const trace = `third-party; credential="My iPhone"`
	t.Run("headers are seen", func(t *testing.T) {
		m := start(t, checking(mailflow.CheckBoth, trace)).postfix()
		m.mail(ann, ann)
		m.expect("c")
		m.headers("X-Drawbridge-Client: web", "From: ann@example.org", "x-drawbridge-client : web")
		m.expect("c")
		m.end()
		m.expect(show(remove2), show(remove1), show(insert), "a")

		m.mail("", "eve@example.net") // not authenticated: removed, and none added
		m.expect("c")
		m.headers("X-Drawbridge-Client: web")
		m.expect("c")
		m.end()
		m.expect(show(remove1), "a")
	})
	t.Run("headers are not seen", func(t *testing.T) {
		m := start(t, checking(mailflow.CheckEnvelope, trace)).postfix()
		m.mail(ann, ann)
		m.expect("c")
		m.end()
		m.expect(show(insert), "a")
	})
	t.Run("changes are not offered", func(t *testing.T) {
		m := start(t, checking(mailflow.CheckBoth, trace)).dial()
		m.negotiate(0, postfixProtocol)
		m.connect("203.0.113.9", 50412)
		m.mail(ann, ann)
		m.expect("c")
		m.headers("X-Drawbridge-Client: web", "From: ann@example.org")
		m.expect("c")
		m.end()
		m.expect("a")
	})
	t.Run("too many", func(t *testing.T) {
		m := start(t, checking(mailflow.CheckBoth, trace)).postfix()
		m.mail("", "eve@example.net")
		m.expect("c")
		m.headers(many(1000, "X-Drawbridge-Client: web")...)
		m.expect("y 550 5.7.1 The message has too many X-Drawbridge-Client headers.")
	})
}

func TestRulesThatConcernNobody(t *testing.T) {
	m := start(t, &rules{submitter: func(string, netip.AddrPort) mailflow.Submitter { return mailflow.Submitter{} }}).postfix()
	for range 3 {
		m.mail(ann, "eve@example.net")
		m.expect("a")
		m.send(gomilter.CodeAbort, "")
	}
}

func TestUnavailable(t *testing.T) {
	r := checking(mailflow.CheckBoth, "")
	r.submitter = func(string, netip.AddrPort) mailflow.Submitter { return mailflow.Submitter{Unavailable: true} }
	m := start(t, r).postfix()
	m.mail(ann, ann)
	m.expect("y 451 4.7.1 The sender cannot be checked now, please try again later.")
}

// A session that opened before a rule wanted headers cannot be checked by it.
func TestRulesTightenedMeanwhile(t *testing.T) {
	r := checking(mailflow.CheckBoth, "")
	r.needs.Headers = false
	m := start(t, r).postfix()
	m.mail(ann, ann)
	m.expect("y 421 4.7.1 The rules have changed, please connect again.")
	m.send(gomilter.CodeAbort, "")
	m.mail("", "eve@example.net")
	m.expect("a")
}

func TestClient(t *testing.T) {
	var got netip.AddrPort
	connected := make(chan netip.AddrPort, 16)
	tr := start(t, &rules{connected: connected, submitter: func(login string, client netip.AddrPort) mailflow.Submitter {
		if login != ann {
			t.Errorf("login %q", login)
		}
		got = client
		return mailflow.Submitter{}
	}})
	for _, c := range []struct {
		connect string // packet
		macros  []string
		want    string
	}{
		{"4\x00\x19203.0.113.9\x00", nil, "203.0.113.9:25"},
		{"6\x00\x192001:db8::9\x00", nil, "[2001:db8::9]:25"},
		{"6\x00\x19::ffff:203.0.113.9\x00", nil, "203.0.113.9:25"},
		{"4\x00\x19203.0.113.9\x00", []string{"{client_addr}", "192.0.2.7", "{client_port}", "587"}, "192.0.2.7:587"},
		{"4\x00\x19203.0.113.9\x00", []string{"{client_addr}", "IPv6:2001:db8::7"}, "[2001:db8::7]:25"},
		{"4\x00\x19203.0.113.9\x00", []string{"{client_addr}", "unknown", "{client_port}", "70000"}, "203.0.113.9:25"},
		{"4\x00\x19unknown\x00", nil, "invalid AddrPort"},
		{"U", nil, "invalid AddrPort"},
		{"L/run/socket\x00", nil, "invalid AddrPort"},
	} {
		m := tr.dial()
		m.negotiate(postfixActions, postfixProtocol)
		m.send(gomilter.CodeConn, "host\x00"+c.connect)
		m.expect("c")
		told := len(connected) > 0
		if told != strings.ContainsAny(c.connect[:1], "46") {
			t.Errorf("%q: connection told: %v", c.connect, told)
		}
		if told {
			if at := <-connected; c.macros == nil && at.String() != c.want {
				t.Errorf("%q: connected %v, want %s", c.connect, at, c.want)
			}
		}
		for range 2 { // the connection is remembered from one message to the next
			m.macros(gomilter.CodeMail, append(c.macros, "{auth_authen}", ann)...)
			m.send(gomilter.CodeMail, "<ann@example.org>\x00")
			m.expect("a")
			if got.String() != c.want {
				t.Errorf("%q %q: %v, want %s", c.connect, c.macros, got, c.want)
			}
			m.send(gomilter.CodeAbort, "")
		}
	}
}

// The library's own client stands for MTAs of version 2: they want an answer to everything.
func TestVersion2(t *testing.T) {
	tr := start(t, checking(mailflow.CheckBoth, "third-party"))
	c := gomilter.NewClientWithOptions("unix", tr.Socket, gomilter.ClientOptions{
		ReadTimeout: servingtest.Patience, WriteTimeout: servingtest.Patience, ActionMask: 0x3f, ProtocolMask: 0x7f,
	})
	s, err := c.Session()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	step := func(want gomilter.ActionCode, a *gomilter.Action, err error) {
		t.Helper()
		if err != nil || a.Code != want {
			t.Fatalf("got %+v, %v, want %c", a, err, want)
		}
	}
	message := func(from string) (*gomilter.Action, error) {
		t.Helper()
		a, err := s.Conn("unknown", gomilter.FamilyInet, 25, "203.0.113.9")
		step(gomilter.ActContinue, a, err)
		if err := s.Macros(gomilter.CodeMail, "{auth_authen}", ann); err != nil {
			t.Fatal(err)
		}
		a, err = s.Mail(ann, nil)
		step(gomilter.ActContinue, a, err)
		a, err = s.Rcpt("bob@example.net", nil)
		step(gomilter.ActContinue, a, err)
		a, err = s.HeaderField("Subject", "x")
		step(gomilter.ActContinue, a, err)
		a, err = s.HeaderField("From", from)
		step(gomilter.ActContinue, a, err)
		return s.HeaderEnd()
	}
	a, err := message("eve@example.org")
	step(gomilter.ActReplyCode, a, err)
	if a.SMTPCode != 550 || a.SMTPText != strings.TrimPrefix(foreignFrom, "y 550 ") {
		t.Errorf("got %+v", a)
	}
	a, err = message("ann@example.org")
	step(gomilter.ActContinue, a, err)
	changes, a, err := s.BodyReadFrom(strings.NewReader("hello\r\n"))
	step(gomilter.ActAccept, a, err)
	if len(changes) != 1 || changes[0].Code != gomilter.ActInsertHeader || changes[0].HeaderValue != "third-party" {
		t.Errorf("changes: %+v", changes)
	}
}

func TestReplyEscapes(t *testing.T) {
	if got := string(reply("550 100% of it").Response().Data); got != "550 100%% of it\x00" {
		t.Errorf("got %q", got)
	}
}

func TestMalformedPacketClosesTheConnection(t *testing.T) {
	tr := start(t, checking(mailflow.CheckBoth, ""))
	first := func(b []byte) []byte { return b }
	then := func(b []byte) []byte {
		return append(packet(nil, gomilter.CodeOptNeg, string(offer(postfixActions, postfixProtocol))), b...)
	}
	n := 0
	for name, b := range map[string][]byte{
		"HTTP":                     first([]byte("GET / HTTP/1.1\r\n\r\n")),
		"no negotiation":           first(packet(nil, gomilter.CodeMail, "<ann@example.org>\x00")),
		"negotiation cut short":    first(packet(nil, gomilter.CodeOptNeg, "\x00\x00\x00\x06")),
		"first too long":           first([]byte("\xff\xff\xff\xffO")),
		"no octets":                then([]byte{0, 0, 0, 0}),
		"too long":                 then([]byte{0, 0x10, 0, 1, 'B'}),
		"4 GiB":                    then([]byte("\xff\xff\xff\xffL")),
		"unknown command":          then(packet(nil, '\x7f', "")),
		"of version 6":             then(packet(nil, gomilter.CodeQuitNewConn, "")),
		"macros for nothing":       then(packet(nil, gomilter.CodeMacro, "")),
		"macros without an end":    then(packet(nil, gomilter.CodeMacro, "M{auth_authen}\x00ann")),
		"connect without a host":   then(packet(nil, gomilter.CodeConn, "host")),
		"connect without a family": then(packet(nil, gomilter.CodeConn, "host\x00")),
		"connect, other family":    then(packet(nil, gomilter.CodeConn, "host\x00X\x00\x00x\x00")),
		"connect without a port":   then(packet(nil, gomilter.CodeConn, "host\x004\x00")),
		"connect without an end":   then(packet(nil, gomilter.CodeConn, "host\x004\x00\x19192.0.2.1")),
		"MAIL without an address":  then(packet(nil, gomilter.CodeMail, "")),
		"MAIL without an end":      then(packet(nil, gomilter.CodeMail, "<ann@example.org>")),
		"header without a name":    then(packet(nil, gomilter.CodeHeader, "\x00eve@example.org\x00")),
		"header without a value":   then(packet(nil, gomilter.CodeHeader, "From\x00")),
		"header without an end":    then(packet(nil, gomilter.CodeHeader, "From\x00eve@example.org")),
		"NUL in a header":          then(packet(nil, gomilter.CodeHeader, "From\x00ann@example.org\x00, eve@example.org\x00")),
	} {
		m := tr.dial()
		if _, err := m.Write(b); err != nil {
			t.Fatal(err)
		}
		if len(b) > 17 && b[4] == 'O' {
			m.expect("O " + strings.ReplaceAll("\x00\x00\x00\x02\x00\x00\x00\x11\x00\x00\x83\x9a", "\x00", "|"))
		}
		m.expectClosed()
		n++
		tr.eventually(func() bool { return strings.Count(tr.Log.String(), "\n") == n }, name+" is not logged")
	}
	log := tr.Log.String()
	if strings.Count(log, "milter packet refused") != n || strings.ContainsFunc(log, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
		t.Errorf("log: %q", log)
	}
}

// eventually waits for what another goroutine does.
func (tr *trial) eventually(done func() bool, otherwise string) {
	tr.t.Helper()
	for deadline := time.Now().Add(servingtest.Patience); !done(); {
		if time.Now().After(deadline) {
			tr.t.Fatal(otherwise)
		}
		<-time.After(time.Millisecond)
	}
}

// A dialogue that breaks off anywhere is neither a crash nor an admission.
func TestTruncated(t *testing.T) {
	var whole []byte
	whole = packet(whole, gomilter.CodeOptNeg, string(offer(postfixActions, postfixProtocol)))
	whole = packet(whole, gomilter.CodeConn, "host\x004\x00\x19203.0.113.9\x00")
	whole = packet(whole, gomilter.CodeMacro, "M{auth_authen}\x00"+ann+"\x00")
	whole = packet(whole, gomilter.CodeMail, "<ann@example.org>\x00")
	whole = packet(whole, gomilter.CodeHeader, "From\x00ann@example.org\x00")
	whole = packet(whole, gomilter.CodeEOH, "")
	for n := range len(whole) {
		if answers := play(t, checking(mailflow.CheckBoth, ""), whole[:n]); strings.Contains(answers, "a") {
			t.Errorf("%d octets: %s", n, answers)
		}
	}
	if answers := play(t, checking(mailflow.CheckBoth, ""), whole); answers != "Occa" {
		t.Errorf("all of it: %s", answers)
	}
}

// play lets a server answer what an MTA says, and returns the answers' letters.
func play(t testing.TB, gate Gate, said []byte) string {
	t.Helper()
	sc := &script{in: bytes.NewReader(said)}
	c := newConn(sc)
	(&Server{Gate: gate, Log: hclog.NewNullLogger()}).serve(c)
	answers, err := sc.answers()
	if err != nil {
		t.Error(err)
	}
	return answers
}

func TestPanicEndsOneConnectionOnly(t *testing.T) {
	var library servingtest.Journal
	log.SetOutput(&library)
	t.Cleanup(func() { log.SetOutput(io.Discard) })
	crash := true
	tr := start(t, &rules{submitter: func(login string, _ netip.AddrPort) mailflow.Submitter {
		if login == "crash" {
			panic("at the disco")
		}
		return mailflow.Submitter{}
	}})
	other, m := tr.postfix(), tr.postfix()
	m.mail("crash", ann)
	m.expectClosed()
	if !strings.Contains(library.String(), "at the disco") {
		t.Errorf("the library reports %q", library.String())
	}
	other.mail(ann, ann)
	other.expect("a")

	tr = start(t, panicking{&crash})
	m = tr.dial()
	m.send(gomilter.CodeOptNeg, string(offer(postfixActions, postfixProtocol)))
	m.expectClosed()
	tr.eventually(func() bool { return strings.Contains(tr.Log.String(), "panic") }, "the panic is not logged")
	crash = false
	tr.postfix()
}

// panicking is a gate that does not even know what it needs.
type panicking struct{ crash *bool }

func (p panicking) Needs() mailflow.Needs {
	if *p.crash {
		panic("at the disco")
	}
	return mailflow.Needs{}
}

func (panicking) Connected(netip.Addr, uint16) func()          { return func() {} }
func (panicking) Submission(access.Submission) access.Decision { return access.Decision{} }

func (panicking) Submitter(access.Submission) mailflow.Submitter {
	return mailflow.Submitter{}
}

func TestStopAnswersWhatIsInFlight(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	tr := start(t, &rules{submitter: func(string, netip.AddrPort) mailflow.Submitter {
		close(asked)
		<-answer
		return mailflow.Submitter{Unavailable: true}
	}})
	silent, idle, busy := tr.dial(), tr.postfix(), tr.postfix()
	idle.mail("", "eve@example.net")
	idle.expect("a")
	busy.mail(ann, ann)
	<-asked
	tr.Stop()
	idle.expectClosed()
	silent.expectClosed()
	tr.ExpectRefused()
	close(answer)
	busy.expect("y 451 4.7.1 The sender cannot be checked now, please try again later.")
	busy.expectClosed()
	if err := tr.Wait(); err != nil {
		t.Error(err)
	}
	if log := tr.Log.String(); strings.Contains(log, "panic") {
		t.Errorf("log: %q", log)
	}
}

func TestRefusalIsLogged(t *testing.T) {
	tr := start(t, checking(mailflow.CheckBoth, ""))
	m := tr.postfix()
	m.mail(ann, "eve\"\xff\n ip=192.0.2.1@example.org")
	m.expect(strings.Replace(foreignSender, "eve@", `eve"?? ip=192.0.2.1@`, 1))
	m.mail(ann, ann)
	m.expect("c")
	m.headers("From: (")
	m.expect(strings.Replace(unreadable, "CAUSE", "octet 2: comment that does not end", 1))
	log := tr.Log.String()
	for _, want := range []string{
		`user=ann@example.org ip=203.0.113.9 sender="eve\"\xff\n ip=192.0.2.1@example.org" reply="550 5.7.1 The sender`,
		`queue_id=4F1B986051 cause="octet 2: comment that does not end"`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("log lacks %s:\n%s", want, log)
		}
	}
	if strings.Count(log, "\n") != 2 {
		t.Errorf("log: %q", log)
	}
}

// The gate is told when a session has ended, however that came.
func TestSessionEnds(t *testing.T) {
	r := checking(mailflow.CheckBoth, "")
	r.connected, r.ended = make(chan netip.AddrPort, 4), make(chan netip.AddrPort, 4)
	tr := start(t, r)
	for name, end := range map[string]func(*mta){
		"quit":     func(m *mta) { m.send(gomilter.CodeQuit, "") },
		"hung up":  func(m *mta) { _ = m.Close() },
		"nonsense": func(m *mta) { m.send(gomilter.CodeMail, "") },
	} {
		m := tr.postfix()
		began := <-r.connected
		if len(r.ended) > 0 {
			t.Errorf("%s: a session has ended that is open", name)
		}
		end(m)
		select {
		case ended := <-r.ended:
			if ended != began {
				t.Errorf("%s: %v ended, want %v", name, ended, began)
			}
		case <-time.After(servingtest.Patience):
			t.Fatalf("%s: not told", name)
		}
	}
}

// A peer that stays silent, from the start or after its offer, is dropped after five seconds; one
// that greeted may be silent for as long as a slow client's message takes.
func TestSilentPeer(t *testing.T) {
	offer := packet(nil, gomilter.CodeOptNeg, string([]byte{0, 0, 0, 6, 0, 0, 1, 0xff, 0, 0x1f, 0xff, 0xff}))
	connect := packet(nil, gomilter.CodeConn, "client.example.com\x004\x00\x19192.0.2.1\x00")
	for name, c := range map[string]struct {
		said [][]byte
		want time.Duration
	}{
		"from the start":   {nil, greetTimeout},
		"after its offer":  {[][]byte{offer}, greetTimeout},
		"after it greeted": {[][]byte{offer, connect}, idleTimeout},
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			s := &Server{Gate: checking(mailflow.CheckBoth, ""), Log: hclog.NewNullLogger()}
			go func() {
				s.serve(newConn(ours))
				_ = ours.Close() // as package serving does
			}()
			go func() {
				for _, p := range c.said {
					_, _ = theirs.Write(p)
				}
			}()
			start := time.Now()
			_, _ = io.Copy(io.Discard, theirs)
			if got := time.Since(start); got != c.want {
				t.Errorf("silent %s: dropped after %v, want %v", name, got, c.want)
			}
			_ = theirs.Close()
		})
	}
}

// Mail that nobody authenticated for does not pass while the rules are not known, and does once
// they are.
func TestRulesNotLoaded(t *testing.T) {
	var needs atomic.Pointer[mailflow.Needs]
	needs.Store(&mailflow.Needs{Recipients: true, Headers: true, Body: true, Unknown: true})
	r := checking(mailflow.CheckBoth, "")
	r.later = needs.Load
	m := start(t, r).postfix()
	m.mail("", "eve@example.net")
	m.expect("y " + unjudged)
	m.send(gomilter.CodeAbort, "")
	needs.Store(&mailflow.Needs{})
	m.mail("", "eve@example.net")
	m.expect("c")
}

// Rules about envelope and header cost two answers a message: to MAIL, and to its end.
func TestAnswersThatNoRuleNeeds(t *testing.T) {
	rules := permissive{make(chan judged, 10)}
	gate := checking(mailflow.CheckBoth, "")
	gate.needs.Recipients = true
	tr := &trial{servingtest.Start(t, func(log hclog.Logger) servingtest.Server {
		return &Server{Gate: gate, Rules: rules, Log: log}
	}), t}
	for protocol, agreed := range map[uint32]gomilter.OptProtocol{postfixProtocol: gomilter.OptNoRcptReply | gomilter.OptNoEOHReply, 0x7f: 0} {
		m := tr.dial()
		m.negotiate(postfixActions, protocol)
		m.connect("203.0.113.9", 50412)
		if got := m.protocol & (gomilter.OptNoRcptReply | gomilter.OptNoEOHReply); got != agreed {
			t.Errorf("protocol %#x: %#x", protocol, got)
		}
		for _, c := range []struct{ from, want string }{{ann, "a"}, {"eve@example.org", foreignFrom}, {ann, "a"}} {
			m.mail(ann, ann)
			m.expect("c")
			m.send(gomilter.CodeRcpt, "<bob@example.org>\x00")
			if agreed == 0 {
				m.expect("c")
			}
			m.headers("From: " + c.from)
			if agreed == 0 {
				if c.want != "a" {
					m.expect(c.want)
					m.send(gomilter.CodeAbort, "")
					continue
				}
				m.expect("c")
			}
			m.end()
			m.expect(c.want)
			m.send(gomilter.CodeAbort, "")
		}
	}
	if n := len(rules.judged); n != 4 {
		t.Errorf("%d messages were judged", n)
	}
}

// outgoingTo refuses recipients that mailboxes may not forward to.
type outgoingTo struct {
	envelopes
	asked chan mailflow.Envelope
}

func (o outgoingTo) Forwarded(e *mailflow.Envelope) (v mailflow.Verdict) {
	o.asked <- *e
	v.Refused = strings.HasPrefix(e.Recipient, "no") && e.Redirected != e.Recipient
	return v
}

// Recipients of a message that is passed on are removed without a bounce, and a message that none is
// left of is discarded. Only what Postfix itself writes at the head names the mailbox.
func TestPassedOn(t *testing.T) {
	gate := checking(mailflow.CheckBoth, "")
	gate.needs = mailflow.Needs{Recipients: true, Headers: true, Body: true}
	out := outgoingTo{asked: make(chan mailflow.Envelope, 10)}
	tr := &trial{servingtest.Start(t, func(log hclog.Logger) servingtest.Server {
		return &Server{Gate: gate, Rules: permissive{}, Envelopes: out, Log: log}
	}), t}
	m := tr.dial()
	m.negotiate(postfixActions, postfixProtocol)
	m.macros(gomilter.CodeConn, "{daemon_name}", outgoing)
	m.connected("127.0.0.1", 1)
	const byForward = "Received: by mx.example.org (Postfix)\n\tid 1; now"
	for _, c := range []struct {
		rcpt    []string
		header  []string
		mailbox string
		want    []string
	}{
		{[]string{"<yes@example.net>\x00ORCPT=rfc822;ann@example.org\x00"}, []string{byForward, "Delivered-To: bob@example.org", "Delivered-To: eve@example.net"}, "bob@example.org", []string{"a"}},
		{[]string{"<no@example.net>\x00ORCPT=rfc822;ann@example.org\x00"}, []string{"Received: from client", "Delivered-To: eve@example.net"}, "", []string{"d"}},
		{[]string{"<no@example.net>\x00ORCPT=rfc822;ann@example.org\x00", "<yes@example.net>\x00"}, []string{"Subject: x", byForward, "Delivered-To: eve@example.net"}, "", []string{"- <no@example.net>", "a"}},
		{[]string{"<no@example.net>\x00ORCPT=rfc822;ann@example.org\x00", "<no@example.net>\x00ORCPT=rfc822;no@example.net\x00"}, nil, "", []string{"a"}},
	} {
		m.mail("", "eve@example.net")
		m.expect("c")
		for _, r := range c.rcpt {
			m.send(gomilter.CodeRcpt, r)
		}
		m.headers(c.header...)
		m.expect("c")
		m.skipped = false
		m.body(60_000)
		m.end()
		m.expect(c.want...)
		m.send(gomilter.CodeAbort, "")
		for range c.rcpt {
			if e := <-out.asked; e.Delivered != c.mailbox {
				t.Errorf("%v: the mailbox is %q, not %q", c.header, e.Delivered, c.mailbox)
			}
		}
	}
}

// The original recipient of a forwarded message is decoded as RFC 3461 writes it.
func TestOriginalRecipient(t *testing.T) {
	for _, c := range []struct{ param, want string }{
		{"ORCPT=rfc822;ann@example.org", "ann@example.org"},
		{"orcpt=RFC822;ann+2Bx+3Dy@example.org", "ann+x=y@example.org"},
		{"ORCPT=utf-8;ann@example.org", "ann@example.org"},
		{"ORCPT=rfc822;ann+", "ann+"},
		{"ORCPT=x400;ann@example.org", ""},
		{"ORCPT", ""},
		{"NOTIFY=NEVER", ""},
	} {
		if got := originalRecipient([]string{"NOTIFY=NEVER", c.param}); got != c.want {
			t.Errorf("%s: %q, want %q", c.param, got, c.want)
		}
	}
}

// identified notes the reported Message-IDs by queue id.
type identified struct {
	permissive
	ids chan string
}

func (i identified) Identified(queueID, id string) { i.ids <- queueID + " " + id }

// Without a rule only the Message-ID and fields named as ours are looked at.
func TestMessageIDWithoutRules(t *testing.T) {
	gate := checking(mailflow.CheckOff, "")
	gate.needs = mailflow.Needs{MessageID: true}
	ids := make(chan string, 1)
	tr := &trial{servingtest.Start(t, func(log hclog.Logger) servingtest.Server {
		return &Server{Gate: gate, Rules: identified{ids: ids}, Log: log}
	}), t}
	m := tr.postfix()
	if m.protocol&gomilter.OptNoHeaders != 0 || m.protocol&gomilter.OptNoBody == 0 || m.protocol&gomilter.OptNoRcptTo == 0 {
		t.Errorf("protocol %#x", m.protocol)
	}
	for _, c := range []struct {
		fields []string
		id     string
	}{
		{[]string{"From: ann@example.org", "message-id :\n <1@example.org>", "Message-ID: <2@example.org>"}, "<1@example.org>"},
		{[]string{"Message-ID: <3@example.org>", "X-Drawbridge-Folder: spam"}, "<3@example.org>"},
		{[]string{"Subject: none"}, ""},
	} {
		m.mail(ann, ann)
		m.expect("c")
		m.macros(gomilter.CodeEOH, "i", "4F1B986051")
		m.headers(c.fields...)
		if len(c.fields) > 1 && strings.HasPrefix(c.fields[1], "X-Drawbridge") {
			m.expect("c")
			m.macros(gomilter.CodeEOB, "i", "4F1B986051")
			m.send(gomilter.CodeEOB, "")
			m.expect("m |||\x01X-Drawbridge-Folder|", "a")
		} else {
			m.expect("a")
		}
		if got := <-ids; got != "4F1B986051 "+c.id {
			t.Errorf("%q, want %q", got, c.id)
		}
	}
	gate.needs = mailflow.Needs{MessageID: true, Headers: true}
	m.send(gomilter.CodeMail, "<"+ann+">\x00")
	m.expect("y 421 4.7.1 The rules have changed, please connect again.")
}
