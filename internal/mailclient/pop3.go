package mailclient

import (
	"context"
	"strings"
)

// POP3 is a session with a POP3 server (RFC 1939), one command at a time. Greeting is its first
// line, unchanged.
type POP3 struct {
	*Session
	Greeting string
}

// POP3 connects without TLS and reads the greeting; [POP3.StartTLS] may follow. The connection is
// the caller's to close.
func (c Client) POP3(ctx context.Context, addr string) (*POP3, error) {
	return c.pop3(ctx, addr, false)
}

// POP3S connects over TLS from the first octet and reads the greeting. Any certificate is accepted.
// The connection is the caller's to close.
func (c Client) POP3S(ctx context.Context, addr string) (*POP3, error) {
	return c.pop3(ctx, addr, true)
}

func (c Client) pop3(ctx context.Context, addr string, secure bool) (*POP3, error) {
	s, greeting, err := c.greeted(ctx, addr, secure)
	if err != nil {
		return nil, err
	}
	return &POP3{Session: s, Greeting: greeting}, nil
}

// Command sends a command and returns the line that answers it: "+OK …" or "-ERR …".
func (c *POP3) Command(line string) (string, error) {
	if err := c.send(line); err != nil {
		return "", err
	}
	return c.line()
}

// Retrieve returns the lines of a message, by its number from 1.
func (c *POP3) Retrieve(number string) (status string, lines []string, err error) {
	status, err = c.Command("RETR " + number)
	for err == nil && strings.HasPrefix(status, "+OK") {
		var line string
		if line, err = c.line(); err != nil || line == "." {
			break
		}
		lines = append(lines, strings.TrimPrefix(line, "."))
	}
	return status, lines, err
}

// StartTLS sends STLS (RFC 2595) and switches to TLS if the server says +OK; otherwise it returns
// the refusal.
func (c *POP3) StartTLS() (string, error) {
	reply, err := c.Command("STLS")
	if err != nil || !strings.HasPrefix(reply, "+OK") {
		return reply, err
	}
	return reply, c.encrypt()
}

// Login uses the commands USER and PASS, and returns the answer to the last one sent.
func (c *POP3) Login(user, password string) (string, error) {
	reply, err := c.Command("USER " + user)
	if err != nil || !strings.HasPrefix(reply, "+OK") {
		return reply, err
	}
	return c.Command("PASS " + password)
}

// Authenticate uses AUTH PLAIN (RFC 5034) with an initial response. A refusal is the reply "-ERR
// …", not an error.
func (c *POP3) Authenticate(user, password string) (string, error) {
	return c.Command("AUTH PLAIN " + plain(user, password))
}
