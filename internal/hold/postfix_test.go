package hold

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
)

// postfix is an SMTP server that stores what it accepts.
type postfix struct {
	addr string
	// begin is called when a message begins.
	begin func(s *session)
	// milter is asked before a message is stored; it answers false to refuse it for now.
	milter func(s *session) bool
	// stored is called between storing a message and answering; false hangs up instead.
	stored func(s *session) bool
	rcpt   map[string]string // replies other than 250

	mu       sync.Mutex
	messages []*session
}

// session is one message of one connection.
type session struct {
	id         string // queue id
	peer       net.Addr
	mail       string
	recipients []string
	text       string
}

func newPostfix(t *testing.T) *postfix {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &postfix{addr: ln.Addr().String(), rcpt: map[string]string{}}
	var conns sync.WaitGroup
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer func() { _ = nc.Close() }()
				p.serve(nc)
			})
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done; conns.Wait() })
	return p
}

func (p *postfix) serve(nc net.Conn) {
	in := bufio.NewReader(nc)
	say := func(text string) { _, _ = fmt.Fprintf(nc, "%s\r\n", text) }
	say("220 test")
	s := &session{peer: nc.RemoteAddr()}
	for {
		l, err := in.ReadString('\n')
		if err != nil {
			return
		}
		l = strings.TrimRight(l, "\r\n")
		verb, _, _ := strings.Cut(l, " ")
		switch verb {
		case "EHLO":
			say("250-test\r\n250-8BITMIME\r\n250 DSN")
		case "MAIL":
			s.mail = l
			if p.begin != nil {
				p.begin(s)
			}
			say("250 ok")
		case "RCPT":
			if reply := p.rcpt[l]; reply != "" {
				say(reply)
				continue
			}
			s.recipients = append(s.recipients, l)
			say("250 ok")
		case "DATA":
			say("354 go")
			if !p.data(in, s, say) {
				return
			}
		case "QUIT":
			say("221 bye")
			return
		}
	}
}

func (p *postfix) data(in *bufio.Reader, s *session, say func(string)) bool {
	for {
		l, err := in.ReadString('\n')
		if err != nil {
			return false
		}
		if l == ".\r\n" {
			break
		}
		s.text += strings.TrimPrefix(l, ".")
	}
	p.mu.Lock()
	s.id = fmt.Sprintf("4Q%d", len(p.messages)+1)
	p.mu.Unlock()
	if p.milter != nil && !p.milter(s) {
		say("451 4.7.1 later")
		return true
	}
	p.mu.Lock()
	p.messages = append(p.messages, s)
	p.mu.Unlock()
	if p.stored != nil && !p.stored(s) {
		return false
	}
	say("250 2.0.0 Ok: queued as " + s.id)
	return true
}

// to returns the messages with a recipient.
func (p *postfix) to(recipient string) (found []*session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.messages {
		for _, r := range s.recipients {
			if strings.Contains(r, "<"+recipient+">") {
				found = append(found, s)
			}
		}
	}
	return found
}
