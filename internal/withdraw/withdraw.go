// Package withdraw deletes the messages that a credential sent: from Postfix' queue of this machine, and from the
// mailboxes of the site's accounts.
//
// Messages that left the site stay where they are; they are counted. A message is found by the records
// of sent messages, never by its own fields alone: in the queue by its queue id, in a mailbox by the
// queue id that Postfix wrote into its Received field, or by Message-ID and envelope sender.
package withdraw

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/livesessions/doveadm"
)

// Message is a recorded message.
type Message struct {
	QueueID   string
	MessageID string
	Sender    string // MAIL FROM
	Node      string
	Time      time.Time
	Accounts  []string // recipients whose mailboxes may be looked into
}

// Found is where a message is.
type Found struct {
	Queued    bool
	Mailboxes []Mailbox // those that contain it, or could not be asked
	Err       error     // why it could not be looked for
}

// Mailbox is an account whose mailboxes contain a message.
type Mailbox struct {
	Account string
	Copies  int
	Err     error
}

// Mailboxes searches mailboxes, as [doveadm.Doveadm] does.
type Mailboxes interface {
	Count(ctx context.Context, user string, s *doveadm.Sent) (int, error)
	Expunge(ctx context.Context, user string, s *doveadm.Sent) error
}

// Site is where messages may be: this machine's queue and the site's Dovecots.
type Site struct {
	Node      string
	Postqueue []string // the command that lists the queue, or the socket that does, as "unix:/path"
	Postsuper []string // the command that deletes from it, or the socket that does
	Dovecots  []Mailboxes
}

// arrivalSlack is how far the clock may be set back while a message is received.
const arrivalSlack = time.Minute

// queued returns the queue ids of this machine, and when their messages arrived.
func (s *Site) queued(ctx context.Context) (map[string]time.Time, error) {
	if len(s.Postqueue) == 0 {
		return nil, errors.New("the queue is not known: set mail.postqueue")
	}
	out, err := ask(ctx, s.Postqueue, "list", []string{"-j"}, "")
	if err != nil {
		return nil, fmt.Errorf("listing the queue: %w", err)
	}
	ids := map[string]time.Time{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var entry struct {
			ID      string `json:"queue_id"`
			Arrived int64  `json:"arrival_time"` // in seconds since 1970
		}
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			return nil, fmt.Errorf("reading the queue: %w", err)
		}
		ids[entry.ID] = time.Unix(entry.Arrived, 0)
	}
	return ids, lines.Err()
}

// Find looks where messages are. The error is that of the queue; the mailboxes are searched all the same.
func (s *Site) Find(ctx context.Context, list []Message) ([]Found, error) {
	queue, err := s.queued(ctx)
	found := make([]Found, len(list))
	for i := range list {
		m := &list[i]
		// Postfix uses short queue ids again: what arrived later is another message, of anybody.
		arrived, ok := queue[m.QueueID]
		found[i].Queued = ok && m.Node == s.Node && !arrived.After(m.Time.Add(arrivalSlack))
		for _, account := range m.Accounts {
			box := Mailbox{Account: account}
			for _, d := range s.Dovecots {
				n, err := d.Count(ctx, account, sent(m))
				box.Copies += n
				box.Err = errors.Join(box.Err, err)
			}
			if box.Copies > 0 || box.Err != nil {
				found[i].Mailboxes = append(found[i].Mailboxes, box)
			}
		}
	}
	return found, err
}

func sent(m *Message) *doveadm.Sent {
	return &doveadm.Sent{MessageID: m.MessageID, QueueID: m.QueueID, Sender: m.Sender, Since: m.Time.Add(-time.Hour)}
}

// Remove deletes a message from where it was found. It looks again afterwards: what it returns is what is
// left.
func (s *Site) Remove(ctx context.Context, list []Message, found []Found) ([]Found, error) {
	var ids []string
	for i := range found {
		if found[i].Queued {
			ids = append(ids, list[i].QueueID)
		}
	}
	var fault error
	if len(ids) > 0 {
		fault = s.unqueue(ctx, ids)
	}
	for i := range found {
		for _, box := range found[i].Mailboxes {
			for _, d := range s.Dovecots {
				if err := d.Expunge(ctx, box.Account, sent(&list[i])); err != nil {
					fault = errors.Join(fault, err)
				}
			}
		}
	}
	left, err := s.Find(ctx, list)
	return left, errors.Join(fault, err)
}

// unqueue deletes messages from the queue.
func (s *Site) unqueue(ctx context.Context, ids []string) error {
	if len(s.Postsuper) == 0 {
		return errors.New("the queue cannot be changed: set mail.postsuper, or run postsuper -d for each message as root")
	}
	if _, err := ask(ctx, s.Postsuper, "delete", []string{"-d", "-"}, strings.Join(ids, "\n")+"\n"); err != nil {
		return fmt.Errorf("deleting from the queue: %w", err)
	}
	return nil
}
