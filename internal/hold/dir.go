package hold

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/inject"
)

// State is how far a message in the directory is.
type State string

// The states of a message.
const (
	Held   State = "held"   // waits for a decision
	Queued State = "queued" // is to be sent
	// Sending: the end of its data is about to be sent. Whether the server accepted it is not known
	// before it answers.
	Sending State = "sending"
	// Accepted: our milter accepted the message from our own connection, and Postfix is storing it.
	Accepted State = "accepted"
	// Unconfirmed: the daemon was killed while Postfix stored the message. It is not sent again
	// unless an administrator approves it again.
	Unconfirmed State = "unconfirmed"
	Done        State = "done" // sent or rejected: only its files are left
)

// Kind says why a message is here.
type Kind string

// The kinds of messages.
const (
	KindHeld   Kind = "held"
	KindCopy   Kind = "copy"   // for a monitor
	KindNotice Kind = "notice" // to a sender or an approver
	KindApart  Kind = "apart"  // for some recipients, whose spam folder it is for
)

// Item is a message in the directory, without its text.
type Item struct {
	ID       string          `json:"id"`
	Kind     Kind            `json:"kind"`
	State    State           `json:"state"`
	Envelope inject.Envelope `json:"envelope"`
	Size     int64           `json:"size"`
	Digest   string          `json:"digest"` // of envelope and text: a client that sends again is recognised by it
	Created  time.Time       `json:"created"`
	// Login and IP are those of the client that sent the message.
	Login string     `json:"login,omitempty"`
	IP    netip.Addr `json:"ip,omitzero"`
	// Trace is the field that names client and credential, as the milter adds it; "" for none.
	Trace string `json:"trace,omitempty"`
	// Rules are ids of the rules that do not hold the message again.
	Rules []string `json:"rules,omitempty"`
	// QueueID is Postfix's, of the message as it was accepted when it was sent.
	QueueID string `json:"queue_id,omitempty"`
	// ByMilter: our milter sees what is sent, so that a message in state Sending was not accepted.
	ByMilter bool   `json:"by_milter,omitempty"`
	Trouble  string `json:"trouble,omitempty"` // why Postfix refused it
	// Spam: it is for the spam folders of its recipients.
	Spam bool   `json:"spam,omitempty"`
	Held *About `json:"held,omitempty"` // of KindHeld and KindApart
}

// About is what approvers decide about.
type About struct {
	Domain    string    `json:"domain"`            // that of the rule
	Rule      string    `json:"rule"`              // its id
	Account   string    `json:"account,omitempty"` // the authenticated submitter; "" for none
	From      string    `json:"from"`
	Subject   string    `json:"subject"`
	MessageID string    `json:"message_id,omitempty"`
	Approvers []string  `json:"approvers,omitempty"`
	All       bool      `json:"all,omitempty"`     // all approvers are needed
	Release   bool      `json:"release,omitempty"` // when it expires
	Expires   time.Time `json:"expires"`
}

// Dir is a directory of messages. A message is a text (ID.eml) and an item (ID.json). What a method
// wrote is on the disk when it returns. One process uses a directory at a time; the methods that
// concern one message must not run at the same time.
type Dir struct {
	path string
	lock *os.File
}

// OpenDir opens a directory, which is created if it is missing, and removes texts that were never
// completed.
func OpenDir(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(path, "lock"))
	if err != nil {
		return nil, err
	}
	d := &Dir{path, lock}
	entries, err := os.ReadDir(path)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		id, text := strings.CutSuffix(name, textSuffix)
		_, missing := os.Stat(d.file(id, itemSuffix))
		if strings.HasPrefix(name, newPrefix) || text && errors.Is(missing, fs.ErrNotExist) {
			if err := os.Remove(filepath.Join(path, name)); err != nil {
				_ = lock.Close()
				return nil, err
			}
		}
	}
	return d, nil
}

// Close lets another process use the directory.
func (d *Dir) Close() error { return d.lock.Close() }

const (
	newPrefix  = ".new-"
	textSuffix = ".eml"
	itemSuffix = ".json"
)

func (d *Dir) file(id, suffix string) string { return filepath.Join(d.path, id+suffix) }

// Items returns all messages. Items that cannot be read are in the error; the others are returned
// all the same.
func (d *Dir) Items() ([]*Item, error) {
	names, err := filepath.Glob(filepath.Join(d.path, "*"+itemSuffix))
	if err != nil {
		return nil, err
	}
	var items []*Item
	var faults []error
	for _, name := range names {
		b, err := os.ReadFile(name)
		item := &Item{}
		if err == nil {
			err = json.Unmarshal(b, item)
		}
		if err == nil && item.ID+itemSuffix != filepath.Base(name) {
			err = errors.New("it has the id of another message")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
			continue
		}
		items = append(items, item)
	}
	return items, errors.Join(faults...)
}

// Text opens the text of a message.
func (d *Dir) Text(id string) (*os.File, error) { return os.Open(d.file(id, textSuffix)) }

// Put writes an item. Its text must be there.
func (d *Dir) Put(item *Item) error {
	b, err := json.Marshal(item)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(d.path, newPrefix) // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), d.file(item.ID, itemSuffix)); err != nil {
		return err
	}
	return d.sync()
}

// RemoveText deletes the text of a message, and leaves the item.
func (d *Dir) RemoveText(id string) error { return os.Remove(d.file(id, textSuffix)) }

// HasText reports whether a message has a text.
func (d *Dir) HasText(id string) bool {
	_, err := os.Stat(d.file(id, textSuffix))
	return !errors.Is(err, fs.ErrNotExist)
}

// Forget deletes an item that has no text. Whether it is gone after a crash does not matter.
func (d *Dir) Forget(id string) error { return os.Remove(d.file(id, itemSuffix)) }

// Remove deletes a message: the item first, so that a text never counts without it.
func (d *Dir) Remove(id string) error {
	err := os.Remove(d.file(id, itemSuffix))
	if err == nil {
		err = d.sync()
	}
	return errors.Join(err, os.Remove(d.file(id, textSuffix)))
}

// sync makes changes of names durable.
func (d *Dir) sync() error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Text is a text that is being received. Writes after an error do nothing, and Commit returns it.
type Text struct {
	dir  *Dir
	file *os.File
	out  *bufio.Writer
	sum  hash.Hash
	size int64
	err  error
}

// NewText begins a text. Commit or Discard must follow.
func (d *Dir) NewText() *Text {
	f, err := os.CreateTemp(d.path, newPrefix)
	t := &Text{dir: d, file: f, sum: sha256.New(), err: err}
	if err == nil {
		t.out = bufio.NewWriterSize(f, 64<<10)
	}
	return t
}

// Write adds to the text, whose lines end in CRLF. After an error of the disk, all further writes
// return the same error.
func (t *Text) Write(b []byte) (int, error) {
	_, _ = t.sum.Write(b)
	if t.err != nil {
		return 0, t.err
	}
	t.size += int64(len(b))
	_, t.err = t.out.Write(b)
	return len(b), t.err
}

// Digest returns the hash of the envelope and the text so far.
func (t *Text) Digest(e *inject.Envelope) string {
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%x\n%s\n", t.sum.Sum(nil), e.Sender)
	for _, r := range e.Recipients {
		_, _ = fmt.Fprintln(sum, r.Address)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Commit makes the text durable under the ids of items, and then the items. After an error there is
// none of them; the text can be discarded.
func (t *Text) Commit(items ...*Item) error {
	if t.err == nil {
		t.err = errors.Join(t.out.Flush(), t.file.Sync())
	}
	if t.err != nil {
		return t.err
	}
	for i, item := range items {
		item.Size = t.size
		err := os.Link(t.file.Name(), t.dir.file(item.ID, textSuffix))
		if err == nil {
			err = t.dir.Put(item)
		}
		if err != nil {
			for _, done := range items[:i+1] {
				_ = t.dir.Remove(done.ID)
			}
			return err
		}
	}
	return nil
}

// Discard ends the text, committed or not, and removes what was not committed. It is to be deferred
// right after [Dir.NewText].
func (t *Text) Discard() {
	if t.file != nil {
		_ = t.file.Close()
		_ = os.Remove(t.file.Name())
	}
}

var _ io.Writer = (*Text)(nil)
