package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// Schema is the version of the documents that this program writes. An older program refuses entries
// of a newer schema.
const Schema = 4

// Shard numbers a part of the store: domains are spread over [0, Global); documents that all
// domains share are in Global.
type Shard int

// Shards is the number of shards, Global among them.
const (
	Global Shard = 32
	Shards       = int(Global) + 1
)

// ShardOf returns the shard of a domain by a hash of its canonical name: 0 to 31, and never
// [Global]. Accounts are in their domain's.
func ShardOf(domain string) Shard {
	h := fnv.New32a()
	_, _ = h.Write([]byte(domain))
	return Shard(h.Sum32() % uint32(Global))
}

// Doc is one document: a key such as "account/ann@example.org" and its JSON. Rev is the number of
// the change that wrote it.
type Doc struct {
	Key  string          `json:"k"`
	Rev  uint64          `json:"r"`
	Body json.RawMessage `json:"b"`

	account Record // the same account, packed, if it is known; Redis' documents have it alone
}

// Head says how far a shard is: the number of its last change, and the hash that chains all changes
// up to it.
type Head struct {
	StoreID string
	N       uint64
	Hash    string // 32 hex digits
}

// Entry is one change of a shard.
type Entry struct {
	N      uint64     `json:"n"`
	Schema int        `json:"schema"`
	Puts   []Doc      `json:"puts,omitempty"`
	Dels   []string   `json:"dels,omitempty"`
	Audit  AuditEntry `json:"audit"`
	// Origin is random, of the daemon that made the change: equal changes that two daemons make at
	// the same time have different hashes.
	Origin string `json:"origin,omitempty"`
}

// Chain returns the head after an encoded entry that follows h.
func (h Head) Chain(payload []byte) Head {
	sum := sha256.New()
	sum.Write([]byte(h.Hash))
	sum.Write(payload)
	return Head{h.StoreID, h.N + 1, hex.EncodeToString(sum.Sum(nil)[:16])}
}

// The errors of a [Log] that callers distinguish.
var (
	// ErrUnavailable: Redis did not take the command or did not answer it. Nothing was
	// acknowledged; a change may be in effect all the same.
	ErrUnavailable = errors.New("the store cannot be reached")
	// ErrRefused is an ErrUnavailable: Redis answers and refuses the command, as with a full disk
	// (MISCONF), without memory (OOM) or as a replica (READONLY).
	ErrRefused error = refused{}
	// ErrDamaged: documents are missing, changed or added beside the changes of Drawbridge, or a
	// key in Redis is not of its type. Trying again does not help.
	ErrDamaged = errors.New("the store is damaged: run 'drawbridge store repair' against a daemon that was running before the damage")
	// ErrNothingToRepair: count and digest of every shard agree with its documents, so that a
	// repair has nothing to do.
	ErrNothingToRepair = errors.New("the store is not damaged: there is nothing to repair")
	// ErrCannotRepair: this daemon does not know the store's last change, so that its memory would
	// undo it. Another daemon may be able to repair.
	ErrCannotRepair = errors.New("this daemon does not hold the last change of the damaged shards in memory: repair from a daemon that does, restore a backup, or accept the documents that are left with 'drawbridge store adopt'")
	// ErrUnconfirmed: Redis took the change, and fewer replicas than store.min_replicas confirmed
	// it within a second. It is in effect.
	ErrUnconfirmed = errors.New("the change was not confirmed by enough replicas")
	// ErrConflict: another daemon changed the shard first. Nothing was written; the change is
	// decided again on the new state.
	ErrConflict = errors.New("the shard was changed by another daemon")
	// ErrForeign: the store that answers is not the one that this daemon knows: another, an empty
	// or an older one. An administrator may adopt it.
	ErrForeign = errors.New("the store is empty, older or another than the one known; see drawbridge store")
	// ErrNothingToAdopt: the store that answers is the one that this daemon knows, so that there is
	// nothing to adopt.
	ErrNothingToAdopt = errors.New("the store is the one known: there is nothing to adopt")
	// ErrBadCursor: the cursor of a list is not one that an earlier page returned. Cursors are
	// opaque: they must be passed on unchanged.
	ErrBadCursor = errors.New("the cursor is not one that was handed out: leave it out to begin anew")
	// ErrNoRecord: the domain has no login record of this id: it never had one, or the record is
	// older than records.retention.
	ErrNoRecord = errors.New("there is no such login record")
	// ErrGap: the change stream does not continue at the reader's position, because it was trimmed,
	// emptied or replaced: the shard is loaded again.
	ErrGap = errors.New("the change stream has a gap")
	// ErrNewerSchema: a newer version of Drawbridge wrote to the store in a form that this one
	// cannot read. Upgrade this daemon.
	ErrNewerSchema = fmt.Errorf("the store was written by a newer version of Drawbridge (this one knows schema %d): upgrade", Schema)
)

type refused struct{}

func (refused) Error() string { return "Redis refuses the command" }
func (refused) Unwrap() error { return ErrUnavailable }

// Received is one entry of a change stream as it was read, not yet compared with the chain of its
// shard.
type Received struct {
	N       uint64
	Payload []byte
	Hash    string
}

// Log is where changes become durable and are followed. It is safe for concurrent use; its errors
// wrap those above.
type Log interface {
	// Heads returns the head of every shard, the zero Head for one that is missing. damage wraps
	// [ErrDamaged] when a shard does not hold as many documents as its head says.
	Heads(ctx context.Context) (heads [Shards]Head, damage error, err error)
	// Load passes all documents of a shard as of the returned head to the function that begin
	// returns. It calls begin again when it restarts; a nil begin only verifies. With
	// [ErrDamaged] the documents are not those that belong to the head. A head before known, or one
	// that is seen not to follow it, is [ErrForeign]; the zero known is followed by all.
	Load(ctx context.Context, s Shard, known Head, begin func() (put func(Doc) error)) (Head, error)
	// Commit takes an encoded entry if the shard's head is still h. keepAudit is the audit entry's
	// JSON.
	Commit(ctx context.Context, s Shard, h Head, payload []byte, e *Entry, keepAudit []byte) error
	// Follow delivers the entries after the given numbers, in order per shard and several of one
	// shard at a time, until ctx ends, Redis fails, or deliver returns an error.
	Follow(ctx context.Context, after [Shards]uint64, deliver func(Shard, []Received) error) error
}

// Upkeep creates, examines and repairs shards, for administrators and the daemon's own checks. Its
// errors wrap those above.
type Upkeep interface {
	// Create begins an empty store with an id. It completes an interrupted call, and changes
	// nothing in a complete store.
	Create(ctx context.Context, storeID string) error
	// Probe reports whether Redis would take a change of the shard now, by a write that changes
	// nothing: nil if so, else the reason.
	Probe(ctx context.Context, s Shard, storeID string) error
	// Restore replaces a shard's documents by those given, if its head is still h or is missing.
	// The stream must not be ahead of h.
	Restore(ctx context.Context, s Shard, h Head, docs []Doc) error
	// Accept declares the documents that a damaged shard holds as correct: what is missing is lost.
	// An undamaged shard stays as it is.
	Accept(ctx context.Context, s Shard) error
}

// Servers says which servers hold the store.
type Servers struct {
	Mode      string // one of those below
	Masters   []Master
	Sentinels []Sentinel
	Policy    string // maxmemory-policy, of one that may delete documents if there is one
}

// Master is a server that takes changes.
type Master struct {
	Address    string // as clients reach it; "" if it does not say
	Replicas   int    // that are connected
	Policy     string // maxmemory-policy
	AppendOnly bool   // it writes an append-only file
	// AppendFsync is how often it does so durably: always, everysec or no; "" if it does not say.
	AppendFsync string
	// NeedsReplicas: it refuses changes while fewer than min-replicas-to-write replicas are connected.
	NeedsReplicas bool
	Fault         string // why it cannot be used, such as that it does not answer; "" for none
}

// Sentinel is a server that decides which server is the master.
type Sentinel struct {
	Address string
	Fault   string // why a failover is not possible by it; "" for none
}

// The modes of servers.
const (
	ModeSingle   = "single"
	ModeSentinel = "sentinel"
	ModeCluster  = "cluster"
)

// BatchID identifies a batch of login records: the numbers of an origin increase. A batch that was
// written is not written again. The zero BatchID identifies nothing.
type BatchID struct {
	Origin string `json:"origin"` // random, of one run of a daemon
	N      uint64 `json:"n"`      // from 1
}

// Batch is written as a whole: records of logins, how earlier ones ended, and records of
// messages.
type Batch struct {
	Records  []LoginRecord
	Closings []Closing
	Messages []mailflow.Record
}

// MessageQuery selects message records of a domain, newest first.
type MessageQuery struct {
	Domain     string
	Account    string
	Credential string // its id; messages that may have been sent with another one, too, are selected
	QueueID    string
	MessageID  string
	Verdict    string
	Rule       string
	Since      time.Time
	Until      time.Time
	Limit      int
	Cursor     string
}

// RecordQuery selects login records of a domain, newest first.
type RecordQuery struct {
	Domain  string
	Account string
	IP      string
	Outcome string
	Reason  string
	Policy  string
	Client  string // a client type
	Network netip.Prefix
	Region  string
	Device  string // a secure password's id or label, or an IMAP ID
	Hidden  Hidden
	// Abnormal selects abnormal logins only.
	Abnormal bool
	Since    time.Time
	Until    time.Time
	Limit    int    // 1 to 1000
	Cursor   string // "" or the next of an earlier answer
}

// Hidden is how pseudonymised records name what a query selects; "" where it selects none of them.
type Hidden struct {
	IP      string
	Network string // what the pseudonyms of its addresses begin with
	Device  string
}

// Filtered reports whether the query selects by more than the domain.
func (q *RecordQuery) Filtered() bool {
	all := RecordQuery{Domain: q.Domain, Limit: q.Limit, Cursor: q.Cursor}
	return *q != all
}

// AuditQuery selects audit entries, newest first.
type AuditQuery struct {
	Domain string    // "" for all
	Since  time.Time // zero for no lower bound
	Limit  int       // 1 to 1000
	Cursor string
}

// Event is something that the counters of all daemons want to know: a wrong secret, or a success.
// It holds keyed tokens, never secrets.
type Event struct {
	Place      string // in the order of all events; set when it is delivered
	Origin     string // the daemon that saw it
	Time       time.Time
	Kind       EventKind
	Token      uint64
	Account    string
	IP         string
	Protocol   string
	Service    string // of bind: what the login named, which may be evidence of a client type
	Credential string // of success and bind: a secure password's id, or CredentialMailbox
}

// EventKind is the kind of an event.
type EventKind string

// The kinds of events.
const (
	EventGuess   EventKind = "guess"   // a wrong secret
	EventSuccess EventKind = "success" // a verified one
	EventLift    EventKind = "lift"    // an administrator forgave the wrong secrets of Account or IP
	// EventBind: a submission session may now begin with the credential; where the next passdb
	// verifies it, this is not yet known.
	EventBind EventKind = "bind"
	// EventSpend: messages took Token from the bucket that Account names; Service is its rate.
	EventSpend EventKind = "spend"
	// EventSpends is the same for many buckets at once, which Account lists.
	EventSpends EventKind = "spends"
)

// Names for secrets other than secure passwords, where a credential is expected.
const (
	CredentialMailbox = "mailbox"
	CredentialMaster  = "master"
	// CredentialUnverified is a mailbox password that the next passdb has yet to verify.
	CredentialUnverified = "mailbox?"
)
