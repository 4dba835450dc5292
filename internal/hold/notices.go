package hold

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/quotedprintable"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/drawbridge/drawbridge/internal/inject"
	"github.com/drawbridge/drawbridge/internal/store"
)

// maxAttached is the size up to which a held message is attached to the request for its approval,
// in bytes.
const maxAttached = 1 << 20

// notice is a message from the daemon.
type notice struct {
	id      string // the same when it is composed again, so that it is sent once
	from    string // the name of its author
	domain  string // it comes from its postmaster
	to      string
	subject string
	text    string
	attach  *Item // a held message; nil for none
}

// requests are the notices that ask the approvers of a message for their decisions.
func (k *Keeper) requests(item *Item) []*notice {
	a := item.Held
	var list []*notice
	for _, approver := range a.Approvers {
		var b strings.Builder
		fmt.Fprintf(&b, "A message waits for your approval.\n\nFrom:    %s\n", cmp.Or(line(item.Envelope.Sender), "<>"))
		for _, r := range item.Envelope.Recipients {
			fmt.Fprintf(&b, "To:      %s\n", line(r.Address))
		}
		fmt.Fprintf(&b, "Subject: %s\nSize:    %d bytes\nRule:    %s\n\n", line(a.Subject), item.Size, line(a.Rule))
		switch {
		case a.Release:
			fmt.Fprintf(&b, "Without a decision it is released at %s.\n", stamp(a.Expires))
		default:
			fmt.Fprintf(&b, "Without a decision it is rejected at %s.\n", stamp(a.Expires))
		}
		if a.All && len(a.Approvers) > 1 {
			fmt.Fprintf(&b, "All %d approvers have to approve.\n", len(a.Approvers))
		}
		if k.Link != nil {
			if link := k.Link(a.Domain, item.ID, approver, a.Expires); link != "" {
				fmt.Fprintf(&b, "\nDecide here:\n%s\n\nThe link is personal: whoever opens it can decide in your name. Do not forward it.\n", link)
			}
		}
		n := &notice{
			id: item.ID + "-" + shortSum(approver), domain: a.Domain, to: approver,
			subject: "Approval needed: " + line(a.Subject), text: b.String(),
		}
		if item.Size <= maxAttached {
			n.attach = item
			n.text += "\nThe message is attached.\n"
		}
		list = append(list, n)
	}
	return list
}

// rejected notifies the sender of a message that it was rejected.
func rejected(item *Item, text string) *notice {
	var b strings.Builder
	fmt.Fprintf(&b, "Your message was not approved. It was not sent to:\n\n")
	for _, r := range item.Envelope.Recipients {
		fmt.Fprintf(&b, "  %s\n", line(r.Address))
	}
	fmt.Fprintf(&b, "\nSubject: %s\n", line(item.Held.Subject))
	if text != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(lines(text)))
	}
	return &notice{
		id: item.ID + "-rejected", domain: item.Held.Domain, to: item.Held.Account,
		subject: "Not approved: " + line(item.Held.Subject), text: b.String(),
	}
}

// undelivered notifies the sender of a released message, or one sent apart, which recipients Postfix refused.
func undelivered(item *Item, refused map[string]*inject.Reply) *notice {
	text := "Your message was approved, but it cannot be delivered to:\n\n"
	if item.Kind == KindApart {
		text = "Your message cannot be delivered to:\n\n"
	}
	text += refusals(refused) +
		"\n\nSubject: " + line(item.Held.Subject) + "\n"
	return &notice{
		id: item.ID + "-" + shortSum(refusals(refused)), domain: item.Held.Domain, to: item.Held.Account,
		subject: "Undelivered: " + line(item.Held.Subject), text: text,
	}
}

// ForwardingRefused notifies the owner of a mailbox that its mail is not forwarded to a target.
func (k *Keeper) ForwardingRefused(domain, account, target string) error {
	return k.notify(&notice{
		id: store.NewID(), from: "Mail forwarding", domain: domain, to: account, subject: "Your mail is not forwarded",
		text: fmt.Sprintf("Mail to your address is set up to be forwarded automatically to\n\n  %s\n\n"+
			"A rule of %s does not permit that. Messages that only Sieve forwards stay in your mailbox; others are returned to\n"+
			"their senders. Remove the forwarding, or ask your administrator.\n\nYou get this notice once a day at most.\n", line(target), line(domain)),
	})
}

// refusals lists recipients with the server's replies.
func refusals(of map[string]*inject.Reply) string {
	var list []string
	for _, address := range slices.Sorted(maps.Keys(of)) {
		list = append(list, fmt.Sprintf("%s: %s", line(address), line(of[address].Error())))
	}
	return strings.Join(list, "; ")
}

// notify queues notices. Their envelope sender is the null sender, so that nothing bounces.
func (k *Keeper) notify(notices ...*notice) error {
	for _, n := range notices {
		if err := k.queueNotice(n); err != nil {
			return fmt.Errorf("queueing a notice: %w", err)
		}
	}
	return nil
}

func (k *Keeper) queueNotice(n *notice) error {
	text := k.Dir.NewText()
	defer text.Discard()
	eightBit, err := k.compose(text, n)
	if err != nil {
		return err
	}
	env := inject.Envelope{Recipients: []inject.Recipient{{Address: n.to, Params: []string{"NOTIFY=NEVER"}}}}
	if eightBit {
		env.Params = []string{"BODY=8BITMIME"}
	}
	return k.add(text, &Item{ID: n.id, Kind: KindNotice, State: Queued, Envelope: env})
}

// compose writes a notice as a message, and reports whether it has octets beyond ASCII.
func (k *Keeper) compose(w io.Writer, n *notice) (eightBit bool, err error) {
	var b bytes.Buffer
	field := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	field("From", cmp.Or(n.from, "Mail approval")+" <postmaster@"+line(n.domain)+">")
	field("To", "<"+line(n.to)+">")
	field("Subject", encode(n.subject))
	field("Date", time.Now().Format(time.RFC1123Z))
	field("Message-ID", "<"+n.id+"@"+line(k.Node)+">")
	field("Auto-Submitted", "auto-generated")
	field("MIME-Version", "1.0")
	boundary := "=_" + shortSum(n.id+time.Now().String()) // "=_" occurs in no quoted-printable text
	if n.attach != nil {
		field("Content-Type", `multipart/mixed; boundary="`+boundary+`"`)
		fmt.Fprintf(&b, "\r\n--%s\r\n", boundary)
	}
	field("Content-Type", "text/plain; charset=utf-8")
	field("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	_, _ = io.WriteString(q, strings.ReplaceAll(n.text, "\n", "\r\n"))
	_ = q.Close()
	if n.attach == nil {
		_, err := w.Write(b.Bytes())
		return false, err
	}
	text, err := k.Dir.Text(n.attach.ID)
	if err != nil {
		return false, err
	}
	defer func() { _ = text.Close() }()
	message, err := io.ReadAll(io.LimitReader(text, maxAttached))
	if err != nil {
		return false, err
	}
	eightBit = bytes.ContainsFunc(message, func(r rune) bool { return r > 0x7e })
	fmt.Fprintf(&b, "\r\n--%s\r\nContent-Type: message/rfc822\r\nContent-Disposition: attachment\r\n", boundary)
	if eightBit {
		field("Content-Transfer-Encoding", "8bit")
	}
	b.WriteString("\r\n")
	b.Write(message)
	fmt.Fprintf(&b, "\r\n--%s--\r\n", boundary)
	_, err = w.Write(b.Bytes())
	return eightBit, err
}

// encode returns the value of a header field: encoded words for what is not ASCII, folded.
func encode(text string) string {
	words := mime.QEncoding.Encode("utf-8", text)
	return strings.ReplaceAll(words, "?= =?", "?=\r\n =?")
}

// line returns a text on one line, without control characters, of bounded length.
func line(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
	if r := []rune(text); len(r) > 200 {
		text = string(r[:200]) + "..."
	}
	return text
}

// lines is the same for a text of several lines.
func lines(text string) string {
	list := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i := range list {
		list[i] = line(list[i])
	}
	return strings.Join(list, "\n")
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// shortSum names a text by some hex digits.
func shortSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}
