// Package withdraw deletes the messages that a credential sent: from Postfix' queue of this machine, and from the
// mailboxes of the site's accounts.
//
// Messages that left the site stay where they are; they are counted. A message is found by the records
// of sent messages, never by its own fields alone: in the queue by its queue id, in a mailbox by the
// queue id that Postfix wrote into its Received field, or in both by Message-ID and envelope sender: a
// message that was held, or that a content filter sent on, has another queue id.
package withdraw

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/textproto"
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
	Queued    []string  // its queue ids on this machine: several for one that was split on its way
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
	Postcat   []string // the command that prints a queued message's header, or the socket that does
	Dovecots  []Mailboxes
}

// arrivalSlack is how far the clock may be set back while a message is received.
const arrivalSlack = time.Minute

// Bounds of one search: of the queued messages whose header is read, and of those that cannot be read.
const (
	maxReads  = 1000
	maxFaults = 10
)

// queued is a message in the queue.
type queued struct {
	id      string
	arrived time.Time
	sender  string // MAIL FROM
}

// queue returns the messages in the queue of this machine.
func (s *Site) queue(ctx context.Context) ([]queued, error) {
	if len(s.Postqueue) == 0 {
		return nil, errors.New("the queue is not known: set mail.postqueue")
	}
	out, err := ask(ctx, s.Postqueue, "list", []string{"-j"}, "")
	if err != nil {
		return nil, fmt.Errorf("listing the queue: %w", err)
	}
	var list []queued
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var entry struct {
			ID      string `json:"queue_id"`
			Arrived int64  `json:"arrival_time"` // in seconds since 1970
			Sender  string `json:"sender"`
		}
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			return nil, fmt.Errorf("reading the queue: %w", err)
		}
		list = append(list, queued{id: entry.ID, arrived: time.Unix(entry.Arrived, 0), sender: entry.Sender})
	}
	return list, lines.Err()
}

// inQueue returns the queue ids of each message. After an error some are missing.
func (s *Site) inQueue(ctx context.Context, list []Message) ([][]string, error) {
	ids := make([][]string, len(list))
	queue, err := s.queue(ctx)
	if err != nil {
		return ids, err
	}
	recorded, resent, senders := s.byName(list)
	var faults []error
	reads := 0
	for _, q := range queue {
		known := false
		for _, i := range recorded[q.id] {
			// Postfix uses short queue ids again: what arrived later is another message, of anybody.
			if !q.arrived.After(list[i].Time.Add(arrivalSlack)) {
				ids[i], known = append(ids[i], q.id), true
			}
		}
		sender := strings.ToLower(q.sender)
		if first, ok := senders[sender]; known || !ok || q.arrived.Before(first.Add(-arrivalSlack)) {
			continue
		}
		if reads++; reads > maxReads {
			faults = append(faults, fmt.Errorf("the queue has more than %d messages of these senders: withdraw again", maxReads))
			break
		}
		messageID, err := s.messageID(ctx, q.id)
		if err != nil {
			if faults = append(faults, err); len(faults) == maxFaults {
				break
			}
		}
		for _, i := range resent[sentAs{sender, messageID}] {
			if !q.arrived.Before(list[i].Time.Add(-arrivalSlack)) {
				ids[i] = append(ids[i], q.id)
			}
		}
	}
	return ids, errors.Join(faults...)
}

// byName returns the messages by their queue id on this machine and by what they keep when they get
// another one, and when the first of each sender was sent.
func (s *Site) byName(list []Message) (recorded map[string][]int, resent map[sentAs][]int, senders map[string]time.Time) {
	recorded, resent, senders = map[string][]int{}, map[sentAs][]int{}, map[string]time.Time{}
	for i := range list {
		m := &list[i]
		if m.Node == s.Node {
			recorded[m.QueueID] = append(recorded[m.QueueID], i)
		}
		id, sender := sent(m).WholeMessageID(), strings.ToLower(m.Sender)
		if id == "" || sender == "" {
			continue
		}
		resent[sentAs{sender, id}] = append(resent[sentAs{sender, id}], i)
		if first, ok := senders[sender]; !ok || m.Time.Before(first) {
			senders[sender] = m.Time
		}
	}
	return recorded, resent, senders
}

// sentAs is what a message keeps when it gets another queue id.
type sentAs struct{ sender, messageID string }

// messageID reads the Message-ID of a queued message; "" if it has none, or is no longer there.
func (s *Site) messageID(ctx context.Context, id string) (string, error) {
	if len(s.Postcat) == 0 {
		return "", fmt.Errorf("the queued message %s may be one of these, and cannot be read: set mail.postcat", id)
	}
	out, err := ask(ctx, s.Postcat, "header", []string{"-qh", id}, id+"\n")
	if err != nil {
		return "", fmt.Errorf("the queued message %s may be one of these, and cannot be read (mail.postcat): %w", id, err)
	}
	// What Postfix calls the header has nothing else in it, and need not end with an empty line.
	header, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(out))).ReadMIMEHeader()
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("the header of the queued message %s: %w", id, err)
	}
	return strings.TrimSpace(header.Get("Message-Id")), nil
}

// Find looks where messages are. The error is that of the queue; the mailboxes are searched all the same.
func (s *Site) Find(ctx context.Context, list []Message) ([]Found, error) {
	ids, err := s.inQueue(ctx, list)
	found := make([]Found, len(list))
	for i := range list {
		m := &list[i]
		found[i].Queued = ids[i]
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
		ids = append(ids, found[i].Queued...)
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
