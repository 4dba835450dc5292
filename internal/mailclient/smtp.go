package mailclient

import (
	"context"
	"encoding/base64"
	"strings"
)

// SMTP is a session with an SMTP server, step by step.
type SMTP struct {
	*Session
	Greeting string
}

// SMTP connects without TLS and reads the greeting. It sends nothing: EHLO is the caller's, see
// [SMTP.Hello]. The connection is the caller's to close.
func (c Client) SMTP(ctx context.Context, addr string) (*SMTP, error) {
	return c.smtp(ctx, addr, false)
}

// SMTPS connects over TLS from the first octet and reads the greeting. Any certificate is accepted.
// It sends nothing else; EHLO is the caller's.
func (c Client) SMTPS(ctx context.Context, addr string) (*SMTP, error) {
	return c.smtp(ctx, addr, true)
}

func (c Client) smtp(ctx context.Context, addr string, secure bool) (*SMTP, error) {
	s, err := c.dial(ctx, addr, secure)
	if err != nil {
		return nil, err
	}
	smtp := &SMTP{Session: s}
	if smtp.Greeting, err = smtp.reply(); err != nil {
		_ = s.Close() // the first error says more
		return nil, err
	}
	return smtp, nil
}

// Login connects to a submission service with STARTTLS and sends AUTH PLAIN. It returns the answer
// to AUTH, or a refusal of it or of STARTTLS, and the session, which the caller closes unless err is set.
func (c Client) Login(ctx context.Context, submission, user, password string) (*SMTP, string, error) {
	s, err := c.SMTP(ctx, submission)
	if err != nil {
		return nil, "", err
	}
	reply, err := s.login(user, password)
	if err != nil {
		_ = s.Close() // the first error says more
		return nil, reply, err
	}
	return s, reply, nil
}

func (s *SMTP) login(user, password string) (string, error) {
	if reply, err := s.Encrypt(); err != nil || !strings.HasPrefix(reply, "250") {
		return reply, err
	}
	return s.Authenticate(user, password)
}

// Encrypt sends EHLO, STARTTLS and EHLO again, and returns the last answer: that to STARTTLS if it is a
// refusal.
func (s *SMTP) Encrypt() (string, error) {
	if reply, err := s.Hello(); err != nil {
		return reply, err
	}
	if reply, err := s.StartTLS(); err != nil || !strings.HasPrefix(reply, "220") {
		return reply, err
	}
	return s.Hello()
}

// Command sends a line and returns its answer, such as "250 2.1.0 Ok". Lines are separated by LF.
func (s *SMTP) Command(line string) (string, error) {
	if err := s.send(line); err != nil {
		return "", err
	}
	return s.reply()
}

// reply reads lines up to and including the one with a space after its code.
func (s *SMTP) reply() (string, error) {
	var lines []string
	for {
		line, err := s.line()
		if err != nil {
			return strings.Join(lines, "\n"), err
		}
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// Hello sends EHLO.
func (s *SMTP) Hello() (string, error) { return s.Command("EHLO client.example.com") }

// StartTLS sends STARTTLS (RFC 3207) and switches to TLS if the server says 220; otherwise it
// returns the refusal. EHLO has to follow.
func (s *SMTP) StartTLS() (string, error) {
	reply, err := s.Command("STARTTLS")
	if err != nil || !strings.HasPrefix(reply, "220") {
		return reply, err
	}
	return reply, s.encrypt()
}

// Authenticate uses AUTH PLAIN (RFC 4616) with an initial response and returns the last reply: 235,
// or a refusal such as 535.
func (s *SMTP) Authenticate(user, password string) (string, error) {
	return s.Command("AUTH PLAIN " + plain(user, password))
}

// AuthenticateLogin uses AUTH LOGIN, and returns the answer to the last line sent.
func (s *SMTP) AuthenticateLogin(user, password string) (string, error) {
	reply, err := s.Command("AUTH LOGIN")
	for _, word := range []string{user, password} {
		if err != nil || !strings.HasPrefix(reply, "334") {
			break
		}
		reply, err = s.Command(base64.StdEncoding.EncodeToString([]byte(word)))
	}
	return reply, err
}

// Mail sends MAIL FROM with an address, "" for the null sender, without parameters, and returns the
// reply: 250, or a refusal.
func (s *SMTP) Mail(from string) (string, error) { return s.Command("MAIL FROM:<" + from + ">") }

// Recipient sends RCPT TO with an address, without parameters, and returns the reply: 250, or a
// refusal, which is no error.
func (s *SMTP) Recipient(to string) (string, error) { return s.Command("RCPT TO:<" + to + ">") }

// Data sends a message with its header, whose lines end in LF or CRLF. It returns the answer to the
// final dot, or to DATA if that was refused.
func (s *SMTP) Data(message string) (string, error) {
	reply, err := s.Command("DATA")
	if err != nil || !strings.HasPrefix(reply, "354") {
		return reply, err
	}
	lines := strings.Split(strings.TrimSuffix(strings.ReplaceAll(message, "\r\n", "\n"), "\n"), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = "." + line
		}
	}
	return s.Command(strings.Join(append(lines, "."), "\r\n"))
}

// Send calls Mail, Recipient and Data. It returns the first answer that is not 2xx, else the last.
func (s *SMTP) Send(from, to, message string) (string, error) {
	steps := []func() (string, error){
		func() (string, error) { return s.Mail(from) },
		func() (string, error) { return s.Recipient(to) },
		func() (string, error) { return s.Data(message) },
	}
	var reply string
	for _, step := range steps {
		var err error
		if reply, err = step(); err != nil || !strings.HasPrefix(reply, "2") {
			return reply, err
		}
	}
	return reply, nil
}
