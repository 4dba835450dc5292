package doveadm

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Sent names a message in mailboxes. Postfix wrote its queue id into its Received field. A message that
// was held, or that a content filter sent on, has another one: it has the Message-ID and the envelope
// sender. The sender chose the Message-ID, and could choose that of somebody else's message, which
// has another sender.
type Sent struct {
	QueueID   string
	MessageID string    // "" if it is not known
	Sender    string    // MAIL FROM; "" if the message is known by its queue id alone
	Since     time.Time // it was stored after this
}

// WholeMessageID returns the Message-ID without spaces around it, "" if it is none: not in angle brackets.
func (s *Sent) WholeMessageID() string {
	id := strings.TrimSpace(s.MessageID)
	if !strings.HasPrefix(id, "<") || !strings.HasSuffix(id, ">") {
		return ""
	}
	return id
}

// query returns the search query of a message; an error if no query can name it.
func (s *Sent) query() ([]string, error) {
	if s.QueueID == "" || strings.ContainsFunc(s.QueueID+s.MessageID+s.Sender, unicode.IsControl) {
		return nil, fmt.Errorf("a message with queue id %q, Message-ID %q and sender %q cannot be searched for", s.QueueID, s.MessageID, s.Sender)
	}
	query := []string{"mailbox", "*", "savedsince", strconv.FormatInt(s.Since.Unix(), 10)}
	// Postfix writes "id 3F2A11C;" or "id 3F2A11C", a line break and "for". 3F2A11CD is another one.
	id := []string{"(", "header", "received", "id " + s.QueueID + ";", "or", "header", "received", "id " + s.QueueID + " for", ")"}
	m := s.WholeMessageID()
	if m == "" || s.Sender == "" {
		return append(query, id...), nil // a part of a Message-ID would match others
	}
	query = append(append(query, "("), id...)
	return append(query, "or", "(", "header", "message-id", m, "header", "return-path", "<"+s.Sender+">", ")", ")"), nil
}

// Count returns how many copies of a message a user's mailboxes contain.
func (d *Doveadm) Count(ctx context.Context, user string, s *Sent) (int, error) {
	query, err := s.query()
	if err != nil {
		return 0, err
	}
	rows, _, err := d.do(ctx, command{name: "search", user: user, options: query, params: map[string]any{"query": query}})
	if err != nil {
		return 0, fmt.Errorf("%s: searching the mailboxes of %s: %w", d.name, user, err)
	}
	n := 0
	for _, r := range rows {
		n += len(r) / 2 // a mailbox and a number each; the socket's answer is one row of all
	}
	return n, nil
}

// Expunge deletes all copies of a message from a user's mailboxes.
func (d *Doveadm) Expunge(ctx context.Context, user string, s *Sent) error {
	query, err := s.query()
	if err != nil {
		return err
	}
	if _, _, err := d.do(ctx, command{name: "expunge", user: user, options: query, params: map[string]any{"query": query}}); err != nil {
		return fmt.Errorf("%s: deleting from the mailboxes of %s: %w", d.name, user, err)
	}
	return nil
}

// forUser are the words of a command line that runs the command for a user.
func (c command) forUser() []string {
	if c.user == "" {
		return nil
	}
	return []string{"-u", strings.NewReplacer("*", `\*`, "?", `\?`).Replace(c.user)}
}

// line is a command line behind the name of the program.
func (c command) line() []string {
	return slices.Concat(strings.Fields(c.name), c.forUser(), c.words()[1:])
}
