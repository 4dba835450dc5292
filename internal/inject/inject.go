// Package inject passes messages to the site's Postfix by SMTP: held messages that are released,
// copies and notices.
//
//	S: 220 mail.example.org ESMTP Postfix
//	C: EHLO [127.0.0.1]
//	S: 250-mail.example.org
//	S: 250-8BITMIME
//	S: 250 DSN
//	C: MAIL FROM:<ann@example.org> BODY=8BITMIME RET=HDRS ENVID=x1
//	C: RCPT TO:<bob@example.com> NOTIFY=FAILURE ORCPT=rfc822;bob@example.com
//	C: DATA
//
// The parameters are those that the original client used, as far as the server offers their
// extension. A milter and a policy server that Postfix asks about such a message recognise it by
// the connection: [Client.PassOf] knows the address and port that the message comes from. Nobody
// else can use them while the connection is open, and no header field has to be trusted.
//
// # Diagnostics
//
// A server that cannot be reached, hangs up or answers 4xx is a temporary error. Recipients are
// accepted, refused or deferred one by one.
//
// # Limits
//
// It uses neither TLS nor authentication: the server is on the same machine or in its own network,
// and permits relaying. Where addresses are translated on the way, PassOf does not recognise the
// connection, and the rules apply to the message as to any other.
package inject

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"time"
)

// Envelope is what an SMTP client says about a message before its data.
type Envelope struct {
	Sender string `json:"sender"` // "" for the null sender
	// Params are parameters of MAIL. Those that describe the message are passed on: BODY, SMTPUTF8,
	// RET and ENVID.
	Params     []string    `json:"params,omitempty"`
	Recipients []Recipient `json:"recipients"`
}

// Recipient is a recipient and the parameters of its RCPT, of which NOTIFY and ORCPT are passed on.
type Recipient struct {
	Address string   `json:"address"`
	Params  []string `json:"params,omitempty"`
}

// Pass is what an SMTP connection of ours carries.
type Pass struct {
	ID    string   // of the message
	Rules []string // ids of the rules that have already held it
	// Notice: it is a copy or a notice, to which no rule applies.
	Notice bool
	// Sender and Recipients are those of the envelope: the pass covers no others.
	Sender     string
	Recipients []string
}

// Covers reports whether the pass is for a recipient.
func (p *Pass) Covers(sender, recipient string) bool {
	return p != nil && p.Sender == sender && slices.Contains(p.Recipients, recipient)
}

// Message is a message to be sent: its envelope, its text, whose lines end in CRLF, and what
// happens just before its end is sent.
type Message struct {
	Envelope Envelope
	Pass     Pass // Sender and Recipients are filled in
	Body     io.Reader
	// BeforeEnd is called when everything but the end of the data has been sent. The message is not
	// accepted before it returns; an error stops there.
	BeforeEnd func() error
}

// Reply is a reply of the server other than success.
type Reply struct {
	Code int
	Text string
}

func (r *Reply) Error() string { return fmt.Sprintf("%d %s", r.Code, r.Text) }

// Permanent reports whether trying again is of no use: the reply is 5xx (RFC 5321, section 4.2.1).
// Others may succeed later.
func (r *Reply) Permanent() bool { return r.Code >= 500 }

// Result says what became of a message that the server answered about.
type Result struct {
	Accepted []string // recipients
	Refused  map[string]*Reply
	Deferred map[string]*Reply
	Reply    string // to the end of the data; Postfix names the queue id in it
}

// Client sends messages to one server.
type Client struct {
	Addr    string        // host and port
	Timeout time.Duration // of each step; 0 for 5 minutes, as RFC 5321 wants

	mu     sync.Mutex
	passes map[netip.AddrPort]*Pass
}

// PassOf returns the pass of the message that is sent from an address and port now; nil for none.
func (c *Client) PassOf(ip netip.Addr, port uint16) *Pass {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.passes[netip.AddrPortFrom(ip.Unmap(), port)]
}

func (c *Client) setPass(at netip.AddrPort, p *Pass) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p == nil {
		delete(c.passes, at)
		return
	}
	if c.passes == nil {
		c.passes = map[netip.AddrPort]*Pass{}
	}
	c.passes[at] = p
}

// Send sends one message. An error that is a permanent [*Reply] concerns the message as a whole;
// after any other error the message has to be sent again, unless BeforeEnd was called: then the
// server may have accepted it.
func (c *Client) Send(ctx context.Context, m *Message) (*Result, error) {
	if err := m.Envelope.check(); err != nil {
		return nil, err
	}
	var d net.Dialer
	dialling, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	nc, err := d.DialContext(dialling, "tcp", c.Addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Now()) })
	defer stop()
	defer func() { _ = nc.Close() }()

	pass := m.Pass
	pass.Sender = m.Envelope.Sender
	for _, r := range m.Envelope.Recipients {
		pass.Recipients = append(pass.Recipients, r.Address)
	}
	local := netip.AddrPortFrom(netip.Addr{}, 0)
	if a, ok := nc.LocalAddr().(*net.TCPAddr); ok {
		local = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	c.setPass(local, &pass)
	defer c.setPass(local, nil) // before the connection is closed, and its port somebody else's

	timeout := c.Timeout
	if timeout == 0 {
		timeout = 5 * time.Minute
	}
	s := &session{text: textproto.NewConn(nc), nc: nc, ctx: ctx, timeout: timeout}
	return s.send(m, local.Addr())
}

// check refuses what would end a command early, or begin another.
func (e *Envelope) check() error {
	if len(e.Recipients) == 0 {
		return errors.New("the message has no recipients")
	}
	words := append([]string{e.Sender}, e.Params...)
	for _, r := range e.Recipients {
		words = append(append(words, r.Address), r.Params...)
	}
	for _, w := range words {
		if strings.ContainsFunc(w, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("the envelope contains a control character: %q", w)
		}
	}
	return nil
}

// session is one SMTP session.
type session struct {
	text       *textproto.Conn
	nc         net.Conn
	ctx        context.Context //nolint:containedctx // lives as long as one call
	timeout    time.Duration
	extensions map[string]bool
}

// command sends a line and returns the reply, which must be of the class that code begins with.
func (s *session) command(code int, format string, args ...any) (string, error) {
	s.patience()
	if err := s.text.PrintfLine(format, args...); err != nil {
		return "", err
	}
	return s.reply(code)
}

func (s *session) reply(code int) (string, error) {
	_, text, err := s.text.ReadResponse(code)
	if wrong := new(textproto.Error); errors.As(err, &wrong) {
		return "", &Reply{wrong.Code, strings.ReplaceAll(wrong.Msg, "\n", " ")}
	}
	return text, err
}

func (s *session) patience() {
	_ = s.nc.SetDeadline(time.Now().Add(s.timeout))
	if s.ctx.Err() != nil { // it ended before the deadline was set
		_ = s.nc.SetDeadline(time.Now())
	}
}

func (s *session) send(m *Message, local netip.Addr) (*Result, error) {
	s.patience()
	if _, err := s.reply(220); err != nil {
		return nil, fmt.Errorf("reading the greeting: %w", err)
	}
	name := "[" + local.String() + "]"
	if local.Is6() {
		name = "[IPv6:" + local.String() + "]"
	}
	offered, err := s.command(250, "EHLO %s", name)
	if err != nil {
		return nil, fmt.Errorf("sending EHLO: %w", err)
	}
	s.extensions = map[string]bool{}
	for line := range strings.Lines(offered) {
		keyword, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		s.extensions[strings.ToUpper(keyword)] = true
	}
	env := &m.Envelope
	if _, err := s.command(250, "MAIL FROM:<%s>%s", env.Sender, s.params(mailParams(env))); err != nil {
		return nil, fmt.Errorf("sending MAIL: %w", err)
	}
	res := &Result{Refused: map[string]*Reply{}, Deferred: map[string]*Reply{}}
	for _, r := range env.Recipients {
		_, err := s.command(25, "RCPT TO:<%s>%s", r.Address, s.params(r.Params))
		refusal := new(Reply)
		switch {
		case err == nil:
			res.Accepted = append(res.Accepted, r.Address)
		case !errors.As(err, &refusal):
			return nil, fmt.Errorf("sending RCPT: %w", err)
		case refusal.Permanent():
			res.Refused[r.Address] = refusal
		default:
			res.Deferred[r.Address] = refusal
		}
	}
	if len(res.Accepted) == 0 {
		_, _ = s.command(221, "QUIT")
		return res, nil
	}
	if _, err := s.command(354, "DATA"); err != nil {
		return nil, fmt.Errorf("sending DATA: %w", err)
	}
	if err := s.data(m); err != nil {
		return nil, err
	}
	s.patience()
	if res.Reply, err = s.reply(250); err != nil {
		return nil, fmt.Errorf("sending the message: %w", err)
	}
	_, _ = s.command(221, "QUIT")
	return res, nil
}

func (s *session) data(m *Message) error {
	w := s.text.DotWriter()
	in := bufio.NewReaderSize(m.Body, 64<<10)
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		s.patience()
		if _, err := w.Write(buf[:n]); err != nil {
			return fmt.Errorf("sending the message: %w", err)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the message: %w", err)
		}
	}
	if err := s.text.W.Flush(); err != nil {
		return fmt.Errorf("sending the message: %w", err)
	}
	if m.BeforeEnd != nil {
		if err := m.BeforeEnd(); err != nil {
			return err
		}
	}
	s.patience()
	if err := w.Close(); err != nil {
		return fmt.Errorf("sending the message: %w", err)
	}
	return nil
}

// mailParams returns the parameters of MAIL, and SMTPUTF8 if an address needs it.
func mailParams(e *Envelope) []string {
	ascii := func(text string) bool { return !strings.ContainsFunc(text, func(r rune) bool { return r > 0x7e }) }
	plain := ascii(e.Sender)
	for _, r := range e.Recipients {
		plain = plain && ascii(r.Address)
	}
	if plain || slices.ContainsFunc(e.Params, func(p string) bool { return strings.EqualFold(p, "SMTPUTF8") }) {
		return e.Params
	}
	return append(slices.Clone(e.Params), "SMTPUTF8")
}

// extensionOf names the extension that a parameter belongs to (RFC 6152, 6531, 3461). Others are
// not passed on: SIZE and AUTH describe the original session, not the message.
var extensionOf = map[string]string{
	"BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN", "NOTIFY": "DSN", "ORCPT": "DSN",
}

// params returns those parameters that the server understands, each with a blank in front.
func (s *session) params(list []string) string {
	var b strings.Builder
	for _, p := range list {
		keyword, value, _ := strings.Cut(p, "=")
		keyword = strings.ToUpper(keyword)
		ext := extensionOf[keyword]
		if ext == "" || !s.extensions[ext] || strings.Contains(p, " ") {
			continue
		}
		if keyword == "BODY" && strings.EqualFold(value, "BINARYMIME") { // it was converted when it arrived
			continue
		}
		b.WriteString(" " + p)
	}
	return b.String()
}
