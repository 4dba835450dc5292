package inject

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// server is an SMTP server for one session: it answers commands by their first word, 250 without an
// answer of its own, and records everything.
type server struct {
	addr    string
	answers map[string]string
	lines   chan []string
	peer    chan netip.AddrPort
}

func serve(t *testing.T, offer string, answers map[string]string) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	s := &server{addr: ln.Addr().String(), answers: answers, lines: make(chan []string, 1), peer: make(chan netip.AddrPort, 1)}
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = nc.Close() }()
		s.peer <- nc.RemoteAddr().(*net.TCPAddr).AddrPort() //nolint:forcetypeassert // it listens on TCP
		s.lines <- s.session(nc, offer)
	}()
	return s
}

func (s *server) session(nc net.Conn, offer string) (lines []string) {
	in := bufio.NewScanner(nc)
	say := func(text string) { _, _ = fmt.Fprintf(nc, "%s\r\n", text) }
	say("220 test")
	data := false
	for in.Scan() {
		line := in.Text()
		lines = append(lines, line)
		verb, _, _ := strings.Cut(line, " ")
		answer, special := s.answers[line]
		switch {
		case data && line == ".":
			data = false
			say(cmpOr(s.answers["."], "250 2.0.0 Ok: queued as 4XYZ"))
		case data:
		case special:
			say(answer)
		case verb == "EHLO":
			say(offer)
		case verb == "DATA":
			data = true
			say("354 go")
		case verb == "QUIT":
			say("221 bye")
			return lines
		default:
			say("250 ok")
		}
	}
	return lines
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

const all = "250-test\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 DSN"

func message() *Message {
	return &Message{
		Envelope: Envelope{
			Sender: "ann@example.org", Params: []string{"SIZE=123", "BODY=8BITMIME", "RET=HDRS", "ENVID=x+3D1", "AUTH=<>"},
			Recipients: []Recipient{
				{Address: "bob@example.com", Params: []string{"NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;bob@example.com"}},
				{Address: `"c d"@example.com`},
			},
		},
		Body: strings.NewReader("Subject: x\r\n\r\n.one\r\n..two\r\nend\r\n"),
	}
}

func TestSend(t *testing.T) {
	tests := []struct {
		name, offer string
		edit        func(*Message)
		want        []string
	}{
		{"everything", all, nil, []string{
			"MAIL FROM:<ann@example.org> BODY=8BITMIME RET=HDRS ENVID=x+3D1",
			"RCPT TO:<bob@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob@example.com", `RCPT TO:<"c d"@example.com>`,
		}},
		{"a server without extensions", "250 test", nil, []string{
			"MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.com>", `RCPT TO:<"c d"@example.com>`,
		}},
		{"null sender", all, func(m *Message) { m.Envelope.Sender, m.Envelope.Params = "", nil }, []string{
			"MAIL FROM:<>", "RCPT TO:<bob@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob@example.com", `RCPT TO:<"c d"@example.com>`,
		}},
		{"an address in UTF-8", all, func(m *Message) {
			m.Envelope.Params, m.Envelope.Recipients = nil, []Recipient{{Address: "jürgen@example.com"}}
		}, []string{"MAIL FROM:<ann@example.org> SMTPUTF8", "RCPT TO:<jürgen@example.com>"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, tt.offer, nil)
			m := message()
			if tt.edit != nil {
				tt.edit(m)
			}
			res, err := (&Client{Addr: s.addr}).Send(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			if res.Reply != "2.0.0 Ok: queued as 4XYZ" {
				t.Errorf("reply %q", res.Reply)
			}
			want := slices.Concat([]string{"EHLO [127.0.0.1]"}, tt.want, []string{"DATA", "Subject: x", "", "..one", "...two", "end", ".", "QUIT"})
			if diff := cmp.Diff(want, <-s.lines); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSendToSome(t *testing.T) {
	s := serve(t, "250 test", map[string]string{
		"RCPT TO:<b@example.com>": "550 5.1.1 unknown", "RCPT TO:<c@example.com>": "450 4.2.0 later",
	})
	m := message()
	m.Envelope.Recipients = []Recipient{{Address: "a@example.com"}, {Address: "b@example.com"}, {Address: "c@example.com"}}
	res, err := (&Client{Addr: s.addr}).Send(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Result{
		Accepted: []string{"a@example.com"}, Reply: "2.0.0 Ok: queued as 4XYZ",
		Refused: map[string]*Reply{"b@example.com": {550, "5.1.1 unknown"}}, Deferred: map[string]*Reply{"c@example.com": {450, "4.2.0 later"}},
	}, res); diff != "" {
		t.Error(diff)
	}
}

func TestSendFails(t *testing.T) {
	t.Run("refused at the end", func(t *testing.T) {
		s := serve(t, all, map[string]string{".": "554 5.7.1 no"})
		_, err := (&Client{Addr: s.addr}).Send(t.Context(), message())
		var reply *Reply
		if !errors.As(err, &reply) || !reply.Permanent() {
			t.Errorf("%v", err)
		}
	})
	t.Run("stopped before the end", func(t *testing.T) {
		s := serve(t, all, nil)
		stop := errors.New("stop")
		m := message()
		m.BeforeEnd = func() error { return stop }
		if _, err := (&Client{Addr: s.addr}).Send(t.Context(), m); !errors.Is(err, stop) {
			t.Errorf("%v", err)
		}
		if lines := <-s.lines; slices.Contains(lines, ".") {
			t.Errorf("the message was ended: %q", lines)
		}
	})
	t.Run("control characters", func(t *testing.T) {
		for _, edit := range []func(*Envelope){
			func(e *Envelope) { e.Sender = "a@example.org>\r\nRCPT TO:<eve@example.com" },
			func(e *Envelope) { e.Params = []string{"ENVID=a\nb"} },
			func(e *Envelope) { e.Recipients[0].Address = "b\x00@example.com" },
			func(e *Envelope) { e.Recipients[0].Params = []string{"NOTIFY=NEVER\r"} },
			func(e *Envelope) { e.Recipients = nil },
		} {
			m := message()
			edit(&m.Envelope)
			if _, err := (&Client{Addr: "127.0.0.1:1"}).Send(t.Context(), m); err == nil || strings.Contains(err.Error(), "dial") {
				t.Errorf("%v", err)
			}
		}
	})
	t.Run("context", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := (&Client{Addr: ln.Addr().String()}).Send(ctx, message()); err == nil {
			t.Error("no error")
		}
	})
}

func TestPassOf(t *testing.T) {
	s := serve(t, all, nil)
	c := &Client{Addr: s.addr}
	m := message()
	m.Pass = Pass{ID: "1234", Rules: []string{"contracts"}}
	var peer netip.AddrPort
	m.BeforeEnd = func() error {
		peer = <-s.peer
		p := c.PassOf(peer.Addr(), peer.Port())
		if p == nil || p.ID != "1234" || !p.Covers("ann@example.org", "bob@example.com") {
			t.Errorf("pass %+v", p)
		}
		if p.Covers("eve@example.org", "bob@example.com") || p.Covers("ann@example.org", "eve@example.com") {
			t.Error("the pass covers others")
		}
		return nil
	}
	if _, err := c.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if p := c.PassOf(peer.Addr(), peer.Port()); p != nil {
		t.Errorf("the pass outlives the connection: %+v", p)
	}
	if (*Pass)(nil).Covers("", "") {
		t.Error("no pass covers something")
	}
}
