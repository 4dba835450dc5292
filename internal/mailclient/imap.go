package mailclient

import (
	"context"
	"strconv"
	"strings"
)

// IMAP is a session with an IMAP server (RFC 9051), one command at a time; each answer is read
// before the next command.
type IMAP struct {
	*Session
	Greeting string
	tag      int
}

// An IMAPReply is the server's whole answer to one command, unchanged: untagged lines in order,
// then the tagged status.
type IMAPReply struct {
	Status   string   // the tagged line without its tag: "OK …", "NO [AUTHENTICATIONFAILED] …"
	Untagged []string // the lines before it, without "* ", with their literals
}

// OK reports whether the command succeeded: the tagged status is OK, not NO or BAD. The zero reply
// is none.
func (r IMAPReply) OK() bool { return strings.HasPrefix(r.Status, "OK") }

// IMAP connects without TLS and reads the greeting; [IMAP.StartTLS] may follow. The connection is
// the caller's to close.
func (c Client) IMAP(ctx context.Context, addr string) (*IMAP, error) {
	return c.imap(ctx, addr, false)
}

// IMAPS connects over TLS from the first octet and reads the greeting. Any certificate is accepted.
// The connection is the caller's to close.
func (c Client) IMAPS(ctx context.Context, addr string) (*IMAP, error) {
	return c.imap(ctx, addr, true)
}

func (c Client) imap(ctx context.Context, addr string, secure bool) (*IMAP, error) {
	s, greeting, err := c.greeted(ctx, addr, secure)
	if err != nil {
		return nil, err
	}
	return &IMAP{Session: s, Greeting: greeting}, nil
}

// Command sends a command without its tag and reads to the tagged answer.
func (c *IMAP) Command(line string) (IMAPReply, error) {
	c.tag++
	tag := "a" + strconv.Itoa(c.tag)
	if err := c.send(tag + " " + line); err != nil {
		return IMAPReply{}, err
	}
	var reply IMAPReply
	for {
		unit, err := c.unit()
		if err != nil {
			return reply, err
		}
		if status, ok := strings.CutPrefix(unit, tag+" "); ok {
			reply.Status = status
			return reply, nil
		}
		reply.Untagged = append(reply.Untagged, strings.TrimPrefix(unit, "* "))
	}
}

// StartTLS sends STARTTLS and switches to TLS if the server says OK; otherwise it returns the
// refusal, and the session stays as it was.
func (c *IMAP) StartTLS() (IMAPReply, error) {
	reply, err := c.Command("STARTTLS")
	if err != nil || !reply.OK() {
		return reply, err
	}
	return reply, c.encrypt()
}

// ID sends the client's names and values in turn, such as "name", "Thunderbird". From an address in
// login_trusted_networks, "x-originating-ip" sets the user's address.
func (c *IMAP) ID(pairs ...string) (IMAPReply, error) {
	words := make([]string, len(pairs))
	for i, p := range pairs {
		words[i] = quoted(p)
	}
	return c.Command("ID (" + strings.Join(words, " ") + ")")
}

// Login uses the command LOGIN with both words quoted, in which CR and LF cannot stand. A refusal
// is a reply, not an error.
func (c *IMAP) Login(user, password string) (IMAPReply, error) {
	return c.Command("LOGIN " + quoted(user) + " " + quoted(password))
}

// Authenticate uses AUTHENTICATE PLAIN (RFC 4616) with an initial response. A refusal is a reply,
// not an error.
func (c *IMAP) Authenticate(user, password string) (IMAPReply, error) {
	return c.Command("AUTHENTICATE PLAIN " + plain(user, password))
}
