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

// Sent names a message in mailboxes: by the queue id that Postfix put into its Received field, and by its
// Message-ID. The sender chose that, so it does not suffice: another message may have the same.
type Sent struct {
	QueueID   string
	MessageID string    // "" if it is not known
	Since     time.Time // it was stored after this
}

// query returns the search query of a message; an error if no query can name it.
func (s *Sent) query() ([]string, error) {
	if s.QueueID == "" || strings.ContainsFunc(s.QueueID+s.MessageID, unicode.IsControl) {
		return nil, fmt.Errorf("a message with queue id %q and Message-ID %q cannot be searched for", s.QueueID, s.MessageID)
	}
	query := []string{"mailbox", "*", "header", "received", "id " + s.QueueID, "savedsince", strconv.FormatInt(s.Since.Unix(), 10)}
	if s.MessageID != "" {
		query = append(query, "header", "message-id", s.MessageID)
	}
	return query, nil
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
