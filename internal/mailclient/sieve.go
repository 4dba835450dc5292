package mailclient

import (
	"context"
	"fmt"
	"strings"
)

// Sieve is a session with a ManageSieve server, RFC 5804.
type Sieve struct {
	*Session
	Greeting []string // the capabilities
}

// Sieve connects without TLS and reads the greeting, the server's capabilities; [Sieve.StartTLS]
// may follow. The connection is the caller's to close.
func (c Client) Sieve(ctx context.Context, addr string) (*Sieve, error) {
	s, err := c.dial(ctx, addr, false)
	if err != nil {
		return nil, err
	}
	sieve := &Sieve{Session: s}
	if sieve.Greeting, _, err = sieve.answer(); err != nil {
		_ = s.Close() // the first error says more
		return nil, err
	}
	return sieve, nil
}

// answer reads lines up to the status, which begins with OK, NO or BYE.
func (c *Sieve) answer() (lines []string, status string, err error) {
	for {
		unit, err := c.unit()
		if err != nil {
			return lines, "", err
		}
		switch word, _, _ := strings.Cut(unit, " "); word {
		case "OK", "NO", "BYE":
			return lines, unit, nil
		default:
			lines = append(lines, unit)
		}
	}
}

// Command sends a command and returns its status ("OK …", "NO …" or "BYE …") and the lines before
// it.
func (c *Sieve) Command(line string) (lines []string, status string, err error) {
	if err := c.send(line); err != nil {
		return nil, "", err
	}
	return c.answer()
}

// StartTLS sends STARTTLS and switches to TLS if the server says OK, then reads the capabilities
// again; otherwise it returns the refusal.
func (c *Sieve) StartTLS() (status string, err error) {
	_, status, err = c.Command("STARTTLS")
	if err != nil || !strings.HasPrefix(status, "OK") {
		return status, err
	}
	if err := c.encrypt(); err != nil {
		return status, err
	}
	c.Greeting, _, err = c.answer() // the server sends its capabilities again
	return status, err
}

// Authenticate uses AUTHENTICATE "PLAIN" (RFC 4616) with an initial response. A refusal is the
// status "NO …", not an error.
func (c *Sieve) Authenticate(user, password string) (status string, err error) {
	_, status, err = c.Command(`AUTHENTICATE "PLAIN" ` + quoted(plain(user, password)))
	return status, err
}

// Install uploads a script under a name (PUTSCRIPT) and activates it (SETACTIVE). It returns the
// status of the last command that was sent.
func (c *Sieve) Install(name, script string) (status string, err error) {
	_, status, err = c.Command(fmt.Sprintf("PUTSCRIPT %s {%d+}\r\n%s", quoted(name), len(script), script))
	if err != nil || !strings.HasPrefix(status, "OK") {
		return status, err
	}
	_, status, err = c.Command("SETACTIVE " + quoted(name))
	return status, err
}
