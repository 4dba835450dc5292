// Package notify sends notices to users by mail, and to a program of the site by a signed webhook.
//
// A notice is on the disk before Notify returns, and is sent behind it: nothing that happens to a mail
// server or a webhook delays a login. What cannot be sent is tried again, after pauses from a second to
// ten minutes, for three days.
//
//	POST /hook HTTP/1.1
//	Content-Type: application/json
//	X-Drawbridge-Signature: t=1796000000,v1=5257a869…
//
//	{"id":"…","event":"abnormal_login","time":"…","domain":"example.org","account":"ann@example.org","data":{…}}
//
// v1 is the HMAC-SHA-256 of "t.body" with the key, in hexadecimal. A receiver compares it, refuses old
// times, and answers 2xx; ids let it recognise what it has received before.
//
// # Diagnostics
//
// 4xx answers other than 408 and 429, and permanent answers of the mail server, end the attempts: the
// notice is dropped and logged. A mail that the server refuses for now, as it does for a mailbox that
// is full, is tried again apart from the others, which do not wait for it. A full queue drops its
// oldest notices, which is logged.
package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/inject"
)

// Notice is one event that somebody is to know of. Its JSON is the body of the webhook; ID distinguishes
// repetitions.
type Notice struct {
	ID      string    `json:"id"` // random
	Event   string    `json:"event"`
	Time    time.Time `json:"time"`
	Domain  string    `json:"domain"`
	Account string    `json:"account"`
	Data    any       `json:"data"` // for the webhook
	// Subject and Text are those of the mail to the account; no mail if Subject is "".
	Subject string `json:"-"`
	Text    string `json:"-"`
	// To are the addresses that get the mail in place of the account, such as a domain's administrators.
	To []string `json:"-"`
}

// Spool keeps texts on disk, oldest first, through restarts. Add returns how many of the oldest it dropped
// to stay within its bound.
type Spool interface {
	Len() int
	Add(text []byte) (dropped int, err error)
	First() ([]byte, error)
	Remove() error
}

const (
	firstPause, lastPause = time.Second, 10 * time.Minute
	giveUp                = 72 * time.Hour
	// laterEvery is the time between two attempts at texts that were deferred, unless an attempt at all
	// of them takes more than a laterShare of it.
	laterEvery = time.Minute
	laterShare = 20
)

var (
	// errPermanent: trying again does not help.
	errPermanent = errors.New("it is refused for good")
	// errDeferred: this text is refused for now; others may be accepted.
	errDeferred = errors.New("it is refused for now")
)

// Notifier sends notices by mail and by webhook. Either queue may be nil: then nothing is sent that way.
// It is safe for concurrent use.
type Notifier struct {
	Mail, Webhook *Queue
	Log           hclog.Logger
}

// Notify queues a notice for the mail and the webhook, and does not wait for either. What cannot be queued
// is logged.
func (n *Notifier) Notify(notice *Notice) {
	if n.Mail != nil && notice.Subject != "" {
		to := notice.To
		if len(to) == 0 {
			to = []string{notice.Account}
		}
		for _, address := range to {
			n.Mail.put(mailed{ID: notice.ID, Domain: notice.Domain, To: address, Subject: notice.Subject, Text: notice.Text, Time: notice.Time}, notice.Time)
		}
	}
	if n.Webhook != nil {
		n.Webhook.put(notice, notice.Time)
	}
}

// Run sends what is queued until ctx ends, also what was queued before a restart. Failures are tried again
// after 1 second to 10 minutes, for 72 hours.
func (n *Notifier) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, q := range []*Queue{n.Mail, n.Webhook} {
		if q != nil {
			running.Go(func() { q.run(ctx) })
		}
	}
	running.Wait()
}

// Queue is a spool of texts and what sends one. A text leaves the spool after it was sent, or when it is
// refused for good. One that is deferred waits in another spool, if there is one.
type Queue struct {
	name         string
	send         func(ctx context.Context, body []byte) error
	log          hclog.Logger
	mu           sync.Mutex
	spool, later *texts // later is nil if nothing is deferred
	wake         chan struct{}
	laterEvery   time.Duration
}

// texts is a spool that counts the texts that it dropped. The oldest one may be among them while it
// is being sent.
type texts struct {
	Spool
	dropped int
}

func (t *texts) add(text []byte) (dropped int, err error) {
	dropped, err = t.Add(text)
	t.dropped += dropped
	return dropped, err
}

// queued is a text of the spool.
type queued struct {
	At   time.Time       `json:"at"`
	Body json.RawMessage `json:"body"`
}

func newQueue(name string, spool Spool, log hclog.Logger, send func(context.Context, []byte) error) *Queue {
	return &Queue{name: name, send: send, log: log, spool: &texts{Spool: spool}, wake: make(chan struct{}, 1), laterEvery: laterEvery}
}

func (q *Queue) put(v any, at time.Time) {
	body, err := json.Marshal(v)
	if err == nil {
		body, err = json.Marshal(queued{at, body})
	}
	if err == nil {
		q.mu.Lock()
		var dropped int
		if dropped, err = q.spool.add(body); dropped > 0 {
			q.log.Warn("notices were dropped: too many wait", "to", q.name, "count", dropped)
		}
		q.mu.Unlock()
	}
	if err != nil {
		q.log.Error("a notice was lost", "to", q.name, "error", err)
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *Queue) run(ctx context.Context) {
	pause, later := firstPause, time.NewTimer(q.laterEvery)
	defer later.Stop()
	for {
		sent, err := q.first(ctx, q.spool)
		switch {
		case err != nil:
			q.log.Warn("a notice could not be sent, and is tried again", "to", q.name, "pause", pause, "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, lastPause)
		case sent:
			pause = firstPause
		default:
			select {
			case <-ctx.Done():
				return
			case <-q.wake:
			case begin := <-later.C:
				q.again(ctx)
				later.Reset(max(q.laterEvery, laterShare*time.Since(begin)))
			}
		}
	}
}

// again tries the deferred texts once.
func (q *Queue) again(ctx context.Context) {
	if q.later == nil {
		return
	}
	q.mu.Lock()
	n := q.later.Len()
	q.mu.Unlock()
	for range n {
		if sent, err := q.first(ctx, q.later); !sent || err != nil {
			return // the next notice says why
		}
	}
}

// first sends the oldest notice of a spool, or defers it. It reports false if there is none; after an
// error it stays.
func (q *Queue) first(ctx context.Context, from *texts) (done bool, err error) {
	q.mu.Lock()
	if from.Len() == 0 {
		q.mu.Unlock()
		return false, nil
	}
	text, err := from.First()
	dropped := from.dropped
	q.mu.Unlock()
	if err != nil {
		q.log.Error("a notice was lost", "to", q.name, "error", err)
		return true, nil // put aside
	}
	var item queued
	if err := json.Unmarshal(text, &item); err != nil {
		q.log.Error("a notice was lost", "to", q.name, "error", err)
	} else {
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		err := q.send(limited, item.Body)
		cancel()
		switch {
		case err == nil:
		case errors.Is(err, errPermanent), time.Since(item.At) > giveUp:
			q.log.Error("a notice was dropped", "to", q.name, "error", err)
		case errors.Is(err, errDeferred) && q.later != nil:
			q.log.Warn("a notice is refused for now, and is tried again", "to", q.name, "error", err)
			if err := q.deferText(text); err != nil {
				return false, err
			}
		default:
			return false, err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if from.dropped != dropped {
		return true, nil // it was among them
	}
	if err := from.Remove(); err != nil {
		q.log.Error("removing a notice from its queue", "to", q.name, "error", err)
	}
	return true, nil
}

// deferText puts a text at the end of those that are tried later.
func (q *Queue) deferText(text []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	dropped, err := q.later.add(text)
	if dropped > 0 {
		q.log.Warn("notices were dropped: too many wait", "to", q.name, "count", dropped)
	}
	return err
}

// NewWebhook returns the queue of a webhook, which gets each notice by POST, signed with the key. Answers
// 4xx but 408 and 429 drop it; redirects are not followed.
func NewWebhook(url string, key []byte, spool Spool, log hclog.Logger) *Queue {
	client := &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return newQueue("webhook", spool, log, func(ctx context.Context, body []byte) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return fmt.Errorf("%w: %w", errPermanent, err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Drawbridge-Signature", Sign(key, time.Now(), body))
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
		_ = resp.Body.Close()
		switch s := resp.StatusCode; {
		case s/100 == 2:
			return nil
		case s/100 == 4 && s != http.StatusRequestTimeout && s != http.StatusTooManyRequests:
			return fmt.Errorf("%w: it answered %s", errPermanent, resp.Status)
		}
		return fmt.Errorf("it answered %s", resp.Status)
	})
}

// Sign returns the signature of a body at a time, for the header X-Drawbridge-Signature: t=SECONDS,v1=HEX of
// HMAC-SHA-256 over "SECONDS." and the body.
func Sign(key []byte, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// mailed is a notice to an account.
type mailed struct {
	ID      string    `json:"id"`
	Domain  string    `json:"domain"`
	To      string    `json:"to"`
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
	Time    time.Time `json:"time"`
}

// NewMail returns the queue of mails that a client sends, with the null sender, so that nothing bounces. The
// node names this daemon in Message-IDs. Mails that the server defers wait in the second spool.
func NewMail(client *inject.Client, node string, spool, later Spool, log hclog.Logger) *Queue {
	q := newQueue("mail", spool, log, func(ctx context.Context, body []byte) error {
		var m mailed
		if err := json.Unmarshal(body, &m); err != nil {
			return fmt.Errorf("%w: %w", errPermanent, err)
		}
		// The null sender, so that nothing bounces.
		result, err := client.Send(ctx, &inject.Message{
			Envelope: inject.Envelope{Recipients: []inject.Recipient{{Address: m.To, Params: []string{"NOTIFY=NEVER"}}}},
			Pass:     inject.Pass{ID: m.ID, Notice: true}, Body: bytes.NewReader(m.compose(node)),
		})
		var reply *inject.Reply
		switch {
		case errors.As(err, &reply) && reply.Permanent():
			return fmt.Errorf("%w: %w", errPermanent, err)
		case reply != nil && reply.Code != 421: // which closes the connection to everybody
			return fmt.Errorf("%w: %w", errDeferred, err)
		case err != nil:
			return err
		case len(result.Refused) > 0:
			return fmt.Errorf("%w: %w", errPermanent, result.Refused[m.To])
		case len(result.Deferred) > 0:
			return fmt.Errorf("%w: %w", errDeferred, result.Deferred[m.To])
		}
		return nil
	})
	q.later = &texts{Spool: later}
	return q
}

// compose writes a notice as a message.
func (m *mailed) compose(node string) []byte {
	var b bytes.Buffer
	field := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	field("From", "<postmaster@"+line(m.Domain)+">")
	field("To", "<"+line(m.To)+">")
	field("Subject", strings.ReplaceAll(mime.QEncoding.Encode("utf-8", line(m.Subject)), "?= =?", "?=\r\n =?"))
	field("Date", m.Time.Format(time.RFC1123Z))
	field("Message-ID", "<"+line(m.ID)+"@"+line(node)+">")
	field("Auto-Submitted", "auto-generated")
	field("MIME-Version", "1.0")
	field("Content-Type", "text/plain; charset=utf-8")
	field("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	for text := range strings.SplitSeq(strings.TrimSuffix(m.Text, "\n"), "\n") {
		_, _ = io.WriteString(q, line(text)+"\r\n") // to memory
	}
	_ = q.Close()
	return b.Bytes()
}

// line returns a text on one line, without control characters.
func line(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
}
